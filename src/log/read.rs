//! Reading messages of one topic in order: from the tail in memory or from mapped segments, up to
//! what is durable, and saying of each seq that cannot be given why.

use std::ops::ControlFlow;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::id::{HomedId, Seq};

use super::batch::Place;
use super::commit_log::{Blocks, CommitLog};
use super::index::{Block, SegmentIndex};
use super::layout::{Frame, KIND_BATCH, u64_at};
use super::mapped::SegmentMap;
use super::reader::{Awaited, Broken};
use super::rebuild::rebuild_index;
use super::record::{Entry, Publish};
use super::scan::frames;
use super::segment::SEGMENT_HEAD_BYTES;

/// How much one call of `read` gives at most; one message is given however large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Messages.
    pub messages_max: usize,
    /// Bytes of payloads and headers.
    pub bytes_max: usize,
}

/// What stands at the next seqs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadItem<'a> {
    /// A message.
    Message(Publish<'a>),
    /// Retention has dropped these.
    Trimmed {
        /// The first of them that was asked for.
        from: Seq,
        /// The last of them.
        to: Seq,
    },
    /// These were stored, and reading them failed.
    Damaged {
        /// The first of them.
        from: Seq,
        /// The last of them.
        to: Seq,
    },
}

/// Why a read ended. The next seq to ask for stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadEnd {
    /// All that is durable has been given: an `Event::Durable` tells of more.
    Durable,
    /// A limit was reached.
    Limit,
    /// The rest must come into memory first: an `Event::Readable` that names this tells when to ask
    /// again.
    Loading(Awaited),
    /// The topic is unknown.
    UnknownTopic,
}

/// Blocks of a topic that are asked for together.
const AHEAD_BLOCKS: usize = 16;

/// Where the bytes of a block are.
enum Source {
    Tail,
    Map(Arc<SegmentMap>),
}

/// The state of one call.
struct Cursor {
    topic: HomedId,
    next: Seq,
    /// The last seq that may be given.
    last: Seq,
    limits: ReadLimits,
    messages: usize,
    bytes: usize,
}

impl CommitLog {
    /// Gives the messages of `topic` from `from` on to `visit`, in order and without a gap that is
    /// not told. Returns the next seq to ask for.
    pub fn read(
        &mut self,
        topic: HomedId,
        from: Seq,
        limits: ReadLimits,
        visit: &mut dyn FnMut(ReadItem<'_>),
    ) -> (Seq, ReadEnd) {
        let Some(state) = self.state.topics.get(&topic) else {
            return (from, ReadEnd::UnknownTopic);
        };
        let mut cursor = Cursor {
            topic,
            next: from.max(1),
            last: state.durable_seq,
            limits,
            messages: 0,
            bytes: 0,
        };
        if cursor.next < state.first_seq {
            visit(ReadItem::Trimmed {
                from: cursor.next,
                to: state.first_seq - 1,
            });
            cursor.next = state.first_seq;
        }
        loop {
            if cursor.last < cursor.next {
                return (cursor.next, ReadEnd::Durable);
            }
            match self.read_span(&mut cursor, visit) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(end) => return (cursor.next, end),
            }
        }
    }

