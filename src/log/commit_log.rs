//! The live log of one partition. It never waits: records are appended, operations are handed out,
//! their results are told, and events say what became durable. Knows no clock, no file, no socket.
//!
//! The caller, a shard or the executor of a test, drives it so:
//! `append` .. , then `poll_effect` until `None`, carry the operations out in any order, tell each
//! result by `handle_done`, then `poll_event` until `None`; and again at `deadline_us`.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use crate::id::{HomedId, Partition, Seq};

use super::ballast::Ballast;
use super::batch::{Chain, Place};
use super::checkpoint::CheckpointTask;
use super::clean::Cleaner;
use super::commit::Flight;
use super::company::Company;
use super::index::OpenIndex;
use super::indexing::Indexing;
use super::lack::{is_damage, is_passing};
use super::layout::to_usize;
use super::patience::{Again, Patience};
use super::prepare::Prepare;
use super::queue::Queue;
use super::reader::{Awaited, Need, Reader};
use super::recovery::{Identity, epoch};
use super::retention::RetentionTask;
use super::segment::SEGMENT_HEAD_BYTES;
use super::state::State;
use super::storage::{Done, FileName, Op};
use super::tail::Tail;

/// When a batch counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// After one sync for all that gathered meanwhile.
    #[default]
    Batch,
    /// After a sync of its own for each message.
    Always,
    /// When the system has taken it: a power cut loses what was acknowledged.
    Os,
}

/// The bounds of one commit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// When a batch counts as stored.
    pub fsync: Fsync,
    /// How long a batch may wait for company when nothing is in flight, beyond the part of a
    /// commit's time for which it waits where that pays (see `company`).
    pub sync_delay_us_max: u64,
    /// A batch of this size waits no longer, and gets no larger.
    pub sync_bytes_max: usize,
    /// How long moves of cursors may wait when nothing else is written.
    pub cursor_delay_us_max: u64,
    /// The size of the first segment.
    pub segment_bytes_min: u64,
    /// The size up to which segments double.
    pub segment_bytes_max: u64,
    /// The space that only cursors, deletions and cleaning may use.
    pub reserve_bytes: u64,
    /// Bytes of the last batches kept in memory.
    pub tail_bytes_max: usize,
    /// A checkpoint is made after so many bytes of log ..
    pub checkpoint_bytes: u64,
    /// .. or so long after the last, if anything was written.
    pub checkpoint_interval_us: u64,
    /// A full segment of which a smaller part than this, in percent, is still needed is cleaned.
    pub clean_live_percent_max: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            fsync: Fsync::Batch,
            sync_delay_us_max: 0,
            sync_bytes_max: 1 << 20,
            cursor_delay_us_max: 20_000,
            segment_bytes_min: 1 << 20,
            segment_bytes_max: 64 << 20,
            reserve_bytes: 256 << 10,
            tail_bytes_max: 4 << 20,
            checkpoint_bytes: 64 << 20,
            checkpoint_interval_us: 60_000_000,
            clean_live_percent_max: 25,
        }
    }
}

impl LogConfig {
    /// The largest record: with its batch it must fit into a segment.
    pub fn record_bytes_max(&self) -> usize {
        let segment = to_usize(self.segment_bytes_max);
        segment.saturating_sub(SEGMENT_HEAD_BYTES + to_usize(self.reserve_bytes) + 1024)
    }
}

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Microseconds of a clock that never goes back.
    pub monotonic_us: u64,
    /// Unix time in milliseconds.
    pub unix_ms: u64,
}

/// Stands for an accepted record: it is durable once an `Event::Durable` reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names an operation until its result is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId(u64);

/// An operation that the caller must carry out, and then tell by `handle_done`.
#[derive(Debug, Clone)]
pub struct Effect {
    /// What its result is told under.
    pub id: EffectId,
    /// What is to be done.
    pub op: Op,
}

