//! What the log reports: that it is durable so far, that it has not taken an append, that it has
//! failed. Everything that waited for it is answered here, in the order of the appends.

use std::mem;

use crate::broker::topic::Life;
use crate::id::{HomedId, Seq};

use super::{Answer, AppendId, Appended, Caller, Durable, Ended, Moved, Refused, TopicRef};

impl Durable {
    /// Every append up to `through` is durable.
    pub fn handle_durable(&mut self, through: AppendId) {
        assert!(
            through < self.log.next,
            "only what was appended becomes durable"
        );
        while let Some((id, appended)) = self.log.waiting.pop_front_if(|(id, _)| *id <= through) {
            self.committed(id, appended);
        }
    }

    fn committed(&mut self, id: AppendId, appended: Appended) {
        match appended {
            Appended::Topic(topic) => self.topic_made(topic),
            Appended::Retention(topic, retention, caller) => {
                self.retention_changed(topic, retention, &caller);
            }
            Appended::TopicEnd(topic, caller) => {
                self.remove_topic(topic);
                self.answer(&caller, Answer::Deleted);
            }
            Appended::Publish(topic, _, bytes) => {
                self.log.publish_bytes -= bytes;
                self.publish_made(topic, id);
            }
            Appended::Subscription(subscription) => self.subscription_made(subscription),
            Appended::SubscriptionEnd(subscription, caller) => {
                self.remove_subscription(subscription, Ended::Deleted);
                self.answer(&caller, Answer::Deleted);
            }
            Appended::Cursors(told, _) => self.cursors_made(told),
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

    fn publish_made(&mut self, id: HomedId, through: AppendId) {
        loop {
            let Some(topic) = self.topics.get_mut(&id) else {
                return;
            };
            let Some(done) = topic
                .waiting
                .pop_front_if(|waiting| waiting.after <= through)
            else {
                break;
            };
            if !done.duplicate {
                assert!(
                    done.first == topic.durable + 1,
                    "seqs become durable without a gap"
                );
                topic.durable = done.last;
                self.totals.published += done.last - done.first + 1;
            }
            self.published(done.peer);
            let (first_seq, last_seq, duplicate) = (done.first, done.last, done.duplicate);
            let published = Answer::Published {
                topic: id,
                first_seq,
                last_seq,
                duplicate,
            };
            self.tell(done.peer, done.reference, published);
        }
        self.wake_idle(id);
    }

    fn subscription_made(&mut self, id: HomedId) {
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.made = true;
            self.open(id, None);
        }
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
        self.world(&tenant).here.bytes -= freed;
    }

    /// The log has not taken this append, and takes none of those behind it, which were refused
    /// before this one. They are as if never asked for, and use up no seq.
    pub fn handle_refused(&mut self, id: AppendId, refused: Refused) {
        let last = self.log.waiting.pop_back();
        let appended = last.and_then(|(last, appended)| (last == id).then_some(appended));
        assert!(appended.is_some(), "the newest append is refused first");
        self.log.next = id;
        if let Some(appended) = appended {
            self.undo(id, appended, refused);
        }
    }

    fn undo(&mut self, id: AppendId, appended: Appended, refused: Refused) {
        match appended {
            Appended::Topic(topic) => self.undo_topic(topic, refused),
            Appended::Retention(topic, _, caller) => {
                self.refuse(&caller, refused, Some(TopicRef::Id(topic)));
            }
            Appended::TopicEnd(topic, caller) => {
                self.keep_topic(topic);
                self.refuse(&caller, refused, Some(TopicRef::Id(topic)));
            }
            Appended::Publish(topic, first, bytes) => {
                self.undo_publish(topic, (id, first, bytes), refused);
            }
            Appended::Subscription(subscription) => self.undo_subscription(subscription, refused),
            Appended::SubscriptionEnd(subscription, caller) => {
                self.keep_subscription(subscription);
                self.refuse(&caller, refused, None);
            }
            Appended::Cursors(told, moved) => {
                self.cursors.under_way = false;
                self.cursors_again(moved);
                self.refuse_moved(told, refused);
            }
            // The next start finds it again.
            Appended::EndAgain => {}
        }
    }

    fn undo_topic(&mut self, id: HomedId, refused: Refused) {
        let told = match self
            .topics
            .get_mut(&id)
            .map(|topic| mem::take(&mut topic.life))
        {
            Some(Life::Creating(told)) => told,
            _ => Vec::new(),
        };
        self.remove_topic(id);
        for (peer, reference) in told {
            let answer = Answer::Refused {
                refused,
                topic: None,
                sub_name: None,
                publish: false,
            };
            self.tell(peer, reference, answer);
        }
    }

    fn undo_publish(
        &mut self,
        id: HomedId,
        (append, first, bytes): (AppendId, Seq, u64),
        refused: Refused,
    ) {
        self.log.publish_bytes -= bytes;
        let Some(topic) = self.topics.get_mut(&id) else {
            return;
        };
        let freed = topic.rewind(first, bytes);
        let tenant = topic.tenant.clone();
        self.world(&tenant).here.bytes -= freed;
        loop {
            let Some(topic) = self.topics.get_mut(&id) else {
                return;
            };
            let Some(undone) = topic.waiting.pop_back_if(|waiting| append <= waiting.after) else {
                return;
            };
            self.published(undone.peer);
            let named = Some(TopicRef::Id(id));
            let answer = Answer::Refused {
                refused,
                topic: named,
                sub_name: None,
                publish: true,
            };
            self.tell(undone.peer, undone.reference, answer);
        }
    }

    fn undo_subscription(&mut self, id: HomedId, refused: Refused) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        let (topic, name) = (subscription.topic, subscription.sub_name.clone());
        let binding = subscription.unbind();
        if let Some(binding) = binding {
            if let Some(topic) = self.topics.get_mut(&topic) {
                topic.bound -= 1;
            }
            if let Some(connection) = self.connections.get_mut(&binding.peer) {
                connection.bound.remove(&id);
            }
            let (topic, sub_name) = (Some(TopicRef::Id(topic)), Some(name));
            let answer = Answer::Refused {
                refused,
                topic,
                sub_name,
                publish: false,
            };
            let reference = binding.opening.and_then(|opening| opening.reference);
            self.tell(binding.peer, reference, answer);
        }
        self.remove_subscription(id, Ended::StorageFailed);
    }

