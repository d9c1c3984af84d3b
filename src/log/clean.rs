//! Gives space back: copies what is still needed of a mostly dead segment to the tail, and lets the
//! segment go once a durable checkpoint does not name it. Damaged segments are left alone.

use std::collections::VecDeque;
use std::ops::Bound;

use crate::id::{HomedId, Seq};

use super::commit::AppendError;
use super::commit_log::{Blocks, CommitLog, SegmentInfo};
use super::index::Span;
use super::layout::{Frame, to_usize};
use super::prepare::Prepared;
use super::read::{ReadEnd, ReadItem, ReadLimits};
use super::reader::Broken;
use super::record::Entry;
use super::room::Class;
use super::state::nobody;
use super::storage::{FileName, Op};

/// Copied in one call.
const COPY_LIMITS: ReadLimits = ReadLimits {
    messages_max: 256,
    bytes_max: 64 * 1024,
};

/// Copies that may wait in the queue, so that they never crowd out what is new.
const COPIED_BYTES_MAX: usize = 256 * 1024;

/// Cleaning gives back at least this part of what the next checkpoint takes.
const GAIN_PARTS: u64 = 4;

/// Heads and tables of batches take less than this part of what is copied.
const COPY_PARTS: u64 = 4;

/// How often a full disk is looked at for what can be cleaned.
const FULL_LOOK_US: u64 = 500_000;

/// A full disk is cleaned of every segment of which less than this part, in percent, is needed.
const FULL_LIVE_PERCENT_MAX: u64 = 90;

/// This part of the reserve is left when a segment on a full disk is copied.
const LAST_PARTS: usize = 8;

/// Topics or subscriptions looked at in one call.
const SLICE_ITEMS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Cleaner {
    pub(super) job: Option<Job>,
    pub(super) candidates: VecDeque<u64>,
    /// On a full disk segments before this one are cleaned if anything in them is dead.
    pub(super) thorough_before: u64,
    /// When the segments are looked at next.
    look_us: u64,
    /// Segments that nothing needs, named by the last checkpoint still.
    pub(super) retired: Vec<Prepared>,
    pub(super) ops: VecDeque<Task>,
    pub(super) in_flight: Option<Task>,
}

#[derive(Debug)]
pub(super) struct Job {
    segment: u64,
    stage: Stage,
    is_waiting: bool,
}

#[derive(Debug)]
enum Stage {
    /// Messages of the topics behind this one, of the first of them from the seq on.
    Messages(Option<HomedId>, Seq),
    Topics(Option<HomedId>),
    Subscriptions(Option<HomedId>),
    Graves(Option<HomedId>),
    /// All is appended; the append that must be durable.
    Durable(u64),
}

/// An operation, or what to do when all before it have been done.
#[derive(Debug, Clone)]
pub(super) enum Task {
    Op(Op),
    /// The segment's file is gone for good.
    Gone(u64),
    /// A file is part of the ballast now.
    Kept(FileName, u64),
}

/// What one step of a job came to.
enum Progress {
    /// Go on with this.
    Next(Stage),
    /// Come again: something must be read or written first.
    Wait(Stage),
    /// Something is damaged: leave the segment as it is.
    Damaged,
    /// The disk is full, and what is needed of the segment does not fit.
    NoRoom,
}

impl Progress {
    fn without_room(error: AppendError, stage: Stage) -> Self {
        match error {
            AppendError::StorageFull => Self::NoRoom,
            _ => Self::Wait(stage),
        }
    }
}

impl Cleaner {
    /// A cleaner that first removes what is left over from the time before the start.
    pub(super) fn new(leftovers: &[FileName]) -> Self {
        let mut cleaner = Self::default();
        for &file in leftovers {
            cleaner.push_op(Op::Remove { file });
        }
        if !leftovers.is_empty() {
            cleaner.push_op(Op::SyncDirectory);
        }
        for file in leftovers {
            if let FileName::Segment(segment) = file {
                cleaner.ops.push_back(Task::Gone(*segment));
            }
        }
        cleaner
    }

    /// Something may have become cleanable.
    pub(super) fn look_again(&mut self) {
        self.look_us = 0;
    }

    /// Begins nothing any more: what is not done is found again at the next start.
    pub(super) fn stop(&mut self) {
        self.job = None;
        self.candidates.clear();
    }

    /// Whether the segment is being cleaned or will be.
    pub(super) fn is_at(&self, segment: u64) -> bool {
        self.job.as_ref().is_some_and(|job| job.segment == segment)
            || self.candidates.contains(&segment)
    }

    pub(super) fn retired_count(&self) -> usize {
        self.retired.len()
    }

    /// Whether it can go on without waiting for anything.
    pub(super) fn is_ready(&self) -> bool {
        self.job
            .as_ref()
            .map_or(!self.candidates.is_empty(), |job| !job.is_waiting)
    }

