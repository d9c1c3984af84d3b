//! The pushes that a join makes to its own topic, until it has been decided. Knows frames and their
//! bound, not who gets them.

use std::collections::VecDeque;

use bytes::Bytes;

/// Frames in the order in which they were pushed. Bound: `topic_capacity`; past it the oldest goes
/// and is counted.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) frames: VecDeque<Bytes>,
    /// Frames that had to go.
    pub(super) missed: u64,
}

impl Held {
    /// Keeps a frame.
    pub(super) fn push(&mut self, frame: Bytes, count_max: usize) {
        if count_max <= self.frames.len() {
            self.frames.pop_front();
            self.missed += 1;
        }
        self.frames.push_back(frame);
    }
}
