//! The relay topics whose home is this shard: members, presence, order, and the turns of their
//! handlers. Knows who is a member on which shard, not how a frame reaches a socket.
//!
//! Invariants: all that concerns one topic passes through here, so it has one order; the events
//! of one member of one topic run one at a time; a refused join leaves no member, no presence
//! and no push behind. Bound: `handler_queue_max` events wait for the handler of one member in one
//! topic; past that a message is answered `overloaded` and a join is refused. `topic_capacity` pushes of a join
//! to its own topic are held; past that the oldest goes, and who gets the others is told.

mod event;
mod held;
mod last;
mod listing;
mod push;
mod topic;
mod visit;
mod watch;

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use slab::Slab;

use crate::id::{ConnId, Tenant};

use held::Held;
use last::Lasts;
use topic::{Member, Running, Standing, Topic};
use watch::Watch;

use crate::proto::relay::Wishes;

use super::ConnKey;
use super::pattern::Patterns;
use super::presence::{Presence, PresenceEntry};

pub use event::{
    Call, Effect, Farewell, HandlerEvent, Joining, LaneId, LeaveReason, Leaver, Refusal,
    Subscriber, TopicKey, Unhandled,
};
pub use listing::{TopicCount, TopicFilter, TopicPage};
pub use visit::{Push, Pushed, Told, Visit};

/// The bounds of the relay topics of a shard.
#[derive(Debug, Clone, Copy)]
pub struct HomeLimits {
    /// Events of one member of one topic that may wait for a running handler.
    pub handler_queue_max: usize,
    /// What a topic without handler does.
    pub unhandled: Unhandled,
    /// Pushes of a join to its own topic that are held until it has been decided.
    pub topic_capacity: usize,
    /// Bytes of last pushes that are kept; 0 keeps none.
    pub last_bytes_max: usize,
}

/// All relay topics whose home is this shard.
#[derive(Debug)]
pub struct Home {
    patterns: Arc<Patterns>,
    limits: HomeLimits,
    /// The shard of this home.
    here: u16,
    shards: usize,
    by_name: AHashMap<Tenant, AHashMap<Box<str>, usize>>,
    topics: Slab<Topic>,
    effects: VecDeque<Effect>,
    /// Events that found the queue of their handler full.
    overloads: u64,
    /// Events that wait in all lanes.
    waiting: usize,
    /// Topics in which somebody came or went since it was told.
    changed: Vec<usize>,
    /// Topics whose last member has gone. They stay until the effects that name them are carried out.
    emptied: Vec<usize>,
    lasts: Lasts,
}

impl Home {
    /// No topics yet, on shard `here` of so many.
    pub fn new(patterns: Arc<Patterns>, limits: HomeLimits, (here, shards): (u16, usize)) -> Self {
        Self {
            patterns,
            limits,
            here,
            shards,
            by_name: AHashMap::new(),
            topics: Slab::new(),
            effects: VecDeque::new(),
            overloads: 0,
            waiting: 0,
            changed: Vec::new(),
            emptied: Vec::new(),
            lasts: Lasts::default(),
        }
    }

