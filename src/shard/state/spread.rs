//! Who is told when, while the server stops. Knows keys and time; closes nobody.

use crate::shard::kernel::ring::SlotKey;

/// A drain that has begun.
#[derive(Debug)]
pub(crate) struct Drain {
    pub(crate) began_ms: u64,
    /// When it ends whether or not everybody has left.
    pub(crate) until_ms: u64,
    /// Open connections that are not told yet, and how many there were.
    pub(crate) waiting: Vec<SlotKey>,
    pub(crate) count: usize,
}

impl Drain {
    /// Takes the next one that is to be told: their share of `spread_ms` has passed.
    pub(crate) fn next(&mut self, spread_ms: u64, now_ms: u64) -> Option<SlotKey> {
        let passed_ms = now_ms.saturating_sub(self.began_ms);
        let told = (self.count - self.waiting.len()) as u64;
        let is_due = told.saturating_mul(spread_ms) <= passed_ms.saturating_mul(self.count as u64);
        is_due.then(|| self.waiting.pop()).flatten()
    }
}
