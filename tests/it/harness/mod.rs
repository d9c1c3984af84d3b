//! Starts a server in this process and speaks to it. Knows how to wait and how to fail loudly;
//! nothing of what a test is about.
//!
//! Every read has a deadline, so a frame that does not come is a failed test and never a hanging
//! one. Nothing sleeps for a guessed time: a test waits for a frame, for the end of a socket, or
//! with [`eventually`] for a condition.

pub(crate) mod client;
pub(crate) mod http;
#[path = "../../../src/testing/patient.rs"]
mod patient;
pub(crate) mod process;
pub(crate) mod rustc;
pub(crate) mod wire;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidegate::auth::{AuthConfig, Authenticator, Claims, Key, Rules};
use tidegate::config::{Config, Limits};
use tidegate::gateway::raw_handler::RawHandler;
use tidegate::gateway::relay_handler::RelayHandler;
use tidegate::id::Tenant;
use tidegate::metrics::{Counter, Gauge};
use tidegate::server::ServerBuilder;
use tidegate::{Relay, Server};

pub(crate) use client::Client;
pub(crate) use wire::{Opcode, Wire};

/// How long anything may take, on a machine that has much else to do and a slow disk. What is not
/// there by then never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The secret of every server here.
pub(crate) const SECRET: &[u8] = b"a secret of the integration tests";

/// Declares a test that runs on a server of one shard and on one of two: what crosses shards
/// must look the same from outside. The body takes the number of shards.
macro_rules! both_shards {
    ($($(#[$meta:meta])* fn $name:ident($shards:ident) $body:block)+) => {$(
        mod $name {
            #[test]
            fn with_one_shard() {
                super::$name(1);
            }

            #[test]
            fn with_two_shards() {
                super::$name(2);
            }
        }

        $(#[$meta])*
        fn $name($shards: u16) $body
    )+};
}
pub(crate) use both_shards;

/// Declares a test that runs with one, two and three shards.
macro_rules! on_shards {
    ($($(#[$meta:meta])* fn $name:ident($shards:ident) $body:block)+) => {$(
        mod $name {
            #[test]
            fn with_one_shard() {
                super::$name(1);
            }

            #[test]
            fn with_two_shards() {
                super::$name(2);
            }

            #[test]
            fn with_three_shards() {
                super::$name(3);
            }
        }

        $(#[$meta])*
        fn $name($shards: u16) $body
    )+};
}
pub(crate) use on_shards;

/// A running server. Drained and joined when it is dropped, which must take less than the 10 s
/// that a graceful stop may take.
pub(crate) struct Site {
    server: Option<Server>,
    pub(crate) address: SocketAddr,
    /// What it was started with.
    config: Config,
}

/// What a server is made of before it starts.
pub(crate) struct Plan {
    config: Config,
    rules: Rules,
    builder: Vec<Box<dyn FnOnce(ServerBuilder) -> ServerBuilder>>,
}

impl Plan {
    /// A server with `shards` shards on a port of its own, a relay on `/ws` and nothing else.
    pub(crate) fn new(shards: u16) -> Self {
        let mut config = Config::dev();
        config.dev = false;
        config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.server.shards = shards;
        config.shard.pin = false;
        config.durable.enabled = false;
        let (rules, builder) = (Rules::default(), Vec::new());
        Self {
            config,
            rules,
            builder,
        }
    }

    /// Takes tokens by these rules.
    pub(crate) fn rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Changes the configuration.
    pub(crate) fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes the limits of the server and of all its mounts.
    pub(crate) fn limits(self, change: impl Fn(&mut Limits)) -> Self {
        self.config(|config| {
            change(&mut config.limits);
            change(&mut config.socketio_limits);
            for mount in &mut config.mounts {
                change(&mut mount.limits);
            }
        })
    }

    /// Registers handlers, routes and services.
    pub(crate) fn with(
        mut self,
        register: impl FnOnce(ServerBuilder) -> ServerBuilder + 'static,
    ) -> Self {
        self.builder.push(Box::new(register));
        self
    }

    /// Provides a value that handlers take as `State<T>`.
    pub(crate) fn provide<T: Send + Sync + 'static>(self, value: T) -> Self {
        self.with(|builder| builder.provide(value))
    }

    /// Mounts a raw handler that needs no token.
    pub(crate) fn raw<Args: 'static>(
        self,
        path: &'static str,
        handler: impl RawHandler<Args>,
    ) -> Self {
        self.with(move |builder| builder.raw(path, handler).public_route("GET", path))
    }

    /// Registers a relay handler.
    pub(crate) fn relay<Args: 'static>(
        self,
        pattern: &'static str,
        handler: impl RelayHandler<Args>,
    ) -> Self {
        self.with(move |builder| builder.relay(pattern, handler))
    }

    /// Starts it.
    pub(crate) fn start(self) -> Site {
        let config = self.config.clone();
        let server = self.try_start().expect("the server starts");
        Site {
            address: server.address(),
            config,
            server: Some(server),
        }
    }

    /// Starts it, or says why not.
    pub(crate) fn try_start(self) -> Result<Server, tidegate::server::StartError> {
        let rules = Rules {
            rights: self.config.auth.rights.mode(),
            ..self.rules
        };
        let builder = Server::builder(self.config, Arc::new(authenticator(rules)));
        let register =
            |builder, register: Box<dyn FnOnce(ServerBuilder) -> ServerBuilder>| register(builder);
        self.builder.into_iter().fold(builder, register).start()
    }
}

fn authenticator(rules: Rules) -> Authenticator {
    let key = Key::hs256(None, SECRET).unwrap();
    Authenticator::new(vec![key], rules).unwrap()
}

impl Site {
    /// The server, for what only its owner may do.
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("the server runs")
    }

    /// Puts other limits in force, for the server and all its mounts.
    pub(crate) fn reload_limits(&self, change: impl Fn(&mut Limits)) {
        self.reload(|config| {
            change(&mut config.limits);
            change(&mut config.socketio_limits);
            for mount in &mut config.mounts {
                change(&mut mount.limits);
            }
        });
    }

    /// Puts another configuration in force, as far as a reload does.
    pub(crate) fn reload(&self, change: impl FnOnce(&mut Config)) {
        let mut config = self.config.clone();
        change(&mut config);
        self.server().reload(&config, None);
    }

    /// The relay of one tenant, from a thread that is no shard.
    pub(crate) fn relay(&self, ns: &str) -> Relay {
        self.server().relay().tenant(tenant(ns))
    }

    /// A client on the relay mount.
    pub(crate) fn join(&self, ns: &str, sub: &str) -> Client {
        Client::connect(self.address, "/ws", &token(ns, sub))
    }

    /// Two clients that are on different shards, where there are two: a new connection goes to
    /// the shard that has the fewest.
    pub(crate) fn join_two(&self, ns: &str) -> (Client, Client) {
        (self.join(ns, "ada"), self.join(ns, "bob"))
    }

    /// A counter, added up over all shards.
    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.server().metrics().total(counter)
    }

    /// A gauge, added up over all shards; they set it once a second.
    pub(crate) fn gauge(&self, gauge: Gauge) -> u64 {
        self.server().metrics().sum(gauge)
    }

    /// Waits until the topic has so many present, as seen from outside.
    pub(crate) fn await_presence(&self, ns: &str, topic: &str, count: usize) {
        let relay = self.relay(ns);
        eventually(&format!("{count} present in {topic}"), || {
            wait(relay.presence_count(topic)).unwrap() == count
        });
    }

    /// Stops the server; how long it took.
    pub(crate) fn stop(mut self) -> Duration {
        self.end()
    }

    fn end(&mut self) -> Duration {
        let Some(server) = self.server.take() else {
            return Duration::ZERO;
        };
        let started = Instant::now();
        server.drain();
        server.join().expect("every shard ends well");
        started.elapsed()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let took = self.end();
        // A test that has failed already should say why it did.
        if !std::thread::panicking() {
            assert!(took < Duration::from_secs(10), "the stop took {took:?}");
        }
    }
}

