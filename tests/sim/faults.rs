//! Faults placed on purpose: an operation that fails, a full disk, a torn end, flipped bits.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tidegate::id::{HomedId, Seq};
use tidegate::log::{
    AppendError, CommitLog, CrashFolder, Event, Fault, Folder, LogConfig, LogState, Now, Publish,
    ReadEnd, ReadItem, ReadLimits, Record, RecoveredState, drive, recover,
};

use super::commit_log::{IDENTITY, PASSING, World, small};
use super::log_model::ModelTopic;
use super::{Random, scratch};

const NOW: Now = Now {
    monotonic_us: 1,
    unix_ms: 1_800_000_000_000,
};

fn open(path: &Path, config: &LogConfig) -> (CommitLog, RecoveredState, Folder) {
    let mut folder = Folder::new(path);
    let (log, state) = recover(&mut folder, IDENTITY, config, NOW).unwrap();
    (log, state, folder)
}

fn payload(seq: Seq) -> Vec<u8> {
    format!("message {seq} ")
        .repeat(1 + usize::try_from(seq % 7).unwrap())
        .into_bytes()
}

fn publish<'a>(topic: HomedId, seq: Seq, payload: &'a [u8]) -> Record<'a> {
    Record::Publish(Publish {
        topic,
        seq,
        time_ms: NOW.unix_ms + seq,
        flags: 0,
        publisher: "svc",
        key: None,
        event: "",
        headers: b"",
        payload,
    })
}

fn create(log: &mut CommitLog, n: u64) -> HomedId {
    let id = HomedId::new(NOW.unix_ms, IDENTITY.partition, n << 8);
    let tenant = Default::default();
    let (name, created_at_ms) = (format!("topic {n}"), NOW.unix_ms);
    let retention = Default::default();
    let record = Record::TopicCreated {
        id,
        tenant: &tenant,
        name: &name,
        created_at_ms,
        retention,
    };
    log.append(&record).unwrap();
    id
}

/// A log with topics of `count` messages each, every message in a batch of its own.
fn fill(path: &Path, config: &LogConfig, topics: u64, count: Seq) -> Vec<HomedId> {
    let (mut log, _, mut folder) = open(path, config);
    let ids: Vec<HomedId> = (1..=topics).map(|n| create(&mut log, n)).collect();
    drive(&mut log, &mut folder, NOW);
    for seq in 1..=count {
        for &id in &ids {
            log.append(&publish(id, seq, &payload(seq))).unwrap();
            drive(&mut log, &mut folder, NOW);
        }
    }
    ids
}

/// Reads a topic to its end: the seqs that came with the right bytes, and those told as damaged.
fn read_to_end(log: &mut CommitLog, folder: &mut Folder, id: HomedId) -> (Vec<Seq>, Vec<Seq>) {
    let limits = ReadLimits {
        messages_max: 50,
        bytes_max: 8_000,
    };
    let (mut good, mut damaged, mut next) = (Vec::new(), Vec::new(), 1);
    loop {
        let (to, end) = log.read(id, next, limits, &mut |item| match item {
            ReadItem::Message(publish) => {
                assert_eq!(publish.payload, payload(publish.seq), "seq {}", publish.seq);
                good.push(publish.seq);
            }
            ReadItem::Damaged { from, to } => damaged.extend(from..=to),
            ReadItem::Trimmed { .. } => panic!("nothing was trimmed"),
        });
        next = to;
        match end {
            ReadEnd::Durable | ReadEnd::UnknownTopic => return (good, damaged),
            ReadEnd::Limit => {}
            ReadEnd::Loading(_) => drive(log, folder, NOW),
        }
    }
}

fn copy(from: &Path) -> tempfile::TempDir {
    let dir = scratch();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|kind| kind == "segment"))
        .collect();
    files.sort();
    files
}

