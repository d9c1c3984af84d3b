//! `WsServer<N>`: one registry of connections and rooms, chosen by a marker type, and the sends
//! that need no client at hand. Whoever sends reaches the tenant of the caller it acts for, or
//! one that it names; where neither is known nothing is sent.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::broker::registry::{Rooms, Target};
use crate::gateway::ask::{AskAll, RoomAnswers};
use crate::gateway::engine::chosen::{Sent, Whom};
use crate::gateway::engine::container::short_name;
use crate::gateway::engine::outlet::Order;
use crate::gateway::engine::pool::Pool;
use crate::gateway::engine::push::{Manner, Push};
use crate::gateway::engine::registries::{Delivery, Registries};
use crate::gateway::send::{Reached, SendError, TenantScope};
use crate::id::{ConnId, Tenant};

/// The registry of gateways that name none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Global;

/// A registry without its marker: what a client holds, so that no handler's signature shows `N`.
pub trait Registry: Send + Sync + fmt::Debug {
    /// What the registry shares over all shards.
    fn pool(&self) -> &Arc<Pool>;

    /// The name of its marker.
    fn name(&self) -> &str {
        self.pool().name()
    }
}

/// The registry chosen by the marker `N`, a plain unit struct; [`Global`] where none is named.
/// Inject it as `Arc<WsServer<N>>` to push without a client at hand.
///
/// A send takes effect when it is called. What it answers at once is how many outboxes of the
/// caller's own shard took the frame; the `_total` forms wait for those of all shards.
pub struct WsServer<N: 'static = Global> {
    pool: Arc<Pool>,
    marker: PhantomData<fn() -> N>,
}

impl<N: 'static> WsServer<N> {
    pub(crate) fn new(index: u16) -> Self {
        let name = short_name(type_name::<N>());
        Self {
            pool: Pool::new(index, name),
            marker: PhantomData,
        }
    }

    /// To every connection of the registry; answers how many outboxes of this shard took it.
    ///
    /// # Errors
    /// When `data` has no JSON, the tenant is unknown, or a queue to another shard is full.
    pub fn broadcast(
        &self,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<usize, SendError> {
        self.caller().broadcast(event, data)
    }

    /// To the members of a room; answers how many outboxes of this shard took it.
    ///
    /// # Errors
    /// When `data` has no JSON, the tenant is unknown, or a queue to another shard is full.
    pub fn emit_to(
        &self,
        room: &str,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<usize, SendError> {
        self.caller().emit_to(room, event, data)
    }

    /// To every connection of the registry, as [`broadcast`](Self::broadcast) does (P-10). One
    /// connection is chosen by [`client`](Self::client).
    ///
    /// # Errors
    /// When `data` has no JSON, the tenant is unknown, or a queue to another shard is full.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<usize, SendError> {
        self.caller().broadcast(event, data)
    }

    /// Chooses one connection by its id, or by a name a room, or where no room has that name the
    /// connection whose id is written so.
    pub fn to(&self, whom: impl Into<Addressee>) -> To {
        self.caller().to(whom)
    }

    /// Chooses one connection, whatever rooms are called.
    pub fn client(&self, id: ConnId) -> To {
        self.caller().client(id)
    }

    /// Chooses a room, whatever ids there are.
    pub fn room(&self, name: impl ToString) -> To {
        self.caller().room(name)
    }

    /// Chooses every connection, to leave somebody out.
    pub fn everyone(&self) -> To {
        self.caller().everyone()
    }

    /// Counts the open connections of the caller's tenant, on all shards.
    ///
    /// # Errors
    /// When the tenant is unknown and several are connected.
    pub fn connection_count(&self) -> Result<usize, SendError> {
        self.caller().try_connection_count()
    }

    /// The same registry for one tenant, whoever calls.
    pub fn tenant(&self, tenant: Tenant) -> Scope {
        self.scope(TenantScope::One(tenant))
    }

    /// The same registry for all tenants at once.
    pub fn all_tenants(&self) -> Scope {
        self.scope(TenantScope::All)
    }

    fn caller(&self) -> Scope {
        self.scope(TenantScope::Caller)
    }

    fn scope(&self, reach: TenantScope) -> Scope {
        Scope {
            pool: self.pool.clone(),
            reach,
        }
    }
}

