//! Idle: connections that only answer pings. What each costs the server in memory and CPU.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use loadgen::ring::{Completion, Ring, TaskWork};

use crate::connection::Connection;
use crate::drive::{Drive, drive};
use crate::options::Idle;
use crate::report::{Load, Report};
use crate::run::{self, Progress, Tally, Window};
use crate::schedule::Schedule;
use crate::stream::Stream;
use crate::usage::Memory;
use crate::ways::Ways;
use crate::{setup, socket};

/// Runs the load and reports.
pub(crate) fn run(options: &Idle) -> Result<Report> {
    ensure!(0 < options.connections, "--connections must be at least 1");
    let pid = options
        .common
        .pid
        .context("idle needs --pid, the server's process id")?
        .to_string();
    let target = options.common.target(&options.path)?;
    for _ in 0..options.prime.div_ceil(PRIMED_AT_ONCE) {
        drop(target.open(PRIMED_AT_ONCE, |_| ())?);
    }
    std::thread::sleep(SETTLE);
    let before = Memory::of(&pid)?;
    let mut streams = setup::open(&target, options.connections)?;
    if !options.topic.is_empty() {
        let subscribe = socket::subscribe_frame(&options.topic, &options.common.ways);
        streams
            .iter_mut()
            .try_for_each(|stream| socket::exchange(stream, &subscribe))?;
    }
    let measured = run::measure(
        &options.common,
        vec![Box::new(|window: Window, progress: &Progress| {
            hold((streams, &options.common.ways), window, progress, || {
                Memory::of(&pid)
            })
        })],
    )?;
    let load = Load::held("idle", &options.path, options.connections);
    Report::new(&options.common, load, &measured).with_memory_since(&before, &measured)
}

/// Connections that answer pings.
struct Held {
    ring: Ring,
    connections: Vec<Connection>,
    messages: u64,
}

impl Drive for Held {
    fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    fn messages(&self) -> u64 {
        self.messages
    }

    fn schedule(&mut self) -> Option<&mut Schedule> {
        None
    }

    fn handle_received(&mut self, completion: &Completion) -> Result<()> {
        let connection = &mut self.connections[completion.id as usize];
        let messages = &mut self.messages;
        connection.take(&mut self.ring, completion, |_| *messages += 1)
    }

    fn handle_sent(&mut self, _: &Completion) -> Result<()> {
        bail!("a send that an idle run never starts")
    }
}

/// Holds the connections to the end of the run and reads the server's memory before they close.
fn hold(
    (streams, ways): (Vec<Stream>, &Ways),
    window: Window,
    progress: &Progress,
    memory: impl FnOnce() -> Result<Memory>,
) -> Result<Tally> {
    let mut ring = Ring::new(TaskWork::Deferred, BUFFER_BYTES, streams.len())?;
    let mut connections = Vec::with_capacity(streams.len());
    for (stream, id) in streams.into_iter().zip(0..) {
        connections.push(Connection::arm(stream, ways, &mut ring, id)?);
    }
    let messages = 0;
    let mut held = Held {
        ring,
        connections,
        messages,
    };
    drive(window, &mut held, progress)?;
    Ok(Tally {
        messages: held.messages,
        memory: Some(memory()?),
        ..Tally::default()
    })
}

/// Few, so that what a server keeps for each connection does not grow beforehand.
const PRIMED_AT_ONCE: usize = 32;
/// The server needs a moment to see that the first connections are gone.
const SETTLE: Duration = Duration::from_millis(500);
const BUFFER_BYTES: usize = 4 << 10;
