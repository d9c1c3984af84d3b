//! What the home of durable topics answers, and why it refuses. Typed: how an answer looks on a
//! wire is the matter of a session or of HTTP.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::id::{HomedId, Seq, Tenant};
use crate::log::Retention;
use crate::proto::ErrorCode;

use super::command::TopicRef;

/// One stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Position in the topic.
    pub seq: Seq,
    /// When it was appended.
    pub unix_ms: u64,
    /// Byte for byte as it came.
    pub payload: Bytes,
}

/// What a message costs of window and credit beyond its payload: its frame's envelope.
pub const MESSAGE_OVERHEAD_BYTES: u64 = 128;

impl Message {
    /// What it takes of a window and of the credit of a connection.
    pub fn cost(&self) -> u64 {
        self.payload.len() as u64 + MESSAGE_OVERHEAD_BYTES
    }
}

/// Messages that will not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first that is missing.
    pub from: Seq,
    /// The last that is missing.
    pub to: Seq,
    /// Why.
    pub reason: GapReason,
}

/// Why messages are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The topic is full: its retention bounds it.
    Retention,
    /// The stored bytes do not have their checksum.
    Damaged,
    /// The log is not the one that the client remembers.
    Epoch,
}

impl GapReason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Damaged => "damaged",
            Self::Epoch => "epoch",
        }
    }
}

/// Why a binding ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client asked for it.
    Requested,
    /// Another connection bound the same subscription.
    TakenOver,
    /// The subscription was removed.
    Deleted,
    /// The topic was removed.
    TopicDeleted,
    /// The log cannot be read.
    StorageFailed,
    /// The connection goes on with a token that does not allow it.
    Forbidden,
}

impl Ended {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "unsubscribed",
            Self::TakenOver => "taken_over",
            Self::Deleted => "deleted",
            Self::TopicDeleted => "topic_deleted",
            Self::StorageFailed => "storage_failed",
            Self::Forbidden => "forbidden",
        }
    }
}

/// A topic as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// Its id.
    pub id: HomedId,
    /// Its name.
    pub name: Arc<str>,
    /// Its tenant.
    pub tenant: Tenant,
    /// When it was made.
    pub created_ms: u64,
    /// The earliest message kept; one behind the last if none is.
    pub first_seq: Seq,
    /// The last durable message; 0 if there never was one.
    pub last_seq: Seq,
    /// What it keeps.
    pub retention: Retention,
}

/// A subscription as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionView {
    /// Its id.
    pub id: HomedId,
    /// Its topic.
    pub topic: HomedId,
    /// Its key in the topic.
    pub sub_name: Arc<str>,
    /// Everything up to here is acked.
    pub cursor: Seq,
    /// The last durable message of the topic: how far it could be.
    pub last_seq: Seq,
    /// How many messages are sent and not acked.
    pub in_flight: u32,
    /// Whether somebody is bound to it now.
    pub attached: bool,
    /// When it was last bound or acked: an inactive one is seen by this.
    pub active_ms: u64,
}

/// The answer to a subscribe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// The topic's id.
    pub topic: HomedId,
    /// The key of the subscription.
    pub sub_name: Arc<str>,
    /// Its id, by which it is deleted.
    pub subscription: HomedId,
    /// Everything up to here is acked.
    pub cursor: Seq,
    /// What is delivered next.
    pub next_seq: Seq,
    /// The earliest message kept.
    pub first_seq: Seq,
    /// The last durable message.
    pub last_seq: Seq,
    /// The life of this log.
    pub epoch: u64,
    /// Whether the subscription was there before.
    pub resumed: bool,
}

/// What the home says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A topic, made just now or not.
    Topic {
        /// The topic.
        view: TopicView,
        /// Made by this request.
        created: bool,
    },
    /// A page of topics, by name.
    Topics(Vec<TopicView>),
    /// A topic or a subscription is gone for good.
    Deleted,
    /// The messages are on the disk.
    Published {
        /// The topic's id.
        topic: HomedId,
        /// The seq of the first message.
        first_seq: Seq,
        /// The seq of the last one.
        last_seq: Seq,
        /// They had been published before under the same keys.
        duplicate: bool,
    },
    /// The caller is bound.
    Subscribed(Box<Subscribed>),
    /// The next message of a subscription.
    Message {
        /// The topic's id.
        topic: HomedId,
        /// Through which subscription.
        subscription: HomedId,
        /// The message.
        message: Message,
        /// It may have been sent before.
        redelivered: bool,
    },
    /// In place of messages of a subscription that will not come.
    Gap {
        /// The topic's id.
        topic: HomedId,
        /// The subscription's key.
        sub_name: Arc<str>,
        /// Which messages.
        gap: Gap,
    },
    /// The binding of the caller has ended.
    Unsubscribed {
        /// The topic's id.
        topic: HomedId,
        /// The subscription's key.
        sub_name: Arc<str>,
        /// Why.
        reason: Ended,
    },
    /// The cursor is on the disk.
    Acked {
        /// The topic's id.
        topic: HomedId,
        /// The subscription's key.
        sub_name: Arc<str>,
        /// Where the cursor stands.
        seq: Seq,
    },
    /// One subscription.
    Subscription(SubscriptionView),
    /// A page of subscriptions, by id.
    Subscriptions(Vec<SubscriptionView>),
    /// A page of messages, and what is missing from it.
    Messages {
        /// The topic's id.
        topic: HomedId,
        /// In order.
        messages: Vec<Message>,
        /// Damaged places that were passed.
        gaps: Vec<Gap>,
        /// The seq behind the page, unless it is the last page.
        next: Option<Seq>,
        /// The last durable message.
        last_seq: Seq,
    },
    /// Nothing was done.
    Refused {
        /// Why.
        refused: Refused,
        /// The topic as the caller named it.
        topic: Option<TopicRef>,
        /// The subscription's key as the caller named it.
        sub_name: Option<Arc<str>>,
        /// It was a publish, which no longer waits.
        publish: bool,
    },
}

