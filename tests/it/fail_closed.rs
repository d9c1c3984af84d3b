//! Code of a program that panics or fails where it decides who may come in, or what may pass: then
//! nobody comes in, nothing passes, and the server goes on. Knows the framework as a program does.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate::auth::Claims;
use tidegate::prelude::*;
use tidegate::testing::{TestServer, tenant};
use tidegate::{LeaveReason, Relay};

/// What ran that should not have.
#[derive(Default)]
struct Ran(AtomicUsize);

impl Ran {
    fn note(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A gateway whose first hook does what the name of its client says.
#[gateway(path = "/hook")]
struct Hooked {
    #[inject]
    ran: Arc<Ran>,
}

#[messages]
impl Hooked {
    #[on_connect]
    async fn decide(&self, user: CurrentUser) -> tidegate::Result<()> {
        match user.id.as_str() {
            "panics" => panic!("as it was told"),
            "panics later" => {
                tokio::task::yield_now().await;
                panic!("as it was told")
            }
            "fails" => Err(tidegate::Error::msg("you may not")),
            "fails later" => {
                tokio::task::yield_now().await;
                Err(tidegate::Error::msg("you may not"))
            }
            "fails elsewhere" => Ok(std::fs::read("/no/such/file").map(drop)?),
            _ => Ok(()),
        }
    }

    #[on_connect]
    async fn welcome(&self, user: CurrentUser, client: &WsClient) {
        if user.id != "ada" {
            self.ran.note();
        }
        let _ = client.emit("welcome", &user.id);
    }

    #[on_disconnect]
    async fn first_end(&self, user: CurrentUser) {
        assert!(user.id != "leaves badly", "as it was told");
    }

    #[on_disconnect]
    async fn second_end(&self, user: CurrentUser, client: &WsClient) {
        let _ = client.broadcast("left", &user.id);
    }

    #[subscribe_message("do")]
    async fn act(&self) {
        self.ran.note();
    }

    #[subscribe_message("ping")]
    async fn ping(&self) -> &'static str {
        "pong"
    }
}

/// A2: with each way to fail, and with events that wait behind the hook
#[test]
fn a_connection_whose_hook_fails_is_closed_and_handles_nothing() {
    for shards in 1..=3 {
        let ran = Arc::new(Ran::default());
        let shared = Arc::clone(&ran);
        let server = TestServer::with_shards(shards, |server| {
            server.provide_dyn(shared).app(|app| {
                app.gateway::<Hooked>();
            })
        });
        for (sub, code, reason) in [
            ("panics", 1011, "internal error"),
            ("panics later", 1011, "internal error"),
            ("fails", 1008, "you may not"),
            ("fails later", 1008, "you may not"),
            ("fails elsewhere", 1008, "internal"),
        ] {
            let mut client = server.connect("/hook", sub);
            for _ in 0..3 {
                client.try_send(r#"{"event":"do"}"#);
            }
            client.expect_close(code, reason);
        }
        let mut ada = server.connect("/hook", "ada");
        ada.expect(r#"{"event":"welcome","data":"ada"}"#);
        ada.ask(r#"{"event":"ping"}"#, r#"{"event":"ping","data":"pong"}"#);
        assert_eq!(
            ran.count(),
            0,
            "a hook or a handler ran for who was refused"
        );
    }
}

/// A2: at the end of a connection nothing is left to refuse: all hooks run, and it is gone
#[test]
fn an_end_is_an_end_whatever_its_hooks_do() {
    let server = TestServer::start(|server| {
        server.provide(Ran::default()).app(|app| {
            app.gateway::<Hooked>();
        })
    });
    let mut ada = server.connect("/hook", "ada");
    ada.expect(r#"{"event":"welcome","data":"ada"}"#);
    let mut bad = server.connect("/hook", "leaves badly");
    bad.expect(r#"{"event":"welcome","data":"leaves badly"}"#);
    bad.close();
    ada.expect(r#"{"event":"left","data":"leaves badly"}"#);
    ada.ask(r#"{"event":"ping"}"#, r#"{"event":"ping","data":"pong"}"#);
}

/// Guards that panic, as an `async fn` and before there is a future.
#[injectable]
struct Panicking;

impl UpgradeGuard for Panicking {
    async fn can_upgrade(&self, context: &UpgradeContext<'_>) -> bool {
        assert!(context.user().id == "ada", "as it was told");
        true
    }
}

impl MessageGuard for Panicking {
    async fn can_activate(&self, context: &ExecutionContext<'_>) -> bool {
        assert!(context.event() == "free", "as it was told");
        true
    }
}

#[injectable]
struct Early;

impl UpgradeGuard for Early {
    fn can_upgrade(&self, context: &UpgradeContext<'_>) -> impl Future<Output = bool> {
        assert!(context.user().id != "eve", "as it was told");
        std::future::ready(true)
    }
}

#[injectable]
struct Around;

impl Interceptor for Around {
    async fn intercept(&self, context: &ExecutionContext<'_>, next: Next<'_>) -> WsReply {
        assert!(context.event() != "around", "as it was told");
        next.run().await
    }
}

/// An argument that cannot be taken.
struct Never;

impl FromCall for Never {
    fn from_call(call: &Call) -> Result<Self, Exception> {
        panic!("{} has none", call.event())
    }
}

#[gateway(path = "/guarded", guards(Early, Panicking), interceptors(Around))]
struct Guarded {
    #[inject]
    ran: Arc<Ran>,
}

#[messages]
impl Guarded {
    #[subscribe_message("guarded")]
    async fn guarded(&self) {
        self.ran.note();
    }

    #[subscribe_message("free")]
    async fn free(&self) -> usize {
        self.ran.count()
    }
}

#[gateway(path = "/open", interceptors(Around))]
struct Open {
    #[inject]
    ran: Arc<Ran>,
}

#[messages]
impl Open {
    #[subscribe_message("around")]
    async fn around(&self) {
        self.ran.note();
    }

    #[subscribe_message("never")]
    async fn never(&self, _never: Never) {
        self.ran.note();
    }

    #[subscribe_message("free")]
    async fn free(&self) -> usize {
        self.ran.count()
    }
}

/// A2: guards, interceptors and arguments
#[test]
fn what_panics_around_a_handler_lets_nothing_pass() {
    let server = TestServer::start(|server| {
        server.provide(Ran::default()).app(|app| {
            app.gateway::<Guarded>().gateway::<Open>();
        })
    });
    for sub in ["eve", "bob"] {
        let claims = Claims::new(tenant("demo"), sub);
        assert_eq!(
            server.try_connect("/guarded", &claims).err(),
            Some(403),
            "{sub}"
        );
    }
    let internal = |event: &str| format!(r#"{{"event":"{event}","data":{{"error":"internal"}}}}"#);
    let mut ada = server.connect("/guarded", "ada");
    ada.ask(r#"{"event":"guarded"}"#, &internal("guarded"));
    ada.ask(r#"{"event":"free"}"#, r#"{"event":"free","data":0}"#);
    let mut bob = server.connect("/open", "bob");
    bob.ask(r#"{"event":"around"}"#, &internal("around"));
    bob.ask(r#"{"event":"never"}"#, &internal("never"));
    bob.ask(r#"{"event":"free"}"#, r#"{"event":"free","data":0}"#);
}

#[gateway(path = "/argued")]
struct Argued;

#[messages]
impl Argued {
    #[on_connect]
    async fn connected(&self, _never: Never) {}
}

async fn join_panics(event: RelayEvent) -> tidegate::Result<()> {
    match event {
        RelayEvent::Join { topic, .. } if topic == "t:bad" => panic!("as it was told"),
        _ => Ok(()),
    }
}

async fn join_cannot_begin(_never: Never, _reason: Option<LeaveReason>) -> tidegate::Result<()> {
    Ok(())
}

/// A2: arguments of hooks, and relay handlers before and in their future
#[test]
fn what_panics_before_a_handler_refuses_it() {
    for shards in 1..=2 {
        let server = TestServer::with_shards(shards, |server| {
            server
                .relay("t:*", join_panics)
                .relay("never", join_cannot_begin)
                .app(|app| {
                    app.gateway::<Argued>();
                })
        });
        server
            .connect("/argued", "ada")
            .expect_close(1011, "internal error");
        let mut ada = server.connect("/ws", "ada");
        for topic in ["t:bad", "never"] {
            ada.ask(
                &format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#),
                r#"{"type":"error","message":"join rejected: internal"}"#,
            );
        }
        ada.ask(
            r#"{"type":"message","topic":"t:bad","event":"e","payload":1}"#,
            r#"{"type":"error","message":"not subscribed to t:bad"}"#,
        );
        ada.ask(
            r#"{"type":"subscribe","topic":"t:good"}"#,
            r#"{"type":"subscribed","topic":"t:good"}"#,
        );
    }
}

/// A service that cannot be built.
struct Unbuilt;

impl tidegate::gateway::container::Injectable for Unbuilt {
    fn dependencies() -> Vec<tidegate::gateway::container::Dependency> {
        Vec::new()
    }

    fn build(
        _: &tidegate::gateway::container::Resolver<'_>,
    ) -> Result<Self, tidegate::gateway::container::StartError> {
        panic!("as it was told")
    }
}

/// A2, A4: the start is refused with a line, and is no panic of the whole program
#[test]
fn a_start_that_fails_says_why() {
    let started = crate::harness::Plan::new(1)
        .with(|server| {
            server.app(|app| {
                app.provider::<Unbuilt>();
            })
        })
        .try_start();
    let text = started.unwrap_err().to_string();
    assert_eq!(text, "`Unbuilt` cannot be built: it panicked");
    for handlers in [1, 2] {
        let started = crate::harness::Plan::new(1)
            .config(|config| {
                config.relay = None;
                config.mounts.clear();
            })
            .with(move |server| {
                let server = server.relay("room:*", join_panics);
                match handlers {
                    1 => server,
                    _ => server.relay("news", join_panics),
                }
            })
            .try_start();
        let text = started.unwrap_err().to_string();
        assert!(text.starts_with("relay handlers (`room:*`"), "{text}");
        assert!(
            text.contains("add `[relay]` to the configuration"),
            "{text}"
        );
    }
}

async fn quiet(relay: Relay, event: RelayEvent) -> tidegate::Result<()> {
    match event {
        RelayEvent::Join { .. } => {
            std::fs::read("/no/such/file")?;
            Ok(())
        }
        RelayEvent::Message { topic, .. } => Ok(relay.push(&topic, "e", &1).await?),
        RelayEvent::Leave { .. } => Ok(()),
    }
}

#[gateway(path = "/told")]
struct Told;

#[messages]
impl Told {
    #[subscribe_message("elsewhere")]
    async fn elsewhere(&self) -> tidegate::Result<String> {
        Ok(std::fs::read_to_string("/no/such/file")?)
    }

    #[subscribe_message("boxed")]
    async fn boxed(&self) -> Result<u8, Box<dyn std::error::Error>> {
        Ok("x".parse::<u8>()?)
    }

    #[subscribe_message("written")]
    async fn written(&self, name: String) -> tidegate::Result<()> {
        Err(tidegate::Error::msg(format!("no room {name}")))
    }

    #[subscribe_message("own")]
    async fn own(&self) -> Result<(), Own> {
        Err(Own)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not on a Sunday")]
struct Own;

/// A11, M-11
#[test]
fn a_client_reads_what_the_program_wrote_and_no_more() {
    let server = TestServer::start(|server| {
        server.relay("quiet", quiet).app(|app| {
            app.gateway::<Told>();
        })
    });
    let mut ada = server.connect("/told", "ada");
    for (event, error) in [
        ("elsewhere", "internal"),
        ("boxed", "internal"),
        ("own", "not on a Sunday"),
    ] {
        ada.ask(
            &format!(r#"{{"event":"{event}"}}"#),
            &format!(r#"{{"event":"{event}","data":{{"error":"{error}"}}}}"#),
        );
    }
    ada.ask(
        r#"{"event":"written","data":"7"}"#,
        r#"{"event":"written","data":{"error":"no room 7"}}"#,
    );
    let mut ada = server.connect("/ws", "ada");
    ada.ask(
        r#"{"type":"subscribe","topic":"quiet"}"#,
        r#"{"type":"error","message":"join rejected: internal"}"#,
    );
}
