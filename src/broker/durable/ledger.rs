//! What each tenant holds in all partitions of this process, so that a tenant's limits hold over
//! all of them: one account a tenant, shared by the homes, whose counters are taken from before
//! something is made. Knows nothing of what is counted.
//!
//! A tenant's account stays when it holds nothing any more: there are as many as tenants that ever
//! had a topic in this run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::id::Tenant;

use super::Usage;

/// The accounts of all tenants. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Chains>);

/// Chains of accounts by the hash of the tenant; a link is set once and never changes.
#[derive(Debug)]
struct Chains(Box<[OnceLock<Box<Link>>]>);

#[derive(Debug)]
struct Link {
    tenant: Tenant,
    account: Arc<Account>,
    next: OnceLock<Box<Self>>,
}

/// What one tenant holds.
#[derive(Debug, Default)]
pub(super) struct Account {
    topics: AtomicU64,
    subscriptions: AtomicU64,
    bytes: AtomicU64,
}

const CHAINS: usize = 4_096;

impl Default for Chains {
    fn default() -> Self {
        Self((0..CHAINS).map(|_| OnceLock::new()).collect())
    }
}

impl Ledger {
    pub(super) fn account(&self, tenant: &Tenant) -> Arc<Account> {
        let hash = xxhash_rust::xxh3::xxh3_64(tenant.as_str().as_bytes());
        let chain = usize::try_from(hash % CHAINS as u64).unwrap_or(0);
        let mut link = &self.0.0[chain];
        loop {
            let found = link.get_or_init(|| {
                Box::new(Link {
                    tenant: tenant.clone(),
                    account: Arc::default(),
                    next: OnceLock::new(),
                })
            });
            if found.tenant == *tenant {
                return Arc::clone(&found.account);
            }
            link = &found.next;
        }
    }
}

impl Account {
    /// Takes one more topic, of at most `max`; false if there are as many.
    pub(super) fn take_topic(&self, max: u64) -> bool {
        take(&self.topics, 1, max)
    }

    /// Takes one more subscription, of at most `max`.
    pub(super) fn take_subscription(&self, max: u64) -> bool {
        take(&self.subscriptions, 1, max)
    }

    /// Takes so many bytes, of at most `max`.
    pub(super) fn take_bytes(&self, bytes: u64, max: u64) -> bool {
        take(&self.bytes, bytes, max)
    }

    /// Notes what is there already, whatever the limits are.
    pub(super) fn add(&self, more: Usage) {
        self.topics.fetch_add(more.topics, Ordering::Relaxed);
        let subscriptions = more.subscriptions;
        self.subscriptions
            .fetch_add(subscriptions, Ordering::Relaxed);
        self.bytes.fetch_add(more.bytes, Ordering::Relaxed);
    }

    /// Gives back what was taken or added.
    pub(super) fn give_back(&self, less: Usage) {
        self.topics.fetch_sub(less.topics, Ordering::Relaxed);
        let subscriptions = less.subscriptions;
        self.subscriptions
            .fetch_sub(subscriptions, Ordering::Relaxed);
        self.bytes.fetch_sub(less.bytes, Ordering::Relaxed);
    }
}

fn take(counter: &AtomicU64, more: u64, max: u64) -> bool {
    let within = |held: u64| held.checked_add(more).filter(|held| *held <= max);
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L12: whoever takes at once, no more is given than there may be
    #[test]
    fn threads_never_take_more_than_the_limit() {
        let ledger = Ledger::default();
        let tenants: Vec<Tenant> = ["a", "b"].map(|name| Tenant::parse(name).unwrap()).into();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let (ledger, tenants) = (ledger.clone(), &tenants);
                    scope.spawn(move || {
                        let took = |_: &u64| ledger.account(&tenants[0]).take_topic(1_000);
                        (0..500_u64).filter(took).count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(taken, 1_000);
        assert!(ledger.account(&tenants[1]).take_topic(1));
        assert!(!ledger.account(&tenants[1]).take_topic(1));
    }
}
