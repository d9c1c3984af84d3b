//! One connection: its socket, its decoder, its outbox, its deadlines. Knows nothing of other
//! connections or of what its messages mean.
//!
//! Invariant: a slot is given to a new connection only when no operation of the old one is in
//! flight, and then with a new generation.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::auth::Caller;
use crate::broker::relay::LeaveReason;
use crate::config::Limits;
use crate::id::Tenant;
use crate::proto::ws::Decoder;
use crate::session::Session;

use crate::shard::kernel::departed::{Departed, departed};
use crate::shard::kernel::ring::{GENERATION_BITS, SlotKey};
use crate::shard::socket::machine::Machine;
use crate::shard::socket::outbox::Outbox;
use crate::shard::socket::rates::Meter;
use crate::shard::socket::tickets::Ticket;
use crate::shard::socket::transport::Transport;

pub(crate) struct Connection {
    pub(crate) fd: OwnedFd,
    pub(crate) generation: u32,
    pub(crate) machine: Machine,
    /// It stands in the list of those that have output of their own.
    pub(crate) dirty: bool,
    /// It stands in the list of those that were given what others get too.
    pub(crate) given: bool,
    /// It is counted as one of its tenant's.
    pub(crate) enrolled: bool,
    /// Frames in a row that were no valid message.
    pub(crate) invalid_frames: u16,
    /// Tokens that it offered since the last good one and that were refused.
    pub(crate) refused_tokens: u8,
    /// How long before its token has expired it is told, in tenths of a second; 0 when it has been.
    pub(crate) expiry_lead_tenths: u16,
    /// Its messages may be compressed, as was agreed on.
    pub(crate) inflates: bool,
    pub(crate) mount: u16,
    pub(crate) transport: Transport,
    pub(crate) decoder: Decoder,
    pub(crate) kept: Option<Box<Kept>>,
    pub(crate) outbox: Outbox,
    pub(crate) session: Session,
    pub(crate) caller: Option<Arc<Caller>>,
    /// When its token has expired, the leeway of clocks counted in, on the clock of the shard.
    pub(crate) expires_ms: u64,
    /// The tick of its one live entry in the wheel.
    pub(crate) tick: u32,
    /// Why its topics are told that it left.
    pub(crate) leave_reason: LeaveReason,
    /// Only behind a proxy, or where a limit of rates, addresses or tenants is set.
    pub(crate) guard: Option<Box<Guard>>,
}

/// What only some connections have: their part of limits that are off by default, and an address
/// that was told.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    pub(crate) meter: Option<Box<Meter>>,
    pub(crate) address: Option<Ticket<IpAddr>>,
    /// Where it comes from, if a proxy brought it.
    pub(crate) client: Option<SocketAddr>,
    pub(crate) tenant: Option<Ticket<Tenant>>,
    /// When its last message came.
    pub(crate) active_ms: u64,
}

/// Who came by a proxy, and its place among those of its address where they are counted.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) client: SocketAddr,
    pub(crate) ticket: Option<Ticket<IpAddr>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}

/// What came and found no share of a turn yet: it is decoded before anything that comes later.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// With room behind them for a parser that looks past the end.
    pub(crate) bytes: Vec<u8>,
    /// How many of them have been decoded.
    pub(crate) at: usize,
    /// It stands in the list of those whose turn has come.
    pub(crate) is_due: bool,
    /// The peer has ended its side behind them.
    pub(crate) ended: bool,
}

impl Kept {
    /// How many bytes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.bytes.len() - self.at
    }
}

impl Connection {
    fn new(fd: OwnedFd, generation: u32, now_ms: u64) -> Self {
        Self {
            fd,
            generation,
            machine: Machine::new(now_ms),
            dirty: false,
            given: false,
            enrolled: false,
            invalid_frames: 0,
            refused_tokens: 0,
            expiry_lead_tenths: 0,
            inflates: false,
            mount: 0,
            transport: Transport::default(),
            decoder: Decoder::default(),
            kept: None,
            outbox: Outbox::default(),
            session: Session::default(),
            caller: None,
            expires_ms: 0,
            tick: 0,
            leave_reason: LeaveReason::Closed,
            guard: None,
        }
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Where it comes from: what a trusted proxy told, else what the kernel tells.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        let told = self.guard.as_ref().and_then(|guard| guard.client);
        told.or_else(|| peer_of(&self.fd))
    }

    /// Takes the address and the place that it has by a proxy.
    pub(crate) fn arrive(&mut self, arrival: Arrival) {
        let guard = self.guard.get_or_insert_default();
        guard.client = Some(arrival.client);
        guard.address = arrival.ticket;
    }

