//! Goes through the bytes of segments, oldest first, and gathers what they add up to and what is
//! wrong with them. Reads no file itself; recovery and `verify` do.

use std::collections::BTreeMap;

use super::batch::{BATCH_HEAD_BYTES, BatchHead, Chain, Place, Run, table_runs};
use super::index::{OpenIndex, Span};
use super::layout::{Frame, KIND_BATCH, KIND_TABLE, to_usize};
use super::rebuild::index_frame;
use super::record::Entry;
use super::scan::{Batch, Damage, End, Known, Scan, Step, frames};
use super::segment::{SEGMENT_HEAD_BYTES, SegmentHead};
use super::state::State;

/// A stretch of a segment that is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedStretch {
    /// The segment.
    pub segment: u64,
    /// Its first byte.
    pub from: usize,
    /// Behind its last byte.
    pub to: usize,
    /// Records in it that could be saved.
    pub saved_records: u64,
    /// Whether it is known of every message in it which topic and seq it had.
    pub is_accounted: bool,
}

/// What a replay met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Intact batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Stretches that are damaged. They are never delivered and never removed.
    pub damage: Vec<DamagedStretch>,
    /// The segment and offset at which a batch that nobody was told of was cut.
    pub torn: Option<(u64, usize)>,
}

#[derive(Debug)]
pub(super) struct Replay {
    salt: u64,
    pub(super) state: State,
    pub(super) report: ReplayReport,
    /// The newest segment and where it ends.
    pub(super) previous: (u64, usize),
    pub(super) chain: Chain,
    pub(super) bytes: u64,
    /// Records were lost of which nobody knows whose they were, and no newer entry tells of a new
    /// epoch.
    pub(super) is_epoch_due: bool,
    /// Where the newest batch stands, and whether it is the first of its segment.
    pub(super) last_batch: Option<LastBatch>,
}

/// The newest batch: the only one of which it is not sure that it is durable.
#[derive(Debug, Clone)]
pub(super) struct LastBatch {
    pub(super) segment: u64,
    pub(super) offset: usize,
    pub(super) bytes: Vec<u8>,
}

/// From where in a segment the entries count; what stands before is only indexed.
#[derive(Debug, Clone, Copy)]
pub(super) struct From {
    pub(super) offset: usize,
    pub(super) chain: Option<Chain>,
}

impl Replay {
    pub(super) fn new(salt: u64, state: State, previous: (u64, usize), chain: Chain) -> Self {
        Self {
            salt,
            state,
            report: ReplayReport::default(),
            previous,
            chain,
            bytes: 0,
            is_epoch_due: false,
            last_batch: None,
        }
    }

    /// The segment before the one of this head is not there. If batches stood in it that were not met,
    /// nobody knows whose they were.
    pub(super) fn note_missing(&mut self, head: &SegmentHead, missing: &mut Vec<u64>) {
        if head.chain.number <= self.chain.number {
            return;
        }
        self.is_epoch_due = true;
        if !missing.contains(&head.previous) {
            missing.push(head.previous);
        }
    }

    /// Takes one whole segment in; returns where it ends, and its index.
    pub(super) fn segment(
        &mut self,
        id: u64,
        bytes: &[u8],
        from: From,
        end: Option<Known>,
    ) -> (usize, OpenIndex) {
        let place = Place::new(self.salt, id);
        let mut index = OpenIndex::default();
        let before = from.offset.min(bytes.len());
        if before < from.offset {
            self.cut_off(id, (before, from.offset), end);
        }
        for (at, frame) in frames(bytes, place, SEGMENT_HEAD_BYTES.min(before), before) {
            index_frame(&mut index, at, frame);
        }
        let mut scan = Scan::new(bytes, place, from.offset, from.chain, end);
        let mut last = None;
        let end = loop {
            match scan.step() {
                Step::Batch(batch) => {
                    self.batch(place, batch, &mut index);
                    last = Some(batch);
                }
                Step::Damage(damage) => self.damage(place, bytes, damage, &mut index),
                Step::End(end) => break end,
            }
        };
        if let Some(batch) = last {
            // The head of the segment went out with its first batch.
            let offset = if batch.offset == SEGMENT_HEAD_BYTES {
                0
            } else {
                batch.offset
            };
            let bytes = bytes[offset..batch.offset + batch.bytes.len()].to_vec();
            self.last_batch = Some(LastBatch {
                segment: id,
                offset,
                bytes,
            });
        }
        self.finish_segment(id, from, end, scan.chain());
        (end.offset, index)
    }

