//! The relay dialect of a client: subscribe, send, and what the server pushes. Knows frames.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::ClientError;
use super::line::{Deadline, Heard, Line};
use super::socket::{Received, Refusal, kind_of, read, text_of};

/// A connection to a relay mount.
#[derive(Debug)]
pub struct Relay {
    line: Line,
    /// What is subscribed to again on the next connection.
    topics: Vec<String>,
}

/// What the server says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RelayFrame {
    /// The connection hears this topic.
    Subscribed(String),
    /// It hears it no more.
    Unsubscribed(String),
    /// Something was pushed to a topic.
    Push(Push),
    /// So many pushes of a topic were lost, for this connection did not read.
    Lagged(String, u64),
    /// The connection is lost, and why. What is pushed until it is back is missed.
    Lost(String),
    /// There is a connection again, and the topics are subscribed to again.
    Back,
    /// The answer to a ping.
    Pong,
    /// Something was refused.
    Refused(Refusal),
    /// Of a later version, by its name.
    Other(String),
}

/// Something that was pushed to a topic.
#[derive(Debug, Clone, Deserialize)]
pub struct Push {
    /// The topic.
    pub topic: String,
    /// What happened.
    pub event: String,
    /// What is said of it, as it was written.
    pub payload: Box<RawValue>,
}

#[derive(Deserialize)]
struct About {
    topic: String,
    #[serde(default)]
    missed: u64,
}

#[derive(Serialize)]
struct Said<'a, T: ?Sized> {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    event: &'a str,
    payload: &'a T,
}

impl Relay {
    pub(super) fn on(line: Line) -> Self {
        let topics = Vec::new();
        Self { line, topics }
    }

    /// Asks to hear a topic; the answer comes by `receive`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn subscribe(&mut self, topic: &str) -> Result<(), ClientError> {
        if self.line.is_lasting() && !self.topics.iter().any(|known| known == topic) {
            self.topics.push(topic.to_owned());
        }
        self.ask("subscribe", topic).map(|_| ())
    }

    /// Asks to hear it no more; the answer comes by `receive`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn unsubscribe(&mut self, topic: &str) -> Result<(), ClientError> {
        self.topics.retain(|known| known != topic);
        // Without a connection there is nothing to leave.
        self.ask("unsubscribe", topic).map(|_| ())
    }

    fn ask(&mut self, kind: &str, topic: &str) -> Result<bool, ClientError> {
        self.line.send(asked(kind, topic))
    }

    /// Gives a message to the topic's handler; where there is none, everybody gets it.
    ///
    /// # Errors
    /// When the connection has ended or is lost, or the payload cannot be JSON.
    pub fn send<T: Serialize + ?Sized>(
        &mut self,
        topic: &str,
        event: &str,
        payload: &T,
    ) -> Result<(), ClientError> {
        surely(self.line.send(message(topic, event, payload)?))
    }

    /// Asks for a [`RelayFrame::Pong`].
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn ping(&mut self) -> Result<(), ClientError> {
        surely(self.line.send(PING.to_owned()))
    }

    /// The next frame, however long that takes.
    ///
    /// # Errors
    /// When the connection has ended, or a frame is not understood.
    pub fn receive(&mut self) -> Result<Received<RelayFrame>, ClientError> {
        loop {
            if let Some(received) = self.next(Deadline::Never)? {
                return Ok(received);
            }
        }
    }

    /// The next frame, if one comes within this time.
    ///
    /// # Errors
    /// As [`Relay::receive`].
    pub fn receive_within(
        &mut self,
        time: Duration,
    ) -> Result<Option<Received<RelayFrame>>, ClientError> {
        self.next(Deadline::after(time))
    }

    fn next(&mut self, until: Deadline) -> Result<Option<Received<RelayFrame>>, ClientError> {
        let text = match self.line.receive(until)? {
            Heard::Nothing => return Ok(None),
            Heard::Text(text) => text,
            Heard::Lost(reason) => return Ok(Some(Received::untold(RelayFrame::Lost(reason)))),
            Heard::Back => {
                for topic in std::mem::take(&mut self.topics) {
                    self.ask("subscribe", &topic)?;
                    self.topics.push(topic);
                }
                return Ok(Some(Received::untold(RelayFrame::Back)));
            }
        };
        let received = heard(text)?;
        match &received.frame {
            RelayFrame::Other(kind) if kind == "token_expiring" => self.line.renew()?,
            // What is refused now is refused after the next loss too.
            RelayFrame::Refused(refusal) if ends_topic(refusal) => {
                let topic = refusal.topic.as_deref();
                self.topics.retain(|known| Some(known.as_str()) != topic);
            }
            _ => {}
        }
        Ok(Some(received))
    }

    /// Says goodbye and waits until the server has heard it, so that nothing sent is cut off.
    pub fn close(self) {
        self.line.close();
    }
}

/// A question about a topic.
pub(super) fn asked(kind: &str, topic: &str) -> String {
    json!({ "type": kind, "topic": topic }).to_string()
}

/// A message to a topic.
pub(super) fn message<T: Serialize + ?Sized>(
    topic: &str,
    event: &str,
    payload: &T,
) -> Result<String, ClientError> {
    text_of(&Said {
        kind: "message",
        topic,
        event,
        payload,
    })
}

pub(super) const PING: &str = r#"{"type":"ping"}"#;

/// What the server said.
pub(super) fn heard(text: String) -> Result<Received<RelayFrame>, ClientError> {
    let kind = kind_of(&text)?;
    let about = || read::<About>(&text);
    let frame = match kind.as_str() {
        "push" => RelayFrame::Push(read(&text)?),
        "subscribed" => RelayFrame::Subscribed(about()?.topic),
        "unsubscribed" => RelayFrame::Unsubscribed(about()?.topic),
        "lagged" => about().map(|about| RelayFrame::Lagged(about.topic, about.missed))?,
        "pong" => RelayFrame::Pong,
        "error" => RelayFrame::Refused(read(&text)?),
        _ => RelayFrame::Other(kind),
    };
    Ok(Received { text, frame })
}

/// Whether it refuses a subscription, and not what was said to a topic.
pub(super) fn ends_topic(refusal: &Refusal) -> bool {
    let code = refusal.code.as_deref();
    matches!(
        code,
        Some("join_rejected" | "subscription_limit" | "unauthorized" | "forbidden")
    )
}

pub(super) fn surely(sent: Result<bool, ClientError>) -> Result<(), ClientError> {
    match sent? {
        true => Ok(()),
        false => Err(ClientError::Lost),
    }
}
