//! What the registries of one shard need of it, and what they do with it: a send is serialized
//! before it comes here, then borrows the state, and no user code runs meanwhile. Knows no
//! socket: frames leave through an [`Outlet`], other shards are reached by [`Post`]s.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use ahash::AHashMap;
use tokio::sync::oneshot;
use tracing::warn;

use crate::broker::ConnKey;
use crate::broker::registry::{Address, Notice, Refused, Registry, Target};
use crate::gateway::engine::pool::Pool;
use crate::gateway::engine::push::Push;
use crate::gateway::send::SendError;
use crate::id::{ConnId, Tenant};

/// What became of a frame at one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its outbox took it.
    Accepted,
    /// Its outbox is full.
    Shed,
    /// It has ended, or is about to.
    Gone,
}

/// What became of a frame at many connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Outboxes that took it.
    pub accepted: usize,
    /// Outboxes that were full.
    pub shed: usize,
}

/// The sockets and mailboxes of the shard that this thread runs. None of the methods may call
/// user code or come back to the registries.
pub trait Outlet {
    /// Puts a whole frame into the outbox of a connection.
    fn send(&self, connection: ConnKey, push: &Push) -> Fate;

    /// Puts a whole frame into the outbox of a connection once most of what it holds has gone;
    /// until then the waker is kept.
    fn poll_send(&self, connection: ConnKey, push: &Push, waker: &Waker) -> Poll<Fate>;

    /// Puts one frame into the outboxes of many.
    fn send_all(&self, connections: &[ConnKey], push: &Push) -> Tally;

    /// Ends a connection: a close frame goes out behind what its outbox holds.
    fn close(&self, connection: ConnKey, code: u16, reason: &str);

    /// Hands something to the mailbox of another shard; [`SendError::Overloaded`] if it is full.
    fn post(&self, shard: u16, post: Post) -> Result<(), SendError>;

    /// Hands over what must arrive, in order with what is posted before and after it.
    fn post_surely(&self, shard: u16, post: Post);

    /// A handler has panicked.
    fn note_panic(&self);

    /// A clock that runs on, in microseconds.
    fn now_us(&self) -> u64;
}

/// The way in for other threads than shards.
pub trait Outside: Send + Sync {
    /// Hands something to a shard; [`SendError::Overloaded`] if its queue is full.
    fn post(&self, shard: u16, post: Post) -> Result<(), SendError>;
}

/// What one shard, or another thread, asks of the registries of another.
#[derive(Debug)]
pub struct Post {
    /// The number of the registry.
    pub registry: u16,
    /// What to do in it.
    pub order: Order,
}

/// The orders of a [`Post`].
#[derive(Debug)]
pub enum Order {
    /// Remember what another shard has.
    Notice {
        /// That shard.
        from: u16,
        /// What it has.
        notice: Notice,
    },
    /// Give a frame to those connections of this shard that the address names.
    Deliver {
        /// Whom.
        address: Address,
        /// What.
        push: Push,
        /// Where to say how many took it.
        count: Option<oneshot::Sender<usize>>,
    },
    /// Give a frame to whom the address names on all shards; from a thread beside the shards.
    Spread {
        /// Whom; a room may be the id of a connection instead.
        address: Address,
        /// Whether the room may be the id of a connection.
        named: bool,
        /// What.
        push: Push,
        /// Where to say how many took it.
        count: Option<oneshot::Sender<usize>>,
    },
    /// Hand an order to another shard; from a thread beside the shards.
    Forward {
        /// That shard.
        shard: u16,
        /// What to do there.
        order: Box<Self>,
    },
    /// Give a frame to one connection.
    Give {
        /// Which.
        connection: ConnKey,
        /// What.
        push: Push,
    },
    /// Give a frame to one connection when it has room for it.
    Stream {
        /// Which.
        connection: ConnKey,
        /// What.
        push: Push,
        /// Where to say whether it took it.
        taken: oneshot::Sender<bool>,
    },
    /// End one connection.
    Close {
        /// Which.
        connection: ConnKey,
        /// The close code.
        code: u16,
        /// The reason.
        reason: Arc<str>,
    },
    /// Make a connection a member of a room.
    Join {
        /// Which.
        id: ConnId,
        /// The room.
        room: Arc<str>,
    },
    /// End its membership.
    Leave {
        /// Which.
        id: ConnId,
        /// The room.
        room: Arc<str>,
    },
}

