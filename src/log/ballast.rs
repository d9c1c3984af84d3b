//! Space of a partition that is taken while there is some, for when there is none: two small segments
//! and the room of two checkpoints, so that one may fill and the next be made by turns. Each is put to use by a new name, so nothing else on the disk can
//! take the space in between, and it is there after a restart as well. Knows sizes, not records.
//!
//! Invariant: publishes and what is new are taken only while all of it is there, so that what gives
//! space back (deletions, trims, cleaning with its checkpoint) and cursors find theirs.

use std::collections::BTreeMap;
use std::io;

use super::commit_log::{CommitLog, LogConfig, Owner};
use super::lack::is_lack;
use super::room::Class;
use super::segment::SEGMENT_HEAD_BYTES;
use super::storage::{Done, FileName, Op};

/// The parts: segments first, then checkpoints.
const PARTS: usize = 4;
const SEGMENTS: std::ops::Range<usize> = 0..2;
const CHECKPOINTS: std::ops::Range<usize> = 2..4;

/// How long until space is asked for again after there was none.
const RETRY_US: u64 = 500_000;

/// A used segment or checkpoint may be so many times larger than the part that it becomes.
const TIMES_MAX: u64 = 4;

#[derive(Debug)]
pub(super) struct Ballast {
    parts: [Part; PARTS],
    making: Option<(usize, Stage)>,
    in_flight: bool,
    /// A part is missing, and the disk had no room for it when it was last asked.
    is_lacking: bool,
    retry_us: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Part {
    /// What is there; 0 if nothing is.
    bytes: u64,
    /// What there should be.
    wanted: u64,
    /// A file that nothing needs is on its way to become it.
    is_coming: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Create,
    Grow,
    Directory,
    Close,
    Discard,
}

impl Ballast {
    /// What is there by a list of the folder, and what should be for a checkpoint of that size.
    pub(super) fn new(
        config: &LogConfig,
        there: &BTreeMap<u64, u64>,
        checkpoint_bytes: u64,
    ) -> Self {
        let mut ballast = Self {
            parts: [Part::default(); PARTS],
            making: None,
            in_flight: false,
            is_lacking: false,
            retry_us: 0,
        };
        for (at, part) in ballast.parts.iter_mut().enumerate() {
            part.bytes = there.get(&number(at)).copied().unwrap_or(0);
            part.wanted = segment_bytes(config);
        }
        ballast.want_checkpoint(checkpoint_bytes);
        ballast
    }

    /// Checkpoints have about this size by now: keeps room for somewhat larger ones.
    pub(super) fn want_checkpoint(&mut self, bytes: u64) {
        let wanted = checkpoint_room(bytes);
        for at in CHECKPOINTS {
            self.parts[at].wanted = wanted;
        }
    }

    /// Whether all of it is there.
    pub(super) fn is_whole(&self) -> bool {
        self.parts.iter().all(|part| 0 < part.bytes)
    }

    /// Whether the disk has no room for what is missing.
    pub(super) fn is_lacking(&self) -> bool {
        self.is_lacking
    }

    pub(super) fn has_segment(&self) -> bool {
        self.segment_at().is_some()
    }

    /// Space may have come back.
    pub(super) fn look_again(&mut self) {
        self.retry_us = 0;
    }

    /// Gives a segment out: it is the caller's to give it a name of its own.
    pub(super) fn take_segment(&mut self) -> Option<(FileName, u64)> {
        let at = self.segment_at()?;
        Some((name(at), std::mem::take(&mut self.parts[at].bytes)))
    }

    /// It could not be given its name.
    pub(super) fn put_back(&mut self, file: FileName, bytes: u64) {
        if let Some(part) = self
            .parts
            .iter_mut()
            .enumerate()
            .find(|(at, _)| name(*at) == file)
        {
            part.1.bytes = bytes;
        }
    }

    /// Gives the larger room of a checkpoint out, as a file that is to be written over.
    pub(super) fn take_checkpoint_if(&mut self, is_needed: bool) -> Option<(FileName, u64)> {
        let at = self.checkpoint_at().filter(|_| is_needed)?;
        let part = &mut self.parts[at];
        // The file of the checkpoint before will take its place.
        part.is_coming = true;
        Some((name(at), std::mem::take(&mut part.bytes)))
    }

