//! One partition as a shard has it, home and log, on a disk and a clock that the test owns. What is
//! in flight ends in any order. Knows no client and no fault: answers stand in `answers`.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash};

use bytes::Bytes;
use tidegate::broker::durable::{
    Answer, AppendId, Durable, Effect, Limits, Message, Now as HomeNow, Peer, ReadId, ReadItem,
    Refused, Request, RestoredKey, RestoredSubscription, RestoredTopic, Value,
};
use tidegate::id::{HomedId, Seq};
use tidegate::log::{
    AppendError, Awaited, CommitLog, CrashFolder, Done, Effect as LogEffect, Event, FileName,
    LogConfig, Now, Op, Publish, ReadEnd, ReadItem as LogItem, ReadLimits, Record, RecoverError,
    RecoveredState, RecoveryReport, Ticket, execute, recover,
};

use super::Random;
use super::commit_log::IDENTITY;

/// A running partition.
pub(crate) struct Node {
    pub(crate) folder: CrashFolder,
    pub(crate) home: Durable,
    pub(crate) log: CommitLog,
    pub(crate) now: Now,
    pub(crate) answers: VecDeque<(Peer, Option<Bytes>, Answer)>,
    /// What the log said when it failed.
    pub(crate) failure: Option<String>,
    /// Stands for everything that was written and answered.
    pub(crate) transcript: DefaultHasher,
    /// The newest segment that holds a whole batch.
    pub(crate) newest: u64,
    tickets: VecDeque<(AppendId, Ticket)>,
    parked: Vec<(Awaited, Read)>,
    effects: Vec<LogEffect>,
}

/// A read that the home asked for.
#[derive(Debug, Clone, Copy)]
struct Read {
    id: ReadId,
    topic: HomedId,
    from: Seq,
    through: Seq,
    limits: ReadLimits,
}

/// A folder that no log can be opened in now.
pub(crate) struct NotStarted {
    pub(crate) folder: CrashFolder,
    pub(crate) error: RecoverError,
}

impl Node {
    pub(crate) fn start(
        mut folder: CrashFolder,
        (config, limits): (&LogConfig, Limits),
        now: Now,
        random: u64,
    ) -> Result<(Self, RecoveryReport), Box<NotStarted>> {
        let (log, found) = match recover(&mut folder, IDENTITY, config, now) {
            Ok(found) => found,
            Err(error) => return Err(Box::new(NotStarted { folder, error })),
        };
        let report = found.report.clone();
        let mut home = Durable::new(IDENTITY.partition, log.epoch(), limits, random);
        restore(&mut home, found);
        let mut node = Self {
            folder,
            home,
            log,
            now,
            answers: VecDeque::new(),
            failure: None,
            transcript: DefaultHasher::new(),
            newest: 0,
            tickets: VecDeque::new(),
            parked: Vec::new(),
            effects: Vec::new(),
        };
        node.log.hold_descriptors();
        Ok((node, report))
    }

    fn home_now(&self) -> HomeNow {
        HomeNow {
            mono_ms: self.now.monotonic_us / 1_000,
            unix_ms: self.now.unix_ms,
        }
    }

    pub(crate) fn handle(&mut self, request: Request) {
        self.home.handle_request(self.home_now(), request);
        while let Some(effect) = self.home.poll_direct() {
            self.carry_out(effect);
        }
        self.give_room();
    }

