//! Frames that wait for one socket, in order. Knows nothing of sockets: what is taken out is
//! sent by the ring.
//!
//! Invariants: frames leave in the order in which they came; a relay topic whose backlog is full
//! loses its oldest frame, is told so by `lagged`, and nothing else is ever dropped here. Full
//! (`outbox_frames_max`, `outbox_bytes_max`) is answered to the caller, who knows what to do.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::shard::kernel::sending::Sending;
use crate::shard::socket::packing::{PackingId, Packings};

/// Frames that are encoded once and shared by all their receivers on this shard.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    /// Where each frame ends.
    ends: SmallVec<[u32; 4]>,
    /// How many get it, as far as that is known.
    receivers: Cell<u32>,
    /// The same frames compressed, for each window, once somebody wanted them; none if they did not
    /// become smaller.
    packed: [OnceCell<Option<Rc<Self>>>; 2],
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Piece {
    /// A piece of one frame.
    pub(crate) fn of_frame(frame: Bytes) -> Self {
        let end = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        Self::of_frames(frame, SmallVec::from_slice(&[end]))
    }

    /// A piece of several frames that stand one behind the other.
    pub(crate) fn of_frames(bytes: Bytes, ends: SmallVec<[u32; 4]>) -> Self {
        debug_assert_eq!(ends.last().map(|end| *end as usize), Some(bytes.len()));
        Self {
            bytes,
            ends,
            receivers: Cell::new(1),
            packed: Default::default(),
        }
    }

    /// The same, which nobody gets compressed.
    pub(crate) fn uncompressed(mut self) -> Self {
        self.packed = [OnceCell::from(None), OnceCell::from(None)];
        self
    }

    /// So many are about to get it.
    pub(crate) fn note_receivers(&self, receivers: usize) {
        let receivers = u32::try_from(receivers).unwrap_or(u32::MAX);
        self.receivers.set(receivers);
    }

    /// The piece as it goes out by this packing: compressed by the first who asks, for all others.
    fn packed(self: &Rc<Self>, packings: &mut Packings, id: PackingId) -> Rc<Self> {
        let Some(packing) = packings.of(id) else {
            return Rc::clone(self);
        };
        let packed = self.packed[packing.window as usize].get_or_init(|| {
            let mut ends = SmallVec::new();
            let end = |end: usize| ends.push(u32::try_from(end).unwrap_or(u32::MAX));
            let bytes = packings.pack_shared(packing, &self.bytes, self.receivers.get(), end)?;
            Some(Rc::new(Self::of_frames(bytes.into(), ends)))
        });
        Rc::clone(packed.as_ref().unwrap_or(self))
    }

    pub(crate) fn frames(&self) -> usize {
        self.ends.len()
    }

    fn start_of(&self, frame: usize) -> usize {
        if frame == 0 {
            0
        } else {
            self.ends[frame - 1] as usize
        }
    }
}

/// A relay topic on this shard, as an outbox knows it: where it is found, and which topic that was,
/// for places are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicTag {
    pub(crate) place: u32,
    pub(crate) life: u32,
}

#[derive(Debug)]
enum Chunk {
    /// Frames for this socket alone.
    Own { bytes: Vec<u8>, frames: u32 },
    /// Frames from `first` on of a piece that others have too.
    Shared {
        piece: Rc<Piece>,
        first: u32,
        topic: Option<TopicTag>,
    },
}

// One stands in every connection.
const _: () = assert!(size_of::<Chunk>() <= 32);

impl Chunk {
    fn into_sending(self) -> Sending {
        match self {
            Self::Own { bytes, .. } => Sending::own(bytes),
            Self::Shared { piece, first, .. } => {
                let at = piece.start_of(first as usize);
                Sending::shared(piece, at)
            }
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Own { bytes, .. } => bytes,
            Self::Shared { piece, first, .. } => &piece.bytes[piece.start_of(*first as usize)..],
        }
    }

    fn frames(&self) -> usize {
        match self {
            Self::Own { frames, .. } => *frames as usize,
            Self::Shared { piece, first, .. } => piece.frames() - *first as usize,
        }
    }

    fn is_of(&self, tag: TopicTag) -> bool {
        matches!(self, Self::Shared { topic: Some(topic), .. } if *topic == tag)
    }
}

