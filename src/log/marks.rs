//! Where in a topic an age or a size is reached: a few marks a topic, so that retention needs no
//! look at the messages. Knows messages, not where they stand.

use std::collections::VecDeque;

use crate::id::Seq;

use super::record::{Publish, Retention};

/// A bound is met within this part of itself.
const PARTS: u64 = 32;

/// A message at which the count of bytes or the time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) seq: Seq,
    pub(super) time_ms: u64,
    /// Bytes of all messages before it.
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) marks: VecDeque<Mark>,
    /// Bytes of all messages so far.
    pub(super) bytes: u64,
    /// The newest message's time.
    pub(super) time_ms: u64,
}

impl Marks {
    /// Notes a message that is newer than all before it.
    pub(super) fn note(&mut self, retention: &Retention, publish: &Publish<'_>) {
        let (time_ms, bytes) = (publish.time_ms, publish.stored_bytes() as u64);
        let due = match self.marks.back() {
            None => retention.age_ms_max.is_some() || retention.bytes_max.is_some(),
            Some(mark) => {
                let age = retention
                    .age_ms_max
                    .is_some_and(|max| mark.time_ms + max / PARTS < time_ms);
                let size = |max| mark.bytes + max / PARTS < self.bytes + bytes;
                age || retention.bytes_max.is_some_and(size)
            }
        };
        if due {
            self.marks.push_back(Mark {
                seq: publish.seq,
                time_ms,
                bytes: self.bytes,
            });
        }
        self.bytes += bytes;
        self.time_ms = self.time_ms.max(time_ms);
    }

    /// Whether more is kept from `first` on than a count or a size allows.
    pub(super) fn is_beyond(&self, retention: &Retention, first: Seq, last: Seq) -> bool {
        let count = |max| first < (last + 1).saturating_sub(max);
        let size = |max| {
            let next = self.marks.iter().find(|mark| first < mark.seq);
            next.is_some_and(|mark| max <= self.bytes - mark.bytes)
        };
        retention.messages_max.is_some_and(count) || retention.bytes_max.is_some_and(size)
    }

    /// When the first message behind `first` will be too old, in Unix milliseconds; `None` if no age
    /// is set or nothing is kept.
    pub(super) fn old_at_ms(&self, retention: &Retention, first: Seq, last: Seq) -> Option<u64> {
        let max = retention.age_ms_max.filter(|_| first <= last)?;
        let behind = self.marks.iter().filter(|mark| first < mark.seq);
        let times = behind.map(|mark| mark.time_ms).chain([self.time_ms]);
        times
            .min()
            .map(|time_ms| time_ms.saturating_add(max).saturating_add(1))
    }

    /// The first seq to keep by `retention`: never more is dropped than it says.
    pub(super) fn first_kept(&self, retention: &Retention, last: Seq, now_ms: u64) -> Seq {
        let mut first = 1;
        if let Some(max) = retention.messages_max {
            first = first.max((last + 1).saturating_sub(max));
        }
        if let Some(max) = retention.bytes_max {
            let beyond = |mark: &&Mark| max <= self.bytes - mark.bytes;
            first = first.max(
                self.marks
                    .iter()
                    .rev()
                    .find(beyond)
                    .map_or(1, |mark| mark.seq),
            );
        }
        if let Some(max) = retention.age_ms_max {
            let cutoff = now_ms.saturating_sub(max);
            let old = |mark: &&Mark| mark.time_ms < cutoff;
            first = first.max(self.marks.iter().rev().find(old).map_or(1, |mark| mark.seq));
            if 0 < self.time_ms && self.time_ms < cutoff {
                first = last + 1;
            }
        }
        first
    }

    /// Forgets marks that no bound can need once all before `first` is gone.
    pub(super) fn trim(&mut self, first: Seq) {
        while self.marks.get(1).is_some_and(|mark| mark.seq <= first) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HomedId, Partition};

    fn marks(retention: &Retention, count: u64) -> (Marks, u64) {
        let mut marks = Marks::default();
        let mut size = 0;
        for seq in 1..=count {
            let publish = Publish {
                topic: HomedId::new(1, Partition(0), 1),
                seq,
                time_ms: seq * 1000,
                flags: 0,
                publisher: "p",
                key: None,
                event: "",
                headers: b"",
                payload: b"0123456789",
            };
            size = publish.stored_bytes() as u64;
            marks.note(retention, &publish);
        }
        (marks, size)
    }

    /// D-31: a bound keeps at least what it says, and at most a little more.
    #[test]
    fn retention_keeps_what_it_promises_and_little_more() {
        let retention = Retention {
            messages_max: Some(10),
            ..Retention::default()
        };
        assert_eq!(marks(&retention, 100).0.first_kept(&retention, 100, 0), 91);
        assert_eq!(marks(&retention, 5).0.first_kept(&retention, 5, 0), 1);

        let (_, size) = marks(&retention, 1);
        let retention = Retention {
            bytes_max: Some(size * 320),
            ..Retention::default()
        };
        let (kept, _) = marks(&retention, 1000);
        let first = kept.first_kept(&retention, 1000, 0);
        assert!((1000 - 320 - 22..=1000 - 319).contains(&first), "{first}");
        assert!(kept.marks.len() < 110);

        let retention = Retention {
            age_ms_max: Some(64_000),
            ..Retention::default()
        };
        let (kept, _) = marks(&retention, 1000);
        let first = kept.first_kept(&retention, 1000, 1_000_000);
        assert!((936 - 4..=936).contains(&first), "{first}");
        assert_eq!(kept.first_kept(&retention, 1000, 2_000_000), 1001);
    }
}
