//! One connection of Socket.IO: which namespaces it is in, and a packet whose bytes are still to come.
//! Decides what a packet means here; knows no socket, and of a namespace only its handlers' session.
//!
//! Bound: `namespaces_per_connection_max`, `attachments_max`; the attachments of one packet together
//! have at most `message_bytes_max`; the caller sees to `message_complete_ms_max`.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::proto::socketio::{self, Kind, Packet};
use crate::session::event::EventSession;

/// The namespaces of a mount, each with the number of its gateway.
pub(crate) type Namespaces = [(Arc<str>, usize)];

/// The bounds of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketIoLimits {
    pub(crate) attachments_max: usize,
    pub(crate) namespaces_max: usize,
    pub(crate) message_bytes_max: usize,
}

/// One connection.
#[derive(Debug, Default)]
pub(crate) struct SocketIo {
    /// By lane, from 1.
    namespaces: SmallVec<[Namespace; 1]>,
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Namespace {
    name: Arc<str>,
    state: Joined,
}

#[derive(Debug)]
enum Joined {
    /// Its guards have not answered yet.
    Asked,
    Open(Rc<EventSession>),
    /// It was left; the lane is used again by the next connect.
    Left,
    /// The server ended it: what the client had sent before it heard of that is dropped.
    Kicked,
}

/// A packet whose bytes are still to come.
#[derive(Debug)]
struct Partial {
    text: Box<[u8]>,
    wanted: usize,
    attachments: Vec<Bytes>,
    bytes: usize,
}

/// What a packet means.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// It wants to join the namespace of this lane and gateway.
    Connect {
        lane: u8,
        gateway: usize,
        payload: &'a [u8],
    },
    /// It may not join.
    Refuse { nsp: &'a str, message: &'static str },
    /// An event or an answer for the handlers of a namespace.
    Packet {
        nsp: Arc<str>,
        session: Rc<EventSession>,
        packet: Packet<'a>,
    },
    /// It leaves a namespace.
    Leave(Rc<EventSession>),
    /// Nothing is to be done.
    Nothing,
    /// It broke the rules: the transport is closed.
    Malformed,
}

/// The text of a packet with its attachments.
type Whole = (Box<[u8]>, Vec<Bytes>);

