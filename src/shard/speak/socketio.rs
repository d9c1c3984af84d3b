//! Socket.IO on a shard: from packets to the handlers of namespaces, and from their pushes to whatever
//! carries a session. User code runs here with no borrow of the state held. Knows frames by dialect.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use serde_json::Value;
use smallvec::SmallVec;

use crate::auth::Caller;
use crate::broker::ConnKey;
use crate::gateway::ask::AskedOf;
use crate::gateway::client::{Reason as LeftBy, WsClient};
use crate::gateway::engine::answers::error_frame;
use crate::gateway::engine::dispatch::{Outcome, Request};
use crate::gateway::engine::outlet::Fate;
use crate::gateway::engine::push::Push;
use crate::gateway::engine::wire::Wire;
use crate::gateway::extract::{Beside, EventData};
use crate::gateway::socket::Message as RawMessage;
use crate::metrics::{SocketIoPacket, SocketIoRefusal};
use crate::proto::engineio::Packet as Carrier;
use crate::proto::event::Unread;
use crate::proto::frame;
use crate::proto::json::JsonParser;
use crate::proto::socketio::{self, Kind, Packet};
use crate::proto::ws::Message;
use crate::session::engineio::Up;
use crate::session::event::EventSession;
use crate::session::socketio::{Namespaces, SocketIoLimits, Step};

use crate::shard::kernel::clock::unix_s;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::outbox::Piece;
use crate::shard::socket::rates::{Counted, TOO_FAST};
use crate::shard::state::State;
use crate::shard::state::admitted::in_default_tenant;
use crate::shard::state::engines::Upper;
use crate::shard::state::shard::Shard;
use crate::shard::state::shared::Dialect;

impl Shard {
    /// A text or binary message has come over a socket that carries a session of Engine.IO, or wants to.
    pub(crate) fn engine_message(
        self: &Rc<Self>,
        (socket, key): (SlotKey, SlotKey),
        message: Message<'_>,
        counted: Counted,
        json: &mut JsonParser,
    ) {
        // Pongs, acks and attachments are taken all the same: only events are refused.
        let is_too_fast = counted == Counted::TooFast;
        self.with_state(|state| state.note_pace(key, is_too_fast));
        let packet = match &message {
            Message::Text(text) => {
                let own = self.with_state(|state| state.engine_text(socket, key, text));
                if let Some(text) = own {
                    return self.handle_engine_text(key, &text, json);
                }
                let text = std::str::from_utf8(text).ok();
                text.and_then(|text| Carrier::parse(text).ok())
            }
            Message::Binary(bytes) => Some(Carrier::Binary(bytes.to_vec())),
            // Whatever else there is was answered as on every other mount.
            _ => return,
        };
        let up = self.with_state(|state| match packet {
            Some(packet) => state.with_engine(key, |engine, limits, _, effects| {
                engine.handle_packet(Some(socket), packet, limits, effects)
            }),
            None => state.with_engine(key, |engine, _, _, effects| {
                engine.handle_invalid(Some(socket), effects);
                Up::Nothing
            }),
        });
        self.handle_up(key, up.unwrap_or(Up::Nothing), json);
    }

    /// A packet was for the layer above.
    pub(crate) fn handle_up(self: &Rc<Self>, key: SlotKey, up: Up<'_>, json: &mut JsonParser) {
        match up {
            Up::Nothing => {}
            Up::Text(text) => self.handle_engine_text(key, text.as_bytes(), json),
            Up::Binary(bytes) => self.handle_engine_binary(key, bytes.into(), json),
        }
    }

    fn handle_engine_text(self: &Rc<Self>, key: SlotKey, text: &[u8], json: &mut JsonParser) {
        let step = {
            let mut state = self.state.borrow_mut();
            let Some((mounted, limits)) = state.socketio_rules(&self.shared, key) else {
                let text = String::from_utf8_lossy(text).into_owned();
                return state.hand_to_engine_raw(key, RawMessage::Text(text));
            };
            match state.engines.alive(key).map(|carried| &mut carried.upper) {
                Some(Upper::SocketIo(socketio)) => socketio.handle_text(text, mounted, &limits),
                _ => return,
            }
        };
        self.with_state(|state| state.await_attachments(key));
        self.take_step(key, step, &[], json);
    }

