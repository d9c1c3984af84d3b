//! What is done to a server until it dies, and what it must have kept then: publishers that read
//! their own messages back and ack them, topics that come and go, and the model of each topic.
//! Does not know how the server dies.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidegate::auth::{AuthConfig, Claims};
use tidegate::id::Tenant;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

const SECRET: &str = "a secret of the crash tests, long enough";
const PATIENCE: Duration = Duration::from_secs(20);

/// A server in a process of its own.
pub(crate) struct Server {
    child: Child,
    address: String,
    token: String,
}

impl Server {
    pub(crate) fn start(data: &Path, shards: u64) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--shards",
                &shards.to_string(),
                "--data",
            ])
            .arg(data)
            .env("TIDEGATE_JWT_SECRET", SECRET)
            .env("TIDEGATE_SHARD__PIN", "false")
            .env("TIDEGATE_RELAY__PATH", "/ws")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("tidegate listening on http://");
        let address = address
            .unwrap_or_else(|| panic!("the first line is `{line}`"))
            .to_owned();
        let issuer = AuthConfig::new(SECRET.as_bytes(), 3_600).unwrap();
        let claims = Claims::new(Tenant::parse("demo").unwrap(), "svc");
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let token = issuer.issue(&claims, since.unwrap().as_secs()).unwrap();
        Self {
            child,
            address,
            token,
        }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The status and the body of one request, or nothing if the server died over it.
    pub(crate) fn rest(&self, method: &str, target: &str, body: &str) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let (token, length) = (&self.token, body.len());
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    pub(crate) fn connect(&self) -> Option<WebSocket<TcpStream>> {
        let stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        let target = format!("ws://{}/v1/ws?token={}", self.address, self.token);
        let request = target.into_client_request().unwrap();
        tungstenite::client(request, stream)
            .ok()
            .map(|(socket, _)| socket)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already, or a test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next frame, or nothing if the server died.
pub(crate) fn next(socket: &mut WebSocket<TcpStream>) -> Option<Value> {
    loop {
        match socket.read().ok()? {
            Message::Text(text) => return Some(serde_json::from_str(text.as_str()).unwrap()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

pub(crate) fn send(socket: &mut WebSocket<TcpStream>, text: String) -> Option<()> {
    socket.send(Message::text(text)).ok()
}

/// What one client knows of its topic.
#[derive(Default)]
pub(crate) struct Model {
    topic: String,
    /// How many messages were ever sent: their payloads are numbers from 1 on.
    pub(crate) sent: u64,
    /// What was acked or delivered: never another payload at that seq.
    pub(crate) seen: BTreeMap<u64, u64>,
    /// The cursor that the server said is on the disk.
    confirmed: u64,
    /// The highest cursor that was asked for.
    asked: u64,
}

impl Model {
    fn see(&mut self, seq: u64, payload: u64) {
        let known = *self.seen.entry(seq).or_insert(payload);
        assert_eq!(
            known, payload,
            "seq {seq} of {} has one payload for ever",
            self.topic
        );
    }
}

/// Publishes with several in flight, reads everything back through a subscription and acks it,
/// until the server dies.
fn work(server: &Server, model: &mut Model, random: &mut Random) -> Option<()> {
    let mut socket = server.connect()?;
    let topic = model.topic.clone();
    send(
        &mut socket,
        format!(r#"{{"type":"subscribe","topic":"{topic}","sub_name":"A","from_seq":0}}"#),
    )?;
    let mut under_way: Vec<u64> = Vec::new();
    loop {
        while under_way.len() < 16 {
            model.sent += 1;
            under_way.push(model.sent);
            let payload = model.sent;
            send(
                &mut socket,
                format!(r#"{{"type":"publish","topic":"{topic}","payload":{payload}}}"#),
            )?;
        }
        let frame = next(&mut socket)?;
        match frame["type"].as_str().unwrap() {
            "pub_ack" => {
                let payload = under_way.remove(0);
                model.see(frame["seq"].as_u64().unwrap(), payload);
            }
            "message" => {
                let seq = frame["seq"].as_u64().unwrap();
                model.see(seq, frame["payload"].as_u64().unwrap());
                let surely = random.below(8) == 0;
                let reference = if surely { r#","ref":1"# } else { "" };
                model.asked = model.asked.max(seq);
                send(
                    &mut socket,
                    format!(
                        r#"{{"type":"ack","topic":"{topic}","sub_name":"A","seq":{seq}{reference}}}"#
                    ),
                )?;
            }
            "acked" => {
                model.confirmed = model.confirmed.max(frame["seq"].as_u64().unwrap());
            }
            "subscribed" => {}
            // The disk is gone, and the server with it as far as this is concerned.
            "error" if frame["code"] == "storage_failed" => return None,
            other => panic!("{other}: {frame}"),
        }
    }
}

/// Makes and deletes topics, so that a kill meets that too.
fn churn(server: &Server, random: &mut Random) -> Option<()> {
    loop {
        let name = format!("churn-{}", random.below(4));
        let (status, made) =
            server.rest("POST", "/v1/topics", &format!(r#"{{"name":"{name}"}}"#))?;
        if status == 503 {
            return None;
        }
        assert!(status == 201 || status == 200, "{status}: {made}");
        let id = made["id"].as_str()?.to_owned();
        server.rest(
            "POST",
            &format!("/v1/topics/{id}/messages"),
            r#"[{"payload":1},{"payload":2}]"#,
        )?;
        if random.below(2) == 0 {
            server.rest("DELETE", &format!("/v1/topics/{id}"), "")?;
        }
    }
}

/// Looks at a topic after a restart.
fn check(server: &Server, model: &mut Model) {
    let topic = model.topic.clone();
    let (status, listed) = server
        .rest("GET", &format!("/v1/subscriptions?topic={topic}"), "")
        .unwrap();
    assert_eq!(status, 200);
    if let Some(subscription) = listed["subscriptions"].get(0) {
        let cursor = subscription["cursor"].as_u64().unwrap();
        assert!(
            model.confirmed <= cursor,
            "cursor {cursor}, confirmed {}",
            model.confirmed
        );
        assert!(
            cursor <= model.asked,
            "cursor {cursor}, asked {}",
            model.asked
        );
    }
    let mut next_seq = 1;
    loop {
        let target = format!("/v1/topics/{topic}/messages?from_seq={next_seq}&limit=1000");
        let (status, page) = server.rest("GET", &target, "").unwrap();
        assert_eq!((status, page.get("gaps")), (200, None));
        let messages = page["messages"].as_array().unwrap();
        for message in messages {
            let (seq, payload) = (
                message["seq"].as_u64().unwrap(),
                message["payload"].as_u64(),
            );
            assert_eq!(seq, next_seq, "no seq is missing");
            let payload = payload.unwrap();
            assert!(payload <= model.sent, "{payload} was never sent");
            model.see(seq, payload);
            next_seq += 1;
        }
        if messages.is_empty() {
            break;
        }
    }
    let last = model.seen.last_key_value().map_or(0, |(seq, _)| *seq);
    assert!(
        last < next_seq,
        "seq {last} was acked, but the log ends before {next_seq}"
    );
}

pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The seed of this run, printed so that it can be repeated.
#[expect(
    clippy::print_stdout,
    reason = "a run that fails is run again by its seed"
)]
pub(crate) fn seeded(name: &str) -> Random {
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let seed = number(name, u64::from(clock.subsec_nanos()));
    println!("{name}={seed}");
    Random(seed)
}

/// Makes the topics that are missing, and looks at all of them.
pub(crate) fn look(server: &Server, models: &mut Vec<Model>) {
    for number in models.len()..3 {
        let body = format!(r#"{{"name":"topic-{number}"}}"#);
        let (_, made) = server.rest("POST", "/v1/topics", &body).unwrap();
        let topic = made["id"].as_str().unwrap().to_owned();
        models.push(Model {
            topic,
            ..Model::default()
        });
    }
    models.iter_mut().for_each(|model| check(server, model));
}

/// Load on all topics until `strike` at a random moment, behind which the server is killed.
pub(crate) fn strike(
    server: Server,
    models: &mut [Model],
    random: &mut Random,
    strike: impl FnOnce(),
) {
    let strike_ms = 5 + random.below(395);
    let struck = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for model in models {
            let mut random = Random(random.next());
            let (server, struck) = (&server, &struck);
            scope.spawn(move || {
                let ended = work(server, model, &mut random);
                assert!(ended.is_none());
                assert!(struck.load(Ordering::SeqCst), "the server ended by itself");
            });
        }
        let mut random = Random(random.next());
        scope.spawn({
            let server = &server;
            move || churn(server, &mut random)
        });
        std::thread::sleep(Duration::from_millis(strike_ms));
        struck.store(true, Ordering::SeqCst);
        strike();
        let pid = rustix::process::Pid::from_child(&server.child);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    });
    server.kill();
}