impl<N: 'static> Registry for WsServer<N> {
    fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl<N: 'static> Clone for WsServer<N> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            marker: PhantomData,
        }
    }
}

impl<N: 'static> fmt::Debug for WsServer<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WsServer").field(&self.pool.name()).finish()
    }
}

/// A registry as one tenant, or all of them, see it.
#[derive(Debug, Clone)]
pub struct Scope {
    pool: Arc<Pool>,
    reach: TenantScope,
}

impl Scope {
    pub(crate) fn of(pool: &Arc<Pool>, tenant: &Tenant) -> Self {
        Self {
            pool: pool.clone(),
            reach: TenantScope::One(tenant.clone()),
        }
    }

    /// To every connection; answers how many outboxes of this shard took it.
    ///
    /// # Errors
    /// When `data` has no JSON, the tenant is unknown, or a queue to another shard is full.
    pub fn broadcast(
        &self,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<usize, SendError> {
        self.send(&Whom::EVERYONE, &Push::event(event, data)?)
    }

    /// To every connection; waits until all shards have said how many took it.
    ///
    /// # Errors
    /// When `data` has no JSON, the tenant is unknown, or a queue to another shard is full.
    pub async fn broadcast_total(
        &self,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<usize, SendError> {
        let sent = self.send_counted(&Whom::EVERYONE, &Push::event(event, data)?);
        sent?.total().await
    }

    /// To the members of a room; answers how many outboxes of this shard took it.
    ///
    /// # Errors
    /// When `data` has no JSON, the tenant is unknown, or a queue to another shard is full.
    pub fn emit_to(
        &self,
        room: &str,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<usize, SendError> {
        self.send(&Whom::room(room), &Push::event(event, data)?)
    }

    /// To every connection, as [`broadcast`](Self::broadcast) does.
    ///
    /// # Errors
    /// When `data` has no JSON, the tenant is unknown, or a queue to another shard is full.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<usize, SendError> {
        self.broadcast(event, data)
    }

    /// Chooses one connection by its id, or by a name a room, or where no room has that name the
    /// connection whose id is written so.
    pub fn to(&self, whom: impl Into<Addressee>) -> To {
        self.chosen(match whom.into() {
            Addressee::Client(id) => Chosen::Client(id),
            Addressee::Name(name) => Chosen::Name(name),
        })
    }

    /// Chooses a room, whatever else has that name.
    pub fn room(&self, name: impl ToString) -> To {
        self.chosen(Chosen::Room(name.to_string()))
    }

    /// Chooses one connection.
    pub fn client(&self, id: ConnId) -> To {
        self.chosen(Chosen::Client(id))
    }

    /// Chooses every connection, to leave one out with [`To::except`].
    pub fn everyone(&self) -> To {
        self.chosen(Chosen::Everyone)
    }

    fn chosen(&self, chosen: Chosen) -> To {
        To {
            scope: self.clone(),
            chosen,
            except: None,
            rooms: Rooms::default(),
            manner: Manner::default(),
        }
    }

    /// Counts the open connections, on all shards.
    pub fn connection_count(&self) -> usize {
        // A scope that names a tenant, or all, never has to ask who calls.
        self.try_connection_count().unwrap_or_default()
    }

    fn try_connection_count(&self) -> Result<usize, SendError> {
        let tenant = match self.reached()? {
            Reached::One(tenant) => tenant,
            Reached::All => return Ok(self.pool.count(None)),
        };
        let here = Registries::here_for(&self.pool);
        let count = here.and_then(|here| here.count(self.pool.index(), &tenant));
        Ok(count.unwrap_or_else(|| self.pool.count(Some(&tenant))))
    }

    fn is_elsewhere(&self, client: ConnId) -> Result<bool, SendError> {
        let Some(here) = Registries::here_for(&self.pool) else {
            return Ok(true);
        };
        Ok(match self.reached()? {
            Reached::One(tenant) => here.may_be_elsewhere(self.pool.index(), Some(&tenant), client),
            Reached::All => here.may_be_elsewhere(self.pool.index(), None, client),
        })
    }

    fn send(&self, whom: &Whom<'_>, push: &Push) -> Result<usize, SendError> {
        self.send_with(whom, push, None).map(|sent| sent.here)
    }

    fn send_counted(&self, whom: &Whom<'_>, push: &Push) -> Result<Sent, SendError> {
        self.send_with(whom, push, Some(Vec::new()))
    }

    fn send_with(
        &self,
        whom: &Whom<'_>,
        push: &Push,
        mut elsewhere: Option<Vec<oneshot::Receiver<usize>>>,
    ) -> Result<Sent, SendError> {
        let reach = self.reached()?;
        let tenant = match &reach {
            Reached::One(tenant) => Some(tenant),
            Reached::All => None,
        };
        let Whom {
            target,
            named,
            except,
            more,
        } = *whom;
        let mut send = Delivery {
            tenant,
            target,
            except,
            more,
            push,
        };
        let Some(here) = Registries::here_for(&self.pool) else {
            return self.send_from_outside(&send, named, elsewhere);
        };
        if let (true, Target::Room(name)) = (named, target) {
            send.target = here.resolve(self.pool.index(), tenant, name);
        }
        let here = here.spread(self.pool.index(), &send, elsewhere.as_mut())?;
        Ok(Sent {
            here,
            elsewhere: elsewhere.unwrap_or_default(),
        })
    }

    fn ask_all(
        &self,
        whom: &Whom<'_>,
        push: &Push,
        ms: Option<u64>,
    ) -> Result<Vec<oneshot::Receiver<RoomAnswers>>, SendError> {
        let reach = self.reached()?;
        let tenant = match &reach {
            Reached::One(tenant) => Some(tenant),
            Reached::All => None,
        };
        let mut send = Delivery {
            tenant,
            target: whom.target,
            except: whom.except,
            more: whom.more,
            push,
        };
        let Some(here) = Registries::here_for(&self.pool) else {
            let (done, answers) = oneshot::channel();
            self.pool.post_outside(Order::AskAll {
                address: send.address(),
                push: push.clone(),
                ms,
                done,
                spread: true,
            })?;
            return Ok(vec![answers]);
        };
        if let (true, Target::Room(name)) = (whom.named, whom.target) {
            send.target = here.resolve(self.pool.index(), tenant, name);
        }
        here.ask_all(self.pool.index(), &send, ms)
    }

    /// Asks a shard to send, from another thread.
    fn send_from_outside(
        &self,
        send: &Delivery<'_>,
        named: bool,
        elsewhere: Option<Vec<oneshot::Receiver<usize>>>,
    ) -> Result<Sent, SendError> {
        let (count, elsewhere) = match elsewhere {
            None => (None, Vec::new()),
            Some(_) => {
                let (count, receiver) = oneshot::channel();
                (Some(count), vec![receiver])
            }
        };
        let (address, push) = (send.address(), send.push.clone());
        let order = Order::Spread {
            address,
            named,
            push,
            count,
        };
        self.pool.post_outside(order)?;
        Ok(Sent { here: 0, elsewhere })
    }

    /// Which tenants a call made now reaches.
    fn reached(&self) -> Result<Reached, SendError> {
        let shared = self.pool.is_shared();
        self.reach.resolve(shared)
    }
}

/// Whom [`WsServer::to`] chooses: a connection by its number, or whatever has a name. A number never
/// means a room that happens to be called so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressee {
    /// A connection.
    Client(ConnId),
    /// A room, or where none has that name the connection whose id is written so.
    Name(String),
}

impl From<ConnId> for Addressee {
    fn from(id: ConnId) -> Self {
        Self::Client(id)
    }
}

macro_rules! names {
    ($($name:ty),*) => {$(
        impl From<$name> for Addressee {
            fn from(name: $name) -> Self {
                Self::Name(name.to_string())
            }
        }
    )*};
}

names!(
    &str,
    String,
    &String,
    Arc<str>,
    &Arc<str>,
    Box<str>,
    std::borrow::Cow<'_, str>
);

/// A room or a connection, chosen by [`WsServer::to`].
#[derive(Debug, Clone)]
pub struct To {
    scope: Scope,
    chosen: Chosen,
    except: Option<ConnId>,
    rooms: Rooms,
    manner: Manner,
}

#[derive(Debug, Clone)]
enum Chosen {
    Everyone,
    Name(String),
    Room(String),
    Client(ConnId),
}

impl To {
    /// Leaves one connection out.
    pub fn except(mut self, client: ConnId) -> Self {
        self.except = Some(client);
        self
    }

