//! Batches that wait for the one before them, oldest first. What they take is counted as they come and
//! go, so that however many wait, asking costs the same. Knows batches and their sizes only.

use std::collections::VecDeque;

use super::batch::OpenBatch;

#[derive(Debug, Default)]
pub(super) struct Queue {
    batches: VecDeque<OpenBatch>,
    /// What all but the newest take: these grow no further.
    full_bytes: usize,
    /// What cleaning copied into them.
    full_copied_bytes: usize,
}

impl Queue {
    /// An upper bound of what all of them take.
    pub(super) fn bytes(&self) -> usize {
        self.full_bytes + self.back().map_or(0, OpenBatch::bytes)
    }

    /// What cleaning copied into all of them.
    pub(super) fn copied_bytes(&self) -> usize {
        self.full_copied_bytes + self.back().map_or(0, |batch| batch.copied_bytes)
    }

    /// Begins another batch.
    pub(super) fn begin(&mut self) {
        if let Some(full) = self.batches.back() {
            self.full_bytes += full.bytes();
            self.full_copied_bytes += full.copied_bytes;
        }
        self.batches.push_back(OpenBatch::default());
    }

    pub(super) fn pop_front(&mut self) -> Option<OpenBatch> {
        let batch = self.batches.pop_front()?;
        if !self.batches.is_empty() {
            self.full_bytes -= batch.bytes();
            self.full_copied_bytes -= batch.copied_bytes;
        }
        Some(batch)
    }

    pub(super) fn front(&self) -> Option<&OpenBatch> {
        self.batches.front()
    }

    pub(super) fn back(&self) -> Option<&OpenBatch> {
        self.batches.back()
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut OpenBatch> {
        self.batches.back_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HomedId, Partition};

    #[test]
    fn what_waits_is_counted_as_it_comes_and_goes() {
        let id = HomedId::new(1, Partition(0), 1);
        let mut queue = Queue::default();
        let check = |queue: &Queue| {
            let bytes: usize = queue.batches.iter().map(OpenBatch::bytes).sum();
            let copied: usize = queue.batches.iter().map(|batch| batch.copied_bytes).sum();
            assert_eq!((queue.bytes(), queue.copied_bytes()), (bytes, copied));
        };
        for n in 0..50_u64 {
            if n % 3 == 0 {
                queue.begin();
            }
            if let Some(batch) = queue.back_mut() {
                batch.move_cursor(HomedId::new(n, Partition(0), n), n);
                batch.copied_bytes += 8;
                let entry = super::super::record::Entry::TopicDeleted { id };
                batch.push(id, super::super::batch::Origin::New, &entry);
            }
            check(&queue);
            if n % 5 == 4 {
                queue.pop_front();
                check(&queue);
            }
        }
        while queue.pop_front().is_some() {
            check(&queue);
        }
    }
}
