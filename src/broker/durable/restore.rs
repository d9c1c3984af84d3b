//! What a partition is told at start: the topics, subscriptions, cursors and idempotency keys
//! that recovery found in the log. Nothing here is appended again.

use std::sync::Arc;

use crate::broker::subscription::Subscription;
use crate::broker::topic::{KnownKey, Topic};
use crate::id::{HomedId, Seq, Tenant};

use super::{Durable, Retention};

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
        topic.bytes = restored.bytes;
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
        subscription.maker = restored.maker;
        subscription.sent = last;
        subscription.active_ms = restored.created_ms;
        self.insert_subscription(restored.id, subscription);
    }

    /// Takes an idempotency key over; keys come in the order of their seqs.
    pub fn restore_key(&mut self, restored: RestoredKey) {
        if let Some(topic) = self.topics.get_mut(&restored.topic) {
            let RestoredKey {
                key,
                payload,
                seq,
                unix_ms,
                ..
            } = restored;
            topic.keys.insert(
                key,
                KnownKey {
                    seq,
                    payload,
                    unix_ms,
                },
            );
        }
    }
}
