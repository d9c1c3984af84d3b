//! What a connection of a raw mount and its handler share: the messages between them. Knows
//! messages, and through `SocketLink` whoever owns the connection; nothing of rings.
//!
//! Bounds: the inbox holds `inbox_bytes_max` and `inbox_messages_max`, then the peer is not read
//! from until half is gone; a send waits while the outbox is full.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::config::Limits;
use crate::gateway::socket::{CloseFrame, Message, SocketError};
use crate::proto::{CloseCode, frame};

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

    /// Takes out what has been received.
    pub(crate) fn remove(&self, messages: usize, bytes: usize) {
        self.messages.set(self.messages.get() - messages);
        self.bytes.set(self.bytes.get() - bytes);
    }

    /// Messages and bytes that wait.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.messages.get(), self.bytes.get())
    }
}

/// How much an inbox takes before reading from the peer pauses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InboxBounds {
    pub(crate) bytes_max: u32,
    pub(crate) messages_max: u32,
}

impl InboxBounds {
    /// What `inbox_bytes_max` and `inbox_messages_max` say.
    pub(crate) fn of(limits: &Limits) -> Self {
        Self {
            bytes_max: u32::try_from(limits.inbox_bytes_max).unwrap_or(u32::MAX),
            messages_max: u32::try_from(limits.inbox_messages_max).unwrap_or(u32::MAX),
        }
    }
}

/// What a connection and its handler share: the messages between them. Every idle connection of a
/// raw mount pays for one, so it is kept small.
pub(crate) struct Inbox {
    messages: RefCell<VecDeque<Message>>,
    bytes: Cell<usize>,
    bounds: Cell<InboxBounds>,
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
            bounds: Cell::new(bounds),
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

    /// Puts other bounds in force.
    pub(crate) fn set_bounds(&self, bounds: InboxBounds) {
        self.bounds.set(bounds);
    }

    /// Adds a message; whether there is room for more.
    pub(crate) fn push(&self, message: Message) -> bool {
        let cost = message.as_bytes().len() + MESSAGE_COST_BYTES;
        let bytes = self.bytes.get() + cost;
        self.bytes.set(bytes);
        self.link.inboxes().add(cost);
        let mut messages = self.messages.borrow_mut();
        messages.push_back(message);
        let bounds = self.bounds.get();
        let room =
            bytes < bounds.bytes_max as usize && messages.len() < bounds.messages_max as usize;
        drop(messages);
        self.paused.set(!room);
        self.wake_receiver();
        room
    }

    /// Whether the handler has taken everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.borrow().is_empty()
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
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
        let bounds = self.bounds.get();
        self.messages.borrow().len() <= bounds.messages_max as usize / 2
            && bytes <= bounds.bytes_max as usize / 2
    }

    fn poll_send(&self, message: &Message, cx: &Context<'_>) -> Poll<Result<(), SocketError>> {
        if let Message::Close(frame) = message {
            return Poll::Ready(self.close_with(frame.as_ref()));
        }
        if self.closed.get() {
            return Poll::Ready(Err(SocketError::Closed));
        }
        if let Message::Ping(payload) | Message::Pong(payload) = message
            && frame::CONTROL_BYTES_MAX < payload.len()
        {
            return Poll::Ready(Err(SocketError::ControlTooLong(payload.len())));
        }
        match self.link.try_send(self.id, message) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => {
                let mut senders = self.senders.take().unwrap_or_default();
                // Who asks again and again, as in a select, waits once.
                if !senders.iter().any(|waker| waker.will_wake(cx.waker())) {
                    senders.push(cx.waker().clone());
                }
                self.senders.set(Some(senders));
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn close_with(&self, frame: Option<&CloseFrame>) -> Result<(), SocketError> {
        let (code, reason) = match frame {
            Some(frame) => (CloseCode::try_from(frame.code)?, &*frame.reason),
            None => (CloseCode::Normal, ""),
        };
        self.link.close(self.id, code.get(), reason);
        Ok(())
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let left = self.messages.borrow().len();
        self.link.inboxes().remove(left, self.bytes.get());
    }
}

/// A handler's hold on its socket; the connection is closed when the last one goes.
pub(crate) struct Handle(Rc<Inbox>);

impl Handle {
    pub(crate) fn new(inbox: Rc<Inbox>) -> Self {
        inbox.handles.set(inbox.handles.get() + 1);
        Self(inbox)
    }

    pub(crate) fn send(&self, message: Message) -> impl Future<Output = Result<(), SocketError>> {
        poll_fn(move |cx| self.0.poll_send(&message, cx))
    }

    pub(crate) fn receive(&self) -> impl Future<Output = Option<Result<Message, SocketError>>> {
        poll_fn(|cx| self.0.poll_receive(cx).map(|message| message.map(Ok)))
    }

    /// Closes behind everything that was sent before.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        self.0.link.close(self.0.id, code.get(), reason);
    }

    /// Where the peer is, if the connection is still there.
    pub(crate) fn peer(&self) -> Option<std::net::SocketAddr> {
        self.0.link.peer(self.0.id)
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
        match std::thread::panicking() {
            true => self.close(CloseCode::Internal, "internal"),
            false => self.close(CloseCode::Normal, ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// The owner of a connection whose outbox is full.
    #[derive(Default)]
    struct FullLink(Inboxes);

    impl SocketLink for FullLink {
        fn try_send(&self, _: SocketId, _: &Message) -> Result<bool, SocketError> {
            Ok(false)
        }

        fn close(&self, _: SocketId, _: u16, _: &str) {}

        fn resume(&self, _: SocketId) {}

        fn drained(&self, _: SocketId) {}

        fn peer(&self, _: SocketId) -> Option<SocketAddr> {
            None
        }

        fn inboxes(&self) -> &Inboxes {
            &self.0
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// C11: a send that is polled again and again, as in a select, waits once
    #[test]
    fn whoever_asks_often_waits_once() {
        let bounds = InboxBounds {
            bytes_max: 1,
            messages_max: 1,
        };
        let inbox = Inbox::new(Rc::new(FullLink::default()), SocketId(1), bounds);
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        for _ in 0..1_000 {
            for count in &counts {
                let waker = Arc::clone(count).into();
                let sent = inbox.poll_send(&Message::from("x"), &Context::from_waker(&waker));
                assert!(sent.is_pending());
            }
        }
        inbox.wake_senders();
        let woken = counts.map(|count| count.0.load(Ordering::Relaxed));
        assert_eq!(woken, [1, 1]);
    }
}
