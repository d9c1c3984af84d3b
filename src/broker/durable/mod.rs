//! The home of durable topics: one partition's topics, subscriptions and cursors as a state
//! machine. Requests come in by `handle_request`, the log's reports by `handle_room`,
//! `handle_durable`, `handle_read`, `handle_trimmed`, `handle_failed` and `handle_unknown`; after each of them the
//! caller answers what `need` asks for and carries out what `poll_effect` gives, until both give
//! nothing. It knows no file, no socket, no clock and no dialect, and it does not assume that the
//! log is on this machine: room is asked for first, then an append, and its durability arrives as
//! an event. An append is never refused: it is durable, or it failed with its whole log, or nobody
//! knows.
//!
//! What must hold: a seq is acknowledged or delivered only when it is durable; a seq is given only
//! to what the log has room for; acks and errors of one connection come in the order of its publishes; what a subscription gets next is the
//! seq behind the last, or a gap stands between; nothing is found without a tenant.
//!
//! Bounds, each a field of [`Limits`]: what waits for the disk by `publishes_in_flight_max` a
//! peer and `pending_bytes_max` in all (beyond: `rate_limited`); the live tail by
//! `tail_bytes_max` (beyond: read from the log); a subscription by its window; a connection by
//! its credit; reads without subscription by `histories_max`. Messages go out one `poll_effect`
//! at a time, so that a commit seen by 10,000 subscribers makes no list of 10,000 frames.

mod command;

mod answer;

mod ledger;

mod effect;

mod rights;

mod topics;

mod early;
mod line;

mod publish;

mod subscribe;

mod cursors;

mod deliver;
mod lag;
mod listing;

mod committed;
mod restore;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;

use crate::id::{HomedId, Partition, Seq, Tenant};
use crate::log::AgeClock;

use command::{named, names_something};

use super::shelf::Shelf;
use super::subscription::{Connections, Subscription};
use super::topic::Topic;

pub use crate::log::Retention;
pub use answer::{
    Answer, Ended, Gap, GapReason, MESSAGE_OVERHEAD_BYTES, Message, Refused, Subscribed,
    SubscriptionView, TopicView,
};
pub use command::{
    Caller, Command, NewMessage, NewMessages, Now, Open, Peer, Request, TopicRef, Who,
};
pub use effect::{AppendId, Effect, Need, ReadId, ReadItem, Value};
pub use lag::{LagLook, Lags};
pub use ledger::Ledger;
pub use restore::{Restored, RestoredKey, RestoredSubscription, RestoredTopic};

/// What a partition allows. Limits of a tenant count what its other partitions report too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Topics of a tenant.
    pub topics_per_tenant_max: u64,
    /// Subscriptions of a tenant.
    pub subscriptions_per_tenant_max: u64,
    /// Stored bytes of a tenant.
    pub bytes_per_tenant_max: u64,
    /// Bindings of one connection in this partition.
    pub subscriptions_per_connection_max: u64,
    /// Bytes of a topic's name.
    pub topic_name_bytes_max: usize,
    /// Bytes of a subscription's key.
    pub sub_name_bytes_max: usize,
    /// Bytes of an idempotency key.
    pub idempotency_key_bytes_max: usize,
    /// Idempotency keys remembered for a topic.
    pub idempotency_keys_max: usize,
    /// How long an idempotency key is remembered.
    pub idempotency_ms_max: u64,
    /// Bytes of a payload.
    pub message_bytes_max: usize,
    /// Un-acked messages of a subscription, unless it asks for another number.
    pub window_messages: u32,
    /// The largest number that it may ask for.
    pub window_messages_max: u32,
    /// Un-acked bytes of a subscription; one message may exceed it.
    pub window_bytes_max: u64,
    /// Publishes of one peer that wait for the disk.
    pub publishes_in_flight_max: u32,
    /// Bytes of all publishes that wait for the disk.
    pub pending_bytes_max: u64,
    /// Bytes of the newest messages kept in memory.
    pub tail_bytes_max: u64,
    /// Bytes asked for by one read.
    pub read_bytes_max: u64,
    /// Bytes of one answer to `ReadMessages`.
    pub history_bytes_max: u64,
    /// Reads without subscription at one time.
    pub histories_max: u64,
    /// What a topic keeps that is made without a retention of its own.
    pub retention: Retention,
    /// How long a moved cursor may wait before it is given to the log.
    pub cursor_delay_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            topics_per_tenant_max: 100_000,
            subscriptions_per_tenant_max: 100_000,
            bytes_per_tenant_max: 10 << 30,
            subscriptions_per_connection_max: 1024,
            topic_name_bytes_max: 255,
            sub_name_bytes_max: 128,
            idempotency_key_bytes_max: 128,
            idempotency_keys_max: 100_000,
            idempotency_ms_max: 600_000,
            message_bytes_max: 64 << 10,
            window_messages: 256,
            window_messages_max: 4096,
            window_bytes_max: 256 << 10,
            publishes_in_flight_max: 1024,
            pending_bytes_max: 64 << 20,
            tail_bytes_max: 4 << 20,
            read_bytes_max: 256 << 10,
            history_bytes_max: 4 << 20,
            histories_max: 64,
            retention: Retention::default(),
            cursor_delay_ms_max: 50,
        }
    }
}

