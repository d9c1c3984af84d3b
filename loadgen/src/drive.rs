//! The loop of a thread of load: what is due goes out, what comes is handled, until the run has
//! ended. Knows the ring and the clock, not what the load is.

use std::time::Duration;

use anyhow::{Result, bail};
use loadgen::ring::{Completion, Kind, Ring};

use crate::clock::Nanos;
use crate::run::{Progress, Window};
use crate::schedule::Schedule;

/// A load on one ring.
pub(crate) trait Drive {
    /// Its ring.
    fn ring(&mut self) -> &mut Ring;

    /// What it has counted so far.
    fn messages(&self) -> u64;

    /// When its messages are due; nothing in a closed loop.
    fn schedule(&mut self) -> Option<&mut Schedule>;

    /// A closed loop starts: its first messages go out.
    fn begin(&mut self, _now: Nanos) -> Result<()> {
        Ok(())
    }

    /// A message is due, or was.
    fn send(&mut self, _number: usize, _due: Nanos, _now: Nanos) -> Result<()> {
        Ok(())
    }

    /// A receive has brought something, or has ended.
    fn handle_received(&mut self, completion: &Completion) -> Result<()>;

    /// A send has ended.
    fn handle_sent(&mut self, completion: &Completion) -> Result<()>;

    /// An operation has ended.
    fn handle(&mut self, completion: &Completion) -> Result<()> {
        match completion.kind {
            Kind::Receive => self.handle_received(completion),
            Kind::Send => self.handle_sent(completion),
            Kind::Connect | Kind::SendOwned => bail!("an operation that this load never starts"),
        }
    }

    /// An answer that never comes would hold up a closed loop for ever.
    fn check_progress(&self, _now: Nanos) -> Result<()> {
        Ok(())
    }
}

/// Drives a load from its start to the end of the run.
pub(crate) fn drive(window: Window, load: &mut impl Drive, progress: &Progress) -> Result<()> {
    let clock = window.clock;
    clock.sleep_until(window.start);
    if load.schedule().is_none() {
        load.begin(clock.now())?;
    }
    let mut told = 0;
    while !progress.has_ended() {
        let next = send_due(load, clock.now())?;
        let now = clock.now();
        load.check_progress(now)?;
        let at_most = next.min(now + WAIT_MAX).saturating_sub(now);
        load.ring().wait(Duration::from_nanos(at_most))?;
        let completions = load.ring().completions();
        completions
            .iter()
            .try_for_each(|completion| load.handle(completion))?;
        load.ring().recycle(completions);
        let messages = load.messages();
        progress.add(messages - told);
        told = messages;
    }
    Ok(())
}

/// Sends what is due; returns when the next is, which is never in a closed loop.
fn send_due(load: &mut impl Drive, now: Nanos) -> Result<Nanos> {
    while let Some(schedule) = load.schedule() {
        let due = schedule.next();
        if now < due {
            return Ok(due);
        }
        let number = usize::try_from(schedule.advance())?;
        load.send(number, due, now)?;
    }
    Ok(Nanos::MAX)
}

/// The end of the run is seen within this time.
const WAIT_MAX: Nanos = 20_000_000;