/// What the caller learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All records up to and with this one are durable.
    Durable {
        /// The last of them.
        up_to: Ticket,
        /// The topics that grew, and their last durable seq.
        topics: Vec<(HomedId, Seq)>,
    },
    /// Reads that ended with `ReadEnd::Loading` and this may go on.
    Readable {
        /// What they waited for.
        loaded: Awaited,
    },
    /// Retention has dropped what stood before `first_seq`.
    Trimmed {
        /// The topic.
        topic: HomedId,
        /// The first seq that is kept.
        first_seq: Seq,
        /// Bytes of the messages that are kept.
        bytes: u64,
    },
    /// A write or sync failed. Nothing that is not yet told to be durable ever will be; the
    /// partition is recovered at the next start.
    Failed {
        /// What the system said, with its number.
        reason: String,
    },
}

/// Whether the log takes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogState {
    /// It does.
    Serving,
    /// The disk is full; it goes on by itself when there is space.
    StorageFull,
    /// A write or sync failed: never again in this process.
    Failed,
}

/// The commit log of one partition.
#[derive(Debug)]
pub struct CommitLog {
    pub(super) config: LogConfig,
    pub(super) partition: Partition,
    pub(super) salt: u64,
    pub(super) state: State,
    pub(super) segments: BTreeMap<u64, SegmentInfo>,
    pub(super) active: Option<Active>,
    /// Where the newest segment ends, as the next one will say.
    pub(super) previous: (u64, usize),
    pub(super) chain: Chain,
    pub(super) queue: Queue,
    /// When the first record of the queue was seen.
    pub(super) waiting_since_us: Option<u64>,
    pub(super) flight: Option<Flight>,
    pub(super) company: Company,
    pub(super) appended: u64,
    pub(super) durable: u64,
    pub(super) prepare: Prepare,
    pub(super) ballast: Ballast,
    pub(super) indexing: Indexing,
    pub(super) checkpoint: CheckpointTask,
    pub(super) cleaner: Cleaner,
    pub(super) retention: RetentionTask,
    pub(super) reader: Reader,
    pub(super) tail: Tail,
    pub(super) events: VecDeque<Event>,
    pub(super) is_closing: bool,
    has_failed: bool,
    effects: u64,
    pending: Vec<(EffectId, Again)>,
    patience: Patience,
    /// Segments whose descriptors are asked for before they are written to.
    opening: VecDeque<u64>,
    last_now: Now,
}

/// A segment with batches in it.
#[derive(Debug)]
pub(super) struct SegmentInfo {
    pub(super) bytes: u64,
    /// Where its batches end.
    pub(super) end: usize,
    pub(super) blocks: Blocks,
}

/// Where the index of a segment is.
#[derive(Debug)]
pub(super) enum Blocks {
    /// In memory: the segment is being written.
    Open(OpenIndex),
    /// In memory: its file is not durable yet.
    Held(OpenIndex),
    /// In its file.
    Stored,
}

/// The segment being written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Active {
    pub(super) id: u64,
    pub(super) bytes: usize,
    pub(super) end: usize,
}

/// Which part of the log asked for an operation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    Open,
    Commit,
    Prepare,
    Ballast,
    Index,
    Checkpoint,
    Clean,
    Read(Need),
}

/// What `recover` has found and a log goes on from.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) partition: Partition,
    pub(super) salt: u64,
    pub(super) state: State,
    pub(super) segments: BTreeMap<u64, SegmentInfo>,
    /// The segment to go on in, if nothing was cut off behind its end.
    pub(super) active: Option<Active>,
    pub(super) previous: (u64, usize),
    pub(super) chain: Chain,
    pub(super) prepare: Prepare,
    pub(super) ballast: Ballast,
    pub(super) checkpoint: CheckpointTask,
    pub(super) cleaner: Cleaner,
}

