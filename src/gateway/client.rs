//! `WsClient`: one open connection, as handlers and services hold it. Cheap to clone, usable from
//! any thread. What it sends reaches its own tenant and registry, whoever calls.

use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tracing::Span;

use crate::auth::{Caller, CurrentUser};
use crate::broker::ConnKey;
use crate::gateway::ask::{Ask, AskError, Asked};
use crate::gateway::engine::outlet::{Fate, Order};
use crate::gateway::engine::pool::Pool;
use crate::gateway::engine::push::Push;
use crate::gateway::engine::registries::Registries;
use crate::gateway::engine::spans;
use crate::gateway::send::SendError;
use crate::gateway::server::{Registry, Scope};
use crate::id::{ConnId, Tenant};
use crate::proto::CloseCode;
use crate::proto::http::Head;

/// What a peer sent to become a connection.
#[derive(Debug)]
pub struct Handshake {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Its request.
    pub head: Head,
    /// The subprotocol that was agreed on.
    pub subprotocol: Option<Box<str>>,
}

pub use crate::gateway::reason::Reason;

/// One open connection.
#[derive(Clone)]
pub struct WsClient {
    inner: Arc<Inner>,
}

struct Inner {
    /// Why it ended, once it has.
    reason: AtomicU8,
    /// What it said when it joined a namespace.
    auth: Option<Box<Value>>,
    id: ConnId,
    key: ConnKey,
    caller: Arc<Caller>,
    handshake: Arc<Handshake>,
    registry: Arc<dyn Registry>,
    span: Span,
}

impl WsClient {
    /// Enters a connection of this shard into a registry; it has a number from then on.
    pub fn connect(
        here: &Registries,
        key: ConnKey,
        registry: Arc<dyn Registry>,
        caller: Arc<Caller>,
        handshake: Arc<Handshake>,
    ) -> Self {
        Self::join_with(here, key, registry, (caller, handshake, None))
    }