    fn handle_engine_binary(self: &Rc<Self>, key: SlotKey, bytes: Bytes, json: &mut JsonParser) {
        let (text, attachments) = {
            let mut state = self.state.borrow_mut();
            let Some((_, limits)) = state.socketio_rules(&self.shared, key) else {
                return state.hand_to_engine_raw(key, RawMessage::Binary(bytes.to_vec()));
            };
            let whole = match state.engines.alive(key).map(|carried| &mut carried.upper) {
                Some(Upper::SocketIo(socketio)) => socketio.handle_binary(bytes, &limits),
                _ => return,
            };
            match whole {
                Ok(Some(whole)) => {
                    state.await_attachments(key);
                    whole
                }
                Ok(None) => return,
                Err(socketio::Malformed) => return state.refuse_engine(key),
            }
        };
        let step = {
            let mut state = self.state.borrow_mut();
            let Some((mounted, limits)) = state.socketio_rules(&self.shared, key) else {
                return;
            };
            let packet = Packet::parse(&text, limits.attachments_max)
                .ok()
                .filter(|packet| socketio::are_in_range(packet.json, attachments.len()));
            match (
                packet,
                state.engines.alive(key).map(|carried| &mut carried.upper),
            ) {
                (Some(packet), Some(Upper::SocketIo(socketio))) => {
                    socketio.step(packet, mounted, &limits)
                }
                _ => return state.refuse_engine(key),
            }
        };
        self.take_step(key, step, &attachments, json);
    }

    fn take_step(
        self: &Rc<Self>,
        key: SlotKey,
        step: Step<'_>,
        attachments: &[Bytes],
        json: &mut JsonParser,
    ) {
        if let Some(packet) = counted_as(&step) {
            self.with_state(|state| state.metrics.packet(packet));
        }
        match step {
            Step::Nothing => {}
            Step::Malformed => self.with_state(|state| state.refuse_engine(key)),
            Step::Refuse { nsp, message } => self.with_state(|state| {
                state.metrics.join_refused(SocketIoRefusal::Namespace);
                state.say_engine(key, |out| {
                    socketio::put_connect_error(out, nsp, message, None);
                });
            }),
            Step::Leave(session) => self.with_state(|state| {
                session.client.note_reason(LeftBy::ClientLeft);
                state.ended.push_back(session);
            }),
            Step::Connect {
                lane,
                gateway,
                payload,
            } => match socketio::check_connect(json, payload) {
                Ok(()) => self.join_namespace(key, (lane, gateway), payload),
                Err(socketio::Malformed) => self.with_state(|state| state.refuse_engine(key)),
            },
            Step::Packet {
                nsp,
                session,
                packet,
            } => self.handle_socketio(key, (&nsp, &session), (packet, attachments), json),
        }
    }

