//! Connections that come and go, many at once, and again: what they leave behind. Knows the process from
//! outside only: its memory and its open files.

use crate::durable::Durable as _;
use crate::harness::process::{Process, Start};
use crate::harness::{Client, eventually, token};

const CLIENTS: usize = 150;
const WARM_ROUNDS: usize = 6;
const ROUNDS: usize = 10;
const KIB: u64 = 1024;

/// All come at once, ask for what they had, get what they missed and are gone, half of them without a
/// word.
fn come_and_go(process: &Process, topic: &str, round: usize) {
    let join = |n: usize| {
        let mut client = Client::connect(process.address, "/v1/ws", &token("demo", "ada"));
        let sub = format!("sub {n}");
        client.send(&format!(
            r#"{{"type":"subscribe","topic":"{topic}","sub_name":"{sub}","from_seq":0}}"#
        ));
        client
    };
    let target = format!("/v1/topics/{topic}/messages");
    let body = format!(r#"{{"payload":{round}}}"#);
    assert_eq!(process.rest("demo", "POST", &target, &body).status, 200);
    let clients: Vec<Client> = (0..CLIENTS).map(join).collect();
    for (n, mut client) in clients.into_iter().enumerate() {
        let told = client.receive();
        assert!(told.contains(r#""type":"subscribed""#), "{told}");
        match n % 2 {
            0 => client.vanish(),
            _ => drop(client),
        }
    }
}

fn files(process: &Process) -> usize {
    let folder = format!("/proc/{}/fd", process.id());
    std::fs::read_dir(folder).unwrap().count()
}

/// P14, T-O3, T-N3: nothing that a connection had is kept behind it: files, memory, bindings
#[test]
fn connections_that_come_and_go_leave_nothing() {
    let data = tempfile::tempdir().unwrap();
    let environment = [("TIDEGATE_LIMITS__SUBSCRIPTIONS_PER_TENANT_MAX", "100000")];
    let process = Start {
        shards: 2,
        data: data.path(),
        environment: &environment,
    }
    .run();
    let topic = process.topic("demo", "t");
    let files_before = files(&process);
    for round in 0..WARM_ROUNDS {
        come_and_go(&process, &topic, round);
    }
    let settled = |process: &Process| {
        eventually("all are gone", || files(process) <= files_before + 5);
        process.own_memory()
    };
    let warm = settled(&process);
    for round in WARM_ROUNDS..WARM_ROUNDS + ROUNDS {
        come_and_go(&process, &topic, round);
    }
    let after = settled(&process);
    let grown = after.saturating_sub(warm) / KIB;
    assert!(
        grown <= 1024,
        "{grown} KiB more after {ROUNDS} rounds of {CLIENTS}"
    );
    let listed = process.rest_json("demo", "GET", "/v1/subscriptions?limit=1000", "");
    let all = listed["subscriptions"].as_array().unwrap();
    assert_eq!(all.len(), CLIENTS.min(all.len()));
    eventually("nobody is bound", || {
        let listed = process.rest_json("demo", "GET", "/v1/subscriptions?limit=1000", "");
        let all = listed["subscriptions"].as_array().unwrap().clone();
        !all.is_empty() && all.iter().all(|one| one["attached"] == false)
    });
    process.stop();
}

/// P9, T-N2: while some read nothing, all others get everything at once, and those who come back later
/// get what they missed
#[test]
fn readers_that_are_stuck_hold_up_nobody() {
    const READERS: usize = 60;
    const STUCK: usize = 6;
    const MESSAGES: u64 = 40;
    let data = tempfile::tempdir().unwrap();
    let process = Start {
        shards: 2,
        data: data.path(),
        environment: &[],
    }
    .run();
    let topic = process.topic("demo", "t");
    let join = |n: usize| {
        let mut client = process.durable("demo");
        client.open(&topic, &format!("sub {n}"), r#","from_seq":0"#);
        client
    };
    let mut readers: Vec<Client> = (0..READERS).map(join).collect();
    let stuck = readers.split_off(READERS - STUCK);
    let mut publisher = process.durable("demo");
    let payload = format!("{:?}", "x".repeat(20_000));
    for seq in 1..=MESSAGES {
        publisher.publish(&topic, &payload, seq);
        for (n, reader) in readers.iter_mut().enumerate() {
            let told = reader.receive();
            assert!(told.contains(&format!(r#""seq":{seq},"#)), "reader {n}");
            let ack =
                format!(r#"{{"type":"ack","topic":"{topic}","sub_name":"sub {n}","seq":{seq}}}"#);
            reader.send(&ack);
        }
    }
    drop(stuck);
    let mut late = process.durable("demo");
    let opened = late.open(&topic, &format!("sub {}", READERS - 1), "");
    assert_eq!(opened["next_seq"], 1, "nothing of it was acked: {opened}");
    for seq in 1..=5 {
        let told = late.receive();
        assert!(told.contains(&format!(r#""seq":{seq},"#)), "{told:.200}");
    }
}
