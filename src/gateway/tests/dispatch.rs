//! What handlers take and what they answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use validator::Validate;

use super::{Rig, caller, handshake};
use crate::auth::CurrentUser;
use crate::gateway::client::WsClient;
use crate::gateway::engine::container::{Dependency, Injectable, Resolver, StartError, State};
use crate::gateway::engine::dispatch::{Handling, Outcome, Request};
use crate::gateway::extract::{EventData, Scoped};
use crate::gateway::module::App;
use crate::gateway::reply::{Opaque, Reply, WsEnvelope};
use tidegate_macros::{gateway, messages};

type Outcomes<T> = Result<T, &'static str>;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Post {
    author: String,
    text: String,
}

#[derive(Debug, Serialize, Deserialize, Validate)]
struct Rated {
    #[validate(length(min = 3, message = "too short"))]
    name: String,
    #[validate(range(max = 5))]
    stars: u8,
}

#[derive(Debug, Serialize)]
struct Pair {
    event: String,
    data: u8,
}

#[derive(Debug, thiserror::Error)]
#[error("no luck")]
struct Unlucky;

struct Settings(u8);

struct Fresh(u8);

impl Injectable for Fresh {
    fn dependencies() -> Vec<Dependency> {
        vec![Dependency::of::<Settings>()]
    }
    fn build(resolver: &Resolver<'_>) -> Result<Self, StartError> {
        Ok(Self(resolver.service::<Settings>()?.0))
    }
}

#[gateway(path = "/t")]
#[derive(Default)]
struct Tested {
    motd: String,
}

#[messages]
impl Tested {
    #[subscribe_message("unit")]
    async fn unit(&self) {}

    #[subscribe_message("echo")]
    async fn echo(&self, post: Post) -> Post {
        post
    }

    #[subscribe_message("plain")]
    fn plain(&self, number: u32) -> u32 {
        number + 1
    }

    #[subscribe_message("borrowed")]
    async fn borrowed(&self) -> &str {
        &self.motd
    }

    #[subscribe_message("result")]
    async fn result(&self, good: bool) -> Result<u8, Unlucky> {
        good.then_some(7).ok_or(Unlucky)
    }

    #[subscribe_message("aliased")]
    async fn aliased(&self, good: bool) -> Outcomes<String> {
        if good {
            Ok("fine".into())
        } else {
            Err("not fine")
        }
    }

    #[subscribe_message("nothing")]
    async fn nothing(&self, good: bool) -> Result<(), Unlucky> {
        if good { Ok(()) } else { Err(Unlucky) }
    }

    #[subscribe_message("option")]
    async fn option(&self, number: Option<u8>) -> Option<u8> {
        number
    }

    #[subscribe_message("both")]
    async fn both(&self, number: Option<u8>) -> Result<Option<u8>, Unlucky> {
        Ok(number)
    }

    #[subscribe_message("opaque")]
    async fn opaque(&self) -> Result<(), Opaque> {
        Err(Unlucky)?
    }

    #[subscribe_message("ping")]
    async fn ping(&self) -> Reply {
        Reply::event("pong", json!({}))
    }

    #[subscribe_message("raw")]
    async fn raw(&self) -> Reply {
        Reply::raw([1, 2])
    }

    #[subscribe_message("untyped")]
    async fn untyped(&self, value: Value) -> Value {
        value
    }

    #[subscribe_message("typed")]
    async fn typed(&self) -> Pair {
        Pair {
            event: "x".into(),
            data: 1,
        }
    }

    #[subscribe_message("rated")]
    async fn rated(&self, rated: Rated) -> Rated {
        rated
    }

    #[subscribe_message("arguments")]
    async fn arguments(
        &self,
        client: &WsClient,
        State(settings): State<Settings>,
        number: u8,
        fresh: Scoped<Fresh>,
        user: CurrentUser,
    ) -> String {
        assert_eq!(settings.0, fresh.0.0);
        let colour = client.header("x-colour").unwrap_or_default();
        format!(
            "{} {number} {} {} {colour}",
            client.id(),
            fresh.0.0,
            user.id
        )
    }

    #[subscribe_message("keys")]
    async fn keys(
        &self,
        #[message_body("name")] name: String,
        client: &WsClient,
        #[message_body("stars")] stars: Option<u8>,
    ) -> String {
        format!("{name} {stars:?} {}", client.id())
    }

    #[subscribe_message("panics")]
    async fn panics(&self) {
        panic!("at once")
    }