/// What one topic has in an outbox, kept only while frames are lost.
#[derive(Debug, Clone, Copy)]
struct Lag {
    topic: TopicTag,
    missed: u64,
}

/// The bounds of an outbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboxLimits {
    pub(crate) frames_max: usize,
    pub(crate) bytes_max: usize,
    /// Backlog of one relay topic.
    pub(crate) topic_frames_max: usize,
}

impl Offered {
    /// What is left of it when an outbox went from `before` to `left`, from its front.
    fn less(self, before: Self, left: Self) -> Self {
        Self {
            chunks: self.chunks.saturating_sub(before.chunks - left.chunks),
            frames: self.frames.saturating_sub(before.frames - left.frames),
            bytes: self.bytes.saturating_sub(before.bytes - left.bytes),
        }
    }
}

/// What only the outbox of somebody has who does not keep up.
#[derive(Debug, Default)]
struct Behind {
    lags: Vec<Lag>,
    /// Frames that this receiver missed in all.
    missed: u32,
    offered: Offered,
    /// Its backlog, frames and bytes, when the shard began to give to it.
    before: (usize, usize),
}

/// What came before any send was in flight and found no room in the first one: it goes out with
/// the next ones, and counts for no bound, for the peer could not have taken it yet.
#[derive(Debug, Default, Clone, Copy)]
struct Offered {
    chunks: usize,
    frames: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: SmallVec<[Chunk; 1]>,
    frames: u32,
    /// Some of it was there already when the last send ended.
    is_old: bool,
    /// How its frames are compressed.
    pub(crate) packing: PackingId,
    bytes: usize,
    behind: Option<Box<Behind>>,
}

