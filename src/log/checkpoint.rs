//! The state of a log at a position, written beside it so that a start replays only what follows.
//! Knows state and bytes.
//!
//! It is encoded in slices while the log goes on, so it holds some of what was appended meanwhile.
//! That is harmless: a replay starts from the position noted at its start, and applying an entry
//! twice equals applying it once. Its last bytes are written only when all that it may hold is
//! durable, so a whole checkpoint never tells of what a crash un-wrote.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;

use bytes::Bytes;

use crate::id::HomedId;

use super::batch::Chain;
use super::commit_log::{Blocks, CommitLog};
use super::file_writer::{FileWriter, Written};
use super::index::Span;
use super::layout::{Fields, to_u32, to_usize};
use super::marks::Mark;
use super::record::{
    Entry, decode_subscription, decode_topic, encode_subscription_body, encode_topic_body,
};
use super::recovery::Identity;
use super::segment::Position;
use super::state::{GRAVE_BYTES, Grave, State, StoredKey, Topic};
use super::storage::{Done, FileName, Op};

/// Items that one slice encodes.
const SLICE_ITEMS: usize = 256;
const SLICE_BYTES: usize = 256 * 1024;

/// So many times its own size is written between one checkpoint and the next.
const SIZE_TIMES: u64 = 4;

/// How long until another attempt after there was no room.
const RETRY_US: u64 = 5_000_000;

#[derive(Debug)]
pub(super) struct CheckpointTask {
    number_next: u64,
    running: Option<Running>,
    /// The newest durable one.
    pub(super) durable: Option<u64>,
    written_bytes: u64,
    /// The size of the newest durable one, by which the next is put off.
    size_bytes: u64,
    since_us: Option<u64>,
    not_before_us: u64,
    is_wanted: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Running {
    number: u64,
    writer: FileWriter,
    stage: Stage,
    crc: u32,
    bytes: u64,
    /// Cleaned segments that it does not name.
    retired: usize,
    is_last: bool,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Topics(Option<HomedId>),
    Subscriptions(Option<HomedId>),
    Graves(Option<HomedId>),
    /// All is encoded; the append that must be durable first.
    End(u64),
    Written,
}

/// A checkpoint as it is read.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) position: Position,
    pub(super) next_id: u64,
    pub(super) segments: BTreeMap<u64, NamedSegment>,
    pub(super) state: State,
    /// What it takes.
    pub(super) size_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct NamedSegment {
    pub(super) bytes: u64,
    pub(super) end: usize,
    pub(super) is_indexed: bool,
}

impl CheckpointTask {
    pub(super) fn new(number_next: u64, durable: Option<(u64, u64)>, written_bytes: u64) -> Self {
        Self {
            size_bytes: durable.map_or(0, |(_, bytes)| bytes),
            number_next,
            running: None,
            durable: durable.map(|(number, _)| number),
            written_bytes,
            since_us: None,
            not_before_us: 0,
            is_wanted: false,
            is_closed: false,
        }
    }

    pub(super) fn note_written(&mut self, bytes: usize) {
        self.written_bytes += bytes as u64;
        self.is_closed = false;
    }

    /// What the newest durable one takes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether so much was written that another is worth its own size.
    fn is_worth_it(&self) -> bool {
        self.size_bytes <= self.written_bytes
    }

    /// Cleaned segments wait for one.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Whether the last checkpoint of a clean stop is durable.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }
}

impl CommitLog {
    pub(super) fn checkpoint_deadline_us(&self) -> Option<u64> {
        let task = &self.checkpoint;
        let waits = task.running.is_none() && (task.is_worth_it() || task.is_wanted);
        let since = task.since_us.filter(|_| waits)?;
        Some((since + self.config.checkpoint_interval_us).max(task.not_before_us))
    }

