//! What nobody may read in a log, on a page or in a metric: tokens, the secret that they are signed
//! with, and payloads. Whatever a server is told here, it is told with such a text in it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tidegate::auth::{AuthConfig, Claims};

use crate::harness::http::{ask, request};
use crate::harness::wire::upgrade_request;
use crate::harness::{Opcode, Plan, Wire, eventually, tenant, unix_s};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PAYLOAD: &str = "payload-5b1d9c";
const BAD_TOKEN: &str = "bad-token-77e0a4";

/// A program that tells its log everything, and both of its addresses.
struct Talkative {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
    operators: SocketAddr,
}

impl Talkative {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = "[server]\nshards = 2\n[relay]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                      [log]\nlevel = \"trace\"\n";
        fs::write(folder.path().join("tidegate.toml"), config).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--config",
            "tidegate.toml",
        ]);
        command.env_clear().env("TIDEGATE_JWT_SECRET", SECRET);
        command.current_dir(folder.path()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let mut started = Self {
            child,
            folder,
            address: line.trim().rsplit('/').next().unwrap().parse().unwrap(),
            operators: SocketAddr::from(([0; 4], 0)),
        };
        eventually("the address for operators", || {
            let log = started.log();
            let told = log.split_once("for operators: http://");
            let told = told.and_then(|(_, rest)| rest.split_once("/metrics"));
            told.is_some_and(|(address, _)| {
                started.operators = address.parse().unwrap();
                true
            })
        });
        started
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn upgrade(&self, target: &str, line: &str) -> (Wire, u16) {
        let mut wire = Wire::connect(self.address);
        wire.write(upgrade_request(target, &[line]));
        let status = wire.read_answer().status;
        (wire, status)
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tokens in every place, good and bad.
fn come_in(server: &Talkative, good: &str) -> Wire {
    for (token, status) in [(good, 101), (BAD_TOKEN, 401)] {
        for path in ["/ws", "/v1/ws"] {
            let protocol = format!("Sec-WebSocket-Protocol: bearer, {token}");
            assert_eq!(server.upgrade(path, &protocol).1, status);
            let query = format!("{path}?token={token}");
            assert_eq!(server.upgrade(&query, "X: y").1, status);
        }
        let listed = ask(
            server.address,
            &request("GET", &format!("/v1/connections?token={token}"), None, ""),
        );
        assert_eq!(listed.status == 200, status == 101);
    }
    let header = format!("Authorization: Bearer {good}");
    server.upgrade("/ws", &header).0
}

/// Payloads by every way, good and bad.
fn say(server: &Talkative, good: &str, mut relay: Wire) {
    relay.send(Opcode::TEXT, r#"{"type":"subscribe","topic":"news"}"#);
    for text in [
        format!(r#"{{"type":"message","topic":"news","event":"e","payload":"{PAYLOAD}"}}"#),
        format!(r#"{{"type":"{PAYLOAD}"}}"#),
        format!(r#"{{"{PAYLOAD}"#),
        format!(r#"{{"type":"auth","token":"{good}"}}"#),
        format!(r#"{{"type":"auth","token":"{BAD_TOKEN}"}}"#),
    ] {
        relay.send(Opcode::TEXT, text);
        relay.read_frame();
    }
    // A peer masks; this one does not.
    relay.write([&[0x81, 14], PAYLOAD.as_bytes()].concat());
    relay.read_to_end();
    let (mut durable, status) = server.upgrade(&format!("/v1/ws?token={good}"), "X: y");
    assert_eq!(status, 101);
    let post = |target: &str, body: &str| {
        ask(server.address, &request("POST", target, Some(good), body)).status
    };
    assert_eq!(post("/v1/topics", r#"{"name":"orders"}"#), 201);
    let message = format!(r#"{{"payload":"{PAYLOAD}","idempotency_key":"a"}}"#);
    assert_eq!(post("/v1/topics/orders/messages", &message), 200);
    assert_eq!(
        post("/v1/topics/orders/messages", &format!(r#"{{"{PAYLOAD}"#)),
        400
    );
    let push = format!(r#"{{"topic":"news","event":"e","payload":"{PAYLOAD}"}}"#);
    assert_eq!(post("/v1/relay/push", &push), 200);
    assert_eq!(post("/v1/relay/push", &push[1..]), 400);
    for text in [
        format!(r#"{{"type":"publish","topic":"orders","payload":"{PAYLOAD}"}}"#),
        format!(r#"{{"type":"publish","topic":"orders","payload":{PAYLOAD}}}"#),
        r#"{"type":"subscribe","topic":"orders","sub_name":"s","from_seq":1}"#.to_owned(),
    ] {
        durable.send(Opcode::TEXT, text);
        durable.read_frame();
    }
}

/// Every page that shows something without being asked for a message, with its text.
fn pages(server: &Talkative, good: &str) -> Vec<(String, String)> {
    let get = |address, target: &str| {
        let answer = ask(address, &request("GET", target, Some(good), ""));
        (
            format!("{} {target}", answer.status),
            answer.head + &answer.body,
        )
    };
    let described: Value =
        serde_json::from_str(&ask(server.address, &request("GET", "/openapi.json", None, "")).body)
            .unwrap();
    let paths = described["paths"].as_object().unwrap().iter();
    let paths = paths.filter(|(path, verbs)| verbs.get("get").is_some() && !path.contains('{'));
    let mut pages: Vec<_> = paths.map(|(path, _)| get(server.address, path)).collect();
    pages.push(get(server.address, "/v1/topics/orders"));
    pages.push(get(server.address, "/v1/topics/orders/subscriptions"));
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/admin/config",
        "/console",
    ] {
        pages.push(get(server.operators, path));
    }
    let shown = pages
        .iter()
        .filter(|(page, _)| page.starts_with("200 "))
        .count();
    assert!(
        12 <= shown,
        "{:?}",
        pages.iter().map(|(page, _)| page).collect::<Vec<_>>()
    );
    pages
}

/// T-A3, C-24: at the most talkative level too
#[test]
fn no_log_page_or_metric_tells_a_secret() {
    let mut server = Talkative::start();
    let claims = Claims::new(tenant("demo"), "ada").role("admin");
    let good = AuthConfig::new(SECRET, 60).unwrap();
    let good = good.issue(&claims, unix_s()).unwrap();
    let relay = come_in(&server, &good);
    say(&server, &good, relay);
    let mut told = pages(&server, &good);
    server.signal(Signal::HUP);
    eventually("the reload", || server.log().contains("reloaded keys"));
    server.signal(Signal::TERM);
    assert!(server.child.wait().unwrap().success());
    let log = server.log();
    assert!(
        log.contains("protocol error"),
        "the log tells what it should: {log}"
    );
    told.push(("the log".to_owned(), log));
    // What makes a token one is its last part; the others are no secret of anybody's.
    let signature = good.rsplit('.').next().unwrap();
    for (place, text) in &told {
        for secret in [SECRET, PAYLOAD, BAD_TOKEN, signature] {
            assert!(!text.contains(secret), "{place} tells {secret}:\n{text}");
        }
    }
}

/// Whoever makes the configuration in a program has to opt in as one who writes it in a file has.
#[test]
fn operators_are_reached_by_others_only_on_purpose() {
    let start = |listen: &'static str| {
        let plan = Plan::new(1).config(|config| {
            config.admin.listen = Some(listen.parse().unwrap());
        });
        plan.try_start()
    };
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let refused = start(listen)
            .map(drop)
            .expect_err("it is reached by others");
        let text = refused.to_string();
        assert!(text.contains("admin.allow_remote = true"), "{text}");
    }
    let server = start("127.0.0.1:0").expect("this machine is fine");
    assert!(server.admin_address().unwrap().ip().is_loopback());
    server.drain();
    server.join().unwrap();
}
