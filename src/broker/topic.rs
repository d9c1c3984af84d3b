//! One durable topic at its home: where its seqs stand, which publishes wait for the disk, which
//! idempotency keys are known, the newest messages, and what retention may take away. It knows
//! neither subscriptions' cursors nor the log; it never waits.
//!
//! Bounds: `waiting` by `publishes_in_flight_max` of each publisher; `keys` by `keys_max` and
//! `keys_ms_max`, the oldest forgotten first; `recent` by the tail of the partition, which evicts;
//! `marks` by 64 a retention rule.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use crate::id::{HomedId, Seq, Tenant};

use super::durable::{AppendId, Message, NewMessage, Peer, Retention, TopicView};

/// A durable topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) tenant: Tenant,
    pub(super) name: Arc<str>,
    pub(super) created_ms: u64,
    pub(super) retention: Retention,
    /// The earliest message kept; one behind `appended` if none is.
    pub(super) first: Seq,
    /// The last message that may be seen.
    pub(super) durable: Seq,
    /// The last message that was given to the log.
    pub(super) appended: Seq,
    /// Stored bytes that count against the tenant.
    pub(super) bytes: u64,
    pub(super) life: Life,
    /// Publishes that are answered once the log is durable so far.
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) keys: Keys,
    pub(super) recent: Recent,
    pub(super) marks: Marks,
    /// Subscriptions by key; one that is being deleted is no longer here.
    pub(super) subscriptions: AHashMap<Arc<str>, HomedId>,
    /// Bound subscriptions that have read everything and wait for a commit.
    pub(super) idle: Vec<HomedId>,
    /// How many subscriptions are bound: without one, nothing recent is kept.
    pub(super) bound: u32,
}

/// Where a topic is between being asked for and being gone.
#[derive(Debug, Default)]
pub(super) enum Life {
    /// Its record is not durable yet; these are answered then, and the first of them made it.
    Creating(Vec<(Peer, Option<Bytes>)>),
    /// It is there.
    #[default]
    Kept,
    /// Its end is not durable yet, but nobody finds it any more.
    Deleting,
}

/// A publish that waits for the disk.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Answered once this append is durable.
    pub(super) after: AppendId,
    pub(super) peer: Peer,
    pub(super) reference: Option<Bytes>,
    pub(super) first: Seq,
    pub(super) last: Seq,
    pub(super) duplicate: bool,
}

impl Topic {
    /// A topic in which nothing was ever published.
    pub(super) fn new(tenant: Tenant, name: Arc<str>, now_ms: u64, retention: Retention) -> Self {
        Self {
            tenant,
            name,
            created_ms: now_ms,
            retention,
            first: 1,
            durable: 0,
            appended: 0,
            bytes: 0,
            life: Life::Kept,
            waiting: VecDeque::new(),
            keys: Keys::default(),
            recent: Recent::default(),
            marks: Marks::default(),
            subscriptions: AHashMap::new(),
            idle: Vec::new(),
            bound: 0,
        }
    }

    pub(super) fn deleting(&self) -> bool {
        matches!(self.life, Life::Deleting)
    }

    /// As its tenant sees it: only what is durable.
    pub(super) fn view(&self, id: HomedId) -> TopicView {
        TopicView {
            id,
            name: self.name.clone(),
            tenant: self.tenant.clone(),
            created_ms: self.created_ms,
            first_seq: self.first,
            last_seq: self.durable,
            retention: self.retention,
        }
    }

    /// Gives the next seqs to `messages` and says what they store.
    pub(super) fn append(&mut self, messages: &[NewMessage], unix_ms: u64) -> (Seq, Seq, u64) {
        let first = self.appended + 1;
        let mut bytes = 0;
        for (seq, message) in (first..).zip(messages) {
            let stored = stored_bytes(message);
            bytes += stored;
            self.marks.add(&self.retention, seq, unix_ms, stored);
            if let Some(key) = &message.idempotency_key {
                self.keys
                    .insert(key.clone(), seq, xxh3_128(&message.payload), unix_ms);
            }
            self.appended = seq;
        }
        self.bytes += bytes;
        (first, self.appended, bytes)
    }

    /// Takes back the seqs from `first` on, which the log has not taken, and tells the bytes.
    pub(super) fn rewind(&mut self, first: Seq, bytes: u64) {
        assert!(self.durable < first, "what is durable is never taken back");
        self.appended = first - 1;
        self.bytes -= bytes;
        self.keys.forget_from(first);
        self.recent.forget_from(first);
        self.marks.forget_from(first, bytes);
    }

