//! Who wants to know who is present in a relay topic, and what they are told. Knows members and
//! presence; encodes one frame for all who get the same.
//!
//! Bound: what happens in one turn is one frame for each topic, whoever came and went in it. A
//! member is told of when it has joined: one whose join is refused was never there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::id::{ConnId, Tenant};
use crate::proto::frame;
use crate::proto::relay::{self as wire, Wishes};

use super::Home;
use super::event::{Effect, LaneId, TopicKey};
use super::topic::{Standing, Topic};

#[derive(Debug, Default)]
pub(super) struct Watch {
    watchers: BTreeSet<ConnId>,
    /// Those who have been told nothing yet: they get everybody who is present.
    fresh: BTreeSet<ConnId>,
    joined: BTreeSet<ConnId>,
    left: BTreeMap<ConnId, Value>,
}

impl Watch {
    pub(super) fn remove(&mut self, conn_id: ConnId) {
        self.watchers.remove(&conn_id);
        self.fresh.remove(&conn_id);
    }
}

impl Home {
    /// Says that a member is present. While its join is being decided nobody is told.
    pub(super) fn track(&mut self, index: usize, conn_id: ConnId, meta: Value) {
        let topic = &mut self.topics[index];
        topic.presence.track(conn_id, meta);
        if topic.is_joined(conn_id) {
            self.note_joined(index, conn_id);
        }
    }

    /// Says that a member is no longer present; whether it was.
    pub(super) fn untrack(&mut self, index: usize, conn_id: ConnId) -> bool {
        let topic = &mut self.topics[index];
        let was_joined = topic.is_joined(conn_id);
        let Some(meta) = topic.presence.take(conn_id) else {
            return false;
        };
        if was_joined && !topic.watch.watchers.is_empty() {
            topic.watch.joined.remove(&conn_id);
            topic.watch.left.insert(conn_id, meta);
            self.changed.push(index);
        }
        true
    }

    fn note_joined(&mut self, index: usize, conn_id: ConnId) {
        let watch = &mut self.topics[index].watch;
        if !watch.watchers.is_empty() {
            watch.left.remove(&conn_id);
            watch.joined.insert(conn_id);
            self.changed.push(index);
        }
    }

    /// A member has joined, or asks for something else now.
    pub(super) fn grant(&mut self, lane: LaneId) {
        let topic = &mut self.topics[lane.topic];
        let Some(member) = topic.members.get(&lane.conn_id) else {
            return;
        };
        let (key, name) = (member.subscriber.key, Arc::clone(&topic.key));
        let Wishes { presence, last } = member.wishes;
        match presence {
            true if !topic.watch.watchers.contains(&lane.conn_id) => {
                topic.watch.fresh.insert(lane.conn_id);
                self.changed.push(lane.topic);
            }
            true => {}
            false => topic.watch.remove(lane.conn_id),
        }
        if let (true, Some(frame)) = (last, self.lasts.of(&name)) {
            let (topic, frame) = (name, frame.clone());
            self.effects.push_back(Effect::Give { key, topic, frame });
        }
    }

    /// Notes that somebody who had been tracked has now joined.
    pub(super) fn note_admitted(&mut self, lane: LaneId) {
        if self.topics[lane.topic]
            .presence
            .meta(lane.conn_id)
            .is_some()
        {
            self.note_joined(lane.topic, lane.conn_id);
        }
    }

    /// A push to a topic that has no members.
    pub(super) fn note_last(&mut self, tenant: &Tenant, name: &str, frame: &Bytes) {
        if 0 < self.limits.last_bytes_max {
            let key = Arc::new(TopicKey {
                tenant: tenant.clone(),
                name: name.into(),
            });
            self.lasts.note(&key, frame, self.limits.last_bytes_max);
        }
    }

    /// Whether somebody is to be told who came and went.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Tells who came and who went since this was called last.
    pub fn tell_presence(&mut self) {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for index in changed {
            // A topic may have gone with its last member.
            if let Some(topic) = self.topics.get_mut(index) {
                self.effects.extend(topic.tell());
            }
        }
    }
}

impl Topic {
    fn is_joined(&self, conn_id: ConnId) -> bool {
        let member = self.members.get(&conn_id);
        member.is_some_and(|member| member.standing == Standing::Joined)
    }

    fn tell(&mut self) -> Vec<Effect> {
        let fresh = std::mem::take(&mut self.watch.fresh);
        let joined = std::mem::take(&mut self.watch.joined);
        let left = std::mem::take(&mut self.watch.left);
        let mut effects = Vec::new();
        if !joined.is_empty() || !left.is_empty() {
            let frame = self.encode(joined.into_iter(), &left);
            self.give(&self.watch.watchers, &frame, &mut effects);
        }
        if !fresh.is_empty() {
            let present = self.presence.numbers();
            let present = present.filter(|conn_id| self.is_joined(*conn_id));
            let frame = self.encode(present, &BTreeMap::new());
            self.give(&fresh, &frame, &mut effects);
            self.watch.watchers.extend(fresh);
        }
        effects
    }

    fn give(&self, to: &BTreeSet<ConnId>, frame: &Bytes, effects: &mut Vec<Effect>) {
        let members = to.iter().filter_map(|conn_id| self.members.get(conn_id));
        effects.extend(members.map(|member| Effect::Give {
            key: member.subscriber.key,
            topic: Arc::clone(&self.key),
            frame: frame.clone(),
        }));
    }

    fn encode(
        &self,
        joined: impl Iterator<Item = ConnId>,
        left: &BTreeMap<ConnId, Value>,
    ) -> Bytes {
        let joined = joined.filter_map(|conn_id| Some((conn_id, self.presence.meta(conn_id)?)));
        let joined: Vec<_> = joined
            .map(|(conn_id, meta)| (conn_id, json(meta)))
            .collect();
        let left: Vec<_> = left
            .iter()
            .map(|(conn_id, meta)| (*conn_id, json(meta)))
            .collect();
        let mut out = Vec::new();
        frame::put_text_with(&mut out, |out| {
            let joined = joined.iter().map(|(conn_id, meta)| (*conn_id, &meta[..]));
            let left = left.iter().map(|(conn_id, meta)| (*conn_id, &meta[..]));
            wire::put_presence(out, &self.key.name, joined, left);
        });
        out.into()
    }
}

/// A value of JSON can be written.
fn json(meta: &Value) -> Vec<u8> {
    serde_json::to_vec(meta).unwrap_or_else(|_| b"null".to_vec())
}
