//! Where the messages are: per topic the segments that hold it (spans), per segment the places in
//! it (blocks). Indexes only point; the records they point to are checked when they are read.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use smallvec::SmallVec;

use crate::id::{HomedId, Seq};

use super::layout::{Fields, Seed, to_u32, to_usize, u32_at};
use super::live::Live;

/// Seqs of one topic that one segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: Seq,
    pub(super) last: Seq,
    pub(super) segment: u64,
    pub(super) bytes: u64,
}

impl Span {
    fn count(&self) -> u64 {
        self.last - self.first + 1
    }

    /// The part of it in `first..=last`; bytes are shared out by count.
    fn part(&self, first: Seq, last: Seq) -> Option<Self> {
        let (first, last) = (first.max(self.first), last.min(self.last));
        (first <= last).then(|| {
            let count = last - first + 1;
            let bytes = u128::from(self.bytes) * u128::from(count) / u128::from(self.count());
            Self {
                first,
                last,
                segment: self.segment,
                bytes: u64::try_from(bytes).unwrap_or(0),
            }
        })
    }

    fn joins(&self, next: &Self) -> bool {
        self.segment == next.segment && self.last + 1 == next.first
    }
}

/// The spans of one topic, ascending and disjoint. A seq that is put in again moves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans(VecDeque<Span>);

impl Spans {
    /// Puts a span in, over what stood there.
    pub(super) fn insert(&mut self, span: Span, live: &mut Live) {
        match self.0.back_mut() {
            Some(last) if span.first <= last.last => {
                self.take_from(live);
                self.insert_over(span);
                return self.add_to(live);
            }
            Some(last) if last.joins(&span) => {
                last.last = span.last;
                last.bytes += span.bytes;
            }
            _ => self.0.push_back(span),
        }
        live.add(span.segment, span.bytes);
    }

    /// Tells whoever counts the bytes of segments that all of it is needed.
    pub(super) fn add_to(&self, live: &mut Live) {
        self.0
            .iter()
            .for_each(|span| live.add(span.segment, span.bytes));
    }

    /// Tells that none of it is needed.
    pub(super) fn take_from(&self, live: &mut Live) {
        self.0
            .iter()
            .for_each(|span| live.take(span.segment, span.bytes));
    }

    fn insert_over(&mut self, span: Span) {
        let mut spans = VecDeque::with_capacity(self.0.len() + 2);
        let mut push = |span: Span| match spans.back_mut() {
            Some(last) if Span::joins(last, &span) => {
                last.last = span.last;
                last.bytes += span.bytes;
            }
            _ => spans.push_back(span),
        };
        let before = |old: &Span| span.first.checked_sub(1).and_then(|end| old.part(0, end));
        self.0.iter().filter_map(before).for_each(&mut push);
        push(span);
        self.0
            .iter()
            .filter_map(|old| old.part(span.last + 1, Seq::MAX))
            .for_each(&mut push);
        self.0 = spans;
    }

    /// Forgets all before `first`.
    pub(super) fn trim(&mut self, first: Seq, live: &mut Live) {
        while let Some(span) = self.0.front_mut() {
            match span.part(first, Seq::MAX) {
                Some(rest) => {
                    live.take(span.segment, span.bytes - rest.bytes);
                    *span = rest;
                    return;
                }
                None => live.take(span.segment, span.bytes),
            }
            self.0.pop_front();
        }
    }

    /// The span that holds `seq`, or else the first behind it.
    pub(super) fn find(&self, seq: Seq) -> Option<&Span> {
        self.0.get(self.0.partition_point(|span| span.last < seq))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Span> {
        self.0.iter()
    }
}

/// A stretch of a segment in which consecutive messages of one topic stand, perhaps between
/// others: a reader starts at its offset and passes over what is not the topic's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) first: Seq,
    pub(super) count: u32,
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

impl Block {
    pub(super) fn last(&self) -> Seq {
        self.first + u64::from(self.count) - 1
    }

    pub(super) fn start(&self) -> usize {
        to_usize(u64::from(self.offset))
    }