/// The registries of one shard.
pub struct Registries {
    shard: u16,
    shards: u16,
    outlet: Rc<dyn Outlet>,
    pools: Vec<LocalPool>,
    /// Whom a send is for, gathered before anything is given to them.
    addressed: Cell<Vec<ConnKey>>,
}

/// One registry here: its state, and what it shares with its other parts.
struct LocalPool {
    pool: Arc<Pool>,
    state: RefCell<Registry>,
    counters: RefCell<AHashMap<Tenant, Arc<AtomicUsize>>>,
}

thread_local! {
    static HERE: RefCell<Option<Rc<Registries>>> = const { RefCell::new(None) };
}

impl Registries {
    /// The registries `pools` on shard number `shard` of `shards`.
    pub fn new(
        (shard, shards): (u16, u16),
        outlet: Rc<dyn Outlet>,
        pools: &[Arc<Pool>],
        rooms_max: usize,
    ) -> Rc<Self> {
        assert!(shard < shards, "shard {shard} of {shards}");
        let local = |pool: &Arc<Pool>| LocalPool {
            pool: pool.clone(),
            state: RefCell::new(Registry::new(rooms_max)),
            counters: RefCell::default(),
        };
        Rc::new(Self {
            shard,
            shards,
            outlet,
            pools: pools.iter().map(local).collect(),
            addressed: Cell::default(),
        })
    }

    /// Makes these the registries that sends on this thread go through; gives back the former.
    pub fn install(self: &Rc<Self>) -> Option<Rc<Self>> {
        HERE.replace(Some(self.clone()))
    }

    /// Ends being a shard.
    pub fn uninstall() -> Option<Rc<Self>> {
        HERE.take()
    }

    /// Those of this thread, if it is a shard.
    pub(crate) fn here() -> Option<Rc<Self>> {
        HERE.with_borrow(Clone::clone)
    }

    /// Those of this thread, if it is a shard of the server that the registry belongs to.
    pub(crate) fn here_for(pool: &Arc<Pool>) -> Option<Rc<Self>> {
        HERE.with_borrow(|here| here.as_ref().filter(|here| here.has(pool)).cloned())
    }

    fn has(&self, pool: &Arc<Pool>) -> bool {
        let known = self.pools.get(usize::from(pool.index()));
        known.is_some_and(|known| Arc::ptr_eq(&known.pool, pool))
    }

    /// The number of this shard.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// A connection has been made; the other shards hear of its tenant before it hears anything.
    pub(crate) fn connect(&self, registry: u16, id: ConnId, key: ConnKey, tenant: &Tenant) {
        let local = self.local(registry);
        let notice = local.state.borrow_mut().connect(id, key, tenant);
        let mut counters = local.counters.borrow_mut();
        match counters.get(tenant) {
            Some(counter) => {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                counters.insert(tenant.clone(), local.pool.enter(tenant));
            }
        }
        drop(counters);
        self.announce(registry, notice);
    }

    /// A connection has ended.
    pub(crate) fn disconnect(&self, registry: u16, id: ConnId, tenant: &Tenant) {
        let local = self.local(registry);
        if local.state.borrow().key_of(Some(tenant), id).is_none() {
            return;
        }
        let notices = local.state.borrow_mut().disconnect(id);
        let last = notices.last() == Some(&Notice::TenantClosed(tenant.clone()));
        let counter = match last {
            true => local.counters.borrow_mut().remove(tenant),
            false => local.counters.borrow().get(tenant).cloned(),
        };
        if let Some(counter) = counter {
            local.pool.exit(tenant, &counter);
        }
        self.announce(registry, notices);
    }

    /// Makes a connection of this shard a member of a room.
    pub(crate) fn join(&self, registry: u16, id: ConnId, room: &str) -> Result<(), Refused> {
        let notice = self.local(registry).state.borrow_mut().join(id, room)?;
        self.announce(registry, notice);
        Ok(())
    }

    /// Ends the membership of a connection of this shard.
    pub(crate) fn leave(&self, registry: u16, id: ConnId, room: &str) {
        let notice = self.local(registry).state.borrow_mut().leave(id, room);
        self.announce(registry, notice);
    }

    /// The rooms of a connection of this shard.
    pub(crate) fn rooms_of(&self, registry: u16, id: ConnId) -> Vec<Arc<str>> {
        self.local(registry).state.borrow().rooms_of(id)
    }

