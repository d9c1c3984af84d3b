//! One core: rings, sockets, time, files, handlers. The only folder that knows io_uring.
//!
//! A shard is one thread with one runtime (`runtime.rs`); its loop is the future of `block_on`. The
//! loop drives the data ring and the handlers of raw mounts, and yields at least every 100
//! microseconds, so that what waits, timers and HTTP, which are ordinary tasks of the same
//! runtime, run between two of its steps.
//!
//! Invariant: no borrow of [`state::State`] is held while user code runs, for it may call back.

pub(crate) mod kernel;
pub(crate) mod post;
pub(crate) mod socket;

pub(crate) mod shared;
pub(crate) mod state;

pub(crate) mod door;
pub(crate) mod speak;
pub(crate) mod tell;

mod commit;
pub(crate) mod link;

mod decode;
mod drain;
mod receive;
mod runtime;
mod turn;
mod wake;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::gateway::engine::inbox::Inboxes;
use crate::metrics::Recorder;
use speak::event::Gateways;

use shared::Shared;
use state::State;

pub use kernel::ring::{RingError, probe};

pub(crate) use commit::Recovered;
pub(crate) use runtime::run;
pub(crate) use turn::{Setup, now, us_since};

/// A shard as the code on its own thread sees it.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) shared: Arc<Shared>,
    state: RefCell<State>,
    /// Gathers durations.
    pub(crate) recorder: Recorder,
    gateways: Gateways,
    /// What waits for handlers.
    inboxes: Rc<Inboxes>,
    /// The loop sleeps until it is woken.
    sleeping: Cell<bool>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

impl Shard {
    /// The shard of this thread, if it belongs to the server behind `shared`.
    pub(crate) fn current(shared: &Arc<Shared>) -> Option<Rc<Self>> {
        CURRENT.with_borrow(|current| {
            current
                .as_ref()
                .filter(|shard| Arc::ptr_eq(&shard.shared, shared))
                .map(Rc::clone)
        })
    }

    /// The number of this shard.
    pub(crate) fn index(&self) -> u16 {
        self.state.borrow().index
    }

    /// Makes one move on the state, and sees to it that the loop carries on what follows.
    pub(crate) fn with_state<T>(&self, make: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let result = make(&mut state);
        if self.sleeping.get() && state.has_work() {
            state.posts.mailboxes().sleeper().wake();
        }
        result
    }
}