    pub(super) fn end(&self) -> usize {
        self.start() + to_usize(u64::from(self.bytes))
    }
}

/// Longest block, but for a record that is longer: what a reader passes over at most.
const BLOCK_BYTES_MAX: usize = 4096;

/// The blocks of a segment until its index file is durable. Ordered, so that the file is written from
/// it a slice at a time and nothing has to be sorted or moved at once.
#[derive(Debug, Default)]
pub(super) struct OpenIndex {
    topics: BTreeMap<HomedId, SmallVec<[Block; 1]>>,
    blocks: usize,
}

impl OpenIndex {
    /// Notes messages `first..first + count` in `offset..end`. Noting the same again changes nothing.
    pub(super) fn insert(&mut self, topic: HomedId, added: Block) {
        let blocks = self.topics.entry(topic).or_default();
        let at = blocks.partition_point(|block| block.last() < added.first);
        if let Some(before) = at.checked_sub(1).and_then(|at| blocks.get_mut(at))
            && before.last() + 1 == added.first
            && before.offset <= added.offset
            && added.end() - before.start() <= BLOCK_BYTES_MAX
        {
            before.count += added.count;
            before.bytes = to_u32(added.end() - before.start());
        } else if blocks
            .get(at)
            .is_none_or(|block| added.last() < block.first)
        {
            blocks.insert(at, added);
            self.blocks += 1;
        }
    }

    pub(super) fn find(&self, topic: HomedId, seq: Seq) -> Option<Block> {
        find(self.blocks(topic), seq)
    }

    /// The blocks of a topic, by seq.
    pub(super) fn blocks(&self, topic: HomedId) -> &[Block] {
        self.topics.get(&topic).map_or(&[], SmallVec::as_slice)
    }

    /// The topic behind `after` that it holds messages of.
    pub(super) fn topic_behind(&self, after: Option<HomedId>) -> Option<HomedId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.topics.range((from, Bound::Unbounded));
        behind.next().map(|(id, _)| *id)
    }

    /// Forgets up to `count` topics; `false` when none is left.
    pub(super) fn forget_some(&mut self, count: usize) -> bool {
        (0..count).all(|_| self.topics.pop_first().is_some())
    }

    /// The index in the form that is stored and searched.
    pub(super) fn finish(&self) -> SegmentIndex {
        let mut index = SegmentIndex::default();
        index.blocks.reserve(self.blocks);
        for (id, blocks) in &self.topics {
            let start = index.blocks.len();
            index.blocks.extend_from_slice(blocks);
            index.topics.push((*id, start..index.blocks.len()));
        }
        index
    }

    /// The head of the file, all but its checksum.
    pub(super) fn encode_head(&self, end: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&(end as u64).to_le_bytes());
        out.extend_from_slice(&to_u32(self.topics.len()).to_le_bytes());
        out.extend_from_slice(&to_u32(self.blocks).to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out
    }

    /// Encodes `count` topics behind `after`; `at` counts the blocks before them. Tells the last of
    /// them, or `None` when there are no more.
    pub(super) fn encode_topics(
        &self,
        after: Option<HomedId>,
        at: &mut usize,
        count: usize,
        out: &mut Vec<u8>,
    ) -> Option<HomedId> {
        let mut last = None;
        for (id, blocks) in self.behind(after).take(count) {
            let start = *at;
            *at += blocks.len();
            out.extend_from_slice(&id.to_bytes());
            out.extend_from_slice(&to_u32(start).to_le_bytes());
            out.extend_from_slice(&to_u32(*at).to_le_bytes());
            last = Some(*id);
        }
        last
    }

    /// The same for the blocks of topics; one topic may have many.
    pub(super) fn encode_blocks(
        &self,
        after: Option<HomedId>,
        count: usize,
        out: &mut Vec<u8>,
    ) -> Option<HomedId> {
        let mut last = None;
        let bytes_max = count * BLOCK_BYTES;
        for (id, blocks) in self.behind(after).take(count) {
            for block in blocks {
                out.extend_from_slice(&block.first.to_le_bytes());
                for field in [block.count, block.offset, block.bytes, 0] {
                    out.extend_from_slice(&field.to_le_bytes());
                }
            }
            last = Some(*id);
            if bytes_max <= out.len() {
                break;
            }
        }
        last
    }

