//! Hours in the life of a log: what rests costs nothing, restarts take no space, readers that come all
//! at once cost no more than one after the other, and what is damaged stays where it is.

use std::fs;
use std::path::{Path, PathBuf};

use ahash::AHashMap;
use tidegate::id::{HomedId, Seq, Tenant};
use tidegate::log::{
    Awaited, CrashFolder, Event, LogConfig, Now, Publish, ReadEnd, ReadItem, ReadLimits, Record,
    Retention, drive, recover,
};

use super::commit_log::{IDENTITY, PASSING, small};
use super::forgetting::{Desk, bytes_in};
use super::scratch;

const MINUTE_US: u64 = 60_000_000;

/// L9: topics and subscriptions alone are no dead weight, so nothing is written where nothing comes.
#[test]
fn a_log_at_rest_writes_nothing() {
    let dir = scratch();
    let mut folder = CrashFolder::new(dir.path(), 1).unwrap();
    let mut now = Now {
        monotonic_us: 1,
        unix_ms: 1_800_000_000_000,
    };
    let (mut log, _) = recover(&mut folder, IDENTITY, &small(), now).unwrap();
    let id = |n: u64| HomedId::new(1_800_000_000_000, IDENTITY.partition, n << 20);
    for n in 0..2_000 {
        let (tenant, name) = (Tenant::default(), format!("topic {n}"));
        let made = Record::TopicCreated {
            id: id(n),
            tenant: &tenant,
            name: &name,
            created_at_ms: 1,
            retention: Retention::default(),
        };
        log.append(&made).unwrap();
        let subscribed = Record::SubscriptionCreated {
            id: id(10_000 + n),
            topic: id(n),
            name: "reader",
            maker: "svc",
            cursor: 0,
            created_at_ms: 1,
        };
        log.append(&subscribed).unwrap();
        drive(&mut log, &mut folder, now);
        now.monotonic_us += 1_000;
    }
    let mut written = Vec::new();
    for _ in 0..120 {
        let before = folder.operations();
        for _ in 0..60 {
            now.monotonic_us += MINUTE_US / 60;
            now.unix_ms += 1_000;
            drive(&mut log, &mut folder, now);
        }
        written.push(folder.operations() - before);
    }
    let rest = &written[10..];
    assert!(rest.iter().all(|&count| count == 0), "{written:?}");
    drop(log);
    let (_, state) = recover(&mut folder, IDENTITY, &small(), now).unwrap();
    assert_eq!(state.topics.len(), 2_000);
    assert!(
        state
            .topics
            .iter()
            .all(|topic| topic.subscriptions.len() == 1)
    );
}

/// L10: a restart takes the space of what is written, however the one before has ended.
#[test]
fn restarts_take_no_space() {
    for is_clean in [true, false] {
        let dir = scratch();
        let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
        let topic = desk.topic(1, Retention::default());
        let mut last = 300;
        for seq in 1..=last {
            desk.publish(topic, seq);
        }
        desk.close();
        let before = bytes_in(dir.path());
        for _ in 0..30 {
            let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
            for _ in 0..10 {
                last += 1;
                desk.publish(topic, last);
            }
            if is_clean {
                desk.close();
            }
        }
        let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
        for _ in 0..20 {
            desk.turn(1_000_000);
        }
        assert_eq!(desk.read(topic), (1..=last).collect::<Vec<_>>());
        desk.close();
        // 300 messages of 800 bytes were written, each in a batch of its own.
        let grown = bytes_in(dir.path()) - before;
        assert!(grown < 600 << 10, "clean: {is_clean}, {grown} bytes more");
    }
}

const TOPICS: u64 = 600;
const UNIX_MS: u64 = 1_800_000_000_000;

fn topic_id(n: u64) -> HomedId {
    HomedId::new(UNIX_MS, IDENTITY.partition, n << 20)
}

fn at(monotonic_us: u64) -> Now {
    Now {
        monotonic_us,
        unix_ms: UNIX_MS,
    }
}

/// Eight messages in each of many topics, between each other, and a clean stop.
fn fill(folder: &mut CrashFolder, config: &LogConfig) {
    let (mut log, _) = recover(folder, IDENTITY, config, at(1)).unwrap();
    for n in 0..TOPICS {
        let (tenant, name) = (Tenant::default(), format!("topic {n}"));
        let made = Record::TopicCreated {
            id: topic_id(n),
            tenant: &tenant,
            name: &name,
            created_at_ms: 1,
            retention: Retention::default(),
        };
        log.append(&made).unwrap();
        drive(&mut log, folder, at(1));
    }
    let payload = vec![b'x'; 700];
    for (seq, n) in (1..=8).flat_map(|seq| (0..TOPICS).map(move |n| (seq, n))) {
        let publish = Publish {
            topic: topic_id(n),
            seq,
            time_ms: 1,
            flags: 0,
            publisher: "p",
            key: None,
            event: "",
            headers: b"",
            payload: &payload,
        };
        log.append(&Record::Publish(publish)).unwrap();
        drive(&mut log, folder, at(1));
    }
    log.close();
    drive(&mut log, folder, at(1));
}