    pub(super) fn push_op(&mut self, op: Op) {
        self.ops.push_back(Task::Op(op));
    }

    /// Gives a file that nothing needs the name of a part of the ballast.
    pub(super) fn keep(&mut self, from: FileName, to: FileName, bytes: u64) {
        self.push_op(Op::Rename { from, to });
        self.push_op(Op::Close { file: to });
        self.ops.push_back(Task::Kept(to, bytes));
    }

    /// The next operation; they are done one after another.
    pub(super) fn poll_op(&mut self) -> Option<Op> {
        if self.in_flight.is_some() {
            return None;
        }
        match self.ops.front()? {
            Task::Op(op) => {
                let op = op.clone();
                self.in_flight = self.ops.pop_front();
                Some(op)
            }
            Task::Gone(_) | Task::Kept(..) => None,
        }
    }
}

impl CommitLog {
    /// When the segments are looked at again, if there are any beside the one being written.
    pub(super) fn clean_deadline_us(&self) -> Option<u64> {
        if self.is_closing {
            return None;
        }
        let has_full = 1 < self.segments.len();
        let looks = has_full && self.cleaner.job.is_none() && self.cleaner.candidates.is_empty();
        match self.cleaner.is_ready() {
            true => Some(self.last_now_us()),
            false => looks.then_some(self.cleaner.look_us),
        }
    }

    /// Chooses the segments that are mostly dead, if cleaning them gives back more than the
    /// checkpoint takes that must follow.
    fn look_for_dead(&mut self, now_us: u64) {
        let is_idle = self.cleaner.job.is_none() && self.cleaner.candidates.is_empty();
        if now_us < self.cleaner.look_us || !is_idle {
            return;
        }
        let is_full = self.is_full();
        self.cleaner.look_us = now_us
            + match is_full {
                true => FULL_LOOK_US,
                false => self.config.checkpoint_interval_us,
            };
        let mut gain = 0;
        let mut dead = VecDeque::new();
        for (id, info) in &self.segments {
            let live = self.state.live.bytes(*id);
            if self.is_mostly_dead(*id, info) {
                gain += info.bytes.saturating_sub(live);
                dead.push_back(*id);
            }
        }
        if is_full {
            self.cleaner.candidates = self.least_of(dead);
        } else if self.checkpoint.size_bytes() / GAIN_PARTS <= gain {
            self.cleaner.candidates = dead;
        }
    }

    /// On a full disk only what can be copied into the room that is left: into the reserve too, of which
    /// cleaning gives back more.
    fn least_of(&self, dead: VecDeque<u64>) -> VecDeque<u64> {
        let mut dead = Vec::from(dead);
        dead.sort_by_key(|id| self.state.live.bytes(*id));
        let kept_back = to_usize(self.config.reserve_bytes) / LAST_PARTS;
        let mut room = self.room_left().saturating_sub(kept_back) as u64;
        let mut fits = |id: &u64| {
            let live = self.state.live.bytes(*id);
            let bytes = live + live / COPY_PARTS;
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        };
        let count = dead.iter().take_while(|id| fits(id)).count();
        dead.truncate(count);
        dead.into()
    }

    /// Room that is taken on the disk and waits for batches.
    fn room_left(&self) -> usize {
        let active = self.active.map_or(0, |active| active.bytes - active.end);
        let next = to_usize(self.prepare.usable_bytes().unwrap_or(0));
        active + next
    }

    /// Whether little of a full segment is needed, measured by the space that its file takes.
    fn is_mostly_dead(&self, id: u64, info: &SegmentInfo) -> bool {
        let live = self.state.live.bytes(id).saturating_mul(100);
        let is_full = match info.blocks {
            Blocks::Open(_) => false,
            Blocks::Stored => true,
            // Its index comes first, but for a disk that has no room for one.
            Blocks::Held(_) => self.is_full() && !self.indexing.is_of(id),
        };
        let is_thorough = self.is_full() && id < self.cleaner.thorough_before;
        let percent_max = match is_thorough {
            true => self
                .config
                .clean_live_percent_max
                .max(FULL_LIVE_PERCENT_MAX),
            false => self.config.clean_live_percent_max,
        };
        is_full
            && !self.state.protected.contains(&id)
            && live < info.bytes.saturating_mul(percent_max)
    }

