//! Questions to clients: what is asked, how long, and what came back. Always with a bound on the time:
//! a client that never answers must not hold a handler for ever. Knows no wire.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::gateway::arguments;
use crate::gateway::client::WsClient;
use crate::gateway::engine::push::Push;
use crate::gateway::send::SendError;
use crate::gateway::server::To;
use crate::id::ConnId;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The time was over.
    #[error("the client did not answer in time")]
    TimedOut,
    /// The connection has ended.
    #[error("the client is gone")]
    Gone,
    /// The answer is of another shape.
    #[error("the answer cannot be read: {0}")]
    Payload(String),
    /// The connection owes `socketio.acks_pending_max` answers.
    #[error("the client owes as many answers as socketio.acks_pending_max allows")]
    Full,
    /// The connection speaks no dialect that has answers.
    #[error("the client speaks no dialect with answers")]
    NotSpoken,
    /// It could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// The arguments of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedOf {
    /// As JSON, with the commas between them.
    pub args: Box<[u8]>,
    /// The bytes in them.
    pub attachments: Vec<Bytes>,
}

impl AskedOf {
    fn read<R: DeserializeOwned>(&self) -> Result<R, AskError> {
        let first = arguments::first_of(&self.args);
        arguments::reading(&self.args, &self.attachments, || {
            serde_json::from_slice(first).map_err(|error| AskError::Payload(error.to_string()))
        })
    }
}

/// What one shard's part of a room answered.
#[derive(Debug, Default)]
pub struct RoomAnswers {
    /// Who answered what.
    pub replies: Vec<(ConnId, AskedOf)>,
    /// Who did not in time.
    pub missing: Vec<ConnId>,
}

/// The answers of many.
#[derive(Debug)]
pub struct Answers<R> {
    /// Who answered what.
    pub replies: Vec<(ConnId, R)>,
    /// Who did not in time, or something of another shape.
    pub missing: Vec<ConnId>,
}

/// A question to one client, asked when it is awaited.
pub struct Ask<R> {
    client: WsClient,
    push: serde_json::Result<Push>,
    ms: Option<u64>,
    answer: PhantomData<fn() -> R>,
}

impl<R> Ask<R> {
    pub(crate) fn new(client: WsClient, push: serde_json::Result<Push>) -> Self {
        Self {
            client,
            push,
            ms: None,
            answer: PhantomData,
        }
    }

    /// Waits for `ms` milliseconds in place of `socketio.ack_ms_default`.
    #[must_use]
    pub fn timeout(mut self, ms: u64) -> Self {
        self.ms = Some(ms);
        self
    }
}

impl<R: DeserializeOwned + 'static> IntoFuture for Ask<R> {
    type Output = Result<R, AskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self {
            client, push, ms, ..
        } = self;
        let asked = push
            .map_err(|error| AskError::Send(error.into()))
            .and_then(|push| client.begin_ask(push, ms));
        Box::pin(async move {
            let answer = asked?;
            match answer.await {
                Ok(answer) => answer?.read(),
                Err(_) => Err(AskError::Gone),
            }
        })
    }
}

impl<R> fmt::Debug for Ask<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// A question to all members of a room, or to everybody.
pub struct AskAll<R> {
    to: To,
    push: serde_json::Result<Push>,
    ms: Option<u64>,
    answer: PhantomData<fn() -> R>,
}

impl<R> AskAll<R> {
    pub(crate) fn new(to: To, push: serde_json::Result<Push>) -> Self {
        Self {
            to,
            push,
            ms: None,
            answer: PhantomData,
        }
    }

    /// Waits for `ms` milliseconds in place of `socketio.ack_ms_default`.
    #[must_use]
    pub fn timeout(mut self, ms: u64) -> Self {
        self.ms = Some(ms);
        self
    }
}

impl<R: DeserializeOwned + Send + 'static> IntoFuture for AskAll<R> {
    type Output = Result<Answers<R>, AskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { to, push, ms, .. } = self;
        let asked = push
            .map_err(|error| AskError::Send(error.into()))
            .and_then(|push| Ok(to.begin_ask(&push, ms)?));
        Box::pin(async move {
            let mut all = Answers {
                replies: Vec::new(),
                missing: Vec::new(),
            };
            for part in asked? {
                let Ok(part) = part.await else { continue };
                all.missing.extend(part.missing);
                for (id, answer) in part.replies {
                    match answer.read() {
                        Ok(answer) => all.replies.push((id, answer)),
                        Err(_) => all.missing.push(id),
                    }
                }
            }
            Ok(all)
        })
    }
}

impl<R> fmt::Debug for AskAll<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskAll")
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

/// Where one client's answer comes.
pub(crate) type Asked = oneshot::Receiver<Result<AskedOf, AskError>>;

/// Waits for an answer of this shard's, at most so long.
pub(crate) async fn within(
    ms: u64,
    answer: oneshot::Receiver<AskedOf>,
) -> Result<AskedOf, AskError> {
    match tokio::time::timeout(Duration::from_millis(ms), answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(AskError::Gone),
        Err(_) => Err(AskError::TimedOut),
    }
}
