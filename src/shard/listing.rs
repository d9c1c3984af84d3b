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

/// Which connections.
#[derive(Debug, Clone)]
pub(crate) struct ListFilter {
    /// Only those of which something shown contains this text, which is in lower case.
    pub(crate) contains: Box<str>,
    /// No more than so many.
    pub(crate) limit: usize,
}

/// Some connections, and how many there are in all.
#[derive(Debug, Default)]
pub(crate) struct ListPage {
    pub(crate) count: usize,
    pub(crate) listed: Vec<Listed>,
}

impl Listed {
    /// Its name in the whole server: shard, slot and generation.
    pub(crate) fn id(&self, shard: u16) -> String {
        format!("{shard}-{}-{}", self.key.slot, self.key.generation)
    }
}

impl State {
    /// The open connections of a tenant: how many `contains` finds, and the first of them.
    pub(crate) fn listed(&mut self, tenant: &Tenant, filter: &ListFilter) -> ListPage {
        let mut page = ListPage::default();
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get(key) else {
                continue;
            };
            if !Self::belongs(connection, tenant) {
                continue;
            }
            let wanted = page.listed.len() < filter.limit;
            // Where a peer is only the kernel knows, so it is not asked for what nobody sees.
            if filter.contains.is_empty() && !wanted {
                page.count += 1;
                continue;
            }
            let one = Self::listed_one(key, connection);
            if !filter.contains.is_empty() && !self.has(&one, &filter.contains) {
                continue;
            }
            page.count += 1;
            if wanted {
                page.listed.push(one);
            }
        }
        page
    }

    /// Whether a text, in lower case, stands in what is shown of a connection.
    fn has(&self, one: &Listed, text: &str) -> bool {
        let mount = self.shared.mounts.get(usize::from(one.mount));
        let path = mount.map(|mount| mount.path.to_lowercase());
        let subject = one.subject.as_ref().map(|subject| subject.to_lowercase());
        let peer = one.peer.map(|peer| peer.to_string());
        let conn_id = one.conn_id.map(|conn_id| conn_id.to_string());
        let shown = [path, subject, peer, conn_id, Some(one.id(self.index))];
        shown.iter().flatten().any(|shown| shown.contains(text))
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
