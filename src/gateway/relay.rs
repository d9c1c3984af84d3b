//! The handle on relay topics that user code holds: push, presence. Knows frames
//! and the broker's relay; reaches a topic's home through `RelayLink`.
//!
//! A call takes effect when it is made; what it returns may be awaited, and need not be.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::auth::{Caller, MayPublish, MaySubscribe};
use crate::broker::presence::PresenceEntry;
use crate::broker::relay::{Home, Joining, Push, Pushed, Refusal};
use crate::id::{ConnId, Tenant};
use crate::proto::{frame, relay as wire};

use super::send::{Reached, SendError, TenantScope};

/// Something that is done where a topic lives.
pub(crate) type HomeJob = Box<dyn FnOnce(&mut Home) + Send>;

/// The way to the homes of relay topics.
pub(crate) trait RelayLink: Send + Sync {
    /// Runs `job` at the home of a topic: at once if that is here.
    fn at_home(&self, tenant: &Tenant, topic: &str, job: HomeJob) -> Result<(), SendError>;
    /// Runs a job at every home.
    fn at_every_home(&self, job: &dyn Fn() -> HomeJob) -> Result<(), SendError>;
    /// A number for a visitor, which no connection has.
    fn next_conn_id(&self) -> ConnId;
    /// Whether the mount has one tenant for all.
    fn is_shared(&self) -> bool;
}

tokio::task_local! {
    /// The join whose handler is running: what it pushes to its own topic is held.
    pub(crate) static JOINING: Joining;
}

/// Pushes to relay topics and tells who is present. Cheap to clone; usable on every thread.
#[derive(Clone)]
pub struct Relay {
    link: Link,
    scope: TenantScope,
}

/// How a relay finds the homes of topics.
#[derive(Clone)]
enum Link {
    /// The server has no relay mount.
    None,
    Known(Arc<dyn RelayLink>),
    /// Services are built before the server is: they find it when it runs, and do not keep it.
    Late(Arc<OnceLock<Weak<dyn RelayLink>>>),
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// The outcome of a call that has already taken effect.
#[must_use = "the call has taken effect; await it, or `drop` it to say that its outcome does not matter"]
#[derive(Debug)]
pub struct Asked<T>(State<T>);

#[derive(Debug)]
enum State<T> {
    Known(Option<Result<T, SendError>>),
    Waiting(oneshot::Receiver<T>),
}

impl<T> Asked<T> {
    fn known(outcome: Result<T, SendError>) -> Self {
        Self(State::Known(Some(outcome)))
    }
}

impl<T: Unpin> Future for Asked<T> {
    type Output = Result<T, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Known(outcome) => {
                Poll::Ready(outcome.take().unwrap_or(Err(SendError::Stopping)))
            }
            State::Waiting(receiver) => {
                let poll = Pin::new(receiver).poll(cx);
                poll.map(|answer| answer.map_err(|_| SendError::Stopping))
            }
        }
    }
}

impl Relay {
    pub(crate) fn new(link: Option<Arc<dyn RelayLink>>) -> Self {
        Self {
            link: link.map_or(Link::None, Link::Known),
            scope: TenantScope::Caller,
        }
    }

    /// The relay of a server that is still to be made.
    pub(crate) fn late() -> Self {
        Self {
            link: Link::Late(Arc::default()),
            scope: TenantScope::Caller,
        }
    }

    /// Tells a late relay its server's, which must be kept. Only the first call has an effect.
    pub(crate) fn find(&self, known: &Self) {
        if let (Link::Late(late), Link::Known(link)) = (&self.link, &known.link) {
            late.get_or_init(|| Arc::downgrade(link));
        }
    }

    /// The same relay for one tenant, whoever calls.
    pub fn tenant(&self, tenant: Tenant) -> Self {
        Self {
            link: self.link.clone(),
            scope: TenantScope::One(tenant),
        }
    }

    /// The same relay for all tenants. Only pushes can go to all.
    pub fn all_tenants(&self) -> Self {
        Self {
            link: self.link.clone(),
            scope: TenantScope::All,
        }
    }

    fn link(&self) -> Result<Arc<dyn RelayLink>, SendError> {
        match &self.link {
            Link::None => Err(SendError::NoRelay),
            Link::Known(link) => Ok(Arc::clone(link)),
            Link::Late(late) => {
                let link = late.get().ok_or(SendError::NoRelay)?;
                link.upgrade().ok_or(SendError::Stopping)
            }
        }
    }

    fn reached(&self) -> Result<(Arc<dyn RelayLink>, Reached), SendError> {
        let link = self.link()?;
        let reached = self.scope.resolve(link.is_shared())?;
        Ok((link, reached))
    }

    /// Pushes an event to everybody who is subscribed to `topic`. It succeeds where none is.
    ///
    /// # Errors
    /// When the payload does not serialize, no tenant is known, or a mailbox is full.
    pub fn push<T: Serialize + ?Sized>(&self, topic: &str, event: &str, payload: &T) -> Asked<()> {
        Asked::known(self.push_now(topic, event, payload))
    }

