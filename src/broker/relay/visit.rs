//! A push from outside the topic's members, as by REST, to a topic that a handler takes: a visit.
//! Its caller joins, says it, and leaves, so that whatever the handler asks of a join it asks of
//! the visitor too. Knows what a visit is and how it may end; runs nothing.
//!
//! Invariant: a visitor is no member. It is in no count and no presence, its join and its leave
//! reach nobody: what they push to their own topic is dropped.

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::Caller;
use crate::broker::pattern::HandlerIndex;
use crate::id::{ConnId, Tenant};

use super::Home;
use super::event::{Effect, Refusal, TopicKey};

/// What somebody pushes who is no member.
#[derive(Debug)]
pub struct Push {
    /// Who.
    pub caller: Arc<Caller>,
    /// The number of the visitor, which no connection has.
    pub conn_id: ConnId,
    /// Its event.
    pub event: Box<str>,
    /// Its payload, verbatim.
    pub payload: Bytes,
    /// The same as a frame, for a topic that no handler takes.
    pub frame: Bytes,
}

/// A visit that the shard must make.
pub struct Visit {
    /// Which handler.
    pub handler: HandlerIndex,
    /// Which topic.
    pub topic: Arc<TopicKey>,
    /// What is said.
    pub push: Push,
    /// Whoever waits is told how it went.
    pub done: Told,
}

/// Whoever waits for a push.
pub type Told = Box<dyn FnOnce(Result<Pushed, Refusal>) + Send>;

impl std::fmt::Debug for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit")
            .field("topic", &self.topic)
            .field("push", &self.push)
            .finish_non_exhaustive()
    }
}

/// Who took a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// So many members.
    Members(u64),
    /// The handler of the topic.
    Handler,
}

impl Home {
    /// Somebody who is no member pushes to a topic.
    pub fn handle_visit(&mut self, tenant: &Tenant, name: &str, push: Push, done: Told) {
        if let Some(handler) = self.patterns.handler_of(name) {
            let topic = Arc::new(TopicKey {
                tenant: tenant.clone(),
                name: name.into(),
            });
            let visit = Visit {
                handler,
                topic,
                push,
                done,
            };
            return self.effects.push_back(Effect::Visit(visit));
        }
        let members = self.members(tenant, name);
        self.handle_push(tenant, name, push.frame, None);
        done(Ok(Pushed::Members(members)));
    }

    /// How many connections are subscribed to a topic.
    pub fn members(&self, tenant: &Tenant, name: &str) -> u64 {
        let topic = self.find(tenant, name).map(|index| &self.topics[index]);
        topic.map_or(0, |topic| {
            topic.on_shard.iter().map(|&count| u64::from(count)).sum()
        })
    }
}
