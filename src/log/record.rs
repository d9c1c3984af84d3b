//! One entry of the log, from and to bytes. Knows neither batches nor files.

use crate::id::{HomedId, Seq, Tenant};

use super::layout::{
    Fields, Frame, KIND_CURSORS, KIND_EPOCH, KIND_PUBLISH, KIND_SUBSCRIPTION,
    KIND_SUBSCRIPTION_DELETED, KIND_TOPIC, KIND_TOPIC_DELETED, PREFIX_BYTES, finish_frame, padded,
    start_frame, to_u32, to_usize, u16_at, u32_at,
};

/// Longest name, publisher, key or event in a record: their lengths have 16 bits.
pub const TEXT_BYTES_MAX: usize = 1 << 12;

/// What may be appended. The seq of a publish is given by the topic's home before the call; a
/// refused append uses up no seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A topic begins to exist, with no message in it.
    TopicCreated {
        /// The id that names it from now on.
        id: HomedId,
        /// The tenant it belongs to.
        tenant: &'a Tenant,
        /// Its name in that tenant.
        name: &'a str,
        /// Unix time in milliseconds.
        created_at_ms: u64,
        /// What may be forgotten of it.
        retention: Retention,
    },
    /// What may be forgotten of a topic is another from now on.
    RetentionChanged {
        /// The topic.
        topic: HomedId,
        /// The new bounds.
        retention: Retention,
    },
    /// Messages before `first_seq` are forgotten.
    Trimmed {
        /// The topic.
        topic: HomedId,
        /// The first seq that is kept; at most one past the last.
        first_seq: Seq,
    },
    /// A topic ends, and its subscriptions with it.
    TopicDeleted {
        /// The topic.
        id: HomedId,
    },
    /// A message.
    Publish(Publish<'a>),
    /// A subscription begins to exist.
    SubscriptionCreated {
        /// The id that names it from now on.
        id: HomedId,
        /// Its topic.
        topic: HomedId,
        /// Its `sub_name`.
        name: &'a str,
        /// The claim `sub` of whoever made it; empty if it is not known.
        maker: &'a str,
        /// The seq acked through so far.
        cursor: Seq,
        /// Unix time in milliseconds.
        created_at_ms: u64,
    },
    /// A subscription ends, and its cursor is forgotten.
    SubscriptionDeleted {
        /// The subscription.
        id: HomedId,
    },
    /// A cursor now stands at `seq`; a seek may move it back. Only the last move of a
    /// subscription goes into a batch.
    CursorMoved {
        /// The subscription.
        subscription: HomedId,
        /// The seq acked through.
        seq: Seq,
    },
}

/// A message as it is stored: everything in it comes back byte by byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The topic.
    pub topic: HomedId,
    /// Its position there.
    pub seq: Seq,
    /// Unix time in milliseconds at which the home took it.
    pub time_ms: u64,
    /// Bits that the log keeps and does not read.
    pub flags: u16,
    /// The claim `sub` of the publisher.
    pub publisher: &'a str,
    /// The idempotency key, if there was one.
    pub key: Option<&'a str>,
    /// The event name; empty if there was none.
    pub event: &'a str,
    /// Headers as the publisher wrote them; empty if there were none.
    pub headers: &'a [u8],
    /// The payload as the publisher wrote it.
    pub payload: &'a [u8],
}

/// Bounds of what a topic keeps; `None` everywhere keeps all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Messages older than this may go.
    pub age_ms_max: Option<u64>,
    /// The oldest messages beyond this many bytes may go.
    pub bytes_max: Option<u64>,
    /// The oldest messages beyond this count may go.
    pub messages_max: Option<u64>,
}

impl Retention {
    /// Whether there is any bound at all.
    pub fn is_bounded(&self) -> bool {
        *self != Self::default()
    }
}

