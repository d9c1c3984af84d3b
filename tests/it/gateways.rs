//! The event dialect on the wire: the shipped examples frame by frame, and what holds for every
//! gateway. Knows the examples as modules; their programs are started elsewhere.

use std::time::Duration;

use serde_json::Value;
use tungstenite::Message;

use tidegate::auth::Claims;
use tidegate::config::{Dialect, MountConfig, Tenants};
use tidegate::metrics::Counter;

use crate::harness::{
    Client, Plan, Site, both_shards, eventually, http, tenant, token, token_of, wire,
};

#[path = "../../examples/ai_stream.rs"]
#[expect(dead_code, reason = "the example's `main` is not called here")]
mod ai_stream;
#[path = "../../examples/chat.rs"]
#[expect(dead_code, reason = "the example's `main` is not called here")]
pub(crate) mod chat;
#[path = "../../examples/chat_plain.rs"]
#[expect(dead_code, reason = "the example's `main` is not called here")]
mod chat_plain;
#[path = "../../examples/notify.rs"]
#[expect(dead_code, reason = "the example's `main` is not called here")]
mod notify;

fn chat(shards: u16) -> Site {
    Plan::new(shards)
        .with(|server| server.module::<chat::ChatModule>())
        .start()
}

pub(crate) fn notify(shards: u16) -> Site {
    notify_plan(shards).start()
}

pub(crate) fn notify_plan(shards: u16) -> Plan {
    Plan::new(shards).with(|server| server.module::<notify::NotifyModule>())
}

fn ai(shards: u16) -> Site {
    Plan::new(shards)
        .with(|server| server.module::<ai_stream::AiModule>())
        .start()
}

fn connect(site: &Site, path: &str, ns: &str, sub: &str) -> Client {
    Client::connect(site.address, path, &token(ns, sub))
}

fn connect_as(site: &Site, path: &str, role: &str) -> Client {
    let claims = Claims::new(tenant("demo"), "ops").role(role);
    Client::connect(site.address, path, &token_of(&claims, 3_600))
}

/// The status of an answer that is no 101.
fn refusal(site: &Site, target: &str) -> u16 {
    http::ask(site.address, &wire::upgrade_request(target, &[])).status
}

/// What is answered next is the answer to this, so nothing else was on its way.
#[track_caller]
fn expect_nothing(client: &mut Client) {
    client.ask(
        r#"{"event":"?"}"#,
        r#"{"event":"?","data":{"error":"unknown event `?`"}}"#,
    );
}

