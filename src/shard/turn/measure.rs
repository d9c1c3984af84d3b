//! Once a second a shard says how full it is: gauges, what its queues counted, and the durations
//! that were gathered. Knows numbers; nothing of what they are of.

use crate::metrics::{Counter, Gauge, Timing};

use crate::shard::state::State;
use crate::shard::turn::Turn;

/// How often.
const MEASURE_MS: u64 = 1_000;

impl Turn {
    /// An operation on a file has gone on or ended; what was written is counted.
    pub(crate) fn handle_file(&mut self, index: u32, result: i32) {
        let Some(ended) = self.files.complete(index, result, &mut self.ring) else {
            return;
        };
        let mut state = self.shard.state.borrow_mut();
        for written in self.files.take_written() {
            state.metrics.add(Counter::LogBytes, written.bytes as u64);
            if let Some(synced_us) = written.synced_us {
                self.shard.recorder.record(Timing::Sync, synced_us);
            }
        }
        state.homes.handle_done(ended);
    }

    /// Measures, if it is time.
    pub(crate) fn measure(&mut self) {
        {
            let state = self.shard.state.borrow();
            if state.now_ms < state.measure_at_ms {
                return;
            }
        }
        let overflows = self.ring.overflows();
        let (waiting, waiting_max) = self.ring.waiting();
        let (unsubmitted, submissions_max) = self.ring.unsubmitted();
        let (buffers_free, buffers_max) = self.ring.buffers().free();
        let (inbox_messages, inbox_bytes) = self.shard.inboxes.waiting();
        let mut state = self.shard.state.borrow_mut();
        state.measure_at_ms = state.now_ms + MEASURE_MS;
        let new = overflows.wrapping_sub(self.overflows);
        self.overflows = overflows;
        state
            .metrics
            .add(Counter::CompletionQueueOverflows, new.into());
        let seen = [
            (Gauge::CompletionsWaiting, waiting),
            (Gauge::CompletionsMax, waiting_max),
            (Gauge::SubmissionsWaiting, unsubmitted),
            (Gauge::SubmissionsMax, submissions_max),
            (Gauge::ReceiveBuffersFree, buffers_free),
            (Gauge::ReceiveBuffersMax, buffers_max),
            (Gauge::ReceivesStarved, self.starved.len()),
            (Gauge::SendsInFlight, self.ring.sends_in_flight()),
            (Gauge::InboxMessages, inbox_messages),
            (Gauge::InboxBytes, inbox_bytes),
        ];
        for (gauge, number) in seen {
            state.metrics.set(gauge, number as u64);
        }
        state.measure();
        state.count_engines();
        let (lag, lag_max) = state.homes.look_at_lags();
        state.metrics.set(Gauge::SubscriptionLag, lag);
        state.metrics.set(Gauge::SubscriptionLagMax, lag_max);
        state.watch_memory();
        self.shard.recorder.flush();
    }
}

impl State {
    fn measure(&mut self) {
        let open = self.connections.len().saturating_sub(self.half_open.len());
        let home = self.home.as_mut();
        let (topics, waiting, overloads) = home.map_or((0, 0, 0), |home| {
            (home.topics(), home.waiting(), home.take_overloads())
        });
        let (posts, refused) = self.posts.take_counts();
        let (outbox_frames, outbox_bytes) = self.spare.waiting();
        let metrics = &self.metrics;
        metrics.set(Gauge::OutboxFrames, outbox_frames as u64);
        metrics.set(Gauge::OutboxBytes, outbox_bytes as u64);
        metrics.set(Gauge::MailboxBehind, self.posts.waiting() as u64);
        metrics.set(
            Gauge::HandlerEventsWaiting,
            (waiting + self.calls.len()) as u64,
        );
        metrics.set(Gauge::ConnectionsOpen, open as u64);
        metrics.set(Gauge::ConnectionsHalfOpen, self.half_open.len() as u64);
        metrics.set(Gauge::MailboxDepth, self.posts.mailboxes().depth() as u64);
        metrics.set(Gauge::RelayTopics, topics as u64);
        metrics.add(Counter::HandlerOverloads, overloads);
        metrics.add(Counter::MailboxPosts, posts);
        metrics.add(Counter::MailboxOverloads, refused);
    }
}

impl State {
    /// What the homes here hold, and what waits for their logs.
    pub(crate) fn count_homes(&self) {
        let gauges = [
            Gauge::Topics,
            Gauge::Subscriptions,
            Gauge::AppendsUnsynced,
            Gauge::PublishesUnsynced,
            Gauge::AppendsBehind,
            Gauge::ReadsWaiting,
        ];
        let mut sums = [0; 6];
        for store in self.homes.stores() {
            let totals = store.home().totals();
            let (behind, reads) = store.waiting();
            let numbers = [
                totals.topics,
                totals.subscriptions,
                totals.unsynced,
                totals.unsynced_bytes,
                behind as u64,
                reads as u64,
            ];
            sums.iter_mut()
                .zip(numbers)
                .for_each(|(sum, number)| *sum += number);
        }
        for (gauge, sum) in gauges.into_iter().zip(sums) {
            self.metrics.set(gauge, sum);
        }
    }
}
