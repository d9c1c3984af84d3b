//! The handle on durable topics that user code holds: publish, subscribe as a stream, history.
//! Knows the broker's requests and answers; reaches a topic's home through `TopicsLink`.

mod subscription;

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::broker::durable::{
    Answer, Command, Gap, Message, NewMessage, NewMessages, Open, Refused, Retention,
    SubscriptionView, TopicRef, TopicView,
};
use crate::id::{HomedId, Partition, Seq, Tenant};

use super::send::{Connected, Reached, TenantScope};

pub use subscription::{Delivery, Subscription};

/// The way to the homes of durable topics.
pub(crate) trait TopicsLink: Send + Sync {
    /// How many partitions there are.
    fn partitions(&self) -> u16;
    /// A number for a stream, never given before.
    fn next_stream(&self) -> u64;
    /// Asks the home that a partition is.
    fn ask(&self, ask: Ask) -> Result<(), TopicError>;
}

/// A request on its way to a home.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) partition: Partition,
    pub(crate) tenant: Tenant,
    pub(crate) command: Command,
    pub(crate) by: By,
}

/// Who is answered.
#[derive(Debug)]
pub(crate) enum By {
    /// A call that waits for one answer.
    Once(oneshot::Sender<Answer>),
    /// A stream; its sender goes with its first request.
    Stream(u64, Option<mpsc::UnboundedSender<Answer>>),
}

/// Why a call on topics failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The home refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The payload could not be serialized.
    #[error("the payload cannot be serialized: {0}")]
    Serialize(#[from] serde_json::Error),
    /// A queue to another shard is full.
    #[error(
        "overloaded: the mailbox of a shard is full (limits.mailbox_descriptors_max, limits.outside_queue_max)"
    )]
    Overloaded,
    /// The tenant is unknown.
    #[error("no tenant: this task works for no caller; name one with `.tenant(\"demo\")`")]
    NoTenant,
    /// Durable topics are switched off.
    #[error("this server has no durable topics: durable.enabled = false")]
    Disabled,
    /// The server stops.
    #[error("the server is stopping")]
    Stopping,
}

/// Durable topics. Cheap to clone; usable on every thread.
#[derive(Clone)]
pub struct Topics {
    link: Arc<OnceLock<Arc<dyn TopicsLink>>>,
    scope: TenantScope,
    publisher: Arc<str>,
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Where published messages stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The topic's id.
    pub topic: HomedId,
    /// The seq of the first message.
    pub first_seq: Seq,
    /// The seq of the last one.
    pub last_seq: Seq,
    /// They had been published before under the same keys.
    pub duplicate: bool,
}

/// Messages of a topic, and what is missing from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In order.
    pub messages: Vec<Message>,
    /// Damaged places.
    pub gaps: Vec<Gap>,
}

impl Topics {
    /// Topics that lead nowhere until they are bound: services take them before shards are there.
    pub(crate) fn unbound() -> Self {
        Self {
            link: Arc::default(),
            scope: TenantScope::Caller,
            publisher: "".into(),
        }
    }

    /// Leads this handle and all its clones to the homes.
    pub(crate) fn bind(&self, link: Arc<dyn TopicsLink>) {
        let bound = self.link.set(link);
        assert!(
            bound.is_ok(),
            "topics are bound once, when their server starts"
        );
    }

    /// The same topics for one tenant, whoever calls.
    #[must_use]
    pub fn tenant(&self, tenant: Tenant) -> Self {
        Self {
            scope: TenantScope::One(tenant),
            ..self.clone()
        }
    }

    /// The same topics with a name that stands as publisher in what is published.
    #[must_use]
    pub fn publisher(&self, name: &str) -> Self {
        Self {
            publisher: name.into(),
            ..self.clone()
        }
    }

    /// Makes the topic `name`, or finds it; true if it was made.
    ///
    /// # Errors
    /// When the name or the number of topics exceeds a limit, or the disk is full or broken.
    pub async fn resolve(&self, name: &str) -> Result<(TopicView, bool), TopicError> {
        self.resolve_with(name, Retention::default()).await
    }

    /// The same; a topic that is made keeps what `retention` says.
    ///
    /// # Errors
    /// As [`Topics::resolve`].
    pub async fn resolve_with(
        &self,
        name: &str,
        retention: Retention,
    ) -> Result<(TopicView, bool), TopicError> {
        let (partition, _) = self.place(&TopicRef::Name(name.into()))?;
        let command = Command::ResolveTopic {
            name: name.into(),
            retention,
        };
        match self.ask(partition, command).await? {
            Answer::Topic { view, created } => Ok((view, created)),
            other => Err(refused(other)),
        }
    }

