//! One connection on an event mount: which of its events run, and which wait behind one that
//! runs (D-14). Knows no socket and no other connection; events are copied only if they wait.
//!
//! Bound: `inbox_bytes_max` and `inbox_messages_max`; past them the peer is not read from until half
//! of what waits has run.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use slab::Slab;
use tokio::task::AbortHandle;

use crate::gateway::client::WsClient;
use crate::gateway::engine::dispatch::{Dispatch, Request};
use crate::gateway::engine::inbox::Inboxes;
use crate::gateway::engine::wire::KeptWire;
use crate::gateway::extract::KeptData;
use crate::id::ConnId;
use crate::proto::event;
use crate::session::Speaker;

/// The bounds of what waits. Full: receiving pauses until half is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InboxLimits {
    pub(crate) bytes_max: usize,
    pub(crate) messages_max: usize,
}

/// One connection on an event mount.
pub(crate) struct EventSession {
    pub(crate) client: WsClient,
    pub(crate) gateway: Rc<dyn Dispatch>,
    queue: RefCell<Queue>,
    /// Pushes that its full outbox has shed, and that it was not told of: only for who has named the
    /// dialect, and so knows the notice.
    missed: Option<Cell<u64>>,
    /// What waits here is counted among what waits on the shard.
    inboxes: Rc<Inboxes>,
}

#[derive(Debug, Default)]
struct Queue {
    /// A handler runs that others must not pass.
    is_busy: bool,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    tasks: Slab<AbortHandle>,
    /// Streams that wait until the client has read.
    streams: Vec<Waker>,
    has_ended: bool,
}

/// An event that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    event: Box<str>,
    data: KeptData,
    wire: KeptWire,
}

impl Waiting {
    /// The event again.
    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            event: &self.event,
            data: self.data.data(),
            wire: self.wire.wire(),
        }
    }

    fn bytes(&self) -> usize {
        self.event.len() + self.data.bytes()
    }
}

impl Speaker for EventSession {
    fn handle_peer_end(&self) -> bool {
        self.is_at_work()
    }

    fn waiting_bytes(&self) -> usize {
        self.queue.borrow().bytes
    }

    fn conn_id(&self) -> Option<ConnId> {
        Some(self.client.id())
    }

    fn checks_text(&self) -> bool {
        true
    }
}

impl EventSession {
    pub(crate) fn new(client: WsClient, gateway: Rc<dyn Dispatch>, inboxes: Rc<Inboxes>) -> Self {
        let knows_lagged = client.subprotocol() == Some(event::PROTOCOL);
        Self {
            client,
            gateway,
            queue: RefCell::default(),
            missed: knows_lagged.then(Cell::default),
            inboxes,
        }
    }

    /// A push was shed.
    pub(crate) fn handle_shed(&self) {
        if let Some(missed) = &self.missed {
            missed.set(missed.get() + 1);
        }
    }

    /// Whether the client is told of what was shed.
    pub(crate) fn is_told(&self) -> bool {
        self.missed.is_some()
    }

    /// Whether something was shed that it was not told of yet.
    pub(crate) fn is_missing(&self) -> bool {
        self.missed.as_ref().is_some_and(|missed| missed.get() != 0)
    }

    /// How many were shed since it was told last, if any were.
    pub(crate) fn poll_missed(&self) -> Option<u64> {
        let missed = self.missed.as_ref()?.take();
        (0 < missed).then_some(missed)
    }

    /// Whether the next event must wait for those before it.
    pub(crate) fn must_wait(&self) -> bool {
        let queue = self.queue.borrow();
        queue.is_busy || !queue.waiting.is_empty()
    }

    /// Whether a handler runs or an event waits for one.
    pub(crate) fn is_at_work(&self) -> bool {
        self.must_wait() || self.tasks() != 0
    }

    /// Keeps an event for later; whether there is room for another one.
    pub(crate) fn handle_waiting(&self, request: Request<'_>, limits: InboxLimits) -> bool {
        let mut queue = self.queue.borrow_mut();
        let waiting = Waiting {
            event: request.event.into(),
            data: request.data.to_kept(),
            wire: request.wire.to_kept(),
        };
        queue.bytes += waiting.bytes();
        self.inboxes.add(waiting.bytes());
        queue.waiting.push_back(waiting);
        queue.bytes < limits.bytes_max && queue.waiting.len() < limits.messages_max
    }

    /// The next event that may run.
    pub(crate) fn poll_next(&self) -> Option<Waiting> {
        let mut queue = self.queue.borrow_mut();
        if queue.is_busy || queue.has_ended {
            return None;
        }
        let next = queue.waiting.pop_front()?;
        queue.bytes -= next.bytes();
        self.inboxes.remove(1, next.bytes());
        Some(next)
    }

    /// Whether at most half of what may wait is waiting.
    pub(crate) fn has_room(&self, limits: InboxLimits) -> bool {
        let queue = self.queue.borrow();
        queue.bytes <= limits.bytes_max / 2 && queue.waiting.len() <= limits.messages_max / 2
    }

    /// Nothing passes until the handler that has started now ends.
    pub(crate) fn handle_busy(&self) {
        self.queue.borrow_mut().is_busy = true;
    }

    /// That handler has ended.
    pub(crate) fn handle_idle(&self) {
        self.queue.borrow_mut().is_busy = false;
    }

    /// How many handlers wait for something.
    pub(crate) fn tasks(&self) -> usize {
        self.queue.borrow().tasks.len()
    }

    /// A handler has become a task; where it stands until it ends.
    pub(crate) fn handle_task(&self, task: AbortHandle) -> usize {
        self.queue.borrow_mut().tasks.insert(task)
    }

    /// A task has ended.
    pub(crate) fn handle_task_ended(&self, place: usize) {
        self.queue.borrow_mut().tasks.try_remove(place);
    }

    /// A stream waits for room in the outbox.
    pub(crate) fn handle_stream_waiting(&self, waker: &Waker) {
        let mut queue = self.queue.borrow_mut();
        if !queue.streams.iter().any(|kept| kept.will_wake(waker)) {
            queue.streams.push(waker.clone());
        }
    }

    /// There is room again, or no connection any more.
    pub(crate) fn wake_streams(&self) {
        let streams = std::mem::take(&mut self.queue.borrow_mut().streams);
        streams.into_iter().for_each(Waker::wake);
    }

    /// The connection has ended: its handlers end where they stand, and nothing waits any more.
    pub(crate) fn handle_end(&self) {
        let mut queue = self.queue.borrow_mut();
        queue.has_ended = true;
        self.inboxes.remove(queue.waiting.len(), queue.bytes);
        queue.waiting.clear();
        queue.bytes = 0;
        for (_, task) in &queue.tasks {
            task.abort();
        }
        drop(queue);
        self.wake_streams();
    }
}

impl std::fmt::Debug for EventSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventSession")
            .field("client", &self.client)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