    /// The file ends before the place from which the replay counts. The checkpoint has everything that
    /// was told up to there, and a later segment says whether there was more.
    fn cut_off(&mut self, segment: u64, (from, counts): (usize, usize), end: Option<Known>) {
        let end = end.map_or(counts, |known| known.offset);
        let is_accounted = end <= counts;
        self.is_epoch_due |= !is_accounted;
        self.report.damage.push(DamagedStretch {
            segment,
            from,
            to: end.max(counts),
            saved_records: 0,
            is_accounted,
        });
    }

    fn finish_segment(&mut self, id: u64, from: From, end: End, chain: Option<Chain>) {
        self.bytes += end.offset.saturating_sub(from.offset) as u64;
        self.previous = (id, end.offset);
        self.report.torn = end.torn.then_some((id, end.offset));
        if let Some(chain) = chain {
            self.chain = chain;
        }
    }

    fn batch(&mut self, place: Place, batch: Batch<'_>, index: &mut OpenIndex) {
        let mut at = BATCH_HEAD_BYTES;
        while let Some(frame) = Frame::at(batch.bytes, at) {
            self.entry(place, batch.offset + at, frame, index);
            at += frame.stride();
        }
        self.report.batches += 1;
        self.report.records += u64::from(batch.head.records);
    }

    /// Tells whether the frame was an entry.
    fn entry(&mut self, place: Place, at: usize, frame: Frame<'_>, index: &mut OpenIndex) -> bool {
        let Some(entry) = Entry::decode(frame) else {
            return false;
        };
        self.is_epoch_due &= !matches!(entry, Entry::Epoch { .. });
        self.state.apply(&entry);
        self.state.place(&entry, place.segment);
        index_frame(index, at, frame);
        true
    }

    /// Saves what can be saved. The tables of the batches tell which messages there were, and where
    /// a table is damaged itself, the heads tell whether all records were saved.
    fn damage(&mut self, place: Place, bytes: &[u8], damage: Damage, index: &mut OpenIndex) {
        let (mut saved_records, mut tables) = (0, 0);
        let (mut records, mut heads) = (0, 0);
        for (at, frame) in frames(bytes, place, damage.from, damage.to) {
            match frame.kind {
                KIND_BATCH => {
                    heads += 1;
                    let head = BatchHead::at(bytes, at, place);
                    records += head.map_or(0, |head| u64::from(head.records));
                }
                KIND_TABLE => {
                    tables += 1;
                    table_runs(frame).for_each(|run| self.run(place.segment, run));
                }
                _ if self.entry(place, at, frame, index) => saved_records += 1,
                _ => {}
            }
        }
        let is_accounted = damage.batches == Some(tables)
            || damage.batches == Some(heads) && records == saved_records;
        self.is_epoch_due |= !is_accounted;
        self.report.damage.push(DamagedStretch {
            segment: place.segment,
            from: damage.from,
            to: damage.to,
            saved_records,
            is_accounted,
        });
    }

    /// Messages that were stored there, readable or not: their seqs are used.
    fn run(&mut self, segment: u64, run: Run) {
        if self.state.graves.contains_key(&run.topic) {
            return;
        }
        self.state.topic_mut(run.topic);
        let Some(topic) = self.state.topics.get_mut(&run.topic) else {
            return;
        };
        topic.last_seq = topic.last_seq.max(run.last());
        let first = run.first.max(topic.first_seq);
        if first <= run.last() {
            let bytes = u64::from(run.bytes);
            let span = Span {
                first,
                last: run.last(),
                segment,
                bytes,
            };
            topic.spans.insert(span, &mut self.state.live);
        }
    }
}

/// Where segments end, as far as the head of a newer one that is part of the log tells.
pub(super) fn ends(heads: &BTreeMap<u64, SegmentHead>, newest: u64) -> BTreeMap<u64, Known> {
    let known = |head: &SegmentHead| {
        let offset = to_usize(u64::from(head.previous_end));
        (
            head.previous,
            Known {
                offset,
                number: head.chain.number,
            },
        )
    };
    heads
        .range(..=newest)
        .map(|(_, head)| known(head))
        .collect()
}

/// Whether the segment has begun to be used: an intact batch stands in it, or the head of a later
/// one, which proves the earlier ones. One whose first batch was torn has not.
pub(super) fn is_begun(bytes: &[u8], place: Place, head: Option<&SegmentHead>) -> bool {
    let chain = head.map(|head| head.chain);
    let mut scan = Scan::new(bytes, place, SEGMENT_HEAD_BYTES, chain, None);
    !matches!(scan.step(), Step::End(_))
}
