//! How many connections each tenant has on a shard, counted when one comes or goes. Knows no connection.

use ahash::AHashMap;

use crate::id::Tenant;

/// How many open connections each tenant has on this shard.
#[derive(Debug, Default)]
pub(crate) struct Roll(AHashMap<Tenant, usize>);

impl Roll {
    pub(crate) fn add(&mut self, tenant: &Tenant) {
        *self.0.entry(tenant.clone()).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, tenant: &Tenant) {
        let Some(count) = self.0.get_mut(tenant) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.0.remove(tenant);
        }
    }

    pub(crate) fn count(&self, tenant: &Tenant) -> usize {
        self.0.get(tenant).copied().unwrap_or_default()
    }
}
