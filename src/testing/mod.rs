//! A server in the process of a test, and clients that upgrade for real: `TestServer` listens on
//! a port of its own and believes tokens that it issues itself. Whatever goes wrong in a test is a
//! panic that says what was expected.
//!
//! ```
//! use tidegate::prelude::*;
//! use tidegate::testing::TestServer;
//!
//! #[gateway(path = "/echo")]
//! struct Echo;
//!
//! #[messages]
//! impl Echo {
//!     #[subscribe_message("say")]
//!     async fn say(&self, text: String) -> String {
//!         text
//!     }
//! }
//!
//! let server = TestServer::start(|server| server.app(|app| {
//!     app.gateway::<Echo>();
//! }));
//! let mut ada = server.connect("/echo", "ada");
//! ada.ask(r#"{"event":"say","data":"hi"}"#, r#"{"event":"say","data":"hi"}"#);
//! ada.close();
//! ```

#![expect(
    clippy::expect_used,
    reason = "whatever goes wrong in a test is a panic"
)]

mod folder;
mod patient;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

use crate::auth::{AuthConfig, Authenticator, Claims, Key, Rules};
use crate::config::Config;
use crate::gateway::reply::WsEnvelope;
use crate::id::Tenant;
use crate::server::{Server, ServerBuilder};

use folder::Folder;
use patient::Patient;

/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);
const SECRET: &[u8] = b"a secret that only tests believe in";
/// Tokens end in the year 2100, so that no clock is needed to issue one.
const TOKEN_END_S: u64 = 4_102_444_800;

/// A server that lives as long as this value.
pub struct TestServer {
    server: Option<Server>,
    /// Removed behind the server.
    _folder: Option<Folder>,
}

impl TestServer {
    /// Starts a server of one shard.
    pub fn start(build: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        Self::with_shards(1, build)
    }

    /// Starts a server of so many shards: what crosses them is worth a test with two.
    pub fn with_shards(shards: u16, build: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let mut config = Config::dev();
        config.server.shards = shards;
        Self::with_config(config, build)
    }

    /// Starts a server with a configuration. It listens on a port of its own whatever that says, and
    /// keeps its topics in a folder of its own that goes with it, unless `server.data_dir` names
    /// one: then two servers after each other find the same topics.
    pub fn with_config(
        mut config: Config,
        build: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.shard.pin = false;
        let elsewhere = config.server.data_dir != Config::dev().server.data_dir;
        let folder = (config.durable.enabled && !elsewhere).then(Folder::new);
        if let Some(folder) = &folder {
            config.server.data_dir = folder.path().to_owned();
        }
        let key = Key::hs256(None, SECRET).expect("the secret is long enough");
        let keys = Authenticator::new(vec![key], Rules::default()).expect("one key is no conflict");
        let builder = Server::builder(config, Arc::new(keys));
        let server = build(builder).start().expect("the server starts");
        Self {
            server: Some(server),
            _folder: folder,
        }
    }

    /// The server.
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs until it is dropped")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server().address()
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Claims) -> String {
        let issuer = AuthConfig::new(SECRET, TOKEN_END_S).expect("the secret is long enough");
        issuer.issue(claims, 0).expect("claims are JSON")
    }

    /// Connects `sub` of the tenant `demo`.
    pub fn connect(&self, path: &str, sub: &str) -> TestClient {
        self.connect_as(path, &Claims::new(tenant("demo"), sub))
    }

    /// Connects somebody with these claims.
    pub fn connect_as(&self, path: &str, claims: &Claims) -> TestClient {
        let connected = self.try_connect(path, claims);
        connected.unwrap_or_else(|status| panic!("the upgrade on {path} was refused: {status}"))
    }

    /// Connects somebody, or says with which status that was refused.
    pub fn try_connect(&self, path: &str, claims: &Claims) -> Result<TestClient, u16> {
        let address = self.address();
        let stream = TcpStream::connect(address).expect("the server listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let url = format!("ws://{address}{path}");
        let mut request = url.into_client_request().expect("a path is plain text");
        let bearer = format!("Bearer {}", self.token(claims));
        let bearer = bearer.parse().expect("a token is a header");
        request.headers_mut().insert("authorization", bearer);
        match tungstenite::client(request, Patient(stream)) {
            Ok((socket, _)) => Ok(TestClient { socket }),
            Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
            Err(error) => panic!("no handshake on {path}: {error}"),
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.drain();
            // A test that has failed already should say why, and not that this failed too.
            let ended = server.join();
            if !std::thread::panicking() {
                ended.expect("every shard ends well");
            }
        }
    }
}

impl fmt::Debug for TestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TestServer").field(&self.address()).finish()
    }
}

/// A client over a real socket. Pings are answered behind the scenes.
pub struct TestClient {
    socket: WebSocket<Patient<TcpStream>>,
}

impl TestClient {
    /// Sends a text.
    pub fn send(&mut self, text: &str) {
        self.socket
            .send(Message::text(text))
            .expect("a text can be sent");
    }

    /// Sends a text to who may have closed already.
    pub fn try_send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).ok();
    }

    /// Sends an event.
    pub fn emit(&mut self, event: &str, data: &impl Serialize) {
        let text = WsEnvelope::encode(event, data).expect("the data has JSON");
        self.send(&text);
    }

    /// The next text.
    #[track_caller]
    pub fn receive(&mut self) -> String {
        match self.message() {
            Message::Text(text) => text.to_string(),
            other => panic!("no text came, but {other:?}"),
        }
    }

    /// The next text as an envelope.
    #[track_caller]
    pub fn receive_envelope(&mut self) -> WsEnvelope {
        let text = self.receive();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text} is none: {error}"))
    }

    /// The next text must be this one, byte for byte.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        assert_eq!(self.receive(), text);
    }

    /// Sends one text and expects another.
    #[track_caller]
    pub fn ask(&mut self, text: &str, answer: &str) {
        self.send(text);
        self.expect(answer);
    }

    /// The server must close with this code and reason.
    #[track_caller]
    pub fn expect_close(mut self, code: u16, reason: &str) {
        match self.message() {
            Message::Close(Some(close)) => {
                assert_eq!(
                    (u16::from(close.code), close.reason.as_str()),
                    (code, reason)
                );
            }
            other => panic!("no close with {code} came, but {other:?}"),
        }
    }

    /// Says goodbye, and waits until the server has said so too.
    #[track_caller]
    pub fn close(mut self) {
        let goodbye = tungstenite::protocol::CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        self.socket
            .close(Some(goodbye))
            .expect("a close can be sent");
        loop {
            match self.socket.read() {
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return,
                Err(error) => panic!("the close was not answered: {error}"),
            }
        }
    }

    #[track_caller]
    fn message(&mut self) -> Message {
        loop {
            match self.socket.read() {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(message) => return message,
                Err(error) => panic!("no message came: {error}"),
            }
        }
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestClient")
    }
}

/// A tenant by its name.
pub fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).expect("1 to 64 characters of [A-Za-z0-9._-]")
}
