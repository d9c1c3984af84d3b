//! Subscriptions by request: made, bound, taken over, acked, moved, ended. A binding is told
//! `Subscribed` once the subscription's record is durable, and gets nothing before.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::subscription::{Opening, Subscription, cursor_of, window};
use crate::id::{HomedId, Seq};
use crate::log::TEXT_BYTES_MAX;

use super::rights::{Need, Touch};
use super::topics::check_name;
use super::{
    Answer, Appended, Caller, Durable, Ended, Moved, Now, Open, Peer, Refused, TopicRef, Usage,
    Value,
};

impl Durable {
    pub(super) fn subscribe(
        &mut self,
        now: Now,
        caller: &Caller,
        topic: &TopicRef,
        (sub_name, maker): (Arc<str>, Arc<str>),
        open: &Open,
    ) -> Result<(), Refused> {
        let topic = self.find_topic(caller, topic, Need::Subscribe)?;
        check_name("sub_name", &sub_name, self.limits.sub_name_bytes_max)?;
        let known = self
            .topics
            .get(&topic)
            .and_then(|topic| topic.subscriptions.get(&sub_name));
        let Some(id) = known.copied() else {
            return self.make_subscription(now, caller, (topic, sub_name, maker), open);
        };
        self.check_binding(caller.peer, id)?;
        let bound_to = self.bound_to(id).filter(|peer| *peer != caller.peer);
        if open.reject_duplicate && bound_to.is_some() {
            return Err(Refused::Duplicate);
        }
        let same_epoch = open.epoch.is_none_or(|epoch| epoch == self.epoch);
        if open.seek && same_epoch {
            self.seek(now, id, open.from_seq)?;
        }
        if self.bound_to(id).is_none() || bound_to.is_some() {
            self.bind(now, caller, id, (open, true));
        }
        if !same_epoch {
            self.start_anew(now, id)?;
        }
        self.open(id, caller.reference.clone());
        Ok(())
    }

    fn make_subscription(
        &mut self,
        now: Now,
        caller: &Caller,
        (topic_id, sub_name, maker): (HomedId, Arc<str>, Arc<str>),
        open: &Open,
    ) -> Result<(), Refused> {
        self.writable()?;
        let Some(topic) = self.topics.get(&topic_id) else {
            return Err(Refused::UnknownTopic);
        };
        let other_epoch = open.epoch.is_some_and(|epoch| epoch != self.epoch);
        let from_seq = if other_epoch { Some(0) } else { open.from_seq };
        let cursor = cursor_of(topic, from_seq)?;
        let id = self.new_id(now);
        self.check_binding(caller.peer, id)?;
        self.room_for_subscription(caller)?;
        let tenant = caller.tenant.clone();
        let maker = if maker.len() <= TEXT_BYTES_MAX {
            maker
        } else {
            "".into()
        };
        let mut subscription = Subscription::new(tenant, topic_id, sub_name.clone(), cursor);
        subscription.maker = (*maker).into();
        self.insert_subscription(id, subscription);
        self.bind(now, caller, id, (open, false));
        if other_epoch {
            self.start_anew(now, id)?;
        }
        let value = Value::SubscriptionCreated {
            subscription: id,
            topic: topic_id,
            sub_name,
            maker,
            cursor,
            unix_ms: now.unix_ms,
        };
        self.early.insert(id, Vec::new());
        self.append(value, Appended::Subscription(id));
        Ok(())
    }

    fn room_for_subscription(&mut self, caller: &Caller) -> Result<(), Refused> {
        let count_max = self.limits.subscriptions_per_tenant_max;
        let world = self.world(&caller.tenant);
        let max = count_max.saturating_sub(world.elsewhere.subscriptions);
        if !world.account.take_subscription(max) {
            let knob = "subscriptions_per_tenant_max";
            return Err(Refused::SubscriptionLimit { count_max, knob });
        }
        world.here.subscriptions += 1;
        Ok(())
    }

    /// Bindings and fences are both remembered for a connection, so both count.
    fn check_binding(&self, peer: Peer, id: HomedId) -> Result<(), Refused> {
        let count_max = self.limits.subscriptions_per_connection_max;
        let Some(connection) = self.connections.get(&peer) else {
            return Ok(());
        };
        let known = connection.bound.contains(&id) || connection.fenced.contains(&id);
        let count = connection.bound.len() + connection.fenced.len();
        if !known && count_max <= count as u64 {
            let knob = "subscriptions_per_connection_max";
            return Err(Refused::SubscriptionLimit { count_max, knob });
        }
        Ok(())
    }

    /// Puts a subscription that is counted into every index.
    pub(super) fn insert_subscription(&mut self, id: HomedId, subscription: Subscription) {
        let name = subscription.sub_name.clone();
        if let Some(topic) = self.topics.get_mut(&subscription.topic) {
            let before = topic.subscriptions.insert(name, id);
            assert!(before.is_none(), "a key is one subscription of a topic");
        }
        let world = self.world(&subscription.tenant);
        world.listed.insert(subscription.topic, id);
        self.subscriptions.insert(id, subscription);
    }

