//! One partition, home and log, with the clock and the disk in the test's hand, and a stop-watch on
//! each call that a shard's thread would make.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate::auth::Rights;
use tidegate::broker::durable::{
    Answer, AppendId, Caller, Command, Durable, Effect, Limits, NewMessage, NewMessages,
    Now as HomeNow, Peer, Request, RestoredKey, RestoredSubscription, RestoredTopic, TopicRef,
    Value,
};
use tidegate::id::{HomedId, Partition, Tenant};
use tidegate::log::{
    AppendError, CommitLog, Event, Folder, Fsync, Identity, LogConfig, Now, Op, Publish, Record,
    RecoveredState, Retention, Ticket, execute, recover,
};

use super::subscribe;

const IDENTITY: Identity = Identity {
    partition: Partition(0),
    salt: 7,
};
const UNIX_MS: u64 = 1_800_000_000_000;

pub(super) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory));
    made.and_then(Result::ok)
        .unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// The processor time of this thread.
pub(super) fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills the struct that is there.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

pub(super) fn message(n: u64) -> NewMessages {
    let payload = Bytes::from(vec![u8::try_from(n % 251).unwrap(); 128]);
    let idempotency_key = None;
    std::iter::once(NewMessage {
        payload,
        idempotency_key,
    })
    .collect()
}

/// A partition and what it has cost so far.
pub(super) struct World {
    pub(super) home: Durable,
    log: CommitLog,
    folder: Folder,
    now: Now,
    tickets: VecDeque<(AppendId, Ticket)>,
    pub(super) ids: Vec<HomedId>,
    pub(super) maker: Arc<str>,
    /// Bytes given to the disk.
    pub(super) written: u64,
    /// Time in calls of home and log.
    pub(super) cpu: Duration,
    longest: BTreeMap<&'static str, Duration>,
}

impl World {
    pub(super) fn open(path: &Path, retention: Retention) -> Self {
        Self::with(path, retention, Fsync::Batch)
    }

    pub(super) fn open_always(path: &Path) -> Self {
        Self::with(path, Retention::default(), Fsync::Always)
    }

    fn with(path: &Path, retention: Retention, fsync: Fsync) -> Self {
        let config = LogConfig {
            fsync,
            ..LogConfig::default()
        };
        let now = Now {
            monotonic_us: 1,
            unix_ms: UNIX_MS,
        };
        let mut folder = Folder::new(path);
        let (log, found) = recover(&mut folder, IDENTITY, &config, now).unwrap();
        let limits = Limits {
            topics_per_tenant_max: u64::MAX,
            subscriptions_per_tenant_max: u64::MAX,
            bytes_per_tenant_max: u64::MAX / 2,
            publishes_in_flight_max: 1 << 20,
            pending_bytes_max: 1 << 40,
            retention,
            ..Limits::default()
        };
        let mut home = Durable::new(IDENTITY.partition, log.epoch(), limits, 11);
        restore(&mut home, found);
        Self {
            home,
            log,
            folder,
            now,
            tickets: VecDeque::new(),
            ids: Vec::new(),
            maker: "svc".into(),
            written: 0,
            cpu: Duration::ZERO,
            longest: BTreeMap::new(),
        }
    }

    /// Topics and a subscription of each, whose reader is gone again.
    pub(super) fn make(&mut self, range: std::ops::Range<u64>) {
        for n in range {
            let name: Arc<str> = format!("topic {n}").into();
            let retention = Retention::default();
            let topic = TopicRef::Name(name.clone());
            self.ask_as(n, Command::ResolveTopic { name, retention });
            let maker = self.maker.clone();
            self.ask_as(n, subscribe(topic, &maker));
            self.ask_as(n, Command::Disconnect);
            if n % 256 == 255 {
                self.turn(500);
            }
        }
        self.turn(500);
    }

    pub(super) fn ask(&mut self, command: Command) {
        self.ask_as(0, command);
    }

    pub(super) fn ask_as(&mut self, peer: u64, command: Command) {
        let caller = Caller {
            tenant: Tenant::default(),
            rights: Rights::everything(),
            peer: Peer {
                shard: 0,
                key: peer,
            },
            reference: None,
        };
        let now = self.home_now();
        let what = match &command {
            Command::ListSubscriptions { .. } => "a page of subscriptions",
            _ => "a request",
        };
        let request = Request { caller, command };
        self.timed(what, |world| {
            world.home.handle_request(now, request);
            world.give_room();
            world.take_effects();
        });
    }

    fn home_now(&self) -> HomeNow {
        HomeNow {
            mono_ms: self.now.monotonic_us / 1_000,
            unix_ms: self.now.unix_ms,
        }
    }

    fn timed<T>(&mut self, what: &'static str, run: impl FnOnce(&mut Self) -> T) -> T {
        let began = thread_time();
        let result = run(self);
        let took = thread_time() - began;
        self.cpu += took;
        let longest = self.longest.entry(what).or_default();
        *longest = took.max(*longest);
        result
    }

