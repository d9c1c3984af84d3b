//! Gateways on a shard: from frames to their handlers and from their answers to outboxes. User
//! code runs here with no borrow of the state held. Knows when events run; not what they mean.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;

use crate::auth::Caller;
use crate::broker::ConnKey;
use crate::broker::relay::LeaveReason;
use crate::gateway::client::{Handshake, Reason, WsClient};
use crate::gateway::container::StartError;
use crate::gateway::engine::answers::{binary_refused, error_frame, invalid_envelope};
use crate::gateway::engine::dispatch::{Dispatch, Handling, Outcome, Pending, Request};
use crate::gateway::engine::outlet::Post;
use crate::gateway::engine::registries::Registries;
use crate::gateway::engine::wire::Wire;
use crate::gateway::extract::EventData;
use crate::metrics::Refusal as RefusedFor;
use crate::proto::CloseCode;
use crate::proto::event::{self, InvalidEnvelope, Unread};
use crate::proto::frame;
use crate::proto::http::{Head, error_response};
use crate::proto::json::JsonParser;
use crate::proto::ws::{Message, Payload};
use crate::session::engineio::Reason as Ended;
use crate::session::event::{EventSession, InboxLimits};

use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::machine::{Pause, Phase};
use crate::shard::socket::rates::TOO_FAST;
use crate::shard::speak::outlet::ShardOutlet;
use crate::shard::state::State;
use crate::shard::state::admitted::Admitted;
use crate::shard::state::engines::is_engine;
use crate::shard::state::shard::Gateways;
use crate::shard::state::shard::Shard;
use crate::shard::state::shared::{Dialect, Shared};

/// Opens all gateways on the calling shard.
#[expect(
    clippy::expect_used,
    reason = "each gateway was opened once before the start"
)]
pub(crate) fn open_gateways(
    shard: &Weak<Shard>,
    shared: &Arc<Shared>,
    index: u16,
    rooms: usize,
) -> Gateways {
    let program = &shared.program;
    let open = |plan| {
        program
            .open(plan)
            .expect("a gateway that opened before opens again")
    };
    let opened = program.gateways().iter().map(open).collect();
    let outlet = Rc::new(ShardOutlet {
        shard: Weak::clone(shard),
        started: crate::shard::kernel::clock::now(),
    });
    let place = (index, shared.shards());
    let registries = Registries::new(place, outlet, &program.pools(), rooms);
    registries.install();
    Gateways {
        opened,
        registries: Some(registries),
    }
}

/// Where a shard says whether the server can start.
pub(crate) type Ready = std::sync::mpsc::Sender<Result<(), StartError>>;

