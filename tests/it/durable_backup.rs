//! A data directory is backed up as the guide says, restored somewhere else, and holds what was
//! acknowledged. Knows the commands of `src/guide/backup.md` and runs them in a shell.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::durable::Durable as _;
use crate::harness::eventually;
use crate::harness::process::{Process, Start};

fn start(data: &Path) -> Process {
    let environment = [];
    Start {
        shards: 2,
        data,
        environment: &environment,
    }
    .run()
}

/// Runs a line of the guide.
fn shell(line: &str, data: &Path, backup: &Path, process: Option<&Process>) {
    let mut command = Command::new("sh");
    command.args(["-ec", line]);
    command.env("DATA", data).env("BACKUP", backup);
    if let Some(process) = process {
        command.env("PID", process.id().to_string());
    }
    let tidegate = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", tidegate.display()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}

/// The commands of the guide between two of its fences.
fn commands(title: &str) -> String {
    let guide = include_str!("../../src/guide/backup.md");
    let (_, rest) = guide.split_once(title).unwrap();
    let (_, rest) = rest.split_once("```sh\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Messages 1 to 40, of which A has acked 25; what is published behind them by somebody who does
/// not stop is in the backup or not.
fn fill(process: &Process) -> String {
    let id = process.topic("demo", "t");
    let mut ada = process.durable("demo");
    for seq in 1..=40 {
        ada.publish(&id, &format!("{seq}.50"), seq);
    }
    ada.open(&id, "A", r#","from_seq":0"#);
    for seq in 1..=40 {
        ada.expect_message(&id, seq, &format!("{seq}.50"));
    }
    ada.ack_surely(&id, "A", 25);
    id
}

/// What the restored directory holds: how many messages.
fn check(backup: &Path, id: &str) -> u64 {
    let restored = start(backup);
    assert_eq!(restored.topic("demo", "t"), id);
    let topic = restored.rest_json("demo", "GET", &format!("/v1/topics/{id}"), "");
    let last = topic["last_seq"].as_u64().unwrap();
    let mut ada = restored.durable("demo");
    assert_eq!(ada.open(id, "A", "")["cursor"], 25);
    for seq in 26..=last {
        ada.expect_message(id, seq, &format!("{seq}.50"));
    }
    ada.publish(id, "1", last + 1);
    restored.stop();
    last
}

/// C-24, B-17: the server is stopped, its directory copied
#[test]
fn a_copy_of_a_stopped_server_is_a_backup() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = folder.path().join("backup");
    let process = start(data.path());
    let id = fill(&process);
    process.stop();
    shell(
        &commands("## With the server stopped"),
        data.path(),
        &backup,
        None,
    );
    assert_eq!(check(&backup, &id), 40);
}

/// C-24, P1: the server stands still while it is copied, and nobody loses a connection
#[test]
fn a_copy_of_a_paused_server_is_a_backup() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = folder.path().join("backup");
    let process = start(data.path());
    let id = fill(&process);
    let acked = AtomicU64::new(40);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut bob = process.durable("demo");
        let (id, acked, stop) = (&id, &acked, &stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let seq = acked.load(Ordering::Relaxed) + 1;
                bob.publish(id, &format!("{seq}.50"), seq);
                acked.store(seq, Ordering::Relaxed);
            }
        });
        eventually("the publisher is at work", || {
            60 < acked.load(Ordering::Relaxed)
        });
        let surely = acked.load(Ordering::Relaxed);
        let paused = commands("## Without a stop");
        shell(&paused, data.path(), &backup, Some(&process));
        stop.store(true, Ordering::Relaxed);
        let restored = check(&backup, id);
        assert!(
            surely <= restored,
            "{surely} were acked, {restored} are there"
        );
    });
    let sent = acked.load(Ordering::Relaxed) + 1;
    let topic = process.rest_json("demo", "GET", &format!("/v1/topics/{id}"), "");
    assert!(topic["last_seq"].as_u64().unwrap() <= sent);
}
