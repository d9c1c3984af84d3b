//! Raw sockets (R-01..R-05): what a handler of a raw mount holds. Knows messages, and through
//! its inbox whoever owns the connection; nothing of rings.

use std::fmt;
use std::future::Future;
use std::rc::Rc;

use crate::gateway::engine::inbox::{Handle, Inbox};
use crate::proto::{CloseCode, InvalidCloseCode};

/// Why a connection was closed, by code and text (RFC 6455 section 7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// The code.
    pub code: u16,
    /// The text, at most 123 bytes.
    pub reason: String,
}

/// One WebSocket message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
    /// A ping; the peer's are answered before a handler sees anything.
    Ping(Vec<u8>),
    /// An answer to a ping.
    Pong(Vec<u8>),
    /// The end.
    Close(Option<CloseFrame>),
}

impl Message {
    /// Whether this is text.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    /// Whether this is binary.
    pub fn is_binary(&self) -> bool {
        matches!(self, Self::Binary(_))
    }

    /// Whether this is a close.
    pub fn is_close(&self) -> bool {
        matches!(self, Self::Close(_))
    }

    /// Whether this is a ping.
    pub fn is_ping(&self) -> bool {
        matches!(self, Self::Ping(_))
    }

    /// Whether this is a pong.
    pub fn is_pong(&self) -> bool {
        matches!(self, Self::Pong(_))
    }

    /// The text of a text message.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes of a message; a close has those of its reason.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) | Self::Ping(bytes) | Self::Pong(bytes) => bytes,
            Self::Close(frame) => frame.as_ref().map_or(b"", |frame| frame.reason.as_bytes()),
        }
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

/// Why a raw socket has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The connection has ended, or is about to.
    #[error("the connection is closed")]
    Closed,
    /// The payload of a ping or pong is too long (RFC 6455 section 5.5).
    #[error("a ping or pong of {0} bytes; at most 125 may be sent")]
    ControlTooLong(usize),
    /// A close frame with a code that may not stand in one.
    #[error(transparent)]
    CloseCode(#[from] InvalidCloseCode),
}

/// An upgraded socket in the hands of a handler. When it is dropped the connection is closed
/// with 1000, or with 1011 if that is because the handler panicked.
pub struct WebSocket {
    handle: Handle,
}

/// The half of a socket that sends.
#[derive(Clone)]
pub struct WsSender {
    handle: Handle,
}

/// The half of a socket that receives.
pub struct WsReceiver {
    handle: Handle,
}

macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
opaque_debug!(WebSocket, WsSender, WsReceiver);

impl WebSocket {
    pub(crate) fn new(inbox: Rc<Inbox>) -> Self {
        Self {
            handle: Handle::new(inbox),
        }
    }

    /// The next message, or `None` when the peer has closed. Pings are answered by the server
    /// and not seen here.
    pub fn recv(&mut self) -> impl Future<Output = Option<Result<Message, SocketError>>> {
        self.handle.receive()
    }

    /// Sends a message; waits while the peer does not read.
    ///
    /// # Errors
    /// When the connection has ended, or a close frame has a code that may not stand in one.
    pub fn send(&mut self, message: Message) -> impl Future<Output = Result<(), SocketError>> {
        self.handle.send(message)
    }

    /// Sends a close frame behind everything that was sent before, with code 1000.
    pub async fn close(self) {
        self.handle.close(CloseCode::Normal, "");
    }

    /// Like [`close`](Self::close), with a code and a reason.
    pub async fn close_with(self, code: CloseCode, reason: &str) {
        self.handle.close(code, reason);
    }

    /// Two halves that may be used by two tasks of this core.
    pub fn split(self) -> (WsSender, WsReceiver) {
        (
            WsSender {
                handle: self.handle.clone(),
            },
            WsReceiver {
                handle: self.handle,
            },
        )
    }

    /// Where it comes from: what a proxy of `server.trusted_proxies` told, else its peer; `None` when the connection has ended.
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        self.handle.peer()
    }
}

impl WsSender {
    /// Sends a message; waits while the peer does not read.
    ///
    /// # Errors
    /// When the connection has ended, or a close frame has a code that may not stand in one.
    pub fn send(&self, message: Message) -> impl Future<Output = Result<(), SocketError>> {
        self.handle.send(message)
    }

    /// Sends a close frame behind everything that was sent before.
    pub async fn close(self) {
        self.handle.close(CloseCode::Normal, "");
    }
}

impl WsReceiver {
    /// The next message, or `None` when the peer has closed.
    pub fn recv(&mut self) -> impl Future<Output = Option<Result<Message, SocketError>>> {
        self.handle.receive()
    }
}

/// The built-in handler `echo`: text and binary come back unchanged.
pub async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        // A pong that nobody asked for is no message.
        if !message.is_pong() && socket.send(message).await.is_err() {
            return;
        }
    }
}
