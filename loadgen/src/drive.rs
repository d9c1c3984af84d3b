//! The loop of a thread of load: what is due goes out, what comes is handled, until the run has
//! ended. Knows the ring and the clock, not what the load is.

use std::time::Duration;

use anyhow::Result;
use loadgen::ring::{Completion, Ring};

use crate::clock::Nanos;
use crate::run::{Progress, Window};

/// A load on one ring.
pub(crate) trait Drive {
    /// Its ring.
    fn ring(&mut self) -> &mut Ring;

    /// What it has counted so far.
    fn messages(&self) -> u64;

    /// The load starts: a closed loop sends its first messages.
    fn begin(&mut self, _now: Nanos) -> Result<()> {
        Ok(())
    }

    /// Sends what is due; returns when the next is, which is never in a closed loop.
    fn send_due(&mut self, now: Nanos) -> Result<Nanos>;

    /// An operation has ended.
    fn handle(&mut self, completion: &Completion) -> Result<()>;

    /// An answer that never comes would hold up a closed loop for ever.
    fn check_progress(&self, _now: Nanos) -> Result<()> {
        Ok(())
    }
}

/// Drives a load from its start to the end of the run.
pub(crate) fn drive(window: Window, load: &mut impl Drive, progress: &Progress) -> Result<()> {
    let clock = window.clock;
    clock.sleep_until(window.start);
    load.begin(clock.now())?;
    let mut told = 0;
    while !progress.has_ended() {
        let next = load.send_due(clock.now())?;
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

/// The end of the run is seen within this time.
const WAIT_MAX: Nanos = 20_000_000;
