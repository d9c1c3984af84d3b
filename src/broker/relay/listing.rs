//! The relay topics of a home as an operator sees them. For rare questions: it looks at every
//! topic of the tenant, and keeps no more of them than the page asked for holds. Knows names and
//! numbers; no member.

use std::collections::BTreeMap;

use crate::id::Tenant;

use super::Home;

/// One relay topic, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicCount {
    /// Its name.
    pub name: Box<str>,
    /// Connections that are subscribed, or whose join is being decided.
    pub members: u64,
    /// Connections that are present.
    pub present: usize,
}

/// Which topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicFilter {
    /// Only names behind this one.
    pub after: Option<Box<str>>,
    /// Only names in which this stands.
    pub contains: Box<str>,
    /// No more than so many.
    pub limit: usize,
}

/// Some topics by name, and how many there are in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicPage {
    /// Topics in whose names `contains` stands.
    pub count: usize,
    /// The first of them behind `after`.
    pub topics: Vec<TopicCount>,
}

impl Home {
    /// Events that found the queue of their handler full, since the last call.
    pub fn take_overloads(&mut self) -> u64 {
        std::mem::take(&mut self.overloads)
    }

    /// Events that wait for a handler that runs.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Topics here.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// The topics of a tenant here.
    pub fn page(&self, tenant: &Tenant, filter: &TopicFilter) -> TopicPage {
        let names = self.by_name.get(tenant).into_iter().flatten();
        let found = names.filter(|(name, _)| name.contains(&*filter.contains));
        let mut count = 0;
        let mut first = BTreeMap::new();
        for (name, index) in found {
            count += 1;
            if filter.after.as_ref().is_none_or(|after| after < name) {
                first.insert(name, *index);
            }
            if filter.limit < first.len() {
                first.pop_last();
            }
        }
        let topics = first
            .into_iter()
            .map(|(name, index)| self.count(name, index));
        TopicPage {
            count,
            topics: topics.collect(),
        }
    }

    fn count(&self, name: &str, index: usize) -> TopicCount {
        let topic = &self.topics[index];
        TopicCount {
            name: name.into(),
            members: topic.on_shard.iter().map(|count| u64::from(*count)).sum(),
            present: topic.presence.count(),
        }
    }
}

impl TopicPage {
    /// Adds what another home says.
    pub fn join(&mut self, other: Self, limit: usize) {
        self.count += other.count;
        self.topics.extend(other.topics);
        self.topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.topics.truncate(limit);
    }
}
