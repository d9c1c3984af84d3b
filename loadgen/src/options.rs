//! The command line of the load generator. Knows what may be asked, not how it is done.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::durable;
use crate::frame;
use crate::scenario;
use crate::seal;
use crate::socket::Target;
use crate::ways::Ways;

/// Load for a WebSocket server, and what it cost that server.
///
/// Run it on a core of its own beside the server's (--cpu 1), give it the server's process id
/// (--pid) and read `server`: CPU nanoseconds per message, the least noisy figure there is.
/// Without --rate a run is a closed loop, right for the highest rate and for CPU per message;
/// with --rate it is an open loop whose latencies count from the moment at which a message was
/// due, so that a server that stalls cannot hide it. A run that cannot be trusted says
/// THROW AWAY, why, and exits with 2.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// A load, or a scenario of loads.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[command(flatten)]
    Load(Mode),
    /// A scenario: steps of load, and a page with pictures of what they came to.
    Run(scenario::Run),
}

const EXAMPLES: &str = "\
Examples:
  taskset -c 0 tidegate serve --dev --listen 127.0.0.1:9000 &
  loadgen echo    --server 127.0.0.1:9000 --connections 100 --depth 16 --pid $! --cpu 1
  loadgen echo    --server 127.0.0.1:9000 --connections 500 --rate 50000 --seconds 15
  loadgen fanout  --server 127.0.0.1:9000 --connections 1000 --burst 8 --token $TOKEN --pid $!
  loadgen idle    --server 127.0.0.1:9000 --connections 15000 --pid $!
  loadgen connect --server 127.0.0.1:9000 --rate 500 --token $TOKEN
  loadgen echo    --server 127.0.0.1:9443 --tls cert.pem --deflate --bytes 1024
  loadgen idle    --server 127.0.0.1:9000 --socketio --pid $!
  loadgen durable publish --in-flight 256 --data-dir DIR --token $TOKEN --pid $!
  loadgen durable topics  --count 20000 --data-dir DIR --token $TOKEN --pid $!
  loadgen durable replay  --mib 256 --bytes 1024 --token $TOKEN --pid $!
  loadgen durable stalled --mib 200 --token $TOKEN --pid $!
  loadgen run loadgen/scenarios/chat_rooms.toml --start target/dist/tidegate --cpu 1 --report report.html";

/// The kinds of load.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Messages that the server returns, on every connection.
    Echo(Echo),
    /// One publisher, many subscribers of one relay topic; the publisher is one of them.
    Fanout(Fanout),
    /// Connections that do nothing: what each costs in memory and CPU.
    Idle(Idle),
    /// Connections that come, upgrade, subscribe and go, at a fixed rate.
    Connect(Connect),
    /// Subscribers of a relay topic that never read: what each costs in memory.
    Stall(Stall),
    /// Topics on disk: publishes that are acked after their sync, replay, backlogs.
    #[command(subcommand)]
    Durable(durable::Mode),
}

impl Echo {
    /// What each message carries, and how it is framed.
    pub(crate) fn payload(&self) -> (u8, Vec<u8>) {
        let ways = &self.common.ways;
        match &self.message {
            Some(text) => (frame::TEXT, text.clone().into_bytes()),
            None if ways.socketio => (frame::TEXT, event("message", self.bytes, ways)),
            None if ways.deflate => (frame::TEXT, ways.filler(self.bytes).into_bytes()),
            None => {
                let opcode = if self.text {
                    frame::TEXT
                } else {
                    frame::BINARY
                };
                (opcode, (b'!'..b'~').cycle().take(self.bytes).collect())
            }
        }
    }
}

/// An event of Socket.IO of so many bytes, or as few as it can have.
fn event(name: &str, bytes: usize, ways: &Ways) -> Vec<u8> {
    let frame_bytes = format!(r#"42["{name}",""]"#).len();
    let text = ways.filler(bytes.saturating_sub(frame_bytes));
    format!(r#"42["{name}","{text}"]"#).into_bytes()
}

impl Mode {
    /// What every mode takes.
    pub(crate) fn common(&self) -> &Common {
        match self {
            Self::Echo(echo) => &echo.common,
            Self::Fanout(fanout) => &fanout.common,
            Self::Idle(idle) => &idle.common,
            Self::Connect(connect) => &connect.common,
            Self::Stall(stall) => &stall.common,
            Self::Durable(mode) => mode.common(),
        }
    }
}

/// Options of `echo`.
#[derive(Debug, Args)]
pub(crate) struct Echo {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Path of the echo mount.
    #[arg(
        long,
        default_value = "/echo",
        default_value_if("socketio", "true", "/socket.io/")
    )]
    pub(crate) path: String,
    /// Open connections.
    #[arg(long, short = 'n', default_value_t = 100)]
    pub(crate) connections: usize,
    /// Messages that each connection sends at once; the next ones go when all have come back.
    #[arg(long, short = 'd', default_value_t = 1, conflicts_with = "rate", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) depth: u16,
    /// Payload bytes of a message.
    #[arg(long, short = 'b', default_value_t = 64)]
    pub(crate) bytes: usize,
    /// Open loop: messages a second over all connections, each sent when it is due.
    #[arg(long, value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// Threads; the first runs on --cpu, the others on the cores behind it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) threads: u8,
    /// Send text frames instead of binary ones.
    #[arg(long)]
    pub(crate) text: bool,
    /// Send this text in place of so many bytes; its answer must have as many.
    #[arg(long, conflicts_with = "bytes")]
    pub(crate) message: Option<String>,
    /// The server is plain TCP and returns the bytes it gets: the floor below any WebSocket.
    #[arg(long)]
    pub(crate) raw: bool,
}