    /// Takes one bounded step of cleaning.
    pub(super) fn poll_cleaner(&mut self) {
        if self.is_closing {
            return;
        }
        self.look_for_dead(self.last_now_us());
        let Some(job) = self.cleaner.job.take().or_else(|| self.next_job()) else {
            return;
        };
        let segment = job.segment;
        if COPIED_BYTES_MAX <= self.queue.copied_bytes() {
            let stage = job.stage;
            self.cleaner.job = Some(Job {
                segment,
                stage,
                is_waiting: true,
            });
            return;
        }
        match self.clean_step(segment, job.stage) {
            Progress::Next(stage) => {
                self.cleaner.job = Some(Job {
                    segment,
                    stage,
                    is_waiting: false,
                });
            }
            Progress::Wait(stage) => {
                self.cleaner.job = Some(Job {
                    segment,
                    stage,
                    is_waiting: true,
                });
            }
            Progress::Damaged => drop(self.state.protected.insert(segment)),
            // What has been copied counts where it stands now; the rest is looked at again.
            Progress::NoRoom => self.cleaner.stop(),
        }
        self.finish_job();
    }

    fn next_job(&mut self) -> Option<Job> {
        let segment = self.cleaner.candidates.pop_front()?;
        self.segments.contains_key(&segment).then_some(Job {
            segment,
            stage: Stage::Messages(None, 0),
            is_waiting: false,
        })
    }

    fn clean_step(&mut self, segment: u64, stage: Stage) -> Progress {
        match stage {
            // Nothing is looked for where nothing is needed.
            Stage::Messages(..) | Stage::Topics(_) | Stage::Subscriptions(_)
                if self.state.live.bytes(segment) == 0 =>
            {
                Progress::Next(Stage::Durable(self.appended))
            }
            Stage::Messages(after, from) => self.clean_messages(segment, after, from),
            Stage::Topics(after) => self.clean_topics(segment, after),
            Stage::Subscriptions(after) => self.clean_subscriptions(segment, after),
            Stage::Graves(after) => self.clean_graves(segment, after),
            Stage::Durable(ticket) => Progress::Wait(Stage::Durable(ticket)),
        }
    }

    /// Finds the next topic of which messages are needed, and copies some of them.
    fn clean_messages(
        &mut self,
        segment: u64,
        mut after: Option<HomedId>,
        mut from: Seq,
    ) -> Progress {
        for _ in 0..SLICE_ITEMS {
            let id = match self.topic_behind(segment, after) {
                Ok(Some(Some(id))) => id,
                Ok(Some(None)) => return Progress::Next(Stage::Topics(None)),
                Ok(None) => return Progress::Wait(Stage::Messages(after, from)),
                Err(Broken) => return Progress::Damaged,
            };
            let topic = self.state.topics.get(&id);
            let is_here = |span: &&Span| span.segment == segment && from <= span.last;
            let span = topic.and_then(|topic| topic.spans.iter().find(is_here).copied());
            if let Some(span) = span {
                return self.clean_span(id, span, (after, from));
            }
            (after, from) = (Some(id), 0);
        }
        Progress::Next(Stage::Messages(after, from))
    }

    /// The topic behind `after` of which the index of the segment knows messages; the outer `None`
    /// until the index is in memory.
    fn topic_behind(
        &mut self,
        segment: u64,
        after: Option<HomedId>,
    ) -> Result<Option<Option<HomedId>>, Broken> {
        let blocks = self.segments.get(&segment).map(|info| &info.blocks);
        if let Some(Blocks::Held(index) | Blocks::Open(index)) = blocks {
            return Ok(Some(index.topic_behind(after)));
        }
        let index = self.stored_index(segment)?;
        Ok(index.map(|index| index.topic_behind(after)))
    }

    /// Copies some messages of a span.
    fn clean_span(
        &mut self,
        id: HomedId,
        span: Span,
        (after, from): (Option<HomedId>, Seq),
    ) -> Progress {
        let (from, last) = (from.max(span.first), span.last);
        let mut copies = Vec::new();
        let mut is_damaged = false;
        let (_, end) = self.read(id, from, COPY_LIMITS, &mut |item| match item {
            ReadItem::Message(publish) if publish.seq <= last => {
                Entry::Publish(publish).encode(&mut copies);
            }
            ReadItem::Damaged { from, .. } if from <= last => is_damaged = true,
            ReadItem::Message(_) | ReadItem::Damaged { .. } | ReadItem::Trimmed { .. } => {}
        });
        if is_damaged {
            return Progress::Damaged;
        }
        let (next, result) = self.append_copies(&copies, from);
        let stage = Stage::Messages(after, next);
        match result {
            Err(error) => Progress::without_room(error, stage),
            Ok(()) if matches!(end, ReadEnd::Loading(_)) => Progress::Wait(stage),
            Ok(()) => Progress::Next(stage),
        }
    }

    /// Appends what fits; tells from which seq to go on.
    fn append_copies(&mut self, copies: &[u8], from: Seq) -> (Seq, Result<(), AppendError>) {
        let (mut at, mut next) = (0, from);
        while let Some(frame) = Frame::at(copies, at) {
            if let Some(entry @ Entry::Publish(publish)) = Entry::decode(frame) {
                if let Err(error) = self.append_copy(&entry) {
                    return (next, Err(error));
                }
                next = publish.seq + 1;
            }
            at += frame.stride();
        }
        (next, Ok(()))
    }

