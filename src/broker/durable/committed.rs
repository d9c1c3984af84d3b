//! What the log reports: that it is durable so far, that it has failed, or that nobody knows.
//! Everything that waited for it is answered here, in the order of the appends.

use std::mem;

use crate::broker::topic::Life;
use crate::id::{HomedId, Seq};

use super::publish::Appending;
use super::{
    Answer, AppendId, Appended, Caller, Durable, Effect, Ended, Held, Moved, Now, Peer, Refused,
    TopicRef,
};

impl Durable {
    /// Every append up to `through` is durable.
    pub fn handle_durable(&mut self, through: AppendId) {
        assert!(
            through < self.log.next,
            "only what was appended becomes durable"
        );
        while let Some((id, appended)) = self.log.waiting.pop_front_if(|(id, _)| *id <= through) {
            self.committed(appended);
            self.release(id);
        }
    }

    /// A write or a sync has failed. That is final: everything that waits is refused in its order,
    /// and nothing is appended any more. What was durable before can still be read.
    pub fn handle_failed(&mut self, now: Now) {
        self.end(now, Refused::StorageFailed);
    }

    /// Nobody knows what became of the appends that wait: an engine elsewhere has stored them or
    /// not. They are neither acknowledged nor taken back. This home is over: its bindings end, and
    /// the caller builds another one from what the engine turns out to hold.
    pub fn handle_unknown(&mut self, now: Now) {
        self.end(now, Refused::OutcomeUnknown);
        let bound = self.subscriptions.iter();
        let bound = bound.filter(|(_, subscription)| subscription.binding.is_some());
        let mut bound: Vec<HomedId> = bound.map(|(id, _)| *id).collect();
        bound.sort_unstable();
        for id in bound {
            self.detach(id, Ended::StorageFailed);
        }
    }

    fn end(&mut self, now: Now, waiting: Refused) {
        self.log.failed = true;
        let is_append = |effect: &Effect| matches!(effect, Effect::Append { .. });
        self.effects.retain(|effect| !is_append(effect));
        self.cursors.wanted = false;
        while let Some((id, appended)) = self.log.waiting.pop_front() {
            self.give_up(appended, waiting);
            self.release(id);
        }
        let told = mem::take(&mut self.cursors.told);
        self.refuse_moved(told, Refused::StorageFailed);
        self.serve_ready(now);
    }

    /// Tells what stood behind an append.
    fn release(&mut self, through: AppendId) {
        while let Some(first) = self.held.first_entry()
            && first.key().0 <= through
        {
            let Held {
                peer,
                reference,
                answer,
            } = first.remove();
            self.published(peer);
            let answer = self.if_durable(answer);
            self.tell(peer, reference, answer);
        }
    }

    /// A repeat whose original will never be durable ends as that did.
    fn if_durable(&self, answer: Answer) -> Answer {
        let Answer::Published {
            topic, last_seq, ..
        } = answer
        else {
            return answer;
        };
        let kept = self.topics.get(&topic);
        if self.log.failed && kept.is_none_or(|kept| kept.durable < last_seq) {
            return refused_publish(topic, Refused::StorageFailed);
        }
        answer
    }

    fn committed(&mut self, appended: Appended) {
        match appended {
            Appended::Topic(topic) => self.topic_made(topic),
            Appended::Retention(topic, retention, caller) => {
                self.retention_changed(topic, retention, &caller);
            }
            Appended::TopicEnd(topic, caller) => {
                self.remove_topic(topic);
                self.answer(&caller, Answer::Deleted);
            }
            Appended::Publish(appending) => self.publish_made(appending),
            Appended::Subscription(subscription) => self.subscription_made(subscription),
            Appended::SubscriptionEnd(subscription, caller) => {
                self.remove_subscription(subscription, Ended::Deleted);
                self.answer(&caller, Answer::Deleted);
            }
            Appended::Cursors(told) => self.cursors_made(told),
            Appended::EndAgain => {}
        }
    }

    fn topic_made(&mut self, id: HomedId) {
        let Some(topic) = self.topics.get_mut(&id) else {
            return;
        };
        let view = topic.view(id);
        let Life::Creating(told) = mem::take(&mut topic.life) else {
            return;
        };
        for (index, (peer, reference)) in told.into_iter().enumerate() {
            let view = view.clone();
            self.tell(
                peer,
                reference,
                Answer::Topic {
                    view,
                    created: index == 0,
                },
            );
        }
    }

    fn publish_made(&mut self, appending: Appending) {
        let Appending {
            topic: id,
            peer,
            reference,
            first,
            last,
            bytes,
        } = appending;
        self.log.publish_bytes -= bytes;
        if let Some(topic) = self.topics.get_mut(&id) {
            let next = topic.durable + 1;
            assert!(first == next, "seqs become durable without a gap");
            topic.durable = last;
            self.totals.published += last - first + 1;
        }
        self.published(peer);
        let published = Answer::Published {
            topic: id,
            first_seq: first,
            last_seq: last,
            duplicate: false,
        };
        self.tell(peer, reference, published);
        self.wake_idle(id);
    }

