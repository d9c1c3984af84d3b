//! Where the messages are: per topic the segments that hold it (spans), per segment the places in
//! it (blocks). Indexes only point; the records they point to are checked when they are read.

use std::collections::VecDeque;

use ahash::AHashMap;

use crate::id::{HomedId, Seq};

use super::layout::{Fields, Seed, padded, to_u32, to_usize, u32_at};

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
    /// Puts a span in, over what stood there; whoever holds bytes per segment learns what moved.
    pub(super) fn insert(&mut self, span: Span) {
        match self.0.back_mut() {
            Some(last) if span.first <= last.last => self.insert_over(span),
            Some(last) if last.joins(&span) => {
                last.last = span.last;
                last.bytes += span.bytes;
            }
            _ => self.0.push_back(span),
        }
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
    pub(super) fn trim(&mut self, first: Seq) {
        while let Some(span) = self.0.front_mut() {
            match span.part(first, Seq::MAX) {
                Some(rest) => {
                    *span = rest;
                    return;
                }
                None => self.0.pop_front(),
            };
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

/// The blocks of a segment while it is being written.
#[derive(Debug, Default)]
pub(super) struct OpenIndex {
    topics: AHashMap<HomedId, Vec<Block>>,
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
        self.topics.get(&topic).map_or(&[], Vec::as_slice)
    }

    /// The index in the form that is stored and searched.
    pub(super) fn finish(&self) -> SegmentIndex {
        let mut ids: Vec<HomedId> = self.topics.keys().copied().collect();
        ids.sort_unstable();
        let mut index = SegmentIndex::default();
        index.blocks.reserve(self.blocks);
        for id in ids {
            let start = index.blocks.len();
            index.blocks.extend_from_slice(&self.topics[&id]);
            index.topics.push((id, start..index.blocks.len()));
        }
        index
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

    /// The topics that the segment holds messages of.
    pub(super) fn topics(&self) -> impl Iterator<Item = HomedId> + '_ {
        self.topics.iter().map(|(id, _)| *id)
    }

    pub(super) fn encode(&self, seed: Seed, end: usize) -> Vec<u8> {
        let tables = self.topics.len() * TOPIC_BYTES + self.blocks.len() * BLOCK_BYTES;
        let mut out = Vec::with_capacity(padded(HEAD_BYTES + tables));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&(end as u64).to_le_bytes());
        out.extend_from_slice(&to_u32(self.topics.len()).to_le_bytes());
        out.extend_from_slice(&to_u32(self.blocks.len()).to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        for (id, range) in &self.topics {
            out.extend_from_slice(&id.to_bytes());
            out.extend_from_slice(&to_u32(range.start).to_le_bytes());
            out.extend_from_slice(&to_u32(range.end).to_le_bytes());
        }
        for block in &self.blocks {
            out.extend_from_slice(&block.first.to_le_bytes());
            for field in [block.count, block.offset, block.bytes, 0] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        let crc = seed.checksum(&out);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
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
        let mut spans = Spans::default();
        for seq in 1..=5 {
            spans.insert(span(seq, seq, 1));
        }
        spans.insert(span(6, 9, 2));
        assert_eq!(
            spans.iter().copied().collect::<Vec<_>>(),
            [span(1, 5, 1), span(6, 9, 2)]
        );
        spans.trim(4);
        assert_eq!(
            spans.iter().copied().collect::<Vec<_>>(),
            [span(4, 5, 1), span(6, 9, 2)]
        );
        spans.trim(10);
        assert_eq!(spans.find(1), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Each seq is where it was put last; putting all in twice changes nothing.
        #[test]
        fn spans_agree_with_a_map(puts in proptest::collection::vec((1_u64..40, 0_u64..9, 1_u64..4), 1..30)) {
            let mut model = std::collections::BTreeMap::new();
            let mut spans = Spans::default();
            for &(first, more, segment) in &puts {
                spans.insert(span(first, first + more, segment));
                model.extend((first..=first + more).map(|seq| (seq, segment)));
            }
            for seq in 1..60 {
                let found = spans.find(seq).filter(|span| span.first <= seq).map(|span| span.segment);
                prop_assert_eq!(found, model.get(&seq).copied());
            }
            let once = spans.clone();
            let all: Vec<Span> = spans.iter().copied().collect();
            all.into_iter().for_each(|span| spans.insert(span));
            prop_assert_eq!(&spans, &once);
        }
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
        let bytes = index.encode(seed, 77);
        assert_eq!(
            SegmentIndex::decode(&bytes, seed),
            Some((open.finish(), 77))
        );
        assert_eq!(index.topics().collect::<Vec<_>>(), [a, b]);
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
