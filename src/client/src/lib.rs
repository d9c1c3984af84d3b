//! A client of a Tidegate server: relay topics, durable topics and what REST says of both. It blocks,
//! for programs, scripts and tests with a thread to spare; what it reads it gives as typed frames
//! with the text that came. Knows the wire; nothing of a server's inside.
//!
//! An error is the end of a connection, unless [`Client::reconnecting`] says that it comes back:
//! then `receive` tells that it was lost and that it is back, relay topics are subscribed to again
//! and have missed what was pushed meanwhile, a durable subscription goes on behind its last ack (so
//! messages come at least once, and none is left out), and publishes with a key go out again.
//!
//! ```no_run
//! # mod tidegate { pub(super) use tidegate_client as client; }
//! use tidegate::client::{Client, DurableFrame, Publish, Subscribe};
//!
//! # fn main() -> Result<(), tidegate::client::ClientError> {
//! let client = Client::new("http://127.0.0.1:4000", "eyJ..")?;
//! let orders = client.topic("orders")?;
//!
//! let mut writer = client.durable()?;
//! writer.publish(&orders, &serde_json::json!({ "total": 42.5 }), Publish::default())?;
//!
//! let mut reader = client.durable()?;
//! reader.subscribe(&Subscribe::new(&orders, "billing").from_seq(0))?;
//! loop {
//!     if let DurableFrame::Message(message) = reader.receive()?.frame {
//!         println!("{} {}", message.seq, message.payload);
//!         reader.ack(&orders, "billing", message.seq)?;
//!         break;
//!     }
//! }
//!
//! client.push("news", "hello", "world")?;
//! # Ok(())
//! # }
//! ```

mod frames;

mod book;

mod durable;

mod relay;

mod events;

mod line;

mod reconnect;

mod socket;

mod dial;

mod sealed;

mod rest;

#[cfg(feature = "async")]
pub mod asynchronous;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use line::Line;
use sealed::Tls;

pub use durable::Durable;
pub use events::{Event, EventFrame, Events};
pub use frames::{
    Acked, DurableFrame, Gap, Loss, Message, Publish, Published, Subscribe, Subscribed,
    Unsubscribed,
};
pub use reconnect::Reconnect;
pub use relay::{Push, Relay, RelayFrame};
pub use rest::Present;
pub use socket::{Received, Refusal};