/// How much of its limits a tenant uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Topics.
    pub topics: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Stored bytes.
    pub bytes: u64,
}

/// Counters of a partition, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Messages that were acknowledged.
    pub published: u64,
    /// Messages that were delivered, again ones too.
    pub delivered: u64,
    /// Topics there are.
    pub topics: u64,
    /// Subscriptions there are.
    pub subscriptions: u64,
    /// Appends that the log was given and that are not durable yet.
    pub unsynced: u64,
    /// Bytes of the publishes among them.
    pub unsynced_bytes: u64,
    /// Whether the log has failed.
    pub failed: bool,
}

/// One partition of the durable broker.
#[derive(Debug)]
pub struct Durable {
    partition: Partition,
    epoch: u64,
    limits: Limits,
    random: u64,
    ledger: Ledger,
    tenants: AHashMap<Tenant, World>,
    topics: Shelf<Topic>,
    subscriptions: Shelf<Subscription>,
    connections: Connections,
    /// Peers that wait for the disk; no entry means that nothing of it does.
    publishing: AHashMap<Peer, Publishing>,
    /// Answers that stand behind an append, as those before them do.
    held: BTreeMap<(AppendId, u64), Held>,
    holds: u64,
    line: line::Line,
    early: early::Early,
    /// Ends whose first record is damaged, to be written again.
    ends_again: Vec<Value>,
    /// Why what is being served gets no room.
    lack: Option<Refused>,
    log: Appends,
    cursors: CursorsMoving,
    /// Judges the age of idempotency keys.
    clock: AgeClock,
    /// Topics with keys, in the order in which they are looked at; by the monotonic clock.
    keyed: VecDeque<(u64, HomedId)>,
    tail: Tail,
    reads: AHashMap<ReadId, Reading>,
    histories: u64,
    next_read: ReadId,
    /// Bound subscriptions that can be moved on.
    ready: VecDeque<HomedId>,
    effects: VecDeque<Effect>,
    totals: Totals,
    /// What was stored here cannot be read: nobody is told that it is not there.
    is_unreadable: bool,
}

/// What a tenant has in this partition.
#[derive(Debug, Default)]
struct World {
    names: BTreeMap<Arc<str>, HomedId>,
    listed: listing::Listed,
    /// What it holds in all partitions of this process.
    account: Arc<ledger::Account>,
    here: Usage,
    /// What it holds in other processes.
    elsewhere: Usage,
}

/// What was given to the log and is not durable yet, in its order.
#[derive(Debug, Default)]
struct Appends {
    next: AppendId,
    waiting: VecDeque<(AppendId, Appended)>,
    publish_bytes: u64,
    failed: bool,
}

/// What one append was for.
#[derive(Debug)]
enum Appended {
    Topic(HomedId),
    Retention(HomedId, Retention, Caller),
    TopicEnd(HomedId, Caller),
    Publish(publish::Appending),
    Subscription(HomedId),
    SubscriptionEnd(HomedId, Caller),
    Cursors(Vec<Moved>),
    /// An end whose first record is damaged: nobody waits for it.
    EndAgain,
}

/// What of one peer waits for the disk.
#[derive(Debug, Default)]
struct Publishing {
    count: u32,
    /// The append behind which its next answer stands.
    last: AppendId,
}

/// An answer that stands behind an append.
#[derive(Debug)]
struct Held {
    peer: Peer,
    reference: Option<Bytes>,
    answer: Answer,
}

/// Who is told once a cursor is durable.
#[derive(Debug)]
struct Moved {
    peer: Peer,
    reference: Option<Bytes>,
    subscription: HomedId,
    /// An ack is answered by its seq, a move by the subscription.
    acked: Option<Seq>,
}

/// Cursors on their way to the log: one record at a time holds all of them.
#[derive(Debug, Default)]
struct CursorsMoving {
    dirty: Vec<HomedId>,
    since_ms: Option<u64>,
    /// The clock when it was last seen.
    seen_ms: u64,
    told: Vec<Moved>,
    under_way: bool,
    /// They are to be given to the log as soon as it has room.
    wanted: bool,
    /// A clean stop: what moves goes to the log at once.
    draining: bool,
}