    /// How many connections a tenant has on all shards, if it has any on this one.
    pub(crate) fn count(&self, registry: u16, tenant: &Tenant) -> Option<usize> {
        let counters = self.local(registry).counters.borrow();
        let counter = counters.get(tenant)?;
        Some(counter.load(Ordering::Relaxed))
    }

    /// Gives a frame to one connection of this shard.
    pub(crate) fn give(&self, connection: ConnKey, push: &Push) -> Fate {
        self.outlet.send(connection, push)
    }

    /// Gives a frame to one connection of this shard once it has room for it.
    pub(crate) fn poll_give(&self, to: ConnKey, push: &Push, waker: &Waker) -> Poll<Fate> {
        self.outlet.poll_send(to, push, waker)
    }

    /// Ends one connection of this shard.
    pub(crate) fn close(&self, connection: ConnKey, code: u16, reason: &str) {
        self.outlet.close(connection, code, reason);
    }

    /// Hands an order to another shard.
    pub(crate) fn post(&self, shard: u16, registry: u16, order: Order) -> Result<(), SendError> {
        self.outlet.post(shard, Post { registry, order })
    }

    /// Gives a frame to this shard's part of the address at once and posts it to the others.
    /// Answers how many took it here; `counts` collects where the others will answer.
    pub(crate) fn spread(
        &self,
        registry: u16,
        send: &Delivery<'_>,
        mut counts: Option<&mut Vec<oneshot::Receiver<usize>>>,
    ) -> Result<usize, SendError> {
        let accepted = self.deliver(registry, send);
        let local = self.local(registry);
        let elsewhere = local.state.borrow().elsewhere(send.tenant, send.target);
        for shard in elsewhere.iter() {
            let count = counts.as_deref_mut().map(|counts| {
                let (sender, receiver) = oneshot::channel();
                counts.push(receiver);
                sender
            });
            let (address, push) = (send.address(), send.push.clone());
            self.post(
                shard,
                registry,
                Order::Deliver {
                    address,
                    push,
                    count,
                },
            )?;
        }
        Ok(accepted)
    }