/// An entry as it stands on disk. Topics and subscriptions are written whole each time they
/// change, so that the newest entry alone tells all and older ones may be cleaned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    Publish(Publish<'a>),
    Topic(TopicEntry<'a>),
    TopicDeleted { id: HomedId },
    Subscription(SubscriptionEntry<'a>),
    SubscriptionDeleted { id: HomedId },
    Cursors(Cursors<'a>),
    Epoch { generation: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopicEntry<'a> {
    pub(super) id: HomedId,
    pub(super) tenant: &'a str,
    pub(super) name: &'a str,
    pub(super) created_at_ms: u64,
    pub(super) first_seq: Seq,
    pub(super) last_seq: Seq,
    pub(super) retention: Retention,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SubscriptionEntry<'a> {
    pub(super) id: HomedId,
    pub(super) topic: HomedId,
    pub(super) name: &'a str,
    /// Empty in entries of before there were rights.
    pub(super) maker: &'a str,
    pub(super) cursor: Seq,
    pub(super) created_at_ms: u64,
}

/// Pairs of a subscription's id and its cursor, still encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursors<'a>(&'a [u8]);

/// What a move of one cursor takes in its record.
pub const CURSOR_BYTES: usize = 24;
const PUBLISH_HEAD_BYTES: usize = 64;
pub(super) const TOPIC_HEAD_BYTES: usize = 88;
pub(super) const SUBSCRIPTION_HEAD_BYTES: usize = 72;
const _: () = assert!(PUBLISH_HEAD_BYTES == PREFIX_BYTES + 16 + 8 + 8 + 4 * 2 + 2 * 4);
const _: () = assert!(TOPIC_HEAD_BYTES == PREFIX_BYTES + 16 + 6 * 8 + 2 * 2 + 4);
const _: () = assert!(SUBSCRIPTION_HEAD_BYTES == PREFIX_BYTES + 2 * 16 + 2 * 8 + 2 * 2 + 4);

impl<'a> Cursors<'a> {
    pub(super) fn iter(self) -> impl Iterator<Item = (HomedId, Seq)> + 'a {
        self.0.chunks_exact(CURSOR_BYTES).filter_map(|pair| {
            let mut fields = Fields::new(pair);
            Some((fields.id()?, fields.u64()?))
        })
    }
}

impl Publish<'_> {
    /// What the message takes in a segment.
    pub fn stored_bytes(&self) -> usize {
        let key = self.key.map_or(0, str::len);
        let texts = self.publisher.len() + key + self.event.len();
        padded(PUBLISH_HEAD_BYTES + texts + self.headers.len() + self.payload.len())
    }
}

impl<'a> Entry<'a> {
    /// Appends the entry to `out`, all but its checksum.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Publish(publish) => encode_publish(publish, out),
            Self::Topic(topic) => encode_topic(topic, out),
            Self::TopicDeleted { id } => encode_id(KIND_TOPIC_DELETED, *id, out),
            Self::Subscription(subscription) => encode_subscription(subscription, out),
            Self::SubscriptionDeleted { id } => encode_id(KIND_SUBSCRIPTION_DELETED, *id, out),
            Self::Cursors(cursors) => encode_cursors(cursors.iter(), out),
            Self::Epoch { generation } => {
                let start = start_frame(out, KIND_EPOCH, 0, 0);
                out.extend_from_slice(&generation.to_le_bytes());
                finish_frame(out, start);
            }
        }
    }

    /// The entry in a frame whose checksum holds; `None` if it makes no sense.
    pub(super) fn decode(frame: Frame<'a>) -> Option<Self> {
        let mut fields = Fields::new(&frame.bytes[PREFIX_BYTES..]);
        match frame.kind {
            KIND_PUBLISH => decode_publish(frame).map(Self::Publish),
            KIND_TOPIC => decode_topic(&mut fields).map(Self::Topic),
            KIND_TOPIC_DELETED => Some(Self::TopicDeleted { id: fields.id()? }),
            KIND_SUBSCRIPTION => decode_subscription(&mut fields).map(Self::Subscription),
            KIND_SUBSCRIPTION_DELETED => Some(Self::SubscriptionDeleted { id: fields.id()? }),
            KIND_CURSORS => {
                let count = to_usize(u64::from(u32_at(frame.bytes, 12)));
                fields
                    .bytes(count.checked_mul(CURSOR_BYTES)?)
                    .map(|pairs| Self::Cursors(Cursors(pairs)))
            }
            KIND_EPOCH => Some(Self::Epoch {
                generation: fields.u64()?,
            }),
            _ => None,
        }
    }
}

pub(super) fn encode_cursors(pairs: impl Iterator<Item = (HomedId, Seq)>, out: &mut Vec<u8>) {
    let start = start_frame(out, KIND_CURSORS, 0, 0);
    let mut count = 0_u32;
    for (id, seq) in pairs {
        out.extend_from_slice(&id.to_bytes());
        out.extend_from_slice(&seq.to_le_bytes());
        count += 1;
    }
    out[start + 12..start + 16].copy_from_slice(&count.to_le_bytes());
    finish_frame(out, start);
}