    /// The next thing to do. Drain this after each `handle_*`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let next = self.effects.pop_front();
        if next.is_none() {
            self.remove_emptied();
        }
        next
    }

    /// The key of a topic that an effect names by its place.
    pub fn topic_at(&self, place: usize) -> Option<&Arc<TopicKey>> {
        self.topics.get(place).map(|topic| &topic.key)
    }

    /// Puts other bounds in force.
    pub fn set_limits(&mut self, limits: HomeLimits) {
        self.limits = limits;
    }

    fn find(&self, tenant: &Tenant, name: &str) -> Option<usize> {
        self.by_name.get(tenant)?.get(name).copied()
    }

    fn find_or_make(&mut self, tenant: &Tenant, name: &str) -> usize {
        if let Some(index) = self.find(tenant, name) {
            return index;
        }
        let key = Arc::new(TopicKey {
            tenant: tenant.clone(),
            name: name.into(),
        });
        let index = self.topics.insert(Topic {
            key,
            handler: self.patterns.handler_of(name),
            members: AHashMap::new(),
            on_shard: vec![0; self.shards],
            presence: Presence::default(),
            watch: Watch::default(),
        });
        self.by_name
            .entry(tenant.clone())
            .or_default()
            .insert(name.into(), index);
        index
    }

    /// A topic goes with its last member.
    fn remove_if_empty(&mut self, index: usize) {
        if self.topics[index].members.is_empty() {
            self.emptied.push(index);
        }
    }

    fn remove_emptied(&mut self) {
        while let Some(index) = self.emptied.pop() {
            // Somebody may have come to it since, or it stands here twice.
            let is_empty = |topic: &Topic| topic.members.is_empty();
            if self.topics.get(index).is_some_and(is_empty) {
                self.remove(index);
            }
        }
    }

    fn remove(&mut self, index: usize) {
        let topic = self.topics.remove(index);
        if let Some(names) = self.by_name.get_mut(&topic.key.tenant) {
            names.remove(&topic.key.name);
            if names.is_empty() {
                self.by_name.remove(&topic.key.tenant);
            }
        }
    }

    /// A connection subscribes. A second time is answered like the first.
    pub fn handle_subscribe(
        &mut self,
        tenant: &Tenant,
        name: &str,
        (subscriber, wishes): (Subscriber, Wishes),
    ) {
        let index = self.find_or_make(tenant, name);
        let topic = &mut self.topics[index];
        let conn_id = subscriber.conn_id;
        let key = subscriber.key;
        if let Some(member) = topic.members.get_mut(&conn_id)
            && member.standing != Standing::Gone
        {
            // What becomes of the membership answers the newest request.
            member.subscriber.asked = subscriber.asked;
            member.wishes = wishes;
            if member.standing == Standing::Joined {
                let topic = Arc::clone(&topic.key);
                self.effects.push_back(Effect::Joined { key, topic });
                self.grant(LaneId {
                    topic: index,
                    conn_id,
                });
            } else {
                member.joins_asked += 1;
            }
            return;
        }
        let waiting = topic.members.get(&conn_id).map(|member| &member.waiting);
        if waiting.is_some_and(|waiting| self.limits.handler_queue_max <= waiting.len()) {
            // Its handler is still busy with joins and leaves of before.
            let name = Arc::clone(&topic.key);
            let text = self.overloaded();
            return self.refuse_join(&subscriber, &name, text);
        }
        topic.on_shard[usize::from(key.shard)] += 1;
        let member = topic.members.entry(conn_id).or_insert_with(|| Member {
            subscriber: subscriber.clone(),
            standing: Standing::Joining,
            running: Running::Nothing,
            waiting: VecDeque::new(),
            held: Held::default(),
            joins_asked: 0,
            wishes,
        });
        member.standing = Standing::Joining;
        member.wishes = wishes;
        member.joins_asked = 1;
        member.subscriber.asked = subscriber.asked;
        let key_of_topic = Arc::clone(&topic.key);
        self.effects.push_back(Effect::Attach {
            subscriber,
            topic: key_of_topic,
        });
        let lane = LaneId {
            topic: index,
            conn_id,
        };
        if topic.handler.is_some() {
            self.enqueue(lane, HandlerEvent::Join);
        } else {
            self.track_by_itself(lane);
            self.admit(lane);
        }
    }

    /// Without a handler the server says who is there (C-07).
    fn track_by_itself(&mut self, lane: LaneId) {
        let topic = &self.topics[lane.topic];
        if let Some(member) = topic.members.get(&lane.conn_id) {
            let meta = serde_json::json!({ "sub": member.subscriber.caller.subject });
            self.track(lane.topic, lane.conn_id, meta);
        }
    }

    fn admit(&mut self, lane: LaneId) {
        let topic = &mut self.topics[lane.topic];
        let Some(member) = topic.members.get_mut(&lane.conn_id) else {
            return;
        };
        let held = std::mem::take(&mut member.held);
        if member.standing == Standing::Joining && !member.left_meanwhile() {
            member.standing = Standing::Joined;
            let key = member.subscriber.key;
            for _ in 0..member.joins_asked {
                let topic = Arc::clone(&topic.key);
                self.effects.push_back(Effect::Joined { key, topic });
            }
            self.grant(lane);
            self.note_admitted(lane);
        }
        if 0 < held.missed {
            self.tell_missed(lane.topic, held.missed);
        }
        for frame in held.frames {
            self.deliver(lane.topic, frame);
        }
    }

    fn reject(&mut self, lane: LaneId, reason: String) {
        let topic = &mut self.topics[lane.topic];
        let Some(member) = topic.members.get_mut(&lane.conn_id) else {
            return;
        };
        member.held = Held::default();
        topic.presence.untrack(lane.conn_id);
        let left_meanwhile = member.left_meanwhile();
        let unheard = member.take_messages();
        self.waiting -= unheard;
        let key = member.subscriber.key;
        let name = Arc::clone(&topic.key);
        if left_meanwhile {
            // It never was a subscriber, so its leave is nobody's business.
            self.waiting -= usize::from(member.waiting.pop_front().is_some());
        } else {
            let (subscriber, again) = (member.subscriber.clone(), member.joins_asked - 1);
            self.retire(lane);
            for _ in 0..again {
                let refusal = Refusal::JoinRejected(reason.clone());
                self.refuse(&name.tenant, &name.name, key, refusal);
            }
            self.refuse_join(&subscriber, &name, reason);
        }
        for _ in 0..unheard {
            let refusal = Refusal::NotSubscribed(name.name.to_string());
            self.refuse(&name.tenant, &name.name, key, refusal);
        }
    }

    fn refuse_join(&mut self, subscriber: &Subscriber, topic: &Arc<TopicKey>, reason: String) {
        self.effects.push_back(Effect::Detach {
            key: subscriber.key,
            topic: Arc::clone(topic),
            asked: subscriber.asked,
            answer: Farewell::Refused(Refusal::JoinRejected(reason)),
        });
    }

    fn overloaded(&mut self) -> String {
        self.overloads += 1;
        let count = self.limits.handler_queue_max;
        format!("overloaded: {count} events wait (limits.handler_queue_max)")
    }

    /// Takes a member out of the counts; its entry stays while events of it are to be handled.
    fn retire(&mut self, lane: LaneId) {
        let topic = &mut self.topics[lane.topic];
        let Some(member) = topic.members.get_mut(&lane.conn_id) else {
            return;
        };
        member.standing = Standing::Gone;
        topic.watch.remove(lane.conn_id);
        let shard = usize::from(member.subscriber.key.shard);
        assert!(
            0 < topic.on_shard[shard],
            "a member is counted on its shard"
        );
        topic.on_shard[shard] -= 1;
    }

    /// A connection unsubscribes, or is gone. Presence goes first, then the handler is told, so
    /// that it sees the new count (D-18).
    pub fn handle_leave(
        &mut self,
        tenant: &Tenant,
        name: &str,
        leaver: Leaver,
        reason: LeaveReason,
    ) {
        let answer = match reason {
            LeaveReason::Unsubscribe => Farewell::Unsubscribed,
            _ => Farewell::Nothing,
        };
        let Some(index) = self.find(tenant, name) else {
            return self.answer_stranger(tenant, name, leaver, answer);
        };
        let conn_id = leaver.conn_id;
        let lane = LaneId {
            topic: index,
            conn_id,
        };
        let topic = &mut self.topics[index];
        let name = Arc::clone(&topic.key);
        let standing = topic.members.get(&conn_id).map(|member| member.standing);
        if let Some(Standing::Joining | Standing::Joined) = standing {
            let has_handler = topic.handler.is_some();
            self.untrack(index, conn_id);
            self.retire(lane);
            if has_handler {
                self.enqueue(lane, HandlerEvent::Leave(reason));
            } else {
                self.forget_if_idle(lane);
            }
        }
        self.effects.push_back(Effect::Detach {
            key: leaver.key,
            topic: name,
            asked: leaver.asked,
            answer,
        });
    }

    /// `unsubscribed` is answered even if there is no such topic.
    fn answer_stranger(&mut self, tenant: &Tenant, name: &str, leaver: Leaver, answer: Farewell) {
        if answer == Farewell::Unsubscribed {
            let topic = Arc::new(TopicKey {
                tenant: tenant.clone(),
                name: name.into(),
            });
            self.effects.push_back(Effect::Detach {
                key: leaver.key,
                topic,
                asked: leaver.asked,
                answer,
            });
        }
    }

    /// A client sends a message to a topic. `frame` encodes the push of it, and is called only
    /// when the message is broadcast.
    pub fn handle_message(
        &mut self,
        tenant: &Tenant,
        name: &str,
        (key, conn_id): (ConnKey, ConnId),
        (event, payload): (&str, &[u8]),
        frame: impl FnOnce() -> Bytes,
    ) {
        let index = self.find(tenant, name);
        let found = index.map(|index| (index, &self.topics[index]));
        // While its join is being decided a message waits behind it.
        let joined = found.filter(|(_, topic)| {
            let member = topic.members.get(&conn_id);
            member.is_some_and(|member| member.standing != Standing::Gone)
        });
        let Some((index, topic)) = joined else {
            return self.refuse(tenant, name, key, Refusal::NotSubscribed(name.to_owned()));
        };
        if topic.handler.is_some() {
            let payload = Bytes::copy_from_slice(payload);
            let lane = LaneId {
                topic: index,
                conn_id,
            };
            self.enqueue(
                lane,
                HandlerEvent::Message {
                    event: event.into(),
                    payload,
                },
            );
        } else if self.limits.unhandled == Unhandled::Broadcast {
            self.deliver(index, frame());
        } else {
            let text = format!("topic {name} takes no messages");
            self.refuse(tenant, name, key, Refusal::HandlerFailed(text));
        }
    }

    fn refuse(&mut self, tenant: &Tenant, name: &str, key: ConnKey, refusal: Refusal) {
        let topic = Arc::new(TopicKey {
            tenant: tenant.clone(),
            name: name.into(),
        });
        self.effects.push_back(Effect::Refuse {
            key,
            topic,
            refusal,
        });
    }

    /// Says that a connection is present. Only a member can be: whether it was one.
    pub fn handle_track(
        &mut self,
        tenant: &Tenant,
        name: &str,
        conn_id: ConnId,
        meta: serde_json::Value,
    ) -> bool {
        let Some(index) = self.find(tenant, name) else {
            return false;
        };
        let member = self.topics[index].members.get(&conn_id);
        let is_member = member.is_some_and(|member| member.standing != Standing::Gone);
        if is_member {
            self.track(index, conn_id, meta);
        }
        is_member
    }

    /// Says that a connection is no longer present; whether it was.
    pub fn handle_untrack(&mut self, tenant: &Tenant, name: &str, conn_id: ConnId) -> bool {
        let index = self.find(tenant, name);
        index.is_some_and(|index| self.untrack(index, conn_id))
    }

    /// Who is present.
    pub fn presence(&self, tenant: &Tenant, name: &str) -> Vec<PresenceEntry> {
        let index = self.find(tenant, name);
        index
            .map(|index| self.topics[index].presence.list())
            .unwrap_or_default()
    }

    /// How many are present.
    pub fn presence_count(&self, tenant: &Tenant, name: &str) -> usize {
        self.find(tenant, name)
            .map_or(0, |index| self.topics[index].presence.count())
    }

    /// A run of a handler has ended.
    pub fn handle_called(
        &mut self,
        lane: LaneId,
        event: &HandlerEvent,
        result: Result<(), String>,
    ) {
        match (event, result) {
            (HandlerEvent::Join, Ok(())) => self.admit(lane),
            (HandlerEvent::Join, Err(reason)) => self.reject(lane, reason),
            (HandlerEvent::Message { .. }, Err(text)) => self.fail_message(lane, text),
            (HandlerEvent::Message { .. } | HandlerEvent::Leave(_), _) => {}
        }
        if let Some(member) = self.topics[lane.topic].members.get_mut(&lane.conn_id) {
            member.running = Running::Nothing;
        }
        self.run_next(lane);
        self.forget_if_idle(lane);
    }

    fn fail_message(&mut self, lane: LaneId, text: String) {
        let topic = &self.topics[lane.topic];
        let Some(member) = topic.members.get(&lane.conn_id) else {
            return;
        };
        let key = member.subscriber.key;
        let topic = Arc::clone(&topic.key);
        let refusal = Refusal::HandlerFailed(text);
        self.effects.push_back(Effect::Refuse {
            key,
            topic,
            refusal,
        });
    }

    fn enqueue(&mut self, lane: LaneId, event: HandlerEvent) {
        let topic = &mut self.topics[lane.topic];
        let Some(member) = topic.members.get_mut(&lane.conn_id) else {
            return;
        };
        let is_message = matches!(event, HandlerEvent::Message { .. });
        // Joins are bounded where they come in, and there is at most one leave for each.
        if is_message && self.limits.handler_queue_max <= member.waiting.len() {
            let text = self.overloaded();
            return self.fail_message(lane, text);
        }
        member.waiting.push_back(event);
        self.waiting += 1;
        self.run_next(lane);
    }

    fn run_next(&mut self, lane: LaneId) {
        let topic = &mut self.topics[lane.topic];
        let Some(handler) = topic.handler else { return };
        let Some(member) = topic.members.get_mut(&lane.conn_id) else {
            return;
        };
        if member.running != Running::Nothing {
            return;
        }
        let Some(event) = member.waiting.pop_front() else {
            return;
        };
        self.waiting -= 1;
        let is_join = event == HandlerEvent::Join;
        member.running = if is_join {
            Running::Join
        } else {
            Running::Other
        };
        let subscriber = member.subscriber.clone();
        let topic = Arc::clone(&topic.key);
        self.effects.push_back(Effect::Call(Call {
            handler,
            topic,
            subscriber,
            event,
            lane,
        }));
    }

    fn forget_if_idle(&mut self, lane: LaneId) {
        let topic = &mut self.topics[lane.topic];
        let idle = topic
            .members
            .get(&lane.conn_id)
            .is_some_and(|member| member.standing == Standing::Gone && member.is_idle());
        if idle {
            topic.members.remove(&lane.conn_id);
            self.remove_if_empty(lane.topic);
        }
    }
}

#[cfg(test)]
mod tests;