    /// The members of one more room: each connection is meant once, in however many of them it is.
    pub fn room(mut self, name: impl ToString) -> Self {
        if self.rooms.of.is_empty() {
            match &self.chosen {
                Chosen::Name(first) | Chosen::Room(first) => {
                    self.rooms.of.push(first.as_str().into());
                }
                Chosen::Everyone | Chosen::Client(_) => {}
            }
        }
        self.rooms.of.push(name.to_string().into());
        self
    }

    /// Leaves the members of a room out.
    pub fn except_room(mut self, name: impl ToString) -> Self {
        self.rooms.except.push(name.to_string().into());
        self
    }

    /// Gives nothing to those who have not read all that they were sent before, and says no word of it.
    pub fn volatile(mut self) -> Self {
        self.manner.is_volatile = true;
        self
    }

    /// Chooses whether the event may be compressed (`true` unless said otherwise): `false` for what holds a
    /// secret beside text that others may choose, which its length would give away (CRIME, BREACH).
    pub fn compress(mut self, may_be: bool) -> Self {
        self.manner.is_uncompressed = !may_be;
        self
    }

    /// Only connections of this node; a server that runs alone has no others.
    pub fn local(self) -> Self {
        self
    }

    /// Asks those chosen, where they speak a dialect with answers, and waits for all of them.
    pub fn ask<R>(&self, event: &str, data: &(impl Serialize + ?Sized)) -> AskAll<R> {
        let push = Push::event(event, data).map(|push| push.in_manner(self.asking()));
        AskAll::new(self.clone(), push)
    }