    fn handle_socketio(
        self: &Rc<Self>,
        key: SlotKey,
        (nsp, session): (&Arc<str>, &Rc<EventSession>),
        (packet, attachments): (Packet<'_>, &[Bytes]),
        json: &mut JsonParser,
    ) {
        if matches!(packet.kind, Kind::Ack | Kind::BinaryAck) {
            let args = socketio::read_ack(json, packet.json);
            return self.with_state(|state| match (args, packet.id) {
                (Ok(args), Some(number)) => {
                    let answer = AskedOf {
                        args: args.into(),
                        attachments: attachments.to_vec(),
                    };
                    let asks = &mut state.engines.asks;
                    asks.handle_answer(number, session.client.key(), answer);
                }
                (Ok(_), None) => {}
                (Err(socketio::Malformed), _) => state.refuse_engine(key),
            });
        }
        match socketio::read_event(json, packet.json) {
            Ok(socketio::Event { envelope, args }) => {
                let (event, first) = (envelope.event, envelope.data);
                let unread = Unread::of(envelope);
                let data = EventData::unread(first, &unread).beside(Beside { args, attachments });
                let wire = Wire::SocketIo {
                    nsp,
                    ack: packet.id,
                };
                if self.with_state(|state| state.is_too_fast(key)) {
                    let frame = error_frame(event, TOO_FAST, wire);
                    return self.carry_out(key, Outcome::Frame(frame));
                }
                self.run_or_keep(key, session, Request { event, data, wire });
            }
            Err(socketio::Malformed) => self.with_state(|state| state.refuse_engine(key)),
        }
    }

    /// Asks the guards of a namespace; if they let it in, its handlers have one client more.
    fn join_namespace(self: &Rc<Self>, key: SlotKey, (lane, gateway): (u8, usize), payload: &[u8]) {
        let auth: Value = match payload {
            [] => Value::Object(serde_json::Map::new()),
            payload => serde_json::from_slice(payload).unwrap_or_default(),
        };
        let Some(name) = self.namespace_name(key, gateway) else {
            return;
        };
        let Some(caller) = self.with_state(|state| state.engine_caller(key, &auth)) else {
            self.with_state(|state| state.metrics.join_refused(SocketIoRefusal::Token));
            return self.refuse_namespace(key, (lane, &name), "a valid token is required", None);
        };
        let Some(handshake) = self.with_state(|state| {
            let carried = state.engines.alive(key)?;
            Some(Arc::clone(&carried.handshake))
        }) else {
            return;
        };
        let auth = Arc::new(auth);
        let dispatch = Rc::clone(&self.gateways.opened[gateway]);
        let verdict = Rc::clone(&dispatch).join(
            Arc::clone(&caller),
            Arc::clone(&handshake),
            Arc::clone(&auth),
        );
        let shard = Rc::clone(self);
        crate::shard::speak::call::poll_or_spawn(Box::pin(async move {
            if let Err(denied) = verdict.await {
                let data = denied.data.as_deref();
                shard.with_state(|state| state.metrics.join_refused(SocketIoRefusal::Guard));
                return shard.refuse_namespace(key, (lane, &name), "forbidden", data);
            }
            let auth = Arc::unwrap_or_clone(auth);
            shard.enter_namespace(key, (lane, gateway, &name), (caller, handshake, auth));
        }));
    }

    fn namespace_name(&self, key: SlotKey, gateway: usize) -> Option<Arc<str>> {
        let mount = self.with_state(|state| Some(state.engines.alive(key)?.mount))?;
        let Dialect::SocketIo(namespaces) = &self.shared.mounts[usize::from(mount)].dialect else {
            return None;
        };
        let known = namespaces.iter().find(|(_, number)| *number == gateway);
        known.map(|(name, _)| Arc::clone(name))
    }

    fn refuse_namespace(
        &self,
        key: SlotKey,
        (lane, nsp): (u8, &str),
        message: &str,
        data: Option<&[u8]>,
    ) {
        self.with_state(|state| {
            if let Some(Upper::SocketIo(socketio)) =
                state.engines.alive(key).map(|carried| &mut carried.upper)
            {
                socketio.handle_refused(lane);
            }
            state.say_engine(key, |out| {
                socketio::put_connect_error(out, nsp, message, data);
            });
        });
    }

    fn enter_namespace(
        self: &Rc<Self>,
        key: SlotKey,
        (lane, gateway, nsp): (u8, usize, &str),
        (caller, handshake, auth): (Arc<Caller>, Arc<crate::gateway::client::Handshake>, Value),
    ) {
        let Some(here) = &self.gateways.registries else {
            return;
        };
        let is_there = self.with_state(|state| {
            let carried = state.engines.alive(key);
            carried.is_some_and(|carried| matches!(carried.upper, Upper::SocketIo(_)))
        });
        if !is_there {
            return;
        }
        let registry = Arc::clone(self.shared.program.gateways()[gateway].registry());
        let name = ConnKey {
            shard: self.index(),
            lane,
            slot: key.slot,
            generation: key.generation,
        };
        let said = (Arc::clone(&caller), handshake, Some(Box::new(auth)));
        let client = WsClient::join_with(here, name, registry, said);
        let sid = client.sid();
        let dispatch = Rc::clone(&self.gateways.opened[gateway]);
        let session = Rc::new(EventSession::new(
            client,
            dispatch,
            Rc::clone(&self.inboxes),
        ));
        self.with_state(|state| {
            let expires_ms = state.token_end_ms(&caller);
            let Some(carried) = state.engines.alive(key) else {
                return;
            };
            carried.connect_by_ms = 0;
            if 0 < expires_ms && (carried.expires_ms == 0 || expires_ms < carried.expires_ms) {
                carried.expires_ms = expires_ms;
            }
            if let Upper::SocketIo(socketio) = &mut carried.upper {
                socketio.handle_joined(lane, &session);
            }
            state.engines.note_joined(key);
            state.say_engine(key, |out| socketio::put_connect(out, nsp, &sid, None));
        });
        let handling = session.gateway.connected(&session.client);
        self.handle_started(key, &session, handling);
    }
}

/// As what a packet is counted; one that broke the rules is counted where its session ends.
fn counted_as(step: &Step<'_>) -> Option<SocketIoPacket> {
    let packet = match step {
        Step::Connect { .. } | Step::Refuse { .. } => return Some(SocketIoPacket::Connect),
        Step::Leave(_) => return Some(SocketIoPacket::Disconnect),
        Step::Nothing | Step::Malformed => return None,
        Step::Packet { packet, .. } => packet,
    };
    match packet.kind {
        Kind::Event => Some(SocketIoPacket::Event),
        Kind::BinaryEvent => Some(SocketIoPacket::BinaryEvent),
        Kind::Ack => Some(SocketIoPacket::Ack),
        Kind::BinaryAck => Some(SocketIoPacket::BinaryAck),
        Kind::Connect | Kind::Disconnect | Kind::ConnectError => None,
    }
}

/// A namespace, its frame, and the piece that its receivers share.
type OfNamespace = (Arc<str>, Bytes, Option<Rc<Piece>>);

/// The frames of one push, made once for each namespace that has a receiver here.
#[derive(Default)]
pub(crate) struct Frames {
    pub(crate) event: Option<Rc<Piece>>,
    /// How many get it here.
    pub(crate) receivers: usize,
    socketio: SmallVec<[OfNamespace; 1]>,
}

impl Frames {
    /// For so many receivers.
    pub(crate) fn of(receivers: usize) -> Self {
        Self {
            receivers,
            ..Self::default()
        }
    }
}

impl State {
    /// Namespaces and bounds of the mount of a session; `None` on a raw mount.
    fn socketio_rules<'a>(
        &mut self,
        shared: &'a crate::shard::state::shared::Shared,
        key: SlotKey,
    ) -> Option<(&'a Namespaces, SocketIoLimits)> {
        let mount = self.engines.alive(key)?.mount;
        let Dialect::SocketIo(namespaces) = &shared.mounts[usize::from(mount)].dialect else {
            return None;
        };
        let limits = SocketIoLimits {
            attachments_max: self.live.socketio.attachments_max,
            namespaces_max: self.live.socketio.namespaces_per_connection_max,
            message_bytes_max: self.live.limits_of(mount).message_bytes_max,
        };
        Some((namespaces, limits))
    }