/// Small chunks are copied together up to this size; larger ones go out as they are.
const GATHER_BYTES_MAX: usize = 64 * 1024;
/// Only outboxes up to this length are looked at whole, in builds for tests.
const LOOK_CHUNKS_MAX: usize = 32;
/// A shared piece of this size is not worth a copy.
const ALONE_BYTES_MIN: usize = 16 * 1024;

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.behind.as_ref().is_none_or(|it| it.lags.is_empty())
    }

    pub(crate) fn frames(&self) -> usize {
        self.frames as usize
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames that this receiver missed in all.
    pub(crate) fn missed(&self) -> u32 {
        self.behind.as_ref().map_or(0, |behind| behind.missed)
    }

    fn offered(&self) -> Offered {
        let behind = self.behind.as_ref();
        behind.map_or_else(Offered::default, |behind| behind.offered)
    }

    /// Frames and bytes that came while a send was in flight: what counts as a backlog.
    pub(crate) fn backlog(&self) -> (usize, usize) {
        let offered = self.offered();
        (self.frames() - offered.frames, self.bytes - offered.bytes)
    }

    /// The shard begins to give to it: what waits behind a send by now came before.
    pub(crate) fn begin_giving(&mut self, is_behind: bool) {
        let backlog = self.backlog();
        if is_behind {
            self.behind.get_or_insert_default().before = backlog;
        } else if let Some(behind) = &mut self.behind {
            behind.before = (0, 0);
        }
    }

    /// Frames and bytes that were given since then and still wait.
    pub(crate) fn given(&self) -> (usize, usize) {
        let behind = self.behind.as_ref();
        let before = behind.map_or((0, 0), |behind| behind.before);
        let now = self.backlog();
        (
            now.0.saturating_sub(before.0),
            now.1.saturating_sub(before.1),
        )
    }

    /// Appends one frame for this socket alone, written by `write`, even if the outbox is full:
    /// answers to what the peer asked are bounded by what it may ask.
    pub(crate) fn push_with(&mut self, spare: &mut Spare, write: impl FnOnce(&mut Vec<u8>)) {
        let is_offered = self.chunks.len() == self.offered().chunks;
        if is_offered
            || !matches!(self.chunks.last(), Some(Chunk::Own { bytes, .. }) if bytes.len() < GATHER_BYTES_MAX)
        {
            self.chunks.push(Chunk::Own {
                bytes: spare.take(),
                frames: 0,
            });
        }
        let Some(Chunk::Own { bytes, frames }) = self.chunks.last_mut() else {
            unreachable!("the last chunk was just made sure of");
        };
        let before = bytes.len();
        write(bytes);
        if self.packing != 0 {
            spare.packings.pack_own(self.packing, bytes, before);
        }
        *frames += 1;
        let more = bytes.len() - before;
        self.grow(1, more, spare);
        self.assert_invariants();
    }

    /// The same for a frame that holds a secret of ours, which is never compressed beside text that
    /// others may choose.
    pub(crate) fn push_plain_with(&mut self, spare: &mut Spare, write: impl FnOnce(&mut Vec<u8>)) {
        let packing = std::mem::take(&mut self.packing);
        self.push_with(spare, write);
        self.packing = packing;
    }

    /// What this outbox holds is counted among what all of the shard hold.
    fn grow(&mut self, frames: u32, bytes: usize, spare: &mut Spare) {
        self.frames += frames;
        self.bytes += bytes;
        spare.frames += frames as usize;
        spare.bytes += bytes;
    }

    /// What must hold between two calls. Long ones are not looked at: that would be a look at each frame
    /// for each.
    fn assert_invariants(&self) {
        if cfg!(debug_assertions) && self.chunks.len() <= LOOK_CHUNKS_MAX {
            let frames: usize = self.chunks.iter().map(Chunk::frames).sum();
            let bytes: usize = self.chunks.iter().map(|it| it.as_slice().len()).sum();
            assert_eq!(
                (frames, bytes),
                (self.frames(), self.bytes),
                "all is counted"
            );
            let (offered, all) = (self.offered(), self.waiting());
            let is_part = offered.chunks <= all.chunks
                && offered.frames <= all.frames
                && offered.bytes <= all.bytes;
            assert!(is_part, "what was offered is a part of what waits");
        }
    }

    fn shrink(&mut self, frames: u32, bytes: usize, spare: &mut Spare) {
        self.frames -= frames;
        self.bytes -= bytes;
        spare.frames -= frames as usize;
        spare.bytes -= bytes;
    }

    /// Whether one more frame of `bytes` would exceed the bounds.
    pub(crate) fn is_full_for(&self, bytes: usize, limits: &OutboxLimits) -> bool {
        let backlog = self.backlog();
        limits.frames_max <= backlog.0 || limits.bytes_max < backlog.1 + bytes
    }

    /// Appends a shared piece that belongs to no relay topic, even if the outbox is full: whoever
    /// sends asks before.
    pub(crate) fn push_piece(&mut self, spare: &mut Spare, piece: &Rc<Piece>) {
        self.append(Rc::clone(piece), None, spare);
    }

    /// Appends what a relay topic pushed. Past its backlog the topic's oldest frames go, and the
    /// receiver will be told how many. Returns how many went.
    ///
    /// Only what waits behind a send in flight is a backlog (`is_behind`): before that the peer was
    /// offered nothing, and whatever there is goes out next.
    pub(crate) fn push_topic(
        &mut self,
        spare: &mut Spare,
        piece: &Rc<Piece>,
        (topic, is_behind): (TopicTag, bool),
        limits: &OutboxLimits,
    ) -> usize {
        self.append(Rc::clone(piece), Some(topic), spare);
        if !is_behind {
            return 0;
        }
        let is_alone = self.chunks.len() == 1 && self.offered().chunks == 0;
        if is_alone && piece.frames() <= limits.topic_frames_max {
            return 0;
        }
        let mut dropped = 0;
        let backlog = |outbox: &Self| outbox.frames_of(topic);
        while limits.topic_frames_max < backlog(self) || self.is_over(limits) {
            if !self.drop_oldest(topic, spare) {
                break;
            }
            dropped += 1;
        }
        self.assert_invariants();
        if 0 < dropped {
            self.note_lag(topic, dropped);
        }
        dropped
    }

    /// Whether more waits than may, behind a send.
    pub(crate) fn is_over(&self, limits: &OutboxLimits) -> bool {
        let backlog = self.backlog();
        limits.frames_max < backlog.0 || limits.bytes_max < backlog.1
    }

    fn append(&mut self, piece: Rc<Piece>, topic: Option<TopicTag>, spare: &mut Spare) {
        let piece = match self.packing {
            0 => piece,
            id => piece.packed(&mut spare.packings, id),
        };
        let frames = u32::try_from(piece.frames()).unwrap_or(u32::MAX);
        self.grow(frames, piece.bytes.len(), spare);
        self.chunks.push(Chunk::Shared {
            piece,
            first: 0,
            topic,
        });
        self.assert_invariants();
    }

    fn frames_of(&self, topic: TopicTag) -> usize {
        let behind = self.chunks.iter().skip(self.offered().chunks);
        let of_topic = behind.filter(|chunk| chunk.is_of(topic));
        of_topic.map(Chunk::frames).sum()
    }

    fn drop_oldest(&mut self, topic: TopicTag, spare: &mut Spare) -> bool {
        let offered = self.offered().chunks;
        let mut behind = self.chunks.iter().skip(offered);
        let Some(index) = behind.position(|chunk| chunk.is_of(topic)) else {
            return false;
        };
        let index = offered + index;
        let Chunk::Shared { piece, first, .. } = &mut self.chunks[index] else {
            unreachable!("only shared chunks have a topic");
        };
        let frame = *first as usize;
        let bytes = piece.ends[frame] as usize - piece.start_of(frame);
        *first += 1;
        if *first as usize == piece.frames() {
            self.chunks.remove(index);
        }
        self.shrink(1, bytes, spare);
        true
    }

    /// Notes that the receiver missed frames of a topic.
    pub(crate) fn note_lag(&mut self, topic: TopicTag, missed: usize) {
        let more = u32::try_from(missed).unwrap_or(u32::MAX);
        let behind = self.behind.get_or_insert_default();
        behind.missed = behind.missed.saturating_add(more);
        match behind.lags.iter_mut().find(|lag| lag.topic == topic) {
            Some(lag) => lag.missed += missed as u64,
            None => behind.lags.push(Lag {
                topic,
                missed: missed as u64,
            }),
        }
    }

    /// Takes the lags out and puts what `write` makes of each in front of what its topic still has
    /// here, which is younger than what was lost; but behind the frame that confirmed the topic.
    pub(crate) fn tell_lags(
        &mut self,
        spare: &mut Spare,
        mut write: impl FnMut(TopicTag, u64, &mut Vec<u8>),
    ) {
        let Some(behind) = &mut self.behind else {
            return;
        };
        for lag in std::mem::take(&mut behind.lags) {
            let mut bytes = Vec::new();
            write(lag.topic, lag.missed, &mut bytes);
            if bytes.is_empty() {
                continue;
            }
            let oldest = self.chunks.iter().position(|chunk| chunk.is_of(lag.topic));
            let index = oldest.unwrap_or(self.chunks.len());
            self.grow(1, bytes.len(), spare);
            self.note_told(index, bytes.len());
            self.chunks.insert(index, Chunk::Own { bytes, frames: 1 });
        }
        self.assert_invariants();
    }

    /// Takes out what the next send carries: all small chunks in one piece, a large one alone. What
    /// is left is offered.
    pub(crate) fn take_sending(&mut self, spare: &mut Spare) -> Option<Sending> {
        let before = self.waiting();
        let taken = self.take_next(spare);
        let left = self.waiting();
        let offered = match self.is_old {
            true => self.offered().less(before, left),
            false => left,
        };
        if 0 < offered.chunks {
            self.behind.get_or_insert_default().offered = offered;
        } else if let Some(behind) = &mut self.behind {
            behind.offered = offered;
        }
        self.assert_invariants();
        taken
    }

    /// What is told of a lag belongs to what it stands in front of.
    fn note_told(&mut self, index: usize, bytes: usize) {
        if let Some(behind) = &mut self.behind
            && index < behind.offered.chunks
        {
            behind.offered.chunks += 1;
            behind.offered.frames += 1;
            behind.offered.bytes += bytes;
        }
    }

    /// A send has ended: what is left here did not go with it.
    pub(crate) fn note_sent(&mut self) {
        self.is_old = !self.chunks.is_empty();
    }

    fn waiting(&self) -> Offered {
        Offered {
            chunks: self.chunks.len(),
            frames: self.frames(),
            bytes: self.bytes,
        }
    }

    fn take_next(&mut self, spare: &mut Spare) -> Option<Sending> {
        let large = |chunk: &Chunk| ALONE_BYTES_MIN <= chunk.as_slice().len();
        let first = self.chunks.first()?;
        if self.chunks.len() == 1 || large(first) {
            let chunk = self.chunks.remove(0);
            return Some(self.taken(chunk, spare).into_sending());
        }
        let mut bytes = spare.take();
        let mut count = 0;
        let mut frames = 0;
        for chunk in &self.chunks {
            if large(chunk) || GATHER_BYTES_MAX < bytes.len() + chunk.as_slice().len() {
                break;
            }
            bytes.extend_from_slice(chunk.as_slice());
            frames += chunk.frames();
            count += 1;
        }
        for chunk in self.chunks.drain(..count) {
            spare.keep_chunk(chunk);
        }
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        let chunk = Chunk::Own { bytes, frames };
        Some(self.taken(chunk, spare).into_sending())
    }

    fn taken(&mut self, chunk: Chunk, spare: &mut Spare) -> Chunk {
        let frames = u32::try_from(chunk.frames()).unwrap_or(u32::MAX);
        self.shrink(frames, chunk.as_slice().len(), spare);
        if self.chunks.is_empty() {
            // An idle connection owns no memory here.
            self.chunks = SmallVec::new();
        }
        chunk
    }

    /// Forgets what one topic still has here: its subscriber left.
    pub(crate) fn forget_lag(&mut self, topic: TopicTag) {
        if let Some(behind) = &mut self.behind {
            behind.lags.retain(|lag| lag.topic != topic);
        }
    }
}

