//! What one sync covers: records gathered, grouped by topic, numbered and chained by checksum.
//! Knows records and bytes; which file a batch goes to is an argument.

use std::collections::BTreeMap;

use ahash::AHashMap;
use bytes::Bytes;

use crate::id::{HomedId, Seq};

use super::layout::{
    Fields, Frame, KIND_BATCH, KIND_PUBLISH, KIND_TABLE, PREFIX_BYTES, Seed, array_at,
    finish_frame, padded, start_frame, to_u32, to_usize, u32_at, u64_at,
};
use super::record::{CURSOR_BYTES, Entry, encode_cursors};

pub(super) const BATCH_HEAD_BYTES: usize = 64;
/// What a run of messages takes in the table of its batch.
pub const RUN_BYTES: usize = 40;
const _: () = assert!(BATCH_HEAD_BYTES == PREFIX_BYTES + 3 * 8 + 4 * 4 + 8);
const _: () = assert!(RUN_BYTES == 16 + 8 + 4 * 4);

/// Which segment bytes belong to: the checksums depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) salt: u64,
    pub(super) segment: u64,
    pub(super) seed: Seed,
}

impl Place {
    pub(super) fn new(salt: u64, segment: u64) -> Self {
        Self {
            salt,
            segment,
            seed: Seed::new(salt, segment),
        }
    }
}

/// The end of the chain: what the next batch must say of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) number: u64,
    pub(super) crc: u32,
}

impl Chain {
    pub(super) const START: Self = Self { number: 1, crc: 0 };
}

#[derive(Debug, Clone, Copy)]
pub(super) struct BatchHead {
    pub(super) body_bytes: u32,
    pub(super) number: u64,
    pub(super) records: u32,
    /// From the start of the batch to its table.
    pub(super) table: u32,
    pub(super) crc_prev: u32,
    pub(super) crc_body: u32,
}

impl BatchHead {
    fn encode(&self, place: Place, out: &mut [u8]) {
        let mut head = Vec::with_capacity(BATCH_HEAD_BYTES);
        start_frame(&mut head, KIND_BATCH, 0, self.body_bytes);
        head.extend_from_slice(&place.segment.to_le_bytes());
        head.extend_from_slice(&self.number.to_le_bytes());
        head.extend_from_slice(&place.salt.to_le_bytes());
        for field in [self.records, self.table, self.crc_prev, self.crc_body] {
            head.extend_from_slice(&field.to_le_bytes());
        }
        head.extend_from_slice(&[0; 8]);
        finish_frame(&mut head, 0);
        place.seed.seal(&mut head);
        out.copy_from_slice(&head);
    }

    /// Whether bytes claim to be the head of a batch of this segment: an intact one does, and
    /// so does one of which the rest was torn off. The salt is a secret, so no payload does.
    pub(super) fn is_claimed(bytes: &[u8], at: usize, place: Place) -> bool {
        Frame::at(bytes, at).is_some_and(|frame| {
            frame.kind == KIND_BATCH
                && frame.bytes.len() == BATCH_HEAD_BYTES
                && u64_at(frame.bytes, 16) == place.segment
                && u64_at(frame.bytes, 32) == place.salt
        })
    }

    /// The intact head at `at`.
    pub(super) fn at(bytes: &[u8], at: usize, place: Place) -> Option<Self> {
        if !Self::is_claimed(bytes, at, place) {
            return None;
        }
        let frame = Frame::at(bytes, at).filter(|&frame| place.seed.holds(frame))?;
        let head = Self {
            body_bytes: u32_at(frame.bytes, 12),
            number: u64_at(frame.bytes, 24),
            records: u32_at(frame.bytes, 40),
            table: u32_at(frame.bytes, 44),
            crc_prev: u32_at(frame.bytes, 48),
            crc_body: u32_at(frame.bytes, 52),
        };
        Some(head)
    }

    /// From the start of the batch to behind it.
    pub(super) fn stride(&self) -> usize {
        BATCH_HEAD_BYTES + to_usize(u64::from(self.body_bytes))
    }

    /// What the next batch must say of this one.
    pub(super) fn chain(&self) -> Chain {
        Chain {
            number: self.number + 1,
            crc: self.crc_body,
        }
    }
}

/// Neighbouring messages of one topic in one batch. Each batch ends with a table of its runs, so
/// a message whose record is damaged is still known by topic and seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) topic: HomedId,
    pub(super) first: Seq,
    pub(super) count: u32,
    /// Offset in the segment.
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

