//! What a shard owns apart from its ring: connections, memberships, the relay topics whose home
//! it is, deadlines. Reached by the loop and, between two of its steps, by user code on the same
//! thread; so it is borrowed for short moves only, never across user code.

pub(crate) mod admitted;
pub(crate) mod asks;
pub(crate) mod command;
pub(crate) mod engines;
pub(crate) mod flush;
pub(crate) mod homes;
pub(crate) mod looks;
pub(crate) mod members;
pub(crate) mod memory;
pub(crate) mod posts;
pub(crate) mod roll;
pub(crate) mod shard;
pub(crate) mod shared;
pub(crate) mod spread;
pub(crate) mod who;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::auth::TokenCache;
use crate::broker::relay::{Call, Home, HomeLimits, LeaveReason};
use crate::config::Limits;
use crate::id::Partition;
use crate::metrics::{Counter, Refusal as RefusedFor, ShardMetrics};
use crate::proto::frame::{self, Opcode};
use crate::session::event::EventSession;

use crate::proto::CloseCode;
use crate::shard::commit::Recovered;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::post::mailbox::Mailboxes;
use crate::shard::socket::connection::{Connection, Connections};
use crate::shard::socket::half_open::HalfOpen;
use crate::shard::socket::machine::{AfterClose, Pause, Phase, Room};
use crate::shard::socket::outbox::Spare;
use crate::shard::socket::share::Share;
use crate::shard::socket::timer::Wheel;
use crate::shard::state::admitted::Opened;
use crate::shard::state::command::Command;
use crate::shard::state::engines::Engines;
use crate::shard::state::flush::Offer;
use crate::shard::state::homes::Homes;
use crate::shard::state::members::Members;
use crate::shard::state::posts::Posts;
use crate::shard::state::roll::Roll;
use crate::shard::state::shared::{Live, RelayWorld, Shared};
use crate::shard::state::spread::Drain;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: u16,
    pub(crate) shared: Arc<Shared>,
    pub(crate) live: Arc<Live>,
    pub(crate) connections: Connections,
    /// How many of them each tenant has.
    pub(crate) roll: Roll,
    pub(crate) spare: Spare,
    /// Connections that have output of their own, or whose end is due.
    pub(crate) dirty: VecDeque<SlotKey>,
    /// Connections that were given what others get too: who asked something goes before them.
    pub(crate) given: VecDeque<SlotKey>,
    /// Sends that are to be submitted.
    pub(crate) offers: Vec<Offer>,
    /// Connections with bytes that found no share of a turn, whose turn has come.
    pub(crate) kept: VecDeque<SlotKey>,
    /// Connections whose receive is to be armed or cancelled.
    pub(crate) wishes: Vec<SlotKey>,
    /// Sessions of Engine.IO.
    pub(crate) engines: Engines,
    pub(crate) members: Members,
    pub(crate) home: Option<Home>,
    pub(crate) homes: Homes,
    /// Runs of relay handlers that are due.
    pub(crate) calls: VecDeque<Call>,
    pub(crate) posts: Posts,
    pub(crate) wheel: Wheel,
    pub(crate) tokens: TokenCache,
    pub(crate) metrics: Arc<ShardMetrics>,
    /// Connections whose request head is still being read.
    pub(crate) half_open: HalfOpen,
    /// What was given out in this turn, and how much may be.
    pub(crate) share: Share,
    pub(crate) now_ms: u64,
    /// Time in which the shard did not run, which is nobody's who is connected.
    pub(crate) lost_ms: u64,
    /// When gauges are set next.
    pub(crate) measure_at_ms: u64,
    /// Which look at the memory was acted on last.
    pub(crate) memory_sample: u64,
    pub(crate) draining: bool,
    /// The slot from which on connections still keep limits from before a reload.
    pub(crate) renewing: Option<u32>,
    /// The server stops, and this is how far it is.
    pub(crate) drain: Option<Drain>,
    /// Connections of raw mounts whose handlers are still to be started.
    pub(crate) opened: Vec<Opened>,
    /// Connections that came back from HTTP, with frames that were read already.
    pub(crate) returned: Vec<(SlotKey, Vec<u8>)>,
    /// Connections of gateways that have ended, whose hooks are still to run.
    pub(crate) ended: VecDeque<Rc<EventSession>>,
    /// Hooks of such connections that wait for something.
    pub(crate) hooks_running: usize,
}

