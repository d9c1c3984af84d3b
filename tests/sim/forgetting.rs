//! Retention, cleaning and segments that are used again: space comes back and nothing that is still
//! needed goes with it. And the folder as the command line sees it.

use std::path::Path;

use tidegate::id::{HomedId, Partition, Seq, Tenant};
use tidegate::log::{
    CommitLog, DataDirectory, Event, Folder, Identity, Meta, Now, Publish, ReadEnd, ReadItem,
    ReadLimits, Record, RecoveredState, Retention, drive, inspect, recover, verify,
};

use super::commit_log::{IDENTITY, small};
use super::scratch;

/// A log on a real folder and its clock.
pub(crate) struct Desk {
    pub(crate) log: CommitLog,
    pub(crate) folder: Folder,
    pub(crate) now: Now,
    trimmed: Vec<(HomedId, Seq)>,
}

impl Desk {
    pub(crate) fn open(path: &Path, identity: Identity) -> (Self, RecoveredState) {
        let now = Now {
            monotonic_us: 1,
            unix_ms: 1_800_000_000_000,
        };
        let mut folder = Folder::new(path);
        let (log, state) = recover(&mut folder, identity, &small(), now).unwrap();
        (
            Self {
                log,
                folder,
                now,
                trimmed: Vec::new(),
            },
            state,
        )
    }

    pub(crate) fn topic(&mut self, n: u64, retention: Retention) -> HomedId {
        let id = HomedId::new(self.now.unix_ms, IDENTITY.partition, n << 20);
        let (tenant, name) = (Tenant::default(), format!("topic {n}"));
        let created_at_ms = self.now.unix_ms;
        let record = Record::TopicCreated {
            id,
            tenant: &tenant,
            name: &name,
            created_at_ms,
            retention,
        };
        self.log.append(&record).unwrap();
        id
    }

    pub(crate) fn publish(&mut self, topic: HomedId, seq: Seq) {
        let payload = payload(topic, seq);
        let key = format!("key {seq}");
        let publish = Publish {
            topic,
            seq,
            time_ms: self.now.unix_ms,
            flags: 0,
            publisher: "svc",
            key: Some(&key),
            event: "made",
            headers: b"{}",
            payload: &payload,
        };
        self.log.append(&Record::Publish(publish)).unwrap();
        self.turn(2_000);
    }

    pub(crate) fn turn(&mut self, us: u64) {
        self.now.monotonic_us += us;
        self.now.unix_ms += us / 1000;
        drive(&mut self.log, &mut self.folder, self.now);
        while let Some(event) = self.log.poll_event() {
            match event {
                Event::Trimmed {
                    topic, first_seq, ..
                } => self.trimmed.push((topic, first_seq)),
                Event::Failed { reason } => panic!("{reason}"),
                Event::Durable { .. } | Event::Readable { .. } => {}
            }
        }
    }

    /// The seqs that can be read, each with its own bytes.
    pub(crate) fn read(&mut self, topic: HomedId) -> Vec<Seq> {
        let limits = ReadLimits {
            messages_max: 100,
            bytes_max: 1 << 20,
        };
        let (mut seqs, mut next) = (Vec::new(), 1);
        loop {
            let (to, end) = self.log.read(topic, next, limits, &mut |item| match item {
                ReadItem::Message(publish) => {
                    assert_eq!(publish.payload, payload(topic, publish.seq));
                    assert_eq!((publish.event, publish.headers), ("made", &b"{}"[..]));
                    seqs.push(publish.seq);
                }
                ReadItem::Trimmed { .. } => {}
                ReadItem::Damaged { from, to } => panic!("{topic}: {from} to {to} is damaged"),
            });
            next = to;
            match end {
                ReadEnd::Durable => return seqs,
                ReadEnd::UnknownTopic => panic!("{topic} is not there"),
                ReadEnd::Limit | ReadEnd::Loading(_) => self.turn(0),
            }
        }
    }

    pub(crate) fn close(mut self) {
        self.log.close();
        self.turn(1_000);
        assert!(self.log.is_idle());
    }
}

fn payload(topic: HomedId, seq: Seq) -> Vec<u8> {
    format!("{topic} {seq} ").repeat(12).into_bytes()
}