    pub(super) fn poll_checkpoint(&mut self, now_us: u64) -> Option<Op> {
        if self.checkpoint.running.is_none() {
            if 0 < self.checkpoint.written_bytes {
                self.checkpoint.since_us.get_or_insert(now_us);
            }
            self.is_checkpoint_due(now_us)
                .then(|| self.start_checkpoint())?;
        }
        let mut running = self.checkpoint.running.take()?;
        while running.writer.is_hungry() && self.encode_slice(&mut running) {}
        let op = running.writer.poll();
        self.checkpoint.running = Some(running);
        op
    }

    fn is_checkpoint_due(&self, now_us: u64) -> bool {
        let task = &self.checkpoint;
        // A stop has no time to wait for room: it tries once more, and ends without.
        if now_us < task.not_before_us && !self.is_closing {
            return false;
        }
        if self.is_closing {
            let is_quiet = self.queue.is_empty() && self.flight.is_none() && self.is_all_indexed();
            return is_quiet && !task.is_closed;
        }
        let is_old = |since| since + self.config.checkpoint_interval_us <= now_us;
        // A checkpoint holds the whole state: the larger it is, the more is written before the next,
        // so that it never costs more than a part of what it is for.
        let large_bytes = task.size_bytes.saturating_mul(SIZE_TIMES);
        let is_large = self.config.checkpoint_bytes.max(large_bytes) <= task.written_bytes;
        let is_due = task.is_worth_it() && task.since_us.is_some_and(is_old);
        is_large || is_due || task.is_wanted
    }

    fn start_checkpoint(&mut self) {
        let number = self.checkpoint.number_next;
        self.checkpoint.number_next += 1;
        self.checkpoint.written_bytes = 0;
        self.checkpoint.since_us = None;
        self.checkpoint.is_wanted = false;
        let (segment, end) = self.previous;
        let position = Position::new(segment, end, self.chain);
        let mut writer = FileWriter::new(FileName::Checkpoint(number));
        let head = self.encode_head(number, position);
        let crc = crc32c::crc32c(&head);
        writer.push(head.into());
        self.checkpoint.running = Some(Running {
            number,
            writer,
            stage: Stage::Topics(None),
            crc,
            bytes: 0,
            retired: self.cleaner.retired_count(),
            is_last: self.is_closing,
        });
    }

    fn encode_head(&self, number: u64, position: Position) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put(&mut out, &[self.salt, u64::from(self.partition.0), number]);
        put(&mut out, &[position.segment, u64::from(position.offset)]);
        put(
            &mut out,
            &[position.chain.number, u64::from(position.chain.crc)],
        );
        put(&mut out, &[self.prepare.next_id(), self.state.generation]);
        put(&mut out, &[self.segments.len() as u64]);
        for (id, info) in &self.segments {
            let is_indexed = matches!(info.blocks, Blocks::Stored);
            put(
                &mut out,
                &[*id, info.bytes, info.end as u64, u64::from(is_indexed)],
            );
        }
        out
    }

    /// Encodes some more of the state, or the end once that is allowed; `false` until then.
    fn encode_slice(&self, running: &mut Running) -> bool {
        let mut out = Vec::new();
        let state = &self.state;
        running.stage = match running.stage {
            Stage::Topics(after) => {
                let note = |(id, topic): (&HomedId, &Topic)| {
                    encode_topic(*id, topic, &mut out);
                    out.len()
                };
                let last = slice(&state.topics, after, note);
                last.map_or(Stage::Subscriptions(None), |last| Stage::Topics(Some(last)))
            }
            Stage::Subscriptions(after) => {
                let note = |(id, _): (&HomedId, &_)| encode_subscription(*id, state, &mut out);
                let last = slice(&state.subscriptions, after, note);
                last.map_or(Stage::Graves(None), |last| Stage::Subscriptions(Some(last)))
            }
            Stage::Graves(after) => {
                let note = |(id, grave): (&HomedId, &Grave)| encode_grave(*id, grave, &mut out);
                let last = slice(&state.graves, after, note);
                last.map_or(Stage::End(self.appended), |last| Stage::Graves(Some(last)))
            }
            Stage::End(ticket) if ticket <= self.durable => {
                for segment in &state.protected {
                    out.push(TAG_PROTECTED);
                    put(&mut out, &[*segment]);
                }
                out.push(TAG_END);
                let crc = crc32c::crc32c_append(running.crc, &out);
                out.extend_from_slice(&crc.to_le_bytes());
                running.bytes += out.len() as u64;
                running.writer.finish(out.into());
                running.stage = Stage::Written;
                return true;
            }
            Stage::End(_) | Stage::Written => return false,
        };
        running.crc = crc32c::crc32c_append(running.crc, &out);
        running.bytes += out.len() as u64;
        if !out.is_empty() {
            running.writer.push(Bytes::from(out));
        }
        true
    }