/// Works until the `n`th operation has failed; tells whether there was one.
fn work_with_fault(seed: u64, n: u64, fault: Fault) -> bool {
    let dir = scratch();
    let mut world = World::new(dir.path(), seed, small());
    assert!(world.start().unwrap());
    world.create_topic();
    world.settle().unwrap();
    let at = world.folder.operations() + n;
    world.folder.fail_at(n, fault);
    let mut failed = false;
    for _ in 0..60 {
        if world.step().is_err() {
            failed = true;
            break;
        }
    }
    let was_hit = at < world.folder.operations();
    let log = world.log.as_mut().unwrap();
    assert_eq!(log.state() == LogState::Failed, failed, "n {n}, {fault:?}");
    assert!(was_hit || !failed, "n {n}: failed without a fault");
    // L6: what is lacking is tried again.
    assert!(
        !failed || !matches!(fault, Fault::Lack(_)),
        "n {n}, {fault:?}"
    );
    if failed {
        // P5: nothing is acknowledged any more, and nothing is taken.
        assert!(fault != Fault::Short, "n {n}: a short write is continued");
        let live = |(_, topic): &(&HomedId, &ModelTopic)| topic.deleted.is_none();
        let topic = *world.model.topics.iter().find(live).unwrap().0;
        let seq = world.model.topics[&topic].last_seq() + 1;
        let refused = world
            .log
            .as_mut()
            .unwrap()
            .append(&publish(topic, seq, b""));
        assert_eq!(refused, Err(AppendError::Failed));
        for _ in 0..20 {
            world.work();
            while let Some(event) = world.log.as_mut().unwrap().poll_event() {
                assert!(
                    !matches!(event, Event::Durable { .. }),
                    "n {n}: an ack after a failure"
                );
            }
        }
    }
    let power = n.is_multiple_of(2);
    let mut world = world.crash(power);
    let started = world.start();
    assert_eq!(started, Ok(true), "n {n}, {fault:?}, power cut: {power}");
    world.read_all().unwrap();
    was_hit
}

/// T-S2, P5: the n-th operation fails, for every n.
#[test]
fn a_failed_write_or_sync_is_final_and_loses_nothing_that_was_acknowledged() {
    let lacks = PASSING.map(Fault::Lack);
    for fault in [Fault::Io, Fault::Full, Fault::Short]
        .into_iter()
        .chain(lacks)
    {
        let hits = (0..90)
            .filter(|&n| work_with_fault(7 + n % 5, n, fault))
            .count();
        assert!(60 < hits, "{fault:?}: only {hits} faults were met");
    }
}

/// P5: told before anything is written, and over by itself.
#[test]
fn a_full_disk_refuses_publishes_takes_cursors_and_ends_by_itself() {
    let dir = scratch();
    let config = small();
    let mut folder = CrashFolder::new(dir.path(), 1).unwrap();
    let (mut log, _) = recover(&mut folder, IDENTITY, &config, NOW).unwrap();
    let topic = create(&mut log, 1);
    let subscription = HomedId::new(NOW.unix_ms, IDENTITY.partition, 77);
    let record = Record::SubscriptionCreated {
        id: subscription,
        topic,
        name: "s",
        maker: "",
        cursor: 0,
        created_at_ms: NOW.unix_ms,
    };
    log.append(&record).unwrap();
    drive(&mut log, &mut folder, NOW);
    folder.limit_space(Some(100 << 10));
    let mut seq = 0;
    let refused = loop {
        match log.append(&publish(topic, seq + 1, &payload(seq + 1))) {
            Ok(_) => seq += 1,
            Err(error) => break error,
        }
        drive(&mut log, &mut folder, NOW);
    };
    assert_eq!(refused, AppendError::StorageFull);
    assert_eq!(log.state(), LogState::StorageFull);
    for moved in 1..20 {
        let taken = log.append(&Record::CursorMoved {
            subscription,
            seq: moved,
        });
        assert!(taken.is_ok(), "{moved}: {taken:?}");
        let now = Now {
            monotonic_us: moved * 1_000,
            ..NOW
        };
        drive(&mut log, &mut folder, now);
    }
    assert!(log.append(&publish(topic, seq + 1, b"")).is_err());
    folder.limit_space(None);
    let later = Now {
        monotonic_us: 10_000_000,
        ..NOW
    };
    drive(&mut log, &mut folder, later);
    assert_eq!(log.state(), LogState::Serving);
    log.append(&publish(topic, seq + 1, &payload(seq + 1)))
        .unwrap();
    drive(&mut log, &mut folder, later);
    assert_eq!(log.kept(topic), Some((1, seq + 1)));
    while let Some(event) = log.poll_event() {
        assert!(!matches!(event, Event::Failed { .. }));
    }
    drop(log);
    let mut folder = folder.cut_power().unwrap();
    let (_, state) = recover(&mut folder, IDENTITY, &config, NOW).unwrap();
    assert_eq!(state.topics[0].last_seq, seq + 1);
    assert_eq!(state.topics[0].subscriptions[0].cursor, 19);
}

