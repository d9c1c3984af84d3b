//! The bytes of a checkpoint: a head that says whose it is, the segments it names, and the state, item
//! by item, with a checksum at the end. Knows no file and no log.

use std::collections::BTreeMap;

use crate::id::HomedId;

use super::batch::Chain;
use super::checkpoint::Used;
use super::index::Span;
use super::layout::{Fields, to_u32, to_usize};
use super::marks::Mark;
use super::record::{
    Entry, decode_subscription, decode_topic, encode_subscription_body, encode_topic_body,
};
use super::recovery::Identity;
use super::segment::Position;
use super::state::{GRAVE_BYTES, Grave, State, StoredKey, Topic};

/// A checkpoint as it is read.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) position: Position,
    pub(super) next_id: u64,
    pub(super) segments: BTreeMap<u64, NamedSegment>,
    pub(super) state: State,
    /// What it takes, ..
    pub(super) size_bytes: u64,
    /// .. and its file, which may have been larger before.
    pub(super) file_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct NamedSegment {
    pub(super) bytes: u64,
    pub(super) end: usize,
    pub(super) is_indexed: bool,
}

pub(super) const MAGIC: &[u8; 8] = b"TGCHKP\x00\x01";
const TAG_TOPIC: u8 = 1;
const TAG_SUBSCRIPTION: u8 = 2;
const TAG_GRAVE: u8 = 3;
/// A topic of which only messages are known; only damage leaves one.
const TAG_NAMELESS: u8 = 4;
/// A segment that must stay as it is; only damage makes one.
pub(super) const TAG_PROTECTED: u8 = 5;
/// Nothing: fills a file that was larger before.
pub(super) const TAG_FILL: u8 = 6;
pub(super) const TAG_END: u8 = 0xff;

pub(super) fn put(out: &mut Vec<u8>, fields: &[u64]) {
    fields
        .iter()
        .for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
}

pub(super) fn encode_topic(id: HomedId, topic: &Topic, out: &mut Vec<u8>) {
    let Some(entry) = topic.entry(id) else {
        return encode_nameless(id, topic, out);
    };
    out.push(TAG_TOPIC);
    encode_topic_body(&entry, out);
    put(
        out,
        &[
            topic.segment,
            topic.oldest,
            topic.spans.iter().count() as u64,
        ],
    );
    for span in topic.spans.iter() {
        put(out, &[span.first, span.last, span.segment, span.bytes]);
    }
    put(out, &[topic.keys.len() as u64]);
    for key in &topic.keys {
        out.extend_from_slice(&key.key.to_le_bytes());
        put(out, &[key.payload, key.seq, key.time_ms]);
    }
    put(
        out,
        &[
            topic.marks.bytes,
            topic.marks.time_ms,
            topic.marks.marks.len() as u64,
        ],
    );
    for mark in &topic.marks.marks {
        put(out, &[mark.seq, mark.time_ms, mark.bytes]);
    }
}

fn encode_nameless(id: HomedId, topic: &Topic, out: &mut Vec<u8>) {
    out.push(TAG_NAMELESS);
    out.extend_from_slice(&id.to_bytes());
    put(out, &[topic.first_seq, topic.last_seq, topic.oldest]);
    put(out, &[topic.spans.iter().count() as u64]);
    for span in topic.spans.iter() {
        put(out, &[span.first, span.last, span.segment, span.bytes]);
    }
}

pub(super) fn encode_subscription(id: HomedId, state: &State, out: &mut Vec<u8>) -> usize {
    if let (Some(entry), Some(placed)) =
        (state.subscription_entry(id), state.subscriptions.get(&id))
    {
        out.push(TAG_SUBSCRIPTION);
        encode_subscription_body(&entry, out);
        put(out, &[placed.segment, placed.cursor_segment, placed.oldest]);
    }
    out.len()
}

pub(super) fn encode_grave(id: HomedId, grave: &Grave, out: &mut Vec<u8>) -> usize {
    out.push(TAG_GRAVE);
    out.extend_from_slice(&id.to_bytes());
    put(
        out,
        &[
            u64::from(grave.is_topic),
            grave.segment,
            grave.from,
            grave.until,
        ],
    );
    out.len()
}

/// A fill without what it fills.
pub(super) const FILL_BYTES: u64 = 9;
/// The last tag and the checksum.
pub(super) const END_BYTES: u64 = 5;

/// Whether a file ends with the checksum of all before it: no damage makes it look so.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let at = bytes.len().checked_sub(4);
    at.and_then(|at| bytes.split_at_checked(at))
        .is_some_and(|(body, crc)| crc == crc32c::crc32c(body).to_le_bytes())
}

/// The first fields of a checkpoint: what version it is of, and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CheckpointHead {
    pub(super) version: u8,
    pub(super) salt: u64,
    pub(super) partition: u16,
    pub(super) number: u64,
}

pub(super) const CHECKPOINT_HEAD_BYTES: usize = 32;
const _: () = assert!(CHECKPOINT_HEAD_BYTES == MAGIC.len() + 3 * 8);

impl CheckpointHead {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, name) = MAGIC.split_last()?;
        let rest = bytes.strip_prefix(name)?;
        let mut fields = Fields::new(rest);
        let found = fields.bytes(1)?[0];
        debug_assert_eq!(*version, super::layout::VERSION, "one version everywhere");
        Some(Self {
            version: found,
            salt: fields.u64()?,
            partition: u16::try_from(fields.u64()?).ok()?,
            number: fields.u64()?,
        })
    }
}

