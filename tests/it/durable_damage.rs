//! Directories in which a record is damaged: the server starts, says so, and serves. Knows of the
//! format of a log where a record's kind and its id stand.

use std::path::Path;

use crate::durable::Durable as _;
use crate::harness::process::{Process, Start};
use crate::harness::{Client, token};

const PUBLISH: u8 = 1;
const TOPIC: u8 = 2;
const TOPIC_DELETED: u8 = 3;
const SUBSCRIPTION_DELETED: u8 = 5;

fn start(data: &Path) -> Process {
    let environment = [];
    Start {
        shards: 1,
        data,
        environment: &environment,
    }
    .run()
}

/// Flips a bit of the record of this kind and id, wherever it stands; tells how often it was found.
fn flip(folder: &Path, kind: u8, id: [u8; 16]) -> usize {
    let mut flipped = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            flipped += flip(&path, kind, id);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "segment")
        {
            let mut bytes = std::fs::read(&path).unwrap();
            for at in (16..bytes.len() - 16).step_by(8) {
                if bytes[at..at + 16] == id && bytes[at - 16] == kind {
                    bytes[at + 3] ^= 1;
                    flipped += 1;
                }
            }
            std::fs::write(&path, bytes).unwrap();
        }
    }
    flipped
}

fn bytes_of(id: &str) -> [u8; 16] {
    let digits: String = id.chars().filter(|digit| *digit != '-').collect();
    u128::from_str_radix(&digits, 16).unwrap().to_be_bytes()
}

fn delete(process: &Process, target: &str) {
    assert_eq!(process.rest("demo", "DELETE", target, "").status, 204);
}

/// L4: the end of a topic cannot be read any more, and its name was used again. The later one is
/// the topic, at this start and at the next.
#[test]
fn a_damaged_end_of_a_topic_whose_name_was_used_again_stops_no_start() {
    let data = tempfile::tempdir().unwrap();
    let process = start(data.path());
    let old = process.topic("demo", "t");
    delete(&process, &format!("/v1/topics/{old}"));
    let new = process.topic("demo", "t");
    process.durable("demo").publish(&new, "1", 1);
    drop(process);
    assert_eq!(flip(data.path(), TOPIC_DELETED, bytes_of(&old)), 1);
    for seq in [2, 3] {
        let process = start(data.path());
        assert_eq!(process.topic("demo", "t"), new);
        let gone = process.rest("demo", "GET", &format!("/v1/topics/{old}"), "");
        assert_eq!(gone.status, 404);
        process.durable("demo").publish(&new, "1", seq);
        process.stop();
    }
}

/// L4: alike for a subscription
#[test]
fn a_damaged_end_of_a_subscription_whose_name_was_used_again_stops_no_start() {
    let data = tempfile::tempdir().unwrap();
    let process = start(data.path());
    let topic = process.topic("demo", "t");
    let mut ada = process.durable("demo");
    let id_of = |client: &mut Client| {
        let opened = client.open(&topic, "A", "");
        opened["subscription_id"].as_str().unwrap().to_owned()
    };
    let old = id_of(&mut ada);
    delete(&process, &format!("/v1/subscriptions/{old}"));
    let mut bob = Client::connect(process.address, "/v1/ws", &token("demo", "bob"));
    let new = id_of(&mut bob);
    drop(process);
    assert_eq!(flip(data.path(), SUBSCRIPTION_DELETED, bytes_of(&old)), 1);
    for _ in 0..2 {
        let process = start(data.path());
        assert_eq!(id_of(&mut process.durable("demo")), new);
        process.stop();
    }
}

/// All files below a folder whose name ends so.
fn files(folder: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// Cuts each checkpoint in half.
fn cut_checkpoints(folder: &Path) {
    let all = files(folder, ".checkpoint");
    assert!(!all.is_empty());
    for path in all {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
}

/// Overwrites some records in a row, so that nobody knows whose they were.
fn wipe_records(folder: &Path, topic: [u8; 16]) {
    let mut wiped = 0;
    for path in files(folder, ".segment") {
        let mut bytes = std::fs::read(&path).unwrap();
        let is_record = |at: &usize| bytes[at + 16..at + 32] == topic && bytes[*at] == PUBLISH;
        let at = (0..bytes.len() - 32).step_by(8).filter(is_record).nth(5);
        if let Some(at) = at {
            bytes[at..at + 600].fill(0);
            std::fs::write(&path, &bytes).unwrap();
            wiped += 1;
        }
    }
    assert_eq!(wiped, 1);
}

const NAMELESS: &str = "the entries that name topics are damaged";
const DAMAGED: &str = "stored records are damaged";
const NEW_EPOCH: &str = "the epoch is a new one";
const BAD_CHECKPOINT: &str = "a checkpoint is not whole";

type Damage = fn(&Path, [&str; 2]);

/// What is damaged, whether the server had stopped, and what the next start says.
const FOUND: [(&str, bool, Damage, &[&str]); 6] = [
    ("nothing", false, |_, _| {}, &[]),
    ("nothing, stopped", true, |_, _| {}, &[]),
    (
        "a message",
        false,
        |data, [_, other]| assert_eq!(flip(data, PUBLISH, bytes_of(other)), 1),
        &[DAMAGED],
    ),
    (
        "a name",
        false,
        |data, [_, other]| assert_eq!(flip(data, TOPIC, bytes_of(other)), 1),
        &[DAMAGED, NAMELESS],
    ),
    (
        "records in a row",
        false,
        |data, [topic, _]| wipe_records(data, bytes_of(topic)),
        &[DAMAGED, NEW_EPOCH],
    ),
    (
        "a checkpoint",
        true,
        |data, _| cut_checkpoints(data),
        &[BAD_CHECKPOINT],
    ),
];

/// L19: what a start has found is said, and nothing else: the epoch is told to be a new one when it is,
/// once; names that are lost and checkpoints that are not whole are told.
#[test]
fn a_start_logs_what_it_has_found_and_nothing_else() {
    for (case, is_stopped, damage, expected) in FOUND {
        let data = tempfile::tempdir().unwrap();
        let environment = [("TIDEGATE_DURABLE__PARTITIONS", "1")];
        let begin = Start {
            shards: 1,
            data: &data.path().join("data"),
            environment: &environment,
        };
        let process = begin.run();
        let topic = process.topic("demo", "t");
        let other = process.topic("demo", "u");
        let mut client = process.durable("demo");
        client.publish(&other, "1", 1);
        for seq in 1..=20 {
            client.publish(&topic, "1", seq);
        }
        let epoch = |process: &Process| {
            let opened = process.durable("demo").open(&topic, "A", "");
            opened["epoch"].as_u64().unwrap()
        };
        let before = epoch(&process);
        match is_stopped {
            true => process.stop(),
            false => drop(process),
        }
        damage(begin.data, [&topic, &other]);
        let log = data.path().join("log");
        let process = begin.run_logging_to(&log);
        let after = epoch(&process);
        process.stop();
        let said = std::fs::read_to_string(&log).unwrap();
        for line in [NAMELESS, DAMAGED, NEW_EPOCH, BAD_CHECKPOINT] {
            let is_expected = expected.contains(&line);
            assert_eq!(said.contains(line), is_expected, "{case}: {line}\n{said}");
        }
        let is_new = expected.contains(&NEW_EPOCH);
        assert_eq!(before != after, is_new, "{case}: {before}, {after}");
        let process = begin.run_logging_to(&log);
        assert_eq!(epoch(&process), after, "{case}");
        process.stop();
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(!said.contains(NEW_EPOCH), "{case}: {said}");
    }
}
