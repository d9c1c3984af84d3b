//! What may be asked of the home of durable topics, and by whom. Values only: a peer is a shard
//! and a number on it, never a socket, and a reference is carried without being looked at.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::auth::Rights;
use crate::id::{HomedId, Seq, Tenant};
use crate::log::Retention;

/// The time, as the caller reads it: one clock for waiting, one for what is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub mono_ms: u64,
    /// Milliseconds since 1970, which an operator may set back.
    pub unix_ms: u64,
}

/// Whoever asks and is answered: a connection, a request or a stream of the process itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// The shard that the answer goes to.
    pub shard: u16,
    /// What that shard knows it by; never used again in a run.
    pub key: u64,
}

/// One request: who asks, in which tenant, and what.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub caller: Caller,
    /// What is asked for.
    pub command: Command,
}

/// Who asks. Every look-up takes one, so that none can be made without a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The world of the caller: nothing outside it exists.
    pub tenant: Tenant,
    /// What of that world it may have.
    pub rights: Rights,
    /// Where the answer goes.
    pub peer: Peer,
    /// The caller's own mark on the request, sent back unread.
    pub reference: Option<Bytes>,
}

/// Whose request it is, and what its owner may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The tenant.
    pub tenant: Tenant,
    /// The rights in it.
    pub rights: Rights,
}

/// A topic by its id or by its name in the tenant of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicRef {
    /// The id that never changes.
    Id(HomedId),
    /// The name in the caller's tenant.
    Name(Arc<str>),
}

impl TopicRef {
    /// What has the form of an id is one; everything else is a name.
    pub fn parse(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Name(text.into()), Self::Id)
    }
}

impl std::fmt::Display for TopicRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A message on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Stored and sent again byte for byte.
    pub payload: Bytes,
    /// The same key again is the same message.
    pub idempotency_key: Option<Arc<str>>,
}

/// The messages of one publish: nearly always one.
pub type NewMessages = SmallVec<[NewMessage; 1]>;

/// How a subscription is to be opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Open {
    /// Inclusive start of a new subscription: 0 and 1 are the earliest kept, absent is only what
    /// comes.
    pub from_seq: Option<Seq>,
    /// Moves an existing cursor to `from_seq` too.
    pub seek: bool,
    /// How many messages may be un-acked, within the server's bound.
    pub in_flight_max: Option<u32>,
    /// The life of the log that the client remembers.
    pub epoch: Option<u64>,
    /// If another peer is bound, it stays.
    pub reject_duplicate: bool,
}

/// What can be asked.
#[derive(Debug, Clone)]
pub enum Command {
    /// Makes a topic, or finds the one of that name.
    ResolveTopic {
        /// The name in the caller's tenant.
        name: Arc<str>,
        /// Counts only if the topic is made.
        retention: Retention,
    },
    /// Topics of this partition by name, behind `after`.
    ListTopics {
        /// The last name of the page before.
        after: Option<Arc<str>>,
        /// Most topics in the answer.
        limit: usize,
    },
    /// One topic.
    GetTopic {
        /// Which.
        topic: TopicRef,
    },
    /// Changes what a topic keeps; what is too much by then goes as retention always does.
    ChangeRetention {
        /// Which.
        topic: TopicRef,
        /// What it keeps from now on.
        retention: Retention,
    },
    /// Ends a topic with all its messages and subscriptions.
    DeleteTopic {
        /// Which.
        topic: TopicRef,
    },
    /// Appends messages: all of them, one after the other, or none.
    Publish {
        /// Where to.
        topic: TopicRef,
        /// The claim `sub` of the publisher, kept in the record.
        publisher: Arc<str>,
        /// What.
        messages: NewMessages,
    },
    /// Binds a subscription to the caller, making it at the first time.
    Subscribe {
        /// Of which topic.
        topic: TopicRef,
        /// The key of the subscription in the topic.
        sub_name: Arc<str>,
        /// The claim `sub` of the caller, kept as that of the maker if it is made.
        maker: Arc<str>,
        /// Where it starts and how much it takes.
        open: Open,
    },
    /// Ends the caller's binding and keeps the cursor.
    Unsubscribe {
        /// Of which topic.
        topic: TopicRef,
        /// Which subscription.
        sub_name: Arc<str>,
    },
    /// Moves the cursor through `seq`.
    Ack {
        /// Of which topic.
        topic: TopicRef,
        /// Which subscription.
        sub_name: Arc<str>,
        /// Everything up to here is done.
        seq: Seq,
    },
    /// Lets that many more bytes be sent to the caller.
    Credit {
        /// As `Message::cost` counts them.
        bytes: u64,
    },
    /// The caller goes on with these rights: bindings that they do not allow end.
    Renew,
    /// The caller is gone with all its bindings.
    Disconnect,
    /// Subscriptions of the tenant in this partition.
    ListSubscriptions {
        /// Only those of this topic.
        topic: Option<TopicRef>,
        /// Only those of this name.
        sub_name: Option<Arc<str>>,
        /// Those behind this id.
        after: Option<HomedId>,
        /// Most subscriptions in the answer.
        limit: usize,
    },
    /// One subscription.
    GetSubscription {
        /// Which.
        subscription: HomedId,
    },
    /// Moves a cursor on purpose, forward or back.
    MoveSubscription {
        /// Which.
        subscription: HomedId,
        /// The next seq to be delivered, by the rules of `Open::from_seq`.
        from_seq: Seq,
    },
    /// Removes a subscription and its cursor.
    DeleteSubscription {
        /// Which.
        subscription: HomedId,
    },
    /// Messages from `from_seq` on, without a subscription.
    ReadMessages {
        /// Of which topic.
        topic: TopicRef,
        /// The first one; what is no longer kept is left out.
        from_seq: Seq,
        /// Most messages in the answer.
        limit: u32,
    },
}

/// What a refusal names: the topic and the subscription as they stood in the request.
pub(super) fn named(command: &Command) -> (Option<TopicRef>, Option<Arc<str>>) {
    match command {
        Command::GetTopic { topic }
        | Command::ChangeRetention { topic, .. }
        | Command::DeleteTopic { topic }
        | Command::Publish { topic, .. }
        | Command::ReadMessages { topic, .. } => (Some(topic.clone()), None),
        Command::Subscribe {
            topic, sub_name, ..
        }
        | Command::Unsubscribe { topic, sub_name }
        | Command::Ack {
            topic, sub_name, ..
        } => (Some(topic.clone()), Some(sub_name.clone())),
        Command::ListSubscriptions {
            topic, sub_name, ..
        } => (topic.clone(), sub_name.clone()),
        Command::ResolveTopic { .. }
        | Command::ListTopics { .. }
        | Command::Credit { .. }
        | Command::Renew
        | Command::Disconnect
        | Command::GetSubscription { .. }
        | Command::MoveSubscription { .. }
        | Command::DeleteSubscription { .. } => (None, None),
    }
}

/// Whether the answer depends on what is stored.
pub(super) fn names_something(command: &Command) -> bool {
    !matches!(
        command,
        Command::ListTopics { .. }
            | Command::ListSubscriptions { topic: None, .. }
            | Command::Credit { .. }
            | Command::Renew
            | Command::Disconnect
    )
}
