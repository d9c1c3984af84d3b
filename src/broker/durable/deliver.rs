//! Delivery: each bound subscription is a reader that goes on from its `next` seq, out of the
//! live tail if the message is there and out of the log if not. Commit, ack and credit wake it.
//! Messages without a subscription are read here too.

use crate::broker::subscription::{Step, Subscription};
use crate::id::{HomedId, Seq};

use super::rights::Need;
use super::{
    Answer, Caller, Durable, Effect, Ended, Gap, GapReason, Message, Peer, ReadId, ReadItem,
    Reading, Refused, TopicRef,
};

/// A read of messages without a subscription, which may take several reads of the log.
#[derive(Debug)]
pub(super) struct History {
    caller: Caller,
    topic: HomedId,
    next: Seq,
    through: Seq,
    limit: u32,
    bytes: u64,
    messages: Vec<Message>,
    gaps: Vec<Gap>,
}

/// Messages of one subscription before it is the turn of the next.
const TURN_MESSAGES: u32 = 16;

impl Durable {
    /// Lets a subscription be moved on at the next poll.
    pub(super) fn wake(&mut self, id: HomedId) {
        if let Some(subscription) = self.subscriptions.get_mut(&id)
            && subscription.binding.is_some()
            && !subscription.ready
        {
            subscription.ready = true;
            self.ready.push_back(id);
        }
    }

    /// Wakes those that have read everything there was.
    pub(super) fn wake_idle(&mut self, topic: HomedId) {
        let Some(topic) = self.topics.get_mut(&topic) else {
            return;
        };
        let mut idle = std::mem::take(&mut topic.idle);
        for id in idle.drain(..) {
            if let Some(subscription) = self.subscriptions.get_mut(&id) {
                subscription.idle = false;
                if subscription.binding.is_some() && !subscription.ready {
                    subscription.ready = true;
                    self.ready.push_back(id);
                }
            }
        }
        topic.idle = idle;
    }

    /// Lets a peer be sent more. Those of its bindings that waited for that go on.
    pub(super) fn grant(&mut self, peer: Peer, bytes: u64) {
        let connection = self.connections.entry(peer).or_default();
        let starved = connection.credit <= 0;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        connection.credit = connection.credit.saturating_add(bytes);
        if starved && 0 < connection.credit {
            let bound: Vec<HomedId> = connection.bound.iter().copied().collect();
            for id in bound {
                self.wake(id);
            }
        }
    }

