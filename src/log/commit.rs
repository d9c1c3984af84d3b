//! From a record to a durable batch: room, queue, one batch in flight, what its end means.
//!
//! Bound: what waits fits the active segment and the one that is prepared; past that an append is
//! refused with [`AppendError::Busy`] or [`AppendError::StorageFull`], and the caller keeps it.

use std::io;

use bytes::{Buf, Bytes};

use crate::id::{HomedId, Seq};

use super::batch::{OpenBatch, Origin, RUN_BYTES, Run, batch_bytes};
use super::commit_log::{Active, Blocks, CommitLog, Event, Fsync, LogState, SegmentInfo, Ticket};
use super::index::OpenIndex;
use super::layout::{Frame, to_usize};
use super::rebuild::index_frame;
use super::record::{
    CURSOR_BYTES, Entry, Publish, Record, SubscriptionEntry, TEXT_BYTES_MAX, TopicEntry,
};
use super::room::{Class, ENTRY_BYTES};
use super::segment::{SEGMENT_HEAD_BYTES, SegmentHead};
use super::state::nobody;
use super::storage::{Done, FileName, Op};

/// Why a record was refused. It has used up nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A write or sync has failed before.
    #[error("the log has failed and takes nothing until the next start")]
    Failed,
    /// The disk is full up to the reserve; the log goes on by itself when there is space.
    #[error("the disk is full up to durable.reserve_bytes")]
    StorageFull,
    /// The disk is slower than what comes in: try again when an effect has ended.
    #[error("the next segment is not ready yet")]
    Busy,
    /// A name, publisher, key or event can never be stored.
    #[error("text of {bytes} bytes in a record exceeds the {bytes_max} that the log stores")]
    TextTooLong {
        /// Its size.
        bytes: usize,
        /// The most a text may have.
        bytes_max: usize,
    },
    /// It can never be stored.
    #[error(
        "record of {bytes} bytes exceeds {bytes_max}, which follows from durable.segment_bytes_max"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most a record may have.
        bytes_max: usize,
    },
}

/// The batch that is being written.
#[derive(Debug)]
pub(super) struct Flight {
    segment: u64,
    offset: u64,
    /// What is not written yet.
    rest: Bytes,
    is_out: bool,
    runs: Vec<Run>,
    ticket: u64,
}

impl CommitLog {
    /// Takes a record into the next batch. A publish must carry the seq after the topic's last;
    /// all that a record names must exist.
    pub fn append(&mut self, record: &Record<'_>) -> Result<Ticket, AppendError> {
        match *record {
            Record::CursorMoved { subscription, seq } => self.append_cursor(subscription, seq),
            Record::Publish(publish) => self.append_publish(publish),
            Record::TopicCreated {
                id,
                tenant,
                name,
                created_at_ms,
                retention,
            } => {
                let (first_seq, last_seq) = (1, 0);
                let tenant = tenant.as_str();
                self.append_new_topic(TopicEntry {
                    id,
                    tenant,
                    name,
                    created_at_ms,
                    first_seq,
                    last_seq,
                    retention,
                })
            }
            Record::RetentionChanged { topic, retention } => {
                self.append_topic(topic, Class::Control, |entry| entry.retention = retention)
            }
            Record::Trimmed { topic, first_seq } => {
                self.append_topic(topic, Class::Control, |entry| {
                    entry.first_seq = entry.first_seq.max(first_seq)
                })
            }
            Record::TopicDeleted { id } => {
                assert!(
                    self.state.topics.contains_key(&id),
                    "a topic that is deleted exists"
                );
                self.append_entry(id, Class::Control, &Entry::TopicDeleted { id })
            }
            Record::SubscriptionCreated {
                id,
                topic,
                name,
                maker,
                cursor,
                created_at_ms,
            } => self.append_new_subscription(SubscriptionEntry {
                id,
                topic,
                name,
                maker,
                cursor,
                created_at_ms,
            }),
            Record::SubscriptionDeleted { id } => self.append_subscription_deleted(id),
        }
    }

