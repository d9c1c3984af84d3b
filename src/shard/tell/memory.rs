//! What is done when memory is short. Knows connections and what waits for them, nothing of what it says.
//!
//! Full (`memory_bytes_max`): from `memory_refuse_percent` on nobody new is upgraded (503, and
//! `/readyz` says no), from `memory_close_percent` on each shard ends the connections for which
//! most is waiting until its share of the excess is free.

use std::sync::atomic::Ordering;

use crate::broker::relay::LeaveReason;
use crate::metrics::{Counter, Gauge};

use crate::proto::CloseCode;
use crate::shard::socket::connection::Connection;
use crate::shard::state::State;
use crate::shard::state::memory::{own_bytes, read};
use crate::shard::state::who::Who;

/// Ending a connection for which less is waiting frees nothing that is worth it.
const WAITING_BYTES_MIN: usize = 16 * 1024;

impl State {
    /// Once a second: the first shard looks, and each one does its part.
    pub(crate) fn watch_memory(&mut self) {
        if self.index == 0 {
            let used = read("/proc/self/statm").and_then(|text| own_bytes(&text));
            let (used, limits) = (used.unwrap_or(0), &self.live.limits);
            let memory = &self.shared.memory;
            memory.note(used, limits);
            self.metrics.set(Gauge::UserMemory, used);
            self.metrics.set(Gauge::UserMemoryMax, memory.max(limits));
        }
        let memory = &self.shared.memory;
        let sample = memory.samples.load(Ordering::Acquire);
        let excess = memory.excess.load(Ordering::Relaxed);
        // One sample is acted on once: what was freed shows in the next one.
        if std::mem::replace(&mut self.memory_sample, sample) != sample && 0 < excess {
            self.free(excess.div_ceil(self.shared.shards().into()));
        }
    }

    /// Ends the connections for which most is waiting, until `wanted` bytes are free.
    fn free(&mut self, wanted: u64) {
        let keys = self.connections.keys();
        let waiting = |key| {
            let connection = self.connections.alive(key);
            (connection.map_or(0, |one| one.waiting_bytes()), key)
        };
        let mut all: Vec<_> = keys
            .into_iter()
            .map(waiting)
            .filter(|(bytes, _)| WAITING_BYTES_MIN <= *bytes)
            .collect();
        all.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let mut freed = 0;
        for (bytes, key) in all {
            if wanted <= freed {
                break;
            }
            freed += bytes as u64;
            let Who {
                tenant,
                sub,
                peer,
                conn,
            } = self.who(key);
            tracing::warn!(target: "tidegate::shard", tenant, sub, peer, conn, bytes, "ended: memory is short");
            self.metrics.add(Counter::MemoryCloses, 1);
            // A close frame would wait behind all that is to be freed.
            self.abort_counted(key, LeaveReason::Slow, CloseCode::TryLater.get());
        }
    }
}

impl Connection {
    /// Bytes that wait for its socket, its handler, or the rest of a message.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let session = self.session.speaker().waiting_bytes();
        self.outbox.bytes() + self.decoder.partial_bytes() + session
    }
}
