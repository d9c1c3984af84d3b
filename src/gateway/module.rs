//! What a program is made of: modules list providers, gateways and relay handlers, and all of it
//! is checked before the server listens. Knows no shard: each opens the gateways for itself.

use std::any::TypeId;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use crate::gateway::engine::container::{
    ContainerBuilder, Dependency, Injectable, StartError, State,
};
pub use crate::gateway::engine::program::Adapter;
use crate::gateway::engine::program::{GatewayPlan, Program, RelayPlan};
use crate::gateway::engine::table::{Layers, Messages};
use crate::gateway::engine::workshop::Factory;
use crate::gateway::filter::ExceptionFilter;
use crate::gateway::guard::{MessageGuard, UpgradeGuard};
use crate::gateway::interceptor::Interceptor;
use crate::gateway::relay::Relay;
use crate::gateway::relay_handler::{self, RelayHandler};
use crate::gateway::schema::Shapes;
use crate::gateway::server::{Registry, WsServer};

/// A part of a program. `#[module]` writes this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a module",
    label = "put `#[module(providers = [..], gateways = [..])]` on the struct `{Self}`"
)]
pub trait Module: 'static {
    /// Lists what the module has.
    fn register(app: &mut App);
}

/// A gateway: where it is mounted and what stands around its events. `#[gateway]` writes this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a gateway",
    label = "put `#[gateway(path = \"/..\")]` on the struct `{Self}`"
)]
pub trait Gateway: Injectable + Messages {
    /// Where it is mounted.
    const PATH: &'static str;

    /// The marker of its registry.
    type Namespace: 'static;

    /// What its clients speak.
    const ADAPTER: Adapter = Adapter::Event;

    /// Adds guards, interceptors and filters that hold for all of its events.
    fn layers(_layers: &mut Layers) {}

    /// Tells what the server says by itself, for documents.
    fn pushes(_shapes: &mut Shapes<'_>) {}
}

/// A handler of relay topics that a module can list. `#[relay]` writes this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a relay handler",
    label = "put `#[relay(\"pattern\")]` on the function `{Self}`"
)]
pub trait RelayRoute {
    /// Registers the handler.
    fn register(app: &mut App);
}

/// Collects the parts of a program.
#[derive(Debug, Default)]
pub struct App {
    builder: ContainerBuilder,
    modules: Vec<TypeId>,
    layers: Layers,
    registries: Vec<(TypeId, Arc<dyn Registry>)>,
    gateways: Vec<GatewayPlan>,
    relays: Vec<RelayPlan>,
    error: Option<StartError>,
}

impl App {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module; one that was added already adds nothing.
    pub fn module<M: Module>(&mut self) -> &mut Self {
        if !self.modules.contains(&TypeId::of::<M>()) {
            self.modules.push(TypeId::of::<M>());
            M::register(self);
        }
        self
    }

    /// Lists a service.
    pub fn provider<T: Injectable>(&mut self) -> &mut Self {
        self.builder.injectable::<T>();
        self
    }

