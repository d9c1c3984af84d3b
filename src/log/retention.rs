//! Topics with bounds lose their oldest messages, a few topics at a time. Decides which seq is the
//! first; that the space comes back is the cleaner's work.

use std::ops::Bound;

use crate::id::HomedId;

use super::age::AgeClock;
use super::commit_log::{CommitLog, Event, Now};
use super::record::Record;
use super::state::Topic;

/// How often every bounded topic is looked at.
const SWEEP_US: u64 = 1_000_000;

/// Topics looked at in one call.
const SLICE_TOPICS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct RetentionTask {
    next_us: u64,
    /// The last topic of the sweep under way.
    after: Option<HomedId>,
    clock: AgeClock,
}

impl CommitLog {
    pub(super) fn retention_deadline_us(&self) -> Option<u64> {
        (!self.state.bounded.is_empty()).then_some(self.retention.next_us)
    }

    pub(super) fn poll_retention(&mut self, now: Now) {
        let is_early = now.monotonic_us < self.retention.next_us;
        if is_early || self.is_closing || self.state.bounded.is_empty() {
            return;
        }
        let from = self
            .retention
            .after
            .map_or(Bound::Unbounded, Bound::Excluded);
        let slice = self
            .state
            .bounded
            .range((from, Bound::Unbounded))
            .take(SLICE_TOPICS);
        let slice: Vec<HomedId> = slice.copied().collect();
        self.retention.after = slice
            .last()
            .copied()
            .filter(|_| slice.len() == SLICE_TOPICS);
        if self.retention.after.is_none() {
            self.retention.next_us = now.monotonic_us + SWEEP_US;
        }
        let now_ms = self
            .retention
            .clock
            .look(now.monotonic_us / 1_000, now.unix_ms);
        for topic in slice {
            self.trim(topic, now_ms);
        }
    }

    /// If there is no room for the note now, the next sweep tries again.
    fn trim(&mut self, id: HomedId, now_ms: u64) {
        let Some(topic) = self
            .state
            .topics
            .get(&id)
            .filter(|topic| topic.name.is_some())
        else {
            return;
        };
        let first_seq = topic
            .marks
            .first_kept(&topic.retention, topic.last_seq, now_ms);
        let first_seq = first_seq.min(topic.durable_seq + 1);
        if topic.first_seq < first_seq
            && self
                .append(&Record::Trimmed {
                    topic: id,
                    first_seq,
                })
                .is_ok()
        {
            let bytes = self.state.topics.get(&id).map_or(0, Topic::bytes);
            self.events.push_back(Event::Trimmed {
                topic: id,
                first_seq,
                bytes,
            });
        }
    }
}