    /// Moves one subscription on, a few messages at most, and puts it back if it can go further.
    pub(super) fn advance(&mut self, id: HomedId) {
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.ready = false;
        }
        for _ in 0..TURN_MESSAGES {
            if !self.advance_once(id) {
                return;
            }
        }
        self.wake(id);
    }

    /// False if it has to wait for something.
    fn advance_once(&mut self, id: HomedId) -> bool {
        let Some((peer, step)) = self.next_step(id) else {
            return false;
        };
        match step {
            Step::Epoch => self.tell_epoch(id),
            Step::Gap(to) => self.pass(id, to, GapReason::Retention),
            Step::Deliver {
                through,
                count_max,
                bytes_max,
            } => {
                return self.deliver_or_read(id, peer, (through, count_max, bytes_max));
            }
            Step::Commit => {
                self.wait_for_commit(id);
                return false;
            }
            Step::Wait | Step::Credit => return false,
        }
        true
    }

    fn next_step(&self, id: HomedId) -> Option<(Peer, Step)> {
        let subscription = self.subscriptions.get(&id)?;
        let topic = self.topics.get(&subscription.topic)?;
        let peer = subscription.binding.as_ref()?.peer;
        let credit = self
            .connections
            .get(&peer)
            .map_or(0, |connection| connection.credit);
        Some((
            peer,
            subscription.step(topic, credit, self.limits.window_bytes_max),
        ))
    }

    fn wait_for_commit(&mut self, id: HomedId) {
        if let Some(subscription) = self.subscriptions.get_mut(&id)
            && let Some(topic) = self.topics.get_mut(&subscription.topic)
            && !subscription.idle
        {
            subscription.idle = true;
            topic.idle.push(id);
        }
    }

    fn deliver_or_read(
        &mut self,
        id: HomedId,
        peer: Peer,
        (through_seq, count_max, bytes_max): (Seq, u32, u64),
    ) -> bool {
        let Some((topic, next)) = self.subscriptions.get(&id).and_then(reading_at) else {
            return false;
        };
        let recent = self
            .topics
            .get(&topic)
            .and_then(|topic| topic.recent.message(next));
        if let Some(message) = recent.cloned() {
            self.deliver(id, peer, message);
            return true;
        }
        let reserved = bytes_max.min(self.limits.read_bytes_max);
        self.charge(peer, reserved);
        let reading = Reading::Subscription {
            subscription: id,
            peer,
            reserved,
        };
        let read = self.read(reading, (topic, next, through_seq), (reserved, count_max));
        if let Some(binding) = self
            .subscriptions
            .get_mut(&id)
            .and_then(|s| s.binding.as_mut())
        {
            binding.read = Some(read);
        }
        false
    }

    fn read(
        &mut self,
        reading: Reading,
        (topic, from_seq, through_seq): (HomedId, Seq, Seq),
        (bytes_max, count_max): (u64, u32),
    ) -> ReadId {
        let id = self.next_read;
        self.next_read += 1;
        self.reads.insert(id, reading);
        let read = Effect::Read {
            id,
            topic,
            from_seq,
            through_seq,
            bytes_max,
            count_max,
        };
        self.effects.push_back(read);
        id
    }

    fn deliver(&mut self, id: HomedId, peer: Peer, message: Message) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        let redelivered = subscription.deliver(&message);
        let topic = subscription.topic;
        self.charge(peer, message.cost());
        self.totals.delivered += 1;
        self.tell(
            peer,
            None,
            Answer::Message {
                topic,
                subscription: id,
                message,
                redelivered,
            },
        );
    }

    fn charge(&mut self, peer: Peer, bytes: u64) {
        if let Some(connection) = self.connections.get_mut(&peer) {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            connection.credit = connection.credit.saturating_sub(bytes);
        }
    }

    fn pass(&mut self, id: HomedId, to: Seq, reason: GapReason) {
        let Some((topic, from)) = self.subscriptions.get(&id).and_then(reading_at) else {
            return;
        };
        self.tell_gap(id, topic, Gap { from, to, reason });
        let subscription = self.subscriptions.get_mut(&id);
        if subscription.is_some_and(|subscription| subscription.pass(to)) {
            self.note_moved(id);
        }
    }

    fn tell_epoch(&mut self, id: HomedId) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        let Some(binding) = &mut subscription.binding else {
            return;
        };
        binding.new_epoch = false;
        let (topic, to) = (subscription.topic, binding.next - 1);
        self.tell_gap(
            id,
            topic,
            Gap {
                from: 1,
                to,
                reason: GapReason::Epoch,
            },
        );
    }

    fn tell_gap(&mut self, id: HomedId, topic: HomedId, gap: Gap) {
        let found = self.subscriptions.get(&id);
        let told = found.and_then(|s| Some((s.binding.as_ref()?.peer, s.sub_name.clone())));
        if let Some((peer, sub_name)) = told {
            self.tell(
                peer,
                None,
                Answer::Gap {
                    topic,
                    sub_name,
                    gap,
                },
            );
        }
    }

    /// What a read has found: pieces in order, the first of them at the seq that was asked for.
    /// Nothing at all is right only if the topic is gone or no longer keeps that seq.
    pub fn handle_read(&mut self, id: ReadId, items: Vec<ReadItem>) {
        match self.reads.remove(&id) {
            Some(Reading::Subscription {
                subscription,
                peer,
                reserved,
            }) => {
                self.grant_back(peer, reserved);
                if self.goes_on(subscription, id) {
                    self.deliver_items(subscription, peer, items);
                }
            }
            Some(Reading::History(history)) => self.continue_history(history, items),
            None => {}
        }
    }

    /// The log has nothing there, which is right only if the topic's end is on its way: one that is
    /// kept cannot be read until a restart.
    pub fn handle_read_failed(&mut self, id: ReadId) {
        match self.reads.remove(&id) {
            Some(Reading::Subscription {
                subscription,
                peer,
                reserved,
            }) => {
                self.grant_back(peer, reserved);
                let topic = self.subscriptions.get(&subscription).map(|s| s.topic);
                let is_kept = topic.is_some_and(|topic| self.is_kept(topic));
                if self.goes_on(subscription, id) && is_kept {
                    self.detach(subscription, Ended::StorageFailed);
                }
            }
            Some(Reading::History(history)) => {
                self.histories -= 1;
                let topic = Some(TopicRef::Id(history.topic));
                let refused = match self.is_kept(history.topic) {
                    true => Refused::StorageFailed,
                    false => Refused::UnknownTopic,
                };
                self.answer(
                    &history.caller,
                    Answer::Refused {
                        refused,
                        topic,
                        sub_name: None,
                        publish: false,
                    },
                );
            }
            None => {}
        }
    }

    /// Whether a topic is there and its end is not on its way.
    fn is_kept(&self, topic: HomedId) -> bool {
        let topic = self.topics.get(&topic);
        topic.is_some_and(|topic| !topic.deleting())
    }

    /// Gives reserved credit back to a peer that is still there.
    fn grant_back(&mut self, peer: Peer, reserved: u64) {
        if self.connections.contains_key(&peer) {
            self.grant(peer, reserved);
        }
    }

    /// Whether the binding that asked for this read still wants it.
    fn goes_on(&mut self, id: HomedId, read: ReadId) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return false;
        };
        let binding = subscription.binding.as_mut();
        let Some(binding) = binding.filter(|binding| binding.read == Some(read)) else {
            return false;
        };
        binding.read = None;
        !subscription.deleting
    }

    fn deliver_items(&mut self, id: HomedId, peer: Peer, items: Vec<ReadItem>) {
        for item in items {
            match item {
                ReadItem::Message(message) => self.deliver(id, peer, message),
                ReadItem::Damaged { to, .. } => self.pass(id, to, GapReason::Damaged),
            }
        }
        self.wake(id);
    }

    pub(super) fn read_messages(
        &mut self,
        caller: &Caller,
        topic: &TopicRef,
        from_seq: Seq,
        limit: u32,
    ) -> Result<(), Refused> {
        let id = self.find_topic(caller, topic, Need::Subscribe)?;
        let Some(topic) = self.topics.get(&id) else {
            return Err(Refused::UnknownTopic);
        };
        let max = self.limits.histories_max;
        if max <= self.histories {
            return Err(Refused::Overloaded {
                max,
                knob: "histories_max",
            });
        }
        self.histories += 1;
        self.read_on(Box::new(History {
            caller: caller.clone(),
            topic: id,
            next: from_seq.max(topic.first),
            through: topic.durable,
            limit,
            bytes: 0,
            messages: Vec::new(),
            gaps: Vec::new(),
        }));
        Ok(())
    }

    fn read_on(&mut self, history: Box<History>) {
        let left = history.limit.saturating_sub(history.count());
        let bytes = self.limits.history_bytes_max.saturating_sub(history.bytes);
        if left == 0 || bytes == 0 || history.through < history.next {
            self.histories -= 1;
            let History {
                caller,
                topic,
                messages,
                gaps,
                next,
                through,
                ..
            } = *history;
            self.answer(
                &caller,
                Answer::Messages {
                    topic,
                    messages,
                    gaps,
                    next: (next <= through).then_some(next),
                    last_seq: through,
                },
            );
            return;
        }
        let span = (history.topic, history.next, history.through);
        let bytes_max = bytes.min(self.limits.read_bytes_max);
        self.read(Reading::History(history), span, (bytes_max, left));
    }

    fn continue_history(&mut self, mut history: Box<History>, items: Vec<ReadItem>) {
        if items.is_empty() {
            // The topic is gone, or keeps less than it did: what is left is the end.
            let kept = self
                .topics
                .get(&history.topic)
                .map_or(Seq::MAX, |topic| topic.first);
            history.next = if history.next < kept { kept } else { Seq::MAX };
        }
        for item in items {
            match item {
                ReadItem::Message(message) => {
                    history.next = message.seq + 1;
                    history.bytes += message.cost();
                    history.messages.push(message);
                }
                ReadItem::Damaged { from, to } => {
                    history.next = to + 1;
                    history.gaps.push(Gap {
                        from,
                        to,
                        reason: GapReason::Damaged,
                    });
                }
            }
        }
        self.read_on(history);
    }
}

impl History {
    fn count(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }
}

fn reading_at(subscription: &Subscription) -> Option<(HomedId, Seq)> {
    Some((subscription.topic, subscription.binding.as_ref()?.next))
}
