//! How shards reach each other, and how they are woken. Knows queues; not what stands in them.

pub(crate) mod mailbox;
pub(crate) mod sleeper;
#[cfg(test)]
mod sleeper_model;

/// What the wake-up is made of.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};

    pub(super) use atomic_waker::AtomicWaker;
}