    /// What a name means: a room if there is one, else the id of a connection.
    pub(crate) fn resolve<'a>(
        &self,
        registry: u16,
        tenant: Option<&Tenant>,
        name: &'a str,
    ) -> Target<&'a str> {
        self.local(registry).state.borrow().resolve(tenant, name)
    }

    /// Whether another shard may have this connection, given that this one has not.
    pub(crate) fn may_be_elsewhere(
        &self,
        registry: u16,
        tenant: Option<&Tenant>,
        client: ConnId,
    ) -> bool {
        let state = self.local(registry).state.borrow();
        !state.elsewhere(tenant, Target::Client(client)).is_empty()
    }

    /// Carries out what came by mailbox.
    pub fn handle_post(&self, post: Post) {
        let Post { registry, order } = post;
        match order {
            Order::Notice { from, notice } => {
                let mut state = self.local(registry).state.borrow_mut();
                state.handle_notice(from, &notice);
            }
            Order::Deliver {
                address,
                push,
                count,
            } => {
                let accepted = self.deliver(registry, &Delivery::of(&address, &push));
                tell(count, accepted);
            }
            Order::Spread {
                address,
                named,
                push,
                count,
            } => {
                self.handle_spread(registry, &Delivery::of(&address, &push), named, count);
            }
            Order::Forward { shard, order } => self.handle_forward(registry, shard, *order),
            Order::Give { connection, push } => {
                self.outlet.send(connection, &push);
            }
            Order::Stream {
                connection,
                push,
                taken,
            } => {
                let outlet = self.outlet.clone();
                tokio::task::spawn_local(async move {
                    let fate = streamed(&*outlet, connection, &push).await;
                    // Whoever streams may have given up meanwhile.
                    taken.send(fate == Fate::Accepted).ok();
                });
            }
            Order::Close {
                connection,
                code,
                reason,
            } => {
                self.outlet.close(connection, code, &reason);
            }
            Order::Join { id, room } => {
                if let Err(refused) = self.join(registry, id, &room) {
                    warn!(target: "tidegate::ws", conn_id = id, "join refused: {refused}");
                }
            }
            Order::Leave { id, room } => self.leave(registry, id, &room),
        }
    }

    /// An order from a thread beside the shards is carried out as if it had been made here.
    fn handle_spread(
        &self,
        registry: u16,
        send: &Delivery<'_>,
        named: bool,
        count: Option<oneshot::Sender<usize>>,
    ) {
        let target = match send.target {
            Target::Room(name) if named => self.resolve(registry, send.tenant, name),
            other => other,
        };
        let send = Delivery { target, ..*send };
        let mut counts = count.is_some().then(Vec::new);
        let accepted = match self.spread(registry, &send, counts.as_mut()) {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(target: "tidegate::ws", "a send from outside of the shards: {error}");
                return;
            }
        };
        if let (Some(count), Some(counts)) = (count, counts) {
            tokio::task::spawn_local(async move {
                tell(Some(count), accepted + total(counts).await);
            });
        }
    }

    /// An order from a thread beside the shards goes on to where it belongs, in one queue with all
    /// else that such threads send. Its sender has gone on: what may be refused is told to the log.
    fn handle_forward(&self, registry: u16, shard: u16, order: Order) {
        let post = Post { registry, order };
        if shard == self.shard {
            return self.handle_post(post);
        }
        match post.order {
            Order::Give { .. } | Order::Stream { .. } => {
                if let Err(error) = self.outlet.post(shard, post) {
                    warn!(target: "tidegate::ws", "a send from outside of the shards: {error}");
                }
            }
            _ => self.outlet.post_surely(shard, post),
        }
    }

    fn deliver(&self, registry: u16, send: &Delivery<'_>) -> usize {
        let mut addressed = self.addressed.take();
        let state = self.local(registry).state.borrow();
        state.each_here(send.tenant, send.target, send.except, |key| {
            addressed.push(key)
        });
        drop(state);
        let Tally { accepted, shed } = self.outlet.send_all(&addressed, send.push);
        if 0 < shed {
            let target = send.target;
            warn!(target: "tidegate::ws", ?target, accepted, shed, "full outboxes shed a push");
        }
        addressed.clear();
        self.addressed.set(addressed);
        accepted
    }

    fn announce(&self, registry: u16, notices: impl IntoIterator<Item = Notice>) {
        for notice in notices {
            for shard in (0..self.shards).filter(|shard| *shard != self.shard) {
                let notice = notice.clone();
                let order = Order::Notice {
                    from: self.shard,
                    notice,
                };
                self.outlet.post_surely(shard, Post { registry, order });
            }
        }
    }

    /// The shard's clock.
    pub(crate) fn now_us(&self) -> u64 {
        self.outlet.now_us()
    }

    /// Counts a panic of a handler.
    pub(crate) fn note_panic(&self) {
        self.outlet.note_panic();
    }

    fn local(&self, registry: u16) -> &LocalPool {
        &self.pools[usize::from(registry)]
    }
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registries")
            .field("shard", &self.shard)
            .field("shards", &self.shards)
            .field("pools", &self.pools.len())
            .finish_non_exhaustive()
    }
}

/// One send: a frame, and whom it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery<'a> {
    pub(crate) tenant: Option<&'a Tenant>,
    pub(crate) target: Target<&'a str>,
    pub(crate) except: Option<ConnId>,
    pub(crate) push: &'a Push,
}

impl<'a> Delivery<'a> {
    fn of(address: &'a Address, push: &'a Push) -> Self {
        Self {
            tenant: address.tenant.as_ref(),
            target: address.target.as_deref(),
            except: address.except,
            push,
        }
    }

    pub(crate) fn address(&self) -> Address {
        Address {
            tenant: self.tenant.cloned(),
            target: self.target.to_shared(),
            except: self.except,
        }
    }
}

/// Waits for room and gives the frame.
async fn streamed(outlet: &dyn Outlet, connection: ConnKey, push: &Push) -> Fate {
    std::future::poll_fn(|context| outlet.poll_send(connection, push, context.waker())).await
}

/// The sum of what the other shards answer; one that is gone counts as 0.
pub(crate) async fn total(counts: Vec<oneshot::Receiver<usize>>) -> usize {
    let mut total = 0;
    for count in counts {
        total += count.await.unwrap_or_default();
    }
    total
}

/// Whoever asked may have gone away meanwhile, and then the number is dropped.
fn tell(count: Option<oneshot::Sender<usize>>, accepted: usize) {
    if let Some(count) = count {
        count.send(accepted).ok();
    }
}