impl Checkpoint {
    pub(super) fn used(&self, number: u64) -> Used {
        Used {
            number,
            size_bytes: self.size_bytes,
            file_bytes: self.file_bytes,
        }
    }

    /// The checkpoint `number` in `bytes`; `None` if it is not whole.
    pub(super) fn decode(bytes: &[u8], identity: Identity, number: u64) -> Option<Self> {
        let head = CheckpointHead::decode(bytes)?;
        let wanted = CheckpointHead {
            version: super::layout::VERSION,
            salt: identity.salt,
            partition: identity.partition.0,
            number,
        };
        if head != wanted || !is_whole(bytes) {
            return None;
        }
        let mut fields = Fields::new(&bytes[CHECKPOINT_HEAD_BYTES..bytes.len() - 4]);
        let (segment, offset) = (fields.u64()?, to_usize(fields.u64()?));
        let (batch, crc) = (fields.u64()?, to_u32(to_usize(fields.u64()?)));
        let position = Position::new(segment, offset, Chain { number: batch, crc });
        let next_id = fields.u64()?;
        let mut state = State {
            generation: fields.u64()?,
            ..State::default()
        };
        let mut segments = BTreeMap::new();
        for _ in 0..fields.u64()? {
            let [id, bytes, end] = [fields.u64()?, fields.u64()?, fields.u64()?];
            let (end, is_indexed) = (to_usize(end), fields.u64()? == 1);
            segments.insert(
                id,
                NamedSegment {
                    bytes,
                    end,
                    is_indexed,
                },
            );
        }
        let mut filled = 0;
        while decode_item(&mut fields, &mut state, &mut filled)? {}
        Some(Self {
            position,
            next_id,
            segments,
            state,
            size_bytes: bytes.len() as u64 - filled,
            file_bytes: bytes.len() as u64,
        })
    }
}

/// Reads one item into `state`; `Some(false)` at the end.
fn decode_item(fields: &mut Fields<'_>, state: &mut State, filled: &mut u64) -> Option<bool> {
    match fields.bytes(1)?[0] {
        TAG_TOPIC => decode_topic_item(fields, state)?,
        TAG_SUBSCRIPTION => {
            let entry = decode_subscription(fields)?;
            state.apply(&Entry::Subscription(entry));
            let [segment, cursor_segment, oldest] = [fields.u64()?, fields.u64()?, fields.u64()?];
            let subscription = state.subscriptions.get_mut(&entry.id)?;
            subscription.place((segment, cursor_segment), &mut state.live);
            subscription.oldest = oldest;
        }
        TAG_GRAVE => {
            let id = fields.id()?;
            let is_topic = fields.u64()? == 1;
            let [segment, from, until] = [fields.u64()?, fields.u64()?, fields.u64()?];
            let grave = Grave {
                is_topic,
                segment,
                from,
                until,
            };
            state.live.add(segment, GRAVE_BYTES);
            state.graves.insert(id, grave);
        }
        TAG_NAMELESS => {
            let id = fields.id()?;
            let [first_seq, last_seq, oldest] = [fields.u64()?, fields.u64()?, fields.u64()?];
            let topic = state.topic_mut(id);
            (topic.first_seq, topic.last_seq, topic.oldest) = (first_seq, last_seq, oldest);
            decode_spans(fields, id, state)?;
        }
        TAG_PROTECTED => drop(state.protected.insert(fields.u64()?)),
        TAG_FILL => {
            let bytes = fields.u64()?;
            fields.bytes(to_usize(bytes))?;
            *filled += bytes + FILL_BYTES;
        }
        TAG_END => return fields.is_empty().then_some(false),
        _ => return None,
    }
    Some(true)
}

fn decode_spans(fields: &mut Fields<'_>, id: HomedId, state: &mut State) -> Option<()> {
    let topic = state.topics.get_mut(&id)?;
    for _ in 0..fields.u64()? {
        let [first, last, segment, bytes] =
            [fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?];
        let span = Span {
            first,
            last,
            segment,
            bytes,
        };
        (first <= last).then(|| topic.spans.insert(span, &mut state.live))?;
    }
    Some(())
}

fn decode_topic_item(fields: &mut Fields<'_>, state: &mut State) -> Option<()> {
    let entry = decode_topic(fields)?;
    state.apply(&Entry::Topic(entry));
    let topic = state.topics.get_mut(&entry.id)?;
    topic.place(fields.u64()?, &mut state.live);
    topic.oldest = fields.u64()?;
    decode_spans(fields, entry.id, state)?;
    let topic = state.topics.get_mut(&entry.id)?;
    for _ in 0..fields.u64()? {
        let key = u128::from_le_bytes(super::layout::array_at(fields.bytes(16)?, 0));
        let [payload, seq, time_ms] = [fields.u64()?, fields.u64()?, fields.u64()?];
        topic.remember(StoredKey {
            key,
            payload,
            seq,
            time_ms,
        });
    }
    (topic.marks.bytes, topic.marks.time_ms) = (fields.u64()?, fields.u64()?);
    for _ in 0..fields.u64()? {
        let [seq, time_ms, bytes] = [fields.u64()?, fields.u64()?, fields.u64()?];
        topic.marks.marks.push_back(Mark {
            seq,
            time_ms,
            bytes,
        });
    }
    Some(())
}