/// Why a request is refused. The connection stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// The token does not allow it; whether there is such a topic is not told.
    #[error("forbidden: the token does not allow it")]
    Forbidden,
    /// No such topic in the caller's tenant; whether another tenant has it is not told.
    #[error("unknown topic")]
    UnknownTopic,
    /// No such subscription in the caller's tenant.
    #[error("unknown subscription")]
    UnknownSubscription,
    /// The caller is not bound to that subscription.
    #[error("not subscribed")]
    NotSubscribed,
    /// Another connection has taken the subscription over.
    #[error("the subscription was taken over by another connection")]
    Fenced,
    /// Another connection is bound, and the server lets it stay.
    #[error("the subscription is bound to another connection, and durable.on_duplicate = reject")]
    Duplicate,
    /// An ack of what was never sent.
    #[error("ack of seq {seq} is beyond the last delivered seq {delivered}")]
    AckAhead {
        /// What was acked.
        seq: Seq,
        /// What was delivered.
        delivered: Seq,
    },
    /// A start behind the end.
    #[error("from_seq {seq} is beyond the next seq {next}")]
    SeqOutOfRange {
        /// What was asked for.
        seq: Seq,
        /// The most that can be asked for.
        next: Seq,
    },
    /// The key stands for another payload, or only a part of a batch is a repeat.
    #[error("the idempotency key was used for another payload")]
    IdempotencyConflict,
    /// A name without a byte.
    #[error("{what} must not be empty")]
    Empty {
        /// Which field.
        what: &'static str,
    },
    /// A name that is too long.
    #[error("{what} of {bytes} bytes exceeds {knob} = {bytes_max}")]
    NameBytes {
        /// Which field.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
        /// The key that says so.
        knob: &'static str,
    },
    /// A topic's name that every request would take for an id.
    #[error("a topic name must not have the form of an id (8-4-4-4-12 hexadecimal digits)")]
    NameIsId,
    /// A payload that is too long.
    #[error("payload of {bytes} bytes exceeds message_bytes_max = {bytes_max}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The tenant has as many topics as it may.
    #[error("the tenant has reached topics_per_tenant_max = {count_max}")]
    TopicsFull {
        /// The limit.
        count_max: u64,
    },
    /// The tenant stores as many bytes as it may.
    #[error("the tenant has reached bytes_per_tenant_max = {bytes_max}")]
    BytesFull {
        /// The limit.
        bytes_max: u64,
    },
    /// Too many subscriptions, of the tenant or of the connection.
    #[error("{knob} = {count_max} is reached")]
    SubscriptionLimit {
        /// The limit.
        count_max: u64,
        /// The key that says so.
        knob: &'static str,
    },
    /// Too much waits for the disk.
    #[error("{knob} = {max} is reached")]
    Overloaded {
        /// The limit.
        max: u64,
        /// The key that says so.
        knob: &'static str,
    },
    /// The disk is full; it may be tried again later.
    #[error("the storage is full")]
    StorageFull,
    /// The log did not say what became of it.
    #[error(
        "it is not known whether this was stored: a publish may be tried again with the same idempotency_key"
    )]
    OutcomeUnknown,
    /// The log of this topic is broken until a restart.
    #[error("the storage has failed")]
    StorageFailed,
}

impl Refused {
    /// The stable code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Forbidden => ErrorCode::Forbidden,
            Self::UnknownTopic => ErrorCode::UnknownTopic,
            Self::UnknownSubscription | Self::NotSubscribed => ErrorCode::NotSubscribed,
            Self::Fenced | Self::Duplicate => ErrorCode::Fenced,
            Self::AckAhead { .. } => ErrorCode::AckAhead,
            Self::SeqOutOfRange { .. } => ErrorCode::SeqOutOfRange,
            Self::IdempotencyConflict => ErrorCode::IdempotencyConflict,
            Self::Empty { .. } | Self::NameBytes { .. } | Self::NameIsId => {
                ErrorCode::InvalidMessage
            }
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::TopicsFull { .. } | Self::BytesFull { .. } => ErrorCode::TopicFull,
            Self::SubscriptionLimit { .. } => ErrorCode::SubscriptionLimit,
            Self::Overloaded { .. } => ErrorCode::RateLimited,
            Self::StorageFull => ErrorCode::StorageFull,
            Self::StorageFailed | Self::OutcomeUnknown => ErrorCode::StorageFailed,
        }
    }
}
