//! Where a shard asks which dialect a connection speaks, and nowhere else: its beginning, what came, room
//! for more and its end go from here to the file of the dialect. Knows dialects by name, not what
//! their messages mean.
//!
//! A new dialect has an arm in each of these functions, a file beside this one, one in `session/` and one
//! in `proto/`; what is asked of a session alone is `session::Speaker`.

use std::rc::Rc;

use crate::broker::relay::LeaveReason;
use crate::gateway::engine::inbox::Inbox;
use crate::gateway::socket::Message as RawMessage;
use crate::proto::ErrorCode;
use crate::proto::frame::{self, Opcode};
use crate::proto::json::JsonParser;
use crate::proto::relay::About;
use crate::proto::ws::{Message, Payload};
use crate::session::Session;
use crate::session::event::EventSession;

use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::connection::Connection;
use crate::shard::socket::machine::Phase;
use crate::shard::socket::rates::Counted;
use crate::shard::speak::raw::text_of;
use crate::shard::state::State;
use crate::shard::state::admitted::Admitted;
use crate::shard::state::engines::engine_key;
use crate::shard::state::shard::Shard;
use crate::shard::state::shared::Dialect;

/// What a close frame without a code is counted as (RFC 6455 section 7.4.1).
const NO_CODE: u16 = 1_005;

/// Who takes a text or binary message.
enum Taker {
    /// User code of a gateway, for which nothing may be borrowed.
    Event(Rc<EventSession>),
    /// A session that may be carried by more than this connection.
    Engine(SlotKey),
    /// What needs the state alone.
    State,
}

impl Taker {
    fn of(connection: &Connection, message: &Message<'_>) -> Self {
        if !matches!(message, Message::Text(_) | Message::Binary(_)) {
            return Self::State;
        }
        match &connection.session {
            // What stands behind a refusal in the same segment must not run.
            Session::Event(session) if connection.takes_frames() => Self::Event(Rc::clone(session)),
            session => engine_key(session).map_or(Self::State, Self::Engine),
        }
    }
}

impl Shard {
    /// A whole message has come.
    pub(crate) fn on_message(
        self: &Rc<Self>,
        key: SlotKey,
        message: Message<'_>,
        json: &mut JsonParser,
    ) {
        let (counted, taker) = {
            let mut state = self.state.borrow_mut();
            let Some(connection) = state.connections.alive(key) else {
                return;
            };
            let (taker, is_measured) =
                (Taker::of(connection, &message), connection.guard.is_some());
            let counted = state.note_message(key, &message, is_measured);
            if let Taker::State = taker {
                return state.on_message(key, message, counted, json);
            }
            (counted, taker)
        };
        match (counted, taker) {
            (Counted::Closed, _) | (_, Taker::State) => {}
            (_, Taker::Engine(carried)) => {
                self.engine_message((key, carried), message, counted, json);
            }
            (Counted::TooFast, Taker::Event(_)) => self.refuse_event(key, message, json),
            (Counted::Within, Taker::Event(session)) => {
                self.event_message(key, &session, message, json);
            }
        }
    }

    /// A request was admitted: the session of its mount begins. Where user code is asked first it
    /// begins when the state is not borrowed any more.
    pub(crate) fn on_open(
        self: &Rc<Self>,
        state: &mut State,
        key: SlotKey,
        admitted: &Admitted,
    ) -> Option<Session> {
        let mount = &self.shared.mounts[usize::from(admitted.mount)];
        match mount.dialect {
            Dialect::Relay => state.open_relay(admitted),
            Dialect::Durable => state.open_durable(admitted),
            Dialect::Event(_) | Dialect::SocketIo(_) => None,
            Dialect::Raw(_) if mount.engine => None,
            Dialect::Raw(_) => state.open_raw(key, admitted, Rc::<Self>::clone(self)),
        }
    }
}

impl State {
    /// The inbox of a raw handler, where messages may go there without a look at anything else.
    pub(crate) fn inbox_of(&mut self, key: SlotKey) -> Option<Rc<Inbox>> {
        let connection = self.connections.alive(key)?;
        match &connection.session {
            Session::Raw(session) if connection.guard.is_none() => Some(Rc::clone(&session.inbox)),
            _ => None,
        }
    }

