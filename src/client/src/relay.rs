//! The relay dialect of a client: subscribe, send, and what the server pushes. Knows frames.

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::ClientError;
use super::socket::{Received, Refusal, Socket, kind_of, read};

/// A connection to a relay mount.
#[derive(Debug)]
pub struct Relay(pub(super) Socket);

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
    /// Asks to hear a topic; the answer comes by `receive`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn subscribe(&mut self, topic: &str) -> Result<(), ClientError> {
        self.0.send(&json!({ "type": "subscribe", "topic": topic }))
    }

    /// Asks to hear it no more; the answer comes by `receive`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn unsubscribe(&mut self, topic: &str) -> Result<(), ClientError> {
        self.0
            .send(&json!({ "type": "unsubscribe", "topic": topic }))
    }

    /// Gives a message to the topic's handler; where there is none, everybody gets it.
    ///
    /// # Errors
    /// When the connection has ended or the payload cannot be JSON.
    pub fn send<T: Serialize + ?Sized>(
        &mut self,
        topic: &str,
        event: &str,
        payload: &T,
    ) -> Result<(), ClientError> {
        self.0.send(&Said {
            kind: "message",
            topic,
            event,
            payload,
        })
    }

    /// Asks for a [`RelayFrame::Pong`].
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.0.send(&json!({ "type": "ping" }))
    }

    /// The next frame, however long that takes.
    ///
    /// # Errors
    /// When the connection has ended, or a frame is not understood.
    pub fn receive(&mut self) -> Result<Received<RelayFrame>, ClientError> {
        let text = self.0.receive()?;
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

    /// Says goodbye and waits until the server has heard it, so that nothing sent is cut off.
    pub fn close(self) {
        self.0.close();
    }
}
