//! A shard as the code on its own thread sees it, user code too: a state that is borrowed for one move.
//! Knows what there is; makes no move itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::gateway::engine::dispatch::Dispatch;
use crate::gateway::engine::inbox::{Inboxes, SocketId};
use crate::gateway::engine::registries::Registries;
use crate::metrics::Recorder;

use crate::shard::kernel::ring::SlotKey;
use crate::shard::state::State;
use crate::shard::state::shared::Shared;

/// The gateways of a server on one shard, and their registries.
#[derive(Default)]
pub(crate) struct Gateways {
    pub(crate) opened: Box<[Rc<dyn Dispatch>]>,
    pub(crate) registries: Option<Rc<Registries>>,
}

impl std::fmt::Debug for Gateways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateways")
            .field("registries", &self.registries)
            .finish_non_exhaustive()
    }
}

/// A shard as the code on its own thread sees it.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) shared: Arc<Shared>,
    pub(in crate::shard) state: RefCell<State>,
    /// Gathers durations.
    pub(crate) recorder: Recorder,
    pub(in crate::shard) gateways: Gateways,
    /// What waits for handlers.
    pub(in crate::shard) inboxes: Rc<Inboxes>,
    /// The loop sleeps until it is woken.
    pub(in crate::shard) sleeping: Cell<bool>,
}

thread_local! {
    /// The shard of this thread.
    pub(in crate::shard) static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
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

/// A slot as the handlers of raw mounts name it.
pub(crate) fn socket_id(key: SlotKey) -> SocketId {
    SocketId(u64::from(key.generation) << 32 | u64::from(key.slot))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves were put together by `socket_id`"
)]
pub(crate) fn key_of(id: SocketId) -> SlotKey {
    SlotKey {
        slot: id.0 as u32,
        generation: (id.0 >> 32) as u32,
    }
}
