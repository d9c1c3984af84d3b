//! A log that is closed, cut off and opened again: against a `Vec`, against a directory that an older
//! version has written, against the clock.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidegate::id::{HomedId, Partition, Seq, Tenant};
use tidegate::log::{
    AppendError, CommitLog, DataDirectory, Folder, Identity, LogConfig, Meta, Now, Publish,
    ReadEnd, ReadItem, ReadLimits, Record, RecoveredState, Retention, drive, key_fingerprint,
    recover, verify,
};

use super::commit_log::{IDENTITY, small};
use super::scratch;

const NOW: Now = Now {
    monotonic_us: 1,
    unix_ms: 1_800_000_000_000,
};

fn open(
    path: &Path,
    identity: Identity,
    config: &LogConfig,
) -> (CommitLog, RecoveredState, Folder) {
    let mut folder = Folder::new(path);
    let (log, state) = recover(&mut folder, identity, config, NOW).unwrap();
    (log, state, folder)
}

fn topic_id(n: u64) -> HomedId {
    HomedId::new(NOW.unix_ms, IDENTITY.partition, n << 20)
}

fn create(log: &mut CommitLog, n: u64) -> HomedId {
    let (id, tenant, name) = (topic_id(n), Tenant::default(), format!("topic {n}"));
    let (created_at_ms, retention) = (NOW.unix_ms, Retention::default());
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

fn publish<'a>(topic: HomedId, seq: Seq, key: Option<&'a str>, payload: &'a [u8]) -> Record<'a> {
    Record::Publish(Publish {
        topic,
        seq,
        time_ms: NOW.unix_ms + seq,
        flags: 3,
        publisher: "svc",
        key,
        event: "made",
        headers: b"{\"a\":1}",
        payload,
    })
}

fn read_all(log: &mut CommitLog, folder: &mut Folder, topic: HomedId) -> Vec<Vec<u8>> {
    let limits = ReadLimits {
        messages_max: 7,
        bytes_max: 9_000,
    };
    let (mut payloads, mut next) = (Vec::new(), 1);
    loop {
        let (to, end) = log.read(topic, next, limits, &mut |item| match item {
            ReadItem::Message(publish) => {
                assert_eq!(publish.seq, payloads.len() as Seq + 1);
                payloads.push(publish.payload.to_vec());
            }
            other => panic!("{other:?}"),
        });
        next = to;
        match end {
            ReadEnd::Durable | ReadEnd::UnknownTopic => return payloads,
            ReadEnd::Limit | ReadEnd::Loading(_) => drive(log, folder, NOW),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<u8>),
    /// The process ends, cleanly or not.
    Reopen {
        clean: bool,
    },
    /// Bytes behind the end of the newest segment, as a torn write leaves them.
    Litter(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    prop_oneof![
        20 => bytes(300).prop_map(Step::Append),
        3 => bytes(12_000).prop_map(Step::Append),
        2 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
        1 => bytes(600).prop_map(Step::Litter),
    ]
}

/// Writes behind the end of the newest segment that was begun.
fn litter(path: &Path, bytes: &[u8]) {
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let begun = files.into_iter().rev().find_map(|file| {
        let is_segment = file.extension().is_some_and(|kind| kind == "segment");
        let contents = is_segment.then(|| std::fs::read(&file).unwrap())?;
        let last = contents.iter().rposition(|&byte| byte != 0)?;
        Some((file, contents, last))
    });
    if let Some((file, mut contents, last)) = begun {
        let from = (last + 16) / 8 * 8;
        let to = contents.len().min(from + bytes.len());
        if from < to {
            contents[from..to].copy_from_slice(&bytes[..to - from]);
            std::fs::write(file, contents).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// T-P3, P2: append, new segments, cuts and reopening, against a `Vec`.
    #[test]
    fn a_log_is_a_vec_that_survives(steps in proptest::collection::vec(step(), 1..80)) {
        let dir = scratch();
        let config = small();
        let (mut log, _, mut folder) = open(dir.path(), IDENTITY, &config);
        let topic = create(&mut log, 1);
        drive(&mut log, &mut folder, NOW);
        let mut model: Vec<Vec<u8>> = Vec::new();
        for step in steps {
            match step {
                Step::Append(payload) => {
                    let seq = model.len() as Seq + 1;
                    let mut accepted = log.append(&publish(topic, seq, None, &payload));
                    if accepted == Err(AppendError::Busy) {
                        drive(&mut log, &mut folder, NOW);
                        accepted = log.append(&publish(topic, seq, None, &payload));
                    }
                    prop_assert!(accepted.is_ok(), "{:?}", accepted);
                    drive(&mut log, &mut folder, NOW);
                    model.push(payload);
                }
                Step::Reopen { clean } => {
                    if clean {
                        log.close();
                        drive(&mut log, &mut folder, NOW);
                        prop_assert!(log.is_idle());
                    }
                    drop(log);
                    let state;
                    (log, state, folder) = open(dir.path(), IDENTITY, &config);
                    prop_assert_eq!(state.topics[0].last_seq, model.len() as Seq);
                }
                Step::Litter(bytes) => {
                    drop(log);
                    litter(dir.path(), &bytes);
                    (log, _, folder) = open(dir.path(), IDENTITY, &config);
                }
            }
        }
        prop_assert_eq!(read_all(&mut log, &mut folder, topic), model);
    }
}

const KEPT_META: Meta = Meta {
    partitions: 1,
    salt: 0x0123_4567_89ab_cdef,
};
const KEPT_TOPICS: u64 = 3;
const KEPT_MESSAGES: Seq = 80;

fn kept_payload(topic: u64, seq: Seq) -> Vec<u8> {
    format!("{{\"topic\":{topic},\"price\":{seq}.50}}")
        .repeat(3)
        .into_bytes()
}

/// The directory `tests/fixtures/log-v1`, as version 1 of the format has written it.
fn write_kept(path: &Path) {
    let directory = DataDirectory::open(path, KEPT_META).unwrap();
    let identity = Identity {
        partition: Partition(0),
        salt: KEPT_META.salt,
    };
    let (mut log, _, mut folder) = open(&directory.folder_path(Partition(0)), identity, &small());
    for n in 1..=KEPT_TOPICS {
        let topic = create(&mut log, n);
        let id = topic_id(100 + n);
        let (name, created_at_ms) = ("reader", NOW.unix_ms);
        let record = Record::SubscriptionCreated {
            id,
            topic,
            name,
            maker: "ada",
            cursor: n,
            created_at_ms,
        };
        log.append(&record).unwrap();
    }
    for seq in 1..=KEPT_MESSAGES {
        for n in 1..=KEPT_TOPICS {
            let (key, payload) = (format!("key {seq}"), kept_payload(n, seq));
            let key = seq.is_multiple_of(20).then_some(key.as_str());
            log.append(&publish(topic_id(n), seq, key, &payload))
                .unwrap();
        }
        if seq == KEPT_MESSAGES - 5 {
            log.append(&Record::CursorMoved {
                subscription: topic_id(102),
                seq: 30,
            })
            .unwrap();
        }
        drive(&mut log, &mut folder, NOW);
    }
}

/// A directory that version 1 has written is kept, and every later version opens it. It is written
/// anew by `TIDEGATE_WRITE_FIXTURE=1`, for a new version of the format and into a new folder.
#[test]
fn a_directory_of_version_1_is_opened() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log-v1");
    if std::env::var_os("TIDEGATE_WRITE_FIXTURE").is_some() {
        write_kept(&kept);
    }
    let dir = scratch();
    let path = dir.path().join("partition-0000");
    std::fs::create_dir(&path).unwrap();
    std::fs::copy(kept.join("meta"), dir.path().join("meta")).unwrap();
    for entry in std::fs::read_dir(kept.join("partition-0000")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
    }
    let report = verify(dir.path()).unwrap();
    assert!(report.is_intact(), "{report:?}");
    let directory = DataDirectory::open(
        dir.path(),
        Meta {
            partitions: 9,
            salt: 9,
        },
    )
    .unwrap();
    assert_eq!(directory.fixed(), KEPT_META);
    let identity = Identity {
        partition: Partition(0),
        salt: KEPT_META.salt,
    };
    let (mut log, state, mut folder) = open(&path, identity, &LogConfig::default());
    assert_eq!(state.topics, report.partitions[0].topics);
    let cursors: Vec<Seq> = state
        .topics
        .iter()
        .map(|topic| topic.subscriptions[0].cursor)
        .collect();
    assert_eq!(cursors, [1, 30, 3]);
    for (n, topic) in (1..).zip(&state.topics) {
        assert_eq!(
            (topic.id, &*topic.name),
            (topic_id(n), format!("topic {n}").as_str())
        );
        let keys: Vec<u128> = topic.keys.iter().map(|key| key.key).collect();
        assert_eq!(
            keys,
            ["key 20", "key 40", "key 60", "key 80"].map(key_fingerprint)
        );
        let wanted: Vec<Vec<u8>> = (1..=KEPT_MESSAGES)
            .map(|seq| kept_payload(n, seq))
            .collect();
        assert_eq!(read_all(&mut log, &mut folder, topic.id), wanted);
    }
    log.append(&publish(topic_id(1), KEPT_MESSAGES + 1, None, b"new"))
        .unwrap();
    drive(&mut log, &mut folder, NOW);
    assert_eq!(log.kept(topic_id(1)), Some((1, KEPT_MESSAGES + 1)));
}

/// P7: a start after a kill replays what follows the checkpoint, however long the log is.
/// `TIDEGATE_SIM_LOG_MIB` sets how long.
#[test]
fn a_long_log_is_opened_quickly() {
    let set = std::env::var("TIDEGATE_SIM_LOG_MIB")
        .ok()
        .and_then(|mib| mib.parse().ok());
    let bytes_max = set.unwrap_or(12_u64) << 20;
    let dir = scratch();
    let config = LogConfig {
        checkpoint_bytes: bytes_max / 16,
        ..LogConfig::default()
    };
    let (mut log, _, mut folder) = open(dir.path(), IDENTITY, &config);
    let topics: Vec<HomedId> = (0..1000).map(|n| create(&mut log, n)).collect();
    let payload = [b'x'; 256];
    let mut last_seq = 0;
    while log.stored_bytes() < bytes_max {
        last_seq += 1;
        for part in topics.chunks(500) {
            for &topic in part {
                log.append(&publish(topic, last_seq, None, &payload))
                    .unwrap();
            }
            drive(&mut log, &mut folder, NOW);
        }
    }
    let stored = log.stored_bytes();
    drop(log);
    let start = Instant::now();
    let (mut log, state, mut folder) = open(dir.path(), IDENTITY, &config);
    let took = start.elapsed();
    let report = &state.report;
    assert!(report.checkpoint.is_some() && report.replay.records * 4 < stored / 256);
    assert!(state.topics.iter().all(|topic| topic.last_seq == last_seq));
    // Without optimisation and beside other tests the bound of the requirement says nothing.
    let slack = if cfg!(debug_assertions) { 10 } else { 1 };
    assert!(
        took < Duration::from_secs(2) * slack,
        "{} MiB took {took:?}",
        stored >> 20
    );
    log.close();
    drive(&mut log, &mut folder, NOW);
    drop(log);
    let start = Instant::now();
    let (_, state, _) = open(dir.path(), IDENTITY, &config);
    let clean = start.elapsed();
    assert_eq!(state.report.replay.records, 0);
    assert!(
        clean < Duration::from_millis(500) * slack,
        "after a clean stop it took {clean:?}"
    );
    if set.is_some() {
        println!(
            "{} MiB: {took:?} after a kill, {clean:?} after a clean stop",
            stored >> 20
        );
    }
}