    /// Cursors that the log has not taken are given to it again, a little later.
    fn cursors_again(&mut self, moved: Vec<HomedId>) {
        for id in moved {
            let still = self.subscriptions.get_mut(&id).filter(|s| !s.dirty);
            if let Some(subscription) = still {
                subscription.dirty = true;
                self.cursors.dirty.push(id);
            }
        }
        if !self.cursors.dirty.is_empty() {
            self.cursors.since_ms = Some(self.cursors.seen_ms);
        }
    }

    fn refuse_moved(&mut self, told: Vec<Moved>, refused: Refused) {
        for Moved {
            peer, reference, ..
        } in told
        {
            self.published(peer);
            let answer = Answer::Refused {
                refused,
                topic: None,
                sub_name: None,
                publish: false,
            };
            self.tell(peer, reference, answer);
        }
    }

    fn refuse(&mut self, caller: &Caller, refused: Refused, topic: Option<TopicRef>) {
        self.answer(
            caller,
            Answer::Refused {
                refused,
                topic,
                sub_name: None,
                publish: false,
            },
        );
    }

    /// A write or a sync has failed. That is final: everything that waits is refused, newest
    /// first so that seqs are taken back in order, and nothing is appended any more. What was
    /// durable before can still be read.
    pub fn handle_failed(&mut self) {
        self.log.failed = true;
        let from = self.effects.len();
        while let Some((id, appended)) = self.log.waiting.pop_back() {
            self.undo(id, appended, Refused::StorageFailed);
        }
        // Taken back from the newest, told from the oldest: each peer learns in its own order.
        self.effects.make_contiguous()[from..].reverse();
        let told = mem::take(&mut self.cursors.told);
        self.refuse_moved(told, Refused::StorageFailed);
    }
}