    /// Takes messages of one topic, with consecutive seqs, into one batch or not at all.
    pub fn append_publishes(&mut self, publishes: &[Publish<'_>]) -> Result<Ticket, AppendError> {
        let [first, rest @ ..] = publishes else {
            return Ok(Ticket(self.appended));
        };
        let mut bytes = first.stored_bytes();
        for publish in rest {
            bytes += publish.stored_bytes() + RUN_BYTES;
            check_texts(&Entry::Publish(*publish))?;
        }
        self.check_room(Class::Bulk, bytes)?;
        let ticket = self.append_publish(*first)?;
        for publish in rest {
            let entry = Entry::Publish(*publish);
            self.assert_next(publish);
            self.state.apply(&entry);
            if let Some(batch) = self.queue.back_mut() {
                batch.push(publish.topic, Origin::New, &entry);
            }
        }
        Ok(ticket)
    }

    fn assert_next(&self, publish: &Publish<'_>) {
        let topic = self.state.topics.get(&publish.topic);
        let next = topic.map(|topic| topic.last_seq + 1);
        assert_eq!(next, Some(publish.seq), "seqs have no gap");
    }

    fn append_publish(&mut self, publish: Publish<'_>) -> Result<Ticket, AppendError> {
        self.assert_next(&publish);
        self.append_entry(publish.topic, Class::Bulk, &Entry::Publish(publish))
    }

    fn append_new_topic(&mut self, entry: TopicEntry<'_>) -> Result<Ticket, AppendError> {
        assert!(
            !self.state.topics.contains_key(&entry.id),
            "a topic is created once"
        );
        self.append_entry(entry.id, Class::Bulk, &Entry::Topic(entry))
    }

    fn append_new_subscription(
        &mut self,
        entry: SubscriptionEntry<'_>,
    ) -> Result<Ticket, AppendError> {
        let exists = self.state.topics.contains_key(&entry.topic);
        assert!(exists, "a subscription has a topic");
        self.append_entry(entry.topic, Class::Bulk, &Entry::Subscription(entry))
    }

    /// The topic's own entry is always written whole.
    pub(super) fn append_topic(
        &mut self,
        id: HomedId,
        class: Class,
        change: impl FnOnce(&mut TopicEntry<'_>),
    ) -> Result<Ticket, AppendError> {
        let topic = self.state.topics.get(&id);
        let name = topic.and_then(|topic| topic.name.clone());
        assert!(name.is_some(), "a topic that is changed exists");
        let (Some(topic), Some(name)) = (topic, name) else {
            return Err(AppendError::Failed);
        };
        let mut entry = TopicEntry {
            id,
            tenant: name.tenant.as_str(),
            name: &name.name,
            created_at_ms: name.created_at_ms,
            first_seq: topic.first_seq,
            last_seq: topic.last_seq,
            retention: topic.retention,
        };
        change(&mut entry);
        assert!(
            entry.first_seq <= entry.last_seq + 1,
            "only what exists is trimmed"
        );
        self.append_entry(id, class, &Entry::Topic(entry))
    }

    fn append_subscription_deleted(&mut self, id: HomedId) -> Result<Ticket, AppendError> {
        let topic = self
            .state
            .subscriptions
            .get(&id)
            .map(|subscription| subscription.topic);
        assert!(topic.is_some(), "a subscription that is deleted exists");
        let topic = topic.unwrap_or_else(nobody);
        self.append_entry(topic, Class::Control, &Entry::SubscriptionDeleted { id })
    }

    fn append_cursor(&mut self, subscription: HomedId, seq: Seq) -> Result<Ticket, AppendError> {
        self.append_cursors(&[(subscription, seq)])
    }

    /// Takes moves of cursors: all of them or none.
    pub fn append_cursors(&mut self, moves: &[(HomedId, Seq)]) -> Result<Ticket, AppendError> {
        self.check_room(Class::Cursors, moves.len() * CURSOR_BYTES)?;
        for &(subscription, seq) in moves {
            let has_owner = self.state.subscriptions.contains_key(&subscription);
            assert!(has_owner, "a cursor has an owner");
            self.state.move_cursor(subscription, seq);
            self.push(false, |batch| batch.move_cursor(subscription, seq));
        }
        Ok(Ticket(self.appended))
    }

    pub(super) fn append_entry(
        &mut self,
        topic: HomedId,
        class: Class,
        entry: &Entry<'_>,
    ) -> Result<Ticket, AppendError> {
        check_texts(entry)?;
        self.check_room(class, entry_bytes(entry))?;
        self.state.apply(entry);
        if class == Class::Control {
            self.look_for_all_if_full();
        }
        let alone = self.config.fsync == Fsync::Always && class == Class::Bulk;
        Ok(self.push(alone, |batch| batch.push(topic, Origin::New, entry)))
    }

    /// A message that cleaning needs at another place.
    pub(super) fn append_copy(&mut self, entry: &Entry<'_>) -> Result<Ticket, AppendError> {
        let Entry::Publish(publish) = entry else {
            return Err(AppendError::Failed);
        };
        self.check_room(Class::Copies, entry_bytes(entry))?;
        Ok(self.push(false, |batch| {
            batch.push(publish.topic, Origin::Copy, entry)
        }))
    }

    fn push(&mut self, alone: bool, put: impl FnOnce(&mut OpenBatch)) -> Ticket {
        let full = |batch: &OpenBatch| self.config.sync_bytes_max <= batch.bytes();
        if alone || self.queue.back().is_none_or(full) {
            self.queue.begin();
        }
        self.appended += 1;
        if let Some(batch) = self.queue.back_mut() {
            put(batch);
            batch.ticket = self.appended;
        }
        Ticket(self.appended)
    }

    /// Whether the record fits into space that is already taken: a disk that is full is told
    /// before anything is written, so it never harms what was accepted.
    pub(super) fn check_room(&mut self, class: Class, bytes: usize) -> Result<(), AppendError> {
        if self.state() == LogState::Failed {
            return Err(AppendError::Failed);
        }
        let bytes_max = self.config.record_bytes_max();
        if bytes_max < bytes {
            return Err(AppendError::TooLarge { bytes, bytes_max });
        }
        if class == Class::Bulk && !self.ballast.is_whole() {
            return Err(match self.ballast.is_lacking() {
                true => AppendError::StorageFull,
                false => AppendError::Busy,
            });
        }
        let queued = self.queue.bytes();
        let alone = bytes + RUN_BYTES + batch_bytes(0, 1, 1);
        let wanted = queued + alone;
        let reserve = class.kept_back(to_usize(self.config.reserve_bytes));
        let next = to_usize(self.prepare.usable_bytes().unwrap_or(0));
        let left = self.active.map_or(0, |active| active.bytes - active.end);
        let fits_active = wanted <= left && wanted + reserve <= left + next;
        if fits_active || SEGMENT_HEAD_BYTES + wanted + reserve <= next {
            return Ok(());
        }
        let needed = (SEGMENT_HEAD_BYTES + alone + reserve) as u64;
        let is_refused =
            (next as u64) < needed && self.prepare.is_refused(needed, self.last_now_us());
        if self.queue.is_empty() && 0 < next && !is_refused {
            self.prepare.require(needed);
        }
        let is_full = is_refused || self.prepare.is_full();
        Err(if is_full && !self.is_freeing(class) {
            AppendError::StorageFull
        } else {
            AppendError::Busy
        })
    }

    /// Nothing, while a batch or a segment is awaited: their end will wake the caller.
    pub(super) fn commit_deadline_us(&self) -> Option<u64> {
        let since = self.waiting_since_us.filter(|_| self.flight.is_none())?;
        let bytes = self.queue.front()?.bytes();
        let fits = self
            .active
            .is_some_and(|active| bytes <= active.bytes - active.end);
        (fits || self.prepare.is_takable()).then(|| self.due_us(since))
    }

    /// Until when the first batch of the queue waits, seen first at `since_us`.
    fn due_us(&self, since_us: u64) -> u64 {
        let is_only_cursors = self.queue.front().is_some_and(OpenBatch::is_only_cursors);
        let full = |batch: &OpenBatch| self.config.sync_bytes_max <= batch.bytes();
        if self.is_closing || 1 < self.queue.len() || self.queue.front().is_some_and(full) {
            since_us
        } else if is_only_cursors {
            since_us + self.config.cursor_delay_us_max
        } else {
            let company_us = self.company.wait_us(self.appended - self.durable);
            company_us.max(since_us + self.config.sync_delay_us_max)
        }
    }

    pub(super) fn poll_commit(&mut self, now_us: u64) -> Option<Op> {
        if self.flight.is_none() {
            self.company.look(now_us);
            self.start_batch(now_us)?;
        }
        let flight = self.flight.as_mut().filter(|flight| !flight.is_out)?;
        flight.is_out = true;
        Some(Op::Write {
            file: FileName::Segment(flight.segment),
            offset: flight.offset,
            bytes: flight.rest.clone(),
            sync: self.config.fsync != Fsync::Os,
        })
    }

    /// Closes the first batch of the queue, if it has waited long enough and has a place.
    fn start_batch(&mut self, now_us: u64) -> Option<()> {
        let bytes = self.queue.front()?.bytes();
        let since = *self.waiting_since_us.get_or_insert(now_us);
        if now_us < self.due_us(since) {
            return None;
        }
        let head = match self.active {
            Some(active) if bytes <= active.bytes - active.end => None,
            _ => Some(self.start_segment()?),
        };
        let active = self.active?;
        let batch = self.queue.pop_front()?;
        self.company.begin(now_us, batch.ticket - self.durable);
        self.waiting_since_us = (!self.queue.is_empty()).then_some(now_us);
        let place = self.place(active.id);
        let closed = batch.close(place, active.end, self.chain, head.as_deref());
        self.chain = closed.chain;
        self.take_places(
            active.id,
            closed.offset,
            &closed.bytes[closed.start..],
            closed.start,
        );
        self.tail
            .push(active.id, closed.offset, closed.bytes.clone());
        self.flight = Some(Flight {
            segment: active.id,
            offset: closed.offset as u64,
            rest: closed.bytes,
            is_out: false,
            runs: closed.runs,
            ticket: closed.ticket,
        });
        Some(())
    }

    /// Goes on in the prepared segment; its head goes out with its first batch.
    fn start_segment(&mut self) -> Option<Vec<u8>> {
        let next = self.prepare.take()?;
        if let Some(active) = self.active {
            self.seal(active.id);
        }
        let (previous, previous_end) = self.previous;
        let head = SegmentHead {
            partition: self.partition,
            previous,
            previous_end: super::layout::to_u32(previous_end),
            chain: self.chain,
        };
        let blocks = Blocks::Open(OpenIndex::default());
        self.segments.insert(
            next.id,
            SegmentInfo {
                bytes: next.bytes,
                end: 0,
                blocks,
            },
        );
        self.active = Some(Active {
            id: next.id,
            bytes: to_usize(next.bytes),
            end: 0,
        });
        Some(head.encode(self.place(next.id)))
    }

    /// Notes where the entries of a batch stand, and that the segment has grown.
    fn take_places(&mut self, segment: u64, offset: usize, batch: &[u8], start: usize) {
        let Some(info) = self.segments.get_mut(&segment) else {
            return;
        };
        let mut at = 0;
        while let Some(frame) = Frame::at(batch, at) {
            if let Some(entry) = Entry::decode(frame) {
                self.state.place(&entry, segment);
            }
            if let Blocks::Open(index) = &mut info.blocks {
                index_frame(index, offset + start + at, frame);
            }
            at += frame.stride();
        }
        debug_assert_eq!(at, batch.len(), "a batch is made of frames");
        info.end = offset + start + at;
        self.previous = (segment, info.end);
        self.checkpoint.note_written(start + at);
        if let Some(active) = &mut self.active {
            active.end = info.end;
        }
    }

    pub(super) fn commit_done(&mut self, result: io::Result<Done>) -> io::Result<()> {
        let Some(mut flight) = self.flight.take() else {
            return Ok(());
        };
        let Done::Count(count) = result? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        if count == 0 || flight.rest.len() < count {
            return Err(io::ErrorKind::WriteZero.into());
        }
        flight.rest.advance(count);
        flight.offset += count as u64;
        flight.is_out = false;
        if flight.rest.is_empty() {
            self.batch_durable(&flight);
        } else {
            self.flight = Some(flight);
        }
        Ok(())
    }

    fn batch_durable(&mut self, flight: &Flight) {
        assert!(
            self.durable < flight.ticket,
            "batches become durable in order"
        );
        self.company.end(self.appended - self.durable);
        self.durable = flight.ticket;
        let mut topics = Vec::with_capacity(flight.runs.len());
        for run in &flight.runs {
            if let Some(topic) = self.state.topics.get_mut(&run.topic)
                && topic.durable_seq < run.last()
            {
                topic.durable_seq = run.last();
                topics.push((run.topic, run.last()));
            }
        }
        self.events.push_back(Event::Durable {
            up_to: Ticket(flight.ticket),
            topics,
        });
    }
}

/// What an entry takes, without encoding it.
fn entry_bytes(entry: &Entry<'_>) -> usize {
    match entry {
        Entry::Publish(publish) => publish.stored_bytes(),
        Entry::Topic(topic) => ENTRY_BYTES + topic.tenant.len() + topic.name.len(),
        Entry::Subscription(subscription) => {
            ENTRY_BYTES + subscription.name.len() + subscription.maker.len()
        }
        Entry::Cursors(_)
        | Entry::TopicDeleted { .. }
        | Entry::SubscriptionDeleted { .. }
        | Entry::Epoch { .. } => ENTRY_BYTES,
    }
}

fn check_texts(entry: &Entry<'_>) -> Result<(), AppendError> {
    let texts = match entry {
        Entry::Publish(publish) => [
            publish.publisher,
            publish.key.unwrap_or_default(),
            publish.event,
        ],
        Entry::Topic(topic) => [topic.tenant, topic.name, ""],
        Entry::Subscription(subscription) => [subscription.name, subscription.maker, ""],
        _ => return Ok(()),
    };
    let bytes = texts.map(str::len).into_iter().fold(0, usize::max);
    let bytes_max = TEXT_BYTES_MAX;
    if bytes <= bytes_max {
        Ok(())
    } else {
        Err(AppendError::TextTooLong { bytes, bytes_max })
    }
}