    fn give_room(&mut self) {
        while let Some(need) = self.home.need() {
            match self.log.room(need.class, need.bytes) {
                Err(AppendError::Busy) => return,
                room => {
                    assert!(room.is_ok(), "{room:?}");
                    self.home.handle_room(self.home_now(), Ok(()));
                }
            }
            self.take_effects();
        }
    }

    fn take_effects(&mut self) {
        while let Some(effect) = self.home.poll_effect() {
            match effect {
                Effect::Append { id, value } => {
                    let ticket = append(&mut self.log, &value).unwrap();
                    self.tickets.push_back((id, ticket));
                }
                Effect::Answer { answer, .. } => match answer {
                    Answer::Topic { view, .. } => self.ids.push(view.id),
                    Answer::Refused { refused, .. } => panic!("{refused:?}"),
                    _ => {}
                },
                Effect::Read { id, .. } => self.home.handle_read(id, Vec::new()),
                Effect::ForgetKeys { topic, through } => self.log.forget_keys(topic, through),
            }
        }
    }

    /// All that is to be done now, then the clock goes on.
    pub(super) fn turn(&mut self, us: u64) {
        let now = self.home_now();
        self.timed("the home's time", |world| world.home.handle_time(now));
        loop {
            let began = thread_time();
            let effect = self.log.poll_effect(self.now);
            let took = thread_time() - began;
            let what = effect.as_ref().map_or("the log, idle", |e| named(&e.op));
            self.cpu += took;
            let longest = self.longest.entry(what).or_default();
            *longest = took.max(*longest);
            let Some(effect) = effect else { break };
            if let Op::Write { bytes, .. } = &effect.op {
                self.written += bytes.len() as u64;
            }
            let result = execute(&mut self.folder, &effect.op);
            self.timed("a result of the disk", |world| {
                world.log.handle_done(effect.id, result);
            });
            self.take_events();
        }
        self.take_events();
        self.timed("what the home wants", |world| {
            world.give_room();
            world.take_effects();
        });
        self.now.monotonic_us += us;
        self.now.unix_ms = UNIX_MS + self.now.monotonic_us / 1_000;
    }

    fn take_events(&mut self) {
        while let Some(event) = self.log.poll_event() {
            self.timed("an event", |world| match event {
                Event::Durable { up_to, .. } => world.durable(up_to),
                Event::Trimmed {
                    topic,
                    first_seq,
                    bytes,
                } => world.home.handle_trimmed(topic, first_seq, bytes),
                Event::Readable { .. } => {}
                Event::Failed { reason } => panic!("{reason}"),
            });
        }
    }

    fn durable(&mut self, up_to: Ticket) {
        let mut through = None;
        let is_durable = |(_, ticket): &mut (AppendId, Ticket)| *ticket <= up_to;
        while let Some((id, _)) = self.tickets.pop_front_if(is_durable) {
            through = Some(id);
        }
        if let Some(through) = through {
            self.home.handle_durable(through);
            self.take_effects();
        }
    }

    /// Until a checkpoint and all that cleaning finds is done.
    pub(super) fn settle(&mut self) {
        for _ in 0..200 {
            self.turn(1_000_000);
        }
    }

    /// Ten minutes in which nothing comes.
    pub(super) fn rest(&mut self, what: &str) {
        self.settle();
        let (cpu, written) = (self.cpu, self.written);
        for _ in 0..600 {
            self.turn(1_000_000);
        }
        let (cpu, written) = ((self.cpu - cpu) / 10, (self.written - written) / 10);
        self.report(&format!(
            "{what}: {cpu:?} and {written} B written in a minute"
        ));
    }

    pub(super) fn close(&mut self) {
        self.home.handle_drain();
        self.turn(1_000);
        self.log.close();
        while !self.log.is_idle() {
            self.turn(1_000);
        }
    }

    /// What was measured, and the longest calls since the report before.
    pub(super) fn report(&mut self, what: &str) {
        println!("{what}");
        for (call, took) in std::mem::take(&mut self.longest) {
            println!("    longest, {call}: {took:?}");
        }
    }
}

fn named(op: &Op) -> &'static str {
    match op {
        Op::Write { file, .. } => match file {
            tidegate::log::FileName::Segment(_) => "the log, to a batch",
            tidegate::log::FileName::Index(_) => "the log, to an index",
            tidegate::log::FileName::Checkpoint(_) => "the log, to a checkpoint",
            tidegate::log::FileName::Ballast(_) => "the log, to its ballast",
        },
        _ => "the log, to what is no write",
    }
}

fn restore(home: &mut Durable, mut found: RecoveredState) {
    found.topics.sort_unstable_by_key(|topic| topic.born);
    for topic in found.topics {
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

fn append(log: &mut CommitLog, value: &Value) -> Result<Ticket, AppendError> {
    match value {
        Value::Publish {
            topic,
            first_seq,
            unix_ms,
            publisher,
            messages,
        } => log.append(&Record::Publish(Publish {
            topic: *topic,
            seq: *first_seq,
            time_ms: *unix_ms,
            flags: 0,
            publisher,
            key: None,
            event: "",
            headers: b"",
            payload: &messages[0].payload,
        })),
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
        _ => panic!("nothing else is asked for: {value:?}"),
    }
}
