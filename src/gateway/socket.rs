//! Raw sockets (R-01..R-05): what a handler of a raw mount holds. Knows messages, and through
//! `SocketLink` whoever owns the connection; nothing of rings.
//!
//! Bounds: the inbox holds `inbox_bytes_max` and `inbox_messages_max`, then the peer is no longer
//! read from until half is gone; a send waits
//! while the outbox is full.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

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

/// Why a raw socket does no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The connection has ended, or is about to.
    #[error("the connection is closed")]
    Closed,
}

/// The connection behind a raw socket, as its owner offers it.
pub(crate) trait SocketLink {
    /// Queues a message; `false` when the outbox is full.
    fn try_send(&self, message: &Message) -> Result<bool, SocketError>;
    /// Closes after what is queued.
    fn close(&self, code: u16, reason: &str);
    /// The inbox has room again.
    fn resume(&self);
    /// The handler has taken everything that came before the peer's end, and asks for more.
    fn drained(&self);
    /// Where the peer is, if the connection is still there.
    fn peer(&self) -> Option<std::net::SocketAddr>;
}

/// Messages between the connection and its handler.
pub(crate) struct Inbox {
    messages: RefCell<VecDeque<Message>>,
    bytes: Cell<usize>,
    bytes_max: usize,
    messages_max: usize,
    /// Nothing more will come; what the handler sends still goes out.
    ended: Cell<bool>,
    closed: Cell<bool>,
    paused: Cell<bool>,
    receiver: RefCell<Option<Waker>>,
    senders: RefCell<Vec<Waker>>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("bytes", &self.bytes.get())
            .finish_non_exhaustive()
    }
}

/// What a message costs in an inbox beyond its bytes.
const MESSAGE_COST_BYTES: usize = size_of::<Message>();

impl Inbox {
    pub(crate) fn new(bytes_max: usize, messages_max: usize) -> Rc<Self> {
        Rc::new(Self {
            messages: RefCell::default(),
            bytes: Cell::new(0),
            bytes_max,
            messages_max,
            ended: Cell::new(false),
            closed: Cell::new(false),
            paused: Cell::new(false),
            receiver: RefCell::default(),
            senders: RefCell::default(),
        })
    }

    /// Adds a message; whether there is room for more.
    pub(crate) fn push(&self, message: Message) -> bool {
        let bytes = self.bytes.get() + message.as_bytes().len() + MESSAGE_COST_BYTES;
        self.bytes.set(bytes);
        self.messages.borrow_mut().push_back(message);
        self.wake_receiver();
        let room = bytes < self.bytes_max && self.messages.borrow().len() < self.messages_max;
        self.paused.set(!room);
        room
    }