    /// Keeps the ticket of its address for as long as the connection lives.
    pub(crate) fn hold(&mut self, ticket: Option<Ticket<IpAddr>>) {
        if ticket.is_some() {
            self.guard.get_or_insert_default().address = ticket;
        }
    }

    /// Sets up what the limits of its mount ask for; nothing in the default ones.
    pub(crate) fn guard_with(
        &mut self,
        limits: &Limits,
        tenant: Option<Ticket<Tenant>>,
        now_ms: u64,
    ) {
        let meter = Meter::for_limits(limits);
        let asked = meter.is_some() || tenant.is_some() || 0 < limits.idle_ms_max;
        if asked || self.guard.is_some() {
            let guard = self.guard.get_or_insert_default();
            guard.meter = meter;
            guard.tenant = tenant;
            guard.active_ms = now_ms;
        }
    }

    /// Keeps to other limits from here on.
    pub(crate) fn renew_guard(&mut self, limits: &Limits, now_ms: u64) {
        let fresh = Meter::for_limits(limits);
        if fresh.is_none() && limits.idle_ms_max == 0 && self.guard.is_none() {
            return;
        }
        let guard = self.guard.get_or_insert_default();
        guard.meter = fresh.map(|fresh| guard.meter.take().unwrap_or(fresh));
        if guard.active_ms == 0 {
            guard.active_ms = now_ms;
        }
    }

    /// Since when it has sent no message, if it has no subscription either.
    pub(crate) fn idle_since_ms(&self) -> Option<u64> {
        let guard = self.guard.as_ref()?;
        (!self.session.speaker().is_subscribed()).then_some(guard.active_ms)
    }

    /// Whether frames may still be queued for the peer.
    pub(crate) fn takes_frames(&self) -> bool {
        self.machine.takes_frames()
    }

    /// Whether nothing waits for the peer, for a handler or for a turn.
    pub(crate) fn is_idle(&self) -> bool {
        let waits = self.session.speaker().is_behind() || self.kept.is_some();
        !waits && self.outbox.is_empty() && !self.machine.is_sending()
    }

    /// What the kernel says of the bytes that it was given, and what still waits for it.
    pub(crate) fn departed(&self) -> Option<Departed> {
        let departed = departed(&self.fd)?;
        let own = self.outbox.bytes() as u64 + u64::from(self.machine.is_sending());
        Some(Departed {
            waiting: departed.waiting + own,
            ..departed
        })
    }
}

/// Where the peer of a socket is.
pub(crate) fn peer_of(fd: &OwnedFd) -> Option<SocketAddr> {
    let peer = rustix::net::getpeername(fd).ok().flatten()?;
    SocketAddr::try_from(peer).ok()
}

/// The connections of a shard, in chunks that never move: a growing vector would copy them, and
/// hold twice their memory while it does. A chunk that has emptied is given back.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    chunks: Vec<Chunk>,
    /// Chunks with a free slot. The lowest is filled first, so that the others empty.
    vacant: BTreeSet<u32>,
    /// Empty chunks that have memory.
    spare: u32,
    count: usize,
    generation: u32,
}

#[derive(Debug)]
struct Chunk {
    /// Nothing while it is given back.
    slots: Option<Box<[Option<Connection>]>>,
    /// A bit for each slot, set while it is free.
    free: u64,
}

/// Slots are made so many at a time.
const CHUNK_SLOTS: u32 = u64::BITS;
/// So many empty chunks are kept, so that one that comes and goes at an edge costs nothing.
const SPARE_CHUNKS: u32 = 1;

// An idle connection is little more than this; a field that is added here is paid for by each.
const _: () = assert!(size_of::<Connection>() <= 248);

impl Chunk {
    fn is_empty(&self) -> bool {
        self.free == u64::MAX
    }
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn insert(&mut self, fd: OwnedFd, now_ms: u64) -> SlotKey {
        self.generation = (self.generation + 1) & ((1 << GENERATION_BITS) - 1);
        let generation = self.generation;
        let connection = Connection::new(fd, generation, now_ms);
        let slot = self.fill(connection);
        self.count += 1;
        SlotKey { slot, generation }
    }

    /// Puts a connection into the first free slot.
    fn fill(&mut self, connection: Connection) -> u32 {
        let index = self.vacant.first().copied().unwrap_or_else(|| self.grow());
        let chunk = &mut self.chunks[index as usize];
        if chunk.is_empty() && chunk.slots.is_some() {
            self.spare -= 1;
        }
        let place = chunk.free.trailing_zeros();
        chunk.free &= !(1 << place);
        if chunk.free == 0 {
            self.vacant.remove(&index);
        }
        let make = || (0..CHUNK_SLOTS).map(|_| None).collect();
        let slots = chunk.slots.get_or_insert_with(make);
        let before = slots[place as usize].replace(connection);
        debug_assert!(before.is_none(), "a free slot holds no connection");
        index * CHUNK_SLOTS + place
    }

