//! Rows of the seeds that nothing else would notice the loss of: what all gateways share, what the
//! log says at the start, who needs a token, which use cases the guide shows. Knows the framework
//! as a program does, and a program in a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;

use axum::routing::get;
use tidegate::gateway::socket::echo;
use tidegate::prelude::*;
use tidegate::testing::TestServer;
use tidegate::{CloseFrame, Message};

use crate::harness::rustc::{builds_of, rustc};
use crate::harness::{Plan, http, token, wire};

macro_rules! gateway_of {
    ($gateway:ident, $path:literal $(, $marker:ty)?) => {
        #[gateway(path = $path $(, namespace = $marker)?)]
        struct $gateway {
            #[inject]
            server: Arc<WsServer>,
        }

        #[messages]
        impl $gateway {
            #[on_connect]
            async fn hello(&self, client: &WsClient) {
                let _ = client.emit("hello", &client.id());
            }

            #[subscribe_message("all")]
            async fn all(&self) -> Result<usize, SendError> {
                self.server.broadcast("said", &$path)?;
                self.server.connection_count()
            }
        }
    };
}

struct OwnNs;

gateway_of!(First, "/first");
gateway_of!(Second, "/second");
gateway_of!(Apart, "/apart", OwnNs);

#[module(gateways = [First, Second, Apart])]
struct ThreeModule;

