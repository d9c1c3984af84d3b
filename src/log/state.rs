//! What the entries of a log add up to: topics, subscriptions, cursors, and where the newest entry
//! of each stands. Knows no file. Applying an entry twice in order changes nothing, so a replay
//! may start anywhere before the first entry that is missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::id::{HomedId, Seq, Tenant};

use super::index::{Span, Spans};
use super::live::Live;
use super::marks::Marks;
use super::record::{
    CURSOR_BYTES, Entry, Publish, Retention, SUBSCRIPTION_HEAD_BYTES, SubscriptionEntry,
    TOPIC_HEAD_BYTES, TopicEntry,
};

/// How long an idempotency key is remembered.
pub const KEY_AGE_MS_MAX: u64 = 10 * 60 * 1000;

/// How many idempotency keys of a topic are remembered.
pub const KEYS_MAX: usize = 100_000;

/// A publish that carried an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredKey {
    /// `key_fingerprint` of the key.
    pub key: u128,
    /// `payload_fingerprint` of the payload.
    pub payload: u64,
    /// The seq it was given.
    pub seq: Seq,
    /// When.
    pub time_ms: u64,
}

/// What a key is remembered by.
pub fn key_fingerprint(key: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128(key.as_bytes())
}

/// What a keyed payload is remembered by, to tell a repeat from a conflict.
pub fn payload_fingerprint(payload: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(payload)
}

/// Whose entries that belong to no topic are.
pub(super) fn nobody() -> HomedId {
    HomedId::from_bytes([0; 16])
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Behind pointers: the nodes of a tree are mostly half full.
    pub(super) topics: BTreeMap<HomedId, Box<Topic>>,
    pub(super) subscriptions: BTreeMap<HomedId, Box<Subscription>>,
    pub(super) graves: BTreeMap<HomedId, Grave>,
    /// The topics that retention has to look at, by when.
    pub(super) due: BTreeSet<(u64, HomedId)>,
    /// Segments of which something is missing, damaged or belongs to nobody who is known: they are
    /// neither cleaned nor used again, so that nothing of them is lost.
    pub(super) protected: BTreeSet<u64>,
    /// How much of each segment is needed.
    pub(super) live: Live,
    /// How often this log has lost what it cannot name.
    pub(super) generation: u64,
    /// Topics and subscriptions met so far: of two that claim one name the one met later has it.
    pub(super) births: u64,
}

#[derive(Debug, Default)]
pub(super) struct Topic {
    /// `None` while only messages of it were met: cleaning writes the topic's own entry again
    /// behind them.
    pub(super) name: Option<TopicName>,
    pub(super) retention: Retention,
    pub(super) first_seq: Seq,
    pub(super) last_seq: Seq,
    /// All up to here is durable.
    pub(super) durable_seq: Seq,
    pub(super) spans: Spans,
    pub(super) keys: VecDeque<StoredKey>,
    pub(super) marks: Marks,
    /// Ordered; mostly there is one.
    pub(super) subscriptions: SmallVec<[HomedId; 1]>,
    /// The segment of its newest own entry.
    pub(super) segment: u64,
    /// The segment of the first entry that told of it.
    pub(super) oldest: u64,
    /// How many topics and subscriptions the state had met before it.
    pub(super) born: u64,
    /// When retention has to look at it, in Unix milliseconds.
    pub(super) due_ms: u64,
}

/// Retention looks at the topic as soon as it can.
pub(super) const AT_ONCE: u64 = 0;

/// Retention has nothing to look for.
pub(super) const NEVER: u64 = u64::MAX;

#[derive(Debug, Clone)]
pub(super) struct TopicName {
    pub(super) tenant: Tenant,
    pub(super) name: Arc<str>,
    pub(super) created_at_ms: u64,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) topic: HomedId,
    pub(super) name: Arc<str>,
    pub(super) maker: Box<str>,
    pub(super) cursor: Seq,
    pub(super) created_at_ms: u64,
    /// The segment of its newest own entry.
    pub(super) segment: u64,
    /// The segment of the newest entry that tells its cursor.
    pub(super) cursor_segment: u64,
    /// The segment of its first own entry.
    pub(super) oldest: u64,
    /// How many topics and subscriptions the state had met before it.
    pub(super) born: u64,
}

/// Something deleted. The deletion must outlive all segments that may still tell of it: those from
/// its first entry to its deletion.
#[derive(Debug, Default)]
pub(super) struct Grave {
    pub(super) is_topic: bool,
    /// The segment of the newest entry that tells of the deletion.
    pub(super) segment: u64,
    /// The segment of the first entry.
    pub(super) from: u64,
    /// The segment of the deletion itself.
    pub(super) until: u64,
}