/// P5, D-31: a log that has filled the disk itself gives space back by its own retention.
#[test]
fn a_disk_full_of_old_messages_is_freed_by_retention() {
    let dir = scratch();
    let config = small();
    let mut folder = CrashFolder::new(dir.path(), 1).unwrap();
    let (mut log, _) = recover(&mut folder, IDENTITY, &config, NOW).unwrap();
    let topic = create(&mut log, 1);
    drive(&mut log, &mut folder, NOW);
    folder.limit_space(Some(300 << 10));
    let mut now = NOW;
    let mut seq = 0;
    while log.state() != LogState::StorageFull {
        for _ in 0..20 {
            if log
                .append(&publish(topic, seq + 1, &payload(seq + 1)))
                .is_ok()
            {
                seq += 1;
            }
            drive(&mut log, &mut folder, now);
        }
        now.monotonic_us += 10_000;
        assert!(seq < 10_000, "the disk is never full");
    }
    log.append(&Record::Trimmed {
        topic,
        first_seq: seq - 5,
    })
    .unwrap();
    for _ in 0..60 {
        now.monotonic_us += 1_000_000;
        drive(&mut log, &mut folder, now);
    }
    assert_eq!(log.state(), LogState::Serving);
    for _ in 0..100 {
        seq += 1;
        log.append(&publish(topic, seq, &payload(seq))).unwrap();
        drive(&mut log, &mut folder, now);
    }
    assert_eq!(log.kept(topic).map(|(_, last)| last), Some(seq));
}

/// T-D4, P2, P3: cut at each byte of the last three records, zeroed or overwritten behind the cut.
#[test]
fn every_cut_of_the_tail_leaves_a_right_prefix() {
    let dir = scratch();
    let config = small();
    let id = fill(dir.path(), &config, 1, 20)[0];
    let newest = segments(dir.path()).remove(0);
    let bytes = fs::read(&newest).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let mut random = Random::new(1);
    let mut seen = BTreeSet::new();
    for cut in end - 700..=end {
        let mut bytes = bytes.clone();
        match cut % 3 {
            0 => bytes[cut..].fill(0),
            1 => bytes[cut..end]
                .iter_mut()
                .for_each(|byte| *byte = random.next().to_le_bytes()[0]),
            _ => bytes.truncate(cut),
        }
        let copied = copy(dir.path());
        fs::write(copied.path().join(newest.file_name().unwrap()), &bytes).unwrap();
        let (mut log, state, mut folder) = open(copied.path(), &config);
        let last = state.topics[0].last_seq;
        assert!(state.report.replay.damage.is_empty(), "cut at {cut}");
        assert_eq!(
            read_to_end(&mut log, &mut folder, id).0,
            (1..=last).collect::<Vec<_>>()
        );
        log.append(&publish(id, last + 1, &payload(last + 1)))
            .unwrap();
        drive(&mut log, &mut folder, NOW);
        drop(log);
        let (mut log, state, mut folder) = open(copied.path(), &config);
        assert_eq!(state.topics[0].last_seq, last + 1, "cut at {cut}");
        assert_eq!(
            read_to_end(&mut log, &mut folder, id).0.len() as Seq,
            last + 1
        );
        seen.insert(last);
    }
    assert_eq!(
        seen,
        (17..=20).collect(),
        "the cuts go through the last records"
    );
}