    /// It was put to use, or could not be.
    pub(super) fn checkpoint_ended(&mut self) {
        for at in CHECKPOINTS {
            let part = &mut self.parts[at];
            part.is_coming &= 0 < part.bytes;
        }
    }

    pub(super) fn has_checkpoint(&self) -> bool {
        self.checkpoint_at().is_some()
    }

    /// The name that a segment which nothing needs is to be given, if a part of about its size is missing.
    pub(super) fn adopt_segment(&mut self, bytes: u64) -> Option<FileName> {
        let part = self.parts[0];
        // Where there is room, one of its own size is made.
        let times_max = if self.is_lacking { TIMES_MAX } else { 1 };
        let fits = part.wanted <= bytes && bytes / times_max <= part.wanted;
        let at = SEGMENTS
            .into_iter()
            .find(|&at| fits && self.is_missing(at))?;
        self.parts[at].is_coming = true;
        Some(name(at))
    }

    /// The same for a checkpoint, of whatever size.
    pub(super) fn adopt_checkpoint(&mut self) -> Option<FileName> {
        let at = CHECKPOINTS.into_iter().find(|&at| self.is_missing(at))?;
        self.parts[at].is_coming = true;
        Some(name(at))
    }

    /// An adopted file has its name.
    pub(super) fn adopted(&mut self, file: FileName, bytes: u64) {
        if let Some(at) = (0..PARTS).find(|&at| name(at) == file) {
            let part = &mut self.parts[at];
            part.is_coming = false;
            part.bytes = bytes;
            self.is_lacking &= !self.is_whole();
        }
    }

    pub(super) fn deadline_us(&self) -> Option<u64> {
        let waits = !self.in_flight && self.making.is_none() && self.short().is_some();
        waits.then_some(self.retry_us)
    }

    pub(super) fn poll(&mut self, now_us: u64) -> Option<Op> {
        if self.in_flight {
            return None;
        }
        if self.making.is_none() {
            let at = self.short().filter(|_| self.retry_us <= now_us)?;
            let stage = match self.parts[at].bytes {
                0 => Stage::Create,
                _ => Stage::Grow,
            };
            self.making = Some((at, stage));
        }
        let (at, stage) = self.making?;
        let (file, wanted) = (name(at), self.parts[at].wanted);
        self.in_flight = true;
        Some(match stage {
            Stage::Create => Op::Create {
                file,
                bytes: wanted,
            },
            Stage::Grow => Op::Grow {
                file,
                bytes: wanted,
            },
            Stage::Directory => Op::SyncDirectory,
            Stage::Close => Op::Close { file },
            Stage::Discard => Op::Remove { file },
        })
    }

    /// `Err` gives a failure back that is not a lack of space.
    pub(super) fn done(&mut self, result: io::Result<Done>, now_us: u64) -> io::Result<()> {
        self.in_flight = false;
        let Some((at, stage)) = self.making else {
            return result.map(drop);
        };
        let next = match (stage, result) {
            (Stage::Create, Err(error)) if is_lack(&error) => Some(Stage::Discard),
            // Somebody has removed it.
            (Stage::Grow, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                self.parts[at].bytes = 0;
                None
            }
            // It stays as it is.
            (Stage::Grow, Err(error)) if is_lack(&error) => {
                self.retry_us = now_us + RETRY_US;
                None
            }
            (_, Err(error)) => return Err(error),
            (Stage::Discard, Ok(_)) => {
                self.retry_us = now_us + RETRY_US;
                self.is_lacking = true;
                None
            }
            (Stage::Create | Stage::Grow, Ok(_)) => Some(Stage::Directory),
            (Stage::Directory, Ok(_)) => Some(Stage::Close),
            (Stage::Close, Ok(_)) => {
                let part = &mut self.parts[at];
                part.bytes = part.bytes.max(part.wanted);
                self.is_lacking &= !self.is_whole();
                None
            }
        };
        self.making = next.map(|stage| (at, stage));
        Ok(())
    }

    /// The part to be made or to grow next.
    fn short(&self) -> Option<usize> {
        let is_short = |at: &usize| {
            let part = self.parts[*at];
            part.bytes < part.wanted && !part.is_coming
        };
        let missing = (0..PARTS).find(|&at| self.is_missing(at));
        missing.or_else(|| (0..PARTS).find(is_short))
    }

