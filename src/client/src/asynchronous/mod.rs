//! The same connections on tokio: what is said and remembered is that of the blocking client, and
//! waiting leaves the thread to others. `receive` may be given up at any time, as in a `select!`,
//! and loses nothing; a time-out is that of tokio.
//!
//! ```no_run
//! # mod tidegate { pub(super) use tidegate_client as client; }
//! use tidegate::client::asynchronous::Durable;
//! use tidegate::client::{Client, DurableFrame, Reconnect, Subscribe};
//!
//! # async fn read(client: Client) -> Result<(), tidegate::client::ClientError> {
//! let client = client.reconnecting(Reconnect::default());
//! let mut orders = Durable::connect(&client, "/v1/ws").await?;
//! orders.subscribe(&Subscribe::new("orders", "billing").from_seq(0)).await?;
//! loop {
//!     if let DurableFrame::Message(message) = orders.receive().await?.frame {
//!         println!("{} {}", message.seq, message.payload);
//!         orders.ack(&message.topic, "billing", message.seq).await?;
//!     }
//! }
//! # }
//! ```

mod line;

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::book::Book;
use super::events::{answer, said};
use super::line::Heard;
use super::relay::{PING, asked, ends_topic, heard, message, surely};
use super::socket::{Received, read};
use super::{
    Client, ClientError, DurableFrame, EventFrame, Present, Publish, RelayFrame, Subscribe,
};
use line::Line;

/// A connection to a durable mount.
#[derive(Debug)]
pub struct Durable {
    line: Line,
    book: Book,
}

impl Durable {
    /// Connects to a durable mount, `/v1/ws` by default.
    ///
    /// # Errors
    /// When there is none, or the token is not accepted.
    pub async fn connect(client: &Client, path: &str) -> Result<Self, ClientError> {
        let line = Line::open(client, path, "tidegate.durable.v1").await?;
        Ok(Self {
            book: Book::new(line.is_lasting()),
            line,
        })
    }

    /// Publishes, as [`crate::Durable::publish`].
    ///
    /// # Errors
    /// As there.
    pub async fn publish<T: Serialize + ?Sized>(
        &mut self,
        topic: &str,
        payload: &T,
        how: Publish<'_>,
    ) -> Result<(), ClientError> {
        let text = self.book.publish(topic, payload, how)?;
        let is_sent = self.line.send(text).await?;
        self.book.sent(is_sent);
        Ok(())
    }

    /// Subscribes; the answer comes by `receive`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn subscribe(&mut self, subscribe: &Subscribe) -> Result<(), ClientError> {
        let text = self.book.subscribe(subscribe)?;
        self.line.send(text).await.map(|_| ())
    }

    /// Ends a subscription here; the cursor stays on the server.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn unsubscribe(&mut self, topic: &str, sub_name: &str) -> Result<(), ClientError> {
        let text = self.book.unsubscribe(topic, sub_name)?;
        self.line.send(text).await.map(|_| ())
    }

    /// Acks everything up to `seq`, as [`crate::Durable::ack`].
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn ack(&mut self, topic: &str, sub_name: &str, seq: u64) -> Result<(), ClientError> {
        match self.book.ack((topic, sub_name), seq, false)? {
            Some(text) => self.line.send(text).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// The next frame, however long that takes.
    ///
    /// # Errors
    /// When the connection has ended, or a frame is not understood.
    pub async fn receive(&mut self) -> Result<Received<DurableFrame>, ClientError> {
        match self.line.receive().await? {
            Heard::Lost(reason) => Ok(self.book.lost(reason)),
            Heard::Back | Heard::Nothing => {
                for text in self.book.again()? {
                    self.line.queue(text);
                }
                Ok(Received::untold(DurableFrame::Back))
            }
            Heard::Text(text) => {
                let received = self.book.handle(text)?;
                if matches!(&received.frame, DurableFrame::Other(kind) if kind == "token_expiring")
                {
                    self.line.renew();
                }
                Ok(received)
            }
        }
    }

    /// Says goodbye and waits until the server has heard it.
    pub async fn close(self) {
        self.line.close().await;
    }
}

/// A connection to a relay mount.
#[derive(Debug)]
pub struct Relay {
    line: Line,
    topics: Vec<String>,
}

impl Relay {
    /// Connects to a relay mount, `/ws` by default.
    ///
    /// # Errors
    /// When there is none, or the token is not accepted.
    pub async fn connect(client: &Client, path: &str) -> Result<Self, ClientError> {
        Ok(Self {
            line: Line::open(client, path, "tidegate.relay.v1").await?,
            topics: Vec::new(),
        })
    }

    /// Subscribes; the answer comes by `receive`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn subscribe(&mut self, topic: &str) -> Result<(), ClientError> {
        if self.line.is_lasting() && !self.topics.iter().any(|known| known == topic) {
            self.topics.push(topic.to_owned());
        }
        self.line.send(asked("subscribe", topic)).await.map(|_| ())
    }

    /// Leaves a topic; the answer comes by `receive`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn unsubscribe(&mut self, topic: &str) -> Result<(), ClientError> {
        self.topics.retain(|known| known != topic);
        self.line
            .send(asked("unsubscribe", topic))
            .await
            .map(|_| ())
    }

    /// Gives a message to the topic's handler; where there is none, everybody gets it.
    ///
    /// # Errors
    /// When the connection has ended or is lost, or the payload cannot be JSON.
    pub async fn send<T: Serialize + ?Sized>(
        &mut self,
        topic: &str,
        event: &str,
        payload: &T,
    ) -> Result<(), ClientError> {
        surely(self.line.send(message(topic, event, payload)?).await)
    }

    /// Asks for a [`RelayFrame::Pong`].
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn ping(&mut self) -> Result<(), ClientError> {
        surely(self.line.send(PING.to_owned()).await)
    }

    /// The next frame, however long that takes.
    ///
    /// # Errors
    /// When the connection has ended, or a frame is not understood.
    pub async fn receive(&mut self) -> Result<Received<RelayFrame>, ClientError> {
        let text = match self.line.receive().await? {
            Heard::Text(text) => text,
            Heard::Lost(reason) => return Ok(Received::untold(RelayFrame::Lost(reason))),
            Heard::Back | Heard::Nothing => {
                for topic in &self.topics {
                    self.line.queue(asked("subscribe", topic));
                }
                return Ok(Received::untold(RelayFrame::Back));
            }
        };
        let received = heard(text)?;
        match &received.frame {
            RelayFrame::Other(kind) if kind == "token_expiring" => self.line.renew(),
            RelayFrame::Refused(refusal) if ends_topic(refusal) => {
                let topic = refusal.topic.as_deref();
                self.topics.retain(|known| Some(known.as_str()) != topic);
            }
            _ => {}
        }
        Ok(received)
    }

    /// Says goodbye and waits until the server has heard it.
    pub async fn close(self) {
        self.line.close().await;
    }
}