    pub(crate) fn begin_ask(
        &self,
        push: &Push,
        ms: Option<u64>,
    ) -> Result<Vec<oneshot::Receiver<RoomAnswers>>, SendError> {
        let more = self.more();
        let whom = self.whom(more.as_ref());
        self.scope.ask_all(&whom, push, ms)
    }

    /// Who is asked is asked whatever waits for it.
    fn asking(&self) -> Manner {
        Manner {
            is_volatile: false,
            ..self.manner
        }
    }

    fn more(&self) -> Option<Arc<Rooms>> {
        let is_plain = self.rooms.of.is_empty() && self.rooms.except.is_empty();
        (!is_plain).then(|| Arc::new(self.rooms.clone()))
    }

    fn push(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<Push, SendError> {
        Ok(Push::event(event, data)?.in_manner(self.manner))
    }

    /// Sends to those chosen; answers how many outboxes of this shard took it.
    ///
    /// # Errors
    /// When `data` has no JSON, the tenant is unknown, or a queue to another shard is full.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<usize, SendError> {
        let more = self.more();
        let push = self.push(event, data)?;
        self.scope.send(&self.whom(more.as_ref()), &push)
    }

    /// Sends to those chosen, and waits until all shards have said how many took it.
    ///
    /// # Errors
    /// When `data` has no JSON, the tenant is unknown, or a queue to another shard is full.
    pub async fn emit_total(
        &self,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Result<usize, SendError> {
        let more = self.more();
        let push = self.push(event, data)?;
        let sent = self.scope.send_counted(&self.whom(more.as_ref()), &push);
        sent?.total().await
    }

    /// Sends to those chosen; whether anybody is there. One connection on another shard counts as
    /// there until that shard knows better.
    ///
    /// # Errors
    /// When `data` has no JSON, the tenant is unknown, or a queue to another shard is full.
    pub fn reach(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<bool, SendError> {
        let here = 0 < self.emit(event, data)?;
        match self.chosen {
            Chosen::Client(id) if !here => self.scope.is_elsewhere(id),
            _ => Ok(here),
        }
    }

    fn whom<'a>(&'a self, more: Option<&'a Arc<Rooms>>) -> Whom<'a> {
        let target = match &self.chosen {
            Chosen::Everyone => Target::Everyone,
            Chosen::Name(name) | Chosen::Room(name) => Target::Room(name.as_str()),
            Chosen::Client(id) => Target::Client(*id),
        };
        Whom {
            target,
            named: matches!(self.chosen, Chosen::Name(_)),
            except: self.except,
            more,
        }
    }
}