/// A tenant by name.
pub(crate) fn tenant(ns: &str) -> Tenant {
    Tenant::parse(ns).expect("the name of a tenant")
}

/// A token of `sub` in `ns`, valid for an hour.
pub(crate) fn token(ns: &str, sub: &str) -> String {
    token_of(&Claims::new(tenant(ns), sub), 3_600)
}

/// A token with these claims that is valid for `ttl_s` seconds.
pub(crate) fn token_of(claims: &Claims, ttl_s: u64) -> String {
    let issuer = AuthConfig::new(SECRET, ttl_s).unwrap();
    issuer.issue(claims, unix_s()).unwrap()
}

/// Seconds since 1970.
pub(crate) fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock behind 1970").as_secs()
}

/// Waits for a condition that no frame tells of.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a future of the server's to its end on this thread.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let bounded = async { tokio::time::timeout(PATIENCE, future).await };
    runtime.block_on(bounded).expect("an answer in time")
}

/// Runs the calling test once more in a process of its own, where nothing else takes memory or
/// descriptors, and fails if it fails there. `true` is the answer in that process: go on.
pub(crate) fn is_alone() -> bool {
    const MARK: &str = "TIDEGATE_TEST_ALONE";
    let thread = std::thread::current();
    let name = thread
        .name()
        .expect("tests run on threads that are named after them");
    // With one thread for all tests none has a thread of its own, and none a neighbour.
    if std::env::var_os(MARK).is_some() || name == "main" {
        return true;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture", "--test-threads", "2"]);
    let output = child.env(MARK, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{complaint}");
    assert!(text.contains("1 passed"), "{text}");
    false
}

/// Bytes of this process in memory.
pub(crate) fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}
