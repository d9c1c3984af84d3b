//! What one registry shares over all shards: its number, the ids of its connections, how many
//! each tenant has. Knows no shard; touched when connections come and go.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ahash::AHashMap;
use parking_lot::RwLock;

use crate::gateway::engine::outlet::{Order, Outside, Post, Registries};
use crate::gateway::send::{Connected, SendError};
use crate::id::{ConnId, Tenant};

/// What one registry shares over all shards. Touched when connections come and go.
pub struct Pool {
    index: u16,
    name: String,
    next_id: AtomicU64,
    counts: RwLock<AHashMap<Tenant, Arc<AtomicUsize>>>,
    tenants_shared: AtomicBool,
    outside: OnceLock<Arc<dyn Outside>>,
}

impl Pool {
    pub(crate) fn new(index: u16, name: String) -> Arc<Self> {
        Arc::new(Self {
            index,
            name,
            next_id: AtomicU64::new(1),
            counts: RwLock::default(),
            tenants_shared: AtomicBool::new(false),
            outside: OnceLock::new(),
        })
    }

    /// The name of the marker.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number by which shards know this registry.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Lets other threads than shards send. Only the first call has an effect.
    pub fn open(&self, outside: Arc<dyn Outside>) {
        self.outside.get_or_init(|| outside);
    }

    /// All clients of this registry are of the default tenant, so calls need not say which.
    pub fn share_tenants(&self) {
        self.tenants_shared.store(true, Ordering::Relaxed);
    }

    /// Whether calls need not say which tenant they mean.
    pub(crate) fn is_shared(&self) -> bool {
        self.tenants_shared.load(Ordering::Relaxed)
    }

    /// The id of a new connection: from 1, and none is ever used again.
    pub(crate) fn next_id(&self) -> ConnId {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a connection; the counter can be kept while the tenant has one on this shard.
    pub(crate) fn enter(&self, tenant: &Tenant) -> Arc<AtomicUsize> {
        let mut counts = self.counts.write();
        let counter = counts.entry(tenant.clone()).or_default();
        counter.fetch_add(1, Ordering::Relaxed);
        counter.clone()
    }

    /// Takes a connection out of the count. The last one of a tenant takes the counter with it.
    pub(crate) fn exit(&self, tenant: &Tenant, counter: &AtomicUsize) {
        if counter.fetch_sub(1, Ordering::Relaxed) == 1 {
            let mut counts = self.counts.write();
            if counter.load(Ordering::Relaxed) == 0 {
                counts.remove(tenant);
            }
        }
    }

    pub(crate) fn count(&self, tenant: Option<&Tenant>) -> usize {
        let counts = self.counts.read();
        let load = |counter: &Arc<AtomicUsize>| counter.load(Ordering::Relaxed);
        match tenant {
            Some(tenant) => counts.get(tenant).map_or(0, load),
            None => counts.values().map(load).sum(),
        }
    }

    pub(crate) fn connected(&self) -> Connected {
        let counts = self.counts.read();
        let mut tenants = counts.keys();
        match (tenants.next(), tenants.next()) {
            (None, _) => Connected::None,
            (Some(tenant), None) => Connected::One(tenant.clone()),
            (Some(_), Some(_)) => Connected::Many,
        }
    }

    /// Hands an order to a shard from wherever this thread is.
    pub(crate) fn post(self: &Arc<Self>, shard: u16, order: Order) -> Result<(), SendError> {
        if let Some(here) = Registries::here_for(self) {
            return here.post(shard, self.index, order);
        }
        let order = Order::Forward {
            shard,
            order: Box::new(order),
        };
        self.post_outside(order)
    }

    /// A thread beside the shards hands all its orders to the same one, so that they keep their
    /// order (D-24).
    pub(crate) fn post_outside(&self, order: Order) -> Result<(), SendError> {
        let outside = self.outside.get().ok_or(SendError::Stopping)?;
        let post = Post {
            registry: self.index,
            order,
        };
        outside.post(OUTSIDE_SHARD, post)
    }
}

/// The shard that carries out or forwards what other threads ask for.
const OUTSIDE_SHARD: u16 = 0;

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