    fn subscription_made(&mut self, id: HomedId) {
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.made = true;
            self.open(id, None);
        }
        self.serve_early(id);
    }

    pub(super) fn cursors_made(&mut self, told: Vec<Moved>) {
        self.cursors.under_way = false;
        for moved in told {
            self.published(moved.peer);
            let answer = self.moved_answer(&moved);
            self.tell(moved.peer, moved.reference, answer);
        }
        let is_awaited = self.cursors.draining && !self.cursors.dirty.is_empty();
        if is_awaited || !self.cursors.told.is_empty() {
            self.flush_cursors();
        }
    }

    fn moved_answer(&self, moved: &Moved) -> Answer {
        let subscription = self.subscriptions.get(&moved.subscription);
        let found = subscription.and_then(|s| Some((s, self.topics.get(&s.topic)?)));
        let Some((subscription, topic)) = found else {
            let refused = Refused::UnknownSubscription;
            return Answer::Refused {
                refused,
                topic: None,
                sub_name: None,
                publish: false,
            };
        };
        let sub_name = subscription.sub_name.clone();
        match moved.acked {
            Some(seq) => Answer::Acked {
                topic: subscription.topic,
                sub_name,
                seq,
            },
            None => Answer::Subscription(subscription.view(moved.subscription, topic)),
        }
    }

    /// Retention has taken what stood before `first_seq`; the log still stores `bytes` of it.
    pub fn handle_trimmed(&mut self, id: HomedId, first_seq: Seq, bytes: u64) {
        let Some(topic) = self.topics.get_mut(&id) else {
            return;
        };
        let freed = topic.trim(first_seq, bytes);
        let tenant = topic.tenant.clone();
        self.world(&tenant).give_back_bytes(freed);
    }

    fn give_up(&mut self, appended: Appended, refused: Refused) {
        match appended {
            Appended::Topic(topic) => self.give_up_topic(topic, refused),
            Appended::Retention(topic, _, caller) => {
                self.refuse(&caller, refused, Some(TopicRef::Id(topic)));
            }
            Appended::TopicEnd(topic, caller) => {
                self.keep_topic(topic);
                self.refuse(&caller, refused, Some(TopicRef::Id(topic)));
            }
            Appended::Publish(appending) => self.give_up_publish(appending, refused),
            Appended::Subscription(subscription) => {
                self.give_up_subscription(subscription, refused);
                self.serve_early(subscription);
            }
            Appended::SubscriptionEnd(subscription, caller) => {
                self.keep_subscription(subscription);
                self.refuse(&caller, refused, None);
            }
            Appended::Cursors(told) => self.refuse_moved(told, refused),
            Appended::EndAgain => {}
        }
    }

    fn give_up_topic(&mut self, id: HomedId, refused: Refused) {
        let topic = self.topics.get_mut(&id);
        let told = match topic.map(|topic| mem::take(&mut topic.life)) {
            Some(Life::Creating(told)) => told,
            _ => Vec::new(),
        };
        self.remove_topic(id);
        for (peer, reference) in told {
            self.tell(peer, reference, refusal(refused));
        }
    }

    fn give_up_publish(&mut self, appending: Appending, refused: Refused) {
        let Appending {
            topic: id, peer, ..
        } = appending;
        self.log.publish_bytes -= appending.bytes;
        if let Some(topic) = self.topics.get_mut(&id) {
            let freed = topic.forget_appended(appending.bytes);
            let tenant = topic.tenant.clone();
            self.world(&tenant).give_back_bytes(freed);
        }
        self.published(peer);
        self.tell(peer, appending.reference, refused_publish(id, refused));
    }

    fn give_up_subscription(&mut self, id: HomedId, refused: Refused) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        let (topic, name) = (subscription.topic, subscription.sub_name.clone());
        if let Some(binding) = subscription.unbind() {
            self.unbound(id, topic, binding.peer);
            let answer = Answer::Refused {
                refused,
                topic: Some(TopicRef::Id(topic)),
                sub_name: Some(name),
                publish: false,
            };
            let reference = binding.opening.and_then(|opening| opening.reference);
            self.tell(binding.peer, reference, answer);
        }
        self.remove_subscription(id, Ended::StorageFailed);
    }

    fn unbound(&mut self, id: HomedId, topic: HomedId, peer: Peer) {
        if let Some(topic) = self.topics.get_mut(&topic) {
            topic.bound -= 1;
        }
        if let Some(connection) = self.connections.get_mut(&peer) {
            connection.bound.remove(&id);
        }
    }

    pub(super) fn refuse_moved(&mut self, told: Vec<Moved>, refused: Refused) {
        for moved in told {
            self.published(moved.peer);
            self.tell(moved.peer, moved.reference, refusal(refused));
        }
    }

    fn refuse(&mut self, caller: &Caller, refused: Refused, topic: Option<TopicRef>) {
        let answer = Answer::Refused {
            refused,
            topic,
            sub_name: None,
            publish: false,
        };
        self.answer(caller, answer);
    }
}

fn refusal(refused: Refused) -> Answer {
    Answer::Refused {
        refused,
        topic: None,
        sub_name: None,
        publish: false,
    }
}

fn refused_publish(topic: HomedId, refused: Refused) -> Answer {
    Answer::Refused {
        refused,
        topic: Some(TopicRef::Id(topic)),
        sub_name: None,
        publish: true,
    }
}