    /// Takes a subscription out of every index and tells who was bound.
    pub(super) fn remove_subscription(&mut self, id: HomedId, reason: Ended) {
        self.detach(id, reason);
        let Some(subscription) = self.subscriptions.remove(&id) else {
            return;
        };
        let world = self.world(&subscription.tenant);
        world.listed.remove(subscription.topic, id);
        world.give_back(Usage {
            subscriptions: 1,
            ..Usage::default()
        });
        if let Some(topic) = self.topics.get_mut(&subscription.topic)
            && topic.subscriptions.get(&subscription.sub_name) == Some(&id)
        {
            topic.subscriptions.remove(&subscription.sub_name);
        }
    }

    pub(super) fn bound_to(&self, id: HomedId) -> Option<Peer> {
        Some(self.subscriptions.get(&id)?.binding.as_ref()?.peer)
    }

    fn bind(&mut self, now: Now, caller: &Caller, id: HomedId, (open, resumed): (&Open, bool)) {
        self.detach(id, Ended::TakenOver);
        let limits = &self.limits;
        let in_flight_max = window(open, limits.window_messages, limits.window_messages_max);
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        let opening = Opening {
            reference: caller.reference.clone(),
            resumed,
        };
        subscription.bind(caller.peer, in_flight_max, opening);
        subscription.active_ms = now.unix_ms;
        let connection = self.connections.entry(caller.peer).or_default();
        connection.fenced.remove(&id);
        connection.bound.insert(id);
        if let Some(topic) = self.topics.get_mut(&subscription.topic) {
            topic.bound += 1;
        }
    }

