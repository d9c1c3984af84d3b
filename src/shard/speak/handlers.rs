//! Handlers of raw mounts: each is a future that the loop polls in its turn, when a message or
//! anything else has woken it. Knows futures, callers and who is to be woken; nothing of sockets.
//!
//! They are no tasks of the runtime: one set with a list of those that are awake costs a
//! connection less memory, and a message less time, than a task with its scheduler.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::auth::{CALLER, Caller};
use crate::gateway::call::Call;
use crate::gateway::raw_handler::RawFuture;
use crate::metrics::Counter;

use crate::shard::post::mailbox::Port;
use crate::shard::state::admitted::Opened;
use crate::shard::state::command::Command;
use crate::shard::state::shard::Shard;
use crate::shard::state::shared::{Dialect, Shared};

/// User code panicked; the message has been printed.
struct Panicked;

/// A running handler, for its caller.
struct Running {
    caller: Arc<Caller>,
    future: RawFuture,
}

impl Future for Running {
    type Output = Result<(), Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let caller = Arc::clone(&self.caller);
        let future = self.future.as_mut();
        // Dropping the socket in the handler closes the connection, in a panic too.
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| {
            CALLER.sync_scope(caller, || future.poll(cx))
        }));
        match polled {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

/// Some handler is awake. Raised by any thread; looked at by the loop.
struct Bell {
    shared: Arc<Shared>,
    index: u16,
    rung: AtomicBool,
}

impl Bell {
    fn port(&self) -> &Port<Command> {
        &self.shared.ports[usize::from(self.index)]
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.port().wake();
    }
}

/// The raw handlers of a shard.
pub(crate) struct Handlers {
    running: FuturesUnordered<Running>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl Handlers {
    pub(crate) fn new(shared: Arc<Shared>, index: u16) -> Self {
        let bell = Arc::new(Bell {
            shared,
            index,
            rung: AtomicBool::new(false),
        });
        let running = FuturesUnordered::new();
        // One that never ends: a set that has polled all it has wakes itself, for nothing.
        running.push(Running {
            caller: Caller::anonymous(),
            future: Box::pin(std::future::pending()),
        });
        Self {
            running,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }

    /// Whether one of them is awake.
    pub(crate) fn is_awake(&self) -> bool {
        self.bell.rung.load(Ordering::Acquire)
    }

    /// Polls those that are awake; how many panicked.
    fn run(&mut self) -> u64 {
        let mut panics = 0;
        let mut context = Context::from_waker(&self.waker);
        // Lowered before polling: what wakes a handler from here on rings anew.
        self.bell.rung.store(false, Ordering::Release);
        while let Poll::Ready(Some(ended)) = self.running.poll_next_unpin(&mut context) {
            panics += u64::from(ended.is_err());
        }
        panics
    }
}

impl Handlers {
    /// Starts the handlers of new connections and polls those that are awake, with no borrow
    /// held.
    pub(crate) fn run_due(&mut self, shard: &Shard) {
        let opened = std::mem::take(&mut shard.state.borrow_mut().opened);
        let any = !opened.is_empty() || self.is_awake();
        let mut panics = 0;
        for opened in opened {
            panics += u64::from(self.start(&shard.shared, opened).is_err());
        }
        if any {
            panics += self.run();
            let state = shard.state.borrow_mut();
            state.metrics.add(Counter::HandlerPanics, panics);
        }
    }

    fn start(&self, shared: &Arc<Shared>, opened: Opened) -> Result<(), Panicked> {
        let Dialect::Raw(handler) = &shared.mounts[usize::from(opened.mount)].dialect else {
            return Ok(());
        };
        let caller = Arc::clone(&opened.caller);
        let container = shared.container.clone();
        let call = Call::of_raw(opened.caller, opened.handshake, container);
        let start =
            || CALLER.sync_scope(Arc::clone(&caller), || handler.call(opened.socket, &call));
        let future = std::panic::catch_unwind(AssertUnwindSafe(start)).map_err(|_| Panicked)?;
        self.running.push(Running { caller, future });
        Ok(())
    }
}
