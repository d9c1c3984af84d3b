//! One log partition on its shard: the home of its topics, its log, and what goes between the
//! two. What the home wants kept is appended; what the log wants written goes to the ring; what
//! the log reports goes back to the home. Decides nothing about topics or files.
//!
//! Bounds: what the log has no room for yet waits in the home, which bounds it; `parked` holds one
//! read a bound subscription and `histories_max` more. The log is asked for room before the home
//! gives anything a seq, and what it then appends stands in the next batch.

use std::collections::VecDeque;

use ahash::AHashMap;
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::broker::durable::{
    Answer, AppendId, Durable, Effect, Message, Now, Peer, ReadId, ReadItem, Refused, Request,
    Value,
};
use crate::id::{HomedId, Seq};
use crate::log::{
    AppendError, Awaited, CommitLog, Event, Now as LogNow, Publish, ReadEnd, ReadItem as LogItem,
    ReadLimits, Record, Ticket,
};
use crate::metrics::{Counter, Gauge, Recorder, ShardMetrics, Timing};

use crate::shard::kernel::file::{Files, Owner};
use crate::shard::kernel::ring::Ring;

/// What a shard is given of a partition when it starts.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) home: Durable,
    pub(crate) log: CommitLog,
    pub(crate) folder: std::path::PathBuf,
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Store {
    /// Its place among the logs of the shard.
    index: usize,
    home: Durable,
    log: CommitLog,
    /// What the log has taken, in order; a publish with the time when it was asked for.
    tickets: VecDeque<(AppendId, Ticket, Option<u64>)>,
    /// Reads by what they wait for to come into memory.
    parked: AHashMap<Awaited, SmallVec<[Read; 1]>>,
    /// The home may have more to give than one turn takes.
    unfinished: bool,
}

/// A read that the home asked for.
#[derive(Debug, Clone, Copy)]
struct Read {
    id: ReadId,
    topic: HomedId,
    from: Seq,
    through: Seq,
    bytes_max: u64,
    count_max: u32,
}

/// The clocks of one turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) monotonic_us: u64,
    pub(crate) unix_ms: u64,
}

impl Clock {
    fn of_home(self) -> Now {
        Now {
            mono_ms: self.monotonic_us / 1_000,
            unix_ms: self.unix_ms,
        }
    }

    fn of_log(self) -> LogNow {
        LogNow {
            monotonic_us: self.monotonic_us,
            unix_ms: self.unix_ms,
        }
    }
}

/// What a store needs of its shard while it works.
pub(crate) struct Hands<'a> {
    pub(crate) clock: Clock,
    pub(crate) ring: &'a mut Ring,
    pub(crate) files: &'a mut Files,
    pub(crate) metrics: &'a ShardMetrics,
    pub(crate) recorder: &'a Recorder,
    /// Brings an answer to its peer.
    pub(crate) answer: &'a mut dyn FnMut(Peer, Option<Bytes>, Answer),
}

/// Effects of a home that are carried out in one turn: a commit that 10,000 subscribers wait for
/// takes several, between which sockets are served.
const TURN_EFFECTS_MAX: usize = 1_024;

impl Store {
    pub(crate) fn new(index: usize, mut recovered: Recovered) -> Self {
        recovered.log.hold_descriptors();
        Self {
            index,
            home: recovered.home,
            log: recovered.log,
            tickets: VecDeque::new(),
            parked: AHashMap::new(),
            unfinished: true,
        }
    }

    /// Does what a peer asks for, as far as the log has room.
    pub(crate) fn handle_request(&mut self, request: Request, hands: &mut Hands<'_>) {
        self.take_direct(hands);
        self.home.handle_request(hands.clock.of_home(), request);
        self.take_direct(hands);
        self.give_room(hands);
        self.unfinished = true;
    }

    /// Tells the home whether the log has room for what it needs next, until it needs none or the
    /// log is too busy to say; what it appends is given to the log at once.
    fn give_room(&mut self, hands: &mut Hands<'_>) {
        while let Some(need) = self.home.need() {
            let room = match self.log.room(need.class, need.bytes) {
                Ok(()) => Ok(()),
                Err(AppendError::Busy) => return,
                Err(error) => Err(refusal_of(error)),
            };
            self.home.handle_room(hands.clock.of_home(), room);
            self.take_direct(hands);
        }
    }

