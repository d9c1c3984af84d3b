//! The event dialect of a client: named events both ways, answers by `id`. Knows frames.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::ClientError;
use super::line::{Deadline, Heard, Line};
use super::relay::surely;
use super::socket::{Received, read, text_of};

/// A connection to a gateway.
#[derive(Debug)]
pub struct Events {
    line: Line,
    asked: u64,
    /// What came while an answer was waited for.
    aside: VecDeque<Received<EventFrame>>,
}

/// What the server says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EventFrame {
    /// An event of its own accord, or an answer that nobody waits for any longer.
    Event(Event),
    /// The connection is lost, and why. What the server says until it is back is missed.
    Lost(String),
    /// There is a connection again.
    Back,
}

/// An event.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// Its name.
    pub event: String,
    /// What it carries, as it was written.
    pub data: Box<RawValue>,
    /// The mark of the question that it answers.
    #[serde(default)]
    pub id: Option<Value>,
}

#[derive(Serialize)]
struct Said<'a, T: ?Sized> {
    event: &'a str,
    data: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
}

#[derive(Deserialize)]
struct Failure {
    error: String,
    #[serde(default)]
    code: Option<Value>,
}

/// The text of an event.
pub(super) fn said<T: Serialize + ?Sized>(
    event: &str,
    data: &T,
    id: Option<u64>,
) -> Result<String, ClientError> {
    text_of(&Said { event, data, id })
}

/// Whether an answer is a failure.
pub(super) fn answer(event: Event) -> Result<Box<RawValue>, ClientError> {
    match serde_json::from_str::<Failure>(event.data.get()) {
        Ok(failure) => Err(ClientError::Event {
            event: event.event,
            error: failure.error,
            code: failure.code,
        }),
        Err(_) => Ok(event.data),
    }
}

impl Events {
    pub(super) fn on(line: Line) -> Self {
        Self {
            line,
            asked: 0,
            aside: VecDeque::new(),
        }
    }

    /// Sends an event that nobody answers.
    ///
    /// # Errors
    /// When the connection has ended or is lost, or the data cannot be JSON.
    pub fn emit<T: Serialize + ?Sized>(
        &mut self,
        event: &str,
        data: &T,
    ) -> Result<(), ClientError> {
        surely(self.line.send(said(event, data, None)?))
    }

    /// Sends an event and waits for its answer. What else comes meanwhile is given by the next
    /// `receive`.
    ///
    /// # Errors
    /// As [`Events::emit`]; when the handler fails ([`ClientError::Event`]), and when there is no
    /// answer within this time.
    pub fn request<T: Serialize + ?Sized>(
        &mut self,
        event: &str,
        data: &T,
        within: Duration,
    ) -> Result<Box<RawValue>, ClientError> {
        self.asked += 1;
        let id = self.asked;
        let until = Deadline::after(within);
        surely(self.line.send(said(event, data, Some(id))?))?;
        loop {
            let Some(received) = self.next(until)? else {
                return Err(ClientError::Timeout {
                    what: format!("answer to `{event}`"),
                    limit: within,
                });
            };
            match received.frame {
                EventFrame::Event(event) if event.id == Some(Value::from(id)) => {
                    return answer(event);
                }
                EventFrame::Lost(_) => {
                    self.set_aside(received);
                    return Err(ClientError::Lost);
                }
                _ => self.set_aside(received),
            }
        }
    }

    /// A caller who only asks and never receives keeps the last of what came.
    fn set_aside(&mut self, received: Received<EventFrame>) {
        if ASIDE_MAX <= self.aside.len() {
            self.aside.pop_front();
        }
        self.aside.push_back(received);
    }

    /// The next event, however long that takes.
    ///
    /// # Errors
    /// When the connection has ended, or a frame is not understood.
    pub fn receive(&mut self) -> Result<Received<EventFrame>, ClientError> {
        loop {
            if let Some(received) = self.take(Deadline::Never)? {
                return Ok(received);
            }
        }
    }

    /// The next event, if one comes within this time.
    ///
    /// # Errors
    /// As [`Events::receive`].
    pub fn receive_within(
        &mut self,
        time: Duration,
    ) -> Result<Option<Received<EventFrame>>, ClientError> {
        self.take(Deadline::after(time))
    }

    fn take(&mut self, until: Deadline) -> Result<Option<Received<EventFrame>>, ClientError> {
        match self.aside.pop_front() {
            Some(received) => Ok(Some(received)),
            None => self.next(until),
        }
    }

    fn next(&mut self, until: Deadline) -> Result<Option<Received<EventFrame>>, ClientError> {
        Ok(match self.line.receive(until)? {
            Heard::Nothing => None,
            Heard::Lost(reason) => Some(Received::untold(EventFrame::Lost(reason))),
            Heard::Back => Some(Received::untold(EventFrame::Back)),
            Heard::Text(text) => {
                let frame = EventFrame::Event(read(&text)?);
                Some(Received { text, frame })
            }
        })
    }

    /// Says goodbye and waits until the server has heard it, so that nothing sent is cut off.
    pub fn close(self) {
        self.line.close();
    }
}

/// Events that wait for a `receive` while answers are waited for.
const ASIDE_MAX: usize = 1024;
