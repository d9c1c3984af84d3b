//! What the verbs of the program write, and what they do where nobody can read it. Knows the
//! program as a person in a shell does.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use crate::durable::plan;
use crate::harness::{Site, token};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).stdin(Stdio::null());
    command.env("TIDEGATE_JWT_SECRET", "a secret of the integration tests");
    command
}

/// Every verb that answers without a server.
const VERBS: &[&[&str]] = &[
    &["--help"],
    &["--version"],
    &["serve", "--help"],
    &["wire"],
    &["config", "init"],
    &["config", "show", "--dev"],
    &["config", "check", "--dev"],
    &["token", "new", "--ns", "demo", "--sub", "ada"],
    &["doctor", "--dev"],
    &["shell", "completions", "bash"],
];

/// K5: a reader that has seen enough is no failure
#[test]
fn a_reader_that_goes_is_no_failure() {
    for verb in VERBS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut verb_in_pipe = program(verb);
        verb_in_pipe.stdout(OwnedFd::from(writer));
        let output = verb_in_pipe.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{verb:?}: {said}");
        assert!(!said.contains("panicked"), "{verb:?}: {said}");
    }
}

/// K5: what cannot be written is told, and is a failure
#[test]
fn a_full_disk_is_told() {
    for verb in VERBS {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = program(verb).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {said}");
        let expected = "tidegate: cannot write the standard output: ";
        assert!(said.contains(expected), "{verb:?}: {said}");
        assert!(!said.contains("panicked"), "{verb:?}: {said}");
    }
}

fn ask(site: &Site, arguments: &[&str], input: &str) -> Output {
    let mut command = program(arguments);
    command.env("TIDEGATE_URL", format!("http://{}", site.address));
    command.env("TIDEGATE_TOKEN", token("demo", "svc"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// K5: one message is one line, however it was written; a mark of byte order is not a text
#[test]
fn lines_are_frames() {
    let data = tempfile::tempdir().unwrap();
    let site = plan(1, data.path()).start();
    let several = "{\"a\":\n [1,\r\n 2]}";
    assert!(ask(&site, &["pub", "orders", several], "").status.success());
    let lines = "\u{feff}{\"b\":1}\r\n{\"c\":2}\nplain\r\n";
    let published = ask(&site, &["pub", "orders"], lines);
    assert!(published.status.success(), "{published:?}");
    let read = ask(&site, &["sub", "orders", "--from", "0", "--count", "4"], "");
    let printed = String::from_utf8(read.stdout).unwrap();
    let payloads: Vec<serde_json::Value> = printed
        .lines()
        .map(|line| {
            let frame: serde_json::Value = serde_json::from_str(line).unwrap();
            frame["payload"].clone()
        })
        .collect();
    let expected = serde_json::json!([{ "a": [1, 2] }, { "b": 1 }, { "c": 2 }, "plain"]);
    assert_eq!(serde_json::Value::from(payloads), expected, "{printed}");
}

/// What a server holds is printed, one object a line, however many pages it takes
#[test]
fn a_server_is_looked_at_from_the_shell() {
    let data = tempfile::tempdir().unwrap();
    let site = plan(2, data.path()).start();
    let client =
        tidegate::client::Client::new(&format!("http://{}", site.address), &token("demo", "svc"));
    let names: Vec<String> = (0..1_100).map(|nth| format!("topic-{nth:04}")).collect();
    client.unwrap().topics(&names).unwrap();
    let printed = |arguments: &[&str]| {
        let output = ask(&site, arguments, "");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(read).collect::<Vec<_>>()
    };
    let topics = printed(&["topics"]);
    let found: Vec<_> = topics
        .iter()
        .map(|topic| topic["name"].as_str().unwrap())
        .collect();
    assert_eq!(found, names);
    ask(&site, &["pub", "topic-0001", "1"], "");
    ask(
        &site,
        &[
            "sub",
            "topic-0001",
            "--sub-name",
            "A",
            "--from",
            "0",
            "--count",
            "1",
        ],
        "",
    );
    let subs = printed(&["subs", "--topic", "topic-0001"]);
    assert_eq!(
        (subs.len(), subs[0]["cursor"].as_u64()),
        (1, Some(1)),
        "{subs:?}"
    );
    let mut ada = site.join("demo", "ada");
    ada.subscribe("room");
    printed(&["push", "room", "said", "{\"n\":1}"]);
    ada.expect_push("room", "said", "{\"n\":1}");
    assert_eq!(printed(&["presence", "room"]).len(), 1);
    assert_eq!(printed(&["connections"]).len(), 1);
    let refused = ask(&site, &["push", "room", "said", "{\"n\":"], "");
    assert_eq!(refused.status.code(), Some(1));
}

/// What packages install is made by the program itself
#[test]
fn completions_and_pages_are_written() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = program(&["shell", "completions", shell]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("connections") && text.contains("sub-name"),
            "{shell}"
        );
    }
    let man = folder.path().join("man");
    let mut write = program(&["shell", "man", "--dir"]);
    assert!(write.arg(&man).status().unwrap().success());
    for page in [
        "tidegate",
        "tidegate-serve",
        "tidegate-token-new",
        "tidegate-log-verify",
    ] {
        let text = std::fs::read_to_string(man.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
}