pub(crate) fn bytes_in(path: &Path) -> u64 {
    let files = std::fs::read_dir(path).unwrap();
    files
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

fn ballast_in(path: &Path) -> u64 {
    let files = std::fs::read_dir(path).unwrap().map(Result::unwrap);
    let is_ballast = |file: &std::fs::DirEntry| {
        let kind = file.path().extension().map(ToOwned::to_owned);
        kind.is_some_and(|kind| kind == "ballast")
    };
    files
        .filter(is_ballast)
        .map(|file| file.metadata().unwrap().len())
        .sum()
}

/// 3000 messages take 2 MiB; what is kept takes a few small segments. The ballast beside them is two
/// small segments, and twice a checkpoint with the keys of 3000 messages.
fn expect_small(path: &Path) {
    let ballast = ballast_in(path);
    let bytes = bytes_in(path) - ballast;
    assert!(bytes < 500 << 10, "{bytes} bytes are still taken");
    assert!(
        ballast < 400 << 10,
        "{ballast} bytes are kept for a full disk"
    );
}

/// D-31: bounds hold, the space comes back, and a quiet topic beside it keeps everything.
#[test]
fn retention_gives_space_back_and_keeps_what_is_needed() {
    let dir = scratch();
    let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
    let bounded = Retention {
        messages_max: Some(50),
        ..Retention::default()
    };
    let (busy, quiet) = (desk.topic(1, bounded), desk.topic(2, Retention::default()));
    let gone = desk.topic(3, Retention::default());
    let subscription = HomedId::new(desk.now.unix_ms, IDENTITY.partition, 99 << 20);
    let (name, created_at_ms) = ("reader", 1);
    let record = Record::SubscriptionCreated {
        id: subscription,
        topic: quiet,
        name,
        maker: "",
        cursor: 0,
        created_at_ms,
    };
    desk.log.append(&record).unwrap();
    desk.log
        .append(&Record::CursorMoved {
            subscription,
            seq: 3,
        })
        .unwrap();
    for seq in 1..=10 {
        desk.publish(quiet, seq);
        desk.publish(gone, seq);
    }
    desk.log.append(&Record::TopicDeleted { id: gone }).unwrap();
    for seq in 1..=3000 {
        desk.publish(busy, seq);
    }
    for _ in 0..20 {
        desk.turn(1_000_000);
    }
    assert_eq!(desk.read(busy), (2951..=3000).collect::<Vec<_>>());
    assert_eq!(desk.read(quiet), (1..=10).collect::<Vec<_>>());
    assert_eq!(desk.trimmed.last(), Some(&(busy, 2951)));
    expect_small(dir.path());
    desk.close();
    for is_bare in [false, true] {
        if is_bare {
            for entry in std::fs::read_dir(dir.path()).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|kind| kind == "checkpoint") {
                    std::fs::remove_file(path).unwrap();
                }
            }
        }
        let (mut desk, state) = Desk::open(dir.path(), IDENTITY);
        let topics: Vec<_> = state
            .topics
            .iter()
            .map(|topic| (topic.id, topic.last_seq))
            .collect();
        assert_eq!(topics, [(busy, 3000), (quiet, 10)], "bare: {is_bare}");
        assert_eq!(state.topics[1].subscriptions[0].cursor, 3);
        assert_eq!(state.topics[1].keys.len(), 10);
        assert_eq!(desk.read(busy), (2951..=3000).collect::<Vec<_>>());
        assert_eq!(desk.read(quiet), (1..=10).collect::<Vec<_>>());
    }
}

/// D-31: an age is met although nothing is published any more.
#[test]
fn messages_grow_too_old_by_themselves() {
    let dir = scratch();
    let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
    let bounded = Retention {
        age_ms_max: Some(60_000),
        ..Retention::default()
    };
    let topic = desk.topic(1, bounded);
    for seq in 1..=100 {
        desk.publish(topic, seq);
        desk.turn(1_000_000);
    }
    let kept = desk.read(topic);
    assert!((60..=64).contains(&kept.len()), "{kept:?}");
    let deadline = desk.log.deadline_us().unwrap();
    assert!(
        deadline <= desk.now.monotonic_us + 1_000_000,
        "it asks to be called again"
    );
    for _ in 0..70 {
        desk.turn(1_000_000);
    }
    assert!(desk.read(topic).is_empty());
    assert_eq!(desk.log.kept(topic), Some((101, 100)));
    desk.publish(topic, 101);
    assert_eq!(desk.read(topic), [101]);
}

const DAY_MS: u64 = 86_400_000;

/// L19, T-O2: a wall clock that jumps ahead by a day, whenever it does, makes nothing a day old; once it
/// is set right again, ages are what they are.
#[test]
fn a_wall_clock_that_jumps_ahead_trims_nothing_at_once() {
    let hour = Retention {
        age_ms_max: Some(3_600_000),
        ..Retention::default()
    };
    for (is_bounded_before, idle_s) in [(true, 0), (true, 30), (false, 0), (false, 30)] {
        let dir = scratch();
        let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
        let before = match is_bounded_before {
            true => hour,
            false => Retention::default(),
        };
        let topic = desk.topic(1, before);
        for seq in 1..=10 {
            desk.publish(topic, seq);
            desk.turn(1_000_000);
        }
        for _ in 0..idle_s {
            desk.turn(1_000_000);
        }
        desk.now.unix_ms += DAY_MS;
        let changed = Record::RetentionChanged {
            topic,
            retention: hour,
        };
        desk.log.append(&changed).unwrap();
        let case = format!("bounded before {is_bounded_before}, {idle_s} s idle");
        for _ in 0..600 {
            desk.turn(1_000_000);
        }
        let all: Vec<_> = (1..=10).collect();
        assert_eq!(desk.read(topic), all, "{case}: ten minutes later");
        desk.now.unix_ms -= DAY_MS;
        for _ in 0..2_000 {
            desk.turn(1_000_000);
        }
        assert_eq!(desk.read(topic), all, "{case}: it was set right");
        for _ in 0..1_200 {
            desk.turn(1_000_000);
        }
        assert!(desk.read(topic).is_empty(), "{case}: an hour has passed");
    }
}

