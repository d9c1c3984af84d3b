//! Who may ask for what: the one way from a request to a topic or a subscription. Knows rights and
//! names; changes nothing.
//!
//! Invariant: what a caller may not have is refused alike, whether it is there or not: by name
//! before anything is looked up, by id also if no topic has that id.

use std::ops::Bound;
use std::sync::Arc;

use crate::auth::Rights;
use crate::auth::rights::{Grant, TopicPattern};
use crate::broker::subscription::Subscription;
use crate::broker::topic::Topic;
use crate::id::HomedId;

use super::{Caller, Durable, Ended, Refused, TopicRef, World};

/// What a request wants of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// To put messages into it.
    Publish,
    /// To read what it says of itself, its messages, its subscriptions.
    Subscribe,
    /// To end or change it for everybody.
    Manage,
}

impl Need {
    fn is_met(self, rights: &Rights, name: &str) -> bool {
        match self {
            Self::Publish => rights.may_publish(name),
            Self::Subscribe => rights.may_subscribe(name),
            Self::Manage if rights.is_explicit() => rights.may_manage(),
            Self::Manage => rights.may_publish(name),
        }
    }

    /// Whether it is met for every topic that there could be.
    fn is_always_met(self, rights: &Rights) -> bool {
        match self {
            Self::Publish => rights.publish().covers_all(),
            Self::Subscribe => rights.subscribe().covers_all(),
            Self::Manage if rights.is_explicit() => rights.may_manage(),
            Self::Manage => rights.publish().covers_all(),
        }
    }
}

/// What a request wants of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    /// To see it.
    See,
    /// To move or remove it.
    Change,
}

impl Touch {
    fn is_met(self, rights: &Rights, maker: &str, topic: &str) -> bool {
        let may_read = rights.may_subscribe(topic);
        match self {
            Self::Change if rights.is_explicit() => {
                rights.may_manage() || (may_read && rights.is_own(maker))
            }
            Self::See | Self::Change => may_read,
        }
    }

    fn is_always_met(self, rights: &Rights) -> bool {
        match self {
            Self::Change if rights.is_explicit() => rights.may_manage(),
            Self::See | Self::Change => rights.subscribe().covers_all(),
        }
    }
}

impl Durable {
    /// The topic that the caller means, if it may do with it what it wants. An unknown id and a
    /// foreign one take the same path.
    pub(super) fn find_topic(
        &self,
        caller: &Caller,
        topic: &TopicRef,
        need: Need,
    ) -> Result<HomedId, Refused> {
        let found = self.look_up(caller, topic);
        let allowed = match (topic, &found) {
            (TopicRef::Name(name), _) => need.is_met(&caller.rights, name),
            (TopicRef::Id(_), Some((_, topic))) => need.is_met(&caller.rights, &topic.name),
            (TopicRef::Id(_), None) => need.is_always_met(&caller.rights),
        };
        if !allowed {
            return Err(Refused::Forbidden);
        }
        found.map(|(id, _)| id).ok_or(Refused::UnknownTopic)
    }

    fn look_up(&self, caller: &Caller, topic: &TopicRef) -> Option<(HomedId, &Topic)> {
        let id = match topic {
            TopicRef::Id(id) => *id,
            TopicRef::Name(name) => *self.tenants.get(&caller.tenant)?.names.get(name)?,
        };
        let topic = self.topics.get(&id)?;
        (topic.tenant == caller.tenant && !topic.deleting()).then_some((id, topic))
    }

    /// Whether the caller may have the topic of that name made, or found where it is.
    pub(super) fn check_resolve(
        caller: &Caller,
        name: &str,
        is_known: bool,
    ) -> Result<(), Refused> {
        let rights = &caller.rights;
        let makes = rights.may_publish(name) || (rights.is_explicit() && rights.may_manage());
        match makes || (is_known && rights.may_subscribe(name)) {
            true => Ok(()),
            false => Err(Refused::Forbidden),
        }
    }