    /// Reads on in the segment that holds the next seq.
    fn read_span(
        &mut self,
        cursor: &mut Cursor,
        visit: &mut dyn FnMut(ReadItem<'_>),
    ) -> ControlFlow<ReadEnd> {
        let spans = self
            .state
            .topics
            .get(&cursor.topic)
            .map(|topic| &topic.spans);
        let span = spans.and_then(|spans| spans.find(cursor.next)).copied();
        let Some(span) = span.filter(|span| span.first <= cursor.last) else {
            return cursor.damaged(cursor.last, visit);
        };
        if cursor.next < span.first {
            return cursor.damaged(span.first - 1, visit);
        }
        let last = span.last.min(cursor.last);
        let block = match self.block(span.segment, cursor.topic, cursor.next) {
            Ok(Some(block)) => block,
            Ok(None) => return ControlFlow::Break(ReadEnd::Loading(self.reader.awaited())),
            Err(Broken) => return cursor.damaged(last, visit),
        };
        if block.first <= cursor.next {
            let last = block.last().min(last);
            return self.read_block(span.segment, block, last, cursor, visit);
        }
        cursor.damaged(last.min(block.first - 1), visit)
    }

    /// The block that holds `seq`, or the first behind it. `Ok(None)`: it must be loaded first.
    fn block(&mut self, segment: u64, topic: HomedId, seq: Seq) -> Result<Option<Block>, Broken> {
        let Some(info) = self.segments.get(&segment) else {
            return Err(Broken);
        };
        match &info.blocks {
            Blocks::Open(index) | Blocks::Held(index) => {
                index.find(topic, seq).ok_or(Broken).map(Some)
            }
            Blocks::Stored => match self.stored_index(segment)? {
                Some(index) => index.find(topic, seq).ok_or(Broken).map(Some),
                None => Ok(None),
            },
        }
    }

    /// The index of a full segment from its file, or made again from the segment.
    pub(super) fn stored_index(
        &mut self,
        segment: u64,
    ) -> Result<Option<Arc<SegmentIndex>>, Broken> {
        let end = self.segments.get(&segment).ok_or(Broken)?.end;
        match self.reader.index(segment) {
            // The only read that may wait for the disk: a damaged index is rare, and small.
            Err(Broken) => match self.reader.whole(segment, end)? {
                Some(map) => {
                    let place = Place::new(self.salt, segment);
                    let index = Arc::new(rebuild_index(&map.bytes()[..end], place).finish());
                    self.reader.keep_index(segment, Arc::clone(&index));
                    Ok(Some(index))
                }
                None => Ok(None),
            },
            found => found,
        }
    }

    /// Gives the messages of one block up to `last`; what of them is not there is damaged.
    fn read_block(
        &mut self,
        segment: u64,
        block: Block,
        last: Seq,
        cursor: &mut Cursor,
        visit: &mut dyn FnMut(ReadItem<'_>),
    ) -> ControlFlow<ReadEnd> {
        let place = Place::new(self.salt, segment);
        let mut at = block.start();
        while at < block.end() && cursor.next <= last {
            // The batch in flight is in the tail, and not yet in the file.
            let end = self
                .tail
                .start_behind(segment, at)
                .map_or_else(|| block.end(), |to| to.min(block.end()));
            let source = match self.source(segment, at, end) {
                Ok(Some(source)) => source,
                Ok(None) => {
                    let awaited = self.reader.awaited();
                    self.read_ahead(segment, cursor.topic, block.last() + 1);
                    return ControlFlow::Break(ReadEnd::Loading(awaited));
                }
                Err(Broken) => break,
            };
            let bytes = match &source {
                Source::Tail => self.tail.find(segment, at).unwrap_or_default(),
                Source::Map(map) => &map.bytes()[at..end],
            };
            let bytes = &bytes[..bytes.len().min(end - at)];
            for (_, frame) in frames(bytes, place, 0, bytes.len()) {
                cursor.give(frame, last, visit)?;
                if last < cursor.next {
                    return ControlFlow::Continue(());
                }
            }
            at += bytes.len();
        }
        if cursor.next <= last {
            return cursor.damaged(last, visit);
        }
        ControlFlow::Continue(())
    }

    /// Asks for what a reader that goes on will need next, so that it waits once for many blocks.
    fn read_ahead(&mut self, segment: u64, topic: HomedId, from: Seq) {
        let Some(info) = self.segments.get(&segment) else {
            return;
        };
        let blocks = match &info.blocks {
            Blocks::Open(index) | Blocks::Held(index) => index.blocks(topic),
            Blocks::Stored => self
                .reader
                .known_index(segment)
                .map_or(&[][..], |index| index.blocks(topic)),
        };
        let first = blocks.partition_point(|block| block.last() < from);
        let ahead: SmallVec<[Block; AHEAD_BLOCKS]> =
            blocks[first..].iter().take(AHEAD_BLOCKS).copied().collect();
        for block in ahead {
            if self.tail.find(segment, block.start()).is_some() {
                return;
            }
            // What cannot be had is told when it is read.
            let _ = self.reader.map(segment, block.start(), block.end());
        }
    }

    fn source(&mut self, segment: u64, from: usize, to: usize) -> Result<Option<Source>, Broken> {
        if self.tail.find(segment, from).is_some() {
            return Ok(Some(Source::Tail));
        }
        debug_assert!(
            SEGMENT_HEAD_BYTES <= from,
            "no record stands in a segment's head"
        );
        Ok(self.reader.map(segment, from, to)?.map(Source::Map))
    }
}

impl Cursor {
    /// Gives the message in a frame, if it is the next or one behind it.
    fn give(
        &mut self,
        frame: Frame<'_>,
        last: Seq,
        visit: &mut dyn FnMut(ReadItem<'_>),
    ) -> ControlFlow<ReadEnd> {
        let Some(publish) = self.message(frame).filter(|publish| publish.seq <= last) else {
            return ControlFlow::Continue(());
        };
        if self.next < publish.seq {
            self.damaged(publish.seq - 1, visit)?;
        }
        let bytes = self.bytes + publish.payload.len() + publish.headers.len();
        let is_full = self.limits.messages_max <= self.messages || self.limits.bytes_max < bytes;
        if is_full && 0 < self.messages {
            return ControlFlow::Break(ReadEnd::Limit);
        }
        self.messages += 1;
        self.bytes = bytes;
        self.next = publish.seq + 1;
        visit(ReadItem::Message(publish));
        ControlFlow::Continue(())
    }

    fn message<'a>(&self, frame: Frame<'a>) -> Option<Publish<'a>> {
        if KIND_BATCH <= frame.kind || frame.bytes.len() < 40 {
            return None;
        }
        if frame.bytes[16..32] != self.topic.to_bytes() || u64_at(frame.bytes, 32) < self.next {
            return None;
        }
        match Entry::decode(frame)? {
            Entry::Publish(publish) => Some(publish),
            _ => None,
        }
    }

    fn damaged(&mut self, to: Seq, visit: &mut dyn FnMut(ReadItem<'_>)) -> ControlFlow<ReadEnd> {
        debug_assert!(self.next <= to, "damage is not empty");
        visit(ReadItem::Damaged {
            from: self.next,
            to,
        });
        self.next = to + 1;
        ControlFlow::Continue(())
    }
}
