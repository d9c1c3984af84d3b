//! How many bytes of each segment are still needed, of any kind: messages, the newest entries of
//! topics and subscriptions, cursors, deletions. Kept as they come and go, so that nothing has to be
//! looked through to tell which segment is mostly dead. Knows numbers only.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Live(BTreeMap<u64, u64>);

impl Live {
    /// Something is needed of the segment; 0 is not placed yet.
    pub(super) fn add(&mut self, segment: u64, bytes: u64) {
        if segment != 0 && 0 < bytes {
            *self.0.entry(segment).or_default() += bytes;
        }
    }

    /// It was released.
    pub(super) fn take(&mut self, segment: u64, bytes: u64) {
        if segment == 0 || bytes == 0 {
            return;
        }
        let left = self.0.get_mut(&segment);
        debug_assert!(
            left.as_ref().is_some_and(|left| bytes <= **left),
            "only what was added is taken: {bytes} of segment {segment}"
        );
        if let Some(left) = left {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.0.remove(&segment);
            }
        }
    }

    pub(super) fn move_to(&mut self, (from, to): (u64, u64), bytes: u64) {
        self.take(from, bytes);
        self.add(to, bytes);
    }

    pub(super) fn bytes(&self, segment: u64) -> u64 {
        self.0.get(&segment).copied().unwrap_or(0)
    }
}