    /// Writes topics again whose newest entry stands in the segment.
    fn clean_topics(&mut self, segment: u64, after: Option<HomedId>) -> Progress {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let slice = self
            .state
            .topics
            .range((from, Bound::Unbounded))
            .take(SLICE_ITEMS);
        let slice: Vec<(HomedId, bool)> = slice
            .map(|(id, topic)| (*id, topic.segment == segment && topic.name.is_some()))
            .collect();
        let mut last = after;
        for &(id, is_here) in &slice {
            if is_here && let Err(error) = self.append_topic(id, Class::Copies, |_| ()) {
                return Progress::without_room(error, Stage::Topics(last));
            }
            last = Some(id);
        }
        let is_end = slice.len() < SLICE_ITEMS;
        Progress::Next(if is_end {
            Stage::Subscriptions(None)
        } else {
            Stage::Topics(last)
        })
    }

    /// Writes subscriptions again whose newest entry or cursor stands in the segment.
    fn clean_subscriptions(&mut self, segment: u64, after: Option<HomedId>) -> Progress {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let slice = self
            .state
            .subscriptions
            .range((from, Bound::Unbounded))
            .take(SLICE_ITEMS);
        let slice: Vec<(HomedId, bool)> = slice
            .map(|(id, old)| (*id, old.segment == segment || old.cursor_segment == segment))
            .collect();
        let mut last = after;
        for &(id, is_here) in &slice {
            if is_here && let Err(error) = self.append_subscription_again(id) {
                return Progress::without_room(error, Stage::Subscriptions(last));
            }
            last = Some(id);
        }
        let is_end = slice.len() < SLICE_ITEMS;
        Progress::Next(if is_end {
            Stage::Graves(None)
        } else {
            Stage::Subscriptions(last)
        })
    }

    fn append_subscription_again(&mut self, id: HomedId) -> Result<(), AppendError> {
        let mut bytes = Vec::new();
        if let Some(entry) = self.state.subscription_entry(id) {
            Entry::Subscription(entry).encode(&mut bytes);
        }
        match Frame::at(&bytes, 0).and_then(Entry::decode) {
            Some(entry @ Entry::Subscription(subscription)) => self
                .append_entry(subscription.topic, Class::Copies, &entry)
                .map(drop),
            _ => Ok(()),
        }
    }

    /// Writes deletions again that older segments still need, forgets the others, and the epoch last.
    fn clean_graves(&mut self, segment: u64, after: Option<HomedId>) -> Progress {
        let segments = self.segments_on_disk();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let slice = self.state.graves.range((from, Bound::Unbounded));
        let slice: Vec<(HomedId, bool, bool)> = slice
            .take(SLICE_ITEMS)
            .map(|(id, grave)| (*id, grave.is_topic, grave.segment == segment))
            .collect();
        let mut last = after;
        for &(id, is_topic, is_here) in &slice {
            if is_here && !self.state.forget_grave(id, &segments) {
                let entry = match is_topic {
                    true => Entry::TopicDeleted { id },
                    false => Entry::SubscriptionDeleted { id },
                };
                if let Err(error) = self.append_entry(id, Class::Copies, &entry) {
                    return Progress::without_room(error, Stage::Graves(last));
                }
            }
            last = Some(id);
        }
        if slice.len() == SLICE_ITEMS {
            return Progress::Next(Stage::Graves(last));
        }
        let generation = self.state.generation;
        let epoch = Entry::Epoch { generation };
        if 0 < generation
            && let Err(error) = self.append_entry(nobody(), Class::Copies, &epoch)
        {
            return Progress::without_room(error, Stage::Graves(last));
        }
        Progress::Next(Stage::Durable(self.appended))
    }

    /// All that was needed of the segment is durable elsewhere.
    fn finish_job(&mut self) {
        let is_done =
            |job: &mut Job| matches!(job.stage, Stage::Durable(ticket) if ticket <= self.durable);
        let Some(job) = self.cleaner.job.take_if(is_done) else {
            return;
        };
        let is_needed = 0 < self.state.live.bytes(job.segment);
        debug_assert!(!is_needed, "nothing needs a segment that has been cleaned");
        if is_needed {
            self.state.protected.insert(job.segment);
        } else if let Some(info) = self.segments.remove(&job.segment) {
            self.reader.forget(job.segment);
            self.cleaner.retired.push(Prepared {
                id: job.segment,
                bytes: info.bytes,
            });
        }
        if self.cleaner.candidates.is_empty() {
            self.checkpoint.want();
        }
    }
}
