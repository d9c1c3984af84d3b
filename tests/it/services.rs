//! Gateways beside everything else in one program: relay handlers of a module, routes, REST,
//! tasks, and what a connection may do to its own handlers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use serde_json::json;
use tidegate::State;
use tidegate::prelude::*;
use tokio::sync::Notify;

use crate::harness::{Client, Plan, Site, both_shards, http, tenant, token};

struct LampNs;

/// Lets a test decide when a handler goes on.
#[injectable]
#[derive(Default)]
struct Gate {
    open: Notify,
}

#[gateway(path = "/lamp", namespace = LampNs)]
struct LampGateway {
    #[inject]
    relay: Arc<Relay>,
    #[inject]
    gate: Arc<Gate>,
}

#[messages]
impl LampGateway {
    #[on_connect]
    async fn greet(&self, client: &WsClient, user: CurrentUser) -> Result<(), &'static str> {
        tokio::task::yield_now().await;
        if user.id == "mallory" {
            return Err("not you");
        }
        let _ = client.emit("hello", &user.id);
        Ok(())
    }

    #[subscribe_message("slow")]
    async fn slow(&self, number: u32) -> u32 {
        self.gate.open.notified().await;
        number
    }

    #[subscribe_message("quick")]
    async fn quick(&self, number: u32) -> u32 {
        number
    }

    #[subscribe_message("open")]
    #[concurrent]
    async fn open(&self) {
        self.gate.open.notify_one();
    }

    #[subscribe_message("aside")]
    #[concurrent]
    async fn aside(&self, number: u32) -> u32 {
        self.gate.open.notified().await;
        number
    }

    #[subscribe_message("relay")]
    async fn push(&self, relay: Relay) -> Result<(), SendError> {
        self.relay.push("lamps", "first", &1).await?;
        relay.push("lamps", "second", &2).await
    }

    #[subscribe_message("later")]
    async fn later(&self, client: &WsClient, server: Arc<WsServer<LampNs>>) {
        let (here, elsewhere) = (server.clone(), server);
        let client = client.clone();
        tidegate::spawn(async move {
            let _ = here.broadcast("spawned", &here.connection_count().unwrap());
            let thread = std::thread::spawn(move || {
                let guessed = elsewhere.broadcast("foreign", &0);
                assert!(matches!(guessed, Err(SendError::NoTenant)));
                let foreign = elsewhere.all_tenants().broadcast("foreign", &1);
                let own = client.emit("thread", &foreign.is_ok());
                assert!(own.is_ok(), "a thread can reach its client");
            });
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(thread.join().is_ok(), "the thread has ended");
        });
    }

    #[subscribe_message("loud")]
    async fn loud(&self, client: &WsClient, server: Arc<WsServer<LampNs>>) -> Loud {
        let loud = Loud(server.clone());
        let sent = client.emit("own", &loud).is_ok() && server.broadcast("all", &loud).is_ok();
        assert!(sent, "what is serialized may send");
        loud
    }

    #[subscribe_message("leave")]
    async fn leave(&self, client: &WsClient) -> Result<u8, SendError> {
        client.disconnect(CloseCode::own(4001), "as you wish")?;
        Ok(1)
    }
}

/// Sends while it is serialized.
struct Loud(Arc<WsServer<LampNs>>);

impl serde::Serialize for Loud {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sent = self.0.broadcast("inner", &1);
        serializer.serialize_bool(sent.is_ok())
    }
}

#[relay("lamps:*")]
async fn lamps(event: RelayEvent, relay: Relay, gate: Arc<Gate>) -> tidegate::Result<()> {
    gate.open.notify_waiters();
    if let RelayEvent::Message {
        topic,
        event,
        payload,
        ..
    } = &event
    {
        relay.push(topic, event, payload).await?;
    }
    Ok(())
}

#[module(providers = [Gate], gateways = [LampGateway], relays = [lamps])]
struct LampModule;

async fn blink(State(server): State<WsServer<LampNs>>) -> String {
    let total = server
        .tenant(tenant("demo"))
        .broadcast_total("blink", &1)
        .await;
    let own = server.broadcast("own", &2).is_ok();
    format!("{:?} {own}", total.ok())
}

fn site(shards: u16) -> Site {
    let plan = Plan::new(shards).with(|server| {
        let router = Router::new().route("/blink", post(blink));
        server.module::<LampModule>().router(router)
    });
    plan.start()
}

