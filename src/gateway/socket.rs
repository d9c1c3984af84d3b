//! Raw sockets (R-01..R-05): what a handler of a raw mount holds. Knows messages, and through
//! `SocketLink` whoever owns the connection; nothing of rings.
//!
//! Bounds: the inbox holds `inbox_bytes_max` and `inbox_messages_max`, then the peer is no longer
//! read from until half is gone; a send waits
//! while the outbox is full.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
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

/// Whom a link knows a socket by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketId(pub(crate) u64);

/// The owner of connections, as it serves the sockets of handlers.
pub(crate) trait SocketLink {
    /// Queues a message; `false` when the outbox is full.
    fn try_send(&self, id: SocketId, message: &Message) -> Result<bool, SocketError>;
    /// Closes after what is queued.
    fn close(&self, id: SocketId, code: u16, reason: &str);
    /// The inbox has room again.
    fn resume(&self, id: SocketId);
    /// The handler has taken everything that came before the peer's end, and asks for more.
    fn drained(&self, id: SocketId);
    /// Where the peer is, if the connection is still there.
    fn peer(&self, id: SocketId) -> Option<std::net::SocketAddr>;
    /// What waits in all inboxes beside this one.
    fn inboxes(&self) -> &Inboxes;
}

/// How much waits for the handlers of one thread, kept as it comes and goes.
#[derive(Debug, Default)]
pub(crate) struct Inboxes {
    messages: Cell<usize>,
    bytes: Cell<usize>,
}

impl Inboxes {
    /// One message more.
    pub(crate) fn add(&self, bytes: usize) {
        self.messages.set(self.messages.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// So many are not waiting any more.
    pub(crate) fn remove(&self, messages: usize, bytes: usize) {
        self.messages.set(self.messages.get() - messages);
        self.bytes.set(self.bytes.get() - bytes);
    }

    /// Messages and bytes that wait.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.messages.get(), self.bytes.get())
    }
}

/// How much an inbox takes before the peer is no longer read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InboxBounds {
    pub(crate) bytes_max: u32,
    pub(crate) messages_max: u32,
}

/// What a connection and its handler share: the messages between them. Every idle connection of a
/// raw mount pays for one, so it is kept small.
pub(crate) struct Inbox {
    messages: RefCell<VecDeque<Message>>,
    bytes: Cell<usize>,
    bounds: InboxBounds,
    /// Halves of the socket that the handler holds; the connection is closed with the last.
    handles: Cell<u16>,
    /// Nothing more will come; what the handler sends still goes out.
    ended: Cell<bool>,
    closed: Cell<bool>,
    paused: Cell<bool>,
    receiver: Cell<Option<Waker>>,
    #[expect(
        clippy::box_collection,
        reason = "a word less for each, for few ever wait"
    )]
    senders: Cell<Option<Box<Vec<Waker>>>>,
    link: Rc<dyn SocketLink>,
    id: SocketId,
}

