//! The connections of one shard as an operator sees them. How many a tenant has is counted when
//! one comes or goes, so the first few are told without a look at the others; a search looks at
//! every connection. Knows no other shard.

use crate::broker::relay::LeaveReason;
use crate::id::{ConnId, Tenant};

use crate::proto::CloseCode;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::connection::Connection;
use crate::shard::state::State;

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
    /// Where they come from is shown, and looked at.
    pub(crate) addresses: bool,
    /// So many at most.
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
        id_of(self.key, shard)
    }
}

fn id_of(key: SlotKey, shard: u16) -> String {
    format!("{shard}-{}-{}", key.slot, key.generation)
}

/// Whether an address may be written with these signs.
fn is_of_address(text: &str) -> bool {
    let may = |byte: u8| byte.is_ascii_hexdigit() || b".:[]%".contains(&byte);
    text.bytes().all(may)
}

impl State {
    /// The open connections of a tenant: how many `contains` finds, and the first of them.
    pub(crate) fn listed(&self, tenant: &Tenant, filter: &ListFilter) -> ListPage {
        let all = self.connections.iter();
        let theirs = all.filter(|(_, connection)| Self::belongs(connection, tenant));
        if filter.contains.is_empty() {
            let first = theirs.take(filter.limit);
            return ListPage {
                count: self.roll.count(tenant),
                listed: first
                    .map(|(key, one)| Self::listed_one(key, one, filter.addresses))
                    .collect(),
            };
        }
        let mut page = ListPage::default();
        for (key, connection) in theirs.filter(|(key, one)| self.has(*key, one, filter)) {
            page.count += 1;
            // Where a peer is only the kernel knows, so it is not asked for what nobody sees.
            if page.listed.len() < filter.limit {
                page.listed
                    .push(Self::listed_one(key, connection, filter.addresses));
            }
        }
        page
    }

    /// Whether a text, in lower case, stands in what is shown of a connection. What costs least is
    /// looked at first, and the kernel is asked only for what may be an address.
    fn has(&self, key: SlotKey, connection: &Connection, filter: &ListFilter) -> bool {
        let text = &*filter.contains;
        let mount = self.shared.mounts.get(usize::from(connection.mount));
        let subject = connection.caller.as_ref();
        let subject = subject.and_then(|caller| caller.subject.as_ref());
        let in_number = || {
            connection
                .session
                .speaker()
                .conn_id()
                .is_some_and(|one| one.to_string().contains(text))
        };
        let in_peer = || {
            connection
                .peer()
                .map(|peer| peer.to_string().contains(text))
        };
        mount.is_some_and(|mount| mount.path.to_lowercase().contains(text))
            || subject.is_some_and(|subject| subject.to_lowercase().contains(text))
            || id_of(key, self.index).contains(text)
            || in_number()
            || (filter.addresses && is_of_address(text) && in_peer().unwrap_or(false))
    }

    pub(crate) fn listed_one(key: SlotKey, connection: &Connection, addresses: bool) -> Listed {
        let caller = connection.caller.as_ref();
        Listed {
            key,
            mount: connection.mount,
            conn_id: connection.session.speaker().conn_id(),
            subject: caller.and_then(|caller| caller.subject.clone()),
            peer: if addresses { connection.peer() } else { None },
        }
    }

    /// Connections whose upgrade is not done belong to nobody yet.
    pub(crate) fn belongs(connection: &Connection, tenant: &Tenant) -> bool {
        let caller = connection.caller.as_ref();
        connection.takes_frames() && caller.is_some_and(|caller| caller.tenant == *tenant)
    }

    /// Closes a connection of a tenant on purpose; whether there was one.
    pub(crate) fn kick(&mut self, tenant: &Tenant, key: SlotKey) -> bool {
        let found = self.connections.alive(key);
        let found = found.is_some_and(|connection| Self::belongs(connection, tenant));
        if found {
            self.close(
                key,
                CloseCode::Policy,
                "closed by an administrator",
                LeaveReason::Kicked,
            );
        }
        found
    }
}