    #[subscribe_message("panics later")]
    async fn panics_later(&self) -> u8 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        panic!("later")
    }

    #[subscribe_message("slow")]
    #[concurrent]
    async fn slow(&self, client: &WsClient, number: u8) -> u8 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        client.broadcast("soon", &number).unwrap();
        number
    }

    #[subscribe_message("push")]
    async fn push(&self, client: &WsClient) -> &'static str {
        client.emit("first", &1).unwrap();
        client
            .send_json(&json!({"event": "joined", "room": "x"}))
            .unwrap();
        "last"
    }
}

fn rig() -> Rig {
    let mut app = App::new();
    app.provide(Settings(5)).gateway::<Tested>();
    Rig::new(app)
}

#[track_caller]
fn check(event: &str, data: &str, expected: &[&str]) {
    let rig = rig();
    let peer = rig.connect("/t", "demo", &[]);
    assert_eq!(peer.ask(event, data), expected, "{event}");
}

/// M-06 to M-11, also through an alias: the type decides.
#[test]
fn the_return_type_decides_what_is_answered() {
    check("unit", "null", &[]);
    let post = r#"{"author":"ada","text":"hi"}"#;
    check(
        "echo",
        post,
        &[&format!(r#"{{"event":"echo","data":{post}}}"#)],
    );
    check("plain", "1", &[r#"{"event":"plain","data":2}"#]);
    check("borrowed", "null", &[r#"{"event":"borrowed","data":""}"#]);
    check("result", "true", &[r#"{"event":"result","data":7}"#]);
    check(
        "result",
        "false",
        &[r#"{"event":"result","data":{"error":"no luck"}}"#],
    );
    check("aliased", "true", &[r#"{"event":"aliased","data":"fine"}"#]);
    check(
        "aliased",
        "false",
        &[r#"{"event":"aliased","data":{"error":"not fine"}}"#],
    );
    check("nothing", "true", &[]);
    check(
        "nothing",
        "false",
        &[r#"{"event":"nothing","data":{"error":"no luck"}}"#],
    );
    check("option", "null", &[]);
    check("option", "3", &[r#"{"event":"option","data":3}"#]);
    check("both", "null", &[]);
    check("both", "3", &[r#"{"event":"both","data":3}"#]);
    check(
        "opaque",
        "null",
        &[r#"{"event":"opaque","data":{"error":"internal"}}"#],
    );
}

/// D-12, P-06, P-07.
#[test]
fn an_answer_may_go_out_under_another_name() {
    check("ping", "null", &[r#"{"event":"pong","data":{}}"#]);
    check("raw", "null", &["[1,2]"]);
    let whole = r#"{"event":"other","data":[1]}"#;
    check("untyped", whole, &[whole]);
    let more = r#"{"event":"other","data":[1],"z":0}"#;
    check(
        "untyped",
        more,
        &[&format!(r#"{{"event":"untyped","data":{more}}}"#)],
    );
    check(
        "typed",
        "null",
        &[r#"{"event":"typed","data":{"event":"x","data":1}}"#],
    );
}

/// M-04, X-07.
#[test]
fn a_payload_of_another_shape_is_an_error_frame() {
    let expected = "{\"event\":\"echo\",\"data\":{\"error\":\"invalid payload for `echo`: \
         invalid type: integer `5`, expected struct Post\"}}";
    check("echo", "5", &[expected]);
    check(
        "nope",
        "5",
        &["{\"event\":\"nope\",\"data\":{\"error\":\"unknown event `nope`\"}}"],
    );
}

/// K3: a client that sees no pings of the protocol asks so whether the server is there.
#[test]
fn a_ping_of_a_client_is_answered_and_is_no_error() {
    check("$ping", "null", &["{\"event\":\"$ping\",\"data\":null}"]);
}

/// M-05, X-07: the fields, without the values that were refused.
#[test]
fn a_payload_that_breaks_a_rule_lists_its_fields() {
    check(
        "rated",
        r#"{"name":"abc","stars":5}"#,
        &[r#"{"event":"rated","data":{"name":"abc","stars":5}}"#],
    );
    let rig = rig();
    let peer = rig.connect("/t", "demo", &[]);
    let answer = peer.ask("rated", r#"{"name":"ab","stars":5}"#);
    let expected = "{\"event\":\"rated\",\"data\":{\"error\":\"invalid payload for `rated`: \
         validation failed\",\"errors\":{\"name\":[{\"code\":\"length\",\
         \"message\":\"too short\",\"params\":{\"min\":3}}]}}}";
    assert_eq!(answer, [expected]);
    let answer = peer.ask("rated", r#"{"name":"abc","stars":77}"#);
    assert!(!answer[0].contains("77"), "{answer:?}");
}

/// M-03, P-04, P-21, X-06.
#[test]
fn arguments_stand_in_any_order() {
    check(
        "arguments",
        "9",
        &[r#"{"event":"arguments","data":"1 9 5 ada blue"}"#],
    );
}

/// X-31: one key of the body for each argument.
#[test]
fn a_payload_can_be_taken_apart() {
    let answer = |text| format!(r#"{{"event":"keys","data":"{text}"}}"#);
    check(
        "keys",
        r#"{"name":"ada","stars":5,"more":[]}"#,
        &[&answer("ada Some(5) 1")],
    );
    check("keys", r#"{"name":"a\u0064a"}"#, &[&answer("ada None 1")]);
    let refused = "{\"event\":\"keys\",\"data\":{\"error\":\"invalid payload for `keys`: ";
    check(
        "keys",
        "5",
        &[&format!("{refused}expected an object\"}}}}")],
    );
}

/// X-07, D-11: the socket stays.
#[test]
fn a_panic_is_an_internal_error() {
    check(
        "panics",
        "null",
        &[r#"{"event":"panics","data":{"error":"internal"}}"#],
    );
    let later = r#"{"event":"panics later","data":{"error":"internal"}}"#;
    check("panics later", "null", &[later]);
}

/// X-04.
#[test]
fn what_a_handler_pushes_stands_before_its_reply() {
    check(
        "push",
        "null",
        &[
            r#"{"event":"first","data":1}"#,
            r#"{"event":"joined","room":"x"}"#,
            r#"{"event":"push","data":"last"}"#,
        ],
    );
}

/// D-13: number or string, on replies and on error frames.
#[test]
fn an_id_is_echoed() {
    let rig = rig();
    let peer = rig.connect("/t", "demo", &[]);
    let ask = |event, data: &'static [u8], id: &'static [u8]| {
        let request = Request {
            event,
            data: EventData::of(data),
            id: Some(id),
        };
        peer.send(request);
        rig.wire.take(peer.key)
    };
    assert_eq!(
        ask("plain", b"1", b"7"),
        [r#"{"event":"plain","data":2,"id":7}"#]
    );
    let expected = r#"{"event":"result","data":{"error":"no luck"},"id":"a"}"#;
    assert_eq!(ask("result", b"false", br#""a""#), [expected]);
    assert_eq!(
        ask("slow", b"1", b"8")[1],
        r#"{"event":"slow","data":1,"id":8}"#
    );
    assert!(ask("x", b"1", b"8")[0].ends_with(r#""id":8}"#));
}

/// D-14: what is ready at once needs no task; what waits knows its caller when it goes on.
#[test]
fn only_a_handler_that_waits_becomes_a_task() {
    let rig = rig();
    let peer = rig.connect("/t", "demo", &[]);
    let request = |event, data: &'static [u8]| Request {
        event,
        data: EventData::of(data),
        id: None,
    };
    let done = peer.gateway.message(&peer.client, request("plain", b"1"));
    assert!(matches!(done, Handling::Done(Outcome::Frame(_))));
    let (sender, receiver) = (peer.client.clone(), request("slow", b"4"));
    super::block_on(async {
        let Handling::Pending(pending) = peer.gateway.message(&sender, receiver) else {
            panic!("it sleeps");
        };
        assert!(pending.is_concurrent());
        peer.finish(Handling::Done(pending.await));
    });
    let soon = [
        r#"{"event":"soon","data":4}"#,
        r#"{"event":"slow","data":4}"#,
    ];
    assert_eq!(rig.wire.take(peer.key), soon);
}

/// M-16.
#[test]
fn envelopes_can_be_made_and_read_by_hand() {
    let text = WsEnvelope::encode("ping", &"hi").unwrap();
    assert_eq!(text, r#"{"event":"ping","data":"hi"}"#);
    let bare: WsEnvelope = serde_json::from_str(r#"{"event":"ping"}"#).unwrap();
    assert_eq!(
        bare,
        WsEnvelope {
            event: "ping".into(),
            data: Value::Null
        }
    );
}

/// P-12: a request with no guard in its way.
#[test]
fn an_upgrade_without_guards_is_let_in() {
    let rig = rig();
    let peer = rig.connect("/t", "demo", &[]);
    let upgrade = peer
        .gateway
        .clone()
        .upgrade(caller("demo", &[]), handshake("/t"));
    assert!(super::block_on(upgrade));
}