/// Reads all topics to their ends at once; how many calls that took.
fn read_at_once(folder: &mut CrashFolder, config: &LogConfig) -> u64 {
    let (mut log, _) = recover(folder, IDENTITY, config, at(1)).unwrap();
    let limits = ReadLimits {
        messages_max: 100,
        bytes_max: 1 << 20,
    };
    let mut parked: AHashMap<Awaited, Vec<(u64, Seq)>> = AHashMap::new();
    let (mut calls, mut given, mut now_us) = (0, 0, 1);
    let mut ready: Vec<(u64, Seq)> = (0..TOPICS).map(|n| (n, 1)).collect();
    while given < TOPICS * 8 && calls < TOPICS * 100 {
        for (n, from) in std::mem::take(&mut ready) {
            calls += 1;
            let (next, end) = log.read(topic_id(n), from, limits, &mut |item| match item {
                ReadItem::Message(_) => given += 1,
                other => panic!("topic {n}: {other:?}"),
            });
            match end {
                ReadEnd::Loading(awaited) => parked.entry(awaited).or_default().push((n, next)),
                ReadEnd::Durable => {}
                other => panic!("topic {n}: {other:?}"),
            }
        }
        now_us += 1_000;
        drive(&mut log, folder, at(now_us));
        while let Some(event) = log.poll_event() {
            if let Event::Readable { loaded } = event {
                ready.extend(parked.remove(&loaded).unwrap_or_default());
            }
        }
    }
    calls
}

/// L21, L5: all readers at once, also where the disk lacks something now and then.
#[test]
fn cold_readers_at_once_cost_what_they_read() {
    let config = LogConfig {
        segment_bytes_max: 1 << 20,
        ..small()
    };
    for is_lacking in [false, true] {
        let dir = scratch();
        let mut folder = CrashFolder::new(dir.path(), 5).unwrap();
        fill(&mut folder, &config);
        if is_lacking {
            folder.fail_reads(4, &PASSING);
        }
        let calls = read_at_once(&mut folder, &config);
        assert!(calls <= TOPICS * 8 * 3, "{calls} calls");
    }
}

fn segments(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(path).unwrap();
    let paths = files.map(|entry| entry.unwrap().path());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "segment");
    let mut segments: Vec<_> = paths
        .filter(is_segment)
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    segments.sort();
    segments
}

/// L3: of a topic whose own entry is damaged nobody knows the name. It is told at every start, and its
/// messages outlive hours of cleaning: with the entry put right they are all there.
#[test]
fn what_is_nameless_is_kept_and_told() {
    let dir = scratch();
    let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
    let (kept, gone) = (
        desk.topic(1, Retention::default()),
        desk.topic(3, Retention::default()),
    );
    desk.turn(0);
    let lost = desk.topic(2, Retention::default());
    desk.turn(0);
    for seq in 1..=40 {
        for topic in [kept, lost, gone] {
            desk.publish(topic, seq);
        }
    }
    drop(desk);
    // Without its checkpoint the start reads the entry again.
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "checkpoint") {
            fs::remove_file(path).unwrap();
        }
    }
    let is_named =
        |(_, bytes): &&(PathBuf, Vec<u8>)| bytes.windows(7).any(|text| text == b"topic 2");
    let files = segments(dir.path());
    let (file, bytes) = files.iter().find(is_named).unwrap();
    let at = bytes
        .windows(7)
        .position(|text| text == b"topic 2")
        .unwrap();
    let mut damaged = bytes.clone();
    damaged[at] ^= 4;
    fs::write(file, &damaged).unwrap();
    let mut last = 40;
    for life in 0..4 {
        let (mut desk, state) = Desk::open(dir.path(), IDENTITY);
        assert_eq!(state.report.topics_nameless, 1, "life {life}");
        assert!(!state.report.segments_protected.is_empty());
        assert!(state.topics.iter().all(|topic| topic.id != lost));
        if life == 0 {
            desk.log.append(&Record::TopicDeleted { id: gone }).unwrap();
        }
        for _ in 0..100 {
            last += 1;
            desk.publish(kept, last);
        }
        for _ in 0..60 {
            desk.turn(MINUTE_US);
        }
        assert_eq!(desk.read(kept), (1..=last).collect::<Vec<_>>());
        match life % 2 {
            0 => desk.close(),
            _ => drop(desk),
        }
    }
    let mut mended = fs::read(file).unwrap();
    mended[at] ^= 4;
    fs::write(file, mended).unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "checkpoint") {
            fs::remove_file(path).unwrap();
        }
    }
    let (mut desk, state) = Desk::open(dir.path(), IDENTITY);
    assert_eq!(state.report.topics_nameless, 0);
    assert_eq!(desk.read(lost), (1..=40).collect::<Vec<_>>());
    assert_eq!(desk.read(kept), (1..=last).collect::<Vec<_>>());
}
