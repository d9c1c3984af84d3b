//! Whom a line of the log is about. Knows a connection's identity and place; nothing of what is
//! said of it.

use std::fmt;

use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::connection::Connection;
use crate::shard::state::State;

/// The fields of a connection in a line: its tenant, its subject, where it comes from, and its name
/// as `GET /v1/connections` has it. Made only for lines that are written.
#[derive(Debug, Default)]
pub(crate) struct Who {
    pub(crate) tenant: String,
    pub(crate) sub: String,
    pub(crate) peer: String,
    pub(crate) conn: String,
}

impl Who {
    /// Of a connection on `shard`.
    pub(crate) fn of(connection: &Connection, key: SlotKey, shard: u16) -> Self {
        let caller = connection.caller.as_ref();
        let sub = caller.and_then(|caller| caller.subject.as_deref());
        let text = |text: Option<&dyn fmt::Display>| text.map(ToString::to_string);
        let peer = connection.peer();
        Self {
            tenant: text(caller.map(|caller| &caller.tenant as _)).unwrap_or_default(),
            sub: cut(sub.unwrap_or_default()).to_owned(),
            peer: text(peer.as_ref().map(|peer| peer as _)).unwrap_or_default(),
            conn: format!("{shard}-{}-{}", key.slot, key.generation),
        }
    }
}

impl State {
    /// Whom a line about a connection is about.
    pub(crate) fn who(&mut self, key: SlotKey) -> Who {
        let shard = self.index;
        let found = self.connections.alive(key);
        found.map_or_else(Who::default, |found| Who::of(found, key, shard))
    }
}

/// A subject may be as long as a token; a line is shorter.
fn cut(sub: &str) -> &str {
    &sub[..sub.floor_char_boundary(SUB_BYTES_MAX)]
}

const SUB_BYTES_MAX: usize = 128;