/// The reason that goes with close code 1008 for a peer that does not read.
pub(crate) const NOT_DRAINING: &str = "outbox full, the client is not draining its messages";

/// What a connection ends with that has no close handshake (RFC 6455 section 7.1.5).
const ABNORMAL: u16 = 1_006;

impl State {
    pub(crate) fn new(
        index: u16,
        shared: Arc<Shared>,
        live: Arc<Live>,
        mailboxes: Mailboxes<Command>,
        stores: Vec<(Partition, Recovered)>,
        (tokens, metrics): (TokenCache, Arc<ShardMetrics>),
    ) -> Self {
        let shards = usize::from(shared.shards());
        let home = shared.relay.as_ref().map(|relay| {
            let limits = home_limits(&live.limits, relay);
            Home::new(Arc::clone(&relay.patterns), limits, (index, shards))
        });
        let commands_max = live.limits.mailbox_descriptors_max;
        Self {
            index,
            connections: Connections::new(),
            roll: Roll::default(),
            spare: Spare::default(),
            dirty: VecDeque::new(),
            given: VecDeque::new(),
            offers: Vec::new(),
            kept: VecDeque::new(),
            wishes: Vec::new(),
            engines: Engines::default(),
            members: Members::default(),
            home,
            homes: Homes::new(stores, shared.shards()),
            calls: VecDeque::new(),
            posts: Posts::new(mailboxes, commands_max),
            wheel: Wheel::new(0),
            tokens,
            metrics,
            half_open: HalfOpen::default(),
            share: Share::of(live.all_limits(), shared.topic_capacity()),
            now_ms: 0,
            lost_ms: 0,
            measure_at_ms: 0,
            memory_sample: 0,
            drain: None,
            renewing: None,
            opened: Vec::new(),
            returned: Vec::new(),
            ended: VecDeque::new(),
            hooks_running: 0,
            draining: shared.draining.load(Ordering::Relaxed),
            live,
            shared,
        }
    }

    pub(crate) fn begin_turn(&mut self) {
        self.share.renew();
        self.half_open.begin_turn();
    }

    /// Takes a socket whose request head is still to come, or was read elsewhere.
    /// `address` is what it counts for while its head is awaited.
    pub(crate) fn insert(&mut self, fd: OwnedFd, address: Option<IpAddr>) -> SlotKey {
        let key = self.connections.insert(fd, self.peer_ms());
        self.half_open.insert(key, address, self.now_ms);
        self.look_at_next(key);
        key
    }

    /// Queues one frame for one connection, written by `write`. A peer that does not read is not
    /// read from either; one that makes us queue too much all the same is closed with 1008.
    pub(crate) fn queue_with(&mut self, key: SlotKey, write: impl FnOnce(&mut Vec<u8>)) {
        self.give_out();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        if !connection.takes_frames() {
            return;
        }
        connection.outbox.push_with(&mut self.spare, write);
        self.metrics.add(Counter::MessagesSent, 1);
        mark_dirty(&mut self.dirty, connection, key);
        let limits = self.live.outbox_limits(connection.mount, usize::MAX);
        let backlog = connection.outbox.backlog();
        match connection
            .machine
            .room(backlog, limits.frames_max, limits.bytes_max)
        {
            Room::Free => {}
            Room::Offer => self.offer(key),
            Room::Pause => {
                self.pause(key, Pause::Outbox);
            }
            Room::Full => self.close(key, CloseCode::Policy, NOT_DRAINING, LeaveReason::Slow),
        }
    }

    /// A bound is reached: the peer is not read from. Whether that is new.
    pub(crate) fn pause(&mut self, key: SlotKey, pause: Pause) -> bool {
        let now_ms = self.peer_ms();
        let Some(connection) = self.connections.alive(key) else {
            return false;
        };
        let is_new = connection.machine.pause(pause, now_ms);
        if is_new {
            self.wishes.push(key);
        }
        is_new
    }

