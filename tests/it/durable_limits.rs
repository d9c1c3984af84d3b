//! What durable topics cost and what they do when something runs out: the memory of readers that
//! stand still, and a full disk. Each server is a process of its own.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use crate::durable::Durable as _;
use crate::harness::process::{Process, Start};
use crate::harness::{Client, client, eventually, token};

/// A text of so many bytes, as JSON.
fn payload(bytes: usize) -> String {
    format!(r#""{}""#, "x".repeat(bytes))
}

/// Publishes until so many bytes are acknowledged, with some on their way at once.
fn publish_much(process: &Process, topic: &str, bytes: usize) -> u64 {
    let payload = payload(PAYLOAD_BYTES);
    let publish = format!(r#"{{"type":"publish","topic":"{topic}","payload":{payload}}}"#);
    let mut ada = process.durable("demo");
    let count = bytes.div_ceil(PAYLOAD_BYTES) as u64;
    let mut sent = 0;
    for seq in 1..=count {
        while sent < count.min(seq + 15) {
            ada.send(&publish);
            sent += 1;
        }
        ada.expect(&format!(
            r#"{{"type":"pub_ack","topic":"{topic}","seq":{seq}}}"#
        ));
    }
    count
}

/// How many messages are on their way to all subscriptions of this topic.
fn in_flight(process: &Process, topic: &str) -> u64 {
    let target = format!("/v1/subscriptions?topic={topic}");
    let listed = process.rest_json("demo", "GET", &target, "");
    let all = listed["subscriptions"].as_array().unwrap();
    all.iter()
        .map(|one| one["in_flight"].as_u64().unwrap())
        .sum()
}

/// Readers from the beginning of the log who do not read, once delivery to them stands still.
fn stalled(process: &Process, topic: &str, numbers: Range<u64>) -> Vec<Client> {
    let bearer = format!("Bearer {}", token("demo", "slow"));
    let most = numbers.end;
    let connect = |number| {
        let stream = client::connected_with_small_buffer(process.address);
        let mut slow = Client::over(stream, "/v1/ws", &[("authorization", &bearer)]);
        // Each somewhere else, so that they have no frame in common.
        let from = 1 + number * 15;
        let open = format!(r#","from_seq":{from},"max_in_flight":4096"#);
        slow.open(topic, &format!("slow-{number}"), &open);
        slow
    };
    let clients = numbers.map(connect).collect();
    let (mut last, mut stood) = (0, 0);
    eventually("delivery to those who do not read stands still", || {
        let stood_at = std::mem::replace(&mut last, in_flight(process, topic));
        stood = if most < last && stood_at == last {
            stood + 1
        } else {
            0
        };
        50 < stood
    });
    clients
}

/// B-18, D-34, P9: readers that do not read, with a long backlog before them, cost no memory that
/// grows with it, and their neighbours nothing
#[test]
fn a_stalled_reader_costs_less_than_a_mebibyte() {
    let data = tempfile::tempdir().unwrap();
    let start = Start {
        shards: 2,
        data: data.path(),
        environment: &[],
    };
    let process = start.run();
    let id = process.topic("demo", "t");
    let count = publish_much(&process, &id, BACKLOG_BYTES);
    // The first ones also take what the server takes once, and show what it gives back.
    let mut first = stalled(&process, &id, 0..STALLED);
    let before = process.own_memory();
    let more = stalled(&process, &id, STALLED..3 * STALLED);
    let mut fast = process.durable("demo");
    fast.open(&id, "fast", "");
    let mut publisher = process.durable("demo");
    for seq in count + 1..=count + 200 {
        publisher.publish(&id, "1", seq);
        fast.expect_message(&id, seq, "1");
        fast.ack(&id, "fast", seq);
    }
    let each = process.own_memory().saturating_sub(before) / (2 * STALLED);
    assert!(
        each <= 1 << 20,
        "{each} bytes of memory for each stalled reader"
    );
    let waiting = in_flight(&process, &id);
    let bytes = waiting * PAYLOAD_BYTES as u64 / (3 * STALLED);
    assert!(
        bytes <= 320 * 1024,
        "{bytes} bytes are on their way to each stalled reader"
    );
    drop(more);
    // And it has lost nothing: what waits is read on as soon as it reads.
    let slow = &mut first[0];
    for seq in 1..=50 {
        slow.expect_message(&id, seq, &payload(PAYLOAD_BYTES));
        slow.ack(&id, "slow-0", seq);
    }
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

/// Publishes large messages until one is refused; the last seq.
fn publish_until_full(client: &mut Client, topic: &str) -> u64 {
    let payload = payload(PAYLOAD_BYTES);
    let mut last = 0;
    loop {
        match publish(client, topic, &payload) {
            Ok(seq) => last = seq,
            Err(code) => {
                assert_eq!(code, "storage_full");
                return last;
            }
        }
        assert!(last < 10_000, "the disk is never full");
    }
}

fn on_disk_of(bytes: u64, data: &Path) -> Option<Process> {
    let environment = [("TIDEGATE_DURABLE__PARTITIONS", "2")];
    let process = Start {
        shards: 2,
        data,
        environment: &environment,
    }
    .run_on_disk_of(bytes);
    if process.is_none() {
        skipped("nobody here may mount a tmpfs, not even in a namespace of its own");
    }
    process
}

#[expect(clippy::print_stderr, reason = "a test that is skipped must be seen")]
fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Takes all space that is left on the disk of the process.
fn take_all_space(path: &Path) {
    let mut filler = File::create(path).unwrap();
    for bytes in [1 << 16, 1 << 12] {
        while filler.write_all(&vec![0; bytes]).is_ok() {}
    }
}

/// D-26, P5, T-D6: a full disk refuses publishes; reading, acks, deletes and other dialects go on,
/// and publishing goes on by itself as soon as there is space
#[test]
fn a_full_disk_refuses_publishes_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let Some(process) = on_disk_of(32 << 20, data.path()) else {
        return;
    };
    let id = process.topic("demo", "t");
    let other = process.topic("demo", "other");
    let mut ada = process.durable("demo");
    let mut reader = process.durable("demo");
    let gone = reader.open(&other, "gone", "")["subscription_id"].clone();
    publish(&mut ada, &other, "1").unwrap();
    reader.expect_message(&other, 1, "1");
    let filler = process.path(data.path()).join("filler");
    take_all_space(&filler);
    let last = publish_until_full(&mut ada, &id);
    let target = format!("/v1/topics/{id}/messages");
    let large = format!(r#"{{"payload":{}}}"#, payload(PAYLOAD_BYTES));
    let refused = process.rest("demo", "POST", &target, &large);
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!(
        refused.body.contains(r#""code":"storage_full""#),
        "{refused:?}"
    );
    // Everything else goes on.
    reader.open(&id, "A", r#","from_seq":0"#);
    for seq in 1..=last {
        reader.expect_message(&id, seq, &payload(PAYLOAD_BYTES));
        reader.ack(&id, "A", seq);
    }
    reader.ack_surely(&other, "gone", 1);
    let subscription = format!("/v1/subscriptions/{}", gone.as_str().unwrap());
    assert_eq!(
        process.rest("demo", "DELETE", &subscription, "").status,
        204
    );
    reader.receive();
    assert_eq!(
        process.rest("demo", "GET", "/readyz", "").status,
        200,
        "a full disk is no failure"
    );
    assert_eq!(
        publish(&mut ada, &id, &payload(PAYLOAD_BYTES)),
        Err("storage_full".to_owned())
    );
    std::fs::remove_file(&filler).unwrap();
    let mut resumed = 0;
    eventually("publishing goes on by itself", || {
        publish(&mut ada, &id, &payload(PAYLOAD_BYTES)).is_ok_and(|seq| {
            resumed = seq;
            true
        })
    });
    assert_eq!(resumed, last + 1, "what was refused took no seq");
    reader.expect_message(&id, last + 1, &payload(PAYLOAD_BYTES));
    process.stop();
}

/// A message that fits into the limit of 64 KiB with its envelope.
const PAYLOAD_BYTES: usize = 60_000;
const BACKLOG_BYTES: usize = 56 << 20;
/// Several, so that what the allocator keeps by chance is small beside them.
const STALLED: u64 = 16;
