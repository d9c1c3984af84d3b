//! How much one turn gives out to many: whoever reads must never be overrun by one busy turn of
//! ours. Knows limits and counts; nothing of what is given.
//!
//! Bound: half of the smallest backlog that anybody may have. Past it whoever causes more is not
//! decoded any further in this turn; the rest of what it sent waits (`Kept`).

use crate::config::Limits;

/// What was given out in a turn, and how much may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    frames: usize,
    bytes: usize,
    frames_max: usize,
    bytes_max: usize,
}

/// However long backlogs may be, outboxes are flushed after so many frames.
const FRAMES_MAX: usize = 256;

impl Share {
    /// The share of a turn under these limits, where so many pushes of a topic may wait.
    pub(crate) fn of<'l>(
        limits: impl Iterator<Item = &'l Limits> + Clone,
        topic_capacity: usize,
    ) -> Self {
        let frames = limits.clone().map(|limits| limits.outbox_frames_max).min();
        let bytes = limits.map(|limits| limits.outbox_bytes_max).min();
        let frames = frames.unwrap_or(usize::MAX).min(topic_capacity);
        Self {
            frames: 0,
            bytes: 0,
            frames_max: (frames / 2).clamp(1, FRAMES_MAX),
            bytes_max: bytes.unwrap_or(usize::MAX) / 2,
        }
    }

    /// A frame goes to many.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes;
    }

    /// Whether it is used up.
    pub(crate) fn is_full(&self) -> bool {
        self.frames_max <= self.frames || self.bytes_max <= self.bytes
    }

    /// Whether anything was given out.
    pub(crate) fn is_used(&self) -> bool {
        0 < self.frames
    }

    /// The next turn.
    pub(crate) fn renew(&mut self) {
        self.frames = 0;
        self.bytes = 0;
    }
}
