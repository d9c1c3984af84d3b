//! The durable dialect of a client: publish, subscribe, ack, and what the server says. Knows frames.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::ClientError;
use super::line::{Heard, Line};
use super::socket::{Received, Refusal, kind_of, read};

/// A connection to a durable mount.
#[derive(Debug)]
pub struct Durable {
    line: Line,
    /// What is bound again on the next connection.
    subscriptions: Vec<Subscribe>,
    /// Publishes without an answer, in their order.
    unanswered: VecDeque<Unanswered>,
}

/// A publish of a lasting connection without an answer.
#[derive(Debug)]
struct Unanswered {
    topic: String,
    reference: Option<u64>,
    /// The same again is the same message.
    has_key: bool,
    is_sent: bool,
    frame: Box<RawValue>,
}

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
    topic: String,
    sub_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seek: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
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
        }
    }

    /// The server may put the name of who asks before that of the subscription.
    fn is(&self, topic: &str, sub_name: &str) -> bool {
        self.topic == topic && sub_name.ends_with(&self.sub_name)
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
    /// with a key that were not answered are on their way again. What is acked from here on must
    /// have come from here on.
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
    /// Its key.
    #[serde(default)]
    pub sub_name: String,
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
    pub(super) fn on(line: Line) -> Self {
        Self {
            line,
            subscriptions: Vec::new(),
            unanswered: VecDeque::new(),
        }
    }

    /// Publishes; the answer, [`DurableFrame::Published`] or a refusal, comes by `receive`. Many
    /// may be on their way.
    ///
    /// # Errors
    /// When the connection has ended or the payload cannot be JSON; on a connection that comes
    /// back, when 1024 publishes have no answer.
    pub fn publish<T: Serialize + ?Sized>(
        &mut self,
        topic: &str,
        payload: &T,
        how: Publish<'_>,
    ) -> Result<(), ClientError> {
        let frame = PublishFrame {
            kind: "publish",
            topic,
            reference: how.reference,
            idempotency_key: how.idempotency_key,
            payload,
        };
        if !self.line.is_lasting() {
            return self.line.send(&frame).map(|_| ());
        }
        if UNANSWERED_MAX <= self.unanswered.len() {
            return Err(ClientError::Unanswered(self.unanswered.len()));
        }
        let frame = to_raw_value(&frame).map_err(ClientError::Payload)?;
        let is_sent = self.line.send(&frame)?;
        self.unanswered.push_back(Unanswered {
            topic: topic.to_owned(),
            reference: how.reference,
            has_key: how.idempotency_key.is_some(),
            is_sent,
            frame,
        });
        Ok(())
    }

    /// Subscribes; the answer comes by `receive`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn subscribe(&mut self, subscribe: &Subscribe) -> Result<(), ClientError> {
        if self.line.is_lasting() {
            let is_same = |known: &Subscribe| {
                known.topic == subscribe.topic && known.sub_name == subscribe.sub_name
            };
            self.subscriptions.retain(|known| !is_same(known));
            self.subscriptions.push(subscribe.clone());
        }
        self.line.send(subscribe).map(|_| ())
    }

    /// Acks everything up to `seq`. Nothing answers, and what is acked while the connection is lost
    /// comes again.
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
        let ack = Ack {
            kind: "ack",
            topic,
            sub_name,
            seq,
            reference,
        };
        self.line.send(&ack).map(|_| ())
    }

    /// The next frame, however long that takes.
    ///
    /// # Errors
    /// When the connection has ended, or a frame is not understood.
    pub fn receive(&mut self) -> Result<Received<DurableFrame>, ClientError> {
        let text = match self.line.receive()? {
            Heard::Text(text) => text,
            Heard::Lost(reason) => {
                let unknown = self.forget();
                let loss = DurableFrame::Lost(Loss { reason, unknown });
                return Ok(Received::untold(loss));
            }
            Heard::Back => {
                self.say_again()?;
                return Ok(Received::untold(DurableFrame::Back));
            }
        };
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
        self.note(&frame);
        Ok(Received { text, frame })
    }

    /// A publish is answered: by its mark the one, without one the first of its topic.
    fn settle(&mut self, topic: &str, reference: Option<u64>) {
        let is_it = |one: &Unanswered| one.topic == topic && one.reference == reference;
        if let Some(at) = self.unanswered.iter().position(is_it) {
            self.unanswered.remove(at);
        }
    }

    /// What went out without a key may be stored or not, and cannot go out again.
    fn forget(&mut self) -> Vec<Option<u64>> {
        let (lost, kept) = self
            .unanswered
            .drain(..)
            .partition::<Vec<_>, _>(|one| one.is_sent && !one.has_key);
        self.unanswered = kept.into();
        lost.into_iter().map(|one| one.reference).collect()
    }

    /// On a new connection: a failure here is its loss, which `receive` tells.
    fn say_again(&mut self) -> Result<(), ClientError> {
        for subscribe in &self.subscriptions {
            self.line.send(subscribe)?;
        }
        for publish in &mut self.unanswered {
            publish.is_sent = self.line.send(&publish.frame)?;
        }
        Ok(())
    }

    /// Keeps what a next connection has to say.
    fn note(&mut self, frame: &DurableFrame) {
        match frame {
            DurableFrame::Subscribed(subscribed) => {
                let is_it =
                    |known: &&mut Subscribe| known.is(&subscribed.topic, &subscribed.sub_name);
                if let Some(bound) = self.subscriptions.iter_mut().find(is_it) {
                    // From now on its cursor says where it goes on.
                    bound.from_seq = None;
                    bound.seek = None;
                    bound.epoch = subscribed.epoch;
                }
            }
            DurableFrame::Unsubscribed(ended) => {
                let sub_name = ended.sub_name.as_str();
                self.subscriptions
                    .retain(|known| !known.is(&ended.topic, sub_name));
            }
            DurableFrame::Published(published) => {
                self.settle(&published.topic, published.reference);
            }
            DurableFrame::Refused(refusal) => {
                // One that names a subscription is not about a publish.
                if let (Some(topic), None) = (&refusal.topic, &refusal.sub_name) {
                    let reference = refusal.reference.as_ref();
                    self.settle(topic, reference.and_then(serde_json::Value::as_u64));
                }
            }
            _ => {}
        }
    }

    /// Says goodbye and waits until the server has heard it, so that nothing sent is cut off.
    pub fn close(self) {
        self.line.close();
    }
}

/// As many as a server takes from one connection (`limits.publishes_in_flight_max`).
const UNANSWERED_MAX: usize = 1024;