fn encode_id(kind: u8, id: HomedId, out: &mut Vec<u8>) {
    let start = start_frame(out, kind, 0, 0);
    out.extend_from_slice(&id.to_bytes());
    finish_frame(out, start);
}

fn encode_publish(publish: &Publish<'_>, out: &mut Vec<u8>) {
    let start = start_frame(
        out,
        KIND_PUBLISH,
        publish.flags,
        u32::from(publish.key.is_some()),
    );
    out.extend_from_slice(&publish.topic.to_bytes());
    out.extend_from_slice(&publish.seq.to_le_bytes());
    out.extend_from_slice(&publish.time_ms.to_le_bytes());
    let key = publish.key.unwrap_or("");
    out.extend_from_slice(&text_len(publish.publisher).to_le_bytes());
    out.extend_from_slice(&text_len(key).to_le_bytes());
    out.extend_from_slice(&text_len(publish.event).to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&to_u32(publish.headers.len()).to_le_bytes());
    out.extend_from_slice(&to_u32(publish.payload.len()).to_le_bytes());
    debug_assert_eq!(out.len(), start + PUBLISH_HEAD_BYTES);
    out.extend_from_slice(publish.publisher.as_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(publish.event.as_bytes());
    out.extend_from_slice(publish.headers);
    out.extend_from_slice(publish.payload);
    finish_frame(out, start);
}

fn decode_publish<'a>(frame: Frame<'a>) -> Option<Publish<'a>> {
    let mut fields = Fields::new(&frame.bytes[PREFIX_BYTES..]);
    let (topic, seq, time_ms) = (fields.id()?, fields.u64()?, fields.u64()?);
    let [publisher, key, event, _] =
        [fields.u16()?, fields.u16()?, fields.u16()?, fields.u16()?].map(usize::from);
    let [headers, payload] = [fields.u32()?, fields.u32()?].map(|len| to_usize(u64::from(len)));
    let has_key = u32_at(frame.bytes, 12) == 1;
    let publish = Publish {
        topic,
        seq,
        time_ms,
        flags: u16_at(frame.bytes, 2),
        publisher: fields.text(publisher)?,
        key: Some(fields.text(key)?).filter(|_| has_key),
        event: fields.text(event)?,
        headers: fields.bytes(headers)?,
        payload: fields.bytes(payload)?,
    };
    fields.is_empty().then_some(publish)
}

fn encode_topic(topic: &TopicEntry<'_>, out: &mut Vec<u8>) {
    let start = start_frame(out, KIND_TOPIC, 0, 0);
    encode_topic_body(topic, out);
    finish_frame(out, start);
}

/// The body alone: checkpoints store topics in the same form.
pub(super) fn encode_topic_body(topic: &TopicEntry<'_>, out: &mut Vec<u8>) {
    let bound = |bound: Option<u64>| bound.unwrap_or(u64::MAX).to_le_bytes();
    out.extend_from_slice(&topic.id.to_bytes());
    out.extend_from_slice(&topic.created_at_ms.to_le_bytes());
    out.extend_from_slice(&topic.first_seq.to_le_bytes());
    out.extend_from_slice(&topic.last_seq.to_le_bytes());
    out.extend_from_slice(&bound(topic.retention.age_ms_max));
    out.extend_from_slice(&bound(topic.retention.bytes_max));
    out.extend_from_slice(&bound(topic.retention.messages_max));
    out.extend_from_slice(&text_len(topic.tenant).to_le_bytes());
    out.extend_from_slice(&text_len(topic.name).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(topic.tenant.as_bytes());
    out.extend_from_slice(topic.name.as_bytes());
}

pub(super) fn decode_topic<'a>(fields: &mut Fields<'a>) -> Option<TopicEntry<'a>> {
    let id = fields.id()?;
    let [created_at_ms, first_seq, last_seq] = [fields.u64()?, fields.u64()?, fields.u64()?];
    let bounds = [fields.u64()?, fields.u64()?, fields.u64()?];
    let [age_ms_max, bytes_max, messages_max] =
        bounds.map(|bound| Some(bound).filter(|&bound| bound != u64::MAX));
    let [tenant, name] = [fields.u16()?, fields.u16()?].map(usize::from);
    fields.u32()?;
    Some(TopicEntry {
        id,
        tenant: fields.text(tenant)?,
        name: fields.text(name)?,
        created_at_ms,
        first_seq,
        last_seq,
        retention: Retention {
            age_ms_max,
            bytes_max,
            messages_max,
        },
    })
}

