//! One durable topic at its home: where its seqs stand, which publishes wait for the disk, which
//! idempotency keys are known, and the newest messages. It knows neither subscriptions' cursors
//! nor the log; it never waits.
//!
//! Bounds: `keys` by `idempotency_keys_max` and `idempotency_ms_max`, the oldest forgotten first; `recent` by the
//! tail of the partition, which evicts.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;

use crate::id::{HomedId, Seq, Tenant};
use crate::log::{key_fingerprint, payload_fingerprint};

use super::durable::{AppendId, Message, NewMessage, Peer, Retention, TopicView};
use super::names::Names;

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
    /// The append of the last message.
    pub(super) newest: AppendId,
    pub(super) keys: Keys,
    /// It stands among those whose keys are looked at by time.
    pub(super) is_keyed: bool,
    pub(super) recent: Recent,
    /// Subscriptions by key; one that is being deleted is no longer here.
    pub(super) subscriptions: Names,
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
            newest: 0,
            keys: Keys::default(),
            is_keyed: false,
            recent: Recent::default(),
            subscriptions: Names::default(),
            idle: Vec::new(),
            bound: 0,
        }
    }

    /// Always in one order, so that what is told of them does not depend on a table.
    pub(super) fn subscriptions_by_id(&self) -> Vec<HomedId> {
        let mut ids: Vec<HomedId> = self.subscriptions.ids().collect();
        ids.sort_unstable();
        ids
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
    pub(super) fn append(
        &mut self,
        messages: &[NewMessage],
        publisher: &str,
        unix_ms: u64,
    ) -> (Seq, Seq, u64) {
        let first = self.appended + 1;
        let mut bytes = 0;
        for (seq, message) in (first..).zip(messages) {
            let stored = stored_bytes(message, publisher);
            bytes += stored;
            if let Some(key) = &message.idempotency_key {
                let payload = payload_fingerprint(&message.payload);
                self.keys.insert(
                    key_fingerprint(key),
                    KnownKey {
                        seq,
                        payload,
                        unix_ms,
                    },
                );
            }
            self.appended = seq;
        }
        self.bytes += bytes;
        (first, self.appended, bytes)
    }

    /// What is not durable will never be: it is as if it had not been published. Tells how many of
    /// these `bytes` still counted.
    pub(super) fn forget_appended(&mut self, bytes: u64) -> u64 {
        self.appended = self.durable;
        self.keys.forget_from(self.durable + 1);
        self.recent.forget_from(self.durable + 1);
        let freed = bytes.min(self.bytes);
        self.bytes -= freed;
        freed
    }

    /// Forgets what is before `first`, so that `bytes` are left; tells how many have gone.
    pub(super) fn trim(&mut self, first: Seq, bytes: u64) -> u64 {
        assert!(first <= self.appended + 1, "only what exists is forgotten");
        self.first = self.first.max(first);
        let freed = self.bytes.saturating_sub(bytes);
        self.bytes -= freed;
        freed
    }
}

/// What a message takes of the tenant's bytes: what its record takes in the log.
pub(super) fn stored_bytes(message: &NewMessage, publisher: &str) -> u64 {
    let key = message.idempotency_key.as_ref().map_or(0, |key| key.len());
    let bytes = RECORD_BYTES + message.payload.len() + key + publisher.len();
    bytes.next_multiple_of(8) as u64
}

const RECORD_BYTES: usize = 64;

/// The idempotency keys of a topic, oldest first, by fingerprint. Most topics have none.
#[derive(Debug, Default)]
pub(super) struct Keys(Option<Box<Known>>);

#[derive(Debug, Default)]
struct Known {
    known: AHashMap<u128, KnownKey>,
    order: VecDeque<(Seq, u128)>,
}

/// A key that was used.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownKey {
    pub(super) seq: Seq,
    pub(super) payload: u64,
    pub(super) unix_ms: u64,
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
        let keys = messages
            .iter()
            .filter_map(|message| message.idempotency_key.as_deref());
        let is_known = |key: &str| {
            let known = self.0.as_ref().map(|keys| &keys.known);
            known.is_some_and(|known| known.contains_key(&key_fingerprint(key)))
        };
        if !keys.clone().any(is_known) {
            let double = 1 < messages.len() && has_double(keys);
            return if double {
                Repeat::Conflict
            } else {
                Repeat::Fresh
            };
        }
        let mut seqs = messages.iter().map(|message| self.original(message));
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

    /// The seq that the message was given when it came first.
    fn original(&self, message: &NewMessage) -> Option<Seq> {
        let key = message.idempotency_key.as_deref()?;
        let known = self.0.as_ref()?.known.get(&key_fingerprint(key))?;
        (known.payload == payload_fingerprint(&message.payload)).then_some(known.seq)
    }

    /// Remembers a key; they stand in the order of their seqs, whatever order they come in.
    pub(super) fn insert(&mut self, key: u128, known: KnownKey) {
        let keys = self.0.get_or_insert_default();
        if let Some(old) = keys.known.insert(key, known) {
            keys.order
                .retain(|(seq, other)| (*seq, *other) != (old.seq, key));
        }
        let at = keys.order.partition_point(|(seq, _)| *seq <= known.seq);
        keys.order.insert(at, (known.seq, key));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The seq of the oldest.
    pub(super) fn first_seq(&self) -> Option<Seq> {
        self.0.as_ref()?.order.front().map(|(seq, _)| *seq)
    }

    /// Forgets the oldest beyond `count_max` and those older than `age_ms_max`.
    pub(super) fn expire(&mut self, unix_ms: u64, count_max: usize, age_ms_max: u64) {
        self.forget(|keys| {
            let (_, key) = keys.order.front()?;
            let made = keys.known.get(key).map_or(0, |known| known.unix_ms);
            let is_kept =
                keys.order.len() <= count_max && unix_ms <= made.saturating_add(age_ms_max);
            (!is_kept).then(|| keys.order.pop_front())?
        });
    }

    fn forget_from(&mut self, first: Seq) {
        self.forget(|keys| keys.order.pop_back_if(|(seq, _)| first <= *seq));
    }

    /// Forgets what `next` takes out of the order, and the tables when nothing is left.
    fn forget(&mut self, mut next: impl FnMut(&mut Known) -> Option<(Seq, u128)>) {
        let Some(keys) = &mut self.0 else {
            return;
        };
        while let Some((_, key)) = next(keys) {
            keys.known.remove(&key);
        }
        if keys.order.is_empty() {
            self.0 = None;
        }
    }
}

fn has_double<'a>(mut keys: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = ahash::AHashSet::new();
    keys.any(|key| !seen.insert(key))
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
