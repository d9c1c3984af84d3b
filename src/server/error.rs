//! Why a server does not start: each text names what is in the way, and mostly the line that
//! mends it. Knows nothing else.

use std::net::SocketAddr;

use crate::broker::pattern::PatternTaken;
use crate::gateway::container::StartError as ContainerError;
use crate::log::{DirectoryError, RecoverError};
use crate::shard::RingError;
use crate::tls::CertificateError;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The port is taken, or may not be used.
    #[error("cannot listen on {address}: {source}{hint}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// A socket of the service manager's that cannot be listened on.
    #[error("a socket of LISTEN_FDS is no TCP listener: {0}; give ListenStream=ADDRESS:PORT")]
    Inherited(std::io::Error),
    /// Development is for this machine alone.
    #[error("--dev serves loopback addresses only, the socket of LISTEN_FDS is on {address}")]
    InheritedDev {
        /// Where.
        address: SocketAddr,
    },
    /// The listener for operators asks for no token, so others must not reach it by mistake.
    #[error(
        "admin.listen = {address} is reached by other machines and asks for no token; listen on 127.0.0.1, or set admin.allow_remote = true"
    )]
    AdminAddress {
        /// Where.
        address: SocketAddr,
    },
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Two mounts want one path (D-02).
    #[error("{first} and {second} are both mounted on `{path}`: give one of them another path")]
    PathTaken {
        /// The path.
        path: String,
        /// Who has it.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// A public route whose path cannot be matched.
    #[error("the public route {method} `{path}` cannot be matched: {reason}")]
    PublicRoute {
        /// Its method.
        method: String,
        /// Its path.
        path: String,
        /// What is wrong with that.
        reason: String,
    },
    /// A mount of the configuration names a handler that nobody registered.
    #[error(
        "the mount `{path}` names the handler `{handler}`, which does not exist; there is: {known}"
    )]
    UnknownHandler {
        /// The path.
        path: String,
        /// The name.
        handler: String,
        /// The names that there are.
        known: String,
    },
    /// Two relay handlers want the same topics.
    #[error(transparent)]
    Pattern(#[from] PatternTaken),
    /// Services do not fit together.
    #[error(transparent)]
    Services(#[from] ContainerError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A log cannot be opened.
    #[error("{folder}: {source}", folder = folder.display())]
    Recover {
        /// Its folder.
        folder: std::path::PathBuf,
        /// Why not.
        source: RecoverError,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// A thread could not be started.
    #[error("cannot start a shard's thread: {0}")]
    Thread(std::io::Error),
    /// A mount of the configuration wants a gateway that the program does not have.
    #[error("the mount `{0}` is of the dialect \"event\", but the program has no gateway there")]
    NoGateway(String),
    /// Relay handlers that nobody can reach.
    #[error(
        "relay handlers (`{0}`) without a relay mount: add `[relay]` to the configuration, or `.relay_config(RelayConfig::default())` to the builder"
    )]
    NoRelayMount(String),
    /// Certificates of `[tls]` that cannot be used.
    #[error("tls: {0}")]
    Certificate(#[from] CertificateError),
    /// A file of `[tls]` that cannot be read or written.
    #[error("tls: {path}: {source}", path = path.display())]
    CertificateFile {
        /// Which.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A shard ended before it was ready.
    #[error("a shard ended before it was ready")]
    NotReady,
}

impl StartError {
    /// Whether a restart would meet the same: the program, its configuration or the machine must
    /// change first.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Directory(error) => !error.is_passing(),
            Self::Listen { source, .. } => source.kind() == std::io::ErrorKind::PermissionDenied,
            Self::Services(ContainerError::Init(_) | ContainerError::Provider { .. })
            | Self::Recover { .. }
            | Self::Random(_)
            | Self::Thread(_)
            | Self::NotReady => false,
            _ => true,
        }
    }
}

impl From<crate::http::PathError> for StartError {
    fn from(error: crate::http::PathError) -> Self {
        Self::PublicRoute {
            method: error.route.method.to_string(),
            path: error.route.path,
            reason: error.source.to_string(),
        }
    }
}