fn encode_subscription(subscription: &SubscriptionEntry<'_>, out: &mut Vec<u8>) {
    let start = start_frame(out, KIND_SUBSCRIPTION, 0, 0);
    encode_subscription_body(subscription, out);
    finish_frame(out, start);
}

/// The body alone: checkpoints store subscriptions in the same form.
pub(super) fn encode_subscription_body(entry: &SubscriptionEntry<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&entry.id.to_bytes());
    out.extend_from_slice(&entry.topic.to_bytes());
    out.extend_from_slice(&entry.cursor.to_le_bytes());
    out.extend_from_slice(&entry.created_at_ms.to_le_bytes());
    out.extend_from_slice(&text_len(entry.name).to_le_bytes());
    out.extend_from_slice(&text_len(entry.maker).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(entry.name.as_bytes());
    out.extend_from_slice(entry.maker.as_bytes());
}

pub(super) fn decode_subscription<'a>(fields: &mut Fields<'a>) -> Option<SubscriptionEntry<'a>> {
    let (id, topic) = (fields.id()?, fields.id()?);
    let (cursor, created_at_ms) = (fields.u64()?, fields.u64()?);
    let [name, maker] = [fields.u16()?, fields.u16()?].map(usize::from);
    fields.bytes(4)?;
    Some(SubscriptionEntry {
        id,
        topic,
        name: fields.text(name)?,
        maker: fields.text(maker)?,
        cursor,
        created_at_ms,
    })
}

/// Callers refuse longer texts before they come here.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the assertion holds the bound"
)]
fn text_len(text: &str) -> u16 {
    assert!(
        text.len() <= TEXT_BYTES_MAX,
        "a text of {} bytes reached the log",
        text.len()
    );
    text.len() as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Partition;
    use crate::log::layout::Seed;

    fn id(n: u64) -> HomedId {
        HomedId::new(n, Partition(1), n)
    }

    fn round_trip(entry: Entry<'_>) {
        let mut out = Vec::new();
        entry.encode(&mut out);
        let seed = Seed::new(1, 1);
        let len = Frame::at(&out, 0).unwrap().bytes.len();
        seed.seal(&mut out[..len]);
        let frame = Frame::at(&out, 0).unwrap();
        assert!(seed.holds(frame));
        assert_eq!(frame.stride(), out.len());
        assert_eq!(Entry::decode(frame), Some(entry));
    }

    /// D-41: everything of a message comes back as it went in.
    #[test]
    fn entries_come_back_unchanged() {
        for key in [None, Some(""), Some("k-1")] {
            let publish = Publish {
                topic: id(1),
                seq: 42,
                time_ms: 7,
                flags: 0x8001,
                publisher: "svc",
                key,
                event: "é",
                headers: b"{}",
                payload: b"42.50",
            };
            let mut out = Vec::new();
            Entry::Publish(publish).encode(&mut out);
            assert_eq!(out.len(), publish.stored_bytes());
            round_trip(Entry::Publish(publish));
        }
        let retention = Retention {
            age_ms_max: Some(1),
            bytes_max: None,
            messages_max: Some(0),
        };
        let (tenant, name) = ("demo", "orders");
        let (created_at_ms, first_seq, last_seq) = (1, 2, 3);
        let topic = TopicEntry {
            id: id(1),
            tenant,
            name,
            created_at_ms,
            first_seq,
            last_seq,
            retention,
        };
        round_trip(Entry::Topic(topic));
        round_trip(Entry::TopicDeleted { id: id(3) });
        let subscription = SubscriptionEntry {
            id: id(1),
            topic: id(2),
            name: "s",
            maker: "ada",
            cursor: 9,
            created_at_ms: 8,
        };
        round_trip(Entry::Subscription(subscription));
        round_trip(Entry::SubscriptionDeleted { id: id(3) });
        round_trip(Entry::Epoch { generation: 3 });
    }

    #[test]
    fn cursors_come_back_in_order() {
        let pairs = [(id(1), 5), (id(2), 6)];
        let mut out = Vec::new();
        encode_cursors(pairs.into_iter(), &mut out);
        let Some(Entry::Cursors(cursors)) = Entry::decode(Frame::at(&out, 0).unwrap()) else {
            panic!("no cursors");
        };
        assert_eq!(cursors.iter().collect::<Vec<_>>(), pairs);
    }
}
