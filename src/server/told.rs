//! What the log says of the life of a server: started, reloaded, draining, stopped. Knows what is
//! said and in which fields; decides nothing.

use std::net::SocketAddr;

use crate::shard::state::shared::{Dialect, Mount, Shared};

use super::ServerBuilder;

impl ServerBuilder {
    /// The one line of a start: what it is, where it listens, what is mounted, what it found on
    /// disk and who may do what.
    pub(super) fn tell_start(&self, shared: &Shared, address: SocketAddr, recovered_ms: u64) {
        let data = match self.config.durable.enabled {
            true => self.config.server.data_dir.display().to_string(),
            false => "off".to_owned(),
        };
        tracing::info!(
            target: "tidegate::server",
            version = env!("CARGO_PKG_VERSION"),
            shards = shared.shards(),
            listen = %address,
            mounts = said(&shared.mounts),
            data,
            recovered_ms,
            rights = self.authenticator.rights().as_str(),
            "started"
        );
    }
}

fn said(mounts: &[Mount]) -> String {
    let one = |mount: &Mount| {
        let dialect = match mount.dialect {
            Dialect::Raw(_) => "raw",
            Dialect::Relay => "relay",
            Dialect::Event(_) => "event",
            Dialect::Durable => "durable",
            Dialect::SocketIo(_) => "socketio",
        };
        let public = if mount.public { " public" } else { "" };
        format!("{} {dialect}{public}", mount.path)
    };
    mounts.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The server takes no more connections and ends those that it has.
pub(super) fn draining(connections: usize) {
    tracing::info!(target: "tidegate::server", connections, "draining");
}

/// All shards have ended.
pub(super) fn stopped() {
    tracing::info!(target: "tidegate::server", "stopped");
}

/// Keys that were changed and that a reload does not put in force.
pub(super) fn needs_a_restart(keys: &[String]) {
    if !keys.is_empty() {
        let keys = keys.join(", ");
        tracing::warn!(target: "tidegate::server", "needs a restart: {keys}");
    }
}