    /// The subscription that the caller means, if it may do with it what it wants.
    pub(super) fn find_subscription(
        &self,
        caller: &Caller,
        id: HomedId,
        touch: Touch,
    ) -> Result<HomedId, Refused> {
        let found = self.look_up_subscription(caller, id);
        let allowed = match found {
            Some((own, topic)) => touch.is_met(&caller.rights, &own.maker, &topic.name),
            None => touch.is_always_met(&caller.rights),
        };
        if !allowed {
            return Err(Refused::Forbidden);
        }
        found.map(|_| id).ok_or(Refused::UnknownSubscription)
    }

    fn look_up_subscription(
        &self,
        caller: &Caller,
        id: HomedId,
    ) -> Option<(&Subscription, &Topic)> {
        let own = self.subscriptions.get(&id)?;
        let topic = self.topics.get(&own.topic)?;
        let kept = own.made && !own.deleting && !topic.deleting();
        (kept && own.tenant == caller.tenant).then_some((own, topic))
    }

    /// A peer goes on with another token: bindings to what that may not read end.
    pub(super) fn renew(&mut self, caller: &Caller) {
        self.renew_early(caller);
        let Some(connection) = self.connections.get(&caller.peer) else {
            return;
        };
        let is_lost = |id: &HomedId| {
            let topic = self.subscriptions.get(id).map(|bound| bound.topic);
            let topic = topic.and_then(|topic| self.topics.get(&topic));
            topic.is_some_and(|topic| !caller.rights.may_subscribe(&topic.name))
        };
        let lost: Vec<HomedId> = connection.bound.iter().copied().filter(is_lost).collect();
        for id in lost {
            self.detach(id, Ended::Forbidden);
        }
    }
}

/// Which page of a list.
pub(super) struct Page<'a> {
    /// The last name of the page before.
    pub(super) after: Option<&'a Arc<str>>,
    pub(super) limit: usize,
    /// What else a topic must be.
    pub(super) shown: &'a dyn Fn(HomedId) -> bool,
}

impl World {
    /// The topics of a page that `grant` covers, by name. Only names that a pattern begins with
    /// are looked at.
    pub(super) fn granted(&self, grant: &Grant, page: &Page<'_>) -> Vec<HomedId> {
        let mut found: Vec<(&Arc<str>, HomedId)> = match grant {
            Grant::Everything => self.beginning("", page),
            Grant::Only(patterns) => {
                let covered = patterns.iter().flat_map(|pattern| match pattern {
                    TopicPattern::Prefix(prefix) => self.beginning(prefix, page),
                    TopicPattern::Exact(name) => self.exactly(name, page),
                });
                covered.collect()
            }
        };
        found.sort_unstable();
        found.dedup();
        found.truncate(page.limit);
        found.into_iter().map(|(_, id)| id).collect()
    }

    fn beginning(&self, prefix: &str, page: &Page<'_>) -> Vec<(&Arc<str>, HomedId)> {
        let start = match page.after {
            Some(after) if prefix <= &**after => Bound::Excluded(&**after),
            _ => Bound::Included(prefix),
        };
        let names = self.names.range::<str, _>((start, Bound::Unbounded));
        let begins = |(name, _): &(&Arc<str>, &HomedId)| name.starts_with(prefix);
        let shown = |(_, id): &(&Arc<str>, HomedId)| (page.shown)(*id);
        let found = names.take_while(begins).map(|(name, id)| (name, *id));
        found.filter(shown).take(page.limit).collect()
    }

    fn exactly(&self, name: &str, page: &Page<'_>) -> Vec<(&Arc<str>, HomedId)> {
        let found = self.names.get_key_value(name).map(|(name, id)| (name, *id));
        let behind = found.filter(|(name, _)| page.after.is_none_or(|after| after < *name));
        let shown = behind.filter(|(_, id)| (page.shown)(*id));
        shown.into_iter().collect()
    }
}
