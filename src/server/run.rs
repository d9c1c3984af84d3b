//! A server as a process: arguments, log, first line, signals, end. Knows flags and signals;
//! what runs is in the module above.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;

use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::auth::{AuthConfig, Claims, Key};
use crate::cli::{EXIT_CONFIG, ServeOptions};
use crate::config::secret::Identity;
use crate::config::setting::Setting;
use crate::config::{Config, LogFormat, Sources};
use crate::id::Tenant;
use crate::logging::{LogError, Logging};

use super::service::{self, Stage};
use super::{Server, ServerBuilder, StartError};

/// Why a process that serves ends early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// Nothing can be logged as asked for.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The server does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for: {0}")]
    Signals(std::io::Error),
}

impl RunError {
    /// How the process ends: with 78 (`EX_CONFIG`) where a restart would meet the same again.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Log(_) => EXIT_CONFIG,
            Self::Start(error) if error.is_lasting() => EXIT_CONFIG,
            Self::Start(_) | Self::Signals(_) => 1,
        }
    }

    /// Says the error on one line and ends the process.
    #[expect(clippy::print_stderr, reason = "it is what `main` would do")]
    fn end(&self) -> ! {
        eprintln!("{}: {}", program_name(), crate::cli::with_causes(self));
        std::process::exit(self.exit_code().into());
    }
}

