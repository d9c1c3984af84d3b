//! What programs write with the framework: payloads with rules in all they can be carried in,
//! arguments of their own for every kind of handler, services behind traits, registries and closes.
//! Knows the framework as a program does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate::auth::Claims;
use tidegate::config::Config;
use tidegate::gateway::call::CallKind;
use tidegate::prelude::*;
use tidegate::testing::{TestServer, tenant};
use tidegate::{CloseFrame, Message, SocketError, WebSocket};
use validator::Validate;

use crate::harness::Plan;

#[derive(Debug, Deserialize, Validate)]
struct Post {
    #[validate(length(min = 1))]
    text: String,
}

/// A page has no rules of its own: what it holds is checked by what it is declared with.
#[derive(Debug, Deserialize, Validate)]
struct Page<T: Validate> {
    #[validate(nested)]
    items: Vec<T>,
}

/// An alias hides nothing.
type Drafts = Vec<Option<Box<Post>>>;

#[gateway(path = "/checked")]
struct Checked;

#[messages]
impl Checked {
    #[subscribe_message("plain")]
    async fn plain(&self, _post: Post) -> &'static str {
        "ran"
    }

    #[subscribe_message("borrowed")]
    async fn borrowed(&self, _post: &Post) -> &'static str {
        "ran"
    }

    #[subscribe_message("option")]
    async fn option(&self, _post: Option<Post>) -> &'static str {
        "ran"
    }

    #[subscribe_message("boxed")]
    async fn boxed(&self, _post: Box<Post>) -> &'static str {
        "ran"
    }

    #[subscribe_message("list")]
    async fn list(&self, _posts: Vec<Post>) -> &'static str {
        "ran"
    }

    #[subscribe_message("array")]
    async fn array(&self, _posts: [Post; 2]) -> &'static str {
        "ran"
    }

    #[subscribe_message("map")]
    async fn map(&self, _posts: BTreeMap<String, Post>) -> &'static str {
        "ran"
    }

    #[subscribe_message("pair")]
    async fn pair(&self, _posts: (u8, Post)) -> &'static str {
        "ran"
    }

    #[subscribe_message("alias")]
    async fn alias(&self, _drafts: Drafts) -> &'static str {
        "ran"
    }

    #[subscribe_message("deep")]
    async fn deep(&self, _posts: Option<Vec<(u8, Option<Box<Post>>)>>) -> &'static str {
        "ran"
    }

    #[subscribe_message("lists")]
    async fn lists(&self, _posts: Vec<Vec<Post>>) -> &'static str {
        "ran"
    }

    #[subscribe_message("generic")]
    async fn generic(&self, _page: Page<Post>) -> &'static str {
        "ran"
    }

    #[subscribe_message("key")]
    async fn key(&self, #[message_body("post")] _post: Post) -> &'static str {
        "ran"
    }

    #[subscribe_message("keys")]
    async fn keys(
        &self,
        #[message_body("posts")] _posts: Vec<Post>,
        #[message_body("more")] _more: Option<Post>,
    ) -> &'static str {
        "ran"
    }

    #[subscribe_message("numbers")]
    async fn numbers(&self, _numbers: Vec<u8>) -> &'static str {
        "ran"
    }
}

