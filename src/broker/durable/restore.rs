//! What a partition is told at start: the topics, subscriptions, cursors and idempotency keys
//! that recovery found in the log. Nothing here is appended again.

use std::sync::Arc;

use crate::broker::subscription::Subscription;
use crate::broker::topic::{KnownKey, Topic};
use crate::id::{HomedId, Seq, Tenant};

use super::{Durable, Ended, Retention, Usage, Value};

/// A topic as the log has it.
#[derive(Debug, Clone)]
pub struct RestoredTopic {
    /// Its id.
    pub id: HomedId,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its name.
    pub name: Arc<str>,
    /// When it was made.
    pub created_ms: u64,
    /// What it keeps.
    pub retention: Retention,
    /// The earliest message kept; one behind the last if none is.
    pub first_seq: Seq,
    /// The last message.
    pub last_seq: Seq,
    /// What it stores, which counts against its tenant.
    pub bytes: u64,
}

/// A subscription as the log has it.
#[derive(Debug, Clone)]
pub struct RestoredSubscription {
    /// Its id.
    pub id: HomedId,
    /// Its topic, which was restored before.
    pub topic: HomedId,
    /// Its key.
    pub sub_name: Arc<str>,
    /// The claim `sub` of whoever made it; empty if it is not known.
    pub maker: Box<str>,
    /// Everything up to here is acked.
    pub cursor: Seq,
    /// When it was made.
    pub created_ms: u64,
}

/// An idempotency key as the log has it.
#[derive(Debug, Clone, Copy)]
pub struct RestoredKey {
    /// Its topic, which was restored before.
    pub topic: HomedId,
    /// XXH3-128 of the key.
    pub key: u128,
    /// XXH3-64 of the payload that was published under it.
    pub payload: u64,
    /// The seq that it was given.
    pub seq: Seq,
    /// When.
    pub unix_ms: u64,
}

/// What came of something restored. A log whose records are all intact restores everything as new:
/// the rest is told so that the damage is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// It is there.
    New,
    /// It is there, in place of this one of the same name: the record that ended the older one
    /// cannot be read any more. It is ended again.
    InPlaceOf(HomedId),
    /// What it belongs to is not there, so it is left out.
    Orphan,
}

/// The log may have lost any record, so nothing here relies on another one: a name that is there
/// already was given again, which proves that its older holder had been ended.
impl Durable {
    /// Takes a topic over; they come in the order in which the log first tells of them.
    pub fn restore_topic(&mut self, restored: RestoredTopic) -> Restored {
        let RestoredTopic {
            id,
            tenant,
            name,
            created_ms,
            retention,
            last_seq,
            ..
        } = restored;
        self.remove_topic(id);
        let known = self.tenants.get(&tenant);
        let older = known.and_then(|world| world.names.get(&name)).copied();
        if let Some(older) = older {
            self.remove_topic(older);
            let value = Value::TopicDeleted { topic: older };
            self.ends_again.push(value);
        }
        let mut topic = Topic::new(tenant, name, created_ms, retention);
        topic.first = restored.first_seq.clamp(1, last_seq + 1);
        topic.durable = last_seq;
        topic.appended = last_seq;
        topic.bytes = restored.bytes;
        let (topics, bytes) = (1, topic.bytes);
        self.world(&topic.tenant).add(Usage {
            topics,
            bytes,
            ..Usage::default()
        });
        self.insert_topic(id, topic);
        older.map_or(Restored::New, Restored::InPlaceOf)
    }

    /// Takes a subscription over, after its topic. What lies behind its cursor may have been sent
    /// before the restart, so all of it counts as redelivered.
    pub fn restore_subscription(&mut self, restored: RestoredSubscription) -> Restored {
        self.remove_subscription(restored.id, Ended::Deleted);
        let Some(topic) = self.topics.get(&restored.topic) else {
            return Restored::Orphan;
        };
        let (tenant, last) = (topic.tenant.clone(), topic.durable);
        let older = topic.subscriptions.get(&restored.sub_name).copied();
        if let Some(subscription) = older {
            self.remove_subscription(subscription, Ended::Deleted);
            let value = Value::SubscriptionDeleted { subscription };
            self.ends_again.push(value);
        }
        let cursor = restored.cursor.min(last);
        let mut subscription = Subscription::new(tenant, restored.topic, restored.sub_name, cursor);
        subscription.made = true;
        subscription.maker = restored.maker;
        subscription.sent = last;
        subscription.active_ms = restored.created_ms;
        self.world(&subscription.tenant).add(Usage {
            subscriptions: 1,
            ..Usage::default()
        });
        self.insert_subscription(restored.id, subscription);
        older.map_or(Restored::New, Restored::InPlaceOf)
    }

    /// Takes an idempotency key over, after its topic. One whose message is lost is left out: its
    /// seq will be that of another message.
    pub fn restore_key(&mut self, restored: RestoredKey) -> Restored {
        let RestoredKey {
            topic,
            key,
            payload,
            seq,
            unix_ms,
        } = restored;
        let known = KnownKey {
            seq,
            payload,
            unix_ms,
        };
        let found = self.topics.get_mut(&topic);
        match found.filter(|found| seq <= found.durable) {
            Some(found) => found.keys.insert(key, known),
            None => return Restored::Orphan,
        }
        self.note_keys(topic, 0);
        Restored::New
    }
}