    fn take_direct(&mut self, hands: &mut Hands<'_>) {
        while let Some(effect) = self.home.poll_direct() {
            self.carry_out(effect, hands);
        }
    }

    /// Tells the log how an operation on a file has ended.
    pub(crate) fn handle_done(
        &mut self,
        effect: crate::log::EffectId,
        result: std::io::Result<crate::log::Done>,
    ) {
        self.log.handle_done(effect, result);
        self.unfinished = true;
    }

    /// Gives cursors to the log, and lets it end cleanly.
    pub(crate) fn close(&mut self) {
        self.home.handle_drain();
        self.log.close();
        self.unfinished = true;
    }

    /// Whether everything that was accepted is on the disk and nothing is in flight.
    pub(crate) fn is_closed(&self) -> bool {
        self.home.is_drained() && !self.unfinished && self.log.is_idle()
    }

    /// Whether there is something to do without waiting for anything.
    pub(crate) fn has_work(&self) -> bool {
        self.unfinished
    }

    /// When there is something to do although nothing happens.
    pub(crate) fn deadline_us(&self) -> Option<u64> {
        let home = self.home.poll_time_ms().map(|ms| ms * 1_000);
        home.into_iter().chain(self.log.deadline_us()).min()
    }

    /// Appends that the log is too busy for, and reads whose bytes are on their way into memory.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (
            self.home.in_line(),
            self.parked.values().map(SmallVec::len).sum(),
        )
    }

    /// The home, for counting.
    pub(crate) fn home(&self) -> &Durable {
        &self.home
    }

    /// Carries out what home and log want, until both wait or the turn has done its part.
    pub(crate) fn run(&mut self, hands: &mut Hands<'_>) {
        self.unfinished = false;
        self.home.handle_time(hands.clock.of_home());
        let mut left = TURN_EFFECTS_MAX;
        loop {
            let taken = self.take_effects(hands, &mut left);
            self.give_room(hands);
            let moved = self.move_log(hands);
            if left == 0 {
                self.unfinished = true;
                return;
            }
            if !taken && !moved {
                return;
            }
        }
    }

    fn take_effects(&mut self, hands: &mut Hands<'_>, left: &mut usize) -> bool {
        let mut taken = false;
        while 0 < *left {
            let Some(effect) = self.home.poll_effect() else {
                return taken;
            };
            taken = true;
            *left -= 1;
            self.carry_out(effect, hands);
        }
        taken
    }

    fn carry_out(&mut self, effect: Effect, hands: &mut Hands<'_>) {
        match effect {
            Effect::Append { id, value } => {
                self.append(id, &value, hands);
            }
            Effect::Read {
                id,
                topic,
                from_seq,
                through_seq,
                bytes_max,
                count_max,
            } => {
                let (from, through) = (from_seq, through_seq);
                self.read(Read {
                    id,
                    topic,
                    from,
                    through,
                    bytes_max,
                    count_max,
                });
            }
            Effect::ForgetKeys { topic, through } => self.log.forget_keys(topic, through),
            Effect::Answer {
                to,
                reference,
                answer,
            } => {
                count_answer(&answer, hands.metrics);
                (hands.answer)(to, reference, answer);
            }
        }
    }

    /// The log has said that it has the room, so only its failure can come in between.
    fn append(&mut self, id: AppendId, value: &Value, hands: &Hands<'_>) {
        let mut since_us = None;
        if let Value::Publish { messages, .. } = value {
            let count = messages.len() as u64;
            hands.metrics.add(Counter::Publishes, count);
            since_us = Some(hands.clock.monotonic_us);
        }
        match append(&mut self.log, value) {
            Ok(ticket) => self.tickets.push_back((id, ticket, since_us)),
            // The home learns of it by the event that is on its way.
            Err(AppendError::Failed) => {}
            Err(error) => {
                debug_assert!(false, "the log had the room: {error}");
                self.fail(&error.to_string(), hands);
            }
        }
    }

    /// Hands the log's operations to the ring and its events to the home.
    fn move_log(&mut self, hands: &mut Hands<'_>) -> bool {
        let mut moved = false;
        while let Some(effect) = self.log.poll_effect(hands.clock.of_log()) {
            moved = true;
            let owner = Owner {
                log: self.index,
                effect: effect.id,
            };
            if let Some((owner, result)) = hands.files.start(owner, effect.op, hands.ring) {
                self.log.handle_done(owner.effect, result);
            }
        }
        while let Some(event) = self.log.poll_event() {
            moved = true;
            self.handle_event(event, hands);
        }
        moved
    }

    fn handle_event(&mut self, event: Event, hands: &Hands<'_>) {
        let metrics = hands.metrics;
        match event {
            Event::Durable { up_to, .. } => {
                metrics.add(Counter::Syncs, 1);
                self.durable(up_to, hands);
            }
            Event::Readable { loaded } => self.unpark(loaded),
            Event::Trimmed {
                topic,
                first_seq,
                bytes,
            } => {
                self.home.handle_trimmed(topic, first_seq, bytes);
            }
            Event::Failed { reason } => self.fail(&reason, hands),
        }
    }

    fn fail(&mut self, reason: &str, hands: &Hands<'_>) {
        tracing::error!(
            target: "tidegate::log",
            reason,
            "a write or a sync failed: this partition takes nothing until a restart"
        );
        let metrics = hands.metrics;
        let failed = metrics.gauge(Gauge::PartitionsFailed) + 1;
        metrics.set(Gauge::PartitionsFailed, failed);
        self.tickets.clear();
        self.home.handle_failed(hands.clock.of_home());
    }

    fn durable(&mut self, up_to: Ticket, hands: &Hands<'_>) {
        let mut through = None;
        let is_durable = |(_, ticket, _): &mut (_, Ticket, _)| *ticket <= up_to;
        while let Some((id, _, since_us)) = self.tickets.pop_front_if(is_durable) {
            through = Some(id);
            if let Some(since_us) = since_us {
                let us = hands.clock.monotonic_us.saturating_sub(since_us);
                hands.recorder.record(Timing::PublishAck, us);
            }
        }
        if let Some(through) = through {
            self.home.handle_durable(through);
        }
    }

    fn unpark(&mut self, loaded: Awaited) {
        for read in self.parked.remove(&loaded).unwrap_or_default() {
            self.read(read);
        }
    }

    fn read(&mut self, read: Read) {
        let mut found = Found {
            through: read.through,
            ..Found::default()
        };
        let limits = ReadLimits {
            messages_max: read.count_max as usize,
            bytes_max: usize::try_from(read.bytes_max).unwrap_or(usize::MAX),
        };
        let (_, end) = self
            .log
            .read(read.topic, read.from, limits, &mut |item| found.take(&item));
        if let Some(first) = found.trimmed {
            // The home learns of it by an event; until then it must not ask again.
            self.home.handle_trimmed(read.topic, first, u64::MAX);
            return self.home.handle_read(read.id, Vec::new());
        }
        if let ReadEnd::Loading(awaited) = end
            && found.pieces.is_empty()
        {
            return self.parked.entry(awaited).or_default().push(read);
        }
        let has_less = matches!(end, ReadEnd::Durable | ReadEnd::UnknownTopic);
        if found.pieces.is_empty() && has_less {
            // The log has less than it reported: nothing that can be waited for.
            return self.home.handle_read_failed(read.id);
        }
        self.home.handle_read(read.id, found.into_items());
    }
}

