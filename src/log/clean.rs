//! Gives space back: copies what is still needed of a mostly dead segment to the tail, and lets the
//! segment go once a durable checkpoint does not name it. Damaged segments are left alone.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Bound;

use ahash::{AHashMap, AHashSet};

use crate::id::{HomedId, Seq};

use super::commit::AppendError;
use super::commit_log::{Blocks, CommitLog};
use super::layout::Frame;
use super::prepare::Prepared;
use super::read::{ReadEnd, ReadItem, ReadLimits};
use super::record::Entry;
use super::room::Class;
use super::state::nobody;
use super::storage::{Done, FileName, Op};

/// Copied in one call.
const COPY_LIMITS: ReadLimits = ReadLimits {
    messages_max: 256,
    bytes_max: 64 * 1024,
};

/// Copies that may wait in the queue, so that they never crowd out what is new.
const COPIED_BYTES_MAX: usize = 256 * 1024;

/// Topics or subscriptions looked at in one call.
const SLICE_ITEMS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Cleaner {
    job: Option<Job>,
    candidates: VecDeque<u64>,
    /// Segments with damage in them: never cleaned, so that nothing of them is lost.
    damaged: AHashSet<u64>,
    /// Segments that nothing needs, named by the last checkpoint still.
    retired: Vec<Prepared>,
    ops: VecDeque<Task>,
    in_flight: Option<Task>,
}

#[derive(Debug)]
struct Job {
    segment: u64,
    stage: Stage,
    is_waiting: bool,
}

#[derive(Debug)]
enum Stage {
    Index,
    /// Messages of the topics in the list, the first of them from the seq on.
    Messages(VecDeque<HomedId>, Seq),
    Topics(Option<HomedId>),
    Subscriptions(Option<HomedId>),
    Graves,
    /// All is appended; the append that must be durable.
    Durable(u64),
}

/// An operation, or what to do when all before it have been done.
#[derive(Debug, Clone)]
enum Task {
    Op(Op),
    /// The segment's file is gone for good.
    Gone(u64),
}

/// What one step of a job came to.
enum Progress {
    /// Go on with this.
    Next(Stage),
    /// Come again: something must be read or written first.
    Wait(Stage),
    /// Something is damaged: leave the segment as it is.
    Damaged,
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
            Task::Gone(_) => None,
        }
    }
}

impl CommitLog {
    pub(super) fn clean_done(&mut self, result: io::Result<Done>) -> io::Result<()> {
        self.cleaner.in_flight = None;
        result.map(drop)?;
        let mut is_gone = false;
        while let Some(Task::Gone(_)) = self.cleaner.ops.front() {
            self.cleaner.ops.pop_front();
            is_gone = true;
        }
        if is_gone {
            let segments = self.segments_on_disk();
            self.state.forget_graves(&segments);
        }
        Ok(())
    }

    /// A checkpoint is durable: what it does not name may go, and what it found to be mostly dead
    /// may be cleaned.
    pub(super) fn checkpoint_durable(
        &mut self,
        old: Option<u64>,
        retired: usize,
        live: &AHashMap<u64, u64>,
    ) {
        let cleaner = &mut self.cleaner;
        if let Some(old) = old {
            cleaner.push_op(Op::Remove {
                file: FileName::Checkpoint(old),
            });
            cleaner.push_op(Op::SyncDirectory);
        }
        let gone: Vec<Prepared> = cleaner.retired.drain(..retired).collect();
        for segment in &gone {
            cleaner.push_op(Op::Remove {
                file: FileName::Index(segment.id),
            });
        }
        for segment in &gone {
            if !self.prepare.recycle(*segment) {
                cleaner.push_op(Op::Remove {
                    file: FileName::Segment(segment.id),
                });
            }
        }
        if !gone.is_empty() {
            cleaner.push_op(Op::SyncDirectory);
        }
        cleaner
            .ops
            .extend(gone.iter().map(|segment| Task::Gone(segment.id)));
        let percent_max = self.config.clean_live_percent_max;
        let is_dead = |id: &u64, end: usize| {
            live.get(id).copied().unwrap_or(0) * 100 < end as u64 * percent_max
        };
        let full = self
            .segments
            .iter()
            .filter(|(_, info)| !matches!(info.blocks, Blocks::Open(_)));
        cleaner.candidates = full
            .filter(|(id, info)| is_dead(id, info.end) && !cleaner.damaged.contains(id))
            .map(|(id, _)| *id)
            .collect();
    }

    /// Takes one bounded step of cleaning.
    pub(super) fn poll_cleaner(&mut self) {
        if self.is_closing {
            return;
        }
        let Some(job) = self.cleaner.job.take().or_else(|| self.next_job()) else {
            return;
        };
        let segment = job.segment;
        let copied: usize = self.queue.iter().map(|batch| batch.copied_bytes).sum();
        if COPIED_BYTES_MAX <= copied {
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
            Progress::Damaged => drop(self.cleaner.damaged.insert(segment)),
        }
        self.finish_job();
    }