/// Why the server cannot be asked, or says no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is of another form.
    #[error("`{0}` is not http://HOST:PORT or https://HOST")]
    Url(String),
    /// What should be certificates to trust cannot be used.
    #[error("no certificates to trust: {0}")]
    Certificates(String),
    /// The server does not speak TLS, or shows a certificate that is not trusted.
    #[error("no TLS with {host}: {reason}")]
    Tls {
        /// The server.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The token cannot stand in a header.
    #[error("the token is no line of visible characters")]
    BadToken,
    /// Whoever gives tokens has none.
    #[error("no token")]
    Token(#[source] io::Error),
    /// Nobody answers there.
    #[error("cannot reach {0}")]
    Connect(String, #[source] io::Error),
    /// Something took longer than it may.
    #[error("no {what} within {} ms (`Client::time_max`, or the time of the call)", limit.as_millis())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A handler of a gateway failed.
    #[error("`{event}` failed: {error}")]
    Event {
        /// The event that was asked.
        event: String,
        /// Why, for people.
        error: String,
        /// Why, for programs.
        code: Option<serde_json::Value>,
    },
    /// The connection broke in a request.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// No such mount, or it lets nobody in with this token.
    #[error("no mount answers at {path}: {reason}")]
    Upgrade {
        /// The path of the mount.
        path: String,
        /// What the server or the network said.
        reason: String,
        /// The status of the answer, if there was one.
        status: Option<u16>,
    },
    /// The connection is lost and will come back: `receive` says when.
    #[error("the connection is lost, and comes back while something is received")]
    Lost,
    /// So many publishes wait for their answer.
    #[error("{0} publishes wait for their answer: receive first")]
    Unanswered(usize),
    /// The WebSocket has ended.
    #[error("the server closed the connection: {0}")]
    Closed(String),
    /// REST said no.
    #[error("the server refused with {status}: {detail}")]
    Refused {
        /// The status of the answer.
        status: u16,
        /// Why, as the server says it.
        detail: String,
    },
    /// The answer is none that this version knows.
    #[error("the server answered what is not understood: {0}")]
    Strange(String),
    /// A payload that cannot be JSON.
    #[error("the payload cannot be serialized")]
    Payload(#[source] serde_json::Error),
}

/// A server and who asks it.
#[derive(Clone)]
pub struct Client {
    host: String,
    tokens: Tokens,
    plain: bool,
    reconnect: Option<Reconnect>,
    time_max: Duration,
    /// Nothing where nothing is sealed.
    tls: Option<Tls>,
    agent: ureq::Agent,
}

#[derive(Clone)]
enum Tokens {
    One(String),
    Asked(Arc<dyn Fn(bool) -> io::Result<String> + Send + Sync>),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Names the server, as `http://HOST:PORT` or `https://HOST`, and the token. Asks nothing yet.
    /// With `https` or `wss` the certificates of this machine are trusted, see [`Client::trusting`].
    ///
    /// # Errors
    /// When the address is of another form.
    pub fn new(url: &str, token: &str) -> Result<Self, ClientError> {
        let (host, is_sealed) = host_of(url).ok_or_else(|| ClientError::Url(url.to_owned()))?;
        let tls = is_sealed.then(Tls::of_system).transpose()?;
        Ok(Self {
            host,
            tokens: Tokens::One(token.to_owned()),
            plain: false,
            reconnect: None,
            time_max: TIME_MAX,
            agent: rest::agent(TIME_MAX, tls.as_ref()),
            tls,
        })
    }

    /// Trusts these certificates (PEM) in place of those of this machine: the authority that signed
    /// the server's, or the server's own where it signed itself. Without `https` it does nothing.
    ///
    /// # Errors
    /// When it holds no certificate.
    pub fn trusting(mut self, pem: &[u8]) -> Result<Self, ClientError> {
        let tls = Tls::of_pem(pem)?;
        self.tls = self.tls.map(|_| tls);
        self.agent = rest::agent(self.time_max, self.tls.as_ref());
        Ok(self)
    }

    /// Bounds what connecting, an upgrade, a write and a request over REST may take, each; 30 s
    /// otherwise. What is received is waited for as long as `receive` or `receive_within` says.
    #[must_use]
    pub fn time_max(mut self, time: Duration) -> Self {
        self.time_max = time.max(Duration::from_millis(1));
        self.agent = rest::agent(self.time_max, self.tls.as_ref());
        self
    }

    /// Asks for a token before each connection and each request. It is told `true` when the last
    /// one was refused or ended, so that it gives no old one out of a cache.
    #[must_use]
    pub fn token_from(
        mut self,
        ask: impl Fn(bool) -> io::Result<String> + Send + Sync + 'static,
    ) -> Self {
        self.tokens = Tokens::Asked(Arc::new(ask));
        self
    }

    /// Connections of this client come back when they are lost, while somebody receives. What
    /// does not heal is an error all the same: a token that is refused with nobody to ask for
    /// another, a mount that is not there, a close that says not to come again.
    #[must_use]
    pub fn reconnecting(mut self, how: Reconnect) -> Self {
        self.reconnect = Some(how);
        self
    }

    /// Speaks the dialects without a subprotocol: errors have no code then, and messages nothing
    /// but what they must have.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// The id of a durable topic: a name is registered or resolved, an id is itself.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub fn topic(&self, topic: &str) -> Result<String, ClientError> {
        rest::topic(self, topic)
    }

    /// The ids of many topics by their names, some at once.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses; others may be registered.
    pub fn topics(&self, names: &[String]) -> Result<Vec<String>, ClientError> {
        rest::topics(self, names)
    }

    /// Any route of REST: the answer is what its JSON says, null where it says none.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub fn request(
        &self,
        method: &str,
        target: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value, ClientError> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        rest::request(self, method, target, body)
    }

    /// Asks a route whose answer is text, such as `/metrics`.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub fn text(&self, target: &str) -> Result<String, ClientError> {
        rest::text(self, target)
    }

    /// Pushes to a relay topic, over REST.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub fn push<T: Serialize + ?Sized>(
        &self,
        topic: &str,
        event: &str,
        payload: &T,
    ) -> Result<(), ClientError> {
        rest::push(self, (topic, event), payload)
    }

    /// Who is present in a relay topic.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub fn presence(&self, topic: &str) -> Result<Vec<Present>, ClientError> {
        rest::presence(self, topic)
    }

    /// A connection to the durable mount at its default path.
    ///
    /// # Errors
    /// When there is none, or the token is not accepted.
    pub fn durable(&self) -> Result<Durable, ClientError> {
        self.durable_at("/v1/ws")
    }

    /// A connection to a durable mount.
    ///
    /// # Errors
    /// As [`Client::durable`].
    pub fn durable_at(&self, path: &str) -> Result<Durable, ClientError> {
        Ok(Durable::on(Line::open(self, path, "tidegate.durable.v1")?))
    }

    /// A connection to the relay mount at its default path.
    ///
    /// # Errors
    /// When there is none, or the token is not accepted.
    pub fn relay(&self) -> Result<Relay, ClientError> {
        self.relay_at("/ws")
    }

    /// A connection to a relay mount.
    ///
    /// # Errors
    /// As [`Client::relay`].
    pub fn relay_at(&self, path: &str) -> Result<Relay, ClientError> {
        Ok(Relay::on(Line::open(self, path, "tidegate.relay.v1")?))
    }

    /// A connection to the gateway at this path.
    ///
    /// # Errors
    /// As [`Client::durable`].
    pub fn events(&self, path: &str) -> Result<Events, ClientError> {
        Ok(Events::on(Line::open(self, path, "tidegate.event.v1")?))
    }

    /// The token of a request; `renew` asks for another one than the last.
    fn token(&self, renew: bool) -> Result<String, ClientError> {
        let token = match &self.tokens {
            Tokens::One(token) => token.clone(),
            Tokens::Asked(ask) => ask(renew).map_err(ClientError::Token)?,
        };
        // A line end in a token would begin a header of its own.
        match token.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(token),
            false => Err(ClientError::BadToken),
        }
    }

    fn can_renew(&self) -> bool {
        matches!(self.tokens, Tokens::Asked(_))
    }
}