impl CommitLog {
    pub(super) fn new(config: LogConfig, start: Start) -> Self {
        let tail = Tail::new(config.tail_bytes_max);
        Self {
            config,
            partition: start.partition,
            salt: start.salt,
            state: start.state,
            segments: start.segments,
            active: start.active,
            previous: start.previous,
            chain: start.chain,
            queue: Queue::default(),
            waiting_since_us: None,
            flight: None,
            company: Company::default(),
            appended: 0,
            durable: 0,
            prepare: start.prepare,
            ballast: start.ballast,
            indexing: Indexing::default(),
            checkpoint: start.checkpoint,
            cleaner: start.cleaner,
            retention: RetentionTask::default(),
            reader: Reader::new(start.salt),
            tail,
            events: VecDeque::new(),
            is_closing: false,
            has_failed: false,
            effects: 0,
            pending: Vec::new(),
            patience: Patience::default(),
            opening: VecDeque::new(),
            last_now: Now::default(),
        }
    }

    /// A log of which nothing can be read: it takes nothing and its first event says why. Its files
    /// are left as they are.
    pub fn unreadable(config: LogConfig, identity: Identity, reason: String) -> Self {
        let (bytes_min, bytes_max) = (config.segment_bytes_min, config.segment_bytes_max);
        let start = Start {
            partition: identity.partition,
            salt: identity.salt,
            state: State::default(),
            segments: BTreeMap::new(),
            active: None,
            previous: (0, 0),
            chain: Chain::START,
            prepare: Prepare::new(bytes_min, bytes_max, 1, Vec::new()),
            ballast: Ballast::new(&config, &BTreeMap::new(), 0),
            checkpoint: CheckpointTask::new(1, None, 0),
            cleaner: Cleaner::new(&[]),
        };
        let mut log = Self::new(config, start);
        log.has_failed = true;
        log.events.push_back(Event::Failed { reason });
        log
    }

    /// The next operation to carry out, or `None` until something is appended, a result is told
    /// or `deadline_us` has come. What commits stands first.
    pub fn poll_effect(&mut self, now: Now) -> Option<Effect> {
        self.last_now = now;
        if let Some(again) = self.patience.poll(now.monotonic_us)
            && (!self.has_failed || matches!(again.owner, Owner::Read(_)))
        {
            return Some(self.effect(again));
        }
        if self.has_failed {
            let (need, op) = self.reader.poll()?;
            return Some(self.effect(Again::first(Owner::Read(need), op)));
        }
        self.poll_retention(now);
        self.poll_cleaner();
        let opened = self.opening.pop_front().map(FileName::Segment);
        let (owner, op) = opened
            .map(|file| (Owner::Open, Op::Open { file }))
            .or_else(|| {
                self.poll_commit(now.monotonic_us)
                    .map(|op| (Owner::Commit, op))
            })
            .or_else(|| self.poll_space(now.monotonic_us))
            .or_else(|| self.reader.poll().map(|(need, op)| (Owner::Read(need), op)))
            .or_else(|| self.poll_indexing().map(|op| (Owner::Index, op)))
            .or_else(|| {
                self.poll_checkpoint(now.monotonic_us)
                    .map(|op| (Owner::Checkpoint, op))
            })
            .or_else(|| self.cleaner.poll_op().map(|op| (Owner::Clean, op)))?;
        Some(self.effect(Again::first(owner, op)))
    }

    /// Tells the result of an operation.
    pub fn handle_done(&mut self, id: EffectId, result: io::Result<Done>) {
        let at = self.pending.iter().position(|(pending, _)| *pending == id);
        let Some((_, again)) = at.map(|at| self.pending.swap_remove(at)) else {
            debug_assert!(
                false,
                "a result is told once, for an operation that was handed out"
            );
            return;
        };
        let now_us = self.last_now.monotonic_us;
        let may_pass = |error: &io::Error| match again.owner {
            Owner::Read(_) => !is_damage(error),
            _ => is_passing(error) && again.is_tried_again(),
        };
        if result.as_ref().is_err_and(may_pass) {
            return self.patience.push(now_us, again);
        }
        let outcome = match again.owner {
            // Whoever writes there opens the file itself.
            Owner::Open => Ok(()),
            Owner::Commit => self.commit_done(result),
            Owner::Prepare => self.prepare.done(result, now_us, &mut self.ballast),
            Owner::Ballast => self.ballast.done(result, now_us),
            Owner::Index => self.indexing_done(result),
            Owner::Checkpoint => self.checkpoint_done(result),
            Owner::Clean => self.clean_done(result),
            Owner::Read(need) => {
                self.reader.done(need, result);
                Ok(())
            }
        };
        self.tell_readers();
        if let Err(error) = outcome {
            self.fail(&error);
        }
    }

