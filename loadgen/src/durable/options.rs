//! The command line of the durable loads. Knows what may be asked, not how it is done.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::options::{Common, positive};

/// The kinds of load on durable topics.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Publishers that keep so many publishes un-acked, or publish at a fixed rate: acks a second
    /// and the time to the ack.
    Publish(Publish),
    /// Many topics, each made and published to once: the time, and files and maps of the server.
    Topics(Topics),
    /// Subscribers that read a topic from its beginning: bytes a second.
    Replay(Replay),
    /// Subscribers that do not read while a backlog grows for them: the memory that each costs and
    /// what their neighbour still gets.
    Stalled(Stalled),
}

impl Mode {
    /// What every mode takes.
    pub(crate) fn common(&self) -> &Common {
        &self.place().common
    }

    fn place(&self) -> &Place {
        match self {
            Self::Publish(publish) => &publish.place,
            Self::Topics(topics) => &topics.place,
            Self::Replay(replay) => &replay.place,
            Self::Stalled(stalled) => &stalled.place,
        }
    }
}

/// Where the topics are.
#[derive(Debug, Args)]
pub(crate) struct Place {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Path of the durable mount.
    #[arg(long, default_value = "/v1/ws")]
    pub(crate) path: String,
    /// The server's data directory: fdatasync of its file system is timed before and after the
    /// run, in a file of its own that is removed at the end.
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Names of topics begin so; a name that exists is used again.
    #[arg(long, default_value = "bench")]
    pub(crate) topic: String,
}

/// Options of `durable publish`.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Publishes without an ack, of all connections together.
    #[arg(long, short = 'i', default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) in_flight: u32,
    /// Publishers; not more than are in flight.
    #[arg(long, short = 'n', default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections: u16,
    /// Topics that the publishers share between them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) topics: u16,
    /// Bytes of the payload.
    #[arg(long, short = 'b', default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) bytes: u32,
    /// Open loop: publishes a second over all connections, each sent when it is due.
    #[arg(long, value_parser = positive)]
    pub(crate) rate: Option<f64>,
}

/// Options of `durable topics`.
#[derive(Debug, Args)]
pub(crate) struct Topics {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Topics to make and to publish to.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) count: u32,
}

/// Options of `durable replay`.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Subscribers, all of one topic.
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections: u16,
    /// MiB of payload that each reads.
    #[arg(long, default_value_t = 256)]
    pub(crate) mib: u32,
    /// Bytes of one payload.
    #[arg(long, short = 'b', default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) bytes: u32,
    /// How often each of them does.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// The topic was filled before, by a run with the same --topic, --mib and --bytes.
    #[arg(long)]
    pub(crate) filled: bool,
    /// Un-acked messages that a subscriber allows.
    #[arg(long, default_value_t = 4096)]
    pub(crate) window: u32,
}

/// Options of `durable stalled`.
#[derive(Debug, Args)]
pub(crate) struct Stalled {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Subscribers that stall: more tell what one costs from what the allocator does beside it.
    #[arg(long, short = 'n', default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections: u16,
    /// MiB of payload of each of three parts: before, without and with them.
    #[arg(long, default_value_t = 200)]
    pub(crate) mib: u32,
    /// Bytes of one payload.
    #[arg(long, short = 'b', default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) bytes: u32,
}