/// N-01: one registry for all gateways that name none: one count of ids, one broadcast, one number
#[test]
fn gateways_share_one_registry_unless_they_name_another() {
    for shards in 1..=3 {
        let server = TestServer::with_shards(shards, |server| server.module::<ThreeModule>());
        let mut first = server.connect("/first", "ada");
        first.expect(r#"{"event":"hello","data":1}"#);
        let mut second = server.connect("/second", "bob");
        second.expect(r#"{"event":"hello","data":2}"#);
        let mut apart = server.connect("/apart", "eve");
        apart.expect(r#"{"event":"hello","data":1}"#);
        let mut third = server.connect("/first", "cid");
        third.expect(r#"{"event":"hello","data":3}"#);
        let said = |path: &str| format!(r#"{{"event":"said","data":"{path}"}}"#);
        first.send(r#"{"event":"all"}"#);
        for client in [&mut first, &mut second, &mut third] {
            client.expect(&said("/first"));
        }
        first.expect(r#"{"event":"all","data":3}"#);
        second.send(r#"{"event":"all"}"#);
        for client in [&mut first, &mut second, &mut third] {
            client.expect(&said("/second"));
        }
        second.expect(r#"{"event":"all","data":3}"#);
        apart.send(r#"{"event":"all"}"#);
        apart.expect(r#"{"event":"all","data":3}"#);
    }
}

/// A program of `tests/it/user_programs`, compiled once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/user_programs/serves.rs");
        // Over the one of the run before, so that they do not pile up.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("user_programs");
        let mut rustc = rustc(&source);
        let subscriber = builds_of("tracing_subscriber").remove(0);
        rustc
            .arg("--extern")
            .arg(format!("tracing_subscriber={}", subscriber.display()));
        let output = rustc.arg("--out-dir").arg(&folder).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        folder.join("serves")
    })
}

/// That program as it runs, and where it listens.
struct Running {
    child: Child,
    address: String,
    folder: tempfile::TempDir,
}

fn command(environment: &[(&str, &str)], folder: &Path) -> Command {
    let mut command = Command::new(program());
    command
        .env_clear()
        .env(
            "TIDEGATE_JWT_SECRET",
            "a secret of thirty-two bytes, or more",
        )
        .env("TIDEGATE_SERVER__SHARDS", "1")
        .env("TIDEGATE_SHARD__PIN", "false")
        .envs(environment.iter().copied())
        .args(["--listen", "127.0.0.1:0"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Running {
    fn start(environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = command(environment, folder.path()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("tidegate listening on http://");
        let Some(address) = address.map(str::to_owned) else {
            let mut told = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut told)
                .unwrap();
            panic!("the first line is `{line}`: {told}");
        };
        Self {
            child,
            address,
            folder,
        }
    }

    /// What it has written to its log when it has ended by itself. A thread writes that, behind the first
    /// line of the standard output, and ends with the server.
    fn log(mut self) -> (String, String) {
        let _ = self.folder.path();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut log = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        self.child.wait().unwrap();
        (self.address, log)
    }
}

/// N-12: said at the level and by the target that operators look at, without a word of configuration
#[test]
fn the_log_says_what_is_bound() {
    let (address, log) = Running::start(&[("TIDEGATE_LOG__FORMAT", "json")]).log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let bound = lines
        .iter()
        .filter(|line| line["target"] == "tidegate::http");
    let bound: Vec<_> = bound
        .map(|line| {
            (
                line["level"].as_str().unwrap(),
                line["message"].as_str().unwrap(),
            )
        })
        .filter(|(_, text)| text.starts_with("bound") || text.starts_with("GET"))
        .collect();
    let first = format!("bound 2 gateways on {address}");
    let expected = [
        ("INFO", first.as_str()),
        ("INFO", "GET /chat -> Chat (2 messages, 1 lifecycle hook)"),
        (
            "INFO",
            "GET /notify -> Notify (1 message, 0 lifecycle hooks)",
        ),
    ];
    assert_eq!(bound, expected);
    let (address, log) = Running::start(&[]).log();
    let line = format!("INFO tidegate::http: bound 2 gateways on {address}");
    assert_eq!(log.matches(&line).count(), 1, "{log}");
}

/// A7: a subscriber of the program's own is asked, and the server starts all the same
#[test]
fn a_program_keeps_its_own_subscriber() {
    let environment = [("OWN_SUBSCRIBER", "1"), ("TIDEGATE_LOG__FORMAT", "json")];
    let (address, log) = Running::start(&environment).log();
    let line = format!("INFO tidegate::http: bound 2 gateways on {address}");
    assert_eq!(log.matches(&line).count(), 1, "{log}");
}

/// A15: one line and 78 for what a restart would meet again, whoever finds it
#[test]
fn a_program_that_cannot_start_says_so_on_one_line() {
    let rows: [(&[(&str, &str)], &str); 5] = [
        (&[("TIDEGATE_SERVER__SHARDS", "many")], "server.shards"),
        (&[("TIDEGATE_JWT_SECRET", "short")], "TIDEGATE_JWT_SECRET"),
        (&[("TIDEGATE_LOG__LEVEL", "loud")], "log.level"),
        (
            &[("WITH_RELAY_HANDLER", "1")],
            "relay handlers (`room:*`) without a relay mount",
        ),
        (&[("TIDEGATE_ADMIN__LISTEN", "0.0.0.0:0")], "admin.listen"),
    ];
    for (environment, says) in rows {
        let folder = tempfile::tempdir().unwrap();
        let output = command(environment, folder.path()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{told}");
        let told: Vec<_> = told.lines().filter(|line| !line.contains("WARN")).collect();
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(
            told[0].starts_with("serves: ") && told[0].contains(says),
            "{}",
            told[0]
        );
    }
}

/// R-03: each kind of message is that kind and no other
#[test]
fn a_message_is_of_one_kind() {
    let close = CloseFrame {
        code: 1000,
        reason: "bye".to_owned(),
    };
    let messages = [
        Message::from("text"),
        Message::from(vec![1]),
        Message::Ping(vec![2]),
        Message::Pong(vec![3]),
        Message::Close(Some(close)),
    ];
    for (kind, message) in messages.iter().enumerate() {
        let is = [
            message.is_text(),
            message.is_binary(),
            message.is_ping(),
            message.is_pong(),
            message.is_close(),
        ];
        let expected: [bool; 5] = std::array::from_fn(|other| other == kind);
        assert_eq!(is, expected, "{message:?}");
        assert_eq!(message.as_text(), (kind == 0).then_some("text"));
    }
    let bytes: [&[u8]; 5] = [b"text", &[1], &[2], &[3], b"bye"];
    assert!(
        messages
            .iter()
            .zip(bytes)
            .all(|(message, bytes)| message.as_bytes() == bytes)
    );
    assert!(Message::Close(None).is_close() && Message::from("x".to_owned()).is_text());
}

/// R-05, R-21: every kind of mount and every route asks for a token, unless it is called public
#[test]
fn nothing_is_open_that_is_not_called_public() {
    let started = |public: &'static [&'static str]| {
        Plan::new(1)
            .config(|config| config.durable.enabled = false)
            .with(move |mut server| {
                // The harness would call it public.
                server = server.raw("/raw", echo);
                for path in public {
                    server = server.public_route("GET", path);
                }
                server
                    .router(axum::Router::new().route("/own", get(|| async { "mine" })))
                    .module::<ThreeModule>()
            })
            .start()
    };
    let closed = started(&[]);
    let upgrade = |site: &crate::harness::Site, path: &str, lines: &[&str]| {
        http::ask(site.address, &wire::upgrade_request(path, lines)).status
    };
    for path in ["/raw", "/ws", "/first", "/apart"] {
        assert_eq!(upgrade(&closed, path, &[]), 401, "{path}");
        for wrong in ["Bearer x", "Bearer ", "Basic YWRhOng="] {
            let wrong = format!("authorization: {wrong}");
            assert_eq!(upgrade(&closed, path, &[&wrong]), 401, "{path} {wrong}");
        }
        let bearer = format!("authorization: Bearer {}", token("demo", "ada"));
        assert_eq!(upgrade(&closed, path, &[&bearer]), 101, "{path}");
        let query = format!("{path}?token={}", token("demo", "ada"));
        assert_eq!(upgrade(&closed, &query, &[]), 101, "{path}");
    }
    let route = |site: &crate::harness::Site, token: Option<&str>| {
        http::ask(site.address, &http::request("GET", "/own", token, "")).status
    };
    assert_eq!(route(&closed, None), 401);
    assert_eq!(route(&closed, Some(&token("demo", "ada"))), 200);
    let open = started(&["/raw", "/own"]);
    assert_eq!(upgrade(&open, "/raw", &[]), 101);
    assert_eq!(route(&open, None), 200);
    for path in ["/ws", "/first", "/apart"] {
        assert_eq!(upgrade(&open, path, &[]), 401, "{path}");
    }
}

/// P-10: to all, to a room, to one client, by the same verb
#[test]
fn one_verb_reaches_all_a_room_or_a_client() {
    for shards in 1..=3 {
        let server = TestServer::with_shards(shards, |server| {
            server.app(|app| {
                app.gateway::<Verbs>();
            })
        });
        let mut ada = server.connect("/verbs", "ada");
        ada.expect(r#"{"event":"hello","data":1}"#);
        let mut bob = server.connect("/verbs", "bob");
        bob.expect(r#"{"event":"hello","data":2}"#);
        bob.ask(r#"{"event":"join"}"#, r#"{"event":"join","data":"lobby"}"#);
        ada.send(r#"{"event":"go"}"#);
        for (client, events) in [
            (&mut ada, ["emit", "broadcast", "client"].as_slice()),
            (&mut bob, ["emit", "broadcast", "room"].as_slice()),
        ] {
            for event in events {
                client.expect(&format!(r#"{{"event":"{event}","data":7}}"#));
            }
        }
        ada.expect(r#"{"event":"go","data":2}"#);
    }
}

#[gateway(path = "/verbs")]
struct Verbs {
    #[inject]
    server: Arc<WsServer>,
}

#[messages]
impl Verbs {
    #[on_connect]
    async fn hello(&self, client: &WsClient) {
        let _ = client.emit("hello", &client.id());
    }

    #[subscribe_message("join")]
    async fn join(&self, client: &WsClient) -> Result<&'static str, SendError> {
        client.join("lobby").map(|()| "lobby")
    }

    #[subscribe_message("go")]
    async fn go(&self, client: &WsClient) -> Result<usize, SendError> {
        self.server.emit("emit", &7)?;
        self.server.broadcast("broadcast", &7)?;
        self.server.to("lobby").emit("room", &7)?;
        self.server.to(client.id()).emit("client", &7)?;
        self.server.connection_count()
    }
}

/// A service that holds a gateway, for gateways are providers like any other.
#[injectable]
struct Office {
    #[inject]
    desk: Arc<Counter>,
}

#[gateway(path = "/counter")]
#[derive(Default)]
struct Counter {
    count: std::sync::atomic::AtomicUsize,
}

#[messages]
impl Counter {
    #[subscribe_message("count")]
    async fn count(&self) -> usize {
        self.count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1
    }
}

#[module(providers = [Office], gateways = [Counter])]
struct OfficeModule;

#[module(imports = [OfficeModule])]
struct ProgramModule;

/// P-13: a gateway comes with its module, is one service for all, and stands beside HTTP routes
#[test]
fn a_gateway_is_a_provider_of_its_module() {
    async fn count(office: State<Office>) -> String {
        let count = &office.desk.count;
        count.load(std::sync::atomic::Ordering::SeqCst).to_string()
    }
    let site = Plan::new(2)
        .with(|server| {
            server
                .module::<ProgramModule>()
                .router(axum::Router::new().route("/count", get(count)))
        })
        .start();
    let token = token("demo", "ada");
    for number in 1..=3 {
        let mut ada = crate::harness::Client::connect(site.address, "/counter", &token);
        ada.ask(
            r#"{"event":"count"}"#,
            &format!(r#"{{"event":"count","data":{number}}}"#),
        );
    }
    let answer = http::ask(
        site.address,
        &http::request("GET", "/count", Some(&token), ""),
    );
    assert_eq!((answer.status, answer.body.as_str()), (200, "3"));
}

/// The page of the chat is open, what it asks for is there, and documents tell what it speaks
#[test]
fn the_chat_has_a_page_and_a_schema() {
    let site = Plan::new(1)
        .with(|server| {
            let server = server.module::<crate::gateways::chat::ChatModule>();
            let server = server.router(crate::gateways::chat::page());
            server.public_route("GET", "/chat.html")
        })
        .start();
    let get = |target: &str| http::ask(site.address, &http::request("GET", target, None, ""));
    let page = get("/chat.html");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("from '/client.js'"));
    assert_eq!(get("/client.js").status, 200);
    let token = token("demo", "ada");
    let told = http::ask(
        site.address,
        &http::request("GET", "/asyncapi.json", Some(&token), ""),
    );
    let document: serde_json::Value = serde_json::from_str(&told.body).unwrap();
    assert_eq!(document, site.server().schema().asyncapi());
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(document["channels"]["ChatGateway"]["address"], "/chat");
    let types = site.server().schema().typescript();
    for line in [
        "export interface ChatMessage {\n  author: string;\n  text: string;\n}",
        "    message: { data: ChatMessage; answer: ChatMessage };",
        "    history: { answer: Array<ChatMessage> };",
        "    presence: { answer: number };",
        "    typing: { data: ChatMessage };",
        "  events: {\n    message: ChatMessage;\n    typing: ChatMessage;\n  };",
    ] {
        assert!(types.contains(line), "{line}\nis not in\n{types}");
    }
}

/// Who has no token reads no schema, unless the server is one for development
#[test]
fn a_schema_is_told_to_who_may_connect() {
    for (dev, status) in [(true, 200), (false, 401)] {
        let site = Plan::new(1).config(|config| config.dev = dev).start();
        let told = http::ask(
            site.address,
            &http::request("GET", "/asyncapi.json", None, ""),
        );
        assert_eq!(told.status, status);
    }
}

/// P-20: each use case of the seed has a section with a program, which the tests of documents run
#[test]
fn the_guide_shows_every_use_case() {
    let guide = include_str!("../../src/guide/streaming.md");
    let chat = include_str!("../../src/guide/gateways.md");
    let shown = |text: &str, head: &str| {
        let section = text
            .split_once(head)
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        let section = section.split("\n# ").next().unwrap_or_default();
        section.contains("TestServer::") && section.contains(".expect(")
            || section.contains(".ask(")
    };
    assert!(
        shown(guide, "Streaming: many frames"),
        "streaming of tokens"
    );
    for head in [
        "\n# A live dashboard",
        "\n# Agent to agent",
        "\n# The progress of a job",
        "\n# Editing together",
    ] {
        assert!(shown(guide, head), "{head}");
    }
    assert!(shown(chat, "Gateways"), "chat");
}
