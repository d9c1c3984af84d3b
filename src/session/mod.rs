//! What a message means on its mount: one file per dialect, one closed enum. Knows `proto`,
//! `broker` and `gateway`; decides, and leaves sockets and queues to the shard.

pub(crate) mod durable;
pub(crate) mod engineio;
pub(crate) mod event;
pub(crate) mod raw;
pub(crate) mod relay;
pub(crate) mod socketio;

use std::rc::Rc;

use crate::config::Limits;
use crate::id::ConnId;

/// The state that one connection has in its dialect. Which one it is is asked here and in
/// `shard/speak/dialect.rs`, and nowhere else.
#[derive(Debug, Default)]
pub(crate) enum Session {
    /// The upgrade has not happened yet, or the end has.
    #[default]
    None,
    /// A handler owns the socket.
    Raw(raw::RawSession),
    /// Topics on disk.
    Durable(Box<durable::DurableSession>),
    /// Events for the handlers of a gateway.
    Event(Rc<event::EventSession>),
    /// A session of Engine.IO, which this socket carries or wants to.
    Engine(engineio::EngineSocket),
    /// Topics by name.
    Relay(Box<relay::RelaySession>),
}

/// What a shard asks a session, whatever its dialect. What most of them answer stands here; a dialect
/// says in its own file where it differs.
pub(crate) trait Speaker {
    /// Whether it asked for frames beyond the seeds, such as `token_expiring`.
    fn negotiated(&self) -> bool {
        false
    }

    /// Whether it waits for what others send, and so may be silent for as long as it likes.
    fn is_subscribed(&self) -> bool {
        false
    }

    /// Whether its handler has not taken all that came.
    fn is_behind(&self) -> bool {
        false
    }

    /// The peer has ended its side: whether what it sent before may still be answered.
    fn handle_peer_end(&self) -> bool {
        false
    }

    /// Bytes that wait for its handler.
    fn waiting_bytes(&self) -> usize {
        0
    }

    /// The number by which its subscribers and its gateway know it.
    fn conn_id(&self) -> Option<ConnId> {
        None
    }

    /// Whether the parser of its messages checks their text, so that the decoder need not.
    fn checks_text(&self) -> bool {
        false
    }

    /// Whether its protocol has pings of its own, and needs none of the WebSocket's.
    fn has_own_pings(&self) -> bool {
        false
    }

    /// Whether it can be told that a message was refused; if not, it is closed.
    fn has_error_frames(&self) -> bool {
        true
    }

    /// Keeps to these limits from here on.
    fn renew_limits(&self, _limits: &Limits) {}
}

/// Before the upgrade, and after the end.
struct Nobody;

impl Speaker for Nobody {}

impl Session {
    /// The session, whatever its dialect.
    pub(crate) fn speaker(&self) -> &dyn Speaker {
        match self {
            Self::None => &Nobody,
            Self::Raw(session) => session,
            Self::Durable(session) => &**session,
            Self::Event(session) => &**session,
            Self::Engine(socket) => socket,
            Self::Relay(session) => &**session,
        }
    }

    pub(crate) fn durable(&mut self) -> Option<&mut durable::DurableSession> {
        match self {
            Self::Durable(session) => Some(session),
            _ => None,
        }
    }

    pub(crate) fn engine(&self) -> Option<engineio::EngineSocket> {
        match self {
            Self::Engine(socket) => Some(*socket),
            _ => None,
        }
    }

    pub(crate) fn event(&self) -> Option<&Rc<event::EventSession>> {
        match self {
            Self::Event(session) => Some(session),
            _ => None,
        }
    }

    pub(crate) fn relay(&mut self) -> Option<&mut relay::RelaySession> {
        match self {
            Self::Relay(session) => Some(session),
            _ => None,
        }
    }
}

impl From<raw::RawSession> for Session {
    fn from(session: raw::RawSession) -> Self {
        Self::Raw(session)
    }
}

impl From<durable::DurableSession> for Session {
    fn from(session: durable::DurableSession) -> Self {
        Self::Durable(Box::new(session))
    }
}

impl From<Rc<event::EventSession>> for Session {
    fn from(session: Rc<event::EventSession>) -> Self {
        Self::Event(session)
    }
}

impl From<engineio::EngineSocket> for Session {
    fn from(socket: engineio::EngineSocket) -> Self {
        Self::Engine(socket)
    }
}

impl From<relay::RelaySession> for Session {
    fn from(session: relay::RelaySession) -> Self {
        Self::Relay(Box::new(session))
    }
}
