//! Pushes on their way into outboxes: what the registries of a shard reach its sockets through.
//! Knows frames and bounds; not who is in which room.

use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::broker::ConnKey;
use crate::broker::relay::LeaveReason;
use crate::gateway::ask::{AskError, AskedOf, RoomAnswers};
use crate::gateway::client::Reason as LeftBy;
use crate::gateway::engine::outlet::{Fate, Outlet, Outside, Post, Tally};
use crate::gateway::engine::push::{Manner, Push};
use crate::gateway::send::SendError;
use crate::metrics::Counter;
use crate::session::engineio::Reason as Ended;

use crate::proto::CloseCode;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::outbox::Piece;
use crate::shard::speak::route::slot_key;
use crate::shard::speak::socketio::Frames;
use crate::shard::state::command::Command;
use crate::shard::state::engines::is_engine;
use crate::shard::state::shard::Shard;
use crate::shard::state::shared::Shared;
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
            Some(state.give_push(connection, push, &mut Frames::default()))
        });
        fate.unwrap_or(Fate::Gone)
    }

    fn poll_send(&self, connection: ConnKey, push: &Push, waker: &Waker) -> Poll<Fate> {
        let polled = self.with_state(|state| {
            state.give_out();
            Some(match connection.lane {
                0 => state.poll_push(slot_key(connection), push, waker),
                _ => state.poll_push_engine(connection, push, waker),
            })
        });
        polled.unwrap_or(Poll::Ready(Fate::Gone))
    }

    fn send_all(&self, connections: &[ConnKey], push: &Push) -> Tally {
        self.with_state(|state| {
            state.give_out();
            let (mut tally, mut frames) = (Tally::default(), Frames::of(connections.len()));
            for connection in connections {
                match state.give_push(*connection, push, &mut frames) {
                    Fate::Accepted => tally.accepted += 1,
                    Fate::Shed => {
                        tally.shed += 1;
                        if !push.manner().is_volatile {
                            state.shed(slot_key(*connection));
                        }
                    }
                    Fate::Gone => {}
                }
            }
            tally
        })
    }

    fn ask(
        &self,
        connection: ConnKey,
        push: &Push,
        answer: oneshot::Sender<AskedOf>,
    ) -> Result<u64, AskError> {
        if connection.lane == 0 {
            return Err(AskError::NotSpoken);
        }
        let asked = self.with_state(|state| {
            let max = state.live.socketio.acks_pending_max;
            let Some(number) = state.engines.asks.ask(connection, max, answer) else {
                return Some(Err(AskError::Full));
            };
            let frames = &mut Frames::default();
            let fate = state.push_engine(connection, (push, Some(number)), frames);
            Some(match fate {
                Fate::Accepted => Ok(number),
                Fate::Shed | Fate::Gone => {
                    state.engines.asks.give_up(number);
                    Err(AskError::Gone)
                }
            })
        });
        asked.unwrap_or(Err(AskError::Gone))
    }

    fn ask_all(
        &self,
        connections: &[ConnKey],
        push: &Push,
        done: oneshot::Sender<RoomAnswers>,
    ) -> Option<u64> {
        self.with_state(|state| {
            let mut asked = Vec::new();
            for connection in connections {
                if let Some(id) = state.engine_conn_id(*connection) {
                    asked.push((*connection, id));
                }
            }
            if asked.is_empty() {
                done.send(RoomAnswers::default()).ok();
                return None;
            }
            let number = state.engines.asks.ask_all(asked.clone(), done);
            let mut frames = Frames::default();
            for (connection, _) in asked {
                state.push_engine(connection, (push, Some(number)), &mut frames);
            }
            Some(number)
        })
    }

    fn end_ask(&self, number: u64) {
        self.with_state(|state| {
            state.engines.asks.give_up(number);
            state.engines.asks.finish(number);
        });
    }

    fn ack_ms(&self) -> u64 {
        let ms = self.with_state(|state| Some(state.live.socketio.ack_ms_default));
        ms.unwrap_or(1)
    }

    fn leave_namespace(&self, connection: ConnKey) {
        match connection.lane {
            0 => self.close(connection, CloseCode::Normal.get(), ""),
            _ => self.with_state(|state| state.kick_engine(connection)),
        }
    }

    fn abort(&self, connection: ConnKey) {
        self.with_state(|state| {
            let socket = state.socket_of(slot_key(connection));
            match is_engine(socket) {
                true => state.close_engine(socket, CloseCode::Normal, Ended::Forced),
                false => state.abort(socket, LeaveReason::Kicked),
            }
        });
    }

    fn close(&self, connection: ConnKey, code: u16, reason: &str) {
        if connection.lane != 0 {
            let key = slot_key(connection);
            return self.with_state(|state| state.close_engine(key, code, Ended::Forced));
        }
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

/// The way to the registries for threads beside the shards.
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
    /// Gives a push to one receiver, in its dialect.
    fn give_push(&mut self, connection: ConnKey, push: &Push, frames: &mut Frames) -> Fate {
        match connection.lane {
            0 => {
                let (key, manner) = (slot_key(connection), push.manner());
                let piece = (&mut frames.event, frames.receivers);
                self.queue_bytes(key, push.plain(), piece, manner)
            }
            _ => self.push_engine(connection, (push, None), frames),
        }
    }

    /// Whether a stream may put one more frame into an outbox.
    pub(crate) fn has_stream_room(&mut self, key: SlotKey, bytes: usize) -> bool {
        let Some(connection) = self.connections.alive(key) else {
            return true;
        };
        let limits = self.live.outbox_limits(connection.mount, usize::MAX);
        let outbox = &connection.outbox;
        let backlog = outbox.backlog();
        let (frames, bytes) = (backlog.0 + 1, backlog.1 + bytes);
        let has_room =
            frames <= limits.frames_max / STREAM_SHARE && bytes <= limits.bytes_max / STREAM_SHARE;
        outbox.is_empty() || has_room || !connection.takes_frames()
    }

    /// Puts one frame that others may get too into one outbox. A full one takes nothing, and what is
    /// volatile only goes where nothing waits.
    pub(crate) fn queue_bytes(
        &mut self,
        key: SlotKey,
        frame: &Bytes,
        (piece, receivers): (&mut Option<Rc<Piece>>, usize),
        manner: Manner,
    ) -> Fate {
        let Some(connection) = self.connections.alive(key) else {
            return Fate::Gone;
        };
        if !connection.takes_frames() {
            return Fate::Gone;
        }
        if manner.is_volatile && (connection.machine.is_sending() || !connection.outbox.is_empty())
        {
            return Fate::Shed;
        }
        let limits = self.live.outbox_limits(connection.mount, usize::MAX);
        // A backlog is what waits behind a send in flight; before that all of it is offered.
        let is_full = connection.outbox.is_full_for(frame.len(), &limits);
        // A smaller push that came later would overtake the notice of the one that was shed.
        let is_missing = connection
            .session
            .event()
            .is_some_and(|own| own.is_missing());
        if (is_full || is_missing)
            && connection.machine.is_sending()
            && connection.outbox.backlog().0 != 0
        {
            self.metrics.add(Counter::OutboxSheds, 1);
            if let Some(session) = connection.session.event() {
                session.handle_shed();
            }
            return Fate::Shed;
        }
        if frame.len() <= COPY_BYTES_MAX && connection.outbox.packing == 0 {
            let write = |out: &mut Vec<u8>| out.extend_from_slice(frame);
            connection.outbox.push_with(&mut self.spare, write);
        } else {
            let piece = piece.get_or_insert_with(|| {
                let piece = Piece::of_frame(frame.clone());
                Rc::new(match manner.is_uncompressed {
                    true => piece.uncompressed(),
                    false => piece,
                })
            });
            piece.note_receivers(receivers);
            connection.outbox.push_piece(&mut self.spare, piece);
        }
        self.metrics.add(Counter::MessagesSent, 1);
        mark_given(&mut self.given, &mut self.share, connection, key);
        if is_full {
            self.offer(key);
        }
        Fate::Accepted
    }

    /// A member of a room does not keep up: a room loses nothing in silence. Who can be told is told
    /// when it reads again.
    fn shed(&mut self, key: SlotKey) {
        if is_engine(key) {
            return self.close_engine_by(key, CloseCode::Policy, LeftBy::Slow);
        }
        let connection = self.connections.alive(key);
        let event = connection.and_then(|connection| connection.session.event());
        if event.is_some_and(|session| session.is_told()) {
            return;
        }
        self.close(key, CloseCode::Policy, NOT_DRAINING, LeaveReason::Slow);
    }

    /// Queues a frame of a stream while the outbox is mostly empty, so that replies and pushes
    /// find room beside it. A frame alone always may.
    fn poll_push(&mut self, key: SlotKey, push: &Push, waker: &Waker) -> Poll<Fate> {
        if self.has_stream_room(key, push.plain().len()) {
            return Poll::Ready(self.queue_bytes(key, push.plain(), (&mut None, 1), push.manner()));
        }
        let Some(connection) = self.connections.alive(key) else {
            return Poll::Ready(Fate::Gone);
        };
        if let Some(session) = connection.session.event() {
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