    fn behind(
        &self,
        after: Option<HomedId>,
    ) -> impl Iterator<Item = (&HomedId, &SmallVec<[Block; 1]>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.topics.range((from, Bound::Unbounded))
    }
}

/// The blocks of a full segment, as its index file holds them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentIndex {
    topics: Vec<(HomedId, std::ops::Range<usize>)>,
    blocks: Vec<Block>,
}

const MAGIC: &[u8; 8] = b"TGINDX\x00\x01";
const HEAD_BYTES: usize = 40;
const TOPIC_BYTES: usize = 24;
const BLOCK_BYTES: usize = 24;
const _: () = assert!(HEAD_BYTES == 8 + 4 + 4 + 8 + 4 + 4 + 8);
const _: () = assert!(TOPIC_BYTES == 16 + 2 * 4);
const _: () = assert!(BLOCK_BYTES == 8 + 4 * 4);

impl SegmentIndex {
    /// The first block that holds `seq` or one behind it.
    pub(super) fn find(&self, topic: HomedId, seq: Seq) -> Option<Block> {
        find(self.blocks(topic), seq)
    }

    /// The blocks of a topic, by seq.
    pub(super) fn blocks(&self, topic: HomedId) -> &[Block] {
        let at = self.topics.binary_search_by_key(&topic, |(id, _)| *id);
        at.map_or(&[], |at| &self.blocks[self.topics[at].1.clone()])
    }

    /// The topic behind `after` that the segment holds messages of.
    pub(super) fn topic_behind(&self, after: Option<HomedId>) -> Option<HomedId> {
        let at = after.map_or(0, |after| {
            self.topics.partition_point(|(id, _)| *id <= after)
        });
        self.topics.get(at).map(|(id, _)| *id)
    }

    /// The index and where its segment ends; `None` if the file is not whole.
    pub(super) fn decode(bytes: &[u8], seed: Seed) -> Option<(Self, usize)> {
        let intact = HEAD_BYTES <= bytes.len()
            && &bytes[..8] == MAGIC
            && seed.checksum(bytes) == u32_at(bytes, 8);
        if !intact {
            return None;
        }
        let mut fields = Fields::new(&bytes[16..]);
        let end = to_usize(fields.u64()?);
        let [topic_count, block_count] = [fields.u32()?, fields.u32()?];
        fields.u64()?;
        let mut index = Self::default();
        for _ in 0..topic_count {
            let id = fields.id()?;
            let [start, end] = [fields.u32()?, fields.u32()?].map(|n| to_usize(u64::from(n)));
            let fits = start <= end && end <= to_usize(u64::from(block_count));
            index.topics.push((id, fits.then_some(start..end)?));
        }
        for _ in 0..block_count {
            let first = fields.u64()?;
            let [count, offset, bytes, _] =
                [fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?];
            index.blocks.push(Block {
                first,
                count,
                offset,
                bytes,
            });
        }
        fields.is_empty().then_some((index, end))
    }
}