impl Run {
    pub(super) fn last(&self) -> Seq {
        self.first + u64::from(self.count) - 1
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.topic.to_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        for field in [self.count, self.offset, self.bytes, 0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let (topic, first) = (fields.id()?, fields.u64()?);
        let [count, offset, bytes] = [fields.u32()?, fields.u32()?, fields.u32()?];
        (0 < count).then_some(Self {
            topic,
            first,
            count,
            offset,
            bytes,
        })
    }
}

/// The runs in the table that starts with `frame`.
pub(super) fn table_runs(frame: Frame<'_>) -> impl Iterator<Item = Run> + '_ {
    debug_assert_eq!(frame.kind, KIND_TABLE);
    frame.bytes[PREFIX_BYTES..]
        .chunks_exact(RUN_BYTES)
        .filter_map(Run::decode)
}

/// Records that wait for the batch before theirs to end.
#[derive(Debug, Default)]
pub(super) struct OpenBatch {
    /// Entries one behind another, without checksums: these depend on the segment.
    arena: Vec<u8>,
    items: Vec<Item>,
    groups: AHashMap<(HomedId, Origin), u32>,
    /// Ordered, so that the same records make the same bytes.
    cursors: BTreeMap<HomedId, Seq>,
    /// The last append that this batch holds.
    pub(super) ticket: u64,
    /// What cleaning copied into it.
    pub(super) copied_bytes: usize,
}

/// Copies made by cleaning stand apart: their seqs do not continue those of new messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    New,
    Copy,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    group: u32,
    start: usize,
    end: usize,
}

/// A batch as it is written.
#[derive(Debug)]
pub(super) struct ClosedBatch {
    /// Head, entries and table, behind the segment's head if the batch is the first in it.
    pub(super) bytes: Bytes,
    /// Where `bytes` go in the segment.
    pub(super) offset: usize,
    /// Where the batch itself starts in `bytes`.
    pub(super) start: usize,
    pub(super) runs: Vec<Run>,
    pub(super) chain: Chain,
    pub(super) ticket: u64,
}

impl OpenBatch {
    /// Whether nothing but cursors waits, which may wait a little longer.
    pub(super) fn is_only_cursors(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn push(&mut self, topic: HomedId, origin: Origin, entry: &Entry<'_>) {
        let start = self.arena.len();
        entry.encode(&mut self.arena);
        let end = self.arena.len();
        let next = to_u32(self.groups.len());
        let group = *self.groups.entry((topic, origin)).or_insert(next);
        self.items.push(Item { group, start, end });
        if origin == Origin::Copy {
            self.copied_bytes += end - start;
        }
    }

    /// Only the last move of each subscription is kept.
    pub(super) fn move_cursor(&mut self, subscription: HomedId, seq: Seq) {
        self.cursors.insert(subscription, seq);
    }

    /// An upper bound of what the closed batch takes.
    pub(super) fn bytes(&self) -> usize {
        batch_bytes(self.arena.len(), self.cursors.len(), self.items.len())
    }

    /// Writes the batch for its place; `head` is the segment's own, if the batch starts it.
    pub(super) fn close(
        mut self,
        place: Place,
        offset: usize,
        chain: Chain,
        head: Option<&[u8]>,
    ) -> ClosedBatch {
        let head = head.unwrap_or_default();
        let mut out = Vec::with_capacity(head.len() + self.bytes());
        out.extend_from_slice(head);
        let start = out.len();
        out.resize(start + BATCH_HEAD_BYTES, 0);
        self.items.sort_by_key(|item| item.group);
        let runs = self.write_items(place, offset, &mut out);
        let mut records = self.items.len();
        if !self.cursors.is_empty() {
            let at = out.len();
            encode_cursors(self.cursors.into_iter(), &mut out);
            seal_last(place, at, &mut out);
            records += 1;
        }
        let table = out.len();
        write_table(&runs, place, &mut out);
        let body = &out[start + BATCH_HEAD_BYTES..];
        let batch = BatchHead {
            body_bytes: to_u32(body.len()),
            number: chain.number,
            records: to_u32(records),
            table: to_u32(table - start),
            crc_prev: chain.crc,
            crc_body: crc32c::crc32c_append(chain.crc, body),
        };
        batch.encode(place, &mut out[start..start + BATCH_HEAD_BYTES]);
        let (chain, ticket) = (batch.chain(), self.ticket);
        ClosedBatch {
            bytes: out.into(),
            offset,
            start,
            runs,
            chain,
            ticket,
        }
    }

    fn write_items(&self, place: Place, offset: usize, out: &mut Vec<u8>) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut group_last = None;
        for item in &self.items {
            let at = out.len();
            out.extend_from_slice(&self.arena[item.start..item.end]);
            seal_last(place, at, out);
            if out[at] == KIND_PUBLISH {
                let topic = HomedId::from_bytes(array_at(out, at + 16));
                let seq = u64_at(out, at + 32);
                let (offset, end) = (to_u32(offset + at), to_u32(offset + out.len()));
                match runs.last_mut() {
                    Some(run) if group_last == Some(item.group) && run.last() + 1 == seq => {
                        run.count += 1;
                        run.bytes = end - run.offset;
                    }
                    _ => runs.push(Run {
                        topic,
                        first: seq,
                        count: 1,
                        offset,
                        bytes: end - offset,
                    }),
                }
                group_last = Some(item.group);
            }
        }
        runs
    }
}

/// What a batch takes at most: each record may be a run of its own.
pub(super) fn batch_bytes(entries: usize, cursors: usize, items: usize) -> usize {
    let cursors = if cursors == 0 {
        0
    } else {
        padded(PREFIX_BYTES + cursors * CURSOR_BYTES)
    };
    BATCH_HEAD_BYTES + entries + cursors + padded(PREFIX_BYTES + items * RUN_BYTES)
}

fn seal_last(place: Place, at: usize, out: &mut [u8]) {
    let len = to_usize(u64::from(u32_at(out, at + 4)));
    place.seed.seal(&mut out[at..at + len]);
}

fn write_table(runs: &[Run], place: Place, out: &mut Vec<u8>) {
    let start = start_frame(out, KIND_TABLE, 0, to_u32(runs.len()));
    for run in runs {
        run.encode(out);
    }
    finish_frame(out, start);
    seal_last(place, start, out);
}
