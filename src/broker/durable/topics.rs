//! Topics by request: made or resolved, listed, deleted. A topic is seen
//! once its record is durable and found no more once its end was asked for.

use std::sync::Arc;

use crate::broker::topic::{Life, Topic};
use crate::id::HomedId;
use crate::log::TEXT_BYTES_MAX;

use super::rights::{Need, Page};
use super::{
    Answer, Appended, Caller, Durable, Ended, Now, Refused, Retention, TopicRef, Usage, Value,
    World,
};

impl Durable {
    pub(super) fn resolve_topic(
        &mut self,
        now: Now,
        caller: &Caller,
        name: Arc<str>,
        retention: Retention,
    ) -> Result<(), Refused> {
        check_name("topic name", &name, self.limits.topic_name_bytes_max)?;
        let known = self
            .tenants
            .get(&caller.tenant)
            .and_then(|world| world.names.get(&name));
        let known = known.copied();
        Self::check_resolve(caller, &name, known.is_some())?;
        if let Some(id) = known {
            return self.resolve_known(caller, id);
        }
        if name.parse::<HomedId>().is_ok() {
            return Err(Refused::NameIsId);
        }
        self.writable()?;
        self.room_for_topic(caller)?;
        let own = retention.is_bounded();
        let retention = if own {
            retention
        } else {
            self.limits.retention
        };
        let id = self.new_id(now);
        let mut topic = Topic::new(caller.tenant.clone(), name.clone(), now.unix_ms, retention);
        topic.life = Life::Creating(vec![(caller.peer, caller.reference.clone())]);
        self.insert_topic(id, topic);
        let tenant = caller.tenant.clone();
        let value = Value::TopicCreated {
            topic: id,
            tenant,
            name,
            unix_ms: now.unix_ms,
            retention,
        };
        self.append(value, Appended::Topic(id));
        Ok(())
    }

    fn resolve_known(&mut self, caller: &Caller, id: HomedId) -> Result<(), Refused> {
        let Some(topic) = self.topics.get_mut(&id) else {
            return Err(Refused::UnknownTopic);
        };
        if let Life::Creating(told) = &mut topic.life {
            let max = u64::from(self.limits.publishes_in_flight_max);
            if max <= told.len() as u64 {
                return Err(Refused::Overloaded {
                    max,
                    knob: "publishes_in_flight_max",
                });
            }
            told.push((caller.peer, caller.reference.clone()));
            return Ok(());
        }
        let view = topic.view(id);
        self.answer(
            caller,
            Answer::Topic {
                view,
                created: false,
            },
        );
        Ok(())
    }

    fn room_for_topic(&mut self, caller: &Caller) -> Result<(), Refused> {
        let count_max = self.limits.topics_per_tenant_max;
        let world = self.world(&caller.tenant);
        let max = count_max.saturating_sub(world.elsewhere.topics);
        if !world.account.take_topic(max) {
            return Err(Refused::TopicsFull { count_max });
        }
        world.here.topics += 1;
        Ok(())
    }

    /// Puts a topic that is counted into every index.
    pub(super) fn insert_topic(&mut self, id: HomedId, topic: Topic) {
        let name = topic.name.clone();
        let world = self.world(&topic.tenant);
        let before = world.names.insert(name, id);
        assert!(before.is_none(), "a name is one topic");
        self.topics.insert(id, topic);
    }

    /// Takes a topic with its subscriptions out of every index and tells who was bound.
    pub(super) fn remove_topic(&mut self, id: HomedId) {
        let Some(topic) = self.topics.remove(&id) else {
            return;
        };
        let world = self.world(&topic.tenant);
        world.give_back(Usage {
            topics: 1,
            bytes: topic.bytes,
            ..Usage::default()
        });
        if world.names.get(&topic.name) == Some(&id) {
            world.names.remove(&topic.name);
        }
        for subscription in topic.subscriptions_by_id() {
            self.remove_subscription(subscription, Ended::TopicDeleted);
        }
        if self.tenants.get(&topic.tenant).is_some_and(World::empty) {
            self.tenants.remove(&topic.tenant);
        }
    }

    pub(super) fn list_topics(&mut self, caller: &Caller, after: Option<&Arc<str>>, limit: usize) {
        let page = Page {
            after,
            limit,
            shown: &|id| {
                let topic = self.topics.get(&id);
                topic.is_some_and(|topic| matches!(topic.life, Life::Kept))
            },
        };
        let world = self.tenants.get(&caller.tenant);
        let ids = world.map(|world| world.granted(caller.rights.subscribe(), &page));
        let ids = ids.unwrap_or_default().into_iter();
        let views = ids.filter_map(|id| self.topics.get(&id).map(|topic| topic.view(id)));
        let views = views.collect();
        self.answer(caller, Answer::Topics(views));
    }