    pub(super) fn checkpoint_done(&mut self, result: io::Result<Done>) -> io::Result<()> {
        let Some(running) = &mut self.checkpoint.running else {
            return result.map(drop);
        };
        let written = running.writer.done(result)?;
        if written == Written::Pending {
            return Ok(());
        }
        let Some(running) = self.checkpoint.running.take() else {
            return Ok(());
        };
        if written == Written::NoRoom {
            let now_us = self.last_now_us();
            // What gives space back goes before what takes it, while cursors still have room.
            let left = self.active.map_or(0, |active| active.bytes - active.end) as u64;
            let can = self.queue.is_empty() && self.config.reserve_bytes <= left;
            let given = can && self.prepare.give_way();
            let pause_us = if given { 0 } else { RETRY_US };
            if !given {
                self.prepare.resume();
            }
            self.checkpoint.not_before_us = now_us + pause_us;
            self.checkpoint.since_us = Some(now_us);
            self.checkpoint.is_wanted = true;
            self.checkpoint.is_closed = running.is_last;
            return Ok(());
        }
        self.prepare.resume();
        let old = self.checkpoint.durable.replace(running.number);
        self.checkpoint.is_closed = running.is_last && self.checkpoint.written_bytes == 0;
        self.checkpoint.size_bytes = running.bytes;
        self.checkpoint_durable(old, running.retired);
        Ok(())
    }
}

/// Calls `note` for the next items; tells the last of them, or `None` when there are no more.
fn slice<'a, T>(
    items: &'a BTreeMap<HomedId, T>,
    after: Option<HomedId>,
    mut note: impl FnMut((&'a HomedId, &'a T)) -> usize,
) -> Option<HomedId> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut last = None;
    for (id, item) in items.range((from, Bound::Unbounded)).take(SLICE_ITEMS) {
        last = Some(*id);
        if SLICE_BYTES <= note((id, item)) {
            break;
        }
    }
    last
}

const MAGIC: &[u8; 8] = b"TGCHKP\x00\x01";
const TAG_TOPIC: u8 = 1;
const TAG_SUBSCRIPTION: u8 = 2;
const TAG_GRAVE: u8 = 3;
/// A topic of which only messages are known; only damage leaves one.
const TAG_NAMELESS: u8 = 4;
/// A segment that must stay as it is; only damage makes one.
const TAG_PROTECTED: u8 = 5;
const TAG_END: u8 = 0xff;

fn put(out: &mut Vec<u8>, fields: &[u64]) {
    fields
        .iter()
        .for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
}

fn encode_topic(id: HomedId, topic: &Topic, out: &mut Vec<u8>) {
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

fn encode_subscription(id: HomedId, state: &State, out: &mut Vec<u8>) -> usize {
    if let (Some(entry), Some(placed)) =
        (state.subscription_entry(id), state.subscriptions.get(&id))
    {
        out.push(TAG_SUBSCRIPTION);
        encode_subscription_body(&entry, out);
        put(out, &[placed.segment, placed.cursor_segment, placed.oldest]);
    }
    out.len()
}

fn encode_grave(id: HomedId, grave: &Grave, out: &mut Vec<u8>) -> usize {
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
        while decode_item(&mut fields, &mut state)? {}
        Some(Self {
            position,
            next_id,
            segments,
            state,
            size_bytes: bytes.len() as u64,
        })
    }
}

/// Reads one item into `state`; `Some(false)` at the end.
fn decode_item(fields: &mut Fields<'_>, state: &mut State) -> Option<bool> {
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
