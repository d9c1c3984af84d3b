//! Ends a sleep in time for what a log has to do. Knows when that is, not what.

use crate::shard::turn::Turn;

impl Turn {
    /// The runtime's timers know milliseconds, and a batch waits for company for less.
    pub(crate) fn wake_soon(&mut self) {
        let due_us = self.shard.state.borrow().homes.deadline_us();
        let now_us = self.now_us();
        let is_new = |due_us: &u64| self.wake_us <= now_us || *due_us < self.wake_us;
        if let Some(due_us) = due_us
            .filter(|due_us| *due_us < now_us + SOON_US)
            .filter(is_new)
        {
            self.wake_us = due_us;
            self.ring.wake_in(due_us.saturating_sub(now_us).max(1));
        }
    }
}

/// A deadline of a log that is nearer than this is left to the ring.
const SOON_US: u64 = 1_000;
