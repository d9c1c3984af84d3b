//! Handshakes of TLS in line: one takes a tenth of a millisecond and more, so a turn works on a few
//! and those who are connected keep theirs. Knows keys and bytes; no session.
//!
//! Bounds: `tls_handshakes_per_turn_max` in a turn; who waits counts as half open
//! (`half_open_max`) and is ended like anybody whose handshake takes too long (`handshake_ms_max`).

use std::collections::VecDeque;

use crate::shard::kernel::ring::SlotKey;
use crate::shard::state::State;

/// Those who wait, the oldest first, with what they sent.
#[derive(Debug, Default)]
pub(crate) struct Greetings {
    waiting: VecDeque<(SlotKey, Vec<u8>)>,
    /// How many more this turn may work on.
    left: u32,
    /// The second of the shard's clock, and how many began in it.
    second: (u64, u32),
}

impl Greetings {
    /// Another turn, which may work on `per_turn`.
    pub(crate) fn begin_turn(&mut self, per_turn: u32) {
        self.left = per_turn;
    }

    /// Whether anybody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether what this connection sent is part of a handshake that has to wait.
    pub(crate) fn must_wait(&mut self, state: &mut State, key: SlotKey) -> bool {
        let connection = state.connections.alive(key);
        if !connection.is_some_and(|connection| connection.transport.is_greeting()) {
            return false;
        }
        let must_wait = self.left == 0 || !self.waiting.is_empty();
        self.left = self.left.saturating_sub(1);
        must_wait
    }

    /// Keeps what came until its turn; nothing more is received from it before.
    pub(crate) fn keep(&mut self, key: SlotKey, received: Vec<u8>) {
        self.waiting.push_back((key, received));
    }

    /// The next to be worked on in this turn.
    pub(crate) fn next(&mut self) -> Option<(SlotKey, Vec<u8>)> {
        let left = self.left.checked_sub(1)?;
        let next = self.waiting.pop_front()?;
        self.left = left;
        Some(next)
    }

    /// Whether one more may begin in this second, where at most `per_s_max` may; 0 is no bound.
    pub(crate) fn may_begin(&mut self, per_s_max: u32, now_ms: u64) -> bool {
        let second = now_ms / 1_000;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        per_s_max == 0 || self.second.1 <= per_s_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> SlotKey {
        SlotKey {
            slot,
            generation: 1,
        }
    }

    #[test]
    fn a_turn_works_on_a_few_the_oldest_first() {
        let mut all = Greetings::default();
        for slot in 0..5 {
            all.keep(key(slot), vec![0]);
        }
        all.begin_turn(2);
        let worked: Vec<_> = std::iter::from_fn(|| all.next()).collect();
        assert_eq!(
            worked.iter().map(|it| it.0.slot).collect::<Vec<_>>(),
            [0, 1]
        );
        all.begin_turn(9);
        assert_eq!(std::iter::from_fn(|| all.next()).count(), 3);
        assert!(all.is_empty());
    }

    #[test]
    fn a_second_begins_so_many() {
        let mut all = Greetings::default();
        let begun =
            |all: &mut Greetings, now_ms| (0..5).filter(|_| all.may_begin(3, now_ms)).count();
        assert_eq!(begun(&mut all, 1_000), 3);
        assert_eq!(begun(&mut all, 1_999), 0);
        assert_eq!(begun(&mut all, 2_000), 3);
        assert!(all.may_begin(0, 2_000));
    }
}