fn connect(site: &Site, sub: &str) -> Client {
    let mut client = Client::connect(site.address, "/lamp", &token("demo", sub));
    client.expect(&format!(r#"{{"event":"hello","data":"{sub}"}}"#));
    client
}

both_shards! {
    /// D-14, M-15: in order, one at a time, unless a handler lets others pass; a number of the
    /// client's own in the payload tells the replies apart
    fn events_of_a_connection_keep_their_order(shards) {
        let site = site(shards);
        let mut ada = connect(&site, "ada");
        ada.send(r#"{"event":"slow","data":1}"#);
        for number in 2..40 {
            ada.send(&format!(r#"{{"event":"quick","data":{number}}}"#));
        }
        let mut bob = connect(&site, "bob");
        bob.ask(r#"{"event":"quick","data":0}"#, r#"{"event":"quick","data":0}"#);
        bob.send(r#"{"event":"open"}"#);
        ada.expect(r#"{"event":"slow","data":1}"#);
        for number in 2..40 {
            ada.expect(&format!(r#"{{"event":"quick","data":{number}}}"#));
        }
        ada.send(r#"{"event":"aside","data":1}"#);
        ada.ask(r#"{"event":"quick","data":2}"#, r#"{"event":"quick","data":2}"#);
        ada.send(r#"{"event":"open"}"#);
        ada.expect(r#"{"event":"aside","data":1}"#);
    }

    /// What waits behind a handler is bounded: the peer is not read from, and nothing is lost
    fn what_waits_is_bounded(shards) {
        let plan = Plan::new(shards).limits(|limits| {
            limits.inbox_messages_max = 4;
            limits.outbox_frames_max = 4_096;
        });
        let site = plan.with(|server| server.module::<LampModule>()).start();
        let mut ada = connect(&site, "ada");
        ada.send(r#"{"event":"slow","data":0}"#);
        for number in 1..2_000 {
            ada.send(&format!(r#"{{"event":"quick","data":{number}}}"#));
        }
        let mut bob = connect(&site, "bob");
        bob.send(r#"{"event":"open"}"#);
        ada.expect(r#"{"event":"slow","data":0}"#);
        for number in 1..2_000 {
            ada.expect(&format!(r#"{{"event":"quick","data":{number}}}"#));
        }
    }

    /// Handlers that wait are bounded too
    fn concurrent_handlers_are_bounded(shards) {
        let plan = Plan::new(shards).limits(|limits| limits.handler_queue_max = 1);
        let site = plan.with(|server| server.module::<LampModule>()).start();
        let mut ada = connect(&site, "ada");
        ada.send(r#"{"event":"aside","data":1}"#);
        ada.ask(r#"{"event":"quick","data":2}"#, r#"{"event":"quick","data":{"error":"overloaded"}}"#);
        let mut bob = connect(&site, "bob");
        bob.send(r#"{"event":"open"}"#);
        ada.expect(r#"{"event":"aside","data":1}"#);
        ada.ask(r#"{"event":"quick","data":2}"#, r#"{"event":"quick","data":2}"#);
    }

    /// A hook that refuses closes; a handler can close behind what it has answered
    fn a_gateway_can_let_go(shards) {
        let site = site(shards);
        let mallory = Client::connect(site.address, "/lamp", &token("demo", "mallory"));
        mallory.expect_close(1008, "not you");
        let mut ada = connect(&site, "ada");
        ada.send(r#"{"event":"leave"}"#);
        ada.expect_close(4001, "as you wish");
    }

    /// R-07, R-11, R-17: a module's relay handler, and pushes from a gateway and its service
    fn relay_and_gateways_live_in_one_module(shards) {
        let site = site(shards);
        let mut listener = site.join("demo", "eve");
        listener.subscribe("lamps");
        listener.subscribe("lamps:7");
        listener.say("lamps:7", "on", "1.0");
        listener.expect_push("lamps:7", "on", "1.0");
        let mut ada = connect(&site, "ada");
        ada.send(r#"{"event":"relay"}"#);
        listener.expect_push("lamps", "first", "1");
        listener.expect_push("lamps", "second", "2");
    }

    /// N-07, P-13, C-26: a route of one's own pushes, in the tenant of its token
    fn a_route_reaches_a_registry(shards) {
        let site = site(shards);
        let (mut ada, mut bob) = (connect(&site, "ada"), connect(&site, "bob"));
        let call = |ns: &str| {
            let request = http::request("POST", "/blink", Some(&token(ns, "ops")), "");
            http::ask(site.address, &request).body
        };
        assert_eq!(call("demo"), "Some(2) true");
        for client in [&mut ada, &mut bob] {
            client.expect(r#"{"event":"blink","data":1}"#);
            client.expect(r#"{"event":"own","data":2}"#);
        }
        assert_eq!(call("other"), "Some(2) true");
        for client in [&mut ada, &mut bob] {
            client.expect(r#"{"event":"blink","data":1}"#);
            client.ask(r#"{"event":"quick","data":0}"#, r#"{"event":"quick","data":0}"#);
        }
    }

    /// C-08: over REST, to all, to a room that nobody is in, to one
    fn rest_reaches_a_registry(shards) {
        let site = site(shards);
        let (mut ada, mut bob) = (connect(&site, "ada"), connect(&site, "bob"));
        let call = |ns: &str, name: &str, body: &str| {
            let target = format!("/v1/registries/{name}/broadcast");
            let request = http::request("POST", &target, Some(&token(ns, "ops")), body);
            let answer = http::ask(site.address, &request);
            (answer.status, answer.body)
        };
        let all = call("demo", "LampNs", r#"{"event":"news","data":1.50}"#);
        assert_eq!(all, (200, r#"{"accepted":2}"#.to_owned()));
        ada.expect(r#"{"event":"news","data":1.50}"#);
        bob.expect(r#"{"event":"news","data":1.50}"#);
        let one = call("demo", "LampNs", r#"{"event":"you","client":2}"#);
        assert_eq!(one, (200, r#"{"accepted":1}"#.to_owned()));
        bob.expect(r#"{"event":"you","data":null}"#);
        let room = call("demo", "LampNs", r#"{"event":"you","room":"2"}"#);
        assert_eq!(room.1, r#"{"accepted":0}"#);
        let foreign = call("other", "LampNs", r#"{"event":"you","client":2}"#);
        assert_eq!(foreign.1, r#"{"accepted":0}"#);
        assert_eq!(call("demo", "Nobody", r#"{"event":"x"}"#).0, 404);
        assert_eq!(call("demo", "LampNs", "5").0, 422);
        assert_eq!(call("demo", "LampNs", "{").0, 400);
        ada.ask(r#"{"event":"quick","data":0}"#, r#"{"event":"quick","data":0}"#);
    }

    /// A `Serialize` that broadcasts, in an answer, an emit and a broadcast: nothing is borrowed
    /// across user code, on either shard
    fn what_is_serialized_may_broadcast(shards) {
        let site = site(shards);
        let mut ada = connect(&site, "ada");
        let mut bob = connect(&site, "bob");
        ada.send(r#"{"event":"loud"}"#);
        let inner = r#"{"event":"inner","data":1}"#;
        let own = r#"{"event":"own","data":true}"#;
        let all = r#"{"event":"all","data":true}"#;
        for frame in [inner, own, inner, all, inner, r#"{"event":"loud","data":true}"#] {
            ada.expect(frame);
        }
        for frame in [inner, inner, all, inner] {
            bob.expect(frame);
        }
    }

    /// D-06, D-23, D-24: a spawned task works for its caller; a foreign thread names a tenant, and
    /// what it sends keeps its order
    fn tasks_and_threads_can_send(shards) {
        let site = site(shards);
        let mut ada = connect(&site, "ada");
        ada.send(r#"{"event":"later"}"#);
        ada.expect(r#"{"event":"spawned","data":1}"#);
        ada.expect(r#"{"event":"foreign","data":1}"#);
        ada.expect(r#"{"event":"thread","data":true}"#);
    }
}

/// What the examples do not: the id of a message may be any text of JSON.
#[test]
fn an_id_is_what_it_was() {
    let site = site(1);
    let mut ada = connect(&site, "ada");
    let id = json!("a\"b").to_string();
    ada.ask(
        &format!(r#"{{"id":{id},"event":"quick","data":1}}"#),
        &format!(r#"{{"event":"quick","data":1,"id":{id}}}"#),
    );
    ada.ask(
        r#"{"event":"quick","data":1,"id":[1]}"#,
        r#"{"event":"quick","data":1}"#,
    );
}
