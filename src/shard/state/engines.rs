//! The sessions of Engine.IO of a shard: whatever carries them, they are reached by one key, which is no
//! slot of a connection. Knows places and who waits; not what is decided.
//!
//! Full: of sessions that began by polling and have joined nothing, who came first goes, as with sockets
//! whose head is to come; all that poll are at most as many as there may be connections (`polling.rs`).

use std::net::IpAddr;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use slab::Slab;
use tokio::sync::oneshot;

use crate::auth::Caller;
use crate::gateway::client::Handshake;
use crate::proto::engineio::{Refusal, Sid};
use crate::session::Session;
use crate::session::engineio::{Engine, EngineSocket, PollId};
use crate::session::raw::RawSession;
use crate::session::socketio::SocketIo;

use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::half_open::HalfOpen;
use crate::shard::state::asks::Asks;

/// What a request asks of the shard that its session is on.
#[derive(Debug)]
pub(crate) struct EngineAsk {
    pub(crate) mount: u16,
    pub(crate) sid: Sid,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    Poll(PollId, Waiting),
    /// Whoever polled has gone.
    PollGone(PollId),
    /// A body is on its way; a second one meanwhile ends the session.
    PostBegin,
    /// It did not come.
    PostGone,
    Post(Bytes, Waiting),
}

/// What a request of polling is answered.
#[derive(Debug)]
pub(crate) enum Polled {
    /// Packets.
    Body(Vec<u8>),
    /// A new session: its open packet and its name.
    Opened(Vec<u8>, String),
    /// What it brought was taken.
    Taken,
    /// An error of the protocol.
    Refused(Refusal),
    /// Another refusal: status and text.
    Problem(u16, String),
}

/// Where a request waits for its answer.
pub(crate) type Waiting = oneshot::Sender<Polled>;

/// Who takes the messages of a session.
#[derive(Debug)]
pub(crate) enum Upper {
    /// Whoever took them has gone.
    None,
    Raw(RawSession),
    SocketIo(SocketIo),
}

/// One session and what it needs to be carried out.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) engine: Engine<SlotKey>,
    pub(crate) upper: Upper,
    pub(crate) mount: u16,
    generation: u32,
    /// The entry in the wheel that counts.
    pub(crate) tick: u64,
    /// When it must have joined a namespace; 0 when it has.
    pub(crate) connect_by_ms: u64,
    /// When the bytes that a packet announced must be there; 0 when none is awaited.
    pub(crate) complete_by_ms: u64,
    /// It stands among those that began by polling and have joined nothing.
    is_unjoined: bool,
    /// When the first token that it showed expires; 0 is never.
    pub(crate) expires_ms: u64,
    pub(crate) is_dirty: bool,
    /// The message that is being handled came faster than the rates of the mount allow.
    pub(crate) is_too_fast: bool,
    pub(crate) caller: Arc<Caller>,
    /// Whether the caller showed a token with the first request.
    pub(crate) has_token: bool,
    pub(crate) handshake: Arc<Handshake>,
}

/// The sessions of a shard.
#[derive(Debug, Default)]
pub(crate) struct Engines {
    pub(crate) slots: Slab<Carried>,
    generation: u32,
    polls: AHashMap<PollId, Waiting>,
    /// Sessions with something for a request that may wait.
    pub(crate) dirty: Vec<SlotKey>,
    pub(crate) asks: Asks,
    /// How many of the sessions are carried by a socket.
    pub(crate) over_sockets: usize,
    /// Those that began by polling and have joined nothing yet.
    pub(crate) unjoined: HalfOpen,
}

/// Slots of sessions are told from slots of connections by this bit.
pub(crate) const ENGINE_BIT: u32 = 1 << 31;

/// Whether a key is that of a session of Engine.IO.
pub(crate) fn is_engine(key: SlotKey) -> bool {
    key.slot & ENGINE_BIT != 0
}