/// What a read has found, with all payloads in one buffer.
#[derive(Debug, Default)]
struct Found {
    through: Seq,
    /// The first seq that is kept, if that is behind what was asked for.
    trimmed: Option<Seq>,
    pieces: Vec<Piece>,
    payloads: BytesMut,
}

#[derive(Debug)]
enum Piece {
    Message {
        seq: Seq,
        unix_ms: u64,
        bytes: usize,
    },
    Damaged {
        from: Seq,
        to: Seq,
    },
}

impl Found {
    fn take(&mut self, item: &LogItem<'_>) {
        match *item {
            LogItem::Message(publish) if publish.seq <= self.through => {
                self.payloads.extend_from_slice(publish.payload);
                let (seq, unix_ms) = (publish.seq, publish.time_ms);
                self.pieces.push(Piece::Message {
                    seq,
                    unix_ms,
                    bytes: publish.payload.len(),
                });
            }
            LogItem::Damaged { from, to } if from <= self.through => {
                let to = to.min(self.through);
                self.pieces.push(Piece::Damaged { from, to });
            }
            LogItem::Trimmed { to, .. } => self.trimmed = Some(to + 1),
            LogItem::Message(_) | LogItem::Damaged { .. } => {}
        }
    }

    fn into_items(self) -> Vec<ReadItem> {
        let mut payloads = self.payloads.freeze();
        let item = |piece: Piece| match piece {
            Piece::Message {
                seq,
                unix_ms,
                bytes,
            } => {
                let payload = payloads.split_to(bytes);
                ReadItem::Message(Message {
                    seq,
                    unix_ms,
                    payload,
                })
            }
            Piece::Damaged { from, to } => ReadItem::Damaged { from, to },
        };
        self.pieces.into_iter().map(item).collect()
    }
}

