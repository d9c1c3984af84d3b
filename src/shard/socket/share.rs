//! How much one turn gives out to many: whoever reads must never be overrun by one busy turn of
//! ours. Knows limits and counts; nothing of what is given.
//!
//! Bounds: half of the smallest backlog that anybody may have, for each topic and for each
//! receiver. What goes to different receivers adds up to nothing, so many quiet topics are no
//! burst. Past a bound whoever causes more is not decoded any further in this turn; the rest of
//! what it sent waits (`Kept`).

use crate::config::Limits;

/// What was given out in a turn, and how much may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Which turn it is: what topics counted in another one is not of this one.
    turn: u32,
    is_used: bool,
    is_full: bool,
    topic_frames_max: usize,
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
        let frames = frames.unwrap_or(usize::MAX);
        let half = |frames: usize| (frames / 2).clamp(1, FRAMES_MAX);
        Self {
            turn: 0,
            is_used: false,
            is_full: false,
            topic_frames_max: half(frames.min(topic_capacity)),
            frames_max: half(frames),
            bytes_max: bytes.unwrap_or(usize::MAX) / 2,
        }
    }

    /// Which turn it is.
    pub(crate) fn turn(&self) -> u32 {
        self.turn
    }

    /// A topic has given out so many frames in this turn.
    pub(crate) fn note_topic(&mut self, frames: usize) {
        self.is_used = true;
        self.is_full |= self.topic_frames_max <= frames;
    }

    /// A receiver has been given so many frames and bytes that still wait.
    pub(crate) fn note_receiver(&mut self, (frames, bytes): (usize, usize)) {
        self.is_used = true;
        self.is_full |= self.frames_max <= frames || self.bytes_max <= bytes;
    }

    /// Whether it is used up.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether anything was given out.
    pub(crate) fn is_used(&self) -> bool {
        self.is_used
    }

    /// The next turn.
    pub(crate) fn renew(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.is_used = false;
        self.is_full = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share() -> Share {
        let limits = Limits {
            outbox_frames_max: 100,
            outbox_bytes_max: 5_000,
            ..Limits::default()
        };
        Share::of([limits].iter(), 20)
    }

    #[test]
    fn a_topic_gives_out_half_of_its_backlog() {
        let mut share = share();
        (0..100).for_each(|_| share.note_topic(9));
        assert!(share.is_used() && !share.is_full(), "topics are not summed");
        share.note_topic(10);
        assert!(share.is_full());
        share.renew();
        assert!(!share.is_full() && !share.is_used());
    }

    #[test]
    fn a_receiver_is_given_half_of_its_backlog() {
        for (given, is_full) in [
            ((49, 0), false),
            ((50, 0), true),
            ((1, 2_499), false),
            ((1, 2_500), true),
        ] {
            let mut share = share();
            (0..100).for_each(|_| share.note_receiver(given));
            assert_eq!(share.is_full(), is_full, "{given:?}");
        }
    }
}