impl Shard {
    /// Runs what is to run before the server listens, and says how it ended; whether well.
    pub(crate) async fn make_ready(&self, ready: &Ready) -> bool {
        let hooks = AssertUnwindSafe(self.shared.program.after_init());
        let outcome = match hooks.catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => Err(StartError::Init("it panicked".to_owned())),
        };
        let is_ready = outcome.is_ok();
        // The thread that starts the server waits for this, or has given up.
        ready.send(outcome).is_ok() && is_ready
    }

    /// The gateway of a mount, if one is mounted there.
    fn gateway_of(&self, mount: u16) -> Option<&Rc<dyn Dispatch>> {
        match self.shared.mounts[usize::from(mount)].dialect {
            Dialect::Event(gateway) => self.gateways.opened.get(gateway),
            Dialect::Relay | Dialect::Durable | Dialect::Raw(_) | Dialect::SocketIo(_) => None,
        }
    }

    /// Whether a raw handler is mounted there.
    pub(crate) fn is_raw(&self, mount: u16) -> bool {
        let mount = &self.shared.mounts[usize::from(mount)];
        matches!(mount.dialect, Dialect::Raw(_))
    }

    /// Whether a gateway is mounted there.
    pub(crate) fn is_event(&self, mount: u16) -> bool {
        self.gateway_of(mount).is_some()
    }

    /// Asks the guards of a gateway whether an admitted request may become a connection. They
    /// may take their time: until then the request counts as half open.
    pub(crate) fn guard(
        &self,
        (peer, head): (SocketAddr, Head),
        mut admitted: Admitted,
    ) -> impl Future<Output = Option<Admitted>> + use<> {
        let handshake = admitted.keep(peer, head);
        let gateway = self.gateway_of(admitted.mount).cloned();
        async move {
            let caller = Arc::clone(&admitted.caller);
            let verdict = gateway?.upgrade(caller, handshake).await;
            verdict.then_some(admitted)
        }
    }

    /// Opens a connection to a gateway if its guards let it; `rest` came behind the head.
    pub(crate) fn open_guarded(
        self: &Rc<Self>,
        key: SlotKey,
        head: Head,
        admitted: Admitted,
        rest: Vec<u8>,
    ) {
        let Some(peer) = self.state.borrow_mut().peer_of(key) else {
            return self.state.borrow_mut().abort(key, LeaveReason::Closed);
        };
        let verdict = self.guard((peer, head), admitted);
        let shard = Rc::clone(self);
        crate::shard::speak::call::poll_or_spawn(Box::pin(async move {
            let verdict = verdict.await;
            if !shard.state.borrow_mut().is_half_open(key) {
                return;
            }
            match verdict {
                Some(admitted) => {
                    shard.open(key, admitted, true);
                    shard.with_state(|state| state.returned.push((key, rest)));
                }
                None => shard.with_state(|state| {
                    state.refuse(key, &forbidden(), RefusedFor::Guard);
                }),
            }
        }));
    }

    /// A connection on an event mount is open: it enters its registry and its hooks run.
    pub(crate) fn start_event(
        self: &Rc<Self>,
        key: SlotKey,
        mount: u16,
        caller: Arc<Caller>,
        handshake: Arc<Handshake>,
    ) {
        let Dialect::Event(plan) = self.shared.mounts[usize::from(mount)].dialect else {
            return;
        };
        let Some(here) = &self.gateways.registries else {
            return;
        };
        // Whoever is gone by now is not entered, for nobody would take it out again.
        if !self.state.borrow_mut().is_open(key) {
            return;
        }
        let gateway = &self.gateways.opened[plan];
        let registry = Arc::clone(self.shared.program.gateways()[plan].registry());
        let SlotKey { slot, generation } = key;
        let name = ConnKey {
            shard: self.index(),
            lane: 0,
            slot,
            generation,
        };
        let client = WsClient::connect(here, name, registry, caller, handshake);
        let inboxes = Rc::clone(&self.inboxes);
        let session = Rc::new(EventSession::new(client, Rc::clone(gateway), inboxes));
        self.with_state(|state| {
            if let Some(connection) = state.connections.alive(key) {
                connection.session = Rc::clone(&session).into();
            }
        });
        let handling = session.gateway.connected(&session.client);
        self.handle_started(key, &session, handling);
    }

    /// A text or binary message has come on an event mount.
    pub(crate) fn event_message(
        self: &Rc<Self>,
        key: SlotKey,
        session: &Rc<EventSession>,
        message: Message<'_>,
        json: &mut JsonParser,
    ) {
        match message {
            Message::Text(mut payload) => self.handle_event(key, session, &mut payload, json),
            _ => self.handle_event_binary(key),
        }
    }

    /// An event that came too fast is not run, and its sender is told which one that was.
    pub(crate) fn refuse_event(
        &self,
        key: SlotKey,
        mut message: Message<'_>,
        json: &mut JsonParser,
    ) {
        let envelope = match &mut message {
            Message::Text(payload) => event::parse(json, payload).ok(),
            _ => None,
        };
        let frame = match envelope {
            Some(envelope) => {
                let wire = Wire::Event { id: envelope.id };
                error_frame(envelope.event, TOO_FAST, wire)
            }
            None => error_frame("error", TOO_FAST, Wire::PLAIN),
        };
        self.carry_out(key, Outcome::Frame(frame));
    }

    /// A text has come on an event mount.
    fn handle_event(
        self: &Rc<Self>,
        key: SlotKey,
        session: &Rc<EventSession>,
        payload: &mut Payload<'_>,
        json: &mut JsonParser,
    ) {
        match event::parse(json, payload) {
            Ok(envelope) => {
                let (event, json, id) = (envelope.event, envelope.data, envelope.id);
                let unread = Unread::of(envelope);
                let data = EventData::unread(json, &unread);
                self.state.borrow_mut().note_valid(key);
                let wire = Wire::Event { id };
                self.run_or_keep(key, session, Request { event, data, wire });
            }
            Err(InvalidEnvelope::Utf8) => self.with_state(|state| {
                state.metrics.closed(CloseCode::InvalidData.get());
                let close = frame::close(CloseCode::InvalidData.get(), "the text is not UTF-8");
                state.close_with_frame(key, &close, true, LeaveReason::Closed);
            }),
            Err(InvalidEnvelope::Shape) => {
                self.with_state(|state| state.note_invalid(key, &invalid_envelope()));
            }
        }
    }

    /// A binary frame has come on an event mount.
    fn handle_event_binary(&self, key: SlotKey) {
        self.with_state(|state| state.note_invalid(key, &binary_refused()));
    }

    pub(crate) fn run_or_keep(
        self: &Rc<Self>,
        key: SlotKey,
        session: &Rc<EventSession>,
        request: Request<'_>,
    ) {
        if !session.must_wait() {
            return self.run_event(key, session, request);
        }
        let mut state = self.state.borrow_mut();
        let limits = state.inbox_limits(key);
        let room = session.handle_waiting(request, limits);
        if !room {
            let key = state.socket_of(key);
            state.pause(key, Pause::Inbox);
        }
    }

    fn run_event(self: &Rc<Self>, key: SlotKey, session: &Rc<EventSession>, request: Request<'_>) {
        let tasks_max = self.state.borrow().live.limits.handler_queue_max;
        if tasks_max <= session.tasks() {
            let frame = error_frame(request.event, "overloaded", request.wire);
            return self.carry_out(key, Outcome::Frame(frame));
        }
        let handling = session.gateway.message(&session.client, request);
        self.handle_started(key, session, handling);
    }

    /// A handler or a hook has been polled once.
    pub(crate) fn handle_started(
        self: &Rc<Self>,
        key: SlotKey,
        session: &Rc<EventSession>,
        handling: Handling,
    ) {
        match handling {
            Handling::Done(outcome) => self.carry_out(key, outcome),
            Handling::Pending(pending) => self.spawn_event(key, session, pending),
        }
    }

    fn spawn_event(self: &Rc<Self>, key: SlotKey, session: &Rc<EventSession>, pending: Pending) {
        let passes = pending.is_concurrent();
        if !passes {
            session.handle_busy();
        }
        let place = Rc::new(std::cell::Cell::new(usize::MAX));
        let (shard, of, at) = (Rc::clone(self), Rc::clone(session), Rc::clone(&place));
        let task = tokio::task::spawn_local(async move {
            let outcome = AssertUnwindSafe(pending).catch_unwind().await;
            of.handle_task_ended(at.get());
            let outcome = outcome.unwrap_or_else(|_| internal_close());
            let closes = matches!(outcome, Outcome::Close { .. });
            shard.carry_out(key, outcome);
            if !passes {
                of.handle_idle();
            }
            // What waits behind a refusal has nobody who may run it.
            if !passes && !closes {
                shard.go_on(key, &of);
            }
            shard.with_state(|state| state.note_answered(key));
        });
        place.set(session.handle_task(task.abort_handle()));
    }

    /// Runs what has waited, until one must be waited for again.
    fn go_on(self: &Rc<Self>, key: SlotKey, session: &Rc<EventSession>) {
        while let Some(waiting) = session.poll_next() {
            self.run_event(key, session, waiting.request());
        }
        self.with_state(|state| {
            let limits = state.inbox_limits(key);
            if session.has_room(limits) {
                let key = state.socket_of(key);
                state.resume(key, Pause::Inbox);
            }
        });
    }

    pub(crate) fn carry_out(&self, key: SlotKey, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Frame(frame) if is_engine(key) => {
                self.with_state(|state| state.queue_engine(key, &frame, 1));
            }
            Outcome::Close { code, .. } if is_engine(key) => {
                self.with_state(|state| state.close_engine(key, code.get(), Ended::Forced));
            }
            Outcome::Frame(frame) => self.with_state(|state| {
                state.queue_with(key, |out| out.extend_from_slice(&frame));
            }),
            Outcome::Close { code, reason } => self.with_state(|state| {
                state.close(key, code.get(), &reason, LeaveReason::Closed);
            }),
        }
    }

    /// Runs the hooks of connections that have ended, with no borrow held. They leave their
    /// registries when their hooks have run.
    pub(crate) fn run_ended(self: &Rc<Self>) {
        while let Some(session) = self.next_ended() {
            session.handle_end();
            let Some(here) = self.gateways.registries.clone() else {
                return;
            };
            match session.gateway.disconnected(&session.client) {
                Handling::Done(_) => session.client.disconnected(&here),
                Handling::Pending(pending) => {
                    self.with_state(|state| state.hooks_running += 1);
                    let shard = Rc::clone(self);
                    tokio::task::spawn_local(async move {
                        // What a hook answers has nobody to go to, and a panic was logged.
                        let _ = AssertUnwindSafe(pending).catch_unwind().await;
                        session.client.disconnected(&here);
                        shard.with_state(|state| state.hooks_running -= 1);
                    });
                }
            }
        }
    }

    fn next_ended(&self) -> Option<Rc<EventSession>> {
        self.state.borrow_mut().ended.pop_front()
    }

    /// What another shard asks of the registries here.
    pub(crate) fn handle_post(&self, post: Post) {
        if let Some(here) = &self.gateways.registries {
            here.handle_post(post);
        }
    }
}