/// The first block that holds `seq` or one behind it.
fn find(blocks: &[Block], seq: Seq) -> Option<Block> {
    blocks
        .get(blocks.partition_point(|block| block.last() < seq))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Partition;
    use proptest::prelude::*;

    fn span(first: Seq, last: Seq, segment: u64) -> Span {
        Span {
            first,
            last,
            segment,
            bytes: (last - first + 1) * 10,
        }
    }

    #[test]
    fn spans_grow_at_the_end_and_shrink_at_the_front() {
        let (mut spans, mut live) = (Spans::default(), Live::default());
        for seq in 1..=5 {
            spans.insert(span(seq, seq, 1), &mut live);
        }
        spans.insert(span(6, 9, 2), &mut live);
        assert_eq!(
            spans.iter().copied().collect::<Vec<_>>(),
            [span(1, 5, 1), span(6, 9, 2)]
        );
        spans.trim(4, &mut live);
        assert_eq!((live.bytes(1), live.bytes(2)), (20, 40));
        assert_eq!(
            spans.iter().copied().collect::<Vec<_>>(),
            [span(4, 5, 1), span(6, 9, 2)]
        );
        spans.trim(10, &mut live);
        assert_eq!((live.bytes(1), live.bytes(2)), (0, 0));
        assert_eq!(spans.find(1), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Each seq is where it was put last; putting all in twice changes nothing.
        #[test]
        fn spans_agree_with_a_map(puts in proptest::collection::vec((1_u64..40, 0_u64..9, 1_u64..4), 1..30)) {
            let mut model = BTreeMap::new();
            let (mut spans, mut live) = (Spans::default(), Live::default());
            for &(first, more, segment) in &puts {
                spans.insert(span(first, first + more, segment), &mut live);
                model.extend((first..=first + more).map(|seq| (seq, segment)));
            }
            for seq in 1..60 {
                let found = spans.find(seq).filter(|span| span.first <= seq).map(|span| span.segment);
                prop_assert_eq!(found, model.get(&seq).copied());
            }
            let once = spans.clone();
            let all: Vec<Span> = spans.iter().copied().collect();
            all.into_iter().for_each(|span| spans.insert(span, &mut live));
            prop_assert_eq!(&spans, &once);
            let mut counted = Live::default();
            spans.add_to(&mut counted);
            prop_assert_eq!(live, counted);
        }
    }

    /// The file as it is written, a topic at a time.
    fn encode(index: &OpenIndex, seed: Seed, end: usize) -> Vec<u8> {
        let mut out = index.encode_head(end);
        let (mut after, mut at) = (None, 0);
        loop {
            after = match index.encode_topics(after, &mut at, 1, &mut out) {
                None => break,
                last => last,
            };
        }
        let mut after = None;
        loop {
            let mut blocks = Vec::new();
            after = match index.encode_blocks(after, 1, &mut blocks) {
                None => break,
                last => last,
            };
            out.extend(blocks);
        }
        let crc = seed.checksum(&out);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    #[test]
    fn an_index_comes_back_from_its_file_and_a_flipped_bit_is_found() {
        let [a, b] = [1, 2].map(|n| HomedId::new(n, Partition(0), n));
        let mut open = OpenIndex::default();
        for seq in 1..=100_u64 {
            let offset = to_u32(4096 + to_usize(seq) * 200);
            let topic = if seq % 3 == 0 { b } else { a };
            let first = if seq % 3 == 0 { seq / 3 } else { seq - seq / 3 };
            open.insert(
                topic,
                Block {
                    first,
                    count: 1,
                    offset,
                    bytes: 200,
                },
            );
        }
        open.insert(
            a,
            Block {
                first: 3,
                count: 1,
                offset: 9000,
                bytes: 1,
            },
        );
        let index = open.finish();
        let seed = Seed::new(1, 1);
        let bytes = encode(&open, seed, 77);
        assert_eq!(
            SegmentIndex::decode(&bytes, seed),
            Some((open.finish(), 77))
        );
        for topics in [a, b].windows(2) {
            assert_eq!(index.topic_behind(Some(topics[0])), Some(topics[1]));
            assert_eq!(open.topic_behind(Some(topics[0])), Some(topics[1]));
        }
        assert_eq!(
            (index.topic_behind(None), index.topic_behind(Some(b))),
            (Some(a), None)
        );
        for seq in 1..=33 {
            let block = index.find(b, seq).unwrap();
            assert!(block.first <= seq && seq <= block.last());
            assert!(block.start() <= 4096 + to_usize(seq) * 600);
            assert!(block.bytes <= 4096);
            assert_eq!(open.find(b, seq), Some(block));
        }
        assert_eq!(index.find(b, 34), None);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(SegmentIndex::decode(&flipped, seed), None);
        }
    }
}
