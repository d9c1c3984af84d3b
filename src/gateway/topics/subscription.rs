//! A bound subscription as a stream. It is bounded by its window and by the credit that it gives
//! back as it is read: a stream that nobody polls costs at most its window. Knows no shard.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::broker::durable::{Answer, Command, Ended, Gap, Message, Subscribed, TopicRef};
use crate::id::{Partition, Seq, Tenant};

use super::{Ask, By, TopicError, TopicsLink, refused};

/// The home's end of a stream.
struct Remote {
    link: Arc<dyn TopicsLink>,
    partition: Partition,
    tenant: Tenant,
    id: u64,
}

impl Remote {
    fn send(
        &self,
        command: Command,
        sender: Option<mpsc::UnboundedSender<Answer>>,
    ) -> Result<(), TopicError> {
        let (partition, tenant) = (self.partition, self.tenant.clone());
        let by = By::Stream(self.id, sender);
        self.link.ask(Ask {
            partition,
            tenant,
            command,
            by,
        })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // If the home cannot be told now, it finds the stream closed when it next has a message.
        let _ = self.send(Command::Disconnect, None);
    }
}

/// A bound subscription: a stream of its messages. Dropping it ends the binding and keeps the
/// cursor.
pub struct Subscription {
    remote: Remote,
    answers: mpsc::UnboundedReceiver<Answer>,
    info: Subscribed,
    /// Bytes that were read and not yet given back as credit.
    owed: u64,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// What a subscription brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The next message.
    Message {
        /// The message.
        message: Message,
        /// It may have been delivered before.
        redelivered: bool,
    },
    /// In place of messages that will not come.
    Gap(Gap),
    /// The binding has ended; nothing follows.
    Ended(Ended),
}

impl Delivery {
    /// Reads a message's payload as JSON; `None` for a gap.
    ///
    /// # Errors
    /// When the payload has another shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        match self {
            Self::Message { message, .. } => serde_json::from_slice(&message.payload).map(Some),
            Self::Gap(_) | Self::Ended(_) => Ok(None),
        }
    }
}

impl Subscription {
    pub(super) async fn open(
        (link, partition, tenant): (Arc<dyn TopicsLink>, Partition, Tenant),
        subscribe: Command,
    ) -> Result<Self, TopicError> {
        let (sender, mut answers) = mpsc::unbounded_channel();
        let id = link.next_stream();
        let remote = Remote {
            link,
            partition,
            tenant,
            id,
        };
        remote.send(
            Command::Credit {
                bytes: STREAM_CREDIT_BYTES,
            },
            Some(sender),
        )?;
        remote.send(subscribe, None)?;
        match answers.recv().await {
            Some(Answer::Subscribed(info)) => Ok(Self {
                remote,
                answers,
                info: *info,
                owed: 0,
            }),
            Some(other) => Err(refused(other)),
            None => Err(TopicError::Stopping),
        }
    }

    /// What the subscription was when it was bound.
    pub fn info(&self) -> &Subscribed {
        &self.info
    }

    /// Acks everything through `seq`.
    ///
    /// # Errors
    /// When the home cannot be told.
    pub fn ack(&self, seq: Seq) -> Result<(), TopicError> {
        let topic = TopicRef::Id(self.info.topic);
        let sub_name = Arc::clone(&self.info.sub_name);
        self.remote.send(
            Command::Ack {
                topic,
                sub_name,
                seq,
            },
            None,
        )
    }

    /// The next message, gap or end; `None` when nothing more can come.
    pub async fn next(&mut self) -> Option<Delivery> {
        std::future::poll_fn(|cx| self.poll_delivery(cx)).await
    }

    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            let answer = match self.answers.poll_recv(cx) {
                Poll::Ready(Some(answer)) => answer,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            };
            match answer {
                Answer::Message {
                    message,
                    redelivered,
                    ..
                } => {
                    self.give_back(message.cost());
                    return Poll::Ready(Some(Delivery::Message {
                        message,
                        redelivered,
                    }));
                }
                Answer::Gap { gap, .. } => return Poll::Ready(Some(Delivery::Gap(gap))),
                Answer::Unsubscribed { reason, .. } => {
                    self.answers.close();
                    return Poll::Ready(Some(Delivery::Ended(reason)));
                }
                // A refused ack changes nothing that a reader could act on.
                _ => {}
            }
        }
    }

    fn give_back(&mut self, bytes: u64) {
        self.owed += bytes;
        if STREAM_CREDIT_BYTES / 4 <= self.owed {
            let credit = Command::Credit { bytes: self.owed };
            if self.remote.send(credit, None).is_ok() {
                self.owed = 0;
            }
        }
    }
}

impl Stream for Subscription {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.poll_delivery(cx)
    }
}

/// Bytes on their way to one stream.
const STREAM_CREDIT_BYTES: u64 = 256 * 1024;
