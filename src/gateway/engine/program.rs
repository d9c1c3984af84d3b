//! A program that fits together: its services, and its gateways before a shard opens them. Knows
//! no shard: each opens the gateways for itself.

use std::any::type_name;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use schemars::SchemaGenerator;

use crate::gateway::engine::container::{
    Container, ContainerBuilder, Resolver, StartError, short_name,
};
use crate::gateway::engine::dispatch::{Dispatch, Dispatcher};
use crate::gateway::engine::pool::Pool;
use crate::gateway::engine::table::{Layers, Table};
use crate::gateway::module::Gateway;
use crate::gateway::relay::Relay;
use crate::gateway::relay_handler::AnyRelayHandler;
use crate::gateway::schema::{self, GatewayShape, Schema, Shapes};
use crate::gateway::server::{Registry, Scope};
use crate::id::Tenant;

/// A relay handler and its pattern.
pub(crate) struct RelayPlan {
    pub(crate) pattern: String,
    pub(crate) handler: Box<dyn AnyRelayHandler>,
}

impl fmt::Debug for RelayPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RelayPlan").field(&self.pattern).finish()
    }
}

/// A program that fits together.
#[derive(Debug, Clone)]
pub struct Program {
    pub(in crate::gateway) container: Container,
    pub(in crate::gateway) relay: Relay,
    pub(in crate::gateway) layers: Arc<Layers>,
    pub(in crate::gateway) gateways: Arc<[GatewayPlan]>,
    pub(in crate::gateway) registries: Arc<[Arc<dyn Registry>]>,
}

impl Program {
    /// Its services.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// The relay that services hold, to be told its server.
    pub(crate) fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Its gateways.
    pub fn gateways(&self) -> &[GatewayPlan] {
        &self.gateways
    }

    /// What its registries share over all shards, in the order of their numbers.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.registries
            .iter()
            .map(|registry| registry.pool().clone())
            .collect()
    }

    /// The registry of a marker by its name, as a tenant sees it.
    pub fn registry(&self, name: &str, tenant: &Tenant) -> Option<Scope> {
        let mut registries = self.registries.iter();
        let registry = registries.find(|registry| registry.name() == name)?;
        Some(Scope::of(registry.pool(), tenant))
    }

    /// Whether guards stand around a gateway of the registry of that name.
    pub(crate) fn is_guarded(&self, name: &str) -> bool {
        let of_registry = |plan: &&GatewayPlan| plan.registry.name() == name;
        let mut gateways = self.gateways.iter().filter(of_registry);
        gateways.any(|plan| plan.is_guarded || self.layers.has_guards())
    }

    /// Opens a gateway on the calling shard.
    ///
    /// # Errors
    /// Those of [`App::build`], which has opened each gateway once already.
    pub fn open(&self, plan: &GatewayPlan) -> Result<Rc<dyn Dispatch>, StartError> {
        (plan.open)(&self.container, &self.layers)
    }

    /// Runs the `after_init` hooks, each gateway's in turn.
    pub async fn after_init(&self) -> Result<(), StartError> {
        for plan in &*self.gateways {
            (plan.after_init)(self.container.clone()).await?;
        }
        Ok(())
    }

    /// What its gateways speak.
    pub fn schema(&self) -> Schema {
        let mut generator = schema::generator();
        let plans = self.gateways.iter();
        let shapes = plans
            .map(|plan| (plan.shape)(plan, &mut generator))
            .collect();
        Schema::new(shapes, generator)
    }

    /// What the log says when the server listens.
    pub fn boot_lines(&self, address: SocketAddr) -> Vec<String> {
        boot_lines(&self.gateways, address)
    }
}

/// What the clients of a gateway speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Adapter {
    /// `{"event","data"}` over WebSocket.
    #[default]
    Event,
    /// A namespace of Socket.IO.
    SocketIo {
        /// Its name.
        nsp: &'static str,
    },
}

/// A gateway before it is opened on a shard.
pub struct GatewayPlan {
    /// Where it is mounted.
    pub path: String,
    /// What its clients speak.
    pub adapter: Adapter,
    /// The name of its type.
    pub name: String,
    /// How many events it binds.
    pub messages: usize,
    /// How many hooks.
    pub hooks: usize,
    registry: Arc<dyn Registry>,
    /// Guards stand around it.
    is_guarded: bool,
    open: OpenGateway,
    shape: fn(&Self, &mut SchemaGenerator) -> GatewayShape,
    after_init: fn(Container) -> LocalBoxFuture<'static, Result<(), StartError>>,
}