/// Options of `fanout`.
#[derive(Debug, Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Path of the relay mount.
    #[arg(
        long,
        default_value = "/ws",
        default_value_if("socketio", "true", "/socket.io/")
    )]
    pub(crate) path: String,
    /// Subscribers.
    #[arg(long, short = 'n', default_value_t = 1000)]
    pub(crate) connections: usize,
    /// Messages that the publisher sends at once; the next ones go when every subscriber has
    /// got all of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) burst: u16,
    /// Bytes of the `push` message that each subscriber gets, its envelope included.
    #[arg(long, short = 'b', default_value_t = 128)]
    pub(crate) bytes: usize,
    /// Bursts of a topic on their way at once; the next one goes when every subscriber has got one.
    #[arg(long, default_value_t = 1, conflicts_with = "rate", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) window: u16,
    /// Open loop: published messages a second, sent in bursts when they are due.
    #[arg(long, value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// The topic.
    #[arg(long, default_value = "bench")]
    pub(crate) topic: String,
    /// Topics, each with a publisher and an equal part of the subscribers, named `TOPIC-0`, `TOPIC-1`, ..
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) topics: u32,
}

/// Options of `idle`.
#[derive(Debug, Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Path of any mount.
    #[arg(
        long,
        default_value = "/echo",
        default_value_if("socketio", "true", "/socket.io/")
    )]
    pub(crate) path: String,
    /// Open connections.
    #[arg(long, short = 'n', default_value_t = 15_000)]
    pub(crate) connections: usize,
    /// Relay topic that each subscribes to; empty = none.
    #[arg(long, default_value = "")]
    pub(crate) topic: String,
    /// Connections opened and closed before memory is first read, a few at a time, so that
    /// receive buffers shared by all are touched once and not billed to the idle ones.
    #[arg(long, default_value_t = 4096)]
    pub(crate) prime: usize,
}

/// Options of `connect`.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Path of the relay mount.
    #[arg(
        long,
        default_value = "/ws",
        default_value_if("socketio", "true", "/socket.io/")
    )]
    pub(crate) path: String,
    /// Connections a second, each begun when it is due.
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    pub(crate) rate: f64,
    /// Topic to subscribe to; empty = close after the upgrade.
    #[arg(long, default_value = "bench")]
    pub(crate) topic: String,
    /// In place of subscribing: messages of 64 bytes that the server returns, one after another.
    #[arg(long, default_value_t = 0)]
    pub(crate) echoes: u32,
}

/// Options of `stall`.
#[derive(Debug, Args)]
pub(crate) struct Stall {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Path of the relay mount.
    #[arg(long, default_value = "/ws")]
    pub(crate) path: String,
    /// Subscribers that do not read.
    #[arg(long, short = 'n', default_value_t = 50)]
    pub(crate) connections: usize,
    /// The topic.
    #[arg(long, default_value = "bench")]
    pub(crate) topic: String,
}

/// What every mode takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Address of the server.
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub(crate) server: SocketAddr,
    /// Sent as `Authorization: Bearer`.
    #[arg(long, env = "LOADGEN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Measured seconds.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    pub(crate) seconds: f64,
    /// Seconds of load before measuring.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub(crate) warmup: f64,
    /// Core to run on.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Process id of the server, to read its CPU time and memory from /proc.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    #[command(flatten)]
    pub(crate) ways: Ways,
    /// Loopback addresses 127.1.x.1, .2, .. to connect from; 0 = as many as are needed.
    #[arg(long, default_value_t = 0)]
    pub(crate) sources: u8,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Common {
    /// Where to connect.
    pub(crate) fn target(&self, path: &str) -> Result<Target> {
        let trust = self.ways.tls.as_deref().map(seal::trust).transpose()?;
        Ok(Target {
            server: self.server,
            path: path.to_owned(),
            token: self.token.clone(),
            raw: false,
            sources: self.sources,
            ways: self.ways.clone(),
            trust,
        })
    }

    /// Says so where a mode cannot be spoken otherwise than plainly.
    pub(crate) fn refuse_ways(&self, mode: &str) -> Result<()> {
        let Ways {
            tls,
            deflate,
            socketio,
        } = &self.ways;
        ensure!(
            tls.is_none() && !deflate && !socketio,
            "{mode} knows no --tls, --deflate and --socketio: echo, fanout, idle and connect do"
        );
        Ok(())
    }
}

pub(crate) fn positive(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if 0.0 < value && value <= VALUE_MAX => Ok(value),
        _ => Err(format!(
            "{text} is not a number above 0 and up to {VALUE_MAX}"
        )),
    }
}

const VALUE_MAX: f64 = 1e9;
