//! A durable topic of one name, as its clients may see it: what a call does to it, and which answers
//! it can have given. A refusal promises nothing, so most of them are no part of a history.

use std::collections::BTreeMap;

use tidegate::id::{HomedId, Seq};

use super::linearizable::Model;

/// The topic that has the name now, if one has.
pub(crate) struct NamedTopic;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Named(Option<Live>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Live {
    /// Not known while only calls that nobody heard of again have made it.
    id: Option<HomedId>,
    /// The payload of each seq from 1.
    messages: Vec<u32>,
    /// The seq that was given to a key.
    keys: BTreeMap<u32, Seq>,
    subscriptions: BTreeMap<u32, Held>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Held {
    id: Option<HomedId>,
    /// Through which seq an ack was answered.
    acked: Seq,
    /// Where it may have been made at most: nobody heard of it, and what retention had taken by then it
    /// never had before it.
    made_max: Seq,
    /// The connection that is bound.
    bound: u64,
}

/// What was asked, and what was answered if anything was.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Resolve(Option<Resolved>),
    Delete,
    /// It was answered that there is no such topic.
    Unknown,
    Publish {
        payloads: Vec<u32>,
        key: Option<u32>,
        told: Option<Published>,
        /// Keys may have ended: by the clock, or with their messages.
        may_forget: bool,
    },
    /// The key is that of another payload.
    Conflict {
        payload: u32,
        key: u32,
    },
    Subscribe {
        sub: u32,
        connection: u64,
        /// From the first message kept, or only what comes.
        is_from_start: bool,
        /// Retention takes messages of the topic.
        is_passing: bool,
        told: Option<Bound>,
        /// Everything that was acked or passed by then: cursors run ahead of what is durable, and
        /// never of this.
        asked: Seq,
    },
    Ack {
        sub: u32,
        connection: u64,
        seq: Seq,
        told: Option<Seq>,
    },
    /// It was answered that somebody else is bound.
    Fenced {
        sub: u32,
        connection: u64,
    },
    DeleteSubscription {
        sub: u32,
        id: HomedId,
    },
    Read {
        id: HomedId,
        messages: Vec<(Seq, u32)>,
        gaps: Vec<(Seq, Seq)>,
        last: Seq,
        /// As many as retention keeps at least, if it bounds the topic.
        kept_min: Option<Seq>,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolved {
    pub(crate) id: HomedId,
    pub(crate) is_new: bool,
    pub(crate) last: Seq,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    pub(crate) id: HomedId,
    pub(crate) first: Seq,
    pub(crate) is_repeat: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) topic: HomedId,
    pub(crate) id: HomedId,
    pub(crate) cursor: Seq,
    pub(crate) is_resumed: bool,
}

impl Model for NamedTopic {
    type State = Named;
    type Op = Op;

    fn step(state: &Named, op: &Op) -> Vec<Named> {
        let next = match (&state.0, op) {
            (None, Op::Unknown) => vec![None],
            (Some(_), Op::Unknown) => vec![],
            (_, Op::Resolve(told)) => resolve(state.0.as_ref(), *told),
            (None, _) => vec![],
            (Some(_), Op::Delete) => vec![None],
            (Some(live), op) => act(live, op).into_iter().map(Some).collect(),
        };
        next.into_iter().map(Named).collect()
    }

    /// Messages are only ever added to one topic.
    fn may_come(state: &Named, op: &Op) -> bool {
        let Some(live) = &state.0 else {
            return true;
        };
        let has = live.messages.len() as Seq;
        let is_of = |id: HomedId| live.id == Some(id);
        match op {
            Op::Resolve(Some(told)) => !is_of(told.id) || has <= told.last,
            Op::Publish {
                told: Some(told), ..
            } => !is_of(told.id) || told.is_repeat || has < told.first,
            Op::Read {
                id, messages, last, ..
            } => {
                let is_other = |(seq, payload): &(Seq, u32)| {
                    live.payload(*seq).is_some_and(|known| known != *payload)
                };
                !is_of(*id) || has <= *last && !messages.iter().any(is_other)
            }
            _ => true,
        }
    }

    fn needs_another(op: &Op) -> bool {
        // Nobody asked the cursor to come so far, so the subscription was made there.
        matches!(op, Op::Subscribe { told: Some(told), asked, .. } if told.is_resumed && *asked < told.cursor)
    }

    fn has_what_it_needs(state: &Named, op: &Op) -> bool {
        let (
            Some(live),
            Op::Subscribe {
                sub,
                told: Some(told),
                ..
            },
        ) = (&state.0, op)
        else {
            return true;
        };
        let held = live.subscriptions.get(sub);
        live.id != Some(told.topic) || held.is_some_and(|held| held.may_stand_at(told.cursor))
    }

    fn may_bring(other: &Op, op: &Op) -> bool {
        let (Op::Subscribe { sub, told, .. }, Op::Subscribe { sub: wanted, .. }) = (other, op)
        else {
            return false;
        };
        sub == wanted && told.is_none_or(|told| !told.is_resumed)
    }

    fn may_still_bring(state: &Named, other: &Op, op: &Op) -> bool {
        let (
            Some(live),
            Op::Subscribe {
                is_from_start,
                is_passing,
                ..
            },
            Op::Subscribe {
                told: Some(told), ..
            },
        ) = (&state.0, other, op)
        else {
            return true;
        };
        // Made before what has been published since, it can stand anywhere that retention has come to.
        let has = live.messages.len() as Seq;
        match is_from_start {
            true => *is_passing,
            false => has <= told.cursor,
        }
    }
}

/// Two that are asked for as the same, if one of them is known only now.
fn same(known: Option<HomedId>, told: HomedId) -> bool {
    known.is_none_or(|known| known == told)
}

fn resolve(live: Option<&Live>, told: Option<Resolved>) -> Vec<Option<Live>> {
    let Some(told) = told else {
        return vec![Some(live.cloned().unwrap_or_default())];
    };
    let mut next = live.cloned().unwrap_or_default();
    let is_right = live.is_none() == told.is_new
        && same(next.id, told.id)
        && next.messages.len() as Seq == told.last;
    next.id = Some(told.id);
    is_right.then_some(Some(next)).into_iter().collect()
}

fn act(live: &Live, op: &Op) -> Vec<Live> {
    match op {
        Op::Publish {
            payloads,
            key,
            told,
            may_forget,
        } => publish(live, payloads, *key, *told, *may_forget),
        Op::Conflict { payload, key } => {
            let seq = live.keys.get(key);
            let other = seq.is_some_and(|seq| live.payload(*seq) != Some(*payload));
            other.then(|| live.clone()).into_iter().collect()
        }
        Op::Subscribe {
            sub,
            connection,
            is_from_start,
            is_passing,
            told,
            asked,
        } => {
            let start_max = match (is_from_start, is_passing) {
                (true, false) => 0,
                _ => live.messages.len() as Seq,
            };
            let wanted = (*sub, *connection, *is_from_start, start_max);
            subscribe(live, wanted, *told, *asked)
        }
        Op::Ack {
            sub,
            connection,
            seq,
            told,
        } => ack(live, (*sub, *connection), *seq, *told),
        Op::Fenced { sub, connection } => {
            let held = live.subscriptions.get(sub);
            let other = held.is_some_and(|held| held.bound != *connection);
            other.then(|| live.clone()).into_iter().collect()
        }
        Op::DeleteSubscription { sub, id } => {
            let mut next = live.clone();
            let held = next.subscriptions.remove(sub);
            let is_right = held.is_some_and(|held| same(held.id, *id));
            is_right.then_some(next).into_iter().collect()
        }
        Op::Read {
            id,
            messages,
            gaps,
            last,
            kept_min,
        } => {
            let is_right = same(live.id, *id)
                && live.messages.len() as Seq == *last
                && live.shows(messages, gaps, *kept_min);
            is_right.then(|| live.clone()).into_iter().collect()
        }
        Op::Resolve(_) | Op::Delete | Op::Unknown => vec![],
    }
}

fn publish(
    live: &Live,
    payloads: &[u32],
    key: Option<u32>,
    told: Option<Published>,
    may_forget: bool,
) -> Vec<Live> {
    let known = key.and_then(|key| live.keys.get(&key)).copied();
    let first = live.messages.len() as Seq + 1;
    let mut next = live.clone();
    if let Some(told) = told {
        next.id = Some(told.id);
        if !same(live.id, told.id) {
            return vec![];
        }
        if told.is_repeat {
            let is_right =
                known == Some(told.first) && live.payload(told.first) == payloads.first().copied();
            return is_right.then_some(next).into_iter().collect();
        }
        if told.first != first {
            return vec![];
        }
    }
    if known.is_some() && !may_forget {
        // Unheard of, it was a repeat or a conflict and has changed nothing.
        return vec![];
    }
    if let Some(key) = key {
        next.keys.insert(key, first);
    }
    next.messages.extend(payloads);
    vec![next]
}

fn subscribe(
    live: &Live,
    (sub, connection, is_from_start, start_max): (u32, u64, bool, Seq),
    told: Option<Bound>,
    asked: Seq,
) -> Vec<Live> {
    let mut next = live.clone();
    let held = live.subscriptions.get(&sub);
    let last = live.messages.len() as Seq;
    if let Some(told) = told {
        let (is_known, cursor) = match held {
            Some(held) => {
                let moved = held.acked <= told.cursor && told.cursor <= asked;
                (
                    same(held.id, told.id),
                    moved || held.may_stand_at(told.cursor),
                )
            }
            None => (
                true,
                is_from_start && told.cursor <= last || told.cursor == last,
            ),
        };
        if !same(live.id, told.topic) || told.is_resumed != held.is_some() || !is_known || !cursor {
            return vec![];
        }
        next.id = Some(told.topic);
    }
    let start = match is_from_start {
        true => 0,
        false => last,
    };
    let start = told.map_or(start, |told| told.cursor);
    let acked = held.map_or(start, |held| held.acked);
    let made_max = match told {
        Some(told) => told.cursor,
        None => held.map_or(start_max, |held| held.made_max),
    };
    let known = held.and_then(|held| held.id);
    let id = told.map(|told| told.id).or(known);
    let bound = connection;
    next.subscriptions.insert(
        sub,
        Held {
            id,
            acked,
            made_max,
            bound,
        },
    );
    vec![next]
}

fn ack(live: &Live, (sub, connection): (u32, u64), seq: Seq, told: Option<Seq>) -> Vec<Live> {
    let mut next = live.clone();
    let held = next.subscriptions.get_mut(&sub);
    let Some(held) = held.filter(|held| held.bound == connection) else {
        return vec![];
    };
    if told.is_some_and(|told| told < seq) {
        return vec![];
    }
    if told.is_some() {
        held.acked = held.acked.max(seq);
    }
    vec![next]
}

impl Held {
    /// Whether it can be there with no ack that asked for it.
    fn may_stand_at(&self, cursor: Seq) -> bool {
        self.acked <= cursor && cursor <= self.acked.max(self.made_max)
    }
}

impl Live {
    fn payload(&self, seq: Seq) -> Option<u32> {
        let at = usize::try_from(seq).unwrap().checked_sub(1)?;
        self.messages.get(at).copied()
    }

    /// Whether a page from the first message on shows this topic: each seq once, with its payload or
    /// as a gap, none left out but at the front what retention may have taken.
    fn shows(&self, messages: &[(Seq, u32)], gaps: &[(Seq, Seq)], kept_min: Option<Seq>) -> bool {
        let last = self.messages.len() as Seq;
        let mut spans: Vec<(Seq, Seq)> = messages.iter().map(|(seq, _)| (*seq, *seq)).collect();
        spans.extend(gaps);
        spans.sort_unstable();
        let first = spans.first().map_or(last + 1, |(from, _)| *from);
        let mut next = first;
        for (from, to) in spans {
            if from != next || to < from {
                return false;
            }
            next = to + 1;
        }
        let first_max = kept_min.map_or(1, |kept| (last + 1).saturating_sub(kept).max(1));
        let is_whole = next == last + 1 && (first <= first_max);
        let is_true = |(seq, payload): &(Seq, u32)| self.payload(*seq) == Some(*payload);
        is_whole && messages.iter().all(is_true)
    }
}