    /// Whether the handler has taken everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.borrow().is_empty()
    }

    /// Nothing more will come. Whether the handler may still be at work on what came: if not, it
    /// waits for a message right now.
    pub(crate) fn end(&self) -> bool {
        self.ended.set(true);
        let waits = self.messages.borrow().is_empty() && self.receiver.borrow().is_some();
        self.wake_receiver();
        !waits
    }

    /// The connection has ended: what is in the inbox can still be received.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.wake_receiver();
        self.wake_senders();
    }

    fn wake_receiver(&self) {
        let waker = self.receiver.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The outbox has room again.
    pub(crate) fn wake_senders(&self) {
        for waker in self.senders.take() {
            waker.wake();
        }
    }

    fn poll_receive(&self, link: &dyn SocketLink, cx: &Context<'_>) -> Poll<Option<Message>> {
        let Some(message) = self.messages.borrow_mut().pop_front() else {
            if self.ended.get() && !self.closed.get() {
                link.drained();
            }
            if self.closed.get() {
                return Poll::Ready(None);
            }
            *self.receiver.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let bytes = self.bytes.get() - message.as_bytes().len() - MESSAGE_COST_BYTES;
        self.bytes.set(bytes);
        let few = self.messages.borrow().len() <= self.messages_max / 2;
        if self.paused.get() && few && bytes <= self.bytes_max / 2 {
            self.paused.set(false);
            link.resume();
        }
        Poll::Ready(Some(message))
    }

    fn poll_send(
        &self,
        link: &dyn SocketLink,
        message: &Message,
        cx: &Context<'_>,
    ) -> Poll<Result<(), SocketError>> {
        if self.closed.get() {
            return Poll::Ready(Err(SocketError::Closed));
        }
        match link.try_send(message) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => {
                self.senders.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// Both ends share this; the connection is closed when the last of them goes.
struct Shared {
    inbox: Rc<Inbox>,
    link: Box<dyn SocketLink>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.inbox.closed.get() {
            return;
        }
        if std::thread::panicking() {
            self.link.close(1011, "internal");
        } else {
            self.link.close(1000, "");
        }
    }
}

impl Shared {
    async fn send(&self, message: Message) -> Result<(), SocketError> {
        if let Message::Close(frame) = message {
            self.close(frame);
            return Ok(());
        }
        poll_fn(|cx| self.inbox.poll_send(&*self.link, &message, cx)).await
    }

    fn close(&self, frame: Option<CloseFrame>) {
        let frame = frame.unwrap_or(CloseFrame {
            code: 1000,
            reason: String::new(),
        });
        self.link.close(frame.code, &frame.reason);
    }
}

/// An upgraded socket in the hands of a handler. When it is dropped the connection is closed
/// with 1000, or with 1011 if that is because the handler panicked.
pub struct WebSocket {
    shared: Rc<Shared>,
}

/// The half of a socket that sends.
#[derive(Clone)]
pub struct WsSender {
    shared: Rc<Shared>,
}

/// The half of a socket that receives.
pub struct WsReceiver {
    shared: Rc<Shared>,
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
    pub(crate) fn new(inbox: Rc<Inbox>, link: Box<dyn SocketLink>) -> Self {
        Self {
            shared: Rc::new(Shared { inbox, link }),
        }
    }

    /// The next message, or `None` when the peer has closed. Pings are answered by the server
    /// and not seen here.
    pub async fn recv(&mut self) -> Option<Result<Message, SocketError>> {
        receive(&self.shared).await
    }

    /// Sends a message; waits while the peer does not read.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send(&mut self, message: Message) -> Result<(), SocketError> {
        self.shared.send(message).await
    }

    /// Sends a close frame behind everything that was sent before, with code 1000.
    pub async fn close(self) {
        self.shared.close(None);
    }

    /// Like [`close`](Self::close), with a code and a reason.
    pub async fn close_with(self, code: u16, reason: &str) {
        self.shared.close(Some(CloseFrame {
            code,
            reason: reason.to_owned(),
        }));
    }

    /// Two halves that may be used by two tasks of this core.
    pub fn split(self) -> (WsSender, WsReceiver) {
        (
            WsSender {
                shared: Rc::clone(&self.shared),
            },
            WsReceiver {
                shared: self.shared,
            },
        )
    }

    /// Where the peer is; `None` when the connection has ended.
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        self.shared.link.peer()
    }
}

async fn receive(shared: &Shared) -> Option<Result<Message, SocketError>> {
    poll_fn(|cx| shared.inbox.poll_receive(&*shared.link, cx))
        .await
        .map(Ok)
}

impl WsSender {
    /// Sends a message; waits while the peer does not read.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send(&self, message: Message) -> Result<(), SocketError> {
        self.shared.send(message).await
    }

    /// Sends a close frame behind everything that was sent before.
    pub async fn close(self) {
        self.shared.close(None);
    }
}

impl WsReceiver {
    /// The next message, or `None` when the peer has closed.
    pub async fn recv(&mut self) -> Option<Result<Message, SocketError>> {
        receive(&self.shared).await
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