type OpenGateway = fn(&Container, &Layers) -> Result<Rc<dyn Dispatch>, StartError>;

impl GatewayPlan {
    pub(in crate::gateway) fn of<G: Gateway>(
        registry: Arc<dyn Registry>,
        builder: &mut ContainerBuilder,
    ) -> Result<Self, StartError> {
        let name = short_name(type_name::<G>());
        let table = Table::<G>::collect();
        let mut events: Vec<&str> = table.bindings.iter().map(|binding| binding.event).collect();
        events.sort_unstable();
        if let Some(twice) = events.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(StartError::EventTaken {
                gateway: name,
                event: twice[0].to_owned(),
            });
        }
        builder.injectable::<G>();
        own_layers::<G>().provide(builder);
        for binding in &table.bindings {
            binding.layers.provide(builder);
        }
        for (wanted, who) in &table.wanted {
            builder.require(*wanted, who);
        }
        Ok(Self {
            path: normal_path(G::PATH),
            adapter: G::ADAPTER,
            name,
            messages: table.bindings.len(),
            hooks: table.connect.len() + table.disconnect.len() + table.ready.len(),
            registry,
            is_guarded: own_layers::<G>().has_guards(),
            open: |container, server| {
                Ok(Rc::new(Dispatcher::<G>::open(
                    container,
                    server,
                    &own_layers::<G>(),
                )?))
            },
            shape: shape_of::<G>,
            after_init: |container| Box::pin(run_after_init::<G>(container)),
        })
    }

    /// Whether another gateway cannot be mounted beside it. Namespaces of Socket.IO share a path.
    pub(crate) fn excludes(&self, other: &Self) -> bool {
        let shares = match (self.adapter, other.adapter) {
            (Adapter::SocketIo { nsp }, Adapter::SocketIo { nsp: beside }) => nsp != beside,
            _ => false,
        };
        self.path == other.path && !shares
    }

    /// Its registry.
    pub fn registry(&self) -> &Arc<dyn Registry> {
        &self.registry
    }
}

impl fmt::Debug for GatewayPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mount_line(self))
    }
}

fn shape_of<G: Gateway>(plan: &GatewayPlan, generator: &mut SchemaGenerator) -> GatewayShape {
    let bindings = Table::<G>::collect().bindings;
    let events = bindings.iter().map(|binding| {
        let mut shapes = Shapes::new(generator);
        match binding.describe {
            Some(describe) => describe(&mut shapes),
            // Bound by hand: it may carry and answer anything.
            None => {
                shapes.payload(None);
                shapes.reply(None);
            }
        }
        shapes.into_event(binding.event)
    });
    let events = events.collect();
    let mut shapes = Shapes::new(generator);
    G::pushes(&mut shapes);
    GatewayShape {
        name: plan.name.clone(),
        path: plan.path.clone(),
        events,
        pushes: shapes.into_pushes(),
    }
}

fn own_layers<G: Gateway>() -> Layers {
    let mut layers = Layers::default();
    G::layers(&mut layers);
    layers
}

async fn run_after_init<G: Gateway>(container: Container) -> Result<(), StartError> {
    let gateway: Arc<G> = Resolver::over(&container, type_name::<G>()).service()?;
    for hook in Table::<G>::collect().ready {
        hook(gateway.clone(), container.clone()).await?;
    }
    Ok(())
}

/// A path has one leading slash and none at its end.
fn normal_path(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}

fn boot_lines(gateways: &[GatewayPlan], address: SocketAddr) -> Vec<String> {
    let bound = format!("bound {} on {address}", counted(gateways.len(), "gateway"));
    std::iter::once(bound)
        .chain(gateways.iter().map(mount_line))
        .collect()
}

fn mount_line(plan: &GatewayPlan) -> String {
    let GatewayPlan { path, name, .. } = plan;
    let (messages, hooks) = (
        counted(plan.messages, "message"),
        counted(plan.hooks, "lifecycle hook"),
    );
    match plan.adapter {
        Adapter::Event => format!("GET {path} -> {name} ({messages}, {hooks})"),
        Adapter::SocketIo { nsp } => {
            format!("GET {path}/ -> {name} ({messages}, {hooks}) as Socket.IO {nsp}")
        }
    }
}

fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
