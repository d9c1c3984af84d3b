//! Running user code on its shard: handlers are polled once on the spot, and become a task only
//! if they wait. Knows futures and callers; nothing of sockets.
//!
//! Only here are panics of user code caught; a panic anywhere else ends the process.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use futures_util::FutureExt;

use crate::auth::{CALLER, Caller};
use crate::broker::pattern::HandlerIndex;
use crate::broker::relay::{
    Call, HandlerEvent, Joining, LeaveReason, Push, Pushed, Refusal, TopicKey, Visit,
};
use crate::gateway::relay::JOINING;
use crate::gateway::relay_handler::call_of;
use crate::id::ConnId;
use crate::metrics::{Counter, Timing};

use crate::shard::link::relay_of;
use crate::shard::state::shard::Shard;
use crate::shard::state::shared::Shared;

impl Shard {
    /// Runs the handlers that are due, in order, with no borrow held.
    pub(crate) fn run_calls(self: &Rc<Self>) {
        // Most messages cause no call of a handler, so that is asked with one look.
        while self.state.borrow().has_calls() {
            self.run_ended();
            let Some(call) = self.next_call() else {
                return;
            };
            self.run_call(call);
        }
    }

    fn next_call(&self) -> Option<Call> {
        self.state.borrow_mut().calls.pop_front()
    }

    fn run_call(self: &Rc<Self>, call: Call) {
        let Some(relay) = &self.shared.relay else {
            return;
        };
        let handler = &relay.handlers[call.handler];
        let caller = Arc::clone(&call.subscriber.caller);
        let services = (
            Arc::clone(&caller),
            relay_of(&self.shared),
            self.shared.container.clone(),
        );
        let conn_id = call.subscriber.conn_id;
        let arguments = call_of(&call.topic, conn_id, &call.event, services);
        let lane = call.lane;
        let is_join = call.event == HandlerEvent::Join;
        let joining = Joining::Member(Arc::clone(&call.topic), lane);
        let began = crate::shard::kernel::clock::now();
        let start = || CALLER.sync_scope(Arc::clone(&caller), || handler.call(&arguments));
        let started = std::panic::catch_unwind(AssertUnwindSafe(start));
        let shard = Rc::clone(self);
        let run = async move {
            let outcome = match started {
                Ok(future) => AssertUnwindSafe(future).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            let result = outcome.unwrap_or_else(|_| {
                shard.with_state(|state| state.metrics.add(Counter::HandlerPanics, 1));
                Err("internal".to_owned())
            });
            shard.recorder.record(
                Timing::Handler,
                crate::shard::kernel::clock::us_since(began),
            );
            shard.with_state(|state| {
                state.metrics.add(Counter::HandlerCalls, 1);
                state.handle_called(lane, &call.event, result);
            });
        };
        let run = CALLER.scope(caller, run);
        if is_join {
            poll_or_spawn(Box::pin(JOINING.scope(joining, run)));
        } else {
            poll_or_spawn(Box::pin(run));
        }
    }
}

/// Polls a future once; what waits becomes a task and is polled again with a waker of its own.
pub(crate) fn poll_or_spawn(mut future: Pin<Box<dyn Future<Output = ()>>>) {
    let mut context = Context::from_waker(Waker::noop());
    if future.as_mut().poll(&mut context).is_pending() {
        tokio::task::spawn_local(future);
    }
}

/// Makes a visit as a task of its own, which takes its turn behind what runs now.
pub(crate) fn spawn_visit(shared: &Arc<Shared>, visit: Visit) {
    let shared = Arc::clone(shared);
    tokio_uring::spawn(async move {
        let Visit {
            handler,
            topic,
            push,
            done,
        } = visit;
        let visitor = Visitor {
            shared,
            handler,
            topic,
            caller: push.caller.clone(),
            conn_id: push.conn_id,
        };
        done(visitor.make(push).await);
    });
}

/// Somebody who is no member and speaks to a handler.
struct Visitor {
    shared: Arc<Shared>,
    handler: HandlerIndex,
    topic: Arc<TopicKey>,
    caller: Arc<Caller>,
    conn_id: ConnId,
}

impl Visitor {
    /// Joins, says it, leaves. Who may not join does neither of the others.
    async fn make(&self, push: Push) -> Result<Pushed, Refusal> {
        let aside = || Joining::Visitor(Arc::clone(&self.topic));
        let joined = JOINING.scope(aside(), self.run(HandlerEvent::Join)).await;
        joined.map_err(Refusal::JoinRejected)?;
        let Push { event, payload, .. } = push;
        let said = self.run(HandlerEvent::Message { event, payload }).await;
        let leave = HandlerEvent::Leave(LeaveReason::Unsubscribe);
        let left = JOINING.scope(aside(), self.run(leave)).await;
        drop(left);
        said.map(|()| Pushed::Handler)
            .map_err(Refusal::HandlerFailed)
    }

    async fn run(&self, event: HandlerEvent) -> Result<(), String> {
        let Some(relay) = &self.shared.relay else {
            return Ok(());
        };
        let services = (
            Arc::clone(&self.caller),
            relay_of(&self.shared),
            self.shared.container.clone(),
        );
        let arguments = call_of(&self.topic, self.conn_id, &event, services);
        let handler = &relay.handlers[self.handler];
        let began = crate::shard::kernel::clock::now();
        let run = async {
            let started = std::panic::catch_unwind(AssertUnwindSafe(|| handler.call(&arguments)));
            match started {
                Ok(future) => AssertUnwindSafe(future).catch_unwind().await,
                Err(panic) => Err(panic),
            }
        };
        let outcome = CALLER.scope(Arc::clone(&self.caller), run).await;
        if let Some(shard) = Shard::current(&self.shared) {
            shard.recorder.record(
                Timing::Handler,
                crate::shard::kernel::clock::us_since(began),
            );
            shard.with_state(|state| {
                state.metrics.add(Counter::HandlerCalls, 1);
                state
                    .metrics
                    .add(Counter::HandlerPanics, u64::from(outcome.is_err()));
            });
        }
        outcome.unwrap_or_else(|_| Err("internal".to_owned()))
    }
}
