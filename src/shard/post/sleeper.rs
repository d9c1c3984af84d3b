//! The wake-up of a shard: a flag that it raises before it sleeps. A sender pushes, then looks at
//! the flag; the shard raises the flag, then looks at its queues. With a fence between the two on
//! both sides one of them sees the other. Knows no queue.
//!
//! What it is made of comes from the module above, so that `sleeper_model.rs` can try every
//! schedule of this very file.

use std::task::Waker;

use super::sync::{AtomicBool, AtomicWaker, Ordering, fence};

/// Wakes a shard that sleeps, and only one that sleeps.
#[derive(Debug)]
pub(crate) struct Sleeper {
    sleeping: AtomicBool,
    waker: AtomicWaker,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        Self {
            sleeping: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// The shard says that it will sleep; it must look at its queues once more after this.
    pub(crate) fn prepare(&self, waker: &Waker) {
        self.waker.register(waker);
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Wakes the shard if it sleeps. Called after something was put into one of its queues.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if !self.sleeping.load(Ordering::Relaxed) {
            return;
        }
        // Whoever lowers the flag wakes. A flag that is down already is left alone, for the shard
        // may be about to raise it again.
        let relaxed = Ordering::Relaxed;
        let lowered = self
            .sleeping
            .compare_exchange(true, false, relaxed, relaxed);
        if lowered.is_ok() {
            self.waker.wake();
        }
    }
}