/// What the outboxes of a shard have in common: buffers of sends that have gone, for the next ones,
/// and how much waits in all of them.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    buffers: Vec<Vec<u8>>,
    frames: usize,
    bytes: usize,
    pub(crate) packings: Packings,
}

/// More spare buffers than this are freed.
const SPARE_MAX: usize = 256;

impl Spare {
    /// Frames and bytes that wait in all outboxes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.frames, self.bytes)
    }

    /// What is left in an outbox goes with its connection.
    pub(crate) fn forget(&mut self, outbox: &Outbox) {
        self.frames -= outbox.frames();
        self.bytes -= outbox.bytes();
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    /// Keeps the buffer of what has gone for reuse, if it was a socket's own and is of a usual size.
    pub(crate) fn keep(&mut self, sent: Sending) {
        if let Some(mut buffer) = sent.into_own()
            && buffer.capacity() <= GATHER_BYTES_MAX
            && self.buffers.len() < SPARE_MAX
        {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    fn keep_chunk(&mut self, chunk: Chunk) {
        self.keep(chunk.into_sending());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits {
        frames_max: 8,
        bytes_max: 1000,
        topic_frames_max: 3,
    };
    const TOPIC: TopicTag = tag(1);

    const fn tag(place: u32) -> TopicTag {
        TopicTag { place, life: 1 }
    }

    fn piece(text: &'static str) -> Rc<Piece> {
        Rc::new(Piece::of_frame(Bytes::from_static(text.as_bytes())))
    }

    fn drain(outbox: &mut Outbox, spare: &mut Spare) -> String {
        let mut out = Vec::new();
        while let Some(sending) = outbox.take_sending(spare) {
            out.extend_from_slice(sending.rest());
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn frames_leave_in_order() {
        let (mut outbox, mut spare) = (Outbox::default(), Spare::default());
        outbox.push_with(&mut spare, |out| out.extend_from_slice(b"a"));
        outbox.push_piece(&mut spare, &piece("b"));
        outbox.push_with(&mut spare, |out| out.extend_from_slice(b"c"));
        assert_eq!((outbox.frames(), outbox.bytes()), (3, 3));
        assert_eq!(drain(&mut outbox, &mut spare), "abc");
        assert_eq!((outbox.frames(), outbox.bytes()), (0, 0));
    }

    /// R-20, D-20
    #[test]
    fn a_full_backlog_loses_the_oldest_and_says_how_many() {
        let (mut outbox, mut spare) = (Outbox::default(), Spare::default());
        outbox.push_with(&mut spare, |out| out.extend_from_slice(b"x"));
        for text in ["1", "2", "3", "4", "5"] {
            outbox.push_topic(&mut spare, &piece(text), (TOPIC, true), &LIMITS);
        }
        outbox.tell_lags(&mut spare, |_, missed, out| {
            out.extend_from_slice(format!("<{missed}>").as_bytes());
        });
        assert_eq!(drain(&mut outbox, &mut spare), "x<2>345");
        outbox.push_with(&mut spare, |out| out.extend_from_slice(b"y"));
        outbox.note_lag(TOPIC, 7);
        outbox.tell_lags(&mut spare, |_, missed, out| {
            out.extend_from_slice(format!("<{missed}>").as_bytes());
        });
        assert_eq!(
            drain(&mut outbox, &mut spare),
            "y<7>",
            "nothing of the topic is left"
        );
    }

    #[test]
    fn a_piece_of_many_frames_loses_only_some() {
        let (mut outbox, mut spare) = (Outbox::default(), Spare::default());
        let ends = SmallVec::from_slice(&[1, 2, 3, 4, 5]);
        let many = Rc::new(Piece::of_frames(Bytes::from_static(b"12345"), ends));
        assert_eq!(
            outbox.push_topic(&mut spare, &many, (TOPIC, true), &LIMITS),
            2
        );
        assert_eq!(outbox.frames(), 3);
        outbox.tell_lags(&mut spare, |_, _, _| {});
        assert_eq!(drain(&mut outbox, &mut spare), "345");
    }

    ///
    #[test]
    fn a_full_outbox_says_so() {
        let (mut outbox, mut spare) = (Outbox::default(), Spare::default());
        for _ in 0..8 {
            assert!(!outbox.is_full_for(1, &LIMITS));
            outbox.push_piece(&mut spare, &piece("x"));
        }
        assert!(outbox.is_full_for(1, &LIMITS));
    }

    /// What waited when a send began counts for no bound, and goes out next; C1
    #[test]
    fn what_was_offered_is_no_backlog() {
        let (mut outbox, mut spare) = (Outbox::default(), Spare::default());
        let large = Rc::new(Piece::of_frame(vec![b'-'; ALONE_BYTES_MIN].into()));
        outbox.push_piece(&mut spare, &large);
        for text in ["1", "2", "3", "4", "5"] {
            outbox.push_topic(&mut spare, &piece(text), (TOPIC, false), &LIMITS);
        }
        let first = outbox.take_sending(&mut spare).unwrap();
        assert_eq!(first.rest().len(), ALONE_BYTES_MIN);
        assert_eq!(outbox.backlog(), (0, 0));
        let mut lost = 0;
        for text in ["6", "7", "8", "9"] {
            lost += outbox.push_topic(&mut spare, &piece(text), (TOPIC, true), &LIMITS);
        }
        assert_eq!((lost, outbox.backlog()), (1, (3, 3)));
        outbox.push_with(&mut spare, |out| out.extend_from_slice(b"x"));
        // What was no backlog when it came may leave; what was one stays one.
        outbox.note_sent();
        outbox.push_piece(&mut spare, &large);
        let second = outbox.take_sending(&mut spare).unwrap();
        assert_eq!(second.rest(), b"12345789x");
        assert_eq!(outbox.backlog(), (1, ALONE_BYTES_MIN));
        outbox.note_sent();
        assert_eq!(drain(&mut outbox, &mut spare).len(), ALONE_BYTES_MIN);
        assert_eq!(outbox.backlog(), (0, 0));
    }

    #[test]
    fn other_topics_fill_the_outbox_but_never_in_silence() {
        let (mut outbox, mut spare) = (Outbox::default(), Spare::default());
        for topic in 0..4 {
            for _ in 0..3 {
                outbox.push_topic(&mut spare, &piece("x"), (tag(topic), true), &LIMITS);
            }
        }
        let mut missed = 0;
        outbox.tell_lags(&mut spare, |_, count, _| missed += count);
        assert_eq!(missed + drain(&mut outbox, &mut spare).len() as u64, 12);
    }

    /// Whatever happens to them, what all outboxes hold is known without a look at each.
    #[test]
    fn what_waits_in_all_of_them_is_counted() {
        let (mut one, mut spare) = (Outbox::default(), Spare::default());
        let mut other = Outbox::default();
        one.push_with(&mut spare, |out| out.extend_from_slice(b"abc"));
        one.push_piece(&mut spare, &piece("de"));
        for text in ["1", "22", "333", "4444"] {
            other.push_topic(&mut spare, &piece(text), (TOPIC, true), &LIMITS);
        }
        // The oldest is lost.
        assert_eq!(spare.waiting(), (5, 14));
        other.tell_lags(&mut spare, |_, _, out| out.extend_from_slice(b"<1>"));
        assert_eq!(spare.waiting(), (6, 17));
        assert_eq!(drain(&mut one, &mut spare), "abcde");
        assert_eq!(spare.waiting(), (other.frames(), other.bytes()));
        spare.forget(&other);
        assert_eq!(spare.waiting(), (0, 0));
    }
}