impl Grave {
    /// Whether a segment other than the deletion's own may still tell of what is deleted.
    pub(super) fn is_needed(&self, segments: &BTreeSet<u64>) -> bool {
        let is_placed = self.segment != 0;
        let mut others = segments.range(self.from..=self.until.max(self.from));
        !is_placed || others.any(|&segment| segment != self.segment)
    }

    fn place(&mut self, segment: u64) {
        lower(&mut self.from, segment);
    }

    fn place_deletion(&mut self, segment: u64, live: &mut Live) {
        self.place(segment);
        live.move_to((self.segment, segment), GRAVE_BYTES);
        self.segment = segment;
        if self.until == 0 {
            self.until = segment;
        }
    }
}

impl Subscription {
    /// Its newest own entry and the newest that tells its cursor stand there; 0 is nowhere.
    pub(super) fn place(&mut self, (segment, cursor_segment): (u64, u64), live: &mut Live) {
        let bytes = (SUBSCRIPTION_HEAD_BYTES + self.name.len() + self.maker.len()) as u64;
        let apart = |segment, cursor| if segment == cursor { 0 } else { cursor };
        let from = apart(self.segment, self.cursor_segment);
        let to = apart(segment, cursor_segment);
        live.move_to((self.segment, segment), bytes);
        live.move_to((from, to), CURSOR_BYTES as u64);
        (self.segment, self.cursor_segment) = (segment, cursor_segment);
    }
}

/// What a deletion takes.
pub(super) const GRAVE_BYTES: u64 = 32;

/// Notes the oldest segment; 0 is none yet.
fn lower(oldest: &mut u64, segment: u64) {
    if *oldest == 0 || segment < *oldest {
        *oldest = segment;
    }
}

