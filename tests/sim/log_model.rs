//! What a log must hold: everything that was told to be durable, nothing that was not sent, each seq
//! with the bytes it had.

use std::collections::BTreeMap;

use tidegate::id::{HomedId, Seq};
use tidegate::log::{RecoveredState, RecoveredTopic, Ticket};

/// Something that was sent: it may be there from then on, and must be once its ticket is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Sent(Ticket),
    Durable,
}

impl Fate {
    fn settle(&mut self, up_to: Ticket) {
        if matches!(self, Self::Sent(ticket) if *ticket <= up_to) {
            *self = Self::Durable;
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ModelTopic {
    pub(crate) name: String,
    pub(crate) made: Fate,
    pub(crate) deleted: Option<Fate>,
    /// Payload and fate of each seq from 1.
    pub(crate) messages: Vec<(Vec<u8>, Fate)>,
    /// The first seq that was asked to be kept, last.
    pub(crate) trims: Vec<(Seq, Fate)>,
    pub(crate) subscriptions: BTreeMap<HomedId, ModelSubscription>,
}

#[derive(Debug, Clone)]
pub(crate) struct ModelSubscription {
    pub(crate) made: Fate,
    pub(crate) deleted: Option<Fate>,
    /// All cursors in the order in which they were set.
    pub(crate) cursors: Vec<(Seq, Fate)>,
}

impl ModelTopic {
    pub(crate) fn last_seq(&self) -> Seq {
        self.messages.len() as Seq
    }

    pub(crate) fn durable_seq(&self) -> Seq {
        let durable = |(_, fate): &&(Vec<u8>, Fate)| *fate == Fate::Durable;
        self.messages.iter().take_while(durable).count() as Seq
    }

    pub(crate) fn first_seq(&self) -> Seq {
        self.trims.iter().map(|(seq, _)| *seq).fold(1, Seq::max)
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) topics: BTreeMap<HomedId, ModelTopic>,
}

pub(crate) type Checked = Result<(), String>;

impl Model {
    /// Everything up to the ticket is durable.
    pub(crate) fn settle(&mut self, up_to: Ticket) {
        for topic in self.topics.values_mut() {
            topic.made.settle(up_to);
            topic.deleted.iter_mut().for_each(|fate| fate.settle(up_to));
            topic
                .messages
                .iter_mut()
                .for_each(|(_, fate)| fate.settle(up_to));
            topic
                .trims
                .iter_mut()
                .for_each(|(_, fate)| fate.settle(up_to));
            for subscription in topic.subscriptions.values_mut() {
                subscription.made.settle(up_to);
                subscription
                    .deleted
                    .iter_mut()
                    .for_each(|fate| fate.settle(up_to));
                subscription
                    .cursors
                    .iter_mut()
                    .for_each(|(_, fate)| fate.settle(up_to));
            }
        }
    }

    /// Compares with what a start has found, and goes on from that.
    pub(crate) fn adopt(&mut self, state: &RecoveredState) -> Checked {
        let found: BTreeMap<HomedId, &RecoveredTopic> =
            state.topics.iter().map(|topic| (topic.id, topic)).collect();
        for id in found.keys() {
            if !self.topics.contains_key(id) {
                return Err(format!("topic {id} was never sent"));
            }
        }
        let mut kept = BTreeMap::new();
        for (id, mut topic) in std::mem::take(&mut self.topics) {
            let must = topic.made == Fate::Durable && topic.deleted.is_none();
            let may = topic.deleted != Some(Fate::Durable);
            match found.get(&id) {
                None if must => return Err(format!("topic {id} was durable and is lost")),
                None => {}
                Some(_) if !may => return Err(format!("topic {id} was deleted and is back")),
                Some(found) => {
                    adopt_topic(&mut topic, found).map_err(|text| format!("topic {id}: {text}"))?;
                    kept.insert(id, topic);
                }
            }
        }
        self.topics = kept;
        Ok(())
    }
}

fn adopt_topic(topic: &mut ModelTopic, found: &RecoveredTopic) -> Checked {
    if *found.name != *topic.name {
        return Err(format!("name {} was {}", found.name, topic.name));
    }
    let (durable, sent, last) = (topic.durable_seq(), topic.last_seq(), found.last_seq);
    if last < durable || sent < last {
        return Err(format!("last seq {last}, durable {durable}, sent {sent}"));
    }
    let firsts = topic
        .trims
        .iter()
        .filter(|(_, fate)| *fate == Fate::Durable);
    let first_min = firsts.map(|(seq, _)| *seq).fold(1, Seq::max);
    if found.first_seq < first_min || topic.first_seq() < found.first_seq {
        return Err(format!(
            "first seq {}, durable {first_min}",
            found.first_seq
        ));
    }
    topic.made = Fate::Durable;
    topic.deleted = None;
    topic.messages.truncate(usize::try_from(last).unwrap());
    topic
        .messages
        .iter_mut()
        .for_each(|(_, fate)| *fate = Fate::Durable);
    topic.trims = vec![(found.first_seq, Fate::Durable)];
    let mut kept = BTreeMap::new();
    for (id, mut subscription) in std::mem::take(&mut topic.subscriptions) {
        let must = subscription.made == Fate::Durable && subscription.deleted.is_none();
        match found.subscriptions.iter().find(|found| found.id == id) {
            None if must => return Err(format!("subscription {id} is lost")),
            None => {}
            Some(_) if subscription.deleted == Some(Fate::Durable) => {
                return Err(format!("subscription {id} was deleted and is back"));
            }
            Some(found) => {
                adopt_cursor(&mut subscription, found.cursor)?;
                kept.insert(id, subscription);
            }
        }
    }
    match kept.len() < found.subscriptions.len() {
        true => Err("a subscription was never sent".to_owned()),
        false => {
            topic.subscriptions = kept;
            Ok(())
        }
    }
}

/// P4: a cursor is the last durable one or a later one, never an older.
fn adopt_cursor(subscription: &mut ModelSubscription, cursor: Seq) -> Checked {
    let durable = subscription
        .cursors
        .iter()
        .rposition(|(_, fate)| *fate == Fate::Durable);
    let allowed = &subscription.cursors[durable.unwrap_or(0)..];
    if !allowed.iter().any(|(seq, _)| *seq == cursor) {
        return Err(format!("cursor {cursor}, allowed {allowed:?}"));
    }
    subscription.made = Fate::Durable;
    subscription.deleted = None;
    subscription.cursors = vec![(cursor, Fate::Durable)];
    Ok(())
}