    /// Provides a value as a service.
    pub fn provide<T: Send + Sync + 'static>(&mut self, value: T) -> &mut Self {
        self.builder.provide(value);
        self
    }

    /// Provides a shared value as a service, also under a trait: `Arc<dyn Repository>`.
    pub fn provide_dyn<T: ?Sized + Send + Sync + 'static>(&mut self, value: Arc<T>) -> &mut Self {
        self.builder.provide_arc(value);
        self
    }

    /// Lists a service under a trait: `provider_dyn::<Files, dyn Repository>(|files| files)`.
    pub fn provider_dyn<T, D>(&mut self, as_dyn: fn(Arc<T>) -> Arc<D>) -> &mut Self
    where
        T: Injectable,
        D: ?Sized + Send + Sync + 'static,
    {
        self.builder.injectable_as(as_dyn);
        self
    }

    /// Lists an async function that makes a service, such as the pool of a database. Its arguments
    /// are services; it runs before the server listens, on a thread of its own whose runtime lives
    /// as long as the server. An error stops the start.
    pub fn factory<Args, T>(&mut self, factory: impl Factory<Args, T>) -> &mut Self
    where
        T: Send + Sync + 'static,
    {
        self.builder.factory(factory);
        self
    }

    /// The same for an async function that makes an `Arc<dyn Trait>`.
    pub fn factory_dyn<Args, D>(&mut self, factory: impl Factory<Args, Arc<D>>) -> &mut Self
    where
        D: ?Sized + Send + Sync + 'static,
    {
        self.builder.factory_dyn(factory);
        self
    }

    /// Lists a relay handler that `#[relay]` has made.
    pub fn relay<R: RelayRoute>(&mut self, _route: R) -> &mut Self {
        R::register(self);
        self
    }

    /// Registers a handler for the relay topics that match `pattern`: a literal name, or a
    /// prefix that ends with `*`.
    pub fn relay_handler<Args: 'static>(
        &mut self,
        pattern: &str,
        handler: impl RelayHandler<Args>,
    ) -> &mut Self {
        for dependency in handler.dependencies() {
            self.require(dependency, &format!("the relay handler of `{pattern}`"));
        }
        self.relays.push(RelayPlan {
            pattern: pattern.to_owned(),
            handler: relay_handler::erase(handler),
        });
        self
    }

    /// The relay handlers, for whoever runs them.
    pub(crate) fn take_relays(&mut self) -> Vec<RelayPlan> {
        std::mem::take(&mut self.relays)
    }

    /// Notes that something beside the services will ask for one.
    pub fn require(&mut self, wanted: Dependency, who: &str) -> &mut Self {
        self.builder.require(wanted, who);
        self
    }

    /// Guards the upgrades of all gateways.
    pub fn upgrade_guard<T: UpgradeGuard>(&mut self) -> &mut Self {
        self.layers.upgrade_guard::<T>();
        self
    }

    /// Guards the events of all gateways.
    pub fn message_guard<T: MessageGuard>(&mut self) -> &mut Self {
        self.layers.message_guard::<T>();
        self
    }

    /// Stands around the handlers of all gateways.
    pub fn interceptor<T: Interceptor>(&mut self) -> &mut Self {
        self.layers.interceptor::<T>();
        self
    }

    /// Decides what becomes of the errors of all gateways, where nothing else has.
    pub fn filter<T: ExceptionFilter>(&mut self) -> &mut Self {
        self.layers.filter::<T>();
        self
    }

    /// Mounts a gateway, with the registry that its marker stands for.
    pub fn gateway<G: Gateway>(&mut self) -> &mut Self {
        let registry = self.registry::<G::Namespace>();
        match GatewayPlan::of::<G>(registry, &mut self.builder) {
            Ok(plan) => self.mount(plan),
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
        self
    }

    /// Builds the services and opens each gateway once, to be sure that every shard can.
    pub fn build(mut self) -> Result<Program, StartError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.layers.provide(&mut self.builder);
        let relay = Relay::late();
        self.builder.provide(relay.clone());
        let container = self.builder.build()?;
        let program = Program {
            container,
            relay,
            layers: Arc::new(self.layers),
            gateways: self.gateways.into(),
            registries: self
                .registries
                .into_iter()
                .map(|(_, registry)| registry)
                .collect(),
        };
        for plan in &*program.gateways {
            program.open(plan)?;
        }
        Ok(program)
    }

    fn mount(&mut self, plan: GatewayPlan) {
        let taken = self.gateways.iter().find(|known| known.excludes(&plan));
        match taken {
            Some(first) => {
                let error = StartError::PathTaken {
                    path: plan.path,
                    first: first.name.clone(),
                    second: plan.name,
                };
                self.error.get_or_insert(error);
            }
            None => self.gateways.push(plan),
        }
    }

    /// The registry of a marker; the first gateway that uses it brings it along.
    fn registry<N: 'static>(&mut self) -> Arc<dyn Registry> {
        let marker = TypeId::of::<N>();
        if let Some((_, known)) = self.registries.iter().find(|(id, _)| *id == marker) {
            return known.clone();
        }
        let index = u16::try_from(self.registries.len()).unwrap_or(u16::MAX);
        let server = Arc::new(WsServer::<N>::new(index));
        // Operators and REST know a registry by the name of its marker.
        if let Some((_, first)) = self
            .registries
            .iter()
            .find(|(_, one)| one.name() == server.name())
        {
            self.error.get_or_insert(StartError::RegistryTaken {
                name: first.name().to_owned(),
                marker: std::any::type_name::<N>().to_owned(),
            });
        }
        self.builder.provide_arc(server.clone());
        self.registries.push((marker, server.clone()));
        server
    }
}

impl<S: Send + Sync, T: ?Sized + Send + Sync + 'static> FromRequestParts<S> for State<T> {
    type Rejection = (StatusCode, String);

    /// The services of the program are at hand in its own routes too.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let program = parts.extensions.get::<Program>();
        let service = program.and_then(|program| program.container.get());
        service.map(Self).ok_or_else(|| {
            let wanted = Dependency::of::<T>().name();
            let text = format!("`{wanted}` is not provided: list it in `providers`");
            (StatusCode::INTERNAL_SERVER_ERROR, text)
        })
    }
}

/// What `adapter = SocketIo` stands for.
#[cfg(feature = "socketio")]
#[doc(hidden)]
#[macro_export]
macro_rules! socketio_adapter {
    ($nsp:literal) => {
        $crate::gateway::module::Adapter::SocketIo { nsp: $nsp }
    };
}

/// What `adapter = SocketIo` stands for.
#[cfg(not(feature = "socketio"))]
#[doc(hidden)]
#[macro_export]
macro_rules! socketio_adapter {
    ($nsp:literal) => {
        compile_error!("`adapter = SocketIo` needs the feature `socketio` of tidegate")
    };
}
