//! Who is present in one relay topic. Knows connection numbers and what was said of them.
//!
//! Invariant: only members of the topic are here, so that leaving cleans up by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::ConnId;

/// One connection that is present in a topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PresenceEntry {
    /// The connection.
    pub conn_id: ConnId,
    /// What the handler said of it when it tracked it.
    pub meta: serde_json::Value,
}

/// The connections that are present, by number.
#[derive(Debug, Default)]
pub struct Presence {
    entries: BTreeMap<ConnId, serde_json::Value>,
}

impl Presence {
    /// Adds or replaces an entry.
    pub fn track(&mut self, conn_id: ConnId, meta: serde_json::Value) {
        self.entries.insert(conn_id, meta);
    }

    /// Removes an entry; whether there was one.
    pub fn untrack(&mut self, conn_id: ConnId) -> bool {
        self.take(conn_id).is_some()
    }

    /// Removes an entry: what was said of it.
    pub fn take(&mut self, conn_id: ConnId) -> Option<serde_json::Value> {
        self.entries.remove(&conn_id)
    }

    /// What was said of a connection.
    pub fn meta(&self, conn_id: ConnId) -> Option<&serde_json::Value> {
        self.entries.get(&conn_id)
    }

    /// The connections, oldest first.
    pub fn numbers(&self) -> impl Iterator<Item = ConnId> {
        self.entries.keys().copied()
    }

    /// How many are present.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Everybody who is present, oldest connection first.
    pub fn list(&self) -> Vec<PresenceEntry> {
        let entry = |(conn_id, meta): (&ConnId, &serde_json::Value)| PresenceEntry {
            conn_id: *conn_id,
            meta: meta.clone(),
        };
        self.entries.iter().map(entry).collect()
    }
}
