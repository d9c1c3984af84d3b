//! What all shards of a server share: read-only descriptions, and the few counters that are
//! touched when a connection comes or goes. Knows no connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ahash::AHashMap;

use crate::auth::{Authenticator, OriginPolicy};
use crate::broker::pattern::Patterns;
use crate::broker::relay::Unhandled;
use crate::config::{Limits, Network, SocketIoSection};
use crate::gateway::container::Container;
use crate::gateway::engine::program::Program;
use crate::gateway::raw_handler::AnyRawHandler;
use crate::gateway::relay_handler::AnyRelayHandler;
use crate::gateway::topics::Topics;
use crate::id::{ConnId, Partition, Tenant};
use crate::session::durable::DurableRules;
use crate::tls::Acceptor;

use crate::shard::post::mailbox::Port;
use crate::shard::socket::outbox::OutboxLimits;
use crate::shard::socket::tickets::{AddressRates, Counts, Ticket};
use crate::shard::state::command::Command;
use crate::shard::state::memory::Memory;

/// What is spoken on a mount.
pub(crate) enum Dialect {
    Raw(Box<dyn AnyRawHandler>),
    Relay,
    /// The gateway of this number.
    Event(usize),
    Durable,
    /// Namespaces of Socket.IO, each with the number of its gateway.
    SocketIo(Box<[(Arc<str>, usize)]>),
}

impl std::fmt::Debug for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raw(_) => "Raw",
            Self::Relay => "Relay",
            Self::Event(_) => "Event",
            Self::Durable => "Durable",
            Self::SocketIo(_) => "SocketIo",
        })
    }
}

/// A path and what is spoken there.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) path: String,
    pub(crate) dialect: Dialect,
    pub(crate) public: bool,
    /// All its clients are of the default tenant.
    pub(crate) shared: bool,
    /// Its messages are carried by Engine.IO.
    pub(crate) engine: bool,
}

/// What a reload replaces.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) limits: Limits,
    /// All connections that the process may have.
    pub(crate) connections_max: usize,
    /// The limits of each mount.
    pub(crate) mount_limits: Box<[Limits]>,
    pub(crate) authenticator: Arc<Authenticator>,
    /// How the mounts of Engine.IO are reached.
    pub(crate) socketio: SocketIoSection,
    pub(crate) origins: OriginPolicy,
    /// What sessions of TLS are made with, if anything listens for them.
    pub(crate) tls: Option<Acceptor>,
    /// Peers whose word is taken on where a request comes from.
    pub(crate) proxies: Box<[Network]>,
}

impl Live {
    /// The limits of a mount.
    pub(crate) fn limits_of(&self, mount: u16) -> &Limits {
        self.mount_limits
            .get(usize::from(mount))
            .unwrap_or(&self.limits)
    }

    /// The limits of all mounts, and those where there is none.
    pub(crate) fn all_limits(&self) -> impl Iterator<Item = &Limits> + Clone {
        self.mount_limits.iter().chain([&self.limits])
    }

    /// The bounds of the outbox of a connection on `mount`.
    pub(crate) fn outbox_limits(&self, mount: u16, topic_frames_max: usize) -> OutboxLimits {
        let limits = self.limits_of(mount);
        OutboxLimits {
            frames_max: limits.outbox_frames_max,
            bytes_max: limits.outbox_bytes_max,
            topic_frames_max,
        }
    }
}

/// The relay topics of a server.
pub(crate) struct RelayWorld {
    pub(crate) patterns: Arc<Patterns>,
    pub(crate) handlers: Box<[Box<dyn AnyRelayHandler>]>,
    pub(crate) topic_capacity: usize,
    /// What each home keeps of last pushes; 0 is nothing.
    pub(crate) last_bytes_max: usize,
    pub(crate) subscriptions_max: usize,
    pub(crate) unhandled: Unhandled,
    pub(crate) shared: bool,
    pub(crate) conn_ids: AtomicU64,
}

impl std::fmt::Debug for RelayWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayWorld")
            .field("patterns", &self.patterns)
            .finish_non_exhaustive()
    }
}