    fn is_missing(&self, at: usize) -> bool {
        self.parts[at].bytes == 0 && !self.parts[at].is_coming && !self.is_making(at)
    }

    fn is_making(&self, at: usize) -> bool {
        self.making.is_some_and(|(making, _)| making == at)
    }

    fn segment_at(&self) -> Option<usize> {
        SEGMENTS.into_iter().find(|&at| self.is_there(at))
    }

    fn checkpoint_at(&self) -> Option<usize> {
        CHECKPOINTS
            .filter(|&at| self.is_there(at))
            .max_by_key(|&at| self.parts[at].bytes)
    }

    fn is_there(&self, at: usize) -> bool {
        0 < self.parts[at].bytes && !self.is_making(at)
    }
}

impl CommitLog {
    /// Whether the disk had no room when it was last asked, for a segment or for the ballast.
    pub(super) fn is_full(&self) -> bool {
        self.prepare.is_full() || self.ballast.is_lacking()
    }

    /// Whether the ballast is to be put to use: what is left of other room is the reserve.
    pub(super) fn is_ballast_due(&self) -> bool {
        let left = self.active.map_or(0, |active| active.bytes - active.end);
        (left as u64) < self.config.reserve_bytes
    }

    /// Whether room for such records is on its way although the disk has none: of the ballast, or of
    /// segments that are let go. It comes or fails, so a wait for it ends.
    pub(super) fn is_freeing(&self, class: Class) -> bool {
        let is_due = self.is_ballast_due() && self.ballast.has_segment();
        let is_next = !self.has_next_segment() && (self.prepare.is_coming() || is_due);
        class != Class::Bulk && (is_next || !self.queue.is_empty() || self.is_letting_go(class))
    }

    /// Space for the next segment, and for the ballast.
    pub(super) fn poll_space(&mut self, now_us: u64) -> Option<(Owner, Op)> {
        let (topics, subscriptions) = (self.state.topics.len(), self.state.subscriptions.len());
        let items = topics as u64 * TOPIC_BYTES + subscriptions as u64 * SUBSCRIPTION_BYTES;
        self.ballast
            .want_checkpoint(items.max(self.checkpoint.size_bytes()));
        let is_due = self.is_ballast_due();
        let ballast = is_due.then_some(&mut self.ballast);
        if let Some(op) = self.prepare.poll(now_us, ballast) {
            return Some((Owner::Prepare, op));
        }
        self.ballast.poll(now_us).map(|op| (Owner::Ballast, op))
    }

    /// Whether a start has what it can get: a segment, and its ballast.
    pub(super) fn is_provided(&self) -> bool {
        let is_due = self.is_ballast_due() && self.ballast.has_segment();
        let is_full = self.prepare.is_full() && !is_due;
        let is_settled = self.ballast.is_whole() || self.ballast.is_lacking();
        (self.has_next_segment() || is_full) && is_settled
    }
}

/// A segment that holds the head, what is kept back in it, and as much again.
fn segment_bytes(config: &LogConfig) -> u64 {
    let needed = (SEGMENT_HEAD_BYTES as u64).saturating_add(config.reserve_bytes.saturating_mul(2));
    let needed = needed.checked_next_power_of_two().unwrap_or(u64::MAX);
    needed.clamp(
        config.segment_bytes_min,
        config.segment_bytes_max.max(config.segment_bytes_min),
    )
}

/// Room for a checkpoint of this size that has grown a little, in steps, so that it seldom grows.
fn checkpoint_room(bytes: u64) -> u64 {
    let step = (bytes / STEP_PARTS).next_power_of_two().max(BLOCK_BYTES);
    (bytes + bytes / STEP_PARTS + SLACK_BYTES).next_multiple_of(step)
}

const STEP_PARTS: u64 = 8;
const SLACK_BYTES: u64 = 8 * 1024;
const BLOCK_BYTES: u64 = 4096;

/// What a topic and a subscription take in a checkpoint, about.
const TOPIC_BYTES: u64 = 224;
const SUBSCRIPTION_BYTES: u64 = 144;

fn number(at: usize) -> u64 {
    at as u64 + 1
}

fn name(at: usize) -> FileName {
    FileName::Ballast(number(at))
}