    fn push_now<T: Serialize + ?Sized>(
        &self,
        topic: &str,
        event: &str,
        payload: &T,
    ) -> Result<(), SendError> {
        // The user's serializer may itself push: it runs before anything is borrowed.
        let payload = serde_json::to_vec(payload)?;
        let frame = push_frame(topic, event, &payload);
        let joining = JOINING.try_with(Joining::clone).ok();
        let (link, reached) = self.reached()?;
        let by = match (joining, &reached) {
            (Some(Joining::Visitor(own)), Reached::One(tenant))
                if *own.name == *topic && own.tenant == *tenant =>
            {
                return Ok(());
            }
            // Lanes are numbered by each home for itself.
            (Some(Joining::Member(own, lane)), Reached::One(tenant))
                if *own.name == *topic && own.tenant == *tenant =>
            {
                Some(lane)
            }
            _ => None,
        };
        match reached {
            Reached::One(tenant) => {
                let (of, name) = (tenant.clone(), Box::<str>::from(topic));
                let job = move |home: &mut Home| home.handle_push(&of, &name, frame, by);
                link.at_home(&tenant, topic, Box::new(job))
            }
            Reached::All => link.at_every_home(&|| {
                let (name, frame) = (Box::<str>::from(topic), frame.clone());
                Box::new(move |home| home.handle_push_all(&name, &frame))
            }),
        }
    }

    /// Pushes for a caller from outside: where a handler takes the topic, as its visitor.
    pub(crate) fn push_as(
        &self,
        caller: &Arc<Caller>,
        topic: MayPublish<'_>,
        (event, payload): (&str, &RawValue),
    ) -> Asked<Result<Pushed, Refusal>> {
        let topic = topic.topic();
        let payload = payload.get().as_bytes();
        let (link, tenant) = match self.reached() {
            Ok((link, Reached::One(tenant))) => (link, tenant),
            Ok((_, Reached::All)) => return Asked::known(Err(SendError::NoTenant)),
            Err(error) => return Asked::known(Err(error)),
        };
        let push = Push {
            caller: Arc::clone(caller),
            conn_id: link.next_conn_id(),
            event: event.into(),
            payload: Bytes::copy_from_slice(payload),
            frame: push_frame(topic, event, payload),
        };
        let (done, receiver) = oneshot::channel();
        let (of, name) = (tenant.clone(), Box::<str>::from(topic));
        let done = |outcome| {
            // Whoever asked may have stopped waiting.
            let _ = done.send(outcome);
        };
        let job = move |home: &mut Home| home.handle_visit(&of, &name, push, Box::new(done));
        match link.at_home(&tenant, topic, Box::new(job)) {
            Ok(()) => Asked(State::Waiting(receiver)),
            Err(error) => Asked::known(Err(error)),
        }
    }

    /// Pushes for a caller from outside to whoever is subscribed, past any handler.
    pub(crate) fn push_past(
        &self,
        topic: MayPublish<'_>,
        (event, payload): (&str, &RawValue),
    ) -> Asked<u64> {
        let frame = push_frame(topic.topic(), event, payload.get().as_bytes());
        self.ask(topic.topic(), move |home, tenant, name| {
            let members = home.members(tenant, name);
            home.handle_push(tenant, name, frame, None);
            members
        })
    }

    /// Who is present, for a caller from outside.
    pub(crate) fn presence_for(&self, topic: MaySubscribe<'_>) -> Asked<Vec<PresenceEntry>> {
        self.presence(topic.topic())
    }

    /// Asks the home of a topic.
    fn ask<T: Send + 'static>(
        &self,
        topic: &str,
        ask: impl FnOnce(&mut Home, &Tenant, &str) -> T + Send + 'static,
    ) -> Asked<T> {
        let (link, tenant) = match self.reached() {
            Ok((link, Reached::One(tenant))) => (link, tenant),
            Ok((_, Reached::All)) => return Asked::known(Err(SendError::NoTenant)),
            Err(error) => return Asked::known(Err(error)),
        };
        let (sender, mut receiver) = oneshot::channel();
        let (of, name) = (tenant.clone(), Box::<str>::from(topic));
        let job = move |home: &mut Home| {
            // Whoever asked may have stopped waiting.
            let _ = sender.send(ask(home, &of, &name));
        };
        if let Err(error) = link.at_home(&tenant, topic, Box::new(job)) {
            return Asked::known(Err(error));
        }
        match receiver.try_recv() {
            Ok(answer) => Asked::known(Ok(answer)),
            Err(_) => Asked(State::Waiting(receiver)),
        }
    }

    /// Says that a subscriber of `topic` is present, with anything that serializes as `meta`.
    /// Whether it was one: who is not subscribed cannot be present. Cleaned up by itself.
    pub fn track(&self, topic: &str, conn_id: ConnId, meta: impl Serialize) -> Asked<bool> {
        match serde_json::to_value(meta) {
            Ok(meta) => self.ask(topic, move |home, tenant, name| {
                home.handle_track(tenant, name, conn_id, meta)
            }),
            Err(error) => Asked::known(Err(error.into())),
        }
    }

    /// Ends the presence of a connection; whether it was present. Usually not needed.
    pub fn untrack(&self, topic: &str, conn_id: ConnId) -> Asked<bool> {
        self.ask(topic, move |home, tenant, name| {
            home.handle_untrack(tenant, name, conn_id)
        })
    }

    /// Everybody who is present in `topic`.
    pub fn presence(&self, topic: &str) -> Asked<Vec<PresenceEntry>> {
        self.ask(topic, |home, tenant, name| home.presence(tenant, name))
    }

    /// How many are present in `topic`.
    pub fn presence_count(&self, topic: &str) -> Asked<usize> {
        self.ask(topic, |home, tenant, name| {
            home.presence_count(tenant, name)
        })
    }
}

/// One encoded push.
pub(crate) fn push_frame(topic: &str, event: &str, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(topic.len() + event.len() + payload.len() + 64);
    frame::put_text_with(&mut out, |out| wire::put_push(out, topic, event, payload));
    out.into()
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Relay {
    type Rejection = std::convert::Infallible;

    /// Every request carries the relay of its server; its tenant is that of the caller.
    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        Ok(parts
            .extensions
            .get::<Self>()
            .cloned()
            .unwrap_or_else(|| Self::new(None)))
    }
}