    fn give_room(&mut self) {
        while let Some(need) = self.home.need() {
            let room = match self.log.room(need.class, need.bytes) {
                Ok(()) => Ok(()),
                Err(AppendError::Busy) => return,
                Err(AppendError::TooLarge { bytes, bytes_max }) => {
                    Err(Refused::TooLarge { bytes, bytes_max })
                }
                Err(AppendError::Failed) => Err(Refused::StorageFailed),
                Err(_) => Err(Refused::StorageFull),
            };
            self.home.handle_room(self.home_now(), room);
            while let Some(effect) = self.home.poll_direct() {
                self.carry_out(effect);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Append { id, value } => match append(&mut self.log, &value) {
                Ok(ticket) => self.tickets.push_back((id, ticket)),
                Err(AppendError::Failed) => {}
                Err(error) => panic!("the log had the room: {error} for {value:?}"),
            },
            Effect::Read {
                id,
                topic,
                from_seq: from,
                through_seq: through,
                bytes_max,
                count_max,
            } => {
                let limits = ReadLimits {
                    messages_max: count_max as usize,
                    bytes_max: usize::try_from(bytes_max).unwrap(),
                };
                self.read(Read {
                    id,
                    topic,
                    from,
                    through,
                    limits,
                });
            }
            Effect::ForgetKeys { topic, through } => self.log.forget_keys(topic, through),
            Effect::Answer {
                to,
                reference,
                answer,
            } => {
                format!("{to:?} {reference:?} {answer:?}").hash(&mut self.transcript);
                self.answers.push_back((to, reference, answer));
            }
        }
    }

    /// Some of what is to be done, in any order; all of it if `is_whole`.
    pub(crate) fn work(&mut self, random: &mut Random, is_whole: bool) {
        self.home.handle_time(self.home_now());
        let rounds = if is_whole { 400 } else { 6 };
        for _ in 0..rounds {
            self.take_effects(random, is_whole);
            self.give_room();
            while let Some(effect) = self.log.poll_effect(self.now) {
                self.effects.push(effect);
            }
            self.take_events();
            if self.effects.is_empty() || !is_whole && random.one_in(6) {
                return;
            }
            let at = random.index(self.effects.len());
            let effect = self.effects.swap_remove(at);
            match &effect.op {
                // Where it is mapped is chance.
                Op::Populate { offset, bytes, .. } => (offset, bytes).hash(&mut self.transcript),
                op => format!("{op:?}").hash(&mut self.transcript),
            }
            let result = execute(&mut self.folder, &effect.op);
            if self.folder.is_gone() {
                return;
            }
            if let Op::Write {
                file: FileName::Segment(id),
                bytes,
                ..
            } = &effect.op
                && bytes.iter().any(|&byte| byte != 0)
                && matches!(result, Ok(Done::Count(count)) if count == bytes.len())
            {
                self.newest = self.newest.max(*id);
            }
            self.log.handle_done(effect.id, result);
            self.take_events();
        }
    }

    fn take_effects(&mut self, random: &mut Random, is_whole: bool) {
        let count = match is_whole {
            true => 10_000,
            false => random.below(40),
        };
        for _ in 0..count {
            let Some(effect) = self.home.poll_effect() else {
                return;
            };
            self.carry_out(effect);
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.log.poll_event() {
            match event {
                Event::Durable { up_to, .. } => self.durable(up_to),
                Event::Readable { loaded } => self.unpark(loaded),
                Event::Trimmed {
                    topic,
                    first_seq,
                    bytes,
                } => self.home.handle_trimmed(topic, first_seq, bytes),
                Event::Failed { reason } => {
                    self.failure = Some(reason);
                    self.tickets.clear();
                    self.home.handle_failed(self.home_now());
                }
            }
        }
    }

    fn durable(&mut self, up_to: Ticket) {
        let mut through = None;
        let is_durable = |(_, ticket): &mut (AppendId, Ticket)| *ticket <= up_to;
        while let Some((id, _)) = self.tickets.pop_front_if(is_durable) {
            through = Some(id);
        }
        if let Some(through) = through {
            assert!(self.failure.is_none(), "P5: durable after a failure");
            self.home.handle_durable(through);
        }
    }

    fn unpark(&mut self, loaded: Awaited) {
        let (ready, parked) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|(awaited, _)| *awaited == loaded);
        self.parked = parked;
        let ready: Vec<(Awaited, Read)> = ready;
        ready.into_iter().for_each(|(_, read)| self.read(read));
    }

    fn read(&mut self, read: Read) {
        let (mut items, mut trimmed) = (Vec::new(), None);
        let (_, end) = self
            .log
            .read(read.topic, read.from, read.limits, &mut |item| match item {
                LogItem::Message(publish) if publish.seq <= read.through => {
                    items.push(ReadItem::Message(Message {
                        seq: publish.seq,
                        unix_ms: publish.time_ms,
                        payload: Bytes::copy_from_slice(publish.payload),
                    }));
                }
                LogItem::Damaged { from, to } if from <= read.through => {
                    let to = to.min(read.through);
                    items.push(ReadItem::Damaged { from, to });
                }
                LogItem::Trimmed { to, .. } => trimmed = Some(to + 1),
                LogItem::Message(_) | LogItem::Damaged { .. } => {}
            });
        if let Some(first) = trimmed {
            self.home.handle_trimmed(read.topic, first, u64::MAX);
            return self.home.handle_read(read.id, Vec::new());
        }
        match end {
            ReadEnd::Loading(awaited) if items.is_empty() => self.parked.push((awaited, read)),
            ReadEnd::Durable | ReadEnd::UnknownTopic if items.is_empty() => {
                self.home.handle_read_failed(read.id);
            }
            _ => self.home.handle_read(read.id, items),
        }
    }

    /// A clean stop; tells whether it ended.
    pub(crate) fn stop(&mut self, random: &mut Random) -> bool {
        self.home.handle_drain();
        self.log.close();
        for _ in 0..1_000 {
            self.work(random, true);
            self.now.monotonic_us += 10_000;
            let is_idle = self.effects.is_empty() && self.log.is_idle();
            if self.folder.is_gone() || self.home.is_drained() && is_idle {
                return true;
            }
        }
        false
    }
}

/// As a server does it at start.
fn restore(home: &mut Durable, mut found: RecoveredState) {
    found.topics.sort_unstable_by_key(|topic| topic.born);
    for mut topic in found.topics {
        home.restore_topic(RestoredTopic {
            id: topic.id,
            tenant: topic.tenant,
            name: topic.name,
            created_ms: topic.created_at_ms,
            retention: topic.retention,
            first_seq: topic.first_seq,
            last_seq: topic.last_seq,
            bytes: topic.bytes,
        });
        topic.subscriptions.sort_unstable_by_key(|old| old.born);
        for old in topic.subscriptions {
            home.restore_subscription(RestoredSubscription {
                id: old.id,
                topic: topic.id,
                sub_name: old.name,
                maker: old.maker,
                cursor: old.cursor,
                created_ms: old.created_at_ms,
            });
        }
        for key in topic.keys {
            home.restore_key(RestoredKey {
                topic: topic.id,
                key: key.key,
                payload: key.payload,
                seq: key.seq,
                unix_ms: key.time_ms,
            });
        }
    }
}

/// As a shard gives a home's values to its log.
fn append(log: &mut CommitLog, value: &Value) -> Result<Ticket, AppendError> {
    match value {
        Value::Publish {
            topic,
            first_seq,
            unix_ms,
            publisher,
            messages,
        } => {
            let publishes: Vec<Publish<'_>> = (*first_seq..)
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