    /// Ends a binding, if there is one, and tells its peer why.
    pub(super) fn detach(&mut self, id: HomedId, reason: Ended) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        let Some(binding) = subscription.unbind() else {
            return;
        };
        let (topic_id, sub_name) = (subscription.topic, subscription.sub_name.clone());
        if let Some(topic) = self.topics.get_mut(&topic_id) {
            topic.bound -= 1;
        }
        if let Some(connection) = self.connections.get_mut(&binding.peer) {
            connection.lose(id, reason);
        }
        let ended = Answer::Unsubscribed {
            topic: topic_id,
            sub_name,
            reason,
        };
        self.tell(binding.peer, None, ended);
    }

    /// Answers the subscribe, unless the subscription's own record is still on its way.
    pub(super) fn open(&mut self, id: HomedId, again: Option<Bytes>) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        let Some(topic) = self.topics.get(&subscription.topic) else {
            return;
        };
        if !subscription.made {
            return;
        }
        let subscribed = subscription.subscribed(id, topic, self.epoch);
        let Some(binding) = &mut subscription.binding else {
            return;
        };
        let peer = binding.peer;
        let reference = binding
            .opening
            .take()
            .map_or(again, |opening| opening.reference);
        self.tell(peer, reference, Answer::Subscribed(subscribed));
        self.wake(id);
    }

    /// The client remembers another life of the log: it is told so and gets everything.
    fn start_anew(&mut self, now: Now, id: HomedId) -> Result<(), Refused> {
        self.seek(now, id, Some(0))?;
        if let Some(binding) = self
            .subscriptions
            .get_mut(&id)
            .and_then(|s| s.binding.as_mut())
        {
            binding.new_epoch = true;
        }
        Ok(())
    }

    fn seek(&mut self, now: Now, id: HomedId, from_seq: Option<Seq>) -> Result<(), Refused> {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return Err(Refused::UnknownSubscription);
        };
        let Some(topic) = self.topics.get(&subscription.topic) else {
            return Err(Refused::UnknownSubscription);
        };
        let cursor = cursor_of(topic, from_seq)?;
        subscription.seek(cursor);
        self.cursor_moved(now, id);
        self.wake(id);
        Ok(())
    }

    pub(super) fn unsubscribe(
        &mut self,
        caller: &Caller,
        topic: &TopicRef,
        sub_name: &Arc<str>,
    ) -> Result<(), Refused> {
        let id = self.find_bound(caller, topic, sub_name)?;
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return Err(Refused::NotSubscribed);
        };
        let topic = subscription.topic;
        subscription.unbind();
        if let Some(topic) = self.topics.get_mut(&topic) {
            topic.bound -= 1;
        }
        if let Some(connection) = self.connections.get_mut(&caller.peer) {
            connection.lose(id, Ended::Requested);
        }
        let (sub_name, reason) = (sub_name.clone(), Ended::Requested);
        self.answer(
            caller,
            Answer::Unsubscribed {
                topic,
                sub_name,
                reason,
            },
        );
        Ok(())
    }

    /// The subscription that the caller is bound to; what it was taken from is fenced. One whose
    /// end waits for the disk is still bound: acks that were on their way are no mistake.
    fn find_bound(
        &self,
        caller: &Caller,
        topic: &TopicRef,
        sub_name: &Arc<str>,
    ) -> Result<HomedId, Refused> {
        let topic = self.find_topic(caller, topic, Need::Subscribe)?;
        let connection = self
            .connections
            .get(&caller.peer)
            .ok_or(Refused::NotSubscribed)?;
        let found = self
            .topics
            .get(&topic)
            .and_then(|topic| topic.subscriptions.get(sub_name));
        if let Some(id) = found.filter(|id| connection.bound.contains(*id)) {
            return Ok(*id);
        }
        let is_meant = |id: &&HomedId| {
            let ending = self.subscriptions.get(id).filter(|ending| ending.deleting);
            ending.is_some_and(|ending| ending.topic == topic && ending.sub_name == *sub_name)
        };
        if let Some(id) = connection.bound.iter().find(is_meant) {
            return Ok(*id);
        }
        let fenced = found.is_some_and(|id| connection.fenced.contains(id));
        Err(if fenced {
            Refused::Fenced
        } else {
            Refused::NotSubscribed
        })
    }

    pub(super) fn ack(
        &mut self,
        now: Now,
        caller: &Caller,
        (topic, sub_name): (&TopicRef, &Arc<str>),
        seq: Seq,
    ) -> Result<(), Refused> {
        let id = self.find_bound(caller, topic, sub_name)?;
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return Err(Refused::NotSubscribed);
        };
        let first = self
            .topics
            .get(&subscription.topic)
            .map_or(1, |it| it.first);
        subscription.active_ms = now.unix_ms;
        let moved = subscription.ack(caller.peer, seq, first)?;
        let cursor = subscription.cursor;
        if moved {
            self.cursor_moved(now, id);
        }
        self.wake(id);
        if caller.reference.is_some() {
            self.writable()?;
            self.check_waiting(caller.peer)?;
            self.tell_when_moved(caller, id, Some(cursor));
        }
        Ok(())
    }

    /// Answers once the cursor is durable. Whoever waits for it does not wait for the clock.
    fn tell_when_moved(&mut self, caller: &Caller, id: HomedId, acked: Option<Seq>) {
        let (peer, reference) = (caller.peer, caller.reference.clone());
        self.publishing.entry(peer).or_default().count += 1;
        self.cursors.told.push(Moved {
            peer,
            reference,
            subscription: id,
            acked,
        });
        self.flush_cursors();
    }

    /// A peer is gone: its bindings end without a word, and what it did not ack is sent again to
    /// the next.
    pub(super) fn disconnect(&mut self, peer: Peer) {
        self.forget_early(peer);
        let Some(connection) = self.connections.remove(&peer) else {
            return;
        };
        for id in connection.bound {
            let Some(subscription) = self.subscriptions.get_mut(&id) else {
                continue;
            };
            subscription.unbind();
            if let Some(topic) = self.topics.get_mut(&subscription.topic) {
                topic.bound -= 1;
            }
        }
    }

    pub(super) fn get_subscription(&mut self, caller: &Caller, id: HomedId) -> Result<(), Refused> {
        let id = self.find_subscription(caller, id, Touch::See)?;
        let found = self.subscriptions.get(&id).and_then(|subscription| {
            Some(subscription.view(id, self.topics.get(&subscription.topic)?))
        });
        let view = found.ok_or(Refused::UnknownSubscription)?;
        self.answer(caller, Answer::Subscription(view));
        Ok(())
    }

    pub(super) fn move_subscription(
        &mut self,
        now: Now,
        caller: &Caller,
        id: HomedId,
        from_seq: Seq,
    ) -> Result<(), Refused> {
        let id = self.find_subscription(caller, id, Touch::Change)?;
        self.writable()?;
        self.seek(now, id, Some(from_seq))?;
        self.tell_when_moved(caller, id, None);
        Ok(())
    }

    pub(super) fn delete_subscription(
        &mut self,
        caller: &Caller,
        id: HomedId,
    ) -> Result<(), Refused> {
        let id = self.find_subscription(caller, id, Touch::Change)?;
        self.writable()?;
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return Err(Refused::UnknownSubscription);
        };
        subscription.deleting = true;
        let (topic, name) = (subscription.topic, subscription.sub_name.clone());
        if let Some(topic) = self.topics.get_mut(&topic) {
            topic.subscriptions.remove(&name);
        }
        let value = Value::SubscriptionDeleted { subscription: id };
        self.append(value, Appended::SubscriptionEnd(id, caller.clone()));
        Ok(())
    }

    /// The log would not take the end of a subscription: it stays.
    pub(super) fn keep_subscription(&mut self, id: HomedId) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        subscription.deleting = false;
        if let Some(topic) = self.topics.get_mut(&subscription.topic) {
            topic
                .subscriptions
                .insert(subscription.sub_name.clone(), id);
        }
        self.wake(id);
    }
}