/// Each event with data that keeps the rules, data that breaks one, and what is said of it.
fn carried() -> Vec<(&'static str, Value, Value, Value)> {
    let (good, bad) = (json!({"text": "hi"}), json!({"text": ""}));
    let rules = json!({"text": [{"code": "length", "message": null, "params": {"min": 1}}]});
    let at = |place: &str, inner: &Value| json!({ place: inner });
    let second = at("1", &rules);
    let deep = at("1", &second);
    vec![
        ("plain", good.clone(), bad.clone(), rules.clone()),
        ("borrowed", good.clone(), bad.clone(), rules.clone()),
        ("option", good.clone(), bad.clone(), rules.clone()),
        ("boxed", good.clone(), bad.clone(), rules.clone()),
        ("list", json!([good]), json!([good, bad]), second.clone()),
        (
            "array",
            json!([good, good]),
            json!([good, bad]),
            second.clone(),
        ),
        (
            "map",
            at("a", &good),
            json!({"a": good, "b": bad}),
            at("b", &rules),
        ),
        ("pair", json!([1, good]), json!([1, bad]), second.clone()),
        (
            "alias",
            json!([null, good]),
            json!([null, bad]),
            second.clone(),
        ),
        (
            "deep",
            json!([[1, good]]),
            json!([[1, null], [2, bad]]),
            deep.clone(),
        ),
        ("lists", json!([[], [good]]), json!([[], [good, bad]]), deep),
        (
            "generic",
            json!({"items": [good]}),
            json!({"items": [good, bad]}),
            at("items", &second),
        ),
        ("key", at("post", &good), at("post", &bad), rules.clone()),
        (
            "keys",
            json!({"posts": [good]}),
            json!({"posts": [good], "more": bad}),
            rules,
        ),
    ]
}

/// A3: every way in which a payload carries a type with rules
#[test]
fn rules_hold_wherever_a_type_stands() {
    let server = TestServer::start(|server| {
        server.app(|app| {
            app.gateway::<Checked>();
        })
    });
    let mut ada = server.connect("/checked", "ada");
    let mut ask = |event: &str, data: Value| -> Value {
        ada.send(&json!({"event": event, "data": data}).to_string());
        serde_json::from_str::<Value>(&ada.receive()).unwrap()["data"].clone()
    };
    for (event, good, bad, errors) in carried() {
        assert_eq!(ask(event, good), "ran", "{event}");
        let error = format!("invalid payload for `{event}`: validation failed");
        let refused = json!({"error": error, "errors": errors});
        assert_eq!(ask(event, bad), refused, "{event}");
    }
    assert_eq!(ask("option", Value::Null), "ran");
    assert_eq!(ask("numbers", json!([1, 2])), "ran");
}

/// What a client says of itself; taken by every kind of handler.
#[derive(Debug)]
struct Who(String);

impl FromCall for Who {
    fn from_call(call: &Call) -> Result<Self, Exception> {
        let kind = match call.kind() {
            CallKind::Event => "event",
            CallKind::Relay => "relay",
            CallKind::Raw => "raw",
            _ => "new",
        };
        if call.user().id == "eve" {
            return Err(Exception::new("eve may not"));
        }
        let device = call.header("x-device").unwrap_or("-");
        let room = call.query("room").unwrap_or_else(|| "-".to_owned());
        let protocol = call.subprotocol().unwrap_or("-");
        let number = call
            .service::<AtomicUsize>()?
            .fetch_add(1, Ordering::SeqCst);
        let (user, topic) = (call.user().id, call.topic().unwrap_or("-"));
        Ok(Self(format!(
            "{kind} {user} {device} {room} {protocol} {topic} {number}"
        )))
    }

    fn dependencies() -> Vec<tidegate::gateway::container::Dependency> {
        vec![tidegate::gateway::container::Dependency::of::<AtomicUsize>()]
    }
}

#[gateway(path = "/who")]
struct WhoGateway;

#[messages]
impl WhoGateway {
    #[on_connect]
    async fn hello(&self, who: Who, client: &WsClient) {
        let _ = client.emit("hello", &who.0);
    }

    #[subscribe_message("who")]
    async fn who(&self, who: Who, call: Call) -> (String, String) {
        (who.0, call.event().to_owned())
    }
}

async fn who_of_topic(who: Who, event: RelayEvent, relay: Relay) -> tidegate::Result<()> {
    match event {
        RelayEvent::Message { topic, .. } => Ok(relay.push(&topic, "who", &who.0).await?),
        _ => Ok(()),
    }
}

