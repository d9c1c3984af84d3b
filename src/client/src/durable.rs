//! The durable dialect of a client: publish, subscribe, ack, and what the server says. Knows when
//! what is sent; `book.rs` knows what.

use std::time::Duration;

use serde::Serialize;

use super::ClientError;
use super::book::Book;
use super::frames::{DurableFrame, Publish, Subscribe};
use super::line::{Deadline, Heard, Line};
use super::socket::Received;

/// A connection to a durable mount.
#[derive(Debug)]
pub struct Durable {
    line: Line,
    book: Book,
}

impl Durable {
    pub(super) fn on(line: Line) -> Self {
        Self {
            book: Book::new(line.is_lasting()),
            line,
        }
    }

    /// Publishes; the answer, [`DurableFrame::Published`] or a refusal, comes by `receive`. Many
    /// may be on their way. On a connection that comes back each has a mark of its own on the wire,
    /// and the answer carries that of `how` again.
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
        let text = self.book.publish(topic, payload, how)?;
        let is_sent = self.line.send(text)?;
        self.book.sent(is_sent);
        Ok(())
    }

    /// Subscribes; the answer comes by `receive`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn subscribe(&mut self, subscribe: &Subscribe) -> Result<(), ClientError> {
        let text = self.book.subscribe(subscribe)?;
        self.line.send(text).map(|_| ())
    }

    /// Ends a subscription here; the cursor stays on the server. The answer,
    /// [`DurableFrame::Unsubscribed`], comes by `receive`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn unsubscribe(&mut self, topic: &str, sub_name: &str) -> Result<(), ClientError> {
        let text = self.book.unsubscribe(topic, sub_name)?;
        // Without a connection there is nothing to leave.
        self.line.send(text).map(|_| ())
    }

    /// Acks everything up to `seq`. Nothing answers, and what is acked while the connection is lost
    /// comes again; a connection that came back acks only what it has delivered itself.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn ack(&mut self, topic: &str, sub_name: &str, seq: u64) -> Result<(), ClientError> {
        self.send_ack((topic, sub_name), seq, false)
    }

    /// The same; [`DurableFrame::Acked`] comes when the cursor is on the disk.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn ack_surely(&mut self, topic: &str, sub_name: &str, seq: u64) -> Result<(), ClientError> {
        self.send_ack((topic, sub_name), seq, true)
    }

    fn send_ack(
        &mut self,
        of: (&str, &str),
        seq: u64,
        is_answered: bool,
    ) -> Result<(), ClientError> {
        match self.book.ack(of, seq, is_answered)? {
            Some(text) => self.line.send(text).map(|_| ()),
            None => Ok(()),
        }
    }

    /// The next frame, however long that takes.
    ///
    /// # Errors
    /// When the connection has ended, or a frame is not understood.
    pub fn receive(&mut self) -> Result<Received<DurableFrame>, ClientError> {
        loop {
            if let Some(received) = self.next(Deadline::Never)? {
                return Ok(received);
            }
        }
    }

    /// The next frame, if one comes within this time. Nothing is lost where none does.
    ///
    /// # Errors
    /// As [`Durable::receive`].
    pub fn receive_within(
        &mut self,
        time: Duration,
    ) -> Result<Option<Received<DurableFrame>>, ClientError> {
        self.next(Deadline::after(time))
    }

    fn next(&mut self, until: Deadline) -> Result<Option<Received<DurableFrame>>, ClientError> {
        match self.line.receive(until)? {
            Heard::Nothing => Ok(None),
            Heard::Lost(reason) => Ok(Some(self.book.lost(reason))),
            Heard::Back => {
                for text in self.book.again()? {
                    self.line.send(text)?;
                }
                Ok(Some(Received::untold(DurableFrame::Back)))
            }
            Heard::Text(text) => {
                let received = self.book.handle(text)?;
                if matches!(&received.frame, DurableFrame::Other(kind) if kind == "token_expiring")
                {
                    self.line.renew()?;
                }
                Ok(Some(received))
            }
        }
    }

    /// Says goodbye and waits until the server has heard it, so that nothing sent is cut off.
    pub fn close(self) {
        self.line.close();
    }
}