impl RelayWorld {
    /// The next number of a connection (D-16).
    pub(crate) fn next_conn_id(&self) -> ConnId {
        self.conn_ids.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What all shards know of durable topics.
#[derive(Debug)]
pub(crate) struct DurableWorld {
    pub(crate) rules: DurableRules,
    pub(crate) streams: AtomicU64,
    /// The handle that services, handlers and requests are given.
    pub(crate) topics: Topics,
}

/// Who has how many connections, where such limits are set.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) addresses: Arc<Counts<IpAddr>>,
    pub(crate) tenants: Arc<Counts<Tenant>>,
    connects: AddressRates,
    auth_failures: AddressRates,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            addresses: Counts::new(),
            tenants: Counts::new(),
            connects: AddressRates::default(),
            auth_failures: AddressRates::default(),
        }
    }

    /// May this address connect once more? Its ticket, if addresses are counted at all; else the
    /// status and the text of the refusal.
    pub(crate) fn enter(
        &self,
        address: IpAddr,
        limits: &Limits,
        now_ms: u64,
    ) -> Result<Option<Ticket<IpAddr>>, (u16, &'static str)> {
        let per_s = u64::from(limits.connects_per_address_per_s_max);
        if 0 < per_s && !self.connects.take(address, per_s * 1_000, per_s, now_ms) {
            let text = "this address connects too often (limits.connects_per_address_per_s_max)";
            return Err((429, text));
        }
        let max = limits.connections_per_address_max;
        if max == 0 {
            return Ok(None);
        }
        let text = "this address has all the connections it may have \
                    (limits.connections_per_address_max)";
        self.addresses
            .take(address, max)
            .map(Some)
            .ok_or((503, text))
    }

    /// A token of this address was refused; whether that is still within its limit.
    pub(crate) fn note_auth_failure(&self, address: IpAddr, limits: &Limits, now_ms: u64) -> bool {
        let per_min = u64::from(limits.auth_failures_per_address_per_min_max);
        per_min == 0
            || self
                .auth_failures
                .take(address, per_min * 1_000 / 60, per_min, now_ms)
    }
}

/// Everything that the shards of one server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ports: Arc<[Port<Command>]>,
    /// Connections of each shard, for giving a new one to the least loaded.
    pub(crate) loads: Box<[AtomicUsize]>,
    /// Numbers of polls of Engine.IO.
    pub(crate) polls: AtomicU64,
    pub(crate) partitions: u16,
    pub(crate) mounts: Box<[Mount]>,
    pub(crate) mount_of: AHashMap<String, u16>,
    /// The user has routes, which may stand on the paths of mounts for other methods than GET.
    pub(crate) has_user_routes: bool,
    pub(crate) relay: Option<RelayWorld>,
    pub(crate) durable: Option<DurableWorld>,
    /// Shards without a connection, once the server stops: when all are, the logs may end.
    pub(crate) quiet: AtomicUsize,
    pub(crate) container: Container,
    /// The number of the first listener that is ours to close; those before it were handed over, and
    /// whoever did that keeps them open for the next process.
    pub(crate) own_listeners_from: usize,
    /// The number of the first listener on which TLS is spoken.
    pub(crate) tls_listeners_from: u32,
    /// The gateways and their registries.
    pub(crate) program: Program,
    pub(crate) draining: AtomicBool,
    pub(crate) gate: Gate,
    pub(crate) memory: Memory,
}

impl Shared {
    pub(crate) fn shards(&self) -> u16 {
        u16::try_from(self.ports.len()).unwrap_or(u16::MAX)
    }

    /// The shard that is home to a topic.
    pub(crate) fn home_of(&self, tenant: &Tenant, topic: &str) -> u16 {
        if self.ports.len() == 1 {
            return 0;
        }
        Partition::of(tenant, topic, self.partitions).shard(self.shards())
    }

    /// Pushes that wait for one subscriber of one relay topic.
    pub(crate) fn topic_capacity(&self) -> usize {
        self.relay
            .as_ref()
            .map_or(usize::MAX, |relay| relay.topic_capacity)
    }

    /// Connections of all shards.
    pub(crate) fn connections(&self) -> usize {
        self.loads
            .iter()
            .map(|load| load.load(Ordering::Relaxed))
            .sum()
    }

    /// The shard with the fewest connections; `own` wins a draw.
    pub(crate) fn least_loaded(&self, own: u16) -> u16 {
        let load = |shard: u16| self.loads[usize::from(shard)].load(Ordering::Relaxed);
        let least = (0..self.shards()).min_by_key(|shard| (load(*shard), *shard != own));
        least.unwrap_or(own)
    }
}