/// A connection to a gateway.
#[derive(Debug)]
pub struct Events {
    line: Line,
    asked: u64,
    aside: std::collections::VecDeque<Received<EventFrame>>,
}

impl Events {
    /// Connects to the gateway at this path.
    ///
    /// # Errors
    /// When there is none, or the token is not accepted.
    pub async fn connect(client: &Client, path: &str) -> Result<Self, ClientError> {
        Ok(Self {
            line: Line::open(client, path, "tidegate.event.v1").await?,
            asked: 0,
            aside: std::collections::VecDeque::new(),
        })
    }

    /// Sends an event that nobody answers.
    ///
    /// # Errors
    /// When the connection has ended or is lost, or the data cannot be JSON.
    pub async fn emit<T: Serialize + ?Sized>(
        &mut self,
        event: &str,
        data: &T,
    ) -> Result<(), ClientError> {
        surely(self.line.send(said(event, data, None)?).await)
    }

    /// Sends an event and waits for its answer, as [`crate::Events::request`].
    ///
    /// # Errors
    /// As there.
    pub async fn request<T: Serialize + ?Sized>(
        &mut self,
        event: &str,
        data: &T,
        within: Duration,
    ) -> Result<Box<RawValue>, ClientError> {
        self.asked += 1;
        let id = self.asked;
        surely(self.line.send(said(event, data, Some(id))?).await)?;
        let answered = tokio::time::timeout(within, self.answer_to(id)).await;
        answered.unwrap_or_else(|_| {
            Err(ClientError::Timeout {
                what: format!("answer to `{event}`"),
                limit: within,
            })
        })
    }

    async fn answer_to(&mut self, id: u64) -> Result<Box<RawValue>, ClientError> {
        loop {
            let received = self.next().await?;
            match received.frame {
                EventFrame::Event(event) if event.id == Some(Value::from(id)) => {
                    return answer(event);
                }
                EventFrame::Lost(_) => {
                    self.aside.push_back(received);
                    return Err(ClientError::Lost);
                }
                _ => {
                    // A caller who only asks and never receives keeps the last of what came.
                    if ASIDE_MAX <= self.aside.len() {
                        self.aside.pop_front();
                    }
                    self.aside.push_back(received);
                }
            }
        }
    }

    /// The next event, however long that takes.
    ///
    /// # Errors
    /// When the connection has ended, or a frame is not understood.
    pub async fn receive(&mut self) -> Result<Received<EventFrame>, ClientError> {
        match self.aside.pop_front() {
            Some(received) => Ok(received),
            None => self.next().await,
        }
    }

    async fn next(&mut self) -> Result<Received<EventFrame>, ClientError> {
        Ok(match self.line.receive().await? {
            Heard::Lost(reason) => Received::untold(EventFrame::Lost(reason)),
            Heard::Back | Heard::Nothing => Received::untold(EventFrame::Back),
            Heard::Text(text) => {
                let frame = EventFrame::Event(read(&text)?);
                Received { text, frame }
            }
        })
    }

    /// Says goodbye and waits until the server has heard it.
    pub async fn close(self) {
        self.line.close().await;
    }
}

/// The id of a durable topic, as [`Client::topic`], on a thread for what blocks.
///
/// # Errors
/// As there.
pub async fn topic(client: &Client, name: &str) -> Result<String, ClientError> {
    let (client, name) = (client.clone(), name.to_owned());
    line::blocking(move || client.topic(&name)).await
}

/// Pushes to a relay topic, as [`Client::push`].
///
/// # Errors
/// As there.
pub async fn push<T: Serialize + ?Sized>(
    client: &Client,
    topic: &str,
    event: &str,
    payload: &T,
) -> Result<(), ClientError> {
    let payload = serde_json::value::to_raw_value(payload).map_err(ClientError::Payload)?;
    let (client, topic, event) = (client.clone(), topic.to_owned(), event.to_owned());
    line::blocking(move || client.push(&topic, &event, &payload)).await
}

/// Who is present in a relay topic, as [`Client::presence`].
///
/// # Errors
/// As there.
pub async fn presence(client: &Client, topic: &str) -> Result<Vec<Present>, ClientError> {
    let (client, topic) = (client.clone(), topic.to_owned());
    line::blocking(move || client.presence(&topic)).await
}

/// Events that wait for a `receive` while answers are waited for.
const ASIDE_MAX: usize = 1024;