    /// The same for one namespace of Socket.IO, with what was said to join it.
    pub(crate) fn join_with(
        here: &Registries,
        key: ConnKey,
        registry: Arc<dyn Registry>,
        (caller, handshake, auth): (Arc<Caller>, Arc<Handshake>, Option<Box<Value>>),
    ) -> Self {
        let pool = registry.pool();
        let id = pool.next_id();
        assert_eq!(
            key.shard,
            here.shard(),
            "a connection is entered where it lives"
        );
        here.connect(pool.index(), id, key, &caller.tenant);
        let span = spans::of_connection(registry.name(), id, &caller, &handshake);
        let inner = Inner {
            reason: AtomicU8::new(0),
            auth,
            span,
            id,
            key,
            caller,
            handshake,
            registry,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Takes the connection out of its registry and out of all of its rooms.
    pub fn disconnected(&self, here: &Registries) {
        here.disconnect(self.pool().index(), self.id(), self.tenant());
    }

    /// Its number in its registry: from 1, never used again in a run.
    pub fn id(&self) -> ConnId {
        self.inner.id
    }

    /// To this connection; `false` if it is gone or does not drain its messages.
    ///
    /// # Errors
    /// When `data` has no JSON, or the queue to its shard is full.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<bool, SendError> {
        self.give(Push::event(event, data)?)
    }

    /// To this connection, in its own time: waits while it has not read most of what it was sent
    /// before, so that a stream goes as fast as its reader. `false` if it is gone.
    ///
    /// A push with [`emit`](Self::emit) may be shed meanwhile, this is not; replies to other
    /// events find room beside it.
    ///
    /// # Errors
    /// When `data` has no JSON, or the queue to its shard is full.
    pub fn stream<T: Serialize + ?Sized>(
        &self,
        event: &str,
        data: &T,
    ) -> impl Future<Output = Result<bool, SendError>> + Send + use<T> {
        let push = Push::event(event, data);
        let client = self.clone();
        async move { client.give_in_time(push?).await }
    }

    /// To this connection, any JSON: it need not be an envelope.
    ///
    /// # Errors
    /// When `value` has no JSON, or the queue to its shard is full.
    pub fn send_json(&self, value: &(impl Serialize + ?Sized)) -> Result<bool, SendError> {
        self.give(Push::raw(value)?)
    }

    /// To the members of a room, this connection too if it is one. It need not be one.
    ///
    /// # Errors
    /// When `data` has no JSON, or a queue to another shard is full.
    pub fn to(
        &self,
        room: &str,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<usize, SendError> {
        self.scope().emit_to(room, event, data)
    }

    /// To every connection of the registry, this one too.
    ///
    /// # Errors
    /// When `data` has no JSON, or a queue to another shard is full.
    pub fn broadcast(
        &self,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<usize, SendError> {
        self.scope().broadcast(event, data)
    }

    /// Becomes a member of a room; to be one already changes nothing. Away from its shard the call
    /// only asks for that, and a send to the room may come before it.
    ///
    /// # Errors
    /// When it is in `rooms_per_connection_max` rooms, the name is empty or too long, or the queue to
    /// its shard is full.
    pub fn join(&self, room: &str) -> Result<(), SendError> {
        match self.here() {
            Some(here) => Ok(here.join(self.pool().index(), self.id(), room)?),
            None => self.order(Order::Join {
                id: self.id(),
                room: room.into(),
            }),
        }
    }

    /// Leaves a room; to be out of it already changes nothing.
    ///
    /// # Errors
    /// When the queue to its shard is full.
    pub fn leave(&self, room: &str) -> Result<(), SendError> {
        match self.here() {
            Some(here) => {
                here.leave(self.pool().index(), self.id(), room);
                Ok(())
            }
            None => self.order(Order::Leave {
                id: self.id(),
                room: room.into(),
            }),
        }
    }

    /// The rooms that it is in. Only its own handlers and hooks can know: elsewhere it is empty.
    pub fn rooms(&self) -> Vec<Arc<str>> {
        let here = self.here();
        here.map(|here| here.rooms_of(self.pool().index(), self.id()))
            .unwrap_or_default()
    }

    /// Ends the connection: a close frame with this code and reason follows what is queued already.
    /// `CloseCode::own(4000)` is one of the program's own.
    ///
    /// # Errors
    /// When the queue to its shard is full.
    pub fn disconnect(&self, code: CloseCode, reason: &str) -> Result<(), SendError> {
        match self.here() {
            Some(here) => {
                here.close(self.inner.key, code.get(), reason);
                Ok(())
            }
            None => self.order(Order::Close {
                connection: self.inner.key,
                code: code.get(),
                reason: reason.into(),
            }),
        }
    }

    /// Ends what it has in its namespace of Socket.IO; the client does not come back by itself. On
    /// another dialect the connection ends.
    ///
    /// # Errors
    /// When the queue to its shard is full.
    pub fn disconnect_nsp(&self) -> Result<(), SendError> {
        let connection = self.inner.key;
        match self.here() {
            Some(here) => {
                here.leave_namespace(connection);
                Ok(())
            }
            None => self.order(Order::LeaveNamespace { connection }),
        }
    }

    /// Ends the connection without a word, as a broken line would.
    ///
    /// # Errors
    /// When the queue to its shard is full.
    pub fn abort(&self) -> Result<(), SendError> {
        let connection = self.inner.key;
        match self.here() {
            Some(here) => {
                here.abort(connection);
                Ok(())
            }
            None => self.order(Order::Abort { connection }),
        }
    }

    /// Asks it, and waits for its answer: `client.ask::<u32>("count", &()).timeout(500).await`.
    pub fn ask<R>(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Ask<R> {
        Ask::new(self.clone(), Push::event(event, data))
    }

    pub(crate) fn begin_ask(&self, push: Push, ms: Option<u64>) -> Result<Asked, AskError> {
        let (sender, answer) = oneshot::channel();
        let connection = self.inner.key;
        match self.here() {
            Some(here) => {
                let asked = here.ask(connection, &push, ms)?;
                tokio::task::spawn_local(async move { sender.send(asked.await).ok() });
            }
            None => self.order(Order::Ask {
                connection,
                push,
                ms,
                answer: sender,
            })?,
        }
        Ok(answer)
    }

    /// To the members of a room without this connection, which need not be one.
    ///
    /// # Errors
    /// When `data` has no JSON, or a queue to another shard is full.
    pub fn to_others(
        &self,
        room: &str,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<usize, SendError> {
        self.scope().room(room).except(self.id()).emit(event, data)
    }

    /// What it said when it joined its namespace of Socket.IO; `null` where it said nothing.
    pub fn auth(&self) -> &Value {
        self.inner.auth.as_deref().unwrap_or(&Value::Null)
    }

    /// The name by which clients of Socket.IO know it.
    pub fn sid(&self) -> String {
        self.pool().sid_of(self.id())
    }

    /// Why it has ended, in its hook for that.
    pub fn reason(&self) -> Reason {
        Reason::of(self.inner.reason.load(Ordering::Relaxed))
    }

    pub(crate) fn note_reason(&self, reason: Reason) {
        self.inner.reason.store(reason as u8, Ordering::Relaxed);
    }

    /// Its registry as its tenant sees it, for sends that leave somebody out or count everybody.
    pub fn scope(&self) -> Scope {
        Scope::of(self.pool(), self.tenant())
    }

    /// Its registry, without the marker.
    pub fn registry(&self) -> &Arc<dyn Registry> {
        &self.inner.registry
    }

    /// Where it comes from: what a proxy of `server.trusted_proxies` told, else its peer.
    pub fn peer(&self) -> SocketAddr {
        self.inner.handshake.peer
    }

    /// The same address without the port, which is 0 where a proxy told none.
    pub fn ip(&self) -> IpAddr {
        self.peer().ip()
    }

    /// The first header of this name in its handshake.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.handshake.head.header(name)
    }

    /// All headers of its handshake, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inner.handshake.head.headers()
    }

    /// The request that it came with.
    pub fn head(&self) -> &Head {
        &self.inner.handshake.head
    }

    /// Its tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.inner.caller.tenant
    }

    /// All claims of its token.
    pub fn claims(&self) -> &serde_json::Map<String, Value> {
        &self.inner.caller.claims
    }

    /// Who it is.
    pub fn user(&self) -> CurrentUser {
        CurrentUser::from(&*self.inner.caller)
    }

    /// Who it is, as the token said.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.inner.caller
    }

    /// The subprotocol that was agreed on, as the answer to its request named it.
    pub fn subprotocol(&self) -> Option<&str> {
        self.inner.handshake.subprotocol.as_deref()
    }

    pub(crate) fn handshake(&self) -> &Handshake {
        &self.inner.handshake
    }

    /// The span that its hooks and messages belong to.
    pub(crate) fn span(&self) -> &Span {
        &self.inner.span
    }

    /// What tells it from all connections of all registries, those that are gone too.
    pub(crate) fn key(&self) -> ConnKey {
        self.inner.key
    }

    /// Puts a push into its outbox.
    pub(crate) fn give_push(&self, push: Push) {
        self.give(push).ok();
    }

    fn pool(&self) -> &Arc<Pool> {
        self.inner.registry.pool()
    }

    /// The registries of this thread, if they hold this connection.
    fn here(&self) -> Option<std::rc::Rc<Registries>> {
        Registries::here_for(self.pool()).filter(|here| here.shard() == self.inner.key.shard)
    }

    fn give(&self, push: Push) -> Result<bool, SendError> {
        match self.here() {
            Some(here) => Ok(here.give(self.inner.key, &push) == Fate::Accepted),
            None => {
                self.order(Order::Give {
                    connection: self.inner.key,
                    push,
                })?;
                Ok(true)
            }
        }
    }

    async fn give_in_time(&self, push: Push) -> Result<bool, SendError> {
        let key = self.inner.key;
        if self.here().is_none() {
            let (taken, answer) = oneshot::channel();
            self.order(Order::Stream {
                connection: key,
                push,
                taken,
            })?;
            return Ok(answer.await.unwrap_or(false));
        }
        let fate = poll_fn(|context| match self.here() {
            Some(here) => here.poll_give(key, &push, context.waker()),
            None => Poll::Ready(Fate::Gone),
        });
        Ok(fate.await == Fate::Accepted)
    }

    fn order(&self, order: Order) -> Result<(), SendError> {
        self.pool().post(self.inner.key.shard, order)
    }
}

impl PartialEq for WsClient {
    /// The same connection: the same number in the same registry.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for WsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsClient")
            .field("id", &self.inner.id)
            .field("registry", &self.inner.registry.name())
            .field("tenant", &self.inner.caller.tenant)
            .finish_non_exhaustive()
    }
}