    /// The text of a message over the socket that carries a session, which is nearly everything.
    fn engine_text(&mut self, socket: SlotKey, key: SlotKey, text: &[u8]) -> Option<Box<[u8]>> {
        let carried = self.engines.alive(key)?;
        let (first, rest) = text.split_first()?;
        let is_message = *first == b'4' && carried.engine.socket() == Some(socket);
        if !is_message {
            return None;
        }
        carried.engine.note_heard();
        Some(rest.into())
    }

    fn hand_to_engine_raw(&mut self, key: SlotKey, message: RawMessage) {
        let Some(carried) = self.engines.alive(key) else {
            return;
        };
        if let Upper::Raw(session) = &carried.upper
            && !carried.is_too_fast
        {
            session.handle(message);
        }
    }

    /// As whom a session joins a namespace: by the token of its first request, else of its connect.
    fn engine_caller(&mut self, key: SlotKey, auth: &Value) -> Option<Arc<Caller>> {
        let carried = self.engines.alive(key)?;
        if carried.has_token {
            return Some(Arc::clone(&carried.caller));
        }
        let (anonymous, mount) = (Arc::clone(&carried.caller), carried.mount);
        let token = auth.get("token").and_then(Value::as_str);
        let bytes_max = self.live.limits_of(mount).token_bytes_max;
        let token = token.filter(|token| token.len() <= bytes_max);
        let verified = token.and_then(|token| {
            self.tokens
                .verify(&self.live.authenticator, token, unix_s())
                .ok()
        });
        let mount = &self.shared.mounts[usize::from(mount)];
        match verified {
            Some(caller) if mount.shared => Some(in_default_tenant(&caller)),
            Some(caller) => Some(caller),
            None => mount.public.then_some(anonymous),
        }
    }

