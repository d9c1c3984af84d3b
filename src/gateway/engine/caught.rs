//! Code of users is called here: a panic ends the call and nothing else. Knows futures; not what is called.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

use futures_util::future::LocalBoxFuture;

use crate::gateway::engine::dispatch::{Handling, Outcome, Pending};
use crate::gateway::engine::registries::Registries;
use crate::gateway::engine::table::Panicked;

/// Counts a panic, where there is a shard to count it.
pub(super) fn note_panic() {
    if let Some(here) = Registries::here() {
        here.note_panic();
    }
}

pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| Panicked)
}

/// Polled with a waker that does nothing: a task polls again at its start, and then with its own.
pub(super) fn poll_once<T>(future: &mut LocalBoxFuture<'static, T>) -> Poll<T> {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

pub(super) fn now_or_later(
    mut future: LocalBoxFuture<'static, Outcome>,
    is_concurrent: bool,
) -> Handling {
    match poll_once(&mut future) {
        Poll::Ready(outcome) => Handling::Done(outcome),
        Poll::Pending => Handling::Pending(Pending::new(future, is_concurrent)),
    }
}
