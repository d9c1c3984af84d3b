//! Pushes on their way into outboxes: what the registries of a shard reach its sockets through.
//! Knows frames and bounds; not who is in which room.

use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::broker::ConnKey;
use crate::broker::relay::LeaveReason;
use crate::gateway::engine::outlet::{Fate, Outlet, Outside, Post, Tally};
use crate::gateway::engine::push::Push;
use crate::gateway::send::SendError;
use crate::metrics::Counter;
use crate::session::Session;

use crate::shard::Shard;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::post::command::Command;
use crate::shard::shared::Shared;
use crate::shard::socket::outbox::Piece;
use crate::shard::speak::route::slot_key;
use crate::shard::state::{NOT_DRAINING, State, mark_given};

/// What registries reach the sockets of their shard through.
pub(crate) struct ShardOutlet {
    pub(crate) shard: Weak<Shard>,
    pub(crate) started: Instant,
}

impl ShardOutlet {
    fn with_state<T: Default>(&self, make: impl FnOnce(&mut State) -> T) -> T {
        let shard = self.shard.upgrade();
        shard.map_or_else(T::default, |shard| shard.with_state(make))
    }
}

impl Outlet for ShardOutlet {
    fn send(&self, connection: ConnKey, push: &Push) -> Fate {
        let fate = self.with_state(|state| {
            state.give_out();
            Some(state.queue_push(slot_key(connection), push, &mut None))
        });
        fate.unwrap_or(Fate::Gone)
    }

    fn poll_send(&self, connection: ConnKey, push: &Push, waker: &Waker) -> Poll<Fate> {
        let polled = self.with_state(|state| {
            state.give_out();
            Some(state.poll_push(slot_key(connection), push, waker))
        });
        polled.unwrap_or(Poll::Ready(Fate::Gone))
    }

    fn send_all(&self, connections: &[ConnKey], push: &Push) -> Tally {
        self.with_state(|state| {
            state.give_out();
            state.share.add(push.plain().len());
            let (mut tally, mut piece) = (Tally::default(), None);
            for connection in connections {
                match state.queue_push(slot_key(*connection), push, &mut piece) {
                    Fate::Accepted => tally.accepted += 1,
                    Fate::Shed => {
                        tally.shed += 1;
                        state.shed(slot_key(*connection));
                    }
                    Fate::Gone => {}
                }
            }
            tally
        })
    }

    fn close(&self, connection: ConnKey, code: u16, reason: &str) {
        self.with_state(|state| {
            state.close(slot_key(connection), code, reason, LeaveReason::Kicked);
        });
    }

    fn post(&self, shard: u16, post: Post) -> Result<(), SendError> {
        let here = self.shard.upgrade().ok_or(SendError::Stopping)?;
        let command = Command::Registry(post);
        here.with_state(|state| state.posts.try_post(shard, command))
            .map_err(|_| SendError::Overloaded)
    }

    fn post_surely(&self, shard: u16, post: Post) {
        self.with_state(|state| state.posts.post(shard, Command::Registry(post)));
    }

    fn note_panic(&self) {
        self.with_state(|state| state.metrics.add(Counter::HandlerPanics, 1));
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// The way to the registries for threads that are no shards.
pub(crate) struct OutsideLink(pub(crate) std::sync::Weak<Shared>);

impl Outside for OutsideLink {
    fn post(&self, shard: u16, post: Post) -> Result<(), SendError> {
        let shared = self.0.upgrade().ok_or(SendError::Stopping)?;
        let port = &shared.ports[usize::from(shard)];
        port.post(Command::Registry(post))
            .map_err(|_| SendError::Overloaded)
    }
}

impl State {
    /// Puts one frame that others may get too into one outbox. A full one takes nothing.
    fn queue_push(&mut self, key: SlotKey, push: &Push, piece: &mut Option<Rc<Piece>>) -> Fate {
        let frame = push.plain();
        let Some(connection) = self.connections.get(key) else {
            return Fate::Gone;
        };
        if !connection.takes_frames() {
            return Fate::Gone;
        }
        let limits = self.live.outbox_limits(connection.mount, usize::MAX);
        // A backlog is what waits behind a send in flight; before that all of it is offered.
        let is_full = connection.outbox.is_full_for(frame.len(), &limits);
        if is_full && connection.machine.is_sending() && connection.outbox.backlog().0 != 0 {
            self.metrics.add(Counter::OutboxSheds, 1);
            if let Session::Event(session) = &connection.session {
                session.handle_shed();
            }
            return Fate::Shed;
        }
        if frame.len() <= COPY_BYTES_MAX {
            let write = |out: &mut Vec<u8>| out.extend_from_slice(frame);
            connection.outbox.push_with(&mut self.spare, write);
        } else {
            let piece = piece.get_or_insert_with(|| Rc::new(Piece::of_frame(frame.clone())));
            connection.outbox.push_piece(&mut self.spare, piece);
        }
        self.metrics.add(Counter::MessagesSent, 1);
        mark_given(&mut self.given, connection, key);
        if is_full {
            self.offer(key);
        }
        Fate::Accepted
    }

    /// A member of a room does not keep up: a room loses nothing in silence. Who can be told is told
    /// when it reads again.
    fn shed(&mut self, key: SlotKey) {
        let connection = self.connections.get(key);
        if let Some(Session::Event(session)) = connection.map(|connection| &connection.session)
            && session.is_told()
        {
            return;
        }
        self.close(key, 1008, NOT_DRAINING, LeaveReason::Slow);
    }

    /// Queues a frame of a stream while the outbox is mostly empty, so that replies and pushes
    /// find room beside it. A frame alone always may.
    fn poll_push(&mut self, key: SlotKey, push: &Push, waker: &Waker) -> Poll<Fate> {
        let Some(connection) = self.connections.get(key) else {
            return Poll::Ready(Fate::Gone);
        };
        let limits = self.live.outbox_limits(connection.mount, usize::MAX);
        let outbox = &connection.outbox;
        let backlog = outbox.backlog();
        let (frames, bytes) = (backlog.0 + 1, backlog.1 + push.plain().len());
        let has_room =
            frames <= limits.frames_max / STREAM_SHARE && bytes <= limits.bytes_max / STREAM_SHARE;
        if outbox.is_empty() || has_room || !connection.takes_frames() {
            return Poll::Ready(self.queue_push(key, push, &mut None));
        }
        if let Session::Event(session) = &connection.session {
            session.handle_stream_waiting(waker);
        }
        Poll::Pending
    }
}

/// A frame up to this size is copied behind what the outbox holds: that costs less than a piece
/// of its own.
const COPY_BYTES_MAX: usize = 256;

/// A stream fills this part of an outbox: at half of it the peer would be read from no more.
const STREAM_SHARE: usize = 4;
