//! Where the gateways of a program are mounted, and what must be so before they are reached.
//! Knows the configuration and the program; no shard.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Config, Dialect as ConfigDialect, Tenants};
use crate::gateway::engine::pool::Pool;
use crate::gateway::engine::program::{GatewayPlan, Program};
use crate::shard::shared::{Dialect, Mount, Shared};
use crate::shard::speak::outlet::OutsideLink;

use super::StartError;

/// The gateways of a program, each on its path; an entry `[[mount]]` of the same path says more
/// about it.
pub(super) fn mounts(
    program: &Program,
    config: &Config,
    is_public: impl Fn(&str) -> bool,
) -> Vec<Mount> {
    let mount = |(number, plan): (usize, &GatewayPlan)| {
        let mut entries = config.mounts.iter();
        let entry =
            entries.find(|entry| entry.dialect == ConfigDialect::Event && entry.path == plan.path);
        Mount {
            path: plan.path.clone(),
            dialect: Dialect::Event(number),
            public: entry.is_some_and(|entry| entry.public) || is_public(&plan.path),
            shared: entry.is_some_and(|entry| entry.tenants == Tenants::Shared),
        }
    };
    program.gateways().iter().enumerate().map(mount).collect()
}

/// An entry `[[mount]]` cannot bring a gateway that the program does not have.
pub(super) fn check_entry(path: &str, program: &Program) -> Result<(), StartError> {
    match program.gateways().iter().any(|plan| plan.path == path) {
        true => Ok(()),
        false => Err(StartError::NoGateway(path.to_owned())),
    }
}

/// Lets threads that are no shards send, and says what is bound (N-12).
pub(super) fn open(shared: &Arc<Shared>, address: SocketAddr) {
    // Weakly, for the shards' shared part holds the registries.
    let outside = Arc::new(OutsideLink(Arc::downgrade(shared)));
    for pool in shared.program.pools() {
        if is_shared(&pool, shared) {
            pool.share_tenants();
        }
        pool.open(outside.clone());
    }
    if cfg!(panic = "abort") {
        tracing::warn!(target: "tidegate::http", "{PANICS_ABORT}");
    }
    if shared.program.gateways().is_empty() {
        return;
    }
    for line in shared.program.boot_lines(address) {
        tracing::info!(target: "tidegate::http", "{line}");
    }
}

/// Whether all clients of a registry are of the default tenant, on whatever mount they are.
fn is_shared(pool: &Arc<Pool>, shared: &Shared) -> bool {
    let gateways = shared.program.gateways();
    let is_of_pool = |mount: &&Mount| match mount.dialect {
        Dialect::Event(number) => Arc::ptr_eq(gateways[number].registry().pool(), pool),
        Dialect::Raw(_) | Dialect::Relay | Dialect::Durable => false,
    };
    let mut mounts = shared.mounts.iter().filter(is_of_pool);
    mounts.all(|mount| mount.shared)
}

const PANICS_ABORT: &str = "built with `panic = \"abort\"`: a panic in a handler ends the whole \
                            server; take the line out of the profile, and it ends as the error \
                            `internal` of its event";
