//! Where the gateways of a program are mounted, and what must be so before they are reached.
//! Knows the configuration and the program; no shard.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Config, Dialect as ConfigDialect, Tenants};
use crate::gateway::engine::pool::Pool;
use crate::gateway::engine::program::Adapter;
use crate::gateway::engine::program::{GatewayPlan, Program};
use crate::shard::speak::outlet::OutsideLink;
use crate::shard::state::shared::{Dialect, Mount, Shared};

use super::StartError;

/// The gateways of a program, each on its path; an entry `[[mount]]` of the same path says more
/// about it.
pub(super) fn mounts(
    program: &Program,
    config: &Config,
    is_public: impl Fn(&str) -> bool,
) -> Vec<Mount> {
    let mut mounts = Vec::new();
    let plans = program.gateways().iter().enumerate();
    for (number, plan) in plans {
        if let Adapter::SocketIo { nsp } = plan.adapter {
            add_namespace(&mut mounts, (number, plan, nsp), config, &is_public);
            continue;
        }
        mounts.push(event_mount(number, plan, config, &is_public));
    }
    mounts
}

/// Gateways of Socket.IO on one path are namespaces of one mount.
fn add_namespace(
    mounts: &mut Vec<Mount>,
    (number, plan, nsp): (usize, &GatewayPlan, &str),
    config: &Config,
    is_public: &impl Fn(&str) -> bool,
) {
    let own = (Arc::from(nsp), number);
    let known = mounts.iter_mut().find(|mount| mount.path == plan.path);
    if let Some(Dialect::SocketIo(namespaces)) = known.map(|mount| &mut mount.dialect) {
        let mut all = std::mem::take(namespaces).into_vec();
        all.push(own);
        *namespaces = all.into();
        return;
    }
    mounts.push(Mount {
        path: plan.path.clone(),
        dialect: Dialect::SocketIo(Box::new([own])),
        public: config.socketio.public || is_public(&plan.path),
        shared: config.socketio.tenants == Tenants::Shared,
        engine: true,
    });
}

fn event_mount(
    number: usize,
    plan: &GatewayPlan,
    config: &Config,
    is_public: &impl Fn(&str) -> bool,
) -> Mount {
    {
        let mut entries = config.mounts.iter();
        let entry =
            entries.find(|entry| entry.dialect == ConfigDialect::Event && entry.path == plan.path);
        Mount {
            path: plan.path.clone(),
            dialect: Dialect::Event(number),
            public: entry.is_some_and(|entry| entry.public) || is_public(&plan.path),
            shared: entry.is_some_and(|entry| entry.tenants == Tenants::Shared),
            engine: false,
        }
    }
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
    let is_of_pool = |mount: &&Mount| match &mount.dialect {
        Dialect::Event(number) => Arc::ptr_eq(gateways[*number].registry().pool(), pool),
        Dialect::SocketIo(namespaces) => namespaces
            .iter()
            .any(|(_, number)| Arc::ptr_eq(gateways[*number].registry().pool(), pool)),
        Dialect::Raw(_) | Dialect::Relay | Dialect::Durable => false,
    };
    let mut mounts = shared.mounts.iter().filter(is_of_pool);
    mounts.all(|mount| mount.shared)
}

const PANICS_ABORT: &str = "built with `panic = \"abort\"`: a panic in a handler ends the whole \
                            server; take the line out of the profile, and it ends as the error \
                            `internal` of its event";