    /// A message has come for which no user code is run.
    fn on_message(
        &mut self,
        key: SlotKey,
        message: Message<'_>,
        counted: Counted,
        json: &mut JsonParser,
    ) {
        match counted {
            Counted::Within => {}
            Counted::TooFast => return self.refuse_too_fast(key, &message, json),
            Counted::Closed => return,
        }
        match message {
            Message::Ping(payload) => self.queue_frame(key, Opcode::Pong, payload),
            Message::Pong(payload) => self.on_pong(key, payload),
            Message::Close(close) => {
                let (code, answer) = match close {
                    Some((code, _)) => (code, frame::close(code, "")),
                    None => (NO_CODE, frame::close_without_code()),
                };
                let is_first = |it: &mut Connection| matches!(it.machine.phase(), Phase::Open);
                if self.connections.alive(key).is_some_and(is_first) {
                    self.metrics.closed(code);
                }
                self.close_with_frame(key, &answer, true, LeaveReason::Closed);
            }
            Message::Text(payload) => self.on_text(key, payload, json),
            Message::Binary(payload) => self.on_binary(key, &payload),
        }
    }

    fn on_text(&mut self, key: SlotKey, payload: Payload<'_>, json: &mut JsonParser) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        match &connection.session {
            Session::Raw(session) => {
                let has_room = session.handle(RawMessage::Text(text_of(&payload)));
                self.note_inbox(key, has_room);
            }
            Session::Relay(_) => self.relay_text(key, payload, json),
            Session::Durable(_) => self.durable_text(key, payload, json),
            Session::Event(_) | Session::Engine(_) | Session::None => {}
        }
    }

    fn on_binary(&mut self, key: SlotKey, payload: &[u8]) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        match &connection.session {
            Session::Raw(session) => {
                let has_room = session.handle(RawMessage::Binary(payload.to_vec()));
                self.note_inbox(key, has_room);
            }
            Session::Relay(_) | Session::Durable(_) => {
                let text = "invalid message: binary frames are not supported";
                self.count_invalid(key, About::default(), text);
            }
            Session::Event(_) | Session::Engine(_) | Session::None => {}
        }
    }

    /// The empty ones answer our own pings.
    fn on_pong(&mut self, key: SlotKey, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        if let Session::Raw(session) = &connection.session {
            let has_room = session.handle(RawMessage::Pong(payload.to_vec()));
            self.note_inbox(key, has_room);
        }
    }

    /// The peer has taken what was sent: whoever waited for room goes on.
    pub(crate) fn on_room(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        match &connection.session {
            Session::Raw(session) => session.inbox.wake_senders(),
            Session::Event(session) => session.wake_streams(),
            Session::Durable(_) => self.return_credit(key),
            session @ Session::Engine(_) => {
                if let Some(carried) = engine_key(session) {
                    self.wake_engine_streams(carried);
                }
            }
            Session::Relay(_) | Session::None => {}
        }
    }

    /// The connection has gone.
    pub(crate) fn on_end(&mut self, key: SlotKey, session: Session, leave: LeaveReason) {
        match session {
            Session::None => {}
            Session::Raw(session) => session.inbox.close(),
            Session::Event(session) => self.end_event(session, leave),
            session @ Session::Engine(_) => {
                if let Some(carried) = engine_key(&session) {
                    self.engine_socket_gone(carried, key, leave);
                }
            }
            Session::Relay(session) => self.leave_all(key, *session, leave),
            Session::Durable(session) => self.leave_homes(key, &session),
        }
    }

    /// The server stops.
    pub(crate) fn on_restart(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        match &connection.session {
            Session::Durable(_) => self.drain_durable(key),
            Session::Raw(_)
            | Session::Event(_)
            | Session::Engine(_)
            | Session::Relay(_)
            | Session::None => self.close_for_restart(key),
        }
    }

    /// A request of a dialect with error frames of its own is refused.
    pub(crate) fn on_refusal(
        &mut self,
        key: SlotKey,
        about: About<'_>,
        text: &str,
        code: ErrorCode,
    ) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        match &connection.session {
            Session::Durable(_) => self.refuse_durable(key, about, text, code),
            Session::Relay(_) => {
                self.refuse_relay(key, about.topic.unwrap_or(""), text, code);
            }
            Session::Raw(_) | Session::Event(_) | Session::Engine(_) | Session::None => {}
        }
    }
}