impl State {
    /// What the entry means.
    pub(super) fn apply(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::Publish(publish) if !self.graves.contains_key(&publish.topic) => {
                let topic = self.topic_mut(publish.topic);
                topic.publish(publish);
                let due_ms = topic.due_after(publish.time_ms);
                if due_ms < topic.due_ms {
                    self.set_due(publish.topic, due_ms);
                }
            }
            Entry::Topic(topic) if !self.graves.contains_key(&topic.id) => {
                self.topic_mut(topic.id);
                if let Some(old) = self.topics.get_mut(&topic.id) {
                    let is_changed = old.retention != topic.retention;
                    old.rewrite(topic, &mut self.live);
                    if is_changed {
                        let due_ms = if topic.retention.is_bounded() {
                            AT_ONCE
                        } else {
                            NEVER
                        };
                        self.set_due(topic.id, due_ms);
                    }
                }
            }
            Entry::Subscription(subscription) => self.apply_subscription(subscription),
            Entry::TopicDeleted { id } => self.delete_topic(*id),
            Entry::SubscriptionDeleted { id } => self.delete_subscription(*id),
            Entry::Cursors(cursors) => {
                for (id, seq) in cursors.iter() {
                    self.move_cursor(id, seq);
                }
            }
            Entry::Epoch { generation } => self.generation = self.generation.max(*generation),
            Entry::Publish(_) | Entry::Topic(_) => {}
        }
    }

    /// Where the entry stands, once its segment is known.
    pub(super) fn place(&mut self, entry: &Entry<'_>, segment: u64) {
        match entry {
            Entry::Publish(publish) => self.place_message(publish, segment),
            Entry::Topic(topic) => match self.topics.get_mut(&topic.id) {
                Some(topic) => {
                    topic.place(segment, &mut self.live);
                    lower(&mut topic.oldest, segment);
                }
                None => self.place_in_grave(topic.id, segment),
            },
            Entry::Subscription(entry) => match self.subscriptions.get_mut(&entry.id) {
                Some(subscription) => {
                    subscription.place((segment, segment), &mut self.live);
                    lower(&mut subscription.oldest, segment);
                }
                None => {
                    self.place_in_grave(entry.id, segment);
                    self.place_in_grave(entry.topic, segment);
                }
            },
            Entry::TopicDeleted { id } | Entry::SubscriptionDeleted { id } => {
                let (graves, live) = (&mut self.graves, &mut self.live);
                // What was made and deleted in one segment is gone with it: no segment that is
                // left alone can tell of it.
                let is_over = graves.get_mut(id).is_some_and(|grave| {
                    grave.place_deletion(segment, live);
                    (grave.from, grave.until) == (segment, segment)
                });
                if is_over && let Some(grave) = graves.remove(id) {
                    live.take(grave.segment, GRAVE_BYTES);
                }
            }
            Entry::Cursors(cursors) => {
                for (id, _) in cursors.iter() {
                    if let Some(subscription) = self.subscriptions.get_mut(&id) {
                        let own = subscription.segment;
                        subscription.place((own, segment), &mut self.live);
                    }
                }
            }
            Entry::Epoch { .. } => {}
        }
    }

    /// Retention looks at the topic then, and not before.
    pub(super) fn set_due(&mut self, id: HomedId, due_ms: u64) {
        let Some(topic) = self.topics.get_mut(&id) else {
            return;
        };
        self.due.remove(&(topic.due_ms, id));
        topic.due_ms = due_ms;
        if due_ms != NEVER {
            self.due.insert((due_ms, id));
        }
    }

    pub(super) fn move_cursor(&mut self, id: HomedId, seq: Seq) {
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.cursor = seq;
        }
    }

    /// The subscription as it is written now.
    pub(super) fn subscription_entry(&self, id: HomedId) -> Option<SubscriptionEntry<'_>> {
        let subscription = self.subscriptions.get(&id)?;
        Some(SubscriptionEntry {
            id,
            topic: subscription.topic,
            name: &subscription.name,
            maker: &subscription.maker,
            cursor: subscription.cursor,
            created_at_ms: subscription.created_at_ms,
        })
    }

    /// Forgets a deletion that none of `segments` needs; tells whether it is forgotten.
    pub(super) fn forget_grave(&mut self, id: HomedId, segments: &BTreeSet<u64>) -> bool {
        let needed = |grave: &Grave| grave.is_needed(segments);
        if self.graves.get(&id).is_none_or(needed) {
            return false;
        }
        if let Some(grave) = self.graves.remove(&id) {
            self.live.take(grave.segment, GRAVE_BYTES);
        }
        true
    }

    /// Only `segments` are left: deletions that only others needed may be forgotten.
    pub(super) fn forget_graves(&mut self, segments: &BTreeSet<u64>) {
        let live = &mut self.live;
        self.graves.retain(|_, grave| {
            let is_needed = grave.is_needed(segments);
            if !is_needed {
                live.take(grave.segment, GRAVE_BYTES);
            }
            is_needed
        });
    }

    pub(super) fn topic_mut(&mut self, id: HomedId) -> &mut Topic {
        let births = &mut self.births;
        self.topics.entry(id).or_insert_with(|| {
            *births += 1;
            Box::new(Topic {
                first_seq: 1,
                born: *births,
                due_ms: NEVER,
                ..Topic::default()
            })
        })
    }

    fn place_message(&mut self, publish: &Publish<'_>, segment: u64) {
        let Some(topic) = self.topics.get_mut(&publish.topic) else {
            return self.place_in_grave(publish.topic, segment);
        };
        lower(&mut topic.oldest, segment);
        if topic.first_seq <= publish.seq {
            let bytes = publish.stored_bytes() as u64;
            let span = Span {
                first: publish.seq,
                last: publish.seq,
                segment,
                bytes,
            };
            topic.spans.insert(span, &mut self.live);
        }
    }

    fn place_in_grave(&mut self, id: HomedId, segment: u64) {
        if let Some(grave) = self.graves.get_mut(&id) {
            grave.place(segment);
        }
    }

    fn apply_subscription(&mut self, entry: &SubscriptionEntry<'_>) {
        if self.graves.contains_key(&entry.id) || self.graves.contains_key(&entry.topic) {
            return;
        }
        let of_topic = &mut self.topic_mut(entry.topic).subscriptions;
        if let Err(at) = of_topic.binary_search(&entry.id) {
            of_topic.insert(at, entry.id);
        }
        let old = self.subscriptions.get(&entry.id);
        let (segment, cursor_segment, oldest) = old
            .map(|old| (old.segment, old.cursor_segment, old.oldest))
            .unwrap_or_default();
        let born = old.map(|old| old.born);
        let born = born.unwrap_or_else(|| {
            self.births += 1;
            self.births
        });
        let mut subscription = Box::new(Subscription {
            topic: entry.topic,
            name: entry.name.into(),
            maker: entry.maker.into(),
            cursor: entry.cursor,
            created_at_ms: entry.created_at_ms,
            segment: 0,
            cursor_segment: 0,
            oldest,
            born,
        });
        subscription.place((segment, cursor_segment), &mut self.live);
        if let Some(mut old) = self.subscriptions.insert(entry.id, subscription) {
            old.place((0, 0), &mut self.live);
        }
    }

    fn delete_topic(&mut self, id: HomedId) {
        let Some(mut topic) = self.topics.remove(&id) else {
            return;
        };
        topic.place(0, &mut self.live);
        topic.spans.take_from(&mut self.live);
        self.due.remove(&(topic.due_ms, id));
        for id in std::mem::take(&mut topic.subscriptions) {
            if let Some(mut subscription) = self.subscriptions.remove(&id) {
                subscription.place((0, 0), &mut self.live);
            }
        }
        self.bury(id, true, topic.oldest);
    }

    fn delete_subscription(&mut self, id: HomedId) {
        let Some(mut subscription) = self.subscriptions.remove(&id) else {
            return;
        };
        subscription.place((0, 0), &mut self.live);
        if let Some(topic) = self.topics.get_mut(&subscription.topic)
            && let Ok(at) = topic.subscriptions.binary_search(&id)
        {
            topic.subscriptions.remove(at);
        }
        self.bury(id, false, subscription.oldest);
    }

    /// A checkpoint may know of the deletion already.
    fn bury(&mut self, id: HomedId, is_topic: bool, from: u64) {
        let grave = Grave {
            is_topic,
            from,
            ..Grave::default()
        };
        if let Some(old) = self.graves.insert(id, grave) {
            self.live.take(old.segment, GRAVE_BYTES);
        }
    }
}