    /// Queues one packet for a session, written by `write`.
    pub(crate) fn say_engine(&mut self, key: SlotKey, write: impl FnOnce(&mut Vec<u8>)) {
        let mut frame = Vec::new();
        frame::put_text_with(&mut frame, write);
        self.queue_engine(key, &frame, 1);
    }

    /// Puts a push into what waits for one namespace of a session. A full one takes nothing.
    pub(crate) fn push_engine(
        &mut self,
        connection: ConnKey,
        (push, number): (&Push, Option<u64>),
        frames: &mut Frames,
    ) -> Fate {
        let key = SlotKey {
            slot: connection.slot,
            generation: connection.generation,
        };
        let Some(carried) = self.engines.alive(key) else {
            return Fate::Gone;
        };
        let Upper::SocketIo(socketio) = &carried.upper else {
            return Fate::Gone;
        };
        let Some(nsp) = socketio.name_of(connection.lane) else {
            return Fate::Gone;
        };
        let place = match frames.socketio.iter().position(|(known, ..)| known == nsp) {
            Some(place) => place,
            None => {
                let bytes = push.socketio(nsp, number);
                frames.socketio.push((Arc::clone(nsp), bytes, None));
                frames.socketio.len() - 1
            }
        };
        let (_, bytes, piece) = &mut frames.socketio[place];
        if let Some(socket) = carried.engine.socket() {
            let piece = (piece, frames.receivers);
            return self.queue_bytes(socket, bytes, piece, push.manner());
        }
        let waits = 0 < carried.engine.waiting().0;
        if self.is_engine_full(key, bytes.len()) || (waits && push.manner().is_volatile) {
            return Fate::Shed;
        }
        self.queue_engine(key, bytes, 1);
        Fate::Accepted
    }

    /// The same once most of what it holds has gone.
    pub(crate) fn poll_push_engine(
        &mut self,
        connection: ConnKey,
        push: &Push,
        waker: &Waker,
    ) -> Poll<Fate> {
        let key = SlotKey {
            slot: connection.slot,
            generation: connection.generation,
        };
        let waits = match self.engines.alive(key) {
            None => return Poll::Ready(Fate::Gone),
            Some(carried) => match carried.engine.socket() {
                Some(socket) => !self.has_stream_room(socket, push.plain().len()),
                None => 0 < carried.engine.waiting().0,
            },
        };
        if !waits {
            let fate = self.push_engine(connection, (push, None), &mut Frames::default());
            return Poll::Ready(fate);
        }
        if let Some(Upper::SocketIo(socketio)) =
            self.engines.alive(key).map(|carried| &carried.upper)
        {
            for session in socketio.sessions() {
                if session.client.key() == connection {
                    session.handle_stream_waiting(waker);
                }
            }
        }
        Poll::Pending
    }

    /// There is room again for streams of a session.
    pub(crate) fn wake_engine_streams(&mut self, key: SlotKey) {
        if let Some(Upper::SocketIo(socketio)) =
            self.engines.alive(key).map(|carried| &carried.upper)
        {
            socketio
                .sessions()
                .for_each(|session| session.wake_streams());
        }
    }

    /// The server ends a namespace of a session: the client is told, its hooks run.
    pub(crate) fn kick_engine(&mut self, connection: ConnKey) {
        let key = SlotKey {
            slot: connection.slot,
            generation: connection.generation,
        };
        let kicked = match self.engines.alive(key).map(|carried| &mut carried.upper) {
            Some(Upper::SocketIo(socketio)) => {
                let name = socketio.name_of(connection.lane).cloned();
                name.zip(socketio.handle_kick(connection.lane))
            }
            _ => None,
        };
        if let Some((name, session)) = kicked {
            session.client.note_reason(LeftBy::ServerLeft);
            self.say_engine(key, |out| socketio::put_disconnect(out, &name));
            self.ended.push_back(session);
        }
    }

    /// The number that a connection has in its registry.
    pub(crate) fn engine_conn_id(&mut self, connection: ConnKey) -> Option<crate::id::ConnId> {
        let key = SlotKey {
            slot: connection.slot,
            generation: connection.generation,
        };
        match &self.engines.alive(key)?.upper {
            Upper::SocketIo(socketio) => {
                let mut sessions = socketio.sessions();
                let session = sessions.find(|session| session.client.key() == connection)?;
                Some(session.client.id())
            }
            _ => None,
        }
    }
}