    pub(super) fn get_topic(&mut self, caller: &Caller, topic: &TopicRef) -> Result<(), Refused> {
        let id = self.find_topic(caller, topic, Need::Subscribe)?;
        self.resolve_known(caller, id)
    }

    /// Answered with the topic as it is then, once that is durable.
    pub(super) fn change_retention(
        &mut self,
        caller: &Caller,
        topic: &TopicRef,
        retention: Retention,
    ) -> Result<(), Refused> {
        let id = self.find_kept(caller, topic)?;
        self.writable()?;
        let value = Value::RetentionChanged {
            topic: id,
            retention,
        };
        self.append(value, Appended::Retention(id, retention, caller.clone()));
        Ok(())
    }

    /// The log keeps what `retention` says; a topic whose end is asked for has none.
    pub(super) fn retention_changed(&mut self, id: HomedId, retention: Retention, caller: &Caller) {
        let Some(topic) = self.topics.get_mut(&id) else {
            return;
        };
        topic.retention = retention;
        let view = topic.view(id);
        let created = false;
        self.answer(caller, Answer::Topic { view, created });
    }

    /// A topic that the caller may change for everybody, whose own record is durable: before that
    /// nobody was told of it.
    fn find_kept(&self, caller: &Caller, topic: &TopicRef) -> Result<HomedId, Refused> {
        let id = self.find_topic(caller, topic, Need::Manage)?;
        let found = self.topics.get(&id);
        let kept = found.filter(|topic| matches!(topic.life, Life::Kept));
        kept.map(|_| id).ok_or(Refused::UnknownTopic)
    }

    pub(super) fn delete_topic(
        &mut self,
        caller: &Caller,
        topic: &TopicRef,
    ) -> Result<(), Refused> {
        let id = self.find_kept(caller, topic)?;
        self.writable()?;
        let Some(topic) = self.topics.get_mut(&id) else {
            return Err(Refused::UnknownTopic);
        };
        topic.life = Life::Deleting;
        let name = topic.name.clone();
        self.world(&caller.tenant).names.remove(&name);
        self.append(
            Value::TopicDeleted { topic: id },
            Appended::TopicEnd(id, caller.clone()),
        );
        Ok(())
    }

    /// The log would not take the end of a topic: it stays.
    pub(super) fn keep_topic(&mut self, id: HomedId) {
        let Some(topic) = self.topics.get_mut(&id) else {
            return;
        };
        topic.life = Life::Kept;
        let (tenant, name) = (topic.tenant.clone(), topic.name.clone());
        let subscriptions = topic.subscriptions_by_id();
        self.world(&tenant).names.insert(name, id);
        subscriptions.into_iter().for_each(|id| self.wake(id));
    }
}

impl World {
    /// Counts what is there already, whatever the limits are.
    pub(super) fn add(&mut self, more: Usage) {
        self.account.add(more);
        self.here.topics += more.topics;
        self.here.subscriptions += more.subscriptions;
        self.here.bytes += more.bytes;
    }

    pub(super) fn give_back(&mut self, less: Usage) {
        self.account.give_back(less);
        self.here.topics -= less.topics;
        self.here.subscriptions -= less.subscriptions;
        self.here.bytes -= less.bytes;
    }

    pub(super) fn give_back_bytes(&mut self, bytes: u64) {
        self.give_back(Usage {
            bytes,
            ..Usage::default()
        });
    }

    /// A tenant that has nothing here and nothing elsewhere is forgotten.
    pub(super) fn empty(&self) -> bool {
        self.names.is_empty() && [self.here, self.elsewhere] == [Usage::default(); 2]
    }
}

/// A name has at least one byte and no more than its limit.
pub(super) fn check_name(what: &'static str, name: &str, bytes_max: usize) -> Result<(), Refused> {
    let bytes = name.len();
    if name.is_empty() {
        return Err(Refused::Empty { what });
    }
    let bytes_max = bytes_max.min(TEXT_BYTES_MAX);
    let knob = match what {
        "publisher" => "what a record holds",
        "sub_name" => "limits.sub_name_bytes_max",
        "idempotency_key" => "limits.idempotency_key_bytes_max",
        _ => "limits.name_bytes_max",
    };
    if bytes_max < bytes {
        return Err(Refused::NameBytes {
            what,
            bytes,
            bytes_max,
            knob,
        });
    }
    Ok(())
}
