//! Stall: subscribers of a relay topic that never read. What they cost the server in memory, while
//! another load publishes there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::options::Stall;
use crate::report::{Load, Report};
use crate::run::{self, Progress, Tally};
use crate::usage::Memory;
use crate::{setup, socket};

/// Runs the load and reports.
pub(crate) fn run(options: &Stall) -> Result<Report> {
    ensure!(0 < options.connections, "--connections must be at least 1");
    options.common.refuse_ways("stall")?;
    let pid = options.common.pid;
    let pid = pid
        .context("stall needs --pid, the server's process id")?
        .to_string();
    let before = Memory::of(&pid)?;
    let mut streams = setup::open(&options.common.target(&options.path)?, options.connections)?;
    let subscribe = socket::subscribe_frame(&options.topic, &options.common.ways);
    streams
        .iter_mut()
        .try_for_each(|stream| socket::exchange(stream, &subscribe))?;
    let hold = |_: run::Window, progress: &Progress| {
        while !progress.has_ended() {
            std::thread::sleep(LOOKED_EVERY);
        }
        let memory = Some(Memory::of(&pid)?);
        drop(streams);
        Ok(Tally {
            memory,
            ..Tally::default()
        })
    };
    let measured = run::measure(&options.common, vec![Box::new(hold)])?;
    let load = Load::held("stall", &options.path, options.connections);
    Report::new(&options.common, load, &measured).with_memory_since(&before, &measured)
}

const LOOKED_EVERY: Duration = Duration::from_millis(50);
