//! Idle: connections that only answer pings. What each costs the server in memory and CPU.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use loadgen::ring::{Kind, Ring, TaskWork};

use crate::clock::Nanos;
use crate::connection::Connection;
use crate::options::Idle;
use crate::report::{Load, Report};
use crate::run::{self, Progress, Tally};
use crate::setup;
use crate::usage::Memory;

/// Runs the load and reports.
pub(crate) fn run(options: &Idle) -> Result<Report> {
    ensure!(0 < options.connections, "--connections must be at least 1");
    let pid = options
        .common
        .pid
        .context("idle needs --pid, the server's process id")?
        .to_string();
    let target = options.common.target(&options.path);
    for _ in 0..options.prime.div_ceil(PRIMED_AT_ONCE) {
        drop(target.open(PRIMED_AT_ONCE, |_| ())?);
    }
    std::thread::sleep(SETTLE);
    let before = Memory::of(&pid)?;
    let streams = setup::open(&target, options.connections)?;
    let measured = run::measure(
        &options.common,
        vec![Box::new(|_, progress: &Progress| {
            hold(streams, progress, || Memory::of(&pid))
        })],
    )?;
    let after = measured
        .tally
        .memory
        .context("the connections were not held to the end")?;
    let load = Load {
        mode: "idle",
        unit: "message",
        path: options.path.clone(),
        connections: options.connections,
        at_once: 0,
        message_bytes: 0,
        offered_per_second: None,
    };
    let memory = after.per_connection_since(&before, options.connections as u64);
    Ok(Report::new(&options.common, load, &measured).with_memory(Some(memory)))
}

/// Holds the connections to the end of the run and reads the server's memory before they close.
fn hold(
    streams: Vec<TcpStream>,
    progress: &Progress,
    memory: impl FnOnce() -> Result<Memory>,
) -> Result<Tally> {
    let mut ring = Ring::new(TaskWork::Deferred, BUFFER_BYTES, streams.len())?;
    let mut connections = Vec::with_capacity(streams.len());
    for (stream, id) in streams.into_iter().zip(0..) {
        connections.push(Connection::arm(stream, &mut ring, id)?);
    }
    let mut messages = 0;
    while !progress.has_ended() {
        ring.wait(Duration::from_nanos(WAIT_MAX))?;
        let completions = ring.completions();
        for completion in &completions {
            if completion.kind != Kind::Receive {
                bail!("an operation that an idle run never starts");
            }
            let connection = &mut connections[completion.id as usize];
            connection.take(&mut ring, completion, |_| messages += 1)?;
        }
        ring.recycle(completions);
    }
    Ok(Tally {
        messages,
        memory: Some(memory()?),
        ..Tally::default()
    })
}

/// Few, so that what a server keeps for each connection does not grow beforehand.
const PRIMED_AT_ONCE: usize = 32;
/// The server needs a moment to see that the first connections are gone.
const SETTLE: Duration = Duration::from_millis(500);
const BUFFER_BYTES: usize = 4 << 10;
const WAIT_MAX: Nanos = 50_000_000;