    /// One topic, by id or name.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn topic(&self, topic: &str) -> Result<TopicView, TopicError> {
        let (partition, topic) = self.place(&TopicRef::parse(topic))?;
        match self.ask(partition, Command::GetTopic { topic }).await? {
            Answer::Topic { view, .. } => Ok(view),
            other => Err(refused(other)),
        }
    }

    /// The first `limit` topics by name, behind `after`.
    ///
    /// # Errors
    /// When a home cannot be asked.
    pub async fn list(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TopicView>, TopicError> {
        let after: Option<Arc<str>> = after.map(Into::into);
        let command = || Command::ListTopics {
            after: after.clone(),
            limit,
        };
        let mut views = Vec::new();
        for answer in self.ask_all(command).await? {
            match answer {
                Answer::Topics(page) => views.extend(page),
                other => return Err(refused(other)),
            }
        }
        views.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        views.truncate(limit);
        Ok(views)
    }

    /// Changes what an existing topic keeps; done when that is on the disk. What is too much by
    /// then goes as retention always does, and subscribers who had not read it get a gap.
    ///
    /// # Errors
    /// When the topic does not exist, or the disk is broken.
    pub async fn change_retention(
        &self,
        topic: &str,
        retention: Retention,
    ) -> Result<TopicView, TopicError> {
        let (partition, topic) = self.place(&TopicRef::parse(topic))?;
        let command = Command::ChangeRetention { topic, retention };
        match self.ask(partition, command).await? {
            Answer::Topic { view, .. } => Ok(view),
            other => Err(refused(other)),
        }
    }

    /// Ends a topic with all its messages and subscriptions.
    ///
    /// # Errors
    /// When it does not exist, or the disk is broken.
    pub async fn delete(&self, topic: &str) -> Result<(), TopicError> {
        let (partition, topic) = self.place(&TopicRef::parse(topic))?;
        match self.ask(partition, Command::DeleteTopic { topic }).await? {
            Answer::Deleted => Ok(()),
            other => Err(refused(other)),
        }
    }

    /// Publishes a message; done when it is on the disk.
    ///
    /// # Errors
    /// When the topic does not exist, a limit is reached, or the disk is full or broken.
    pub async fn publish<T: Serialize + ?Sized>(
        &self,
        topic: &str,
        payload: &T,
    ) -> Result<Published, TopicError> {
        self.publish_all(topic, [new_message(payload)?]).await
    }

    /// Publishes a message once, however often it is tried with the same key.
    ///
    /// # Errors
    /// As [`Topics::publish`], and when the key stands for another payload.
    pub async fn publish_once<T: Serialize + ?Sized>(
        &self,
        topic: &str,
        key: &str,
        payload: &T,
    ) -> Result<Published, TopicError> {
        let message = NewMessage {
            idempotency_key: Some(key.into()),
            ..new_message(payload)?
        };
        self.publish_all(topic, [message]).await
    }

    /// Publishes messages one behind the other: all of them or none.
    ///
    /// # Errors
    /// As [`Topics::publish`].
    pub async fn publish_all(
        &self,
        topic: &str,
        messages: impl IntoIterator<Item = NewMessage>,
    ) -> Result<Published, TopicError> {
        let (partition, topic) = self.place(&TopicRef::parse(topic))?;
        let messages: NewMessages = messages.into_iter().collect();
        let publisher = Arc::clone(&self.publisher);
        let command = Command::Publish {
            topic,
            publisher,
            messages,
        };
        match self.ask(partition, command).await? {
            Answer::Published {
                topic,
                first_seq,
                last_seq,
                duplicate,
            } => Ok(Published {
                topic,
                first_seq,
                last_seq,
                duplicate,
            }),
            other => Err(refused(other)),
        }
    }

    /// Messages from `from_seq` on, at most `limit` and as many bytes as one answer may have.
    ///
    /// # Errors
    /// When the topic does not exist.
    pub async fn history(
        &self,
        topic: &str,
        from_seq: Seq,
        limit: u32,
    ) -> Result<History, TopicError> {
        let (partition, topic) = self.place(&TopicRef::parse(topic))?;
        let command = Command::ReadMessages {
            topic,
            from_seq,
            limit,
        };
        match self.ask(partition, command).await? {
            Answer::Messages { messages, gaps, .. } => Ok(History { messages, gaps }),
            other => Err(refused(other)),
        }
    }

    /// Binds the subscription `sub_name` of a topic. Its messages come as a stream; what is not
    /// acked comes again to whoever binds it next.
    ///
    /// # Errors
    /// When the topic does not exist, or a limit is reached.
    pub async fn subscribe(
        &self,
        topic: &str,
        sub_name: &str,
        open: Open,
    ) -> Result<Subscription, TopicError> {
        let (partition, topic) = self.place(&TopicRef::parse(topic))?;
        let link = Arc::clone(self.link()?);
        let sub_name = sub_name.into();
        let command = Command::Subscribe {
            topic,
            sub_name,
            open,
        };
        Subscription::open((link, partition, self.one_tenant()?), command).await
    }

    /// Subscriptions of the tenant, of one topic or with one name if that is given.
    ///
    /// # Errors
    /// When the topic does not exist.
    pub async fn subscriptions(
        &self,
        topic: Option<&str>,
        sub_name: Option<&str>,
        (after, limit): (Option<HomedId>, usize),
    ) -> Result<Vec<SubscriptionView>, TopicError> {
        let placed = topic
            .map(|topic| self.place(&TopicRef::parse(topic)))
            .transpose()?;
        let sub_name: Option<Arc<str>> = sub_name.map(Into::into);
        let command = |topic| {
            let sub_name = sub_name.clone();
            Command::ListSubscriptions {
                topic,
                sub_name,
                after,
                limit,
            }
        };
        let answers = match placed {
            Some((partition, topic)) => vec![self.ask(partition, command(Some(topic))).await?],
            None => self.ask_all(|| command(None)).await?,
        };
        let mut views = Vec::new();
        for answer in answers {
            match answer {
                Answer::Subscriptions(page) => views.extend(page),
                other => return Err(refused(other)),
            }
        }
        views.sort_unstable_by_key(|view| view.id);
        views.truncate(limit);
        Ok(views)
    }

    /// One subscription.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn subscription(
        &self,
        subscription: HomedId,
    ) -> Result<SubscriptionView, TopicError> {
        self.ask_about(subscription, Command::GetSubscription { subscription })
            .await
    }

    /// Moves a cursor, so that `from_seq` comes next; done when that is on the disk.
    ///
    /// # Errors
    /// When the subscription does not exist, or `from_seq` is behind the end.
    pub async fn move_subscription(
        &self,
        subscription: HomedId,
        from_seq: Seq,
    ) -> Result<SubscriptionView, TopicError> {
        let command = Command::MoveSubscription {
            subscription,
            from_seq,
        };
        self.ask_about(subscription, command).await
    }

    /// Removes a subscription and its cursor.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn delete_subscription(&self, subscription: HomedId) -> Result<(), TopicError> {
        let partition = subscription.partition(self.link()?.partitions());
        match self
            .ask(partition, Command::DeleteSubscription { subscription })
            .await?
        {
            Answer::Deleted => Ok(()),
            other => Err(refused(other)),
        }
    }

    async fn ask_about(
        &self,
        subscription: HomedId,
        command: Command,
    ) -> Result<SubscriptionView, TopicError> {
        let partition = subscription.partition(self.link()?.partitions());
        match self.ask(partition, command).await? {
            Answer::Subscription(view) => Ok(view),
            other => Err(refused(other)),
        }
    }

    fn link(&self) -> Result<&Arc<dyn TopicsLink>, TopicError> {
        self.link.get().ok_or(TopicError::Disabled)
    }

    /// Durable topics always belong to one tenant.
    fn one_tenant(&self) -> Result<Tenant, TopicError> {
        match self.scope.resolve(false, || Connected::Many) {
            Ok(Reached::One(tenant)) => Ok(tenant),
            _ => Err(TopicError::NoTenant),
        }
    }

    /// The home of a topic; names and ids take the same path.
    fn place(&self, topic: &TopicRef) -> Result<(Partition, TopicRef), TopicError> {
        let partitions = self.link()?.partitions();
        let partition = match topic {
            TopicRef::Id(id) => id.partition(partitions),
            TopicRef::Name(name) => Partition::of(&self.one_tenant()?, name, partitions),
        };
        Ok((partition, topic.clone()))
    }

    fn send(
        &self,
        partition: Partition,
        command: Command,
    ) -> Result<oneshot::Receiver<Answer>, TopicError> {
        let (sender, receiver) = oneshot::channel();
        let (tenant, by) = (self.one_tenant()?, By::Once(sender));
        self.link()?.ask(Ask {
            partition,
            tenant,
            command,
            by,
        })?;
        Ok(receiver)
    }

    async fn ask(&self, partition: Partition, command: Command) -> Result<Answer, TopicError> {
        let answer = self.send(partition, command)?;
        answer.await.map_err(|_| TopicError::Stopping)
    }

    async fn ask_all(&self, command: impl Fn() -> Command) -> Result<Vec<Answer>, TopicError> {
        let mut waiting = Vec::new();
        for partition in 0..self.link()?.partitions() {
            waiting.push(self.send(Partition(partition), command())?);
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            answers.push(answer.await.map_err(|_| TopicError::Stopping)?);
        }
        Ok(answers)
    }
}

fn new_message<T: Serialize + ?Sized>(payload: &T) -> Result<NewMessage, TopicError> {
    let payload = Bytes::from(serde_json::to_vec(payload)?);
    Ok(NewMessage {
        payload,
        idempotency_key: None,
    })
}

fn refused(answer: Answer) -> TopicError {
    match answer {
        Answer::Refused { refused, .. } => TopicError::Refused(refused),
        _ => TopicError::Stopping,
    }
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Topics {
    type Rejection = std::convert::Infallible;

    /// Every request carries the topics of its server; their tenant is that of the caller.
    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        let topics = parts.extensions.get::<Self>().cloned();
        Ok(topics.unwrap_or_else(Self::unbound))
    }
}