/// A panic outside of every handler, in a future that was the user's all the same.
fn internal_close() -> Outcome {
    Outcome::Close {
        code: CloseCode::Internal,
        reason: "internal error".to_owned(),
    }
}

/// The answer to a request that a guard has refused.
pub(crate) fn forbidden() -> Bytes {
    error_response(403, "forbidden")
}

impl State {
    /// Whether a connection still waits for the answer to its request.
    fn is_half_open(&mut self, key: SlotKey) -> bool {
        let connection = self.connections.alive(key);
        connection.is_some_and(|connection| matches!(connection.machine.phase(), Phase::Head(_)))
    }

    pub(crate) fn is_open(&mut self, key: SlotKey) -> bool {
        let connection = self.connections.alive(key);
        connection.is_some_and(|connection| connection.takes_frames())
    }

    fn inbox_limits(&mut self, key: SlotKey) -> InboxLimits {
        let carried = self.engines.alive(key).map(|carried| carried.mount);
        let own = self
            .connections
            .alive(key)
            .map(|connection| connection.mount);
        let mount = carried.or(own).unwrap_or(0);
        let limits = self.live.limits_of(mount);
        InboxLimits {
            bytes_max: limits.inbox_bytes_max,
            messages_max: limits.inbox_messages_max,
        }
    }

