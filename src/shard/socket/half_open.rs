//! Connections whose request head is still to come, in the order in which they came. Decides who has
//! to go when they are too many; touches no socket.
//!
//! Full: who has said nothing for longest goes, so silent sockets cost nobody a place. An address
//! that has its share pays with its own. Only when all of them came just now, so that nobody can
//! have been heard yet, the newcomer is refused.

use std::collections::VecDeque;
use std::net::IpAddr;

use ahash::AHashMap;

use crate::shard::kernel::ring::SlotKey;

/// What decides about a newcomer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// All that this shard may have.
    pub(crate) all_max: usize,
    /// Those of one address; 0 is no bound.
    pub(crate) address_max: usize,
}

/// What a newcomer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Free,
    /// There is one when this connection has gone.
    Instead(SlotKey),
    Full,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where it comes from; `None` for a proxy, which brings many.
    address: Option<IpAddr>,
    came: Came,
}

#[derive(Debug, Clone, Copy)]
struct Came {
    turn: u64,
    ms: u64,
}

/// All of a shard.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen {
    entries: AHashMap<SlotKey, Entry>,
    /// In their order; those that have left `entries` are dropped when they are met.
    order: VecDeque<SlotKey>,
    by_address: AHashMap<IpAddr, usize>,
    turn: u64,
}

/// In the turn after the one in which it came a connection's first bytes are seen, if they came with
/// it. Whoever came later than that may have spoken.
const TURNS_MIN: u64 = 2;
/// An address above its share keeps whoever came within this time, while there is room for all.
const AGE_MS_MIN: u64 = 500;

impl HalfOpen {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn begin_turn(&mut self) {
        self.turn += 1;
    }

    /// Whether one more may come from `address`.
    pub(crate) fn place(&self, address: Option<IpAddr>, bounds: Bounds, now_ms: u64) -> Place {
        let is_full = bounds.all_max <= self.len();
        let own = address.filter(|address| {
            let count = self.by_address.get(address).copied().unwrap_or(0);
            0 < bounds.address_max && bounds.address_max <= count
        });
        if !is_full && own.is_none() {
            return Place::Free;
        }
        let oldest = self.oldest(own);
        let is_due = |came: Came| is_full || came.ms + AGE_MS_MIN <= now_ms;
        match oldest.filter(|(_, came)| came.turn + TURNS_MIN <= self.turn && is_due(*came)) {
            Some((key, _)) => Place::Instead(key),
            None if is_full => Place::Full,
            None => Place::Free,
        }
    }

    /// The oldest of `address`, or of all.
    fn oldest(&self, address: Option<IpAddr>) -> Option<(SlotKey, Came)> {
        self.order.iter().find_map(|key| {
            let entry = self.entries.get(key)?;
            let counts = address.is_none() || entry.address == address;
            counts.then_some((*key, entry.came))
        })
    }

    pub(crate) fn insert(&mut self, key: SlotKey, address: Option<IpAddr>, now_ms: u64) {
        let came = Came {
            turn: self.turn,
            ms: now_ms,
        };
        if let Some(address) = address {
            *self.by_address.entry(address).or_default() += 1;
        }
        self.entries.insert(key, Entry { address, came });
        self.order.push_back(key);
    }

    /// Its head was read, or will not be.
    pub(crate) fn remove(&mut self, key: SlotKey) {
        let Some(entry) = self.entries.remove(&key) else {
            debug_assert!(false, "a handshake ends once");
            return;
        };
        if let Some(address) = entry.address {
            self.give_back(address);
        }
        // What is left of the others stays small, also behind one who is silent for long.
        if 2 * self.entries.len() + ORDER_SPARE < self.order.len() {
            let entries = &self.entries;
            self.order.retain(|key| entries.contains_key(key));
        }
    }

    fn give_back(&mut self, address: IpAddr) {
        let Some(count) = self.by_address.get_mut(&address) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.by_address.remove(&address);
        }
    }
}

/// So many that have left may stand in the order.
const ORDER_SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        all_max: 4,
        address_max: 2,
    };

    fn key(slot: u32) -> SlotKey {
        SlotKey {
            slot,
            generation: 1,
        }
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    /// Some that came long ago, each with its address.
    fn after(addresses: &[u8]) -> HalfOpen {
        let mut all = HalfOpen::default();
        for (slot, last) in (0..).zip(addresses) {
            all.insert(key(slot), address(*last), 1_000);
        }
        all.begin_turn();
        all.begin_turn();
        all
    }

    #[test]
    fn below_all_bounds_there_is_a_place() {
        let all = after(&[1, 2, 3]);
        assert_eq!(all.place(address(1), BOUNDS, 9_000), Place::Free);
    }

    #[test]
    fn an_address_with_its_share_pays_with_its_own_oldest() {
        let all = after(&[2, 1, 1]);
        let instead = Place::Instead(key(1));
        assert_eq!(all.place(address(1), BOUNDS, 9_000), instead);
        // While there is room the young are kept.
        assert_eq!(all.place(address(1), BOUNDS, 1_100), Place::Free);
        let all = after(&[2, 1, 1, 3]);
        assert_eq!(all.place(address(1), BOUNDS, 1_100), instead);
    }

    #[test]
    fn when_full_the_oldest_of_all_makes_room_for_the_others() {
        let mut all = after(&[1, 1, 2, 2]);
        let other = all.place(address(3), BOUNDS, 1_000);
        assert_eq!(other, Place::Instead(key(0)));
        all.remove(key(0));
        all.insert(key(9), address(3), 1_000);
        assert_eq!(
            all.place(None, BOUNDS, 1_000),
            Place::Instead(key(1)),
            "a proxy has no share"
        );
    }

    #[test]
    fn whoever_may_have_spoken_is_kept() {
        let mut all = HalfOpen::default();
        for slot in 0..4 {
            all.insert(key(slot), address(1), 1_000);
        }
        for _ in 0..2 {
            assert_eq!(all.place(address(2), BOUNDS, 9_000), Place::Full);
            all.begin_turn();
        }
        let place = all.place(address(2), BOUNDS, 1_000);
        assert_eq!(place, Place::Instead(key(0)));
    }

    #[test]
    fn nothing_is_left_of_those_who_went() {
        let mut all = HalfOpen::default();
        all.insert(key(0), address(1), 1_000);
        for slot in 1..10_000 {
            all.insert(key(slot), address(2), 1_000);
            all.remove(key(slot));
        }
        assert!(all.order.len() <= ORDER_SPARE + 4, "{}", all.order.len());
        all.remove(key(0));
        assert!(all.by_address.is_empty() && all.len() == 0);
    }
}
