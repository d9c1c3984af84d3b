//! What the home of durable topics wants done: records appended, messages read, peers answered.
//! It does not know whether the log is a file here or an engine elsewhere.

use std::sync::Arc;

use bytes::Bytes;

use crate::id::{HomedId, Seq, Tenant};
use crate::log::{Class, Retention};

use super::answer::{Answer, Message};
use super::command::{NewMessages, Peer};

/// Counts the appends of one partition: each is one more than the one before.
pub type AppendId = u64;

/// Counts the reads of one partition.
pub type ReadId = u64;

/// Room in the log that the home asks for before it gives anything a seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Whether the reserve may be used.
    pub class: Class,
    /// How much.
    pub bytes: usize,
}

/// Something that the caller must carry out before it polls again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Append this to the log, which said that it has the room. It is durable once
    /// `handle_durable` names its id or a later one.
    Append {
        /// Its number.
        id: AppendId,
        /// What to keep.
        value: Value,
    },
    /// Read messages of a topic and answer by `handle_read`.
    Read {
        /// Its number.
        id: ReadId,
        /// Which topic.
        topic: HomedId,
        /// The first message; the answer starts with it.
        from_seq: Seq,
        /// The last message that may be shown.
        through_seq: Seq,
        /// Enough bytes, as `Message::cost` counts them; one message is read even if it is larger.
        bytes_max: u64,
        /// Enough messages.
        count_max: u32,
    },
    /// Idempotency keys of a topic have ended: the log need not keep them for a restart.
    ForgetKeys {
        /// Which topic.
        topic: HomedId,
        /// Those of messages up to here.
        through: Seq,
    },
    /// Tell a peer.
    Answer {
        /// Whom.
        to: Peer,
        /// The mark that it put on its request.
        reference: Option<Bytes>,
        /// What.
        answer: Answer,
    },
}

/// What survives a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A topic is there.
    TopicCreated {
        /// Its id.
        topic: HomedId,
        /// Its tenant.
        tenant: Tenant,
        /// Its name.
        name: Arc<str>,
        /// When.
        unix_ms: u64,
        /// What it keeps.
        retention: Retention,
    },
    /// A topic keeps something else from now on.
    RetentionChanged {
        /// Its id.
        topic: HomedId,
        /// What it keeps.
        retention: Retention,
    },
    /// A topic is gone, and all its messages and subscriptions with it.
    TopicDeleted {
        /// Its id.
        topic: HomedId,
    },
    /// Messages with consecutive seqs, in one batch or not at all.
    Publish {
        /// Their topic.
        topic: HomedId,
        /// The seq of the first.
        first_seq: Seq,
        /// When.
        unix_ms: u64,
        /// By whom.
        publisher: Arc<str>,
        /// The messages.
        messages: NewMessages,
    },
    /// A subscription is there.
    SubscriptionCreated {
        /// Its id.
        subscription: HomedId,
        /// Its topic.
        topic: HomedId,
        /// Its key.
        sub_name: Arc<str>,
        /// The claim `sub` of whoever made it; empty if nobody is known for it.
        maker: Arc<str>,
        /// Where its cursor starts.
        cursor: Seq,
        /// When.
        unix_ms: u64,
    },
    /// A subscription is gone.
    SubscriptionDeleted {
        /// Its id.
        subscription: HomedId,
    },
    /// Cursors stand here now, forward or back.
    CursorsMoved {
        /// Subscription and cursor.
        moves: Vec<(HomedId, Seq)>,
    },
}

/// A piece of what was read, in order of seq and without a hole between the pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadItem {
    /// A good message.
    Message(Message),
    /// Messages whose stored bytes are bad.
    Damaged {
        /// The first of them.
        from: Seq,
        /// The last of them.
        to: Seq,
    },
}