    /// A bound is free again.
    pub(crate) fn resume(&mut self, key: SlotKey, pause: Pause) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        if connection.machine.resume(pause) {
            self.wishes.push(key);
        }
    }

    /// The clock by which peers are judged: it stands while the shard does not run.
    pub(crate) fn peer_ms(&self) -> u64 {
        self.now_ms - self.lost_ms
    }

    /// Queues a text frame.
    pub(crate) fn queue_text_with(&mut self, key: SlotKey, write: impl FnOnce(&mut Vec<u8>)) {
        self.queue_with(key, |out| frame::put_text_with(out, write));
    }

    /// Queues a frame of any kind.
    pub(crate) fn queue_frame(&mut self, key: SlotKey, opcode: Opcode, payload: &[u8]) {
        self.queue_with(key, |out| frame::put(out, opcode, payload));
    }

    /// Starts the closing handshake behind everything that is queued. The session ends now.
    pub(crate) fn close(
        &mut self,
        key: SlotKey,
        code: impl Into<u16>,
        reason: &str,
        leave: LeaveReason,
    ) {
        let code = code.into();
        self.close_with_frame(key, &frame::close(code, reason), false, leave);
        self.metrics.closed(code);
    }

    /// Answers the peer's close, after which the socket goes.
    pub(crate) fn close_with_frame(
        &mut self,
        key: SlotKey,
        close: &Bytes,
        peer_closed: bool,
        leave: LeaveReason,
    ) {
        self.give_out();
        let now_ms = self.peer_ms();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        let is_open = matches!(connection.machine.phase(), Phase::Open);
        let is_at_work = is_open && peer_closed && connection.session.speaker().handle_peer_end();
        let after = connection
            .machine
            .close(close, (peer_closed, is_at_work), now_ms);
        match after {
            AfterClose::Nothing => return,
            AfterClose::Wait => {}
            AfterClose::FinishWork => return self.finish_ending(key),
            AfterClose::Say => {
                connection
                    .outbox
                    .push_with(&mut self.spare, |out| out.extend_from_slice(close));
                mark_dirty(&mut self.dirty, connection, key);
                self.end_session(key, leave);
            }
            AfterClose::Answered => mark_dirty(&mut self.dirty, connection, key),
        }
        self.look_at_next(key);
    }

    /// Something that came before the peer's close was answered: nothing more may be awaited.
    pub(crate) fn note_answered(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        let is_ending = matches!(connection.machine.phase(), Phase::Ending { .. });
        if is_ending && !connection.session.speaker().handle_peer_end() {
            self.finish_ending(key);
        }
    }

    /// What came before the peer's close was dealt with, or had its time.
    pub(crate) fn finish_ending(&mut self, key: SlotKey) {
        let now_ms = self.peer_ms();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        let Some(close) = connection.machine.finish_work(now_ms) else {
            return;
        };
        connection
            .outbox
            .push_with(&mut self.spare, |out| out.extend_from_slice(&close));
        mark_dirty(&mut self.dirty, connection, key);
        self.end_session(key, LeaveReason::Closed);
        self.look_at_next(key);
    }

    /// Answers a request that is no upgrade of ours, and closes.
    pub(crate) fn refuse(&mut self, key: SlotKey, response: &[u8], why: RefusedFor) {
        let now_ms = self.peer_ms();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        connection.machine.refuse(now_ms);
        connection
            .outbox
            .push_with(&mut self.spare, |out| out.extend_from_slice(response));
        mark_dirty(&mut self.dirty, connection, key);
        self.half_open.remove(key);
        self.metrics.refused(why);
        self.look_at_next(key);
    }

    /// Nothing more will be sent. The peer's end is awaited for a moment, so that what was sent
    /// last is not cut off by a reset.
    pub(crate) fn finish(&mut self, key: SlotKey) {
        let now_ms = self.peer_ms();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        // The peer may be gone already, and then there is nothing to shut down.
        let _ = rustix::net::shutdown(&connection.fd, rustix::net::Shutdown::Write);
        connection.machine.linger(now_ms);
        self.wishes.push(key);
        self.look_at_next(key);
    }

    /// Ends a connection at once. Its slot is free when its operations have completed.
    pub(crate) fn abort(&mut self, key: SlotKey, leave: LeaveReason) {
        self.abort_counted(key, leave, ABNORMAL);
    }

    /// Ends a connection whose request head was awaited.
    pub(crate) fn give_up(&mut self, key: SlotKey, why: RefusedFor) {
        self.metrics.refused(why);
        self.abort(key, LeaveReason::Closed);
    }

    /// As [`State::abort`], counted under this close code if none was agreed on before.
    pub(crate) fn abort_counted(&mut self, key: SlotKey, leave: LeaveReason, code: u16) {
        self.end_session(key, leave);
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        // The peer may be gone already; the completions that end the operations come anyway.
        let _ = rustix::net::shutdown(&connection.fd, rustix::net::Shutdown::Both);
        let phase = connection.machine.die();
        // A peer that does not stop sending is still received from after that shutdown.
        self.wishes.push(key);
        match phase {
            Phase::Head(_) => self.half_open.remove(key),
            Phase::Open => self.metrics.closed(code),
            _ => {}
        }
        self.remove_if_over(key);
    }

    /// Frees the slot of a dead connection that has nothing in flight.
    pub(crate) fn remove_if_over(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        if connection.machine.is_over() {
            self.spare.forget(&connection.outbox);
            self.connections.remove(key);
            self.give_up_place();
        }
    }

    /// Takes a connection whose socket goes elsewhere out of its slot. It counts until
    /// [`State::leave`].
    pub(crate) fn release(&mut self, key: SlotKey) -> Option<Connection> {
        let connection = self.connections.remove(key)?;
        self.spare.forget(&connection.outbox);
        self.half_open.remove(key);
        Some(connection)
    }

    /// One connection less on this shard.
    pub(crate) fn give_up_place(&self) {
        self.shared.loads[usize::from(self.index)].fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells everybody who should know that a connection is no longer there.
    fn end_session(&mut self, key: SlotKey, leave: LeaveReason) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        connection.leave_reason = leave;
        if std::mem::take(&mut connection.enrolled)
            && let Some(caller) = &connection.caller
        {
            self.roll.remove(&caller.tenant);
        }
        if connection.machine.resume_all() {
            self.wishes.push(key);
        }
        let session = std::mem::take(&mut connection.session);
        self.on_end(key, session, leave);
    }

    /// Asks for a look at a connection, if none is due before `at_ms`.
    pub(crate) fn look_at(&mut self, key: SlotKey, at_ms: u64) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        let tick = u64::from(connection.tick);
        let is_soon_enough =
            self.wheel.awaits(tick) && tick * crate::shard::socket::timer::TICK_MS <= at_ms;
        if !is_soon_enough {
            let tick = self.wheel.schedule(key, at_ms);
            connection.tick = u32::try_from(tick).unwrap_or(u32::MAX);
        }
    }

    /// Where the peer of a connection is.
    pub(crate) fn peer_of(&mut self, key: SlotKey) -> Option<SocketAddr> {
        self.connections.alive(key)?.peer()
    }

    /// Whether a handler or a hook is due.
    pub(crate) fn has_calls(&self) -> bool {
        !self.calls.is_empty() || !self.ended.is_empty()
    }

    /// Whether the loop has something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.engines.has_dirty()
            || !self.dirty.is_empty()
            || !self.given.is_empty()
            || !self.kept.is_empty()
            || !self.wishes.is_empty()
            || !self.calls.is_empty()
            || !self.opened.is_empty()
            || !self.returned.is_empty()
            || !self.ended.is_empty()
            || self.members.has_open()
            || self.renewing.is_some()
            || self.posts.has_posted()
            || self.home.as_ref().is_some_and(Home::has_changes)
            || self.homes.has_work()
    }
}

pub(crate) fn home_limits(limits: &Limits, relay: &RelayWorld) -> HomeLimits {
    HomeLimits {
        handler_queue_max: limits.handler_queue_max,
        unhandled: relay.unhandled,
        topic_capacity: relay.topic_capacity,
        last_bytes_max: relay.last_bytes_max,
    }
}

pub(crate) fn mark_dirty(dirty: &mut VecDeque<SlotKey>, connection: &mut Connection, key: SlotKey) {
    if !connection.dirty {
        connection.dirty = true;
        dirty.push_back(key);
    }
}

/// Like [`mark_dirty`], for what many get; it counts for the turn.
pub(crate) fn mark_given(
    given: &mut VecDeque<SlotKey>,
    share: &mut Share,
    connection: &mut Connection,
    key: SlotKey,
) {
    if !connection.given {
        connection.given = true;
        given.push_back(key);
        connection
            .outbox
            .begin_giving(connection.machine.is_sending());
    }
    share.note_receiver(connection.outbox.given());
}