    /// A connection to a gateway has ended: its hooks are to run.
    pub(crate) fn end_event(&mut self, session: Rc<EventSession>, leave: LeaveReason) {
        session.client.note_reason(reason_of(leave));
        self.ended.push_back(session);
    }

    fn note_valid(&mut self, key: SlotKey) {
        if let Some(connection) = self.connections.alive(key) {
            connection.invalid_frames = 0;
        }
    }

    /// An error frame for what is no envelope; too many in a row end the connection (D-07).
    fn note_invalid(&mut self, key: SlotKey, error: &[u8]) {
        self.queue_with(key, |out| out.extend_from_slice(error));
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        connection.invalid_frames += 1;
        let max = self.live.limits_of(connection.mount).invalid_frames_max;
        if max <= usize::from(connection.invalid_frames) {
            let text = "too many invalid frames in a row";
            self.close(key, CloseCode::Policy, text, LeaveReason::Closed);
        }
    }
}

/// Why a gateway is told that a connection has ended.
fn reason_of(leave: LeaveReason) -> Reason {
    match leave {
        LeaveReason::Timeout => Reason::PingTimeout,
        LeaveReason::Slow => Reason::Slow,
        LeaveReason::Kicked => Reason::Forced,
        LeaveReason::Shutdown => Reason::Shutdown,
        _ => Reason::TransportClose,
    }
}