/// What connecting, an upgrade or a request may take, unless [`Client::time_max`] says otherwise.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Host and port of an address, and whether it is spoken to over TLS.
fn host_of(url: &str) -> Option<(String, bool)> {
    let (scheme, rest) = url.split_once("://")?;
    let (is_sealed, port) = match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => (false, 80),
        "https" | "wss" => (true, 443),
        _ => return None,
    };
    let host = rest.strip_suffix('/').unwrap_or(rest);
    let authority: ureq::http::uri::Authority = host.parse().ok()?;
    if host.contains('@') || authority.host().is_empty() {
        return None;
    }
    let port = match authority.port_u16() {
        Some(port) => port,
        None if host == authority.host() => port,
        None => return None,
    };
    Some((format!("{}:{port}", authority.host()), is_sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_says_whether_it_is_sealed() {
        let of = |url| host_of(url).unwrap();
        assert_eq!(of("http://a:4000"), ("a:4000".to_owned(), false));
        assert_eq!(of("ws://a/"), ("a:80".to_owned(), false));
        assert_eq!(of("https://a.example"), ("a.example:443".to_owned(), true));
        assert_eq!(of("WSS://[::1]:9"), ("[::1]:9".to_owned(), true));
        for url in [
            "a:4000",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://u@a",
            "http://a:",
            "http://a:x",
            "http:// a",
        ] {
            assert_eq!(host_of(url), None, "{url}");
        }
    }
}