    fn grow(&mut self) -> u32 {
        let index = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
        self.chunks.push(Chunk {
            slots: None,
            free: u64::MAX,
        });
        self.vacant.insert(index);
        index
    }

    /// The place of a slot; a number from outside may name none.
    fn slot(&mut self, slot: u32) -> Option<&mut Option<Connection>> {
        let chunk = self.chunks.get_mut((slot / CHUNK_SLOTS) as usize)?;
        let slots = chunk.slots.as_deref_mut()?;
        slots.get_mut((slot % CHUNK_SLOTS) as usize)
    }

    /// The connection, which may be gone: its slot is free, or another's.
    pub(crate) fn alive(&mut self, key: SlotKey) -> Option<&mut Connection> {
        let connection = self.slot(key.slot)?.as_mut()?;
        (connection.generation == key.generation).then_some(connection)
    }

    /// A connection that the caller has just looked at in the same move, so that it cannot be gone.
    ///
    /// # Panics
    /// When it is gone all the same.
    #[expect(
        clippy::expect_used,
        reason = "only removing takes it out of its slot, and nobody has in this move"
    )]
    pub(crate) fn must(&mut self, key: SlotKey) -> &mut Connection {
        self.alive(key).expect("it was there in this very move")
    }

    pub(crate) fn remove(&mut self, key: SlotKey) -> Option<Connection> {
        self.alive(key)?;
        let removed = self.slot(key.slot)?.take();
        self.count -= 1;
        let index = key.slot / CHUNK_SLOTS;
        self.vacant.insert(index);
        let chunk = &mut self.chunks[index as usize];
        chunk.free |= 1 << (key.slot % CHUNK_SLOTS);
        if chunk.is_empty() {
            match self.spare < SPARE_CHUNKS {
                true => self.spare += 1,
                false => chunk.slots = None,
            }
        }
        removed
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// How many slots there are, free ones too.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.chunks.len()).unwrap_or(u32::MAX) * CHUNK_SLOTS
    }

    /// The connection in a slot, if there is one.
    pub(crate) fn key_at(&mut self, slot: u32) -> Option<SlotKey> {
        let generation = self.slot(slot)?.as_ref()?.generation;
        Some(SlotKey { slot, generation })
    }

    /// All of them by slot, for the rare calls that look at many.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotKey, &Connection)> {
        let chunks = (0..).step_by(CHUNK_SLOTS as usize).zip(&self.chunks);
        let slots = chunks.flat_map(|(first, chunk)| (first..).zip(chunk.slots.iter().flatten()));
        slots.filter_map(|(slot, connection)| {
            let connection = connection.as_ref()?;
            let generation = connection.generation;
            Some((SlotKey { slot, generation }, connection))
        })
    }

    /// The keys of all, for the rare calls that change every one.
    pub(crate) fn keys(&self) -> Vec<SlotKey> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn chunks(all: &Connections) -> usize {
        all.chunks.iter().filter(|it| it.slots.is_some()).count()
    }

    #[test]
    fn slots_are_used_again_under_another_generation() {
        let mut all = Connections::new();
        let first = all.insert(fd(), 1);
        assert!(all.remove(first).is_some() && all.remove(first).is_none());
        let second = all.insert(fd(), 1);
        assert_eq!(first.slot, second.slot);
        assert!(all.alive(first).is_none() && all.alive(second).is_some());
        assert_eq!((all.key_at(0), all.key_at(1)), (Some(second), None));
    }

    /// C11: what a peak took is given back
    #[test]
    fn empty_chunks_are_given_back() {
        let mut all = Connections::new();
        let keys: Vec<SlotKey> = (0..640).map(|_| all.insert(fd(), 1)).collect();
        assert_eq!((chunks(&all), all.len()), (10, 640));
        let (few, rest) = keys.split_at(10);
        rest.iter().for_each(|key| drop(all.remove(*key)));
        assert_eq!((chunks(&all), all.len()), (2, 10));
        assert_eq!(all.keys(), few);
        // Whoever comes next fills what is there.
        for _ in 0..54 {
            all.insert(fd(), 1);
        }
        assert_eq!(chunks(&all), 2);
        all.insert(fd(), 1);
        assert_eq!((chunks(&all), all.len()), (2, 65));
        all.keys().into_iter().for_each(|key| drop(all.remove(key)));
        assert_eq!((chunks(&all), all.len()), (1, 0));
    }
}