    /// The seq from which on retention keeps, if that has moved.
    pub(super) fn kept_from(&self, unix_ms: u64) -> Option<Seq> {
        let kept = self.marks.kept_from(&self.retention, self, unix_ms);
        (self.first < kept).then_some(kept)
    }

    /// Forgets what is before `first`, and says how many stored bytes that was.
    pub(super) fn trim(&mut self, first: Seq) -> u64 {
        self.first = self.first.max(first);
        let freed = self.marks.trim(first, self.appended).min(self.bytes);
        self.bytes -= freed;
        freed
    }
}

/// What a message takes of the tenant's bytes: payload, key, and the head of its record.
pub(super) fn stored_bytes(message: &NewMessage) -> u64 {
    let key = message.idempotency_key.as_ref().map_or(0, |key| key.len());
    (message.payload.len() + key) as u64 + RECORD_BYTES
}

const RECORD_BYTES: u64 = 48;

/// The idempotency keys of a topic, oldest first.
#[derive(Debug, Default)]
pub(super) struct Keys {
    known: AHashMap<Arc<str>, Known>,
    order: VecDeque<(Seq, Arc<str>)>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    seq: Seq,
    hash: u128,
    unix_ms: u64,
}

/// What the keys of a publish say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// None was used before.
    Fresh,
    /// All were used for these very payloads, one after the other.
    Whole {
        /// The original's first seq.
        first: Seq,
        /// The original's last seq.
        last: Seq,
    },
    /// Anything else.
    Conflict,
}

impl Keys {
    /// Compares `messages` with what is known. A batch with one repeat in it is a conflict: it
    /// could be neither appended whole nor answered with consecutive seqs.
    pub(super) fn look(&self, messages: &[NewMessage]) -> Repeat {
        let keyed = messages
            .iter()
            .filter_map(|m| Some((m.idempotency_key.as_ref()?, m)));
        let known = keyed
            .clone()
            .filter(|(key, _)| self.known.contains_key(*key))
            .count();
        if known == 0 {
            let double = 1 < messages.len() && has_double(keyed.map(|(key, _)| key));
            return if double {
                Repeat::Conflict
            } else {
                Repeat::Fresh
            };
        }
        let mut seqs = keyed.map(|(key, message)| {
            let known = self.known.get(key)?;
            (known.hash == xxh3_128(&message.payload)).then_some(known.seq)
        });
        let Some(Some(first)) = seqs.next() else {
            return Repeat::Conflict;
        };
        let last = first + messages.len() as u64 - 1;
        let rest = (first + 1..=last).map(Some);
        if seqs.eq(rest) {
            Repeat::Whole { first, last }
        } else {
            Repeat::Conflict
        }
    }

    /// Remembers a key.
    pub(super) fn insert(&mut self, key: Arc<str>, seq: Seq, hash: u128, unix_ms: u64) {
        self.known.insert(key.clone(), Known { seq, hash, unix_ms });
        self.order.push_back((seq, key));
    }

    /// Forgets the oldest beyond `count_max` and those older than `age_ms_max`.
    pub(super) fn expire(&mut self, unix_ms: u64, count_max: usize, age_ms_max: u64) {
        while let Some((_, key)) = self.order.front() {
            let made = self.known.get(key).map_or(0, |known| known.unix_ms);
            if self.order.len() <= count_max && unix_ms <= made.saturating_add(age_ms_max) {
                break;
            }
            self.known.remove(key);
            self.order.pop_front();
        }
    }

    fn forget_from(&mut self, first: Seq) {
        while let Some((_, key)) = self.order.pop_back_if(|(seq, _)| first <= *seq) {
            self.known.remove(&key);
        }
    }
}

fn has_double<'a>(keys: impl Iterator<Item = &'a Arc<str>>) -> bool {
    let mut seen = ahash::AHashSet::new();
    keys.into_iter().any(|key| !seen.insert(key))
}

/// The newest messages of a topic, shared with the log and with the frames made of them.
#[derive(Debug, Default)]
pub(super) struct Recent {
    messages: VecDeque<Message>,
}

impl Recent {
    /// Keeps the next message; one that does not follow starts anew.
    pub(super) fn push(&mut self, message: Message) {
        if self
            .messages
            .back()
            .is_some_and(|last| last.seq + 1 != message.seq)
        {
            self.messages.clear();
        }
        self.messages.push_back(message);
    }