    fn next_job(&mut self) -> Option<Job> {
        let segment = self.cleaner.candidates.pop_front()?;
        self.segments.contains_key(&segment).then_some(Job {
            segment,
            stage: Stage::Index,
            is_waiting: false,
        })
    }

    fn clean_step(&mut self, segment: u64, stage: Stage) -> Progress {
        match stage {
            Stage::Index => match self.stored_index(segment) {
                Ok(Some(index)) => Progress::Next(Stage::Messages(index.topics().collect(), 0)),
                Ok(None) => Progress::Wait(Stage::Index),
                Err(_) => Progress::Damaged,
            },
            Stage::Messages(topics, from) => self.clean_messages(segment, topics, from),
            Stage::Topics(after) => self.clean_topics(segment, after),
            Stage::Subscriptions(after) => self.clean_subscriptions(segment, after),
            Stage::Graves => self.clean_graves(segment),
            Stage::Durable(ticket) => Progress::Wait(Stage::Durable(ticket)),
        }
    }

    /// Copies some messages of the first topic in the list.
    fn clean_messages(
        &mut self,
        segment: u64,
        mut topics: VecDeque<HomedId>,
        from: Seq,
    ) -> Progress {
        let Some(&id) = topics.front() else {
            return Progress::Next(Stage::Topics(None));
        };
        let spans = self.state.topics.get(&id).map(|topic| &topic.spans);
        let mut spans = spans.into_iter().flat_map(|spans| spans.iter());
        let span = spans
            .find(|span| span.segment == segment && from <= span.last)
            .copied();
        drop(spans);
        let Some(span) = span else {
            topics.pop_front();
            return Progress::Next(Stage::Messages(topics, 0));
        };
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
        let stage = Stage::Messages(topics, next);
        if result.is_err() || end == ReadEnd::Loading {
            Progress::Wait(stage)
        } else {
            Progress::Next(stage)
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
            .map(|(id, topic)| (*id, topic.segment == segment))
            .collect();
        let mut last = after;
        for &(id, is_here) in &slice {
            if is_here && self.append_topic(id, |_| ()).is_err() {
                return Progress::Wait(Stage::Topics(last));
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
            if is_here && self.append_subscription_again(id).is_err() {
                return Progress::Wait(Stage::Subscriptions(last));
            }
            last = Some(id);
        }
        let is_end = slice.len() < SLICE_ITEMS;
        Progress::Next(if is_end {
            Stage::Graves
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
                .append_entry(subscription.topic, Class::Control, &entry)
                .map(drop),
            _ => Ok(()),
        }
    }

    /// Writes deletions again that older segments still need, and the epoch.
    fn clean_graves(&mut self, segment: u64) -> Progress {
        let segments = self.segments_on_disk();
        let here = self
            .state
            .graves
            .iter()
            .filter(|(_, grave)| grave.segment == segment);
        let needed = here.filter(|(_, grave)| grave.is_needed(&segments));
        let needed: Vec<(HomedId, bool)> =
            needed.map(|(id, grave)| (*id, grave.is_topic)).collect();
        let generation = self.state.generation;
        let epoch = (0 < generation).then_some((None, Entry::Epoch { generation }));
        let deletion = |(id, is_topic)| match is_topic {
            true => (Some(id), Entry::TopicDeleted { id }),
            false => (Some(id), Entry::SubscriptionDeleted { id }),
        };
        for (id, entry) in needed.into_iter().map(deletion).chain(epoch) {
            let group = id.unwrap_or_else(nobody);
            if self.append_entry(group, Class::Control, &entry).is_err() {
                return Progress::Wait(Stage::Graves);
            }
        }
        Progress::Next(Stage::Durable(self.appended))
    }

    /// The segments of which a start without a checkpoint would read.
    fn segments_on_disk(&self) -> BTreeSet<u64> {
        let going = self.cleaner.ops.iter().filter_map(|task| match task {
            Task::Gone(segment) => Some(*segment),
            Task::Op(_) => None,
        });
        let retired = self.cleaner.retired.iter().map(|segment| segment.id);
        let old = self.prepare.old_segments();
        let segments = self.segments.keys().copied();
        segments.chain(retired).chain(going).chain(old).collect()
    }

    /// All that was needed of the segment is durable elsewhere.
    fn finish_job(&mut self) {
        let is_done =
            |job: &mut Job| matches!(job.stage, Stage::Durable(ticket) if ticket <= self.durable);
        let Some(job) = self.cleaner.job.take_if(is_done) else {
            return;
        };
        let is_needed = self.state.topics.values().any(|topic| {
            topic.segment == job.segment
                || topic.spans.iter().any(|span| span.segment == job.segment)
        });
        debug_assert!(!is_needed, "nothing needs a segment that has been cleaned");
        if is_needed {
            self.cleaner.damaged.insert(job.segment);
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
