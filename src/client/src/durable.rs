//! The durable dialect of a client: publish, subscribe, ack, and what the server says. Knows frames.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ClientError;
use super::socket::{Received, Refusal, Socket, kind_of, read};

/// A connection to a durable mount.
#[derive(Debug)]
pub struct Durable(pub(super) Socket);

/// How a message is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Comes back in the answer, to know which of many it is of.
    pub reference: Option<u64>,
    /// The same key again publishes nothing new.
    pub idempotency_key: Option<&'a str>,
}

/// What is to be read, and from where on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subscribe {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: String,
    sub_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seek: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<u32>,
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
    /// Of a later version, by its name.
    Other(String),
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
    /// Everything up to here is acked.
    #[serde(default)]
    pub cursor: u64,
    /// What comes next.
    #[serde(default)]
    pub next_seq: u64,
    /// The last message that there is.
    #[serde(default)]
    pub last_seq: u64,
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
    #[serde(rename = "ref")]
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
    /// Why, if it was not asked for.
    pub reason: Option<String>,
}

#[derive(Serialize)]
struct PublishFrame<'a, T: ?Sized> {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    payload: &'a T,
}

#[derive(Serialize)]
struct Ack<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    sub_name: &'a str,
    seq: u64,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<u64>,
}

impl Durable {
    /// Publishes; the answer, [`DurableFrame::Published`] or a refusal, comes by `receive`. Many
    /// may be on their way.
    ///
    /// # Errors
    /// When the connection has ended or the payload cannot be JSON.
    pub fn publish<T: Serialize + ?Sized>(
        &mut self,
        topic: &str,
        payload: &T,
        how: Publish<'_>,
    ) -> Result<(), ClientError> {
        self.0.send(&PublishFrame {
            kind: "publish",
            topic,
            reference: how.reference,
            idempotency_key: how.idempotency_key,
            payload,
        })
    }

    /// Subscribes; the answer comes by `receive`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn subscribe(&mut self, subscribe: &Subscribe) -> Result<(), ClientError> {
        self.0.send(subscribe)
    }

    /// Acks everything up to `seq`. Nothing answers.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn ack(&mut self, topic: &str, sub_name: &str, seq: u64) -> Result<(), ClientError> {
        self.send_ack(topic, sub_name, (seq, None))
    }

    /// The same; [`DurableFrame::Acked`] comes when the cursor is on the disk.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn ack_surely(&mut self, topic: &str, sub_name: &str, seq: u64) -> Result<(), ClientError> {
        self.send_ack(topic, sub_name, (seq, Some(seq)))
    }

    fn send_ack(
        &mut self,
        topic: &str,
        sub_name: &str,
        (seq, reference): (u64, Option<u64>),
    ) -> Result<(), ClientError> {
        self.0.send(&Ack {
            kind: "ack",
            topic,
            sub_name,
            seq,
            reference,
        })
    }

    /// The next frame, however long that takes.
    ///
    /// # Errors
    /// When the connection has ended, or a frame is not understood.
    pub fn receive(&mut self) -> Result<Received<DurableFrame>, ClientError> {
        let text = self.0.receive()?;
        let kind = kind_of(&text)?;
        let frame = match kind.as_str() {
            "subscribed" => DurableFrame::Subscribed(read(&text)?),
            "message" => DurableFrame::Message(read(&text)?),
            "gap" => DurableFrame::Gap(read(&text)?),
            "pub_ack" => DurableFrame::Published(read(&text)?),
            "acked" => DurableFrame::Acked(read(&text)?),
            "unsubscribed" => DurableFrame::Unsubscribed(read(&text)?),
            "error" => DurableFrame::Refused(read(&text)?),
            _ => DurableFrame::Other(kind),
        };
        Ok(Received { text, frame })
    }

    /// Says goodbye and waits until the server has heard it, so that nothing sent is cut off.
    pub fn close(self) {
        self.0.close();
    }
}