/// Appends what the home wants kept: all of it or nothing.
fn append(log: &mut CommitLog, value: &Value) -> Result<Ticket, AppendError> {
    match value {
        Value::Publish {
            topic,
            first_seq,
            unix_ms,
            publisher,
            messages,
        } => {
            let publishes: SmallVec<[Publish<'_>; 4]> = (*first_seq..)
                .zip(messages)
                .map(|(seq, message)| Publish {
                    topic: *topic,
                    seq,
                    time_ms: *unix_ms,
                    flags: 0,
                    publisher,
                    key: message.idempotency_key.as_deref(),
                    event: "",
                    headers: b"",
                    payload: &message.payload,
                })
                .collect();
            log.append_publishes(&publishes)
        }
        Value::CursorsMoved { moves } => log.append_cursors(moves),
        Value::TopicCreated {
            topic,
            tenant,
            name,
            unix_ms,
            retention,
        } => log.append(&Record::TopicCreated {
            id: *topic,
            tenant,
            name,
            created_at_ms: *unix_ms,
            retention: *retention,
        }),
        Value::RetentionChanged { topic, retention } => log.append(&Record::RetentionChanged {
            topic: *topic,
            retention: *retention,
        }),
        Value::TopicDeleted { topic } => log.append(&Record::TopicDeleted { id: *topic }),
        Value::SubscriptionCreated {
            subscription,
            topic,
            sub_name,
            maker,
            cursor,
            unix_ms,
        } => log.append(&Record::SubscriptionCreated {
            id: *subscription,
            topic: *topic,
            name: sub_name,
            maker,
            cursor: *cursor,
            created_at_ms: *unix_ms,
        }),
        Value::SubscriptionDeleted { subscription } => {
            log.append(&Record::SubscriptionDeleted { id: *subscription })
        }
    }
}

fn refusal_of(error: AppendError) -> Refused {
    match error {
        AppendError::TooLarge { bytes, bytes_max } => Refused::TooLarge { bytes, bytes_max },
        AppendError::Failed => Refused::StorageFailed,
        _ => Refused::StorageFull,
    }
}

fn count_answer(answer: &Answer, metrics: &ShardMetrics) {
    match answer {
        Answer::Published {
            first_seq,
            last_seq,
            ..
        } => {
            metrics.add(Counter::PublishAcks, last_seq - first_seq + 1);
        }
        Answer::Message { .. } => metrics.add(Counter::Deliveries, 1),
        Answer::Gap { .. } => metrics.add(Counter::Gaps, 1),
        Answer::Refused {
            refused: Refused::StorageFull,
            ..
        } => {
            metrics.add(Counter::StorageFull, 1);
        }
        _ => {}
    }
}
