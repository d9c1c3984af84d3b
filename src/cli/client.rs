//! What `pub` and `sub` have in common: where the server is, who asks, and what to do about what
//! goes wrong. Knows flags and variables; how a server is spoken to is the client's matter.

use std::error::Error;
use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::client::{self, Client, Durable, Reconnect, Refusal};

/// Where the server is and who asks.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The server, as http://HOST:PORT or https://HOST
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEGATE_URL",
        default_value = "http://127.0.0.1:4000"
    )]
    url: String,
    /// File with the token; without it, the token is taken from TIDEGATE_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the certificates (PEM) to trust in place of those of this machine, as the server
    /// of `serve --dev-tls` keeps its own in DATA_DIR/dev-tls/cert.pem
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CA")]
    ca: Option<PathBuf>,
    /// The path of the durable mount
    #[arg(long, value_name = "PATH", default_value = "/v1/ws")]
    path: String,
}

/// Why the server cannot be asked, or says no.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error(
        "no token: set TIDEGATE_TOKEN or --token-file; `tidegate token new --ns NS --sub SUB` makes \
         one, and `serve --dev` prints one"
    )]
    NoToken,
    #[error("cannot read the token from {path}", path = path.display())]
    TokenFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot read the certificates from {path}", path = path.display())]
    CaFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Client(Cured),
    #[error("cannot use the terminal")]
    Terminal(#[source] std::io::Error),
    #[error("cannot write the standard output")]
    Output(#[source] std::io::Error),
}

/// What the client says, with what mends it.
#[derive(Debug)]
pub(super) struct Cured(client::ClientError);

impl fmt::Display for Cured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, cure(&self.0))
    }
}

impl Error for Cured {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl From<client::ClientError> for ClientError {
    fn from(error: client::ClientError) -> Self {
        Self::Client(Cured(error))
    }
}

impl ClientError {
    /// A reader that has seen enough, as `head` has, is no failure.
    pub(super) fn unless_unread(self) -> Result<ExitCode, Self> {
        match self {
            Self::Output(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            other => Err(other),
        }
    }
}

/// What mends it, if that is a flag of these verbs.
fn cure(error: &client::ClientError) -> &'static str {
    match error {
        client::ClientError::Url(_) => ": mend --url or TIDEGATE_URL",
        client::ClientError::Tls { .. } | client::ClientError::Certificates(_) => {
            " (--ca names a file with the certificates to trust)"
        }
        client::ClientError::Connect(..) => {
            ": is it the server's --listen? --url or TIDEGATE_URL names another"
        }
        client::ClientError::Upgrade { .. } => {
            "; --path is the server's durable.path, and \
            `tidegate token check -` tells what is wrong with a token"
        }
        client::ClientError::Refused { status: 401, .. } => {
            " (`tidegate token check -` tells what is wrong with one)"
        }
        client::ClientError::Refused { status: 404, .. } => " (is durable.enabled = false there?)",
        _ => "",
    }
}

/// One frame on one line, for whoever reads lines: a payload may have been written on several, and
/// in JSON a line end outside of texts is as good as a space.
pub(super) fn print_frame(text: &str) -> Result<(), ClientError> {
    let line = text.replace(['\n', '\r'], " ");
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(ClientError::Output)
}

/// A refusal as a person reads it.
pub(super) fn told(refusal: &Refusal) -> String {
    match &refusal.code {
        Some(code) => format!("{} ({code})", refusal.message),
        None => refusal.message.clone(),
    }
}

impl Target {
    /// The address as it was given.
    #[cfg(feature = "top")]
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    fn token(&self) -> Result<String, ClientError> {
        if let Some(path) = &self.token_file {
            let path = path.clone();
            return token_in(&path).map_err(|source| ClientError::TokenFile { path, source });
        }
        let token = std::env::var("TIDEGATE_TOKEN").ok();
        token
            .filter(|token| !token.is_empty())
            .ok_or(ClientError::NoToken)
    }

    /// What is printed is what came, so nothing more than the dialect itself is agreed on. A token
    /// in a file is read again for each connection: whoever renews it writes it there.
    pub(super) fn client(&self) -> Result<Client, ClientError> {
        let client = Client::new(&self.url, &self.token()?)?.plain();
        let client = match &self.ca {
            Some(path) => client.trusting(&certificates_in(path)?)?,
            None => client,
        };
        Ok(match self.token_file.clone() {
            Some(path) => client.token_from(move |_| token_in(&path)),
            None => client,
        })
    }

    /// The id of a topic: a name is registered or resolved.
    pub(super) fn topic(&self, topic: &str) -> Result<String, ClientError> {
        Ok(self.client()?.topic(topic)?)
    }

    /// A connection to the durable mount.
    pub(super) fn connect(&self) -> Result<Durable, ClientError> {
        Ok(self.client()?.durable_at(&self.path)?)
    }

    /// One that comes back.
    pub(super) fn connect_again_and_again(&self, how: Reconnect) -> Result<Durable, ClientError> {
        let client = self.client()?.reconnecting(how);
        Ok(client.durable_at(&self.path)?)
    }
}

fn certificates_in(path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|source| ClientError::CaFile {
        path: path.to_owned(),
        source,
    })
}

fn token_in(path: &Path) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}
