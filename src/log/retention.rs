//! Topics with bounds lose their oldest messages, a few topics at a time: those of which something may
//! be too old or too much by now, so that topics of which nothing is cost nothing. Decides which seq
//! is the first; that the space comes back is the cleaner's work.

use crate::id::HomedId;

use super::age::AgeClock;
use super::commit_log::{CommitLog, Event, Now};
use super::record::Record;
use super::state::NEVER;

/// How often it looks whether a topic is due.
const SWEEP_US: u64 = 1_000_000;

/// Topics looked at in one call.
const SLICE_TOPICS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct RetentionTask {
    next_us: u64,
    /// What time it is for the sweep under way.
    sweep_ms: Option<u64>,
    clock: AgeClock,
}

impl CommitLog {
    pub(super) fn retention_deadline_us(&self) -> Option<u64> {
        (!self.state.due.is_empty()).then_some(self.retention.next_us)
    }

    pub(super) fn poll_retention(&mut self, now: Now) {
        let (monotonic_ms, unix_ms) = (now.monotonic_us / 1_000, now.unix_ms);
        // Also while nothing is due: who looks for the first time believes the wall clock.
        let told_ms = self.retention.clock.look(monotonic_ms, unix_ms);
        let is_early = now.monotonic_us < self.retention.next_us;
        if is_early || self.is_closing || self.state.due.is_empty() {
            return;
        }
        let now_ms = *self.retention.sweep_ms.get_or_insert(told_ms);
        for _ in 0..SLICE_TOPICS {
            let first = self.state.due.first().copied();
            let Some((_, id)) = first.filter(|(due_ms, _)| *due_ms <= now_ms) else {
                self.retention.sweep_ms = None;
                self.retention.next_us = now.monotonic_us + SWEEP_US;
                return;
            };
            self.trim(id, now_ms);
            self.look_later(id, now_ms);
        }
    }

    /// What is still too much, for lack of room or because it is not durable yet, waits for the next
    /// sweep.
    fn look_later(&mut self, id: HomedId, now_ms: u64) {
        let topic = self
            .state
            .topics
            .get(&id)
            .filter(|topic| topic.name.is_some());
        let due_ms = topic.map_or(NEVER, |topic| {
            let (first, last) = (topic.first_seq, topic.last_seq);
            let old_ms = topic.marks.old_at_ms(&topic.retention, first, last);
            match topic.marks.is_beyond(&topic.retention, first, last) {
                true => now_ms + 1,
                false => old_ms.map_or(NEVER, |old_ms| old_ms.max(now_ms + 1)),
            }
        });
        self.state.set_due(id, due_ms);
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
            let bytes = self.state.topics.get(&id).map_or(0, |topic| topic.bytes());
            self.events.push_back(Event::Trimmed {
                topic: id,
                first_seq,
                bytes,
            });
        }
    }
}
