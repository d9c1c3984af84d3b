//! What a partition is told at start: the topics, subscriptions, cursors and idempotency keys
//! that recovery found in the log. Nothing here is appended again.

use std::sync::Arc;

use crate::broker::subscription::Subscription;
use crate::broker::topic::Topic;
use crate::id::{HomedId, Seq, Tenant};

use super::{Durable, Mark, Retention};

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
    /// Its messages in runs, oldest first, for retention and for the bytes of the tenant.
    pub marks: Vec<Mark>,
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
    /// Everything up to here is acked.
    pub cursor: Seq,
    /// When it was made.
    pub created_ms: u64,
}

/// An idempotency key as the log has it.
#[derive(Debug, Clone)]
pub struct RestoredKey {
    /// Its topic, which was restored before.
    pub topic: HomedId,
    /// The key.
    pub key: Arc<str>,
    /// The message that was published under it.
    pub seq: Seq,
    /// [`payload_hash`] of that message.
    pub payload_hash: u128,
    /// When it was published.
    pub unix_ms: u64,
}

/// What an idempotency key remembers of a payload.
pub fn payload_hash(payload: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(payload)
}

impl Durable {
    /// Takes a topic over.
    pub fn restore_topic(&mut self, restored: RestoredTopic) {
        let RestoredTopic {
            id,
            tenant,
            name,
            created_ms,
            retention,
            ..
        } = restored;
        assert!(
            restored.first_seq <= restored.last_seq + 1,
            "what is kept ends with the last"
        );
        let mut topic = Topic::new(tenant, name, created_ms, retention);
        topic.first = restored.first_seq.max(1);
        topic.durable = restored.last_seq;
        topic.appended = restored.last_seq;
        for mark in restored.marks {
            topic.bytes += mark.bytes;
            topic.marks.push(mark);
        }
        self.insert_topic(id, topic);
    }

    /// Takes a subscription over. What lies behind its cursor may have been sent before the
    /// restart, so all of it counts as redelivered.
    pub fn restore_subscription(&mut self, restored: RestoredSubscription) {
        let Some(topic) = self.topics.get(&restored.topic) else {
            return;
        };
        let (tenant, last) = (topic.tenant.clone(), topic.durable);
        let cursor = restored.cursor.min(last);
        let mut subscription = Subscription::new(tenant, restored.topic, restored.sub_name, cursor);
        subscription.made = true;
        subscription.sent = last;
        subscription.active_ms = restored.created_ms;
        self.insert_subscription(restored.id, subscription);
    }

    /// Takes an idempotency key over; keys come in the order of their seqs.
    pub fn restore_key(&mut self, restored: RestoredKey) {
        if let Some(topic) = self.topics.get_mut(&restored.topic) {
            let RestoredKey {
                key,
                seq,
                payload_hash,
                unix_ms,
                ..
            } = restored;
            topic.keys.insert(key, seq, payload_hash, unix_ms);
        }
    }
}