impl SocketIo {
    /// A text has come.
    pub(crate) fn handle_text<'a>(
        &mut self,
        text: &'a [u8],
        mounted: &Namespaces,
        limits: &SocketIoLimits,
    ) -> Step<'a> {
        let packet = match Packet::parse(text, limits.attachments_max) {
            Ok(packet) if self.partial.is_none() => packet,
            _ => return Step::Malformed,
        };
        if 0 < packet.attachments {
            self.partial = Some(Box::new(Partial {
                text: text.into(),
                wanted: packet.attachments,
                attachments: Vec::new(),
                bytes: 0,
            }));
            return Step::Nothing;
        }
        self.step(packet, mounted, limits)
    }

    /// Bytes have come: the packet that is whole with them, if it is.
    pub(crate) fn handle_binary(
        &mut self,
        bytes: Bytes,
        limits: &SocketIoLimits,
    ) -> Result<Option<Whole>, socketio::Malformed> {
        let partial = self.partial.as_mut().ok_or(socketio::Malformed)?;
        partial.bytes += bytes.len();
        partial.attachments.push(bytes);
        if limits.message_bytes_max < partial.bytes {
            return Err(socketio::Malformed);
        }
        if partial.attachments.len() < partial.wanted {
            return Ok(None);
        }
        let whole = self.partial.take();
        Ok(whole.map(|whole| (whole.text, whole.attachments)))
    }

    /// Whether bytes of a packet are still to come.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// A whole packet, its attachments aside.
    pub(crate) fn step<'a>(
        &mut self,
        packet: Packet<'a>,
        mounted: &Namespaces,
        limits: &SocketIoLimits,
    ) -> Step<'a> {
        let place = self.place_of(packet.nsp);
        if packet.kind == Kind::Connect {
            return match place.map(|place| &self.namespaces[place].state) {
                Some(Joined::Asked | Joined::Open(_)) => Step::Malformed,
                _ => self.connect(packet, mounted, limits),
            };
        }
        let Some(Namespace { name, state }) = place.map(|place| &self.namespaces[place]) else {
            return Step::Malformed;
        };
        let session = match state {
            Joined::Open(session) => Rc::clone(session),
            Joined::Kicked => return Step::Nothing,
            Joined::Asked | Joined::Left => return Step::Malformed,
        };
        match packet.kind {
            Kind::ConnectError | Kind::Connect => Step::Malformed,
            Kind::Disconnect if !packet.json.is_empty() => Step::Malformed,
            Kind::Disconnect => {
                if let Some(place) = place {
                    self.namespaces[place].state = Joined::Left;
                }
                Step::Leave(session)
            }
            _ => Step::Packet {
                nsp: Arc::clone(name),
                session,
                packet,
            },
        }
    }

    fn connect<'a>(
        &mut self,
        packet: Packet<'a>,
        mounted: &Namespaces,
        limits: &SocketIoLimits,
    ) -> Step<'a> {
        let known = mounted.iter().find(|(name, _)| **name == *packet.nsp);
        let Some((name, gateway)) = known else {
            return Step::Refuse {
                nsp: packet.nsp,
                message: "Invalid namespace",
            };
        };
        if limits.namespaces_max <= self.joined() {
            return Step::Refuse {
                nsp: packet.nsp,
                message: "too many namespaces",
            };
        }
        let place = match self.place_of(packet.nsp) {
            Some(place) => place,
            None => {
                self.namespaces.push(Namespace {
                    name: Arc::clone(name),
                    state: Joined::Left,
                });
                self.namespaces.len() - 1
            }
        };
        self.namespaces[place].state = Joined::Asked;
        Step::Connect {
            lane: u8::try_from(place + 1).unwrap_or(u8::MAX),
            gateway: *gateway,
            payload: packet.json,
        }
    }

    fn place_of(&self, nsp: &str) -> Option<usize> {
        self.namespaces.iter().position(|known| *known.name == *nsp)
    }

    fn lane(&mut self, lane: u8) -> Option<&mut Namespace> {
        self.namespaces.get_mut(usize::from(lane).checked_sub(1)?)
    }

    /// How many namespaces it is in, or asks to join.
    pub(crate) fn joined(&self) -> usize {
        let is_joined = |known: &&Namespace| matches!(known.state, Joined::Asked | Joined::Open(_));
        self.namespaces.iter().filter(is_joined).count()
    }

    /// The guards of a lane have let it in.
    pub(crate) fn handle_joined(&mut self, lane: u8, session: &Rc<EventSession>) {
        if let Some(namespace) = self.lane(lane) {
            namespace.state = Joined::Open(Rc::clone(session));
        }
    }

    /// They have not.
    pub(crate) fn handle_refused(&mut self, lane: u8) {
        if let Some(namespace) = self.lane(lane) {
            namespace.state = Joined::Left;
        }
    }

    /// The server ends a lane; its session, if it was open.
    pub(crate) fn handle_kick(&mut self, lane: u8) -> Option<Rc<EventSession>> {
        let namespace = self.lane(lane)?;
        match std::mem::replace(&mut namespace.state, Joined::Kicked) {
            Joined::Open(session) => Some(session),
            other => {
                namespace.state = other;
                None
            }
        }
    }

    /// The name of a lane that is open.
    pub(crate) fn name_of(&self, lane: u8) -> Option<&Arc<str>> {
        let namespace = self.namespaces.get(usize::from(lane).checked_sub(1)?)?;
        matches!(namespace.state, Joined::Open(_)).then_some(&namespace.name)
    }

    /// The sessions of all lanes that are open.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = &Rc<EventSession>> {
        self.namespaces
            .iter()
            .filter_map(|known| match &known.state {
                Joined::Open(session) => Some(session),
                _ => None,
            })
    }
}
