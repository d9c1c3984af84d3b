//! Published Rust peers to compare with, and the comparison itself. See `--help`.

mod compare;
mod peers;
mod sync;

use anyhow::Result;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Peers of Tidegate, each on one thread, and a comparison that runs them side by side.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Run one peer; its first line on stdout says where it listens.
    #[command(subcommand)]
    Serve(peers::Peer),
    /// Run server and load generator side by side, contestants in turn, and print Markdown.
    Compare(compare::Options),
    /// Time one durable batch: linked write and fdatasync against RWF_DSYNC.
    Sync(sync::Options),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Serve(peer) => peer.serve(),
        Command::Compare(options) => compare::run(&options),
        Command::Sync(options) => sync::run(&options),
    }
}