    /// The message of this seq, if it is still here.
    pub(super) fn message(&self, seq: Seq) -> Option<&Message> {
        let first = self.messages.front()?.seq;
        let index = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.messages.get(index)
    }

    /// Drops messages up to `seq`.
    pub(super) fn evict(&mut self, seq: Seq) {
        while self
            .messages
            .pop_front_if(|message| message.seq <= seq)
            .is_some()
        {}
    }

    fn forget_from(&mut self, first: Seq) {
        while self
            .messages
            .pop_back_if(|message| first <= message.seq)
            .is_some()
        {}
    }
}

/// Where retention may cut: positions with their time and the bytes behind them, about 64 for
/// each rule, so that a topic of any length costs the same.
#[derive(Debug, Default)]
pub(super) struct Marks {
    marks: VecDeque<Mark>,
}

/// A run of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The first message of the run.
    pub first_seq: Seq,
    /// When the first message was appended.
    pub first_ms: u64,
    /// When the last message was appended.
    pub last_ms: u64,
    /// Stored bytes of the run.
    pub bytes: u64,
}

/// A rule is kept to within this part of its bound.
const RETENTION_PARTS: u64 = 64;

impl Marks {
    fn add(&mut self, retention: &Retention, seq: Seq, unix_ms: u64, bytes: u64) {
        let fits = |mark: &Mark| !quantum_reached(retention, mark, seq, unix_ms);
        match self.marks.back_mut().filter(|mark| fits(mark)) {
            Some(mark) => {
                mark.last_ms = mark.last_ms.max(unix_ms);
                mark.bytes += bytes;
            }
            None => self.push(Mark {
                first_seq: seq,
                first_ms: unix_ms,
                last_ms: unix_ms,
                bytes,
            }),
        }
    }

    /// Takes a run over, as recovery found it.
    pub(super) fn push(&mut self, mark: Mark) {
        assert!(
            self.marks
                .back()
                .is_none_or(|last| last.first_seq < mark.first_seq)
        );
        self.marks.push_back(mark);
    }

    fn forget_from(&mut self, first: Seq, mut bytes: u64) {
        while let Some(mark) = self.marks.pop_back_if(|mark| first <= mark.first_seq) {
            bytes -= mark.bytes;
        }
        if let Some(mark) = self.marks.back_mut() {
            mark.bytes -= bytes;
        }
    }

    /// The first seq that every rule keeps. A run goes when all of it may go; the newest run is
    /// cut by age only, and by count exactly where a run is one message.
    fn kept_from(&self, retention: &Retention, topic: &Topic, unix_ms: u64) -> Seq {
        let mut kept = topic.first;
        let mut bytes = topic.bytes;
        for (index, mark) in self.marks.iter().enumerate() {
            let end = self
                .marks
                .get(index + 1)
                .map_or(topic.durable + 1, |next| next.first_seq);
            if topic.durable + 1 < end || !may_go(retention, topic, (mark, end, bytes), unix_ms) {
                break;
            }
            bytes = bytes.saturating_sub(mark.bytes);
            kept = end;
        }
        kept
    }

    fn trim(&mut self, first: Seq, appended: Seq) -> u64 {
        let mut freed = 0;
        while !self.marks.is_empty() {
            let end = self
                .marks
                .get(1)
                .map_or(appended + 1, |next| next.first_seq);
            if first < end {
                break;
            }
            freed += self.marks.pop_front().map_or(0, |mark| mark.bytes);
        }
        freed
    }
}

fn quantum_reached(retention: &Retention, mark: &Mark, seq: Seq, unix_ms: u64) -> bool {
    let reached = |max: Option<u64>, value: u64| {
        max.is_some_and(|max| (max / RETENTION_PARTS).max(1) <= value)
    };
    reached(retention.messages_max, seq - mark.first_seq)
        || reached(retention.bytes_max, mark.bytes)
        || reached(retention.age_ms_max, unix_ms.saturating_sub(mark.first_ms))
}

/// Whether the run, which ends before `end` and has `bytes` behind and in it, may go.
fn may_go(rules: &Retention, topic: &Topic, run: (&Mark, Seq, u64), unix_ms: u64) -> bool {
    let (mark, end, bytes) = run;
    let newest = topic.durable < end;
    let behind = topic.durable + 1 - end;
    let old = rules
        .age_ms_max
        .is_some_and(|max| mark.last_ms.saturating_add(max) < unix_ms);
    let many = rules.messages_max.is_some_and(|max| max <= behind);
    let large = rules.bytes_max.is_some_and(|max| max < bytes);
    old || (!newest && (many || large))
}