/// D-27: what is remembered of keys survives a start.
#[test]
fn idempotency_keys_survive_a_restart() {
    let dir = scratch();
    let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
    let topic = desk.topic(1, Retention::default());
    for seq in 1..=5 {
        desk.publish(topic, seq);
    }
    desk.now.unix_ms += 11 * 60 * 1000;
    for seq in 6..=8 {
        desk.publish(topic, seq);
    }
    drop(desk);
    for _ in 0..2 {
        let (desk, state) = Desk::open(dir.path(), IDENTITY);
        let keys: Vec<Seq> = state.topics[0].keys.iter().map(|key| key.seq).collect();
        assert_eq!(keys, [6, 7, 8]);
        let key = state.topics[0].keys[0];
        assert_eq!(key.key, tidegate::log::key_fingerprint("key 6"));
        assert_eq!(
            key.payload,
            tidegate::log::payload_fingerprint(&payload(topic, 6))
        );
        desk.close();
    }
}

/// A publish of several messages is stored whole or not at all.
#[test]
fn messages_of_one_request_go_into_one_batch() {
    let dir = scratch();
    let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
    let topic = desk.topic(1, Retention::default());
    desk.turn(0);
    let payloads: Vec<Vec<u8>> = (1..=30).map(|seq| payload(topic, seq)).collect();
    let publishes: Vec<Publish<'_>> = (1..)
        .zip(&payloads)
        .map(|(seq, payload)| Publish {
            topic,
            seq,
            time_ms: 1,
            flags: 0,
            publisher: "",
            key: None,
            event: "made",
            headers: b"{}",
            payload,
        })
        .collect();
    let ticket = desk.log.append_publishes(&publishes).unwrap();
    drive(&mut desk.log, &mut desk.folder, desk.now);
    let events: Vec<Event> = std::iter::from_fn(|| desk.log.poll_event()).collect();
    let durable = Event::Durable {
        up_to: ticket,
        topics: vec![(topic, 30)],
    };
    assert!(events.contains(&durable), "{events:?}");
    assert_eq!(desk.read(topic), (1..=30).collect::<Vec<_>>());
}

/// The command line: a sound directory is intact, and one flipped bit anywhere in it is told.
#[test]
fn verify_reads_everything_and_changes_nothing() {
    let dir = scratch();
    let meta = Meta {
        partitions: 2,
        salt: 77,
    };
    let directory = DataDirectory::open(dir.path(), meta).unwrap();
    let identity = Identity {
        partition: Partition(1),
        salt: 77,
    };
    let path = directory.folder_path(Partition(1));
    let (mut desk, _) = Desk::open(&path, identity);
    let topic = desk.topic(1, Retention::default());
    for seq in 1..=300 {
        desk.publish(topic, seq);
    }
    desk.close();
    drop(directory);
    let names = || {
        let files = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files
            .map(|path| (std::fs::read(&path).unwrap(), path))
            .collect();
        files.sort();
        files
    };
    let before = names();
    let report = verify(dir.path()).unwrap();
    assert!(report.is_intact(), "{report:?}");
    assert_eq!(before, names());
    let partition = &report.partitions[1];
    assert_eq!(partition.topics[0].last_seq, 300);
    let records: u64 = partition
        .segments
        .iter()
        .map(|segment| segment.records)
        .sum();
    assert_eq!(records, 301);
    assert_eq!(
        inspect(dir.path()).unwrap().partitions[1].topics,
        partition.topics
    );
    assert_eq!(report.partitions[0].topics, []);
    for (bytes, file) in &before {
        let kind = file.extension().map_or("", |kind| kind.to_str().unwrap());
        let last = bytes.iter().rposition(|&byte| byte != 0);
        if let (Some(last), "segment" | "index") = (last, kind) {
            let mut flipped = bytes.clone();
            flipped[if kind == "index" {
                last
            } else {
                4096 + last / 2
            }] ^= 1;
            std::fs::write(file, flipped).unwrap();
            assert!(!verify(dir.path()).unwrap().is_intact(), "{file:?}");
            std::fs::write(file, bytes).unwrap();
        }
    }
    assert!(verify(&dir.path().join("nothing")).is_err());
}