const _: () = assert!(size_of::<Inbox>() <= 112);

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
    pub(crate) fn new(link: Rc<dyn SocketLink>, id: SocketId, bounds: InboxBounds) -> Rc<Self> {
        Rc::new(Self {
            messages: RefCell::default(),
            bytes: Cell::new(0),
            bounds,
            handles: Cell::new(0),
            ended: Cell::new(false),
            closed: Cell::new(false),
            paused: Cell::new(false),
            receiver: Cell::default(),
            senders: Cell::default(),
            link,
            id,
        })
    }

    /// Adds a message; whether there is room for more.
    pub(crate) fn push(&self, message: Message) -> bool {
        let cost = message.as_bytes().len() + MESSAGE_COST_BYTES;
        let bytes = self.bytes.get() + cost;
        self.bytes.set(bytes);
        self.link.inboxes().add(cost);
        let mut messages = self.messages.borrow_mut();
        messages.push_back(message);
        let room = bytes < self.bounds.bytes_max as usize
            && messages.len() < self.bounds.messages_max as usize;
        drop(messages);
        self.paused.set(!room);
        self.wake_receiver();
        room
    }

    /// Whether the handler has taken everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.borrow().is_empty()
    }

    /// What the messages in it take up.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Nothing more will come. Whether the handler may still be at work on what came: if not, it
    /// waits for a message right now.
    pub(crate) fn end(&self) -> bool {
        self.ended.set(true);
        let receiver = self.receiver.take();
        let waits = self.is_empty() && receiver.is_some();
        self.receiver.set(receiver);
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
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    /// The outbox has room again.
    pub(crate) fn wake_senders(&self) {
        for waker in self.senders.take().into_iter().flat_map(|senders| *senders) {
            waker.wake();
        }
    }

    fn poll_receive(&self, cx: &Context<'_>) -> Poll<Option<Message>> {
        let Some(message) = self.messages.borrow_mut().pop_front() else {
            if self.ended.get() && !self.closed.get() {
                self.link.drained(self.id);
            }
            if self.closed.get() {
                return Poll::Ready(None);
            }
            self.receiver.set(Some(cx.waker().clone()));
            return Poll::Pending;
        };
        let cost = message.as_bytes().len() + MESSAGE_COST_BYTES;
        let bytes = self.bytes.get() - cost;
        self.bytes.set(bytes);
        self.link.inboxes().remove(1, cost);
        if self.paused.get() && self.is_half_empty(bytes) {
            self.paused.set(false);
            self.link.resume(self.id);
        }
        Poll::Ready(Some(message))
    }

    fn is_half_empty(&self, bytes: usize) -> bool {
        self.messages.borrow().len() <= self.bounds.messages_max as usize / 2
            && bytes <= self.bounds.bytes_max as usize / 2
    }

    fn poll_send(&self, message: &Message, cx: &Context<'_>) -> Poll<Result<(), SocketError>> {
        if let Message::Close(frame) = message {
            self.close_with(frame.as_ref());
            return Poll::Ready(Ok(()));
        }
        if self.closed.get() {
            return Poll::Ready(Err(SocketError::Closed));
        }
        match self.link.try_send(self.id, message) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => {
                let mut senders = self.senders.take().unwrap_or_default();
                senders.push(cx.waker().clone());
                self.senders.set(Some(senders));
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn close_with(&self, frame: Option<&CloseFrame>) {
        let (code, reason) = frame.map_or((1000, ""), |frame| (frame.code, &frame.reason));
        self.link.close(self.id, code, reason);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let left = self.messages.borrow().len();
        self.link.inboxes().remove(left, self.bytes.get());
    }
}

/// A handler's hold on its socket; the connection is closed when the last one goes.
struct Handle(Rc<Inbox>);

impl Handle {
    fn new(inbox: Rc<Inbox>) -> Self {
        inbox.handles.set(inbox.handles.get() + 1);
        Self(inbox)
    }

    fn send(&self, message: Message) -> impl Future<Output = Result<(), SocketError>> {
        poll_fn(move |cx| self.0.poll_send(&message, cx))
    }

    fn receive(&self) -> impl Future<Output = Option<Result<Message, SocketError>>> {
        poll_fn(|cx| self.0.poll_receive(cx).map(|message| message.map(Ok)))
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(Rc::clone(&self.0))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let left = self.0.handles.get() - 1;
        self.0.handles.set(left);
        if 0 < left || self.0.closed.get() {
            return;
        }
        if std::thread::panicking() {
            self.0.link.close(self.0.id, 1011, "internal");
        } else {
            self.0.link.close(self.0.id, 1000, "");
        }
    }
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
    /// When the connection has ended.
    pub fn send(&mut self, message: Message) -> impl Future<Output = Result<(), SocketError>> {
        self.handle.send(message)
    }

    /// Sends a close frame behind everything that was sent before, with code 1000.
    pub async fn close(self) {
        self.handle.0.close_with(None);
    }

    /// Like [`close`](Self::close), with a code and a reason.
    pub async fn close_with(self, code: u16, reason: &str) {
        self.handle.0.link.close(self.handle.0.id, code, reason);
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
        self.handle.0.link.peer(self.handle.0.id)
    }
}

impl WsSender {
    /// Sends a message; waits while the peer does not read.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn send(&self, message: Message) -> impl Future<Output = Result<(), SocketError>> {
        self.handle.send(message)
    }

    /// Sends a close frame behind everything that was sent before.
    pub async fn close(self) {
        self.handle.0.close_with(None);
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
