//! What goes into the home of relay topics and what comes out. Knows names and frames; decides
//! nothing.

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::Caller;
use crate::broker::ConnKey;
use crate::broker::pattern::HandlerIndex;
use crate::id::{ConnId, Tenant};

use super::visit::Visit;

/// Name of a topic, with the tenant that it belongs to: there is no name without one.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TopicKey {
    /// Whose topic.
    pub tenant: Tenant,
    /// Its name there.
    pub name: Box<str>,
}

/// Why a connection left a topic (D-18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveReason {
    /// It asked to.
    Unsubscribe,
    /// It closed, or its connection broke.
    Closed,
    /// It did not answer in time.
    Timeout,
    /// It did not read what was sent to it.
    Slow,
    /// It was disconnected on purpose.
    Kicked,
    /// The server stops.
    Shutdown,
}

/// What a topic without handler does with the messages of clients (D-19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unhandled {
    /// Everybody subscribed gets them, the sender too.
    Broadcast,
    /// They are refused.
    Reject,
}

/// Who subscribes: where its socket is and as whom it came.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// Its socket.
    pub key: ConnKey,
    /// Its number.
    pub conn_id: ConnId,
    /// Its identity.
    pub caller: Arc<Caller>,
    /// Which of its requests this is; what the home says of its membership names the request.
    pub asked: u32,
}

/// Who leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaver {
    /// Its socket.
    pub key: ConnKey,
    /// Its number.
    pub conn_id: ConnId,
    /// Which of its requests this is.
    pub asked: u32,
}

/// What a handler is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerEvent {
    /// A connection wants to subscribe.
    Join,
    /// A subscriber sent a message.
    Message {
        /// Its event.
        event: Box<str>,
        /// Its payload, verbatim.
        payload: Bytes,
    },
    /// A subscriber left.
    Leave(LeaveReason),
}

/// One run of a handler that the shard must make, and report with [`Home::handle_called`](super::Home::handle_called).
#[derive(Debug)]
pub struct Call {
    /// Which handler.
    pub handler: HandlerIndex,
    /// Which topic.
    pub topic: Arc<TopicKey>,
    /// The connection that caused it.
    pub subscriber: Subscriber,
    /// What happened.
    pub event: HandlerEvent,
    /// The run, for the report and for pushes that are held during a join.
    pub lane: LaneId,
}

/// The order of one member's events in one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneId {
    pub(super) topic: usize,
    pub(super) conn_id: ConnId,
}

/// Whose join is being decided: what its handler pushes to its own topic has to wait for that.
#[derive(Debug, Clone)]
pub enum Joining {
    /// A member's; it is held at home.
    Member(Arc<TopicKey>, LaneId),
    /// A visitor's join or leave; it is dropped.
    Visitor(Arc<TopicKey>),
}

/// Why a request was refused; the connection stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Only subscribers may send.
    #[error("not subscribed to {0}")]
    NotSubscribed(String),
    /// The handler refused the join.
    #[error("join rejected: {0}")]
    JoinRejected(String),
    /// The handler failed.
    #[error("message handler error: {0}")]
    HandlerFailed(String),
}

/// What a connection is told when it is no member any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing: it is gone.
    Nothing,
    /// `unsubscribed`, as it asked for.
    Unsubscribed,
    /// Why it may not join.
    Refused(Refusal),
}

/// What the shard must do.
#[derive(Debug)]
pub enum Effect {
    /// The member's shard counts it in: pushes from now on are held for it until it has joined.
    Attach {
        /// The member.
        subscriber: Subscriber,
        /// The topic.
        topic: Arc<TopicKey>,
    },
    /// The member's shard answers `subscribed` and lets pushes through.
    Joined {
        /// The member.
        key: ConnKey,
        /// The topic.
        topic: Arc<TopicKey>,
    },
    /// The member's shard forgets it and tells it why, in one step: a request that comes between
    /// the two would be answered before this one.
    Detach {
        /// The former member.
        key: ConnKey,
        /// The topic.
        topic: Arc<TopicKey>,
        /// The request that this answers: one that was made since may have asked for the contrary.
        asked: u32,
        /// What it is told.
        answer: Farewell,
    },
    /// The connection gets an error frame.
    Refuse {
        /// The connection.
        key: ConnKey,
        /// The topic.
        topic: Arc<TopicKey>,
        /// Why.
        refusal: Refusal,
    },
    /// All members on the shard of this home get `frame`.
    Gather {
        /// Where the home has the topic, for as long as effects wait.
        topic: usize,
        /// One encoded frame.
        frame: Bytes,
    },
    /// All members on `shard`, which is another one, get `frame`.
    Deliver {
        /// The shard.
        shard: u16,
        /// The topic.
        topic: Arc<TopicKey>,
        /// One encoded frame.
        frame: Bytes,
    },
    /// One member gets `frame`.
    Give {
        /// The member.
        key: ConnKey,
        /// The topic.
        topic: Arc<TopicKey>,
        /// One encoded frame.
        frame: Bytes,
    },
    /// All members on `shard` are told that so many frames found no room.
    Missed {
        /// The shard.
        shard: u16,
        /// The topic.
        topic: Arc<TopicKey>,
        /// How many.
        frames: u64,
    },
    /// A handler runs.
    Call(Call),
    /// Somebody who is no member speaks to a handler.
    Visit(Visit),
}