/// The newest messages of all topics, oldest first, for eviction.
#[derive(Debug, Default)]
struct Tail {
    order: VecDeque<(HomedId, Seq, u64)>,
    bytes: u64,
}

/// What a read is for.
#[derive(Debug)]
enum Reading {
    Subscription {
        subscription: HomedId,
        peer: Peer,
        reserved: u64,
    },
    History(Box<deliver::History>),
}

impl Durable {
    /// A partition in which nothing is; `random` makes its ids differ from those of other runs.
    pub fn new(partition: Partition, epoch: u64, limits: Limits, random: u64) -> Self {
        Self {
            partition,
            epoch,
            limits,
            random,
            ledger: Ledger::default(),
            tenants: AHashMap::new(),
            topics: Shelf::default(),
            subscriptions: Shelf::default(),
            connections: Connections::new(),
            publishing: AHashMap::new(),
            held: BTreeMap::new(),
            holds: 0,
            line: line::Line::default(),
            early: early::Early::default(),
            ends_again: Vec::new(),
            lack: None,
            log: Appends {
                next: 1,
                ..Appends::default()
            },
            cursors: CursorsMoving::default(),
            clock: AgeClock::default(),
            keyed: VecDeque::new(),
            tail: Tail::default(),
            reads: AHashMap::new(),
            histories: 0,
            next_read: 1,
            ready: VecDeque::new(),
            effects: VecDeque::new(),
            totals: Totals::default(),
            is_unreadable: false,
        }
    }

    /// What is stored in this partition cannot be read: whatever is asked of it is refused as
    /// failed, so that nobody takes a topic for one that does not exist. Lists hold the others.
    pub fn handle_unreadable(&mut self) {
        self.is_unreadable = true;
    }

    /// Does what a peer asks; `lack` is why the log has no room for it, if it needs some.
    fn serve(&mut self, now: Now, request: Request, lack: Option<Refused>) {
        let Request { caller, command } = request;
        let (topic, sub_name) = named(&command);
        let publish = matches!(command, Command::Publish { .. });
        self.lack = lack;
        let done = match self.is_unreadable && names_something(&command) {
            true => Err(Refused::StorageFailed),
            false => self.carry_out(now, &caller, command),
        };
        self.lack = None;
        let Err(refused) = done else { return };
        let answer = Answer::Refused {
            refused,
            topic,
            sub_name,
            publish,
        };
        match publish {
            true => self.answer_in_order(&caller, answer, 0),
            false => self.answer(&caller, answer),
        }
    }

    fn carry_out(&mut self, now: Now, caller: &Caller, command: Command) -> Result<(), Refused> {
        match command {
            Command::ResolveTopic { name, retention } => {
                self.resolve_topic(now, caller, name, retention)
            }
            Command::ListTopics { after, limit } => {
                self.list_topics(caller, after.as_ref(), limit);
                Ok(())
            }
            Command::GetTopic { topic } => self.get_topic(caller, &topic),
            Command::ChangeRetention { topic, retention } => {
                self.change_retention(caller, &topic, retention)
            }
            Command::DeleteTopic { topic } => self.delete_topic(caller, &topic),
            Command::Publish {
                topic,
                publisher,
                messages,
            } => self.publish(now, caller, &topic, publisher, messages),
            Command::Subscribe {
                topic,
                sub_name,
                maker,
                open,
            } => self.subscribe(now, caller, &topic, (sub_name, maker), &open),
            Command::Unsubscribe { topic, sub_name } => self.unsubscribe(caller, &topic, &sub_name),
            Command::Ack {
                topic,
                sub_name,
                seq,
            } => self.ack(now, caller, (&topic, &sub_name), seq),
            Command::Credit { bytes } => {
                self.grant(caller.peer, bytes);
                Ok(())
            }
            Command::Renew => {
                self.renew(caller);
                Ok(())
            }
            Command::Disconnect => {
                self.disconnect(caller.peer);
                Ok(())
            }
            Command::ListSubscriptions {
                topic,
                sub_name,
                after,
                limit,
            } => self.list_subscriptions(caller, topic.as_ref(), sub_name.as_ref(), (after, limit)),
            Command::GetSubscription { subscription } => {
                self.get_subscription(caller, subscription)
            }
            Command::MoveSubscription {
                subscription,
                from_seq,
            } => self.move_subscription(now, caller, subscription, from_seq),
            Command::DeleteSubscription { subscription } => {
                self.delete_subscription(caller, subscription)
            }
            Command::ReadMessages {
                topic,
                from_seq,
                limit,
            } => self.read_messages(caller, &topic, from_seq, limit),
        }
    }

