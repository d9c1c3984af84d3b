//! Makes the next segment ready ahead of need: takes its space, makes its name durable, zeroes it by
//! bounded writes, or takes a segment that nothing needs any more. Knows no batches.
//!
//! A segment may be used as soon as its space is taken and its name is durable; the zeroes only
//! make syncs cheaper, so what is not zeroed in time stays as it is.

use std::io;

use bytes::Bytes;

use super::ballast::Ballast;
use super::lack::{is_lack, is_passing};
use super::storage::{Done, FileName, Op};

/// What one zeroing write takes.
const ZERO_BYTES: u64 = 256 * 1024;

/// How long until space is asked for again after there was none.
const RETRY_US: u64 = 500_000;

#[derive(Debug)]
pub(super) struct Prepare {
    bytes_min: u64,
    bytes_max: u64,
    /// The size to ask for: doubles with each segment, halves when the disk has no room for it.
    bytes: u64,
    next_id: u64,
    next: Option<Next>,
    /// Segments that nothing needs any more, to be used again under a new id.
    pool: Vec<Prepared>,
    full: bool,
    /// It was space that was lacking, not descriptors or memory.
    lacks_space: bool,
    retry_us: u64,
    /// The least that the disk had no room for, and until when that is believed.
    refused: Option<(u64, u64)>,
    in_flight: bool,
    /// Something that gives space back needs what a segment would take.
    gives_way: bool,
    zeroes: Bytes,
}

/// A segment that waits for its first batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) id: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Next {
    segment: Prepared,
    stage: Stage,
    /// The segment it was before, until its new name is durable.
    was: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Create,
    Discard,
    Rename {
        from: FileName,
    },
    Directory {
        is_zeroed: bool,
    },
    /// Its descriptor is asked for, so that no write to it will lack one.
    Open,
    Zero {
        at: u64,
    },
    Flush,
    Ready,
}

impl Prepare {
    pub(super) fn new(bytes_min: u64, bytes_max: u64, next_id: u64, pool: Vec<Prepared>) -> Self {
        Self {
            bytes_min,
            bytes_max,
            bytes: bytes_min,
            next_id,
            next: None,
            pool,
            full: false,
            lacks_space: false,
            retry_us: 0,
            refused: None,
            in_flight: false,
            gives_way: false,
            zeroes: Bytes::new(),
        }
    }

    /// The id that the next new segment will have.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Whether the disk had no room when it was last asked.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// The space of the next segment, if it may be used.
    pub(super) fn usable_bytes(&self) -> Option<u64> {
        let usable =
            |next: &&Next| matches!(next.stage, Stage::Zero { .. } | Stage::Flush | Stage::Ready);
        self.next
            .as_ref()
            .filter(usable)
            .map(|next| next.segment.bytes)
    }

    /// The next segment, if it may be used.
    pub(super) fn usable_id(&self) -> Option<u64> {
        let next = self.next.as_ref().filter(|_| self.usable_bytes().is_some());
        next.map(|next| next.segment.id)
    }

    /// Whether the next segment can be taken at once: no zeroing write is under way in it.
    pub(super) fn is_takable(&self) -> bool {
        !self.in_flight && self.usable_bytes().is_some()
    }

    /// Hands the next segment over.
    pub(super) fn take(&mut self) -> Option<Prepared> {
        if !self.is_takable() {
            return None;
        }
        self.bytes = (self.bytes * 2).min(self.bytes_max);
        self.next.take().map(|next| next.segment)
    }

    /// Whether the disk had no room for a segment of this size a moment ago.
    pub(super) fn is_refused(&self, bytes: u64, now_us: u64) -> bool {
        let bytes = self.size_for(bytes);
        self.refused
            .is_some_and(|(least, until_us)| least <= bytes && now_us < until_us)
    }

    /// Whether the next segment is on its way to be usable.
    pub(super) fn is_coming(&self) -> bool {
        let is_given_up = |next: &Next| next.stage == Stage::Discard;
        self.next.as_ref().is_some_and(|next| !is_given_up(next)) || !self.pool.is_empty()
    }

    /// Space may have come back.
    pub(super) fn look_again(&mut self) {
        self.retry_us = 0;
        self.refused = None;
    }

    /// A batch needs this much: a smaller segment does not serve.
    pub(super) fn require(&mut self, bytes: u64) {
        let bytes = self.size_for(bytes);
        self.bytes = self.bytes.max(bytes);
        if !self.in_flight
            && let Some(next) = self.next.take_if(|next| next.segment.bytes < bytes)
        {
            self.pool.push(next.segment);
        }
    }

    /// Takes a segment to be used again; `false` if there are enough, and it is to be removed.
    pub(super) fn recycle(&mut self, segment: Prepared) -> bool {
        let useful = self.pool.is_empty() && self.bytes <= segment.bytes;
        if useful {
            self.pool.push(segment);
        }
        useful
    }