    /// What readers wait for has come, or is not awaited any longer.
    pub(super) fn tell_readers(&mut self) {
        while let Some(loaded) = self.reader.woken() {
            self.events.push_back(Event::Readable { loaded });
        }
    }

    /// Asks for the descriptors of the segments that will be written to, so that none is missing
    /// when they are needed. For who has just been given the log.
    pub fn hold_descriptors(&mut self) {
        let active = self.active.map(|active| active.id);
        self.opening
            .extend(active.into_iter().chain(self.prepare.usable_id()));
    }

    /// The next thing the caller must know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `poll_effect` will have something to do although nothing happens, if it ever will.
    pub fn deadline_us(&self) -> Option<u64> {
        let parts = [
            self.commit_deadline_us(),
            self.prepare.deadline_us(),
            self.ballast.deadline_us(),
            self.checkpoint_deadline_us(),
            self.retention_deadline_us(),
            self.clean_deadline_us(),
        ];
        let due = parts.into_iter().flatten().filter(|_| !self.has_failed);
        due.chain(self.patience.deadline_us()).min()
    }

    /// Whether it takes records.
    pub fn state(&self) -> LogState {
        match (self.has_failed, self.is_full()) {
            (true, _) => LogState::Failed,
            (false, true) => LogState::StorageFull,
            (false, false) => LogState::Serving,
        }
    }

    /// Begins a clean stop: nothing waits any longer, and a last checkpoint is made, so that the
    /// next start is quick and knows where the log ended. Done when `is_idle`.
    pub fn close(&mut self) {
        self.is_closing = true;
        self.cleaner.stop();
    }

    /// Whether nothing is in flight and nothing waits; after `close`, whether all is done.
    pub fn is_idle(&self) -> bool {
        let is_quiet = self.pending.is_empty()
            && self.patience.is_empty()
            && self.queue.is_empty()
            && self.flight.is_none();
        let is_closed = !self.is_closing || self.checkpoint.is_closed();
        self.has_failed && self.pending.is_empty() || is_quiet && is_closed
    }

    /// The last seq of the topic that is durable, and the first that is kept.
    pub fn kept(&self, topic: HomedId) -> Option<(Seq, Seq)> {
        let topic = self.state.topics.get(&topic)?;
        Some((topic.first_seq, topic.durable_seq))
    }

    /// Identity of this life of the log, below 2^53: another after records were lost of which
    /// nobody knows whose they were.
    pub fn epoch(&self) -> u64 {
        epoch(self.salt, self.partition, self.state.generation)
    }

    /// Bytes in segments, for metrics.
    pub fn stored_bytes(&self) -> u64 {
        self.segments
            .values()
            .map(|segment| segment.end as u64)
            .sum()
    }

    pub(super) fn last_now_us(&self) -> u64 {
        self.last_now.monotonic_us
    }

    pub(super) fn place(&self, segment: u64) -> Place {
        Place::new(self.salt, segment)
    }

    pub(super) fn has_next_segment(&self) -> bool {
        self.prepare.usable_bytes().is_some()
    }

    fn effect(&mut self, again: Again) -> Effect {
        self.effects += 1;
        let id = EffectId(self.effects);
        let op = again.op.clone();
        self.pending.push((id, again));
        Effect { id, op }
    }

    /// Final: writing has ended.
    fn fail(&mut self, error: &io::Error) {
        if !self.has_failed {
            self.has_failed = true;
            self.queue.clear();
            self.flight = None;
            let reason = error.to_string();
            self.events.push_back(Event::Failed { reason });
        }
    }
}
