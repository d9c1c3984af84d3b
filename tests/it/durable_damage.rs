//! Directories in which a record is damaged: the server starts, says so, and serves. Knows of the
//! format of a log where a record's kind and its id stand.

use std::path::Path;

use crate::durable::Durable as _;
use crate::harness::process::{Process, Start};
use crate::harness::{Client, token};

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