    /// Segments that are not used again yet: a start could still read them.
    pub(super) fn old_segments(&self) -> impl Iterator<Item = u64> + '_ {
        let next = self.next.as_ref().and_then(|next| next.was);
        self.pool.iter().map(|old| old.id).chain(next)
    }

    /// Gives the space of the next segment up until `resume`; `false` if there is none to give.
    pub(super) fn give_way(&mut self) -> bool {
        let can = self.is_takable();
        if let Some(next) = self.next.as_mut().filter(|_| can) {
            next.stage = Stage::Discard;
            self.gives_way = true;
        }
        can
    }

    /// Space is as it is: ask for a segment again.
    pub(super) fn resume(&mut self) {
        if self.gives_way {
            self.gives_way = false;
            self.retry_us = 0;
        }
    }

    /// When it will have something to do, if that is known.
    pub(super) fn deadline_us(&self) -> Option<u64> {
        (self.full && !self.gives_way && !self.in_flight && self.next.is_none())
            .then_some(self.retry_us)
    }

    /// Takes of the ballast what it must, if it is given one.
    pub(super) fn poll(&mut self, now_us: u64, ballast: Option<&mut Ballast>) -> Option<Op> {
        if self.in_flight
            || (self.next.is_none() && (self.gives_way || !self.start(now_us, ballast)))
        {
            return None;
        }
        let next = self.next.as_ref()?;
        let (file, bytes) = (FileName::Segment(next.segment.id), next.segment.bytes);
        let op = match next.stage {
            Stage::Create => Op::Create { file, bytes },
            Stage::Discard => Op::Remove { file },
            Stage::Rename { from } => Op::Rename { from, to: file },
            Stage::Directory { .. } => Op::SyncDirectory,
            Stage::Open => Op::Open { file },
            Stage::Zero { at } => self.zero(file, at, bytes),
            Stage::Flush => Op::Sync { file },
            Stage::Ready => return None,
        };
        self.in_flight = true;
        Some(op)
    }

    /// `Err` gives a failure back that is not a lack of space.
    pub(super) fn done(
        &mut self,
        result: io::Result<Done>,
        now_us: u64,
        ballast: &mut Ballast,
    ) -> io::Result<()> {
        self.in_flight = false;
        let Some(next) = &mut self.next else {
            return result.map(drop);
        };
        next.stage = match (next.stage, result) {
            // Somebody has removed the ballast: it is made again as soon as there is room.
            (
                Stage::Rename {
                    from: FileName::Ballast(_),
                },
                Err(error),
            ) if error.kind() == io::ErrorKind::NotFound => {
                self.next = None;
                self.wait_for_space(now_us);
                return Ok(());
            }
            (Stage::Rename { from }, Err(error)) if is_lack(&error) => {
                let bytes = next.segment.bytes;
                match from {
                    FileName::Segment(id) => self.pool.push(Prepared { id, bytes }),
                    from => ballast.put_back(from, bytes),
                }
                self.next = None;
                self.wait_for_space(now_us);
                return Ok(());
            }
            (Stage::Create | Stage::Zero { .. } | Stage::Flush, Err(error)) if is_lack(&error) => {
                self.lacks_space = !is_passing(&error);
                Stage::Discard
            }
            (_, Err(error)) => return Err(error),
            (Stage::Zero { .. }, Ok(Done::Count(0))) => return Err(io::ErrorKind::WriteZero.into()),
            (Stage::Create, Ok(_)) => Stage::Directory { is_zeroed: false },
            (Stage::Rename { .. }, Ok(_)) => Stage::Directory { is_zeroed: true },
            (Stage::Directory { is_zeroed: true }, Ok(_)) => Stage::Open,
            (Stage::Directory { is_zeroed: false }, Ok(_)) => Stage::Zero { at: 0 },
            (Stage::Zero { at }, Ok(Done::Count(count))) => match at + count as u64 {
                at if at < next.segment.bytes => Stage::Zero { at },
                _ => Stage::Flush,
            },
            (Stage::Discard, Ok(_)) => {
                let bytes = next.segment.bytes;
                self.next = None;
                self.lack_space(now_us, bytes);
                return Ok(());
            }
            (Stage::Open | Stage::Flush | Stage::Ready | Stage::Zero { .. }, Ok(_)) => Stage::Ready,
        };
        if self.usable_bytes().is_some() {
            self.full = false;
            self.next.iter_mut().for_each(|next| next.was = None);
        }
        Ok(())
    }

    /// Chooses what the next segment is made of.
    fn start(&mut self, now_us: u64, ballast: Option<&mut Ballast>) -> bool {
        let bytes = self.bytes;
        let reused = self
            .pool
            .iter()
            .position(|old| bytes <= old.bytes || self.full);
        let (bytes, stage, was) = match reused.map(|at| self.pool.swap_remove(at)) {
            Some(old) => {
                let from = FileName::Segment(old.id);
                (old.bytes, Stage::Rename { from }, Some(old.id))
            }
            None => match ballast
                .filter(|_| self.full && self.lacks_space)
                .and_then(Ballast::take_segment)
            {
                Some((from, bytes)) => (bytes, Stage::Rename { from }, None),
                None if self.full && now_us < self.retry_us => return false,
                None => (bytes, Stage::Create, None),
            },
        };
        let segment = Prepared {
            id: self.next_id,
            bytes,
        };
        self.next_id += 1;
        self.next = Some(Next {
            segment,
            stage,
            was,
        });
        true
    }

    /// Asks for less at once, and when even the least is too much, later.
    fn lack_space(&mut self, now_us: u64, bytes: u64) {
        let before = self.refused.filter(|(_, until_us)| now_us < *until_us);
        let least = before.map_or(bytes, |(least, _)| least.min(bytes));
        self.refused = Some((least, now_us + RETRY_US));
        if self.bytes_min < self.bytes {
            self.bytes = (self.bytes / 2).max(self.bytes_min);
        } else {
            self.wait_for_space(now_us);
        }
    }

    fn wait_for_space(&mut self, now_us: u64) {
        self.full = true;
        self.retry_us = now_us + RETRY_US;
    }

    fn size_for(&self, bytes: u64) -> u64 {
        bytes.next_power_of_two().min(self.bytes_max)
    }

    fn zero(&mut self, file: FileName, at: u64, bytes: u64) -> Op {
        let len = super::layout::to_usize((bytes - at).min(ZERO_BYTES));
        if self.zeroes.len() < len {
            self.zeroes = vec![0; len].into();
        }
        Op::Write {
            file,
            offset: at,
            bytes: self.zeroes.slice(..len),
            sync: false,
        }
    }
}