async fn who_of_socket(mut socket: WebSocket, who: Who, call: Call) {
    let peer = call.peer().map(|peer| peer.ip().to_string());
    let headers = call.headers().count();
    let text = format!("{} {} {}", who.0, peer.unwrap_or_default(), 0 < headers);
    let _ = socket.send(Message::Text(text)).await;
    socket.close().await;
}

fn who_server() -> crate::harness::Site {
    Plan::new(2)
        .provide(AtomicUsize::new(1))
        .with(|server| {
            server
                .relay("t", who_of_topic)
                .raw_with_protocols("/raw", &["mqtt", "stomp"], who_of_socket)
                .app(|app| {
                    app.gateway::<WhoGateway>();
                })
        })
        .start()
}

/// A9: one argument of the program's own for events, hooks, relay topics and raw sockets
#[test]
fn one_extractor_serves_every_kind_of_handler() {
    let site = who_server();
    let token = |sub: &str| format!("Bearer {}", crate::harness::token("demo", sub));
    let connect = |path: &str, sub: &str| {
        let bearer = token(sub);
        let headers = [("authorization", bearer.as_str()), ("x-device", "pen")];
        crate::harness::Client::connect_with(site.address, path, &headers)
    };
    let mut ada = connect("/who?room=7", "ada");
    ada.expect(r#"{"event":"hello","data":"event ada pen 7 - - 1"}"#);
    ada.ask(
        r#"{"event":"who"}"#,
        r#"{"event":"who","data":["event ada pen 7 - - 2","who"]}"#,
    );
    let mut ada = connect("/ws?room=7", "ada");
    ada.subscribe("t");
    ada.say("t", "e", "1");
    let push = ada.receive();
    assert!(push.contains("relay ada - - - t "), "{push}");
    let mut ada = connect("/raw?room=a%20b", "ada");
    let text = ada.receive();
    assert!(text.starts_with("raw ada pen a b - - "), "{text}");
    assert!(text.ends_with(" 127.0.0.1 true"), "{text}");
    // An extractor that refuses is answered as the dialect answers refusals.
    connect("/who", "eve").expect_close(1008, "eve may not");
    let mut eve = connect("/ws", "eve");
    eve.ask(
        r#"{"type":"subscribe","topic":"t"}"#,
        r#"{"type":"error","message":"join rejected: eve may not"}"#,
    );
    connect("/raw", "eve").expect_close(1008, "eve may not");
}

/// A9: a raw handler speaks subprotocols, and knows which was agreed on
#[test]
fn a_raw_handler_agrees_on_a_subprotocol() {
    let site = who_server();
    for (offered, agreed) in [
        ("stomp", Some("stomp")),
        ("x, stomp, mqtt", Some("mqtt")),
        ("x", None),
    ] {
        let bearer = format!(
            "authorization: Bearer {}",
            crate::harness::token("demo", "ada")
        );
        let offers = format!("sec-websocket-protocol: {offered}");
        let request = crate::harness::wire::upgrade_request("/raw", &[&bearer, &offers]);
        let answer = crate::harness::http::ask(site.address, &request);
        assert_eq!(answer.status, 101);
        assert_eq!(answer.header("sec-websocket-protocol"), agreed, "{offered}");
    }
}

/// Where notes are kept, whatever keeps them.
trait Notes: Send + Sync {
    fn count(&self) -> usize;
}

struct InMemory(usize);

impl Notes for InMemory {
    fn count(&self) -> usize {
        self.0
    }
}

#[injectable]
struct Injected {
    #[inject]
    start: State<usize>,
}

impl Notes for Injected {
    fn count(&self) -> usize {
        *self.start + 1
    }
}

/// Made by an async function, from a service.
struct Pool(usize);

async fn open_pool(notes: Arc<dyn Notes>) -> tidegate::Result<Pool> {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    Ok(Pool(notes.count() * 10))
}

async fn open_notes() -> Result<Arc<dyn Notes>, std::io::Error> {
    tokio::task::yield_now().await;
    Ok(Arc::new(InMemory(5)))
}

#[gateway(path = "/notes")]
struct NotesGateway {
    #[inject]
    notes: Arc<dyn Notes>,
    #[inject]
    pool: Arc<Pool>,
}

#[messages]
impl NotesGateway {
    #[subscribe_message("count")]
    async fn count(&self, notes: State<dyn Notes>) -> [usize; 3] {
        [self.notes.count(), notes.count(), self.pool.0]
    }
}

#[module(factories = [open_pool], gateways = [NotesGateway])]
struct NotesModule;

/// A10: the same program with a trait provided in three ways, and a pool that waits
#[test]
fn services_stand_behind_traits_and_may_wait() {
    type Provide = fn(tidegate::server::ServerBuilder) -> tidegate::server::ServerBuilder;
    let ways: [(usize, Provide); 3] = [
        (7, |server| {
            server.provide_dyn::<dyn Notes>(Arc::new(InMemory(7)))
        }),
        (42, |server| {
            server.provide(41_usize).app(|app| {
                app.provider_dyn::<Injected, dyn Notes>(|notes| notes);
            })
        }),
        (5, |server| server.factory_dyn(open_notes)),
    ];
    for (count, provide) in ways {
        let server = TestServer::start(|server| provide(server).module::<NotesModule>());
        let mut ada = server.connect("/notes", "ada");
        let answer = json!({"event": "count", "data": [count, count, count * 10]});
        ada.ask(r#"{"event":"count"}"#, &answer.to_string());
    }
}

async fn fails() -> Result<Pool, std::io::Error> {
    Err(std::io::Error::other("the database is down"))
}

async fn panics() -> Result<Pool, std::io::Error> {
    panic!("as it was told")
}

/// A10: what is missing or fails stops the start with a line
#[test]
fn a_service_that_is_missing_or_fails_stops_the_start() {
    let refused = |plan: Plan| plan.try_start().unwrap_err().to_string();
    let text = refused(Plan::new(1).with(|server| server.module::<NotesModule>()));
    let start = "`dyn Notes` is not provided (wanted by Pool";
    assert!(text.starts_with(start), "{text}");
    assert!(
        text.contains(".provide_dyn::<dyn Notes>(Arc::new(..))"),
        "{text}"
    );
    let text = refused(Plan::new(1).with(|server| server.factory(fails)));
    assert_eq!(text, "`Pool` cannot be built: the database is down");
    let text = refused(Plan::new(1).with(|server| server.factory(panics)));
    assert_eq!(text, "`Pool` cannot be built: it panicked");
}

/// A12: topics of a test live in a folder of its own, or in the one that the test names
#[test]
fn a_test_server_has_durable_topics() {
    let subscribe = r#"{"type":"subscribe","topic":"t","sub_name":"s","from_seq":1}"#;
    let make = |server: &TestServer| {
        let topics = server.server().topics().tenant(tenant("demo"));
        crate::harness::wait(topics.resolve("t")).unwrap();
        crate::harness::wait(topics.publish("t", &1)).unwrap();
    };
    for server in [
        TestServer::start(|server| server),
        TestServer::with_config(Config::dev(), |server| server),
    ] {
        make(&server);
        let mut ada = server.connect("/v1/ws", "ada");
        ada.send(subscribe);
        assert!(ada.receive().contains(r#""last_seq":1"#));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::dev();
    config.server.data_dir = folder.path().to_owned();
    make(&TestServer::with_config(config.clone(), |server| server));
    let again = TestServer::with_config(config, |server| server);
    let mut ada = again.connect("/v1/ws", "ada");
    ada.send(subscribe);
    assert!(
        ada.receive().contains(r#""last_seq":1"#),
        "the folder was not kept"
    );
}

mod one {
    pub(super) struct Ns;
}

mod other {
    pub(super) struct Ns;
}

#[gateway(path = "/one", namespace = one::Ns)]
struct OneGateway;

#[messages]
impl OneGateway {}

#[gateway(path = "/other", namespace = other::Ns)]
struct OtherGateway;

#[messages]
impl OtherGateway {}

/// A13: registries are known by the names of their markers
#[test]
fn two_markers_of_one_name_are_refused() {
    let plan = Plan::new(1).with(|server| {
        server.app(|app| {
            app.gateway::<OneGateway>().gateway::<OtherGateway>();
        })
    });
    let text = plan.try_start().unwrap_err().to_string();
    assert!(
        text.contains("other::Ns` is the second marker with the name `Ns`"),
        "{text}"
    );
}

/// Handlers, hooks and fields that are there in some builds only.
#[gateway(path = "/cfg")]
struct Conditional {
    #[cfg(unix)]
    #[inject]
    number: State<usize>,
    #[cfg(windows)]
    #[inject]
    missing: Arc<dyn Notes>,
}

#[messages]
impl Conditional {
    #[cfg(unix)]
    #[subscribe_message("which")]
    async fn which(&self) -> usize {
        *self.number
    }

    #[subscribe_message("which")]
    #[cfg(windows)]
    async fn other_which(&self) -> NoSuchType {}

    #[cfg(windows)]
    #[on_connect]
    async fn connected(&self, missing: NoSuchType) {}

    #[cfg(windows)]
    #[after_init]
    async fn ready(&self, missing: Arc<NoSuchType>) {}
}

#[gateway(path = "/gone")]
#[cfg(windows)]
struct GoneGateway {
    #[inject]
    missing: NoSuchType,
}

#[messages]
#[cfg(windows)]
impl GoneGateway {}

/// A13: what a build leaves out is not bound
#[test]
fn what_is_configured_out_is_out() {
    let server = TestServer::start(|server| {
        server.provide(3_usize).app(|app| {
            app.gateway::<Conditional>();
        })
    });
    let mut ada = server.connect("/cfg", "ada");
    ada.ask(r#"{"event":"which"}"#, r#"{"event":"which","data":3}"#);
}

#[gateway(path = "/desk")]
struct Desk {
    #[inject]
    server: Arc<WsServer>,
}

#[messages]
impl Desk {
    #[on_connect]
    async fn hello(&self, client: &WsClient) {
        let _ = client.emit("hello", &client.id());
    }

    #[subscribe_message("join")]
    async fn join(&self, room: String, client: &WsClient) -> Result<(), SendError> {
        client.join(&room)
    }

    /// Whom a number means, and whom a name.
    #[subscribe_message("tell")]
    async fn tell(&self, id: ConnId) -> Result<(), SendError> {
        self.server.to(id).emit("by number", &())?;
        self.server.client(id).emit("by client", &())?;
        self.server.room(id).emit("by room", &())?;
        self.server.to(id.to_string()).emit("by name", &())?;
        Ok(())
    }

    #[subscribe_message("all")]
    async fn all(&self) -> Result<usize, SendError> {
        self.server.emit("to all", &())?;
        self.server.connection_count()
    }

    #[subscribe_message("close")]
    async fn close(&self, code: u16, client: &WsClient) -> tidegate::Result<()> {
        let code =
            CloseCode::try_from(code).map_err(|error| tidegate::Error::msg(error.to_string()))?;
        Ok(client.disconnect(code, "as you wish")?)
    }
}

fn desk() -> TestServer {
    TestServer::with_shards(2, |server| {
        server.raw("/raw", close_as_told).app(|app| {
            app.gateway::<Desk>();
        })
    })
}

/// A13, P-10: a room that is called like a client's number takes nothing that is meant for the client
#[test]
fn a_number_means_a_client_and_a_name_a_room() {
    let server = desk();
    let mut ada = server.connect("/desk", "ada");
    ada.expect(r#"{"event":"hello","data":1}"#);
    let mut eve = server.connect("/desk", "eve");
    eve.expect(r#"{"event":"hello","data":2}"#);
    eve.send(r#"{"event":"join","data":"1"}"#);
    eve.send(r#"{"event":"tell","data":1}"#);
    eve.expect(r#"{"event":"by room","data":null}"#);
    eve.expect(r#"{"event":"by name","data":null}"#);
    ada.expect(r#"{"event":"by number","data":null}"#);
    ada.expect(r#"{"event":"by client","data":null}"#);
    eve.send(r#"{"event":"all"}"#);
    ada.expect(r#"{"event":"to all","data":null}"#);
    eve.expect(r#"{"event":"to all","data":null}"#);
    eve.expect(r#"{"event":"all","data":2}"#);
}

/// A13: who counts without saying for whom is told so
#[test]
fn a_count_without_a_tenant_is_an_error() {
    let server = desk();
    let _ada = server
        .connect_as("/desk", &Claims::new(tenant("a"), "ada"))
        .receive();
    let _bob = server
        .connect_as("/desk", &Claims::new(tenant("b"), "bob"))
        .receive();
    let shared: Arc<parking_lot::Mutex<Option<Arc<WsServer>>>> = Arc::default();
    let kept = Arc::clone(&shared);
    let other = TestServer::start(|server| {
        server.provide_dyn(kept).app(|app| {
            app.gateway::<Keeper>();
        })
    });
    let _clients = [
        other.connect_as("/keeper", &Claims::new(tenant("a"), "ada")),
        other.connect_as("/keeper", &Claims::new(tenant("b"), "bob")),
    ];
    let server = shared.lock().clone().unwrap();
    crate::harness::eventually("both are counted", || {
        server.all_tenants().connection_count() == 2
    });
    assert!(matches!(
        server.connection_count(),
        Err(SendError::NoTenant)
    ));
    assert_eq!(server.tenant(tenant("a")).connection_count(), 1);
}

/// Hands its registry out.
#[gateway(path = "/keeper")]
struct Keeper {
    #[inject]
    server: Arc<WsServer>,
    #[inject]
    kept: Arc<parking_lot::Mutex<Option<Arc<WsServer>>>>,
}

#[messages]
impl Keeper {
    #[after_init]
    async fn ready(&self) {
        *self.kept.lock() = Some(Arc::clone(&self.server));
    }
}

async fn close_as_told(mut socket: WebSocket) {
    while let Some(Ok(Message::Text(text))) = socket.recv().await {
        let code = text.parse().unwrap();
        let reason = String::new();
        let sent = socket
            .send(Message::Close(Some(CloseFrame { code, reason })))
            .await;
        if let Err(SocketError::CloseCode(error)) = sent {
            let _ = socket.send(Message::Text(error.to_string())).await;
        }
    }
}

/// A6: no way leads to a code that may not stand in a frame
#[test]
fn no_handler_closes_with_a_forbidden_code() {
    let server = desk();
    for code in [0, 999, 1004, 1005, 1006, 1010, 1015, 2999, 5000] {
        let text = format!("{code} cannot be a close code");
        let mut ada = server.connect("/desk", "ada");
        ada.receive();
        ada.send(&format!(r#"{{"event":"close","data":{code}}}"#));
        assert!(ada.receive().contains(&text));
        let mut raw = server.connect("/raw", "ada");
        raw.send(&code.to_string());
        assert!(raw.receive().starts_with(&text));
    }
    for code in [1000, 1008, 1013, 3000, 4999] {
        let mut ada = server.connect("/desk", "ada");
        ada.receive();
        ada.send(&format!(r#"{{"event":"close","data":{code}}}"#));
        ada.expect_close(code, "as you wish");
        let mut raw = server.connect("/raw", "ada");
        raw.send(&code.to_string());
        raw.expect_close(code, "");
    }
}