    /// The next thing to carry out. An append is carried out before the next call.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        while self.effects.is_empty() {
            let subscription = self.ready.pop_front()?;
            self.advance(subscription);
        }
        self.effects.pop_front()
    }

    /// The next thing that a `handle_*` has asked for itself. Readers do not move on by this, so
    /// it ends soon: who hands in many requests drains this behind each of them, and
    /// `poll_effect` behind all.
    pub fn poll_direct(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Looks at what is due by time: moved cursors.
    pub fn handle_time(&mut self, now: Now) {
        self.cursors.seen_ms = now.mono_ms;
        let due = |since: u64| since + self.limits.cursor_delay_ms_max <= now.mono_ms;
        if self.cursors.since_ms.is_some_and(due) {
            self.flush_cursors();
        }
        self.expire_keys(now);
    }

    /// When `handle_time` has something to do, on the monotonic clock.
    pub fn poll_time_ms(&self) -> Option<u64> {
        if self.log.failed {
            return None;
        }
        let moved = self.cursors.since_ms.filter(|_| !self.cursors.under_way);
        let moved = moved.map(|since| since + self.limits.cursor_delay_ms_max);
        let keyed = self.keyed.front().map(|(due, _)| *due);
        moved.into_iter().chain(keyed).min()
    }

    /// Gives all moved cursors to the log now, and those that move from here on as soon as the
    /// record under way is durable: before a clean stop, which ends when `is_drained`.
    pub fn handle_drain(&mut self) {
        self.cursors.draining = true;
        self.flush_cursors();
    }

    /// Whether all cursors are where their acks have moved them on the disk, as far as the log
    /// takes anything.
    pub fn is_drained(&self) -> bool {
        let cursors = &self.cursors;
        let is_moved = !cursors.under_way && cursors.dirty.is_empty();
        self.log.failed || is_moved && self.line.len() == 0
    }

    /// Counts what tenants hold together with the other partitions that have this ledger: before
    /// anything is restored or asked for.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Ledger) -> Self {
        assert!(self.tenants.is_empty(), "nothing was counted before");
        self.ledger = ledger;
        self
    }

    /// What other processes hold of a tenant, which counts against its limits here.
    pub fn handle_usage(&mut self, tenant: &Tenant, elsewhere: Usage) {
        self.world(tenant).elsewhere = elsewhere;
    }

    /// What this partition holds of each tenant.
    pub fn usage(&self) -> impl Iterator<Item = (&Tenant, Usage)> {
        self.tenants
            .iter()
            .map(|(tenant, world)| (tenant, world.here))
    }

    /// What it has done and holds.
    pub fn totals(&self) -> Totals {
        Totals {
            topics: self.topics.len() as u64,
            subscriptions: self.subscriptions.len() as u64,
            unsynced: self.log.waiting.len() as u64,
            unsynced_bytes: self.log.publish_bytes,
            failed: self.log.failed,
            ..self.totals
        }
    }

    /// Requests that wait until the log has room for them.
    pub fn in_line(&self) -> usize {
        self.line.len()
    }

    /// True while something that was given to the log is not durable yet.
    pub fn waits_for_log(&self) -> bool {
        !self.log.waiting.is_empty()
    }

    fn answer(&mut self, caller: &Caller, answer: Answer) {
        self.tell(caller.peer, caller.reference.clone(), answer);
    }

    fn tell(&mut self, to: Peer, reference: Option<Bytes>, answer: Answer) {
        self.effects.push_back(Effect::Answer {
            to,
            reference,
            answer,
        });
    }

    fn append(&mut self, value: Value, appended: Appended) -> AppendId {
        assert!(!self.log.failed, "a failed log is given nothing");
        let id = self.log.next;
        self.log.next += 1;
        self.log.waiting.push_back((id, appended));
        self.effects.push_back(Effect::Append { id, value });
        id
    }

    /// Whether what is being served may be appended: asked just before anything is changed for it.
    fn writable(&self) -> Result<(), Refused> {
        if self.log.failed {
            return Err(Refused::StorageFailed);
        }
        self.lack.map_or(Ok(()), Err)
    }

    /// The next 64 bits of a SplitMix64: ids are told apart by them, nothing is kept secret.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn new_id(&mut self, now: Now) -> HomedId {
        let random = self.next_random();
        HomedId::new(now.unix_ms, self.partition, random)
    }

    fn world(&mut self, tenant: &Tenant) -> &mut World {
        let ledger = &self.ledger;
        let world = self.tenants.entry(tenant.clone());
        world.or_insert_with(|| World {
            account: ledger.account(tenant),
            ..World::default()
        })
    }
}
