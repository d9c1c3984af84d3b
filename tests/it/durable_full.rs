//! A real file system that is full when the server starts again: what gives space back still works,
//! cursors move, and what has no room is told so at once. Each server is a process of its own.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::durable::Durable as _;
use crate::harness::process::{Process, SmallDisk, Start};
use crate::harness::{Client, eventually};

fn payload(bytes: usize) -> String {
    format!(r#""{}""#, "x".repeat(bytes))
}

/// Asks for a publish; the code with which it is refused.
fn publish(client: &mut Client, topic: &str, payload: &str) -> Result<u64, String> {
    client.send(&format!(
        r#"{{"type":"publish","topic":"{topic}","payload":{payload},"ref":7}}"#
    ));
    let answer: Value = serde_json::from_str(&client.receive()).unwrap();
    assert_eq!(answer["ref"], 7, "{answer}");
    match answer["type"].as_str() {
        Some("pub_ack") => Ok(answer["seq"].as_u64().unwrap()),
        _ => Err(answer["code"].as_str().unwrap().to_owned()),
    }
}

fn fill(client: &mut Client, topic: &str) -> u64 {
    let mut last = 0;
    for bytes in [60_000, 2_000, 10] {
        let payload = payload(bytes);
        loop {
            match publish(client, topic, &payload) {
                Ok(seq) => last = seq,
                Err(code) => break assert_eq!(code, "storage_full"),
            }
            assert!(last < 100_000, "the disk is never full");
        }
    }
    last
}

fn take_all_space(path: &Path) {
    let mut filler = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    for bytes in [1 << 16, 1 << 12] {
        while filler.write_all(&vec![0; bytes]).is_ok() {}
    }
}

#[expect(clippy::print_stderr, reason = "a test that is skipped must be seen")]
fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Two partitions, each of which has less than it may use.
fn start(data: &Path, disk: &SmallDisk) -> Process {
    let environment = [("TIDEGATE_DURABLE__PARTITIONS", "2")];
    let start = Start {
        shards: 2,
        data,
        environment: &environment,
    };
    start.run_on(disk)
}

/// Acks what comes until that is durable through a seq; what was told last.
fn ack_until(reader: &mut Client, topic: &str, (mut acked, through): (u64, u64)) -> u64 {
    while acked < through {
        let told: Value = serde_json::from_str(&reader.receive()).unwrap();
        match told["type"].as_str() {
            Some("message") => {
                let seq = &told["seq"];
                reader.send(&format!(
                    r#"{{"type":"ack","topic":"{topic}","sub_name":"r","seq":{seq},"ref":1}}"#
                ));
            }
            Some("acked") => acked = told["seq"].as_u64().unwrap(),
            _ => panic!("{told}"),
        }
    }
    acked
}

/// L7, P5, T-D6: restarts on a disk without one free byte, after a kill and after a stop: cursors move and
/// stay moved, each deletion succeeds, and its space is used again.
#[test]
fn a_restart_on_a_full_disk_acks_and_deletes() {
    let data = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(data.path(), 24 << 20) else {
        return skipped("nobody here may mount a tmpfs, not even in a namespace of its own");
    };
    let filler = disk.path(data.path()).join("filler");
    let mut process = start(data.path(), &disk);
    let topics = ["a", "b", "c", "d"].map(|name| process.topic("demo", name));
    let mut ada = process.durable("demo");
    for topic in &topics {
        publish(&mut ada, topic, "1").unwrap();
    }
    // A new subscription is something new, which a full disk has no room for.
    process
        .durable("demo")
        .open(&topics[0], "r", r#","from_seq":0"#);
    let last = fill(&mut ada, &topics[0]);
    fill(&mut ada, &topics[1]);
    take_all_space(&filler);
    let mut acked = 0;
    for life in 0..8 {
        drop(ada);
        match life % 2 {
            0 => drop(process),
            _ => process.stop(),
        }
        take_all_space(&filler);
        process = start(data.path(), &disk);
        ada = process.durable("demo");
        let refused = publish(&mut ada, &topics[0], &payload(60_000));
        assert_eq!(refused, Err("storage_full".to_owned()), "life {life}");
        let mut reader = process.durable("demo");
        let subscribed = reader.open(&topics[0], "r", "");
        let cursor = subscribed["cursor"].as_u64().unwrap();
        assert!(
            acked <= cursor,
            "life {life}: {acked} was told, {subscribed}"
        );
        acked = ack_until(&mut reader, &topics[0], (cursor, (cursor + 20).min(last)));
    }
    for topic in &topics[..2] {
        let path = format!("/v1/topics/{topic}");
        let deleted = process.rest("demo", "DELETE", &path, "");
        assert_eq!(deleted.status, 204, "{deleted:?}");
    }
    eventually("the space of what was deleted is used again", || {
        publish(&mut ada, &topics[2], &payload(60_000)).is_ok()
    });
    process.stop();
}
