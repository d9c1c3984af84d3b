//! Pages of subscriptions: found by ranges of ids, so that a page costs what it shows and not what
//! there is. Changes nothing but its own index.
//!
//! What a page must pass over costs too: subscriptions that the caller may not see, and where a
//! name is asked for without a topic, those of other names.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::id::HomedId;

use super::rights::Need;
use super::{Answer, Caller, Durable, Refused, SubscriptionView, TopicRef};

/// The subscriptions of a tenant in this partition, in the order of pages.
#[derive(Debug, Default)]
pub(super) struct Listed {
    by_id: BTreeSet<HomedId>,
    by_topic: BTreeSet<(HomedId, HomedId)>,
}

impl Listed {
    pub(super) fn insert(&mut self, topic: HomedId, id: HomedId) {
        self.by_id.insert(id);
        self.by_topic.insert((topic, id));
    }

    pub(super) fn remove(&mut self, topic: HomedId, id: HomedId) {
        self.by_id.remove(&id);
        self.by_topic.remove(&(topic, id));
    }

    fn behind(&self, after: Option<HomedId>) -> impl Iterator<Item = HomedId> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_id.range((from, Bound::Unbounded)).copied()
    }

    fn behind_of(
        &self,
        topic: HomedId,
        after: Option<HomedId>,
    ) -> impl Iterator<Item = HomedId> + '_ {
        let least = HomedId::from_bytes([0; 16]);
        let from = after.map_or(Bound::Included((topic, least)), |after| {
            Bound::Excluded((topic, after))
        });
        let range = self.by_topic.range((from, Bound::Unbounded));
        range
            .take_while(move |(of, _)| *of == topic)
            .map(|(_, id)| *id)
    }
}

impl Durable {
    pub(super) fn list_subscriptions(
        &mut self,
        caller: &Caller,
        topic: Option<&TopicRef>,
        sub_name: Option<&Arc<str>>,
        (after, limit): (Option<HomedId>, usize),
    ) -> Result<(), Refused> {
        let topic = topic
            .map(|topic| self.find_topic(caller, topic, Need::Subscribe))
            .transpose()?;
        let seen = |id| self.listed(caller, id);
        let views: Vec<SubscriptionView> = match (topic, sub_name) {
            (Some(topic), Some(name)) => {
                let topic = self.topics.get(&topic);
                let id = topic
                    .and_then(|topic| topic.subscriptions.get(name))
                    .copied();
                let id = id.filter(|id| after < Some(*id));
                id.into_iter().filter_map(seen).take(limit).collect()
            }
            (topic, name) => {
                let world = self.tenants.get(&caller.tenant);
                let of_topic = topic.zip(world).into_iter();
                let of_topic =
                    of_topic.flat_map(|(topic, world)| world.listed.behind_of(topic, after));
                let of_all = world.filter(|_| topic.is_none()).into_iter();
                let of_all = of_all.flat_map(|world| world.listed.behind(after));
                let views = of_topic.chain(of_all).filter_map(seen);
                let is_named =
                    |view: &SubscriptionView| name.is_none_or(|name| view.sub_name == *name);
                views.filter(is_named).take(limit).collect()
            }
        };
        self.answer(caller, Answer::Subscriptions(views));
        Ok(())
    }

    /// The subscription as the caller sees it in a list.
    fn listed(&self, caller: &Caller, id: HomedId) -> Option<SubscriptionView> {
        let subscription = self.subscriptions.get(&id)?;
        let topic = self.topics.get(&subscription.topic)?;
        let is_there = subscription.made && !subscription.deleting && !topic.deleting();
        let is_seen = is_there && caller.rights.may_subscribe(&topic.name);
        is_seen.then(|| subscription.view(id, topic))
    }
}
