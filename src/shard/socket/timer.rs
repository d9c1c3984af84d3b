//! A coarse timer wheel for the deadlines of connections. Knows keys and ticks, no clock.
//!
//! Each connection has one live entry: the next time at which somebody should look at it. An
//! entry that was overtaken by an earlier one is skipped by its owner, who remembers the tick.

use crate::shard::kernel::ring::SlotKey;

/// Milliseconds of one tick: deadlines are met this late at most.
pub(crate) const TICK_MS: u64 = 50;
const SLOTS: usize = 1024;
/// So many slots are looked through for the next entry.
const LOOK_SLOTS: u64 = 20;

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: SlotKey,
    tick: u64,
}

#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Box<[Vec<Entry>]>,
    /// Every tick before this one has been handled.
    tick: u64,
    entries: usize,
}

impl Wheel {
    pub(crate) fn new(now_ms: u64) -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Self {
            slots,
            tick: now_ms / TICK_MS,
            entries: 0,
        }
    }

    /// Asks for a look at `key` at `at_ms` or up to a tick later; returns the tick that stands
    /// for this request.
    pub(crate) fn schedule(&mut self, key: SlotKey, at_ms: u64) -> u64 {
        let tick = (at_ms / TICK_MS + 1).max(self.tick);
        self.put(Entry { key, tick });
        tick
    }

    /// Whether the look that `tick` stands for is still to come. It may be due by now: an owner
    /// that asked for a later one in its place would never be looked at.
    pub(crate) fn awaits(&self, tick: u64) -> bool {
        0 < tick && self.tick <= tick
    }

    fn put(&mut self, entry: Entry) {
        self.slots[slot_of(entry.tick)].push(entry);
        self.entries += 1;
    }

    /// Moves what is due at `now_ms` to `due`, with the tick that `schedule` returned.
    pub(crate) fn advance(&mut self, now_ms: u64, due: &mut Vec<(SlotKey, u64)>) {
        let now_tick = now_ms / TICK_MS;
        if now_tick < self.tick {
            return;
        }
        // After a long sleep one round of the wheel visits every slot.
        let rounds = (now_tick - self.tick + 1).min(SLOTS as u64);
        for tick in (now_tick + 1 - rounds)..=now_tick {
            self.visit(slot_of(tick), now_tick, due);
        }
        self.tick = now_tick + 1;
    }

    fn visit(&mut self, slot: usize, now_tick: u64, due: &mut Vec<(SlotKey, u64)>) {
        let entries = &mut self.slots[slot];
        let before = entries.len();
        entries.retain(|entry| {
            let waits = now_tick < entry.tick;
            if !waits {
                due.push((entry.key, entry.tick));
            }
            waits
        });
        self.entries -= before - entries.len();
        if entries.is_empty() && 64 < entries.capacity() {
            *entries = Vec::new();
        }
    }

    /// When to look again, in milliseconds, a second ahead at most, for a shard looks around then
    /// anyway; `None` while nothing is scheduled.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        let ahead =
            (0..LOOK_SLOTS).find(|ahead| !self.slots[slot_of(self.tick + ahead)].is_empty());
        Some((self.tick + ahead.unwrap_or(LOOK_SLOTS)) * TICK_MS)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a remainder of the number of slots"
)]
fn slot_of(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
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

    fn due_at(wheel: &mut Wheel, now_ms: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now_ms, &mut due);
        let mut slots: Vec<u32> = due.iter().map(|(key, _)| key.slot).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn never_early_and_at_most_a_tick_late() {
        for at in [0, 1, TICK_MS - 1, TICK_MS, 777, 10 * TICK_MS] {
            let mut wheel = Wheel::new(0);
            wheel.schedule(key(1), at);
            if 0 < at {
                assert!(due_at(&mut wheel, at - 1).is_empty(), "{at}");
            }
            assert_eq!(due_at(&mut wheel, at + TICK_MS), [1], "{at}");
            assert_eq!(wheel.next_ms(), None);
        }
    }

    #[test]
    fn beyond_the_horizon_waits_more_than_a_round() {
        let mut wheel = Wheel::new(5000);
        let horizon = SLOTS as u64 * TICK_MS;
        wheel.schedule(key(1), 5000 + 3 * horizon + 10);
        wheel.schedule(key(2), 5000 + 100);
        assert_eq!(due_at(&mut wheel, 5000 + 200), [2]);
        assert!(due_at(&mut wheel, 5000 + 3 * horizon).is_empty());
        assert_eq!(due_at(&mut wheel, 5000 + 3 * horizon + 200), [1]);
    }

    #[test]
    fn a_look_is_awaited_until_it_is_given() {
        let mut wheel = Wheel::new(0);
        assert!(!wheel.awaits(0));
        let tick = wheel.schedule(key(1), 100);
        wheel.advance(99, &mut Vec::new());
        assert!(wheel.awaits(tick));
        assert_eq!(due_at(&mut wheel, 1_000), [1]);
        assert!(!wheel.awaits(tick));
    }

    #[test]
    fn a_long_sleep_misses_nothing() {
        let mut wheel = Wheel::new(0);
        for slot in 0..100 {
            wheel.schedule(key(slot), u64::from(slot) * 997);
        }
        assert_eq!(due_at(&mut wheel, 1_000_000).len(), 100);
    }
}
