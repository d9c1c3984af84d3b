//! The connections of one shard that do not keep up: what waits for them, since when, and what
//! they missed. For rare questions: it looks at every connection. Knows no other shard.

use crate::id::Tenant;

use crate::shard::socket::connection::Connection;
use crate::shard::socket::machine::Pause;
use crate::shard::state::State;
use crate::shard::tell::listing::Listed;

/// A connection that does not keep up.
#[derive(Debug)]
pub(crate) struct Slow {
    pub(crate) who: Listed,
    pub(crate) queued_frames: usize,
    pub(crate) queued_bytes: usize,
    /// Relay pushes that it missed since it connected.
    pub(crate) missed: u32,
    /// Since when its socket has taken nothing.
    pub(crate) stalled_ms: u64,
    /// It is not read from until it has taken what waits for it.
    pub(crate) paused: bool,
}

impl State {
    /// The slowest connections of a tenant: those with the most bytes waiting first.
    pub(crate) fn slow(&self, tenant: &Tenant, limit: usize) -> Vec<Slow> {
        let now_ms = self.peer_ms();
        let mut slow = Vec::new();
        for (key, connection) in self.connections.iter() {
            if Self::belongs(connection, tenant) && is_slow(connection, now_ms) {
                slow.push(Slow {
                    who: Self::listed_one(key, connection, true),
                    queued_frames: connection.outbox.frames(),
                    queued_bytes: connection.outbox.bytes(),
                    missed: connection.outbox.missed(),
                    stalled_ms: connection.machine.stalled_ms(now_ms),
                    paused: connection.machine.is_paused_by(Pause::Outbox),
                });
            }
        }
        slow.sort_unstable_by_key(|one| std::cmp::Reverse((one.queued_bytes, one.missed)));
        slow.truncate(limit);
        slow
    }
}

fn is_slow(connection: &Connection, now_ms: u64) -> bool {
    0 < connection.outbox.missed()
        || connection.machine.is_paused_by(Pause::Outbox)
        || STALLED_MS_MIN <= connection.machine.stalled_ms(now_ms)
}

/// A socket that takes nothing for so long belongs to somebody slow: a send to a reader that
/// keeps up ends within its turn.
const STALLED_MS_MIN: u64 = 250;
