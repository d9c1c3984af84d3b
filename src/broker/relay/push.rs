//! From a push to its topic's members: one effect for each shard that has any. Knows topics and frames;
//! not who a member is.

use std::sync::Arc;

use bytes::Bytes;

use crate::id::Tenant;

use super::topic::Running;
use super::{Effect, Home, LaneId};

impl Home {
    /// Somebody pushes a frame to a topic. A push that a join makes to its own topic is held
    /// until the join has been decided (D-17); nobody subscribed means dropped.
    pub fn handle_push(&mut self, tenant: &Tenant, name: &str, frame: Bytes, by: Option<LaneId>) {
        let Some(index) = self.find(tenant, name) else {
            return self.note_last(tenant, name, &frame);
        };
        if let Some(lane) = by.filter(|lane| lane.topic == index)
            && let Some(member) = self.topics[index].members.get_mut(&lane.conn_id)
            && member.running == Running::Join
        {
            member.held.push(frame, self.limits.topic_capacity);
            return;
        }
        self.deliver(index, frame);
    }

    /// Pushes a frame to the topic of this name of every tenant.
    pub fn handle_push_all(&mut self, name: &str, frame: &Bytes) {
        let named = self
            .by_name
            .values()
            .filter_map(|names| names.get(name).copied());
        for index in named.collect::<Vec<_>>() {
            self.deliver(index, frame.clone());
        }
    }

    /// Nothing is counted for members of this shard: what other shards get they share.
    pub(super) fn deliver(&mut self, index: usize, frame: Bytes) {
        let topic = &self.topics[index];
        self.lasts
            .note(&topic.key, &frame, self.limits.last_bytes_max);
        let others = topic.shards().filter(|shard| *shard != self.here);
        self.effects.extend(others.map(|shard| Effect::Deliver {
            shard,
            topic: Arc::clone(&topic.key),
            frame: frame.clone(),
        }));
        if 0 < topic.on_shard[usize::from(self.here)] {
            let topic = index;
            self.effects.push_back(Effect::Gather { topic, frame });
        }
    }

    pub(super) fn tell_missed(&mut self, index: usize, frames: u64) {
        let topic = &self.topics[index];
        self.effects
            .extend(topic.shards().map(|shard| Effect::Missed {
                shard,
                topic: Arc::clone(&topic.key),
                frames,
            }));
    }
}
