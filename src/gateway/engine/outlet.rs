//! What the registries of one shard need of it, and what they do with it: a send is serialized
//! before it comes here, then borrows the state, and no user code runs meanwhile. Knows no
//! socket: frames leave through an [`Outlet`], other shards are reached by [`Post`]s.

use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::sync::oneshot;

use crate::broker::ConnKey;
use crate::broker::registry::{Address, Notice};
use crate::gateway::ask::{AskError, AskedOf, RoomAnswers};
use crate::gateway::engine::push::Push;
use crate::gateway::send::SendError;
use crate::id::ConnId;

/// What became of a frame at one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its outbox took it.
    Accepted,
    /// Its outbox is full.
    Shed,
    /// It has ended, or is about to.
    Gone,
}

/// What became of a frame at many connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Outboxes that took it.
    pub accepted: usize,
    /// Outboxes that were full.
    pub shed: usize,
}

/// The sockets and mailboxes of the shard that this thread runs. None of the methods may call
/// user code or come back to the registries.
pub trait Outlet {
    /// Puts a whole frame into the outbox of a connection.
    fn send(&self, connection: ConnKey, push: &Push) -> Fate;

    /// Puts a whole frame into the outbox of a connection once most of what it holds has gone;
    /// until then the waker is kept.
    fn poll_send(&self, connection: ConnKey, push: &Push, waker: &Waker) -> Poll<Fate>;

    /// Puts one frame into the outboxes of many.
    fn send_all(&self, connections: &[ConnKey], push: &Push) -> Tally;

    /// Asks one connection; the number of the question.
    fn ask(&self, _: ConnKey, _: &Push, _: oneshot::Sender<AskedOf>) -> Result<u64, AskError> {
        Err(AskError::NotSpoken)
    }

    /// Asks many with one number, which is there if anybody is asked.
    fn ask_all(&self, _: &[ConnKey], _: &Push, done: oneshot::Sender<RoomAnswers>) -> Option<u64> {
        done.send(RoomAnswers::default()).ok();
        None
    }

    /// Ends the wait for an answer, or for those of all.
    fn end_ask(&self, _number: u64) {}

    /// How long an answer is waited for by default.
    fn ack_ms(&self) -> u64 {
        10_000
    }

    /// Ends what a connection has in one namespace of Socket.IO.
    fn leave_namespace(&self, connection: ConnKey) {
        self.close(connection, 1000, "");
    }

    /// Ends a connection without a word.
    fn abort(&self, connection: ConnKey) {
        self.close(connection, 1000, "");
    }

    /// Ends a connection: a close frame goes out behind what its outbox holds.
    fn close(&self, connection: ConnKey, code: u16, reason: &str);

    /// Hands something to the mailbox of another shard; [`SendError::Overloaded`] if it is full.
    fn post(&self, shard: u16, post: Post) -> Result<(), SendError>;

    /// Hands over what must arrive, in order with what is posted before and after it.
    fn post_surely(&self, shard: u16, post: Post);

    /// A handler has panicked.
    fn note_panic(&self);

    /// A clock that runs on, in microseconds.
    fn now_us(&self) -> u64;
}

/// The way in for other threads than shards.
pub trait Outside: Send + Sync {
    /// Hands something to a shard; [`SendError::Overloaded`] if its queue is full.
    fn post(&self, shard: u16, post: Post) -> Result<(), SendError>;
}

/// What one shard, or another thread, asks of the registries of another.
#[derive(Debug)]
pub struct Post {
    /// The number of the registry.
    pub registry: u16,
    /// What to do in it.
    pub order: Order,
}

/// The orders of a [`Post`].
#[derive(Debug)]
pub enum Order {
    /// Remember what another shard has.
    Notice {
        /// That shard.
        from: u16,
        /// What it has.
        notice: Notice,
    },
    /// Give a frame to those connections of this shard that the address names.
    Deliver {
        /// Whom.
        address: Address,
        /// What.
        push: Push,
        /// Where to say how many took it.
        count: Option<oneshot::Sender<usize>>,
    },
    /// Give a frame to whom the address names on all shards; from a thread beside the shards.
    Spread {
        /// Whom; a room may be the id of a connection instead.
        address: Address,
        /// Whether the room may be the id of a connection.
        named: bool,
        /// What.
        push: Push,
        /// Where to say how many took it.
        count: Option<oneshot::Sender<usize>>,
    },
    /// Hand an order to another shard; from a thread beside the shards.
    Forward {
        /// That shard.
        shard: u16,
        /// What to do there.
        order: Box<Self>,
    },
    /// Give a frame to one connection.
    Give {
        /// Which.
        connection: ConnKey,
        /// What.
        push: Push,
    },
    /// Give a frame to one connection when it has room for it.
    Stream {
        /// Which.
        connection: ConnKey,
        /// What.
        push: Push,
        /// Where to say whether it took it.
        taken: oneshot::Sender<bool>,
    },
    /// End one connection.
    Close {
        /// Which.
        connection: ConnKey,
        /// The close code.
        code: u16,
        /// The reason.
        reason: Arc<str>,
    },
    /// Ask one connection.
    Ask {
        /// Which.
        connection: ConnKey,
        /// What.
        push: Push,
        /// How long; absent, the default.
        ms: Option<u64>,
        /// Where the answer is awaited.
        answer: oneshot::Sender<Result<AskedOf, AskError>>,
    },
    /// Ask those connections of this shard that the address names, or those of all shards.
    AskAll {
        /// Whom.
        address: Address,
        /// What.
        push: Push,
        /// How long; absent, the default.
        ms: Option<u64>,
        /// Where the answers are awaited.
        done: oneshot::Sender<RoomAnswers>,
        /// From a thread beside the shards: ask all shards.
        spread: bool,
    },
    /// End what a connection has in a namespace of Socket.IO.
    LeaveNamespace {
        /// Which.
        connection: ConnKey,
    },
    /// End a connection without a word.
    Abort {
        /// Which.
        connection: ConnKey,
    },
    /// Make a connection a member of a room.
    Join {
        /// Which.
        id: ConnId,
        /// The room.
        room: Arc<str>,
    },
    /// End its membership.
    Leave {
        /// Which.
        id: ConnId,
        /// The room.
        room: Arc<str>,
    },
}