/// What one client of a chat says, and what it is answered.
const TALK: [(&str, &str); 17] = [
    (
        r#"{"event":"message","data":{"author":"ada","text":"hi"}}"#,
        r#"{"event":"message","data":{"author":"ada","text":"hi"}}"#,
    ),
    (
        r#"{"event":"message","data":{"author":"banned","text":"hi"}}"#,
        r#"{"event":"message","data":{"error":"author `banned` is not allowed to post"}}"#,
    ),
    (
        r#"{"event":"history","data":null}"#,
        r#"{"event":"history","data":[{"author":"ada","text":"hi"}]}"#,
    ),
    (
        r#"{"event":"presence","data":null}"#,
        r#"{"event":"presence","data":1}"#,
    ),
    (
        r#"{"event":"send","data":{"author":"ada","text":""}}"#,
        r#"{"event":"send","data":{"error":"text must not be empty"}}"#,
    ),
    (
        r#"{"event":"send","data":{"author":"ada","text":"yo"}}"#,
        r#"{"event":"send","data":{"author":"ada","text":"yo"}}"#,
    ),
    (
        r#"{"event":"typing","data":{"author":"ada","text":"h"}}"#,
        r#"{"event":"typing","data":{"author":"ada","text":"h"}}"#,
    ),
    (
        r#"{"event":"join","data":{"name":"lobby"}}"#,
        r#"{"event":"joined","room":"lobby"}"#,
    ),
    (
        r#"{"event":"leave","data":{"name":"lobby"}}"#,
        r#"{"event":"left","room":"lobby"}"#,
    ),
    (r#"{"event":"ping"}"#, r#"{"event":"pong","data":{}}"#),
    (
        r#"{"event":"nope"}"#,
        r#"{"event":"nope","data":{"error":"unknown event `nope`"}}"#,
    ),
    (
        "hello",
        r#"{"event":"error","data":{"error":"invalid envelope"}}"#,
    ),
    (
        "[]",
        r#"{"event":"error","data":{"error":"invalid envelope"}}"#,
    ),
    (
        r#"{"data":1}"#,
        r#"{"event":"error","data":{"error":"invalid envelope"}}"#,
    ),
    (
        r#"{"event":"presence","id":7}"#,
        r#"{"event":"presence","data":1,"id":7}"#,
    ),
    (
        r#"{"event":"presence","id":"a"}"#,
        r#"{"event":"presence","data":1,"id":"a"}"#,
    ),
    (
        r#"{"event":"send","data":{"author":"ada","text":""},"id":1}"#,
        r#"{"event":"send","data":{"error":"text must not be empty"},"id":1}"#,
    ),
];

fn talk(site: &Site) {
    let mut ada = connect(site, "/chat", "demo", "ada");
    for (question, answer) in TALK {
        ada.ask(question, answer);
    }
    ada.send(r#"{"event":"message","data":5}"#);
    let refused = ada.receive();
    let start = "{\"event\":\"message\",\"data\":{\"error\":\"invalid payload for `message`: ";
    assert!(refused.starts_with(start), "{refused}");
    ada.send_message(Message::binary(b"x".to_vec()));
    ada.expect(r#"{"event":"error","data":{"error":"binary frames are not supported"}}"#);
    ada.close();
}

both_shards! {
    /// M-01 to M-11, M-13, M-14, M-16, P-05 to P-07, X-07, D-13
    fn the_chat_answers_byte_for_byte(shards) {
        talk(&chat(shards));
    }

    /// The same without a macro: what they write can be written by hand
    fn the_plain_chat_answers_byte_for_byte(shards) {
        talk(&Plan::new(shards).with(|server| server.app(chat_plain::register)).start());
    }

    /// N-01, P-08, P-10, X-01 to X-04, D-24: members on two shards, the sender included
    fn rooms_reach_their_members_and_nobody_else(shards) {
        let site = chat(shards);
        let mut ada = connect(&site, "/chat", "demo", "ada");
        let mut bob = connect(&site, "/chat", "demo", "bob");
        let mut eve = connect(&site, "/chat", "demo", "eve");
        ada.ask(r#"{"event":"join","data":{"name":"lobby"}}"#, r#"{"event":"joined","room":"lobby"}"#);
        ada.ask(r#"{"event":"join","data":{"name":"lobby"}}"#, r#"{"event":"joined","room":"lobby"}"#);
        bob.ask(r#"{"event":"join","data":{"name":"lobby"}}"#, r#"{"event":"joined","room":"lobby"}"#);
        let room = r#"{"event":"message","data":{"author":"eve","text":"x"}}"#;
        eve.send(r#"{"event":"send","data":{"author":"eve","text":"x","room":"lobby"}}"#);
        eve.expect(r#"{"event":"send","data":{"author":"eve","text":"x"}}"#);
        ada.expect(room);
        bob.expect(room);
        bob.send(r#"{"event":"send","data":{"author":"eve","text":"x","room":"lobby"}}"#);
        bob.expect(room);
        bob.expect(r#"{"event":"send","data":{"author":"eve","text":"x"}}"#);
        ada.expect(room);
        bob.ask(r#"{"event":"leave","data":{"name":"lobby"}}"#, r#"{"event":"left","room":"lobby"}"#);
        bob.send(r#"{"event":"send","data":{"author":"eve","text":"x","room":"lobby"}}"#);
        bob.expect(r#"{"event":"send","data":{"author":"eve","text":"x"}}"#);
        ada.expect(room);
        expect_nothing(&mut eve);
    }

    /// X-03: whichever way a connection ends, its rooms hear of it
    fn who_was_in_a_room_is_missed(shards) {
        let site = chat(shards);
        let mut bob = connect(&site, "/chat", "demo", "bob");
        bob.ask(r#"{"event":"join","data":{"name":"lobby"}}"#, r#"{"event":"joined","room":"lobby"}"#);
        for abruptly in [false, true] {
            let mut ada = connect(&site, "/chat", "demo", "ada");
            ada.ask(r#"{"event":"join","data":{"name":"lobby"}}"#, r#"{"event":"joined","room":"lobby"}"#);
            ada.ask(r#"{"event":"presence"}"#, r#"{"event":"presence","data":2}"#);
            if abruptly { ada.vanish() } else { ada.close() }
            bob.expect(r#"{"event":"gone","data":{"room":"lobby","sub":"ada"}}"#);
            bob.ask(r#"{"event":"presence"}"#, r#"{"event":"presence","data":1}"#);
        }
    }

    /// D-06: counts, history, broadcasts and rooms of another tenant are another world
    fn tenants_do_not_meet(shards) {
        let site = chat(shards);
        let mut ada = connect(&site, "/chat", "demo", "ada");
        let mut eve = connect(&site, "/chat", "other", "eve");
        let mut eve_too = connect(&site, "/chat", "other", "eve");
        ada.ask(r#"{"event":"join","data":{"name":"lobby"}}"#, r#"{"event":"joined","room":"lobby"}"#);
        eve.ask(r#"{"event":"join","data":{"name":"lobby"}}"#, r#"{"event":"joined","room":"lobby"}"#);
        eve.ask(r#"{"event":"presence"}"#, r#"{"event":"presence","data":2}"#);
        ada.ask(r#"{"event":"presence"}"#, r#"{"event":"presence","data":1}"#);
        eve.send(r#"{"event":"send","data":{"author":"eve","text":"secret","room":"lobby"}}"#);
        eve.expect(r#"{"event":"message","data":{"author":"eve","text":"secret"}}"#);
        eve.expect(r#"{"event":"send","data":{"author":"eve","text":"secret"}}"#);
        eve.send(r#"{"event":"typing","data":{"author":"eve","text":"t"}}"#);
        eve.expect(r#"{"event":"typing","data":{"author":"eve","text":"t"}}"#);
        eve_too.expect(r#"{"event":"typing","data":{"author":"eve","text":"t"}}"#);
        ada.ask(r#"{"event":"history"}"#, r#"{"event":"history","data":[]}"#);
        eve.close();
        eve_too.ask(r#"{"event":"presence"}"#, r#"{"event":"presence","data":1}"#);
        expect_nothing(&mut ada);
    }

    /// N-02 to N-10, N-14, X-26: two registries, one of them without a room, equal numbers, one service that pushes to the other
    fn registries_do_not_meet(shards) {
        let site = notify(shards);
        let mut ada = connect_as(&site, "/chat", "admin");
        let mut bob = connect(&site, "/chat", "demo", "bob");
        let mut eve = connect(&site, "/notify", "demo", "eve");
        ada.expect(r#"{"event":"welcome","data":{"conn_id":1}}"#);
        bob.expect(r#"{"event":"welcome","data":{"conn_id":2}}"#);
        eve.expect(r#"{"event":"welcome","data":{"conn_id":1}}"#);
        eve.ask(r#"{"event":"ping"}"#, r#"{"event":"pong","data":"hi"}"#);
        ada.send(r#"{"event":"say","data":{"text":"hey"}}"#);
        ada.expect(r#"{"event":"said","data":{"text":"hey"}}"#);
        expect_timing(&mut ada, "say");
        bob.expect(r#"{"event":"said","data":{"text":"hey"}}"#);
        ada.send(r#"{"event":"presence"}"#);
        expect_timing(&mut ada, "presence");
        ada.expect(r#"{"event":"presence","data":2}"#);
        ada.send(r#"{"event":"shout","data":{"text":"fire"}}"#);
        expect_timing(&mut ada, "shout");
        eve.expect(r#"{"event":"alert","data":"fire"}"#);
        ada.close();
        bob.expect(r#"{"event":"bye","data":1}"#);
        expect_nothing(&mut bob);
        expect_nothing(&mut eve);
        let mut late = connect(&site, "/chat", "demo", "late");
        late.expect(r#"{"event":"welcome","data":{"conn_id":3}}"#);
    }

    /// P-11, P-12, P-17, P-18, M-17, D-10, D-11, D-14
    fn layers_stand_around_events(shards) {
        let site = notify(shards);
        let claims = Claims::new(tenant("demo"), "eve").role("banned");
        let target = format!("/notify?token={}", token_of(&claims, 3_600));
        assert_eq!(refusal(&site, &target), 403);
        let mut bob = connect(&site, "/chat", "demo", "bob");
        bob.expect(r#"{"event":"welcome","data":{"conn_id":1}}"#);
        bob.ask(r#"{"event":"shout","data":5}"#, r#"{"event":"shout","data":{"error":"forbidden"}}"#);
        let mut fail = |how: &str| bob.send(&format!(r#"{{"event":"fail","data":{{"how":"{how}"}}}}"#));
        fail("plain");
        fail("teapot");
        fail("silent");
        fail("panic");
        fail("close");
        expect_timing(&mut bob, "fail");
        bob.expect(r#"{"event":"fail","data":{"error":"plain failure"}}"#);
        expect_timing(&mut bob, "fail");
        bob.expect(r#"{"event":"fail","data":{"error":"short and stout","code":418}}"#);
        expect_timing(&mut bob, "fail");
        expect_timing(&mut bob, "fail");
        bob.expect(r#"{"event":"fail","data":{"error":"internal"}}"#);
        expect_timing(&mut bob, "fail");
        bob.expect_close(4418, "short and stout");
        assert_eq!(site.count(Counter::HandlerPanics), 1);
    }

    /// P-14, P-19, D-14: other events pass a stream, and a cancel reaches it
    fn a_stream_can_be_cancelled(shards) {
        let site = ai(shards);
        let mut ada = connect(&site, "/ai", "demo", "ada");
        ada.send(r#"{"event":"prompt","data":{"prompt":" a  b c","delay_ms":1}}"#);
        for token in ["a", "b", "c"] {
            ada.expect(&format!(r#"{{"event":"token","data":"{token}"}}"#));
        }
        ada.expect(r#"{"event":"done","data":{}}"#);
        ada.ask(r#"{"event":"cancel"}"#, r#"{"event":"cancel","data":{"error":"nothing to cancel"}}"#);
        ada.ask(r#"{"event":"prompt","data":{"prompt":""}}"#, r#"{"event":"done","data":{}}"#);
        ada.send(r#"{"event":"prompt","data":{"prompt":"a b c d e","delay_ms":300}}"#);
        ada.ask(r#"{"event":"ping"}"#, r#"{"event":"pong","data":{}}"#);
        ada.ask(r#"{"event":"active"}"#, r#"{"event":"active","data":1}"#);
        ada.ask(r#"{"event":"prompt","data":{"prompt":"x"}}"#, r#"{"event":"prompt","data":{"error":"busy"}}"#);
        ada.expect(r#"{"event":"token","data":"a"}"#);
        ada.ask(r#"{"event":"cancel"}"#, r#"{"event":"cancelled","data":{"tokens":1}}"#);
        ada.send(r#"{"event":"prompt","data":{"prompt":"z","delay_ms":0}}"#);
        ada.expect(r#"{"event":"token","data":"z"}"#);
        ada.expect(r#"{"event":"done","data":{}}"#);
        ada.ask(r#"{"event":"active"}"#, r#"{"event":"active","data":0}"#);
    }

    /// A connection that ends takes its stream with it; another tenant never sees it
    fn a_stream_ends_with_its_connection(shards) {
        let site = ai(shards);
        let mut ada = connect(&site, "/ai", "demo", "ada");
        let mut bob = connect(&site, "/ai", "demo", "bob");
        let mut eve = connect(&site, "/ai", "other", "eve");
        ada.send(r#"{"event":"prompt","data":{"prompt":"a b","delay_ms":1000}}"#);
        ada.ask(r#"{"event":"active"}"#, r#"{"event":"active","data":1}"#);
        eve.ask(r#"{"event":"active"}"#, r#"{"event":"active","data":0}"#);
        ada.vanish();
        eventually("the stream has ended", || {
            bob.send(r#"{"event":"active"}"#);
            bob.receive() == r#"{"event":"active","data":0}"#
        });
    }

    /// D-07, R-05, D-09: ten in a row, text that is none, no token
    fn a_peer_that_breaks_the_rules_is_let_go(shards) {
        let site = chat(shards);
        let mut ada = connect(&site, "/chat", "demo", "ada");
        for _ in 0..10 {
            ada.ask("nonsense", r#"{"event":"error","data":{"error":"invalid envelope"}}"#);
        }
        ada.expect_close(1008, "too many invalid frames in a row");
        assert_eq!(refusal(&site, "/chat"), 401);
    }

    /// D-06: on a shared mount everybody is in one tenant
    fn a_shared_mount_has_one_tenant(shards) {
        let shared = |config: &mut tidegate::config::Config| {
            let mount = MountConfig {
                path: "/chat".into(),
                dialect: Dialect::Event,
                handler: None,
                transport: tidegate::config::Carrier::WebSocket,
                public: true,
                tenants: Tenants::Shared,
                limits: config.limits.clone(),
            };
            config.mounts.push(mount);
        };
        let plan = Plan::new(shards).config(shared);
        let site = plan.with(|server| server.module::<chat::ChatModule>()).start();
        let mut ada = connect(&site, "/chat", "demo", "ada");
        let _eve = Client::connect_public(site.address, "/chat");
        ada.ask(r#"{"event":"presence"}"#, r#"{"event":"presence","data":2}"#);
    }
}

/// `{"event":"timing","data":{"event":..,"us":..}}` with whole microseconds.
#[track_caller]
fn expect_timing(client: &mut Client, event: &str) {
    let text = client.receive();
    let start = format!(r#"{{"event":"timing","data":{{"event":"{event}","us":"#);
    assert!(text.starts_with(&start), "{text}");
    let timing: Value = serde_json::from_str(&text).unwrap();
    let us = timing["data"]["us"].as_u64().unwrap();
    assert!(u128::from(us) < Duration::from_secs(5).as_micros());
}

/// D-02, X-11: whoever wants a path that is taken is named.
#[test]
fn two_mounts_on_one_path_are_refused() {
    let relay = |config: &mut tidegate::config::Config| {
        let relay = config
            .mounts
            .iter_mut()
            .find(|mount| mount.dialect == Dialect::Relay);
        relay.unwrap().path = "/chat".into();
    };
    let plan = Plan::new(1).config(relay);
    let refused = plan
        .with(|server| server.module::<chat::ChatModule>())
        .try_start();
    let text = refused.err().unwrap().to_string();
    assert!(
        text.contains("`ChatGateway` and the relay are both mounted on `/chat`"),
        "{text}"
    );
}
