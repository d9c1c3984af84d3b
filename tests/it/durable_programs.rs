//! Programs around durable topics: the shipped examples, the verbs `pub`, `sub` and `log`,
//! and the handle in the hands of relay handlers. Knows what they print.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tidegate::prelude::*;
use tidegate::{Open, TopicError, Topics};

use crate::durable::{Durable as _, plan};
use crate::harness::http::{ask, request};
use crate::harness::{Client, Plan, Site, both_shards, tenant, token, wait};

#[expect(dead_code, reason = "its `main` serves, which a test does not")]
#[path = "../../examples/durable_consumer.rs"]
mod durable_consumer;

#[expect(dead_code, reason = "its `main` reads arguments")]
#[path = "../../examples/drop_out.rs"]
mod drop_out;

both_shards! {
    /// B-14: the demo as it is shipped
    fn the_drop_out_example(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = plan(shards, data.path()).start();
        let address = site.address.to_string();
        let reached = drop_out::drop_out(&address, &token("demo", "svc")).unwrap();
        assert_eq!(reached, [vec!["A", "B", "C"], vec!["B", "C"], vec!["C"]]);
    }

    /// Jobs are taken one by one, and a worker that comes again goes on where it stopped.
    fn the_durable_consumer_example(shards) {
        let data = tempfile::tempdir().unwrap();
        let routes = |builder: tidegate::server::ServerBuilder| {
            builder.router(durable_consumer::routes())
        };
        let site = plan(shards, data.path()).with(routes).start();
        for job in 1..=3 {
            let added = site.rest("demo", "POST", "/jobs", &format!(r#"{{"job":{job}}}"#));
            assert_eq!(added.body, format!(r#"{{"seq":{job}}}"#));
        }
        let listed = site.rest("demo", "GET", "/jobs", "").body;
        assert_eq!(listed, r#"[{"job":1},{"job":2},{"job":3}]"#);
        let take = |worker: &str, done: u64| {
            site.rest("demo", "GET", &format!("/work/{worker}?done={done}"), "").body
        };
        let job = |seq: u64| format!(r#"{{"seq":{seq},"job":{{"job":{seq}}}}}"#);
        assert_eq!(take("w1", 0), job(1));
        assert_eq!(take("w1", 0), job(1), "it was not done");
        assert_eq!(take("w1", 1), job(2));
        assert_eq!(take("w2", 0), job(1), "each has a place of its own");
        assert_eq!(take("w1", 2), job(3));
        assert_eq!(ask(site.address, &request("GET", "/jobs", None, "")).status, 401);
    }

    /// A handler of another dialect publishes and reads in the tenant of its caller.
    fn topics_in_a_relay_handler(shards) {
        async fn keep(event: RelayEvent, relay: Relay, topics: Topics) -> tidegate::Result<()> {
            if let RelayEvent::Message { payload, .. } = event {
                topics.resolve("kept").await?;
                let seq = topics.publish("kept", &payload).await?.last_seq;
                relay.push("keep", "kept", &json!({ "seq": seq })).await?;
            }
            Ok(())
        }
        let data = tempfile::tempdir().unwrap();
        let site = plan(shards, data.path()).with(|server| server.relay("keep", keep)).start();
        let mut ada = site.join("demo", "ada");
        ada.subscribe("keep");
        ada.say("keep", "x", r#"{"a":1}"#);
        ada.expect_push("keep", "kept", r#"{"seq":1}"#);
        let topics = site.server().topics().tenant(tenant("demo"));
        let history = wait(topics.history("kept", 1, 10)).unwrap();
        assert_eq!(&history.messages[0].payload[..], br#"{"a":1}"#);
    }

    /// An event is kept in the tenant of whoever sent it, and answered by its seq.
    fn topics_in_a_gateway(shards) {
        let data = tempfile::tempdir().unwrap();
        let gateway = |app: &mut App| {
            app.gateway::<Keeper>();
        };
        let site = plan(shards, data.path()).with(move |server| server.app(gateway)).start();
        for (ns, seq) in [("demo", 1), ("demo", 2), ("other", 1)] {
            let mut ada = Client::connect(site.address, "/keep", &token(ns, "ada"));
            let answer = format!(r#"{{"event":"keep","data":{seq}}}"#);
            ada.ask(&format!(r#"{{"event":"keep","data":"{ns}"}}"#), &answer);
        }
        let kept = wait(site.server().topics().tenant(tenant("other")).history("kept", 1, 10)).unwrap();
        assert_eq!(&kept.messages[0].payload[..], br#""other""#);
    }
}

#[gateway(path = "/keep")]
#[derive(Default)]
struct Keeper;

#[messages]
impl Keeper {
    #[subscribe_message("keep")]
    async fn keep(&self, topics: Topics, text: String) -> Result<u64, TopicError> {
        topics.resolve("kept").await?;
        Ok(topics.publish("kept", &text).await?.last_seq)
    }
}

fn tidegate(arguments: &[&str], site: Option<&Site>, input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).env_clear();
    if let Some(site) = site {
        command.env("TIDEGATE_URL", format!("http://{}", site.address));
        command.env("TIDEGATE_TOKEN", token("demo", "svc"));
    }
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// C-24: `pub` and `sub` over the network
#[test]
fn publishing_and_subscribing_from_the_shell() {
    let data = tempfile::tempdir().unwrap();
    let site = plan(1, data.path()).start();
    let published = tidegate(&["pub", "t", "42.50"], Some(&site), "");
    assert_eq!(
        (
            lines(&published)[0]["seq"].clone(),
            published.status.success()
        ),
        (json!(1), true)
    );
    let published = tidegate(&["pub", "t"], Some(&site), "{\"a\": 1}\n\nplain text\n");
    assert_eq!(lines(&published).len(), 2);
    let taken = tidegate(
        &["sub", "t", "--from", "0", "--count", "3"],
        Some(&site),
        "",
    );
    let text = String::from_utf8(taken.stdout).unwrap();
    assert!(text.contains(r#""payload":42.50}"#) && text.contains(r#""payload":{"a": 1}}"#));
    tidegate(&["pub", "t", "4", "--key", "k"], Some(&site), "");
    let again = tidegate(&["pub", "t", "4", "--key", "k"], Some(&site), "");
    assert_eq!(lines(&again)[0]["duplicate"], json!(true));
    let taken = tidegate(&["sub", "t", "--count", "1"], Some(&site), "");
    assert_eq!(
        lines(&taken)[0]["seq"],
        json!(4),
        "the cursor stands behind what was printed"
    );
    let refused = tidegate(&["pub", &"x".repeat(300), "1"], Some(&site), "");
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert!(complaint.contains("name_bytes_max = 255"), "{complaint}");
    assert!(!refused.status.success());
}

/// C-24: each line is answered for itself, and a mistake is told with its line and its cure
#[test]
fn lines_that_are_refused_are_told() {
    let data = tempfile::tempdir().unwrap();
    let site = plan(2, data.path()).start();
    let large = "x".repeat(70_000);
    let input = "{\"a\":1}\n{\"a\":\nplain\n";
    let mixed = tidegate(&["pub", "t"], Some(&site), input);
    let acks = lines(&mixed);
    assert_eq!((&acks[0]["ref"], &acks[1]["ref"]), (&json!(1), &json!(3)));
    assert_eq!((&acks[0]["seq"], &acks[1]["seq"]), (&json!(1), &json!(2)));
    let complaint = String::from_utf8(mixed.stderr).unwrap();
    assert!(complaint.starts_with("tidegate: line 2: "), "{complaint}");
    assert!(!mixed.status.success());
    let text = tidegate(&["pub", "t", "--text"], Some(&site), "{\"a\":\n");
    assert!(text.status.success());
    let many: String = (0..2_000).map(|number| format!("{number}\n")).collect();
    let many = lines(&tidegate(&["pub", "many"], Some(&site), &many));
    assert_eq!((many.len(), &many[1_999]["seq"]), (2_000, &json!(2_000)));
    let told = |arguments: &[&str], site: Option<&Site>| {
        let output = tidegate(arguments, site, "");
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (arguments, text) in [
        (&["pub", "t", "{"][..], "--text publishes it as text"),
        (&["pub", "t", &large], "frame_bytes_max = 65536"),
        (
            &["pub", "t", "1", "--path", "/nowhere"],
            "--path is the server's durable.path",
        ),
        (
            &["pub", "t", "1", "--url", "ftp://x"],
            "`ftp://x` is not http://HOST:PORT or https://HOST: mend --url or TIDEGATE_URL",
        ),
        (
            &["pub", "t", "1", "--url", "http://127.0.0.1:1"],
            "cannot reach 127.0.0.1:1",
        ),
        (
            &["sub", "t", "--from", "99"],
            "from_seq 99 is beyond the next seq 4",
        ),
        (
            &["log", "inspect", "/nowhere"],
            "/nowhere is no data directory",
        ),
    ] {
        let complaint = told(arguments, Some(&site));
        assert!(complaint.contains(text), "{arguments:?}: {complaint}");
    }
    let nobody = told(&["pub", "t", "1"], None);
    assert!(
        nobody.contains("set TIDEGATE_TOKEN or --token-file"),
        "{nobody}"
    );
    let token = data.path().join("token");
    std::fs::write(&token, "bad\n").unwrap();
    let file = token.to_str().unwrap();
    let bad = told(&["sub", "t", "--token-file", file], Some(&site));
    assert!(
        bad.contains("401") && bad.contains("tidegate token check"),
        "{bad}"
    );
}

/// C-24, P6: a directory is looked at only without its server, and damage is seen
#[test]
fn a_data_directory_is_looked_at() {
    let data = tempfile::tempdir().unwrap();
    let site = plan(2, data.path()).start();
    let topics = site.server().topics().tenant(tenant("demo"));
    let id = wait(async {
        let id = topics.resolve("t").await.unwrap().0.id.to_string();
        for number in 0..50 {
            topics.publish("t", &number).await.unwrap();
        }
        let open = Open {
            from_seq: Some(0),
            ..Open::default()
        };
        let subscription = topics.subscribe("t", "A", open).await.unwrap();
        subscription.ack(0).unwrap();
        id
    });
    let path = data.path().to_str().unwrap().to_owned();
    let locked = tidegate(&["log", "verify", &path], None, "");
    assert!(!locked.status.success(), "a server has it");
    site.stop();
    let copy = tempfile::tempdir().unwrap();
    copy_folder(data.path(), copy.path());
    let copied = copy.path().to_str().unwrap();
    let verdict = tidegate(&["log", "verify", copied], None, "");
    let text = String::from_utf8(verdict.stdout).unwrap();
    assert!(
        verdict.status.success() && text.ends_with("1 topics: intact\n"),
        "{text}"
    );
    let found = String::from_utf8(tidegate(&["log", "inspect", copied], None, "").stdout).unwrap();
    assert!(
        found.contains(&format!("topic {id} demo/t: seq 1 to 50")),
        "{found}"
    );
    assert!(found.contains("A: cursor 0"), "{found}");
    let site = plan(1, copy.path()).start();
    let topics = site.server().topics().tenant(tenant("demo"));
    assert_eq!(wait(topics.topic(&id)).unwrap().last_seq, 50);
    site.stop();
    flip_a_bit(copy.path());
    let verdict = tidegate(&["log", "verify", copied], None, "");
    let text = String::from_utf8(verdict.stdout).unwrap();
    assert!(
        !verdict.status.success() && text.contains("DAMAGED"),
        "{text}"
    );
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// In the first stored batch that there is.
fn flip_a_bit(directory: &Path) {
    let partitions = (0..4).map(|number| directory.join(format!("partition-{number:04}")));
    let segments = partitions.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    for path in segments.map(|entry| entry.unwrap().path()) {
        if path
            .extension()
            .is_some_and(|extension| extension == "segment")
        {
            let mut bytes = std::fs::read(&path).unwrap();
            if bytes[4096 + 200] != 0 {
                bytes[4096 + 200] ^= 1;
                return std::fs::write(&path, bytes).unwrap();
            }
        }
    }
    panic!("no segment holds anything");
}

/// Without topics on disk the handle says so.
#[test]
fn a_server_without_topics_says_so() {
    let site = Plan::new(1).start();
    let error = wait(site.server().topics().tenant(tenant("demo")).resolve("t")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "this server has no durable topics: durable.enabled = false"
    );
}
