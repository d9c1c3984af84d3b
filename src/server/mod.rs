//! Wires a configuration, mounts and handlers into running shards. The one place that starts
//! threads and binds ports.

mod builder;
mod error;
mod gateways;
mod run;

mod node;

mod admin;

mod boot;

mod stop;

mod told;

mod durable;

mod service;

mod samples;

mod tls;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ahash::AHashMap;
use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Router;
use axum::http::Method;

use crate::auth::{Authenticator, Origin, OriginPolicy};
use crate::broker::pattern::Patterns;
use crate::broker::relay::Unhandled as Policy;
use crate::config::setting::Setting;
use crate::config::{
    Carrier, Config, Dialect as ConfigDialect, Limits, MountConfig, RelaySection, Tenants,
    Unhandled,
};
use crate::gateway::builtin::EventNumbers;
use crate::gateway::engine::program::Program;
use crate::gateway::module::App;
use crate::gateway::raw_handler::{self, AnyRawHandler};
use crate::gateway::relay::Relay;
use crate::gateway::schema::Schema;
use crate::gateway::socket::echo;
use crate::gateway::topics::Topics;
use crate::http::{Access, Deps};
use crate::id::PARTITIONS_MAX;
use crate::metrics::Metrics;
use crate::shard::link;
use crate::shard::post::mailbox::Port;
use crate::shard::state::command::Command;
use crate::shard::state::memory::Memory;
use crate::shard::state::shared::{Dialect, Gate, Live, Mount, RelayWorld, Shared};
use crate::tls::Acceptor;

pub use crate::shard::{RingError, probe};
pub use crate::tls::CertificateError;
pub use builder::RelayConfig;
pub use error::StartError;
pub use run::RunError;

use admin::Admin;
use boot::{Boot, Threads};
use run::Process;

/// The mounts, and the number of each path.
type Mounts = (Box<[Mount]>, AHashMap<String, u16>);

/// The sockets that are listened on, the address of the first, and that of the one for TLS.
type Listeners = (Arc<[OwnedFd]>, SocketAddr, Option<SocketAddr>);

/// A registered raw handler.
struct RawMount {
    path: String,
    handler: Box<dyn AnyRawHandler>,
    /// Engine.IO carries its messages.
    engine: bool,
}

/// Collects what a server consists of.
pub struct ServerBuilder {
    config: Config,
    authenticator: Arc<Authenticator>,
    app: App,
    raw: Vec<RawMount>,
    public: Vec<(Method, String)>,
    router: Router,
    /// The configuration as it may be shown; empty if it was made by the program.
    settings: Vec<Setting>,
    /// Sockets that were bound before this process began; without any it binds its own.
    inherited: Vec<TcpListener>,
    /// How the process was started, if it is a server and nothing else.
    process: Option<Arc<Process>>,
    /// Its errors end the process.
    is_main: bool,
}

impl std::fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A server while it runs. Dropping it is a stop: it drains, and waits until all its shards have
/// ended, at most `limits.drain_ms_max` and a moment for the logs.
#[derive(Debug)]
#[must_use = "a server that is dropped stops; `join` waits until something else stops it"]
pub struct Server {
    shared: Arc<Shared>,
    metrics: Metrics,
    address: SocketAddr,
    /// Where it listens for TLS.
    tls_address: Option<SocketAddr>,
    /// The certificates in force.
    certificates: ArcSwapOption<Acceptor>,
    /// Keys and origins in force, for HTTP.
    access: Arc<ArcSwap<Access>>,
    /// The configuration in force, for HTTP.
    settings: Arc<ArcSwap<Vec<Setting>>>,
    admin: Option<Admin>,
    /// Kept for the services too, which hold it weakly.
    relay: Relay,
    /// `limits.drain_delay_ms` as it is in force.
    drain_delay_ms: AtomicU64,
    threads: Threads,
}