/// The name that the program was started by.
fn program_name() -> String {
    let started_by = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = started_by.as_deref().and_then(std::path::Path::file_name);
    name.map_or_else(
        || "tidegate".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Flags of a program that is a server.
#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    serve: ServeOptions,
}

/// What a process is told at its start, and asks again on SIGHUP.
#[derive(Debug)]
pub(super) struct Process {
    sources: Sources,
    issuer: Issuer,
    logging: Logging,
}

impl Process {
    /// Signs what its own server believes.
    pub(super) fn tokens(&self) -> Option<Arc<AuthConfig>> {
        self.issuer.tokens.clone().map(Arc::new)
    }
}

/// What is left of the identity when the keys went to the server.
#[derive(Debug)]
struct Issuer {
    tokens: Option<AuthConfig>,
    made_up: Option<Key>,
}

impl Server {
    /// Begins a server that is told by its command line, environment and configuration file what
    /// to do, exactly as `tidegate serve` is. Wrong usage and a configuration that is refused end the
    /// process with one line on stderr, the latter with exit code 78; so does [`ServerBuilder::run`]
    /// for what it begins.
    ///
    /// # Errors
    /// None: what goes wrong ends the process. [`Server::from_options`] answers it.
    pub fn from_args() -> Result<ServerBuilder, RunError> {
        let begun = Self::from_options(&Flags::parse().serve);
        let mut builder = begun.unwrap_or_else(|error| error.end());
        builder.is_main = true;
        Ok(builder)
    }

    /// The same with flags that were parsed elsewhere, for a program that answers errors itself.
    ///
    /// # Errors
    /// When the configuration is refused.
    pub fn from_options(options: &ServeOptions) -> Result<ServerBuilder, RunError> {
        let sources = options.sources();
        let loaded = sources.load()?;
        let settings = loaded.settings();
        let config = loaded.config;
        let logging = Logging::start(&config.log.level, config.log.format == LogFormat::Json)?;
        let Identity {
            authenticator,
            issuer,
            made_up,
        } = config.identity(&sources)?;
        let inherited = service::inherited(config.dev).map_err(RunError::Start)?;
        let mut builder = Self::builder(config, Arc::new(authenticator));
        builder.settings = settings;
        builder.inherited = inherited;
        let issuer = Issuer {
            tokens: issuer,
            made_up,
        };
        builder.process = Some(Arc::new(Process {
            sources,
            issuer,
            logging,
        }));
        Ok(builder)
    }
}

impl ServerBuilder {
    /// Serves until SIGTERM or SIGINT, then drains. SIGHUP loads keys, limits, trusted proxies and
    /// the level of the log anew.
    ///
    /// # Errors
    /// Says what is missing or in the way, and the line that mends it. A program that began with
    /// [`Server::from_args`] ends with that line, and with 78 where a restart would not help.
    pub fn run(self) -> Result<(), RunError> {
        let is_main = self.is_main;
        self.serve().or_else(|error| match is_main {
            true => error.end(),
            false => Err(error),
        })
    }

    fn serve(self) -> Result<(), RunError> {
        let process = self.process.clone();
        let dev = self.config.dev;
        let relay = self.config.relay.as_ref().map(|relay| relay.path.clone());
        let durable = &self.config.durable;
        let durable = durable.enabled.then(|| durable.path.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(RunError::Signals)?;
        let entered = runtime.enter();
        let mut signals = Signals::new().map_err(RunError::Signals)?;
        warn_of(&self.config, &self.inherited);
        let server = self.start()?;
        announce(&server);
        service::notify(Stage::Ready);
        if let Some(process) = process.as_deref().filter(|_| dev) {
            greet(&server, process, relay.as_deref(), durable.as_deref());
        }
        drop(entered);
        runtime.block_on(signals.serve(&server, process.as_deref()));
        service::notify(Stage::Stopping);
        server.drain();
        server.join()?;
        Ok(())
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn serve(&mut self, server: &Server, process: Option<&Process>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(server, process),
            }
        }
    }
}

/// A reload that fails changes nothing.
fn reload(server: &Server, process: Option<&Process>) {
    let Some(process) = process else { return };
    service::notify(Stage::Reloading);
    let reloaded = try_reload(server, process);
    service::notify(Stage::Ready);
    match reloaded {
        Ok(()) => tracing::info!("reloaded keys, limits, proxies and log level"),
        Err(error) => tracing::error!(error = crate::cli::with_causes(&error), "not reloaded"),
    }
}

fn try_reload(server: &Server, process: &Process) -> Result<(), RunError> {
    let loaded = process.sources.load()?;
    let settings = loaded.settings();
    let config = loaded.config;
    process.logging.reload(&config.log.level)?;
    let made_up = process.issuer.made_up.as_ref();
    let keys = config.identity_again(made_up, &process.sources)?;
    server.reload(&config, Some(Arc::new(keys)));
    let settings = Setting::reloaded(&server.settings.load(), &settings);
    server.settings.store(Arc::new(settings));
    Ok(())
}

/// What is allowed and still worth a word.
fn warn_of(config: &Config, inherited: &[TcpListener]) {
    let addresses = inherited.iter().filter_map(|one| one.local_addr().ok());
    let listen = addresses.chain([config.server.listen]).next();
    let listen = listen.unwrap_or(config.server.listen);
    if !listen.ip().is_loopback() {
        tracing::warn!("{listen} is reached from outside without TLS: put a proxy in front");
    }
    let mut proxies = config.server.trusted_proxies.iter();
    if let Some(proxy) = proxies.find(|proxy| proxy.is_everything()) {
        tracing::warn!("server.trusted_proxies has {proxy}: everybody may claim any address");
    }
}

/// The first line on stdout, which programs read (C-21).
fn announce(server: &Server) {
    say(&format!(
        "tidegate listening on http://{}",
        server.address()
    ));
    if let Some(address) = server.admin_address() {
        tracing::info!("for operators: http://{address}/metrics");
    }
}

/// What a developer wants to know first (C-20).
fn greet(server: &Server, process: &Process, relay: Option<&str>, durable: Option<&str>) {
    let address = server.address();
    let claims =
        Claims::new(Tenant::parse("demo").unwrap_or_default(), "dev").role(crate::auth::ROLE_ADMIN);
    // Development has a secret, if only one that was made up.
    let Some(issuer) = process.issuer.tokens.clone() else {
        return;
    };
    let issuer = issuer.ttl_s(DEV_TOKEN_TTL_S);
    let token = match issuer.issue(&claims, unix_s()) {
        Ok(token) => token,
        Err(error) => return tracing::error!(%error, "no token"),
    };
    say(&format!("token (tenant demo, valid 12 h): {token}"));
    say(&format!("console: http://{address}/"));
    if let Some(path) = relay {
        say(&format!("relay: ws://{address}{path}?token=TOKEN"));
    }
    if let Some(path) = durable {
        say(&format!("durable: ws://{address}{path}?token=TOKEN"));
    }
    say("try:");
    say(&format!("  export TIDEGATE_TOKEN={token}"));
    if relay.is_some() {
        say(&format!(
            "  curl -H \"authorization: Bearer $TIDEGATE_TOKEN\" http://{address}/v1/relay/push \
             -d '{{\"topic\":\"news\",\"event\":\"hello\",\"payload\":\"world\"}}'"
        ));
    }
    if durable.is_some() {
        say(&format!("  export TIDEGATE_URL=http://{address}"));
        say("  tidegate pub notes '\"kept\"' && tidegate sub notes --from 0");
    }
}

/// How long the token that `--dev` prints is valid.
const DEV_TOKEN_TTL_S: u64 = 12 * 3_600;

fn say(line: &str) {
    // A closed standard output is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush());
}

#[expect(
    clippy::disallowed_methods,
    reason = "a token is issued by the wall clock"
)]
pub(super) fn unix_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
