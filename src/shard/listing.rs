//! The connections of one shard as an operator sees them. For rare questions: it looks at every
//! connection. Knows no other shard.

use crate::broker::relay::LeaveReason;
use crate::id::{ConnId, Tenant};
use crate::session::Session;

use super::connection::Connection;
use super::ring::SlotKey;
use super::state::State;

/// One open connection.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) key: SlotKey,
    pub(crate) mount: u16,
    pub(crate) conn_id: Option<ConnId>,
    pub(crate) subject: Option<String>,
    pub(crate) peer: Option<std::net::SocketAddr>,
}

impl State {
    /// The open connections of a tenant.
    pub(crate) fn listed(&mut self, tenant: &Tenant) -> Vec<Listed> {
        let keys = self.connections.keys();
        let listed = keys.into_iter().filter_map(|key| {
            let connection = self.connections.get(key)?;
            Self::belongs(connection, tenant).then(|| Self::listed_one(key, connection))
        });
        listed.collect()
    }

    pub(super) fn listed_one(key: SlotKey, connection: &Connection) -> Listed {
        let caller = connection.caller.as_ref();
        Listed {
            key,
            mount: connection.mount,
            conn_id: conn_id(&connection.session),
            subject: caller.and_then(|caller| caller.subject.clone()),
            peer: connection.peer(),
        }
    }

    /// Connections whose upgrade is not done belong to nobody yet.
    pub(super) fn belongs(connection: &Connection, tenant: &Tenant) -> bool {
        let caller = connection.caller.as_ref();
        connection.takes_frames() && caller.is_some_and(|caller| caller.tenant == *tenant)
    }

    /// Closes a connection of a tenant on purpose; whether there was one.
    pub(crate) fn kick(&mut self, tenant: &Tenant, key: SlotKey) -> bool {
        let found = self.connections.get(key);
        let found = found.is_some_and(|connection| Self::belongs(connection, tenant));
        if found {
            self.close(
                key,
                CLOSE_KICKED,
                "closed by an administrator",
                LeaveReason::Kicked,
            );
        }
        found
    }
}

fn conn_id(session: &Session) -> Option<ConnId> {
    match session {
        Session::Relay(relay) => Some(relay.conn_id),
        Session::Event(event) => Some(event.client.id()),
        Session::Durable(_) | Session::Raw(_) | Session::None => None,
    }
}

/// Policy: the peer did nothing wrong on the wire.
const CLOSE_KICKED: u16 = 1008;