impl Topic {
    /// The topic as it is written now.
    pub(super) fn entry(&self, id: HomedId) -> Option<TopicEntry<'_>> {
        let name = self.name.as_ref()?;
        Some(TopicEntry {
            id,
            tenant: name.tenant.as_str(),
            name: &name.name,
            created_at_ms: name.created_at_ms,
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            retention: self.retention,
        })
    }

    /// Bytes of the messages that are kept, as far as their places are known.
    pub(super) fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.bytes).sum()
    }

    /// When retention has to look again after a message of that time; what was due before stays.
    fn due_after(&self, time_ms: u64) -> u64 {
        if self
            .marks
            .is_beyond(&self.retention, self.first_seq, self.last_seq)
        {
            return AT_ONCE;
        }
        let age = self.retention.age_ms_max;
        age.map_or(NEVER, |max| time_ms.saturating_add(max).saturating_add(1))
    }

    fn publish(&mut self, publish: &Publish<'_>) {
        if self.last_seq < publish.seq {
            self.last_seq = publish.seq;
            self.marks.note(&self.retention, publish);
        }
        if let Some(key) = publish.key {
            self.remember(StoredKey {
                key: key_fingerprint(key),
                payload: payload_fingerprint(publish.payload),
                seq: publish.seq,
                time_ms: publish.time_ms,
            });
        }
    }

    /// Keys stand in the order of their seqs, whatever order they come in.
    pub(super) fn remember(&mut self, key: StoredKey) {
        let at = self.keys.partition_point(|old| old.seq < key.seq);
        if self.keys.get(at).is_some_and(|old| old.seq == key.seq) {
            return;
        }
        self.keys.insert(at, key);
        let newest_ms = self.keys.back().map_or(0, |newest| newest.time_ms);
        while let Some(oldest) = self.keys.front()
            && (KEYS_MAX < self.keys.len() || oldest.time_ms + KEY_AGE_MS_MAX < newest_ms)
        {
            self.keys.pop_front();
        }
    }

    /// Its newest own entry stands in the segment; 0 is nowhere.
    pub(super) fn place(&mut self, segment: u64, live: &mut Live) {
        let texts = self.name.as_ref();
        let texts = texts.map_or(0, |name| name.tenant.as_str().len() + name.name.len());
        let bytes = (TOPIC_HEAD_BYTES + texts) as u64;
        live.move_to((self.segment, segment), bytes);
        self.segment = segment;
    }

    fn rewrite(&mut self, entry: &TopicEntry<'_>, live: &mut Live) {
        let tenant = match self.name.take() {
            Some(old) if old.tenant.as_str() == entry.tenant => old.tenant,
            _ => Tenant::parse(entry.tenant).unwrap_or_default(),
        };
        let (name, created_at_ms) = (entry.name.into(), entry.created_at_ms);
        self.name = Some(TopicName {
            tenant,
            name,
            created_at_ms,
        });
        self.retention = entry.retention;
        self.last_seq = self.last_seq.max(entry.last_seq);
        self.first_seq = self.first_seq.max(entry.first_seq);
        self.spans.trim(self.first_seq, live);
        self.marks.trim(self.first_seq);
    }
}