/// T-D5, P2, P6: a flipped bit is reported, no seq is used again, nothing wrong is delivered.
#[test]
fn a_flipped_bit_is_reported_and_never_delivered() {
    let dir = scratch();
    let config = LogConfig {
        checkpoint_bytes: u64::MAX,
        clean_live_percent_max: 0,
        ..small()
    };
    let ids = fill(dir.path(), &config, 3, 60);
    let files = segments(dir.path());
    let mut random = Random::new(5);
    for round in 0..200 {
        let copied = copy(dir.path());
        let path = copied
            .path()
            .join(files[random.index(files.len() - 2)].file_name().unwrap());
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        let bit = 4096 * 8 + random.index((end - 4096) * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        let (mut log, state, mut folder) = open(copied.path(), &config);
        assert_eq!(
            state.report.replay.damage.len(),
            1,
            "round {round}, bit {bit} of {path:?}"
        );
        assert!(
            !state.report.is_epoch_new,
            "round {round}, bit {bit}: one bit is accounted for"
        );
        let mut missing = 0;
        for topic in &state.topics {
            assert_eq!(topic.last_seq, 60, "round {round}, bit {bit} of {path:?}");
            let (good, damaged) = read_to_end(&mut log, &mut folder, topic.id);
            missing += damaged.len();
            let mut all: Vec<Seq> = good.into_iter().chain(damaged).collect();
            all.sort_unstable();
            assert_eq!(
                all,
                (1..=60).collect::<Vec<_>>(),
                "round {round}, bit {bit} of {path:?}"
            );
        }
        let lost_topics = ids.len() - state.topics.len();
        assert!(
            missing + lost_topics <= 1,
            "round {round}: one bit costs one record, not {missing}"
        );
    }
}

/// D-32: where nobody knows whose records were lost, the epoch tells it, once.
#[test]
fn a_loss_that_cannot_be_named_begins_a_new_epoch() {
    let dir = scratch();
    let config = LogConfig {
        checkpoint_bytes: u64::MAX,
        clean_live_percent_max: 0,
        ..small()
    };
    let id = fill(dir.path(), &config, 1, 60)[0];
    let before = open(copy(dir.path()).path(), &config).1.topics[0].epoch;
    let oldest = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&oldest).unwrap();
    bytes[8000..8900].fill(0);
    fs::write(&oldest, &bytes).unwrap();
    let (mut log, state, mut folder) = open(dir.path(), &config);
    let epoch = state.topics[0].epoch;
    assert!(state.report.is_epoch_new && epoch != before && epoch < 1 << 53);
    let (good, damaged) = read_to_end(&mut log, &mut folder, id);
    assert!(
        1 < damaged.len() && good.len() + damaged.len() == 60,
        "{damaged:?}"
    );
    log.append(&publish(id, 61, &payload(61))).unwrap();
    drive(&mut log, &mut folder, NOW);
    drop(log);
    for _ in 0..2 {
        let (_, state, _) = open(dir.path(), &config);
        assert!(!state.report.is_epoch_new && !state.report.segments_protected.is_empty());
        assert_eq!(
            (state.topics[0].epoch, state.topics[0].last_seq),
            (epoch, 61)
        );
    }
}

/// P6: damage before the checkpoint is met when it is read, and the rest is served.
#[test]
fn damage_behind_a_checkpoint_is_told_to_the_reader() {
    let dir = scratch();
    let config = small();
    let ids = fill(dir.path(), &config, 3, 120);
    let (mut log, _, mut folder) = open(dir.path(), &config);
    log.close();
    drive(&mut log, &mut folder, NOW);
    assert!(log.is_idle());
    drop(log);
    let files = segments(dir.path());
    let mut random = Random::new(6);
    let mut told = 0;
    for round in 0..60 {
        let copied = copy(dir.path());
        let path = copied
            .path()
            .join(files[random.index(2)].file_name().unwrap());
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        let at = 4096 + random.index(end - 4096);
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let (mut log, state, mut folder) = open(copied.path(), &config);
        assert_eq!(state.topics.len(), ids.len());
        for &id in &ids {
            let (good, damaged) = read_to_end(&mut log, &mut folder, id);
            assert_eq!(
                good.len() + damaged.len(),
                120,
                "round {round}, byte {at} of {path:?}"
            );
            assert!(damaged.len() <= 1);
            told += damaged.len();
        }
    }
    assert!(20 < told, "only {told} damaged messages were told");
}

/// P6: what is beside the log can be made again from it.
#[test]
fn a_damaged_index_or_checkpoint_costs_nothing() {
    let dir = scratch();
    let config = small();
    let ids = fill(dir.path(), &config, 2, 80);
    let (mut log, _, mut folder) = open(dir.path(), &config);
    log.close();
    drive(&mut log, &mut folder, NOW);
    drop(log);
    for kind in ["index", "checkpoint"] {
        for is_removed in [false, true] {
            let copied = copy(dir.path());
            let mut count = 0;
            for entry in fs::read_dir(copied.path()).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|found| found == kind) {
                    count += 1;
                    let mut bytes = fs::read(&path).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 4;
                    match is_removed {
                        true => fs::remove_file(&path).unwrap(),
                        false => fs::write(&path, bytes).unwrap(),
                    }
                }
            }
            assert!(0 < count, "there is a file of kind {kind}");
            let (mut log, state, mut folder) = open(copied.path(), &config);
            assert!(state.report.replay.damage.is_empty());
            for &id in &ids {
                let (good, damaged) = read_to_end(&mut log, &mut folder, id);
                assert_eq!(
                    (good.len(), damaged.len()),
                    (80, 0),
                    "{kind}, removed: {is_removed}"
                );
            }
        }
    }
}
