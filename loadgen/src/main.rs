//! The load generator of Tidegate: many connections from few threads, on io_uring, cheaper than
//! the server that it measures. See `--help`.

mod clock;
mod connect;
mod connection;
mod echo;
mod fanout;
mod frame;
mod idle;
mod latency;
mod options;
mod report;
mod run;
mod schedule;
mod setup;
mod socket;
mod usage;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::options::{Mode, Options};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match perform(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn perform(options: &Options) -> Result<ExitCode> {
    let common = options.mode.common();
    run::pin(common.cpu)?;
    let report = match &options.mode {
        Mode::Echo(echo) => echo::run(echo),
        Mode::Fanout(fanout) => fanout::run(fanout),
        Mode::Idle(idle) => idle::run(idle),
        Mode::Connect(connect) => connect::run(connect),
    }?;
    let text = if common.json {
        serde_json::to_string(&report)?
    } else {
        report.to_string()
    };
    show(&text);
    Ok(if report.must_be_thrown_away() {
        THROWN_AWAY.into()
    } else {
        ExitCode::SUCCESS
    })
}

#[expect(clippy::print_stderr, reason = "the end of a command line program")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn show(text: &str) {
    println!("{text}");
}

const THROWN_AWAY: u8 = 2;