impl Server {
    /// Begins a server with a configuration and the keys that it believes.
    pub fn builder(config: Config, authenticator: Arc<Authenticator>) -> ServerBuilder {
        ServerBuilder {
            config,
            authenticator,
            app: App::new(),
            raw: Vec::new(),
            public: Vec::new(),
            router: Router::new(),
            settings: Vec::new(),
            inherited: Vec::new(),
            process: None,
            is_main: false,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for TLS, if `[tls] listen` is set.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Where operators reach it, if `[admin] listen` is set.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// What its gateways speak: as AsyncAPI, and as types for the client in TypeScript.
    pub fn schema(&self) -> Schema {
        self.shared.program.schema()
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The relay, for code that is no handler.
    pub fn relay(&self) -> Relay {
        self.relay.clone()
    }

    /// Durable topics, for code that is no handler; it must name a tenant.
    pub fn topics(&self) -> Topics {
        let world = self.shared.durable.as_ref();
        world.map_or_else(Topics::unbound, |world| world.topics.clone())
    }

    /// Puts other keys, limits and proxies in force, for new connections and old.
    /// Without keys those in force stay.
    pub fn reload(&self, config: &Config, keys: Option<Arc<Authenticator>>) {
        let keys = keys.unwrap_or_else(|| Arc::clone(&self.access.load().authenticator));
        self.access
            .store(node::access_of(config, Arc::clone(&keys)));
        let mut live = live_of(config, keys, &self.shared.mounts);
        live.tls = self.certificates_again(config);
        let live = Arc::new(live);
        samples::tell_places(&self.metrics, live.connections_max);
        self.drain_delay_ms
            .store(live.limits.drain_delay_ms, Ordering::Relaxed);
        self.tell_all(|| Command::Reload(Arc::clone(&live)));
    }

    /// The certificates of `config`, or those in force if one of its files is wrong.
    fn certificates_again(&self, config: &Config) -> Option<Acceptor> {
        let before = self.certificates.load_full();
        let again = tls::acceptor(config, before.as_deref()).unwrap_or_else(|error| {
            let error = crate::cli::with_causes(&error);
            tracing::error!(error, "the certificates in force stay");
            None
        });
        let acceptor = again.or_else(|| before.as_deref().cloned());
        self.certificates.store(acceptor.clone().map(Arc::new));
        acceptor
    }
}

impl ServerBuilder {
    /// Binds, starts all shards and returns while they run.
    ///
    /// # Errors
    /// Says what is missing or in the way, and the line that mends it.
    pub fn start(mut self) -> Result<Server, StartError> {
        probe()?;
        admin::check(&self.config.admin)?;
        let shards = shard_count(&self.config);
        let relay = self.relay_world(shards)?;
        let topics = Topics::unbound();
        self.app.provide(topics.clone());
        self.app.provide(EventNumbers::default());
        let program = std::mem::take(&mut self.app).build()?;
        let (mounts, mount_of) = self.mounts(&program)?;
        let ports = ports(shards, self.config.limits.outside_queue_max);
        let live = Arc::new(self.live(&mounts)?);
        let began = crate::shard::now();
        let durable = self.open_topics(shards, topics)?;
        let recovered_ms = crate::shard::us_since(began) / 1_000;
        let (world, stores, directory) = durable::parted(durable);
        let own_listeners_from = self.inherited.len();
        let (listeners, address, tls_address) = self.listeners()?;
        let shared = Arc::new(Shared {
            own_listeners_from,
            tls_listeners_from: tls_from(&listeners, tls_address),
            loads: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            partitions: PARTITIONS_MAX,
            polls: AtomicU64::new(0),
            mounts,
            mount_of,
            has_user_routes: self.router.has_routes(),
            relay,
            durable: world,
            quiet: AtomicUsize::new(0),
            container: program.container().clone(),
            program,
            draining: AtomicBool::new(false),
            gate: Gate::new(),
            memory: Memory::of_this_machine(),
            ports,
        });
        let relay = bind_handles(&shared);
        let metrics = Metrics::new(shards);
        samples::add(&metrics, &shared, &self.config);
        let boot = Boot {
            shared: &shared,
            live: &live,
            metrics: &metrics,
            listeners: &listeners,
            directory: directory.map(Arc::new),
        };
        let deps = self.deps(&shared, &metrics)?;
        let access = Arc::clone(&deps.access);
        let settings = Arc::clone(&deps.settings);
        let admin = self.admin(&deps)?;
        samples::of_config(&metrics, &self.config, live.connections_max);
        let threads = boot.start(&self.config, &self.routes(deps), stores)?;
        gateways::open(&shared, address);
        self.tell_start(&shared, address, recovered_ms);
        Ok(Server {
            shared,
            metrics,
            address,
            tls_address,
            certificates: ArcSwapOption::new(live.tls.clone().map(Arc::new)),
            access,
            settings,
            admin,
            relay,
            drain_delay_ms: AtomicU64::new(live.limits.drain_delay_ms),
            threads,
        })
    }

    /// What a reload replaces, as it is at the start.
    fn live(&self, mounts: &[Mount]) -> Result<Live, StartError> {
        let keys = Arc::clone(&self.authenticator);
        let mut live = live_of(&self.config, keys, mounts);
        live.tls = tls::acceptor(&self.config, None)?;
        Ok(live)
    }

    /// Where connections come from: sockets that were handed over, or one that is bound now; behind
    /// them the one for TLS.
    fn listeners(&mut self) -> Result<Listeners, StartError> {
        let mut listeners = std::mem::take(&mut self.inherited);
        if listeners.is_empty() {
            listeners.push(listen(&self.config, self.config.server.listen)?);
        }
        let address = listeners[0].local_addr();
        let address = address.map_err(|source| self.refused(source))?;
        let mut tls_address = None;
        if let Some(wanted) = tls::address(&self.config) {
            let listener = listen(&self.config, wanted)?;
            let bound = listener.local_addr();
            tls_address = Some(bound.map_err(|source| refused(wanted, source))?);
            listeners.push(listener);
        }
        let listeners: Arc<[OwnedFd]> = listeners.into_iter().map(OwnedFd::from).collect();
        listeners.iter().for_each(send_at_once);
        Ok((listeners, address, tls_address))
    }

    /// The listener for operators, if one is asked for.
    fn admin(&self, deps: &Deps) -> Result<Option<Admin>, StartError> {
        let start = |address| {
            let router = crate::http::admin_router(deps.clone());
            Admin::start(address, router).map_err(|source| refused(address, source))
        };
        self.config.admin.listen.map(start).transpose()
    }

    fn refused(&self, source: std::io::Error) -> StartError {
        refused(self.config.server.listen, source)
    }

    fn mounts(&mut self, program: &Program) -> Result<Mounts, StartError> {
        let mut mounts = gateways::mounts(program, &self.config, |path| self.is_public(path));
        for raw in std::mem::take(&mut self.raw) {
            let public = self.is_public(&raw.path);
            let dialect = Dialect::Raw(raw.handler);
            mounts.push(Mount {
                path: raw.path,
                dialect,
                public,
                shared: false,
                engine: raw.engine,
            });
        }
        for mount in &self.config.mounts {
            let dialect = match mount.dialect {
                ConfigDialect::Relay => Dialect::Relay,
                ConfigDialect::Durable if self.config.durable.enabled => Dialect::Durable,
                ConfigDialect::Raw => {
                    Dialect::Raw(built_in(&mount.path, mount.handler.as_deref())?)
                }
                ConfigDialect::Event => {
                    gateways::check_entry(&mount.path, program)?;
                    continue;
                }
                ConfigDialect::Durable => continue,
            };
            let public = mount.public || self.is_public(&mount.path);
            let shared = mount.tenants == Tenants::Shared;
            mounts.push(Mount {
                path: mount.path.clone(),
                dialect,
                public,
                shared,
                engine: mount.transport == Carrier::EngineIo,
            });
        }
        let mut mount_of = AHashMap::new();
        for (number, mount) in (0..).zip(&mounts) {
            if let Some(first) = mount_of.insert(mount.path.clone(), number) {
                return Err(StartError::PathTaken {
                    path: mount.path.clone(),
                    first: mounts[usize::from(first)].name(program),
                    second: mount.name(program),
                });
            }
        }
        Ok((mounts.into(), mount_of))
    }

    /// Topics on disk, unless they are switched off.
    fn open_topics(
        &self,
        shards: u16,
        topics: Topics,
    ) -> Result<Option<durable::Opened>, StartError> {
        let wanted = self.config.durable.enabled;
        wanted
            .then(|| durable::open(&self.config, shards, topics))
            .transpose()
    }

    fn relay_world(&mut self, shards: u16) -> Result<Option<RelayWorld>, StartError> {
        let mut patterns = Patterns::default();
        let relays = self.app.take_relays();
        for (index, relay) in relays.iter().enumerate() {
            patterns.insert(&relay.pattern, index)?;
        }
        let Some(section) = self.relay_section() else {
            let patterns = relays.into_iter().map(|relay| relay.pattern);
            let patterns: Vec<_> = patterns.collect();
            return match patterns.is_empty() {
                true => Ok(None),
                false => Err(StartError::NoRelayMount(patterns.join("`, `"))),
            };
        };
        let handlers = relays.into_iter().map(|relay| relay.handler);
        Ok(Some(RelayWorld {
            patterns: Arc::new(patterns),
            handlers: handlers.collect(),
            topic_capacity: section.topic_capacity,
            last_bytes_max: match section.keep_last {
                true => section.last_bytes_max / usize::from(shards),
                false => 0,
            },
            subscriptions_max: section.max_subscriptions_per_connection,
            unhandled: match section.unhandled {
                Unhandled::Broadcast => Policy::Broadcast,
                Unhandled::Reject => Policy::Reject,
            },
            shared: section.tenants == Tenants::Shared,
            conn_ids: AtomicU64::new(0),
        }))
    }

    /// `[relay]`; without it a mount that speaks relay has the defaults of that section.
    fn relay_section(&self) -> Option<RelaySection> {
        let speaks_relay = |mount: &&MountConfig| mount.dialect == ConfigDialect::Relay;
        let mount = self.config.mounts.iter().find(speaks_relay);
        self.config.relay.clone().or_else(|| {
            Some(RelaySection {
                tenants: mount?.tenants,
                ..RelaySection::default()
            })
        })
    }
}

impl Mount {
    fn name(&self, program: &Program) -> String {
        match &self.dialect {
            Dialect::Event(number) => format!("`{}`", program.gateways()[*number].name),
            Dialect::Raw(_) => "a raw mount".to_owned(),
            Dialect::SocketIo(namespaces) => match namespaces.first() {
                Some((_, number)) => format!("`{}`", program.gateways()[*number].name),
                None => "Socket.IO".to_owned(),
            },
            Dialect::Relay => "the relay".to_owned(),
            Dialect::Durable => "the mount of durable topics".to_owned(),
        }
    }
}

/// The number of the first listener for TLS, which stands behind the others.
fn tls_from(listeners: &[OwnedFd], tls: Option<SocketAddr>) -> u32 {
    let plain = listeners.len() - usize::from(tls.is_some());
    u32::try_from(plain).unwrap_or(u32::MAX)
}

fn ports(shards: u16, queue_max: usize) -> Arc<[Port<Command>]> {
    (0..shards).map(|_| Port::new(queue_max)).collect()
}

/// A handler that needs no code of the user's.
fn built_in(path: &str, handler: Option<&str>) -> Result<Box<dyn AnyRawHandler>, StartError> {
    match handler {
        Some("echo") => Ok(raw_handler::erase(echo, Vec::new())),
        other => Err(StartError::UnknownHandler {
            path: path.to_owned(),
            handler: other.unwrap_or_default().to_owned(),
            known: "echo".to_owned(),
        }),
    }
}

fn live_of(config: &Config, authenticator: Arc<Authenticator>, mounts: &[Mount]) -> Live {
    Live {
        connections_max: connections_max(&config.limits),
        limits: config.limits.clone(),
        mount_limits: mounts
            .iter()
            .map(|mount| match mount.engine {
                true => config.socketio_limits.clone(),
                false => config.limits_of(&mount.path).clone(),
            })
            .collect(),
        authenticator,
        socketio: config.socketio.clone(),
        origins: origins_of(config),
        tls: None,
        proxies: config.server.trusted_proxies.clone().into(),
    }
}

fn origins_of(config: &Config) -> OriginPolicy {
    let origins = config.auth.allowed_origins.iter();
    OriginPolicy {
        allowed: origins.filter_map(|origin| Origin::parse(origin)).collect(),
        required: config.auth.require_origin,
        loopback_only: config.dev,
    }
}

fn shard_count(config: &Config) -> u16 {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    match config.server.shards {
        0 => u16::try_from(cores()).unwrap_or(u16::MAX),
        shards => shards,
    }
}

/// Descriptors that are left for files, rings and HTTP, at most.
const DESCRIPTORS_RESERVED_MAX: u64 = 512;

/// All connections that the process may have: its open files less an eighth, at most 512.
fn connections_max(limits: &Limits) -> usize {
    if 0 < limits.connections_max {
        return limits.connections_max;
    }
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = files.unwrap_or(u64::MAX);
    let reserve = (files / 8).min(DESCRIPTORS_RESERVED_MAX);
    usize::try_from(files - reserve).unwrap_or(usize::MAX)
}

/// Leads the handles that services were given before there were shards to where they lead.
fn bind_handles(shared: &Arc<Shared>) -> Relay {
    let relay = link::relay_of(shared);
    shared.program.relay().find(&relay);
    if let Some(world) = &shared.durable {
        let link = link::StoreLink(Arc::downgrade(shared));
        world.topics.bind(Arc::new(link));
    }
    relay
}

/// Binds once and without SO_REUSEPORT, so that a second server on the port fails.
fn listen(config: &Config, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || -> std::io::Result<TcpListener> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        listen(&socket, config.shard.backlog.cast_signed())?;
        Ok(socket.into())
    };
    bind().map_err(|source| refused(address, source))
}

/// Frames go out as they are queued. What is accepted has what its listener has, which spares each
/// connection a call.
fn send_at_once(listener: &OwnedFd) {
    // A socket that is no TCP has no such delay.
    let _ = rustix::net::sockopt::set_tcp_nodelay(listener, true);
}

fn refused(address: SocketAddr, source: std::io::Error) -> StartError {
    let hint = match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another program has this port: stop it, or choose one with `--listen`"
        }
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 want CAP_NET_BIND_SERVICE",
        std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    };
    StartError::Listen {
        address,
        source,
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_sends_at_once() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let descriptor = OwnedFd::from(listener.try_clone().unwrap());
        send_at_once(&descriptor);
        let _peer = std::net::TcpStream::connect(address).unwrap();
        assert!(listener.accept().unwrap().0.nodelay().unwrap());
    }
}
