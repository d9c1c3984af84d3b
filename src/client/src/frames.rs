//! What a client and a durable mount say to each other, typed. Knows the forms of frames.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::socket::Refusal;

/// How a message is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Comes back in the answer, to know which of many it is of.
    pub reference: Option<u64>,
    /// The same key again publishes nothing new. On a connection that comes back a publish that
    /// was not answered goes out again, if it has a key.
    pub idempotency_key: Option<&'a str>,
}

/// What is to be read, and from where on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subscribe {
    #[serde(rename = "type")]
    kind: &'static str,
    pub(super) topic: String,
    pub(super) sub_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seek: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<u64>,
    /// Comes back in the answer.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
}

impl Subscribe {
    /// A subscription of a topic by its key: a new one gets what comes, an old one what is behind
    /// its cursor.
    pub fn new(topic: &str, sub_name: &str) -> Self {
        Self {
            kind: "subscribe",
            topic: topic.to_owned(),
            sub_name: sub_name.to_owned(),
            from_seq: None,
            seek: None,
            max_in_flight: None,
            epoch: None,
            reference: None,
        }
    }

    /// Where a new one starts: 0 is the earliest message kept.
    #[must_use]
    pub fn from_seq(mut self, seq: u64) -> Self {
        self.from_seq = Some(seq);
        self
    }

    /// Moves an old one there too.
    #[must_use]
    pub fn seek(mut self) -> Self {
        self.seek = Some(true);
        self
    }

    /// How many un-acked messages may be on their way.
    #[must_use]
    pub fn max_in_flight(mut self, messages: u32) -> Self {
        self.max_in_flight = Some(messages);
        self
    }
}

/// What the server says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DurableFrame {
    /// A subscription is bound to this connection.
    Subscribed(Subscribed),
    /// A message of a subscription.
    Message(Message),
    /// Messages that will not come.
    Gap(Gap),
    /// A publish is on the disk.
    Published(Published),
    /// An ack that asked for an answer is on the disk.
    Acked(Acked),
    /// A subscription is bound to this connection no more.
    Unsubscribed(Unsubscribed),
    /// Something was refused.
    Refused(Refusal),
    /// The connection is lost.
    Lost(Loss),
    /// There is a connection again: subscriptions go on behind their last acks, and publishes
    /// with a key that were not answered are on their way again.
    Back,
    /// Of a later version, by its name.
    Other(String),
}

/// The connection is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub reason: String,
    /// The marks of publishes without a key that were not answered: whether they are on the disk,
    /// nobody knows.
    pub unknown: Vec<Option<u64>>,
}

/// A subscription is bound.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subscribed {
    /// Its topic.
    pub topic: String,
    /// Its key.
    pub sub_name: String,
    /// Its id.
    #[serde(default)]
    pub subscription_id: String,
    /// The mark of the question.
    #[serde(rename = "ref", default)]
    pub(super) reference: Option<serde_json::Value>,
    /// Everything up to here is acked.
    #[serde(default)]
    pub cursor: u64,
    /// What comes next.
    #[serde(default)]
    pub next_seq: u64,
    /// The last message that there is.
    #[serde(default)]
    pub last_seq: u64,
    /// The life of the log: another one than before has lost messages.
    pub epoch: Option<u64>,
}

/// A message.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its place there.
    pub seq: u64,
    /// What was published, as it was written.
    pub payload: Box<RawValue>,
    /// It may have been sent before.
    #[serde(default)]
    pub redelivered: bool,
}

/// Messages that will not come.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Gap {
    /// Its topic.
    pub topic: String,
    /// Its key.
    #[serde(default)]
    pub sub_name: String,
    /// The first of them.
    #[serde(default)]
    pub from: u64,
    /// The last of them.
    #[serde(default)]
    pub to: u64,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// A publish is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Published {
    /// Its topic.
    pub topic: String,
    /// Its place there.
    pub seq: u64,
    /// It had been published before under the same key.
    #[serde(default)]
    pub duplicate: bool,
    /// The mark of the publish.
    #[serde(rename = "ref", default)]
    pub reference: Option<u64>,
}

/// An ack is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Acked {
    /// Its topic.
    pub topic: String,
    /// Everything up to here is acked.
    #[serde(default)]
    pub seq: u64,
}

/// A subscription has ended here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Unsubscribed {
    /// Its topic.
    pub topic: String,
    /// Its key.
    #[serde(default)]
    pub sub_name: String,
    /// Why, if it was not asked for.
    pub reason: Option<String>,
}