/// The key of a session as a connection keeps it.
pub(crate) fn engine_key(session: &Session) -> Option<SlotKey> {
    let socket = session.engine()?;
    Some(SlotKey {
        slot: socket.slot,
        generation: socket.generation,
    })
}

/// A connection that carries a session, or wants to.
pub(crate) fn carrying(key: SlotKey) -> Session {
    let SlotKey { slot, generation } = key;
    EngineSocket { slot, generation }.into()
}

impl Engines {
    /// Where the next session will be.
    pub(crate) fn next_place(&self) -> u32 {
        u32::try_from(self.slots.vacant_key()).unwrap_or(0)
    }

    pub(crate) fn insert(&mut self, new: New, engine: Engine<SlotKey>) -> SlotKey {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        self.over_sockets += usize::from(engine.socket().is_some());
        let slot = self.slots.insert(Carried {
            engine,
            upper: new.upper,
            mount: new.mount,
            generation,
            tick: 0,
            connect_by_ms: new.connect_by_ms,
            complete_by_ms: 0,
            is_unjoined: false,
            expires_ms: new.expires_ms,
            is_too_fast: false,
            is_dirty: false,
            caller: new.caller,
            has_token: new.has_token,
            handshake: new.handshake,
        });
        SlotKey {
            slot: u32::try_from(slot).unwrap_or(0) | ENGINE_BIT,
            generation,
        }
    }

    /// The session, which may be over.
    pub(crate) fn alive(&mut self, key: SlotKey) -> Option<&mut Carried> {
        let carried = self.slots.get_mut((key.slot & !ENGINE_BIT) as usize)?;
        (is_engine(key) && carried.generation == key.generation).then_some(carried)
    }

    /// The session of this name, whole.
    pub(crate) fn find(&self, sid: &Sid) -> Option<SlotKey> {
        let carried = self.slots.get(sid.place() as usize)?;
        let is_it = carried.engine.sid().is_some_and(|own| own == sid);
        is_it.then_some(SlotKey {
            slot: sid.place() | ENGINE_BIT,
            generation: carried.generation,
        })
    }

    /// How many there are that requests carry.
    pub(crate) fn polling(&self) -> usize {
        self.slots.len().saturating_sub(self.over_sockets)
    }

    /// A session that began by polling must join a namespace; until then it counts for `address`.
    pub(crate) fn note_unjoined(&mut self, key: SlotKey, address: Option<IpAddr>, now_ms: u64) {
        if let Some(carried) = self.alive(key) {
            carried.is_unjoined = true;
            self.unjoined.insert(key, address, now_ms);
        }
    }

    /// It has joined one, or is over.
    pub(crate) fn note_joined(&mut self, key: SlotKey) {
        let carried = self.alive(key);
        if carried.is_some_and(|carried| std::mem::take(&mut carried.is_unjoined)) {
            self.unjoined.remove(key);
        }
    }

    /// Forgets a session that is over.
    pub(crate) fn remove(&mut self, key: SlotKey) {
        self.note_joined(key);
        self.slots.remove((key.slot & !ENGINE_BIT) as usize);
        self.asks.forget(key);
    }

    /// The keys of all.
    pub(crate) fn keys(&self) -> Vec<SlotKey> {
        let key = |(slot, carried): (usize, &Carried)| SlotKey {
            slot: u32::try_from(slot).unwrap_or(0) | ENGINE_BIT,
            generation: carried.generation,
        };
        self.slots.iter().map(key).collect()
    }

    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(crate) fn await_answer(&mut self, poll: PollId, waiting: Waiting) {
        self.polls.insert(poll, waiting);
    }

    pub(crate) fn answer(&mut self, poll: PollId, polled: Polled) {
        if let Some(waiting) = self.polls.remove(&poll) {
            // Whoever asked may have gone.
            waiting.send(polled).ok();
        }
    }
}

/// What a new session is made of.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) upper: Upper,
    pub(crate) mount: u16,
    pub(crate) connect_by_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) caller: Arc<Caller>,
    pub(crate) has_token: bool,
    pub(crate) handshake: Arc<Handshake>,
}
