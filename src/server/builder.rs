//! What a program tells its server before it starts: services, modules, handlers, routes. Knows what
//! may be told; starting is done elsewhere.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;

use crate::config::RelaySection;
use crate::config::setting::Setting;
use crate::gateway::container::Factory;
use crate::gateway::module::{App, Module};
use crate::gateway::raw_handler::{self, RawHandler};
use crate::gateway::relay_handler::RelayHandler;

use super::{RawMount, ServerBuilder};

/// How the relay mount behaves; the defaults are those of the seed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RelayConfig {
    pub(super) section: RelaySection,
}

impl RelayConfig {
    /// Mounts the relay on another path than `/ws`.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.section.path = path.into();
        self
    }

    /// How many pushes of one topic may wait for one slow subscriber, in place of 128.
    #[must_use]
    pub fn with_topic_capacity(mut self, frames: usize) -> Self {
        self.section.topic_capacity = frames;
        self
    }

    /// How many topics one connection may subscribe to, in place of 50.
    #[must_use]
    pub fn with_max_subscriptions(mut self, topics: usize) -> Self {
        self.section.max_subscriptions_per_connection = topics;
        self
    }
}

impl ServerBuilder {
    /// Provides a value that handlers can take as `State<T>` or `Arc<T>`.
    #[must_use]
    pub fn provide<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.app.provide(value);
        self
    }

    /// Provides a shared value, also under a trait: `.provide_dyn::<dyn Repository>(Arc::new(files))`.
    #[must_use]
    pub fn provide_dyn<T: ?Sized + Send + Sync + 'static>(mut self, value: Arc<T>) -> Self {
        self.app.provide_dyn(value);
        self
    }

    /// Adds an async function that makes a service, as [`App::factory`] does.
    #[must_use]
    pub fn factory<Args, T>(mut self, factory: impl Factory<Args, T>) -> Self
    where
        T: Send + Sync + 'static,
    {
        self.app.factory(factory);
        self
    }

    /// Adds an async function that makes an `Arc<dyn Trait>`.
    #[must_use]
    pub fn factory_dyn<Args, D>(mut self, factory: impl Factory<Args, Arc<D>>) -> Self
    where
        D: ?Sized + Send + Sync + 'static,
    {
        self.app.factory_dyn(factory);
        self
    }

    /// Adds a module: its services, gateways and relay handlers, and those of what it imports.
    #[must_use]
    pub fn module<M: Module>(mut self) -> Self {
        self.app.module::<M>();
        self
    }

    /// Adds by hand what a module would list.
    #[must_use]
    pub fn app(mut self, add: impl FnOnce(&mut App)) -> Self {
        add(&mut self.app);
        self
    }

    /// Mounts the relay, or changes how it is mounted.
    #[must_use]
    pub fn relay_config(mut self, relay: RelayConfig) -> Self {
        Setting::put(&mut self.settings, "relay", &relay.section);
        self.config.set_relay(relay.section);
        self
    }

    /// Registers a handler for the relay topics that match `pattern`: a literal name, or a
    /// prefix that ends with `*`.
    #[must_use]
    pub fn relay<Args: 'static>(mut self, pattern: &str, handler: impl RelayHandler<Args>) -> Self {
        self.app.relay_handler(pattern, handler);
        self
    }

    /// Mounts a raw handler, which owns the socket of each of its connections.
    #[must_use]
    pub fn raw<Args: 'static>(self, path: &str, handler: impl RawHandler<Args>) -> Self {
        self.raw_with_protocols(path, &[], handler)
    }

    /// Mounts a raw handler that speaks subprotocols (`Sec-WebSocket-Protocol`). The first of these
    /// that a client offers is agreed on; [`Call::subprotocol`](crate::gateway::call::Call::subprotocol)
    /// tells which, if any.
    #[must_use]
    pub fn raw_with_protocols<Args: 'static>(
        mut self,
        path: &str,
        protocols: &[&str],
        handler: impl RawHandler<Args>,
    ) -> Self {
        for dependency in handler.dependencies() {
            self.app
                .require(dependency, &format!("the raw handler on `{path}`"));
        }
        self.raw.push(RawMount {
            path: path.to_owned(),
            handler: raw_handler::erase(
                handler,
                protocols.iter().map(ToString::to_string).collect(),
            ),
            engine: false,
        });
        self
    }

    /// Mounts a raw handler over Engine.IO: messages travel by polling or WebSocket, as `[socketio]`
    /// says.
    #[must_use]
    pub fn engine_io<Args: 'static>(self, path: &str, handler: impl RawHandler<Args>) -> Self {
        let mut builder = self.raw(path, handler);
        if let Some(mount) = builder.raw.last_mut() {
            mount.engine = true;
        }
        builder
    }

    /// Lets everybody use a mount or a route without a token. A mount is opened by a GET, so that is
    /// the method that makes one public. In the path of a route `{name}` stands for any one segment
    /// and `{*rest}` for all that follow, as in axum.
    #[must_use]
    pub fn public_route(mut self, method: &str, path: &str) -> Self {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        self.public.push((method, path.to_owned()));
        self
    }

    pub(super) fn is_public(&self, path: &str) -> bool {
        let opens = |(method, public): &(Method, String)| *method == Method::GET && public == path;
        self.public.iter().any(opens)
    }

    /// Adds the user's own routes beside those of the server.
    #[must_use]
    pub fn router(mut self, router: Router) -> Self {
        self.router = self.router.merge(router);
        self
    }
}
