//! The registries of all gateways as one shard has them: who is connected here, and the ways of a send
//! to those here and elsewhere. Knows connections by their keys; no frame and no socket.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use ahash::AHashMap;
use tokio::sync::oneshot;
use tracing::warn;

use crate::broker::ConnKey;
use crate::broker::registry::{Address, Notice, Refused, Registry, Rooms, ShardSet, Target};
use crate::gateway::ask::{self, AskError, AskedOf, RoomAnswers};
use crate::gateway::engine::outlet::{Fate, Order, Outlet, Post, Tally};
use crate::gateway::engine::pool::Pool;
use crate::gateway::engine::push::Push;
use crate::gateway::send::SendError;
use crate::id::{ConnId, Tenant};

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

    /// Lets connections be in `max` rooms each from here on.
    pub fn set_rooms_max(&self, max: usize) {
        (self.pools.iter()).for_each(|pool| pool.state.borrow_mut().set_rooms_max(max));
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
        (self.pools.get(usize::from(pool.index()))).is_some_and(|own| Arc::ptr_eq(&own.pool, pool))
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
        // Those behind a full mailbox get it all the same; the caller hears of the one that did not.
        let mut posted = Ok(());
        for shard in self.others(registry, send).iter() {
            let count = counts.as_deref_mut().map(|counts| {
                let (sender, receiver) = oneshot::channel();
                counts.push(receiver);
                sender
            });
            let (address, push) = (send.address(), send.push.clone());
            let order = Order::Deliver {
                address,
                push,
                count,
            };
            let one = self.post(shard, registry, order);
            posted = posted.and(one);
        }
        posted.map(|()| accepted)
    }

    /// Asks one connection of this shard, and waits.
    pub(crate) fn ask(
        &self,
        connection: ConnKey,
        push: &Push,
        ms: Option<u64>,
    ) -> Result<impl Future<Output = Result<AskedOf, AskError>> + use<>, AskError> {
        let (sender, answer) = oneshot::channel();
        let number = self.outlet.ask(connection, push, sender)?;
        let (ms, outlet) = (
            ms.unwrap_or_else(|| self.outlet.ack_ms()),
            self.outlet.clone(),
        );
        Ok(async move {
            let answer = ask::within(ms, answer).await;
            outlet.end_ask(number);
            answer
        })
    }

    /// Asks everybody whom the address names, on all shards; each shard's part comes by itself.
    pub(crate) fn ask_all(
        &self,
        registry: u16,
        send: &Delivery<'_>,
        ms: Option<u64>,
    ) -> Result<Vec<oneshot::Receiver<RoomAnswers>>, SendError> {
        let (done, here) = oneshot::channel();
        self.ask_here(registry, send, ms, done);
        let (mut parts, mut posted) = (vec![here], Ok(()));
        for shard in self.others(registry, send).iter() {
            let (done, part) = oneshot::channel();
            parts.push(part);
            let order = Order::AskAll {
                address: send.address(),
                push: send.push.clone(),
                ms,
                done,
                spread: false,
            };
            let one = self.post(shard, registry, order);
            posted = posted.and(one);
        }
        posted.map(|()| parts)
    }

    fn ask_here(
        &self,
        registry: u16,
        send: &Delivery<'_>,
        ms: Option<u64>,
        done: oneshot::Sender<RoomAnswers>,
    ) {
        let mut addressed = Vec::new();
        self.gather(registry, send, &mut addressed);
        let Some(number) = self.outlet.ask_all(&addressed, send.push, done) else {
            return;
        };
        let (ms, outlet) = (
            ms.unwrap_or_else(|| self.outlet.ack_ms()),
            self.outlet.clone(),
        );
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            outlet.end_ask(number);
        });
    }

    fn handle_ask_all(
        &self,
        registry: u16,
        send: &Delivery<'_>,
        ms: Option<u64>,
        done: oneshot::Sender<RoomAnswers>,
    ) {
        let Ok(parts) = self.ask_all(registry, send, ms) else {
            return;
        };
        tokio::task::spawn_local(async move {
            let mut all = RoomAnswers::default();
            for part in parts {
                let part = part.await.unwrap_or_default();
                all.replies.extend(part.replies);
                all.missing.extend(part.missing);
            }
            done.send(all).ok();
        });
    }

    /// Ends one connection of this shard without a word.
    pub(crate) fn abort(&self, connection: ConnKey) {
        self.outlet.abort(connection);
    }

    /// Ends what one connection of this shard has in a namespace.
    pub(crate) fn leave_namespace(&self, connection: ConnKey) {
        self.outlet.leave_namespace(connection);
    }

    /// The other shards that may have somebody whom the address names.
    fn others(&self, registry: u16, send: &Delivery<'_>) -> ShardSet {
        let state = self.local(registry).state.borrow();
        let Some(rooms) = send.more.filter(|rooms| !rooms.of.is_empty()) else {
            return state.elsewhere(send.tenant, send.target);
        };
        let mut shards = ShardSet::default();
        for room in &rooms.of {
            shards.extend(&state.elsewhere(send.tenant, Target::Room(room)));
        }
        shards
    }

    /// Collects whom the address names here.
    fn gather(&self, registry: u16, send: &Delivery<'_>, addressed: &mut Vec<ConnKey>) {
        let state = self.local(registry).state.borrow();
        let each = |key| addressed.push(key);
        match send.more {
            Some(rooms) => state.each_of((send.tenant, send.target), rooms, send.except, each),
            None => state.each_here(send.tenant, send.target, send.except, each),
        }
    }

    /// What a name means: a room if there is one, else the id of a connection.
    pub(crate) fn resolve<'a>(
        &self,
        registry: u16,
        tenant: Option<&Tenant>,
        name: &'a str,
    ) -> Target<&'a str> {
        let local = self.local(registry);
        if let Some(id) = local.pool.id_of_sid(name) {
            return Target::Client(id);
        }
        local.state.borrow().resolve(tenant, name)
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
            order @ (Order::Ask { .. } | Order::AskAll { .. }) => {
                self.handle_asking(registry, order)
            }
            Order::LeaveNamespace { connection } => self.outlet.leave_namespace(connection),
            Order::Abort { connection } => self.outlet.abort(connection),
            Order::Join { id, room } => {
                if let Err(refused) = self.join(registry, id, &room) {
                    warn!(target: "tidegate::ws", conn_id = id, "join refused: {refused}");
                }
            }
            Order::Leave { id, room } => self.leave(registry, id, &room),
        }
    }

    /// Asks clients for somebody elsewhere.
    fn handle_asking(&self, registry: u16, order: Order) {
        match order {
            Order::Ask {
                connection,
                push,
                ms,
                answer,
            } => match self.ask(connection, &push, ms) {
                Ok(asked) => {
                    tokio::task::spawn_local(async move { answer.send(asked.await).ok() });
                }
                Err(error) => {
                    answer.send(Err(error)).ok();
                }
            },
            Order::AskAll {
                address,
                push,
                ms,
                done,
                spread: false,
            } => self.ask_here(registry, &Delivery::of(&address, &push), ms, done),
            Order::AskAll {
                address,
                push,
                ms,
                done,
                ..
            } => self.handle_ask_all(registry, &Delivery::of(&address, &push), ms, done),
            _ => {}
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
        self.gather(registry, send, &mut addressed);
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
    pub(crate) more: Option<&'a Arc<Rooms>>,
    pub(crate) push: &'a Push,
}

impl<'a> Delivery<'a> {
    fn of(address: &'a Address, push: &'a Push) -> Self {
        Self {
            tenant: address.tenant.as_ref(),
            target: address.target.as_deref(),
            except: address.except,
            more: address.more.as_ref(),
            push,
        }
    }

    pub(crate) fn address(&self) -> Address {
        Address {
            tenant: self.tenant.cloned(),
            target: self.target.to_shared(),
            except: self.except,
            more: self.more.cloned(),
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
