//! Rights inside a tenant: every operation x every right x every way in, for topics by id and by
//! name, that are there and that are not. Knows tokens, frames and documents.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::auth::Claims;
use tidegate::config::{RestPush, RightsChoice};
use tidegate::{CurrentUser, Relay, RelayEvent};

use crate::durable::plan;
use crate::harness::http::{Answer, ask, request};
use crate::harness::{Client, Plan, Site, both_shards, tenant, token, token_of};

fn serve(shards: u16, rights: RightsChoice) -> (TempDir, Site) {
    let data = tempfile::tempdir().unwrap();
    let site = explicit(shards, data.path(), rights).start();
    (data, site)
}

fn explicit(shards: u16, data: &Path, rights: RightsChoice) -> Plan {
    plan(shards, data).config(move |config| config.auth.rights = rights)
}

/// A token of `sub` with these patterns; `None` leaves the claim out.
fn holder(sub: &str, publish: Option<&str>, subscribe: Option<&str>, role: Option<&str>) -> String {
    let mut claims = Claims::new(tenant("demo"), sub);
    claims.publish = publish.map(|pattern| vec![pattern.to_owned()]);
    claims.subscribe = subscribe.map(|pattern| vec![pattern.to_owned()]);
    claims.roles.extend(role.map(str::to_owned));
    token_of(&claims, 600)
}

fn rest(site: &Site, token: &str, method: &str, target: &str, body: &str) -> Answer {
    ask(site.address, &request(method, target, Some(token), body))
}

fn connect(site: &Site, path: &str, protocol: &str, token: &str) -> Client {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("sec-websocket-protocol", protocol),
    ];
    Client::connect_with(site.address, path, &headers)
}

/// The frame that answers `frame`, on a connection of its own.
fn frame(site: &Site, path: &str, token: &str, frame: &Value) -> Value {
    let protocol = match path {
        "/ws" => "tidegate.relay.v1",
        _ => "tidegate.durable.v1",
    };
    let mut client = connect(site, path, protocol, token);
    client.send(&frame.to_string());
    serde_json::from_str(&client.receive()).unwrap()
}

/// What is needed for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Publish,
    Subscribe,
}

/// Asks for an operation on a topic: whether it was forbidden. Anything else counts as allowed,
/// for what comes then is not a matter of rights.
struct Operation {
    name: &'static str,
    needs: Needs,
    durable: bool,
    ask: fn(&Site, &str, &str) -> bool,
}

fn is_problem(answer: &Answer) -> bool {
    if answer.status != 403 {
        assert!(answer.status < 500, "{answer:?}");
        return false;
    }
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["code"], "forbidden", "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    true
}

/// A refusal names the topic and the reference of what it refuses.
fn is_refusal(answer: &Value, topic: &str, reference: Option<u64>) -> bool {
    if answer["code"] != "forbidden" {
        return false;
    }
    assert_eq!(answer["type"], "error", "{answer}");
    assert_eq!(answer["topic"], topic, "{answer}");
    assert_eq!(answer["ref"].as_u64(), reference, "{answer}");
    true
}

fn durable_frame(site: &Site, token: &str, topic: &str, mut sent: Value) -> bool {
    sent["topic"] = topic.into();
    sent["ref"] = 7.into();
    is_refusal(&frame(site, "/v1/ws", token, &sent), topic, Some(7))
}

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "relay subscribe",
        needs: Needs::Subscribe,
        durable: false,
        ask: |site, token, topic| {
            let sent = json!({"type": "subscribe", "topic": topic});
            is_refusal(&frame(site, "/ws", token, &sent), topic, None)
        },
    },
    Operation {
        name: "relay message",
        needs: Needs::Publish,
        durable: false,
        ask: |site, token, topic| {
            let sent = json!({"type": "message", "topic": topic, "event": "e", "payload": 1});
            is_refusal(&frame(site, "/ws", token, &sent), topic, None)
        },
    },
    Operation {
        name: "relay push by REST",
        needs: Needs::Publish,
        durable: false,
        ask: |site, token, topic| {
            let body = json!({"topic": topic, "event": "e", "payload": 1}).to_string();
            is_problem(&rest(site, token, "POST", "/v1/relay/push", &body))
        },
    },
    Operation {
        name: "relay presence by REST",
        needs: Needs::Subscribe,
        durable: false,
        ask: |site, token, topic| {
            let target = format!("/v1/relay/presence?topic={topic}");
            is_problem(&rest(site, token, "GET", &target, ""))
        },
    },
    Operation {
        name: "durable publish",
        needs: Needs::Publish,
        durable: true,
        ask: |site, token, topic| {
            durable_frame(site, token, topic, json!({"type": "publish", "payload": 1}))
        },
    },
    Operation {
        name: "durable subscribe",
        needs: Needs::Subscribe,
        durable: true,
        ask: |site, token, topic| {
            let sent = json!({"type": "subscribe", "sub_name": "s"});
            durable_frame(site, token, topic, sent)
        },
    },
    Operation {
        name: "durable ack",
        needs: Needs::Subscribe,
        durable: true,
        ask: |site, token, topic| {
            let sent = json!({"type": "ack", "sub_name": "s", "seq": 1});
            durable_frame(site, token, topic, sent)
        },
    },
    Operation {
        name: "durable unsubscribe",
        needs: Needs::Subscribe,
        durable: true,
        ask: |site, token, topic| {
            let sent = json!({"type": "unsubscribe", "sub_name": "s"});
            durable_frame(site, token, topic, sent)
        },
    },
    Operation {
        name: "publish by REST",
        needs: Needs::Publish,
        durable: true,
        ask: |site, token, topic| {
            let target = format!("/v1/topics/{topic}/messages");
            is_problem(&rest(site, token, "POST", &target, r#"{"payload":1}"#))
        },
    },
    Operation {
        name: "history by REST",
        needs: Needs::Subscribe,
        durable: true,
        ask: |site, token, topic| {
            let target = format!("/v1/topics/{topic}/messages");
            is_problem(&rest(site, token, "GET", &target, ""))
        },
    },
    Operation {
        name: "topic by REST",
        needs: Needs::Subscribe,
        durable: true,
        ask: |site, token, topic| {
            let target = format!("/v1/topics/{topic}");
            is_problem(&rest(site, token, "GET", &target, ""))
        },
    },
    Operation {
        name: "subscriptions of a topic by REST",
        needs: Needs::Subscribe,
        durable: true,
        ask: |site, token, topic| {
            let target = format!("/v1/subscriptions?topic={topic}");
            is_problem(&rest(site, token, "GET", &target, ""))
        },
    },
];

both_shards! {
    /// Section 6: every operation x every right x both ways in, by id and by name, in both modes,
    /// and whether the topic is there or not makes no difference to who may not have it
    fn every_operation_wants_its_right(shards) {
        for mode in [RightsChoice::Open, RightsChoice::Explicit] {
            let (_data, site) = serve(shards, mode);
            let all = holder("root", Some("*"), Some("*"), Some("admin"));
            let made = rest(&site, &all, "POST", "/v1/topics", r#"{"name":"room:1"}"#);
            let id = serde_json::from_str::<Value>(&made.body).unwrap()["id"].clone();
            let id = id.as_str().unwrap().to_owned();
            let missing = format!("{}{}", &id[..id.len() - 4], "0000");
            let absent = mode == RightsChoice::Open;
            let grants = [
                (None, absent),
                (Some("room:*"), true),
                (Some("room:1"), true),
                (Some("*"), true),
                (Some("room:"), false),
                (Some("room:11"), false),
                (Some("other:*"), false),
                (Some(""), false),
            ];
            for operation in OPERATIONS {
                for (grant, allowed) in grants {
                    let token = match operation.needs {
                        Needs::Publish => holder("ada", grant, Some("no"), None),
                        Needs::Subscribe => holder("ada", Some("no"), grant, None),
                    };
                    let mut names = vec!["room:1"];
                    if operation.durable {
                        names.push(&id);
                    }
                    for name in names {
                        let forbidden = (operation.ask)(&site, &token, name);
                        let case = (operation.name, mode, grant, name);
                        assert_eq!(forbidden, !allowed, "{case:?}");
                    }
                    if !allowed && operation.durable {
                        for name in ["room:1x", "nothing", &missing] {
                            let case = (operation.name, mode, grant, name);
                            assert!((operation.ask)(&site, &token, name), "{case:?}");
                        }
                    }
                }
            }
        }
    }

    /// Section 6: what is refused by id is refused word for word alike
    fn a_refusal_does_not_tell_whether_it_exists(shards) {
        let (_data, site) = serve(shards, RightsChoice::Explicit);
        let all = holder("root", Some("*"), Some("*"), Some("admin"));
        let made = rest(&site, &all, "POST", "/v1/topics", r#"{"name":"secret"}"#);
        let id = serde_json::from_str::<Value>(&made.body).unwrap()["id"].clone();
        let id = id.as_str().unwrap().to_owned();
        let missing = format!("{}{}", &id[..id.len() - 4], "0000");
        let ada = holder("ada", Some("mine"), Some("mine"), None);
        for (method, tail, body) in [
            ("GET", "", ""),
            ("DELETE", "", ""),
            ("PATCH", "", r#"{"retention":{}}"#),
            ("GET", "/messages", ""),
            ("POST", "/messages", r#"{"payload":1}"#),
        ] {
            let of = |topic: &str| {
                let answer = rest(&site, &ada, method, &format!("/v1/topics/{topic}{tail}"), body);
                (answer.status, answer.body)
            };
            assert_eq!(of(&id).0, 403, "{method} {tail}");
            for other in [&missing, "secret", "nothing"] {
                assert_eq!(of(&id), of(other), "{method} {tail} {other}");
            }
        }
        for body in [r#"{"name":"secret"}"#, r#"{"name":"nothing"}"#] {
            assert_eq!(rest(&site, &ada, "POST", "/v1/topics", body).status, 403);
        }
        // What it may have, it may know.
        assert_eq!(rest(&site, &ada, "GET", "/v1/topics/mine", "").status, 404);
        assert_eq!(rest(&site, &ada, "POST", "/v1/topics", r#"{"name":"mine"}"#).status, 201);
    }

    /// Section 6: who may only read finds what is there and makes nothing
    fn a_reader_makes_no_topic(shards) {
        let (_data, site) = serve(shards, RightsChoice::Explicit);
        let (reader, writer) = (holder("a", None, Some("*"), None), holder("b", Some("*"), None, None));
        let resolve = |token| rest(&site, token, "POST", "/v1/topics", r#"{"name":"t"}"#).status;
        assert_eq!(resolve(&reader), 403);
        assert_eq!(resolve(&writer), 201);
        assert_eq!(resolve(&reader), 200);
    }

    /// Section 6: lists show what may be subscribed to, page by page
    fn lists_show_what_may_be_subscribed_to(shards) {
        let (_data, site) = serve(shards, RightsChoice::Explicit);
        let all = holder("root", Some("*"), Some("*"), Some("admin"));
        for name in ["a", "room:1", "room:2", "room:3", "room:vip:1", "z"] {
            let body = json!({"name": name}).to_string();
            assert_eq!(rest(&site, &all, "POST", "/v1/topics", &body).status, 201);
            let mut client = connect(&site, "/v1/ws", "tidegate.durable.v1", &all);
            client.open(name, "s", "");
        }
        let listed = |token: &str, query: &str| {
            let page = rest(&site, token, "GET", &format!("/v1/topics?{query}"), "");
            let page: Value = serde_json::from_str(&page.body).unwrap();
            let names = page["topics"].as_array().unwrap().iter();
            names.map(|topic| topic["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let ada = {
            let claims = Claims::new(tenant("demo"), "ada");
            let claims = claims.subscribe("room:*").subscribe("room:vip:*").subscribe("z");
            token_of(&claims, 60)
        };
        assert_eq!(listed(&ada, ""), ["room:1", "room:2", "room:3", "room:vip:1", "z"]);
        assert_eq!(listed(&ada, "limit=2"), ["room:1", "room:2"]);
        assert_eq!(listed(&ada, "limit=2&after=room:2"), ["room:3", "room:vip:1"]);
        assert_eq!(listed(&ada, "after=room:vip:1"), ["z"]);
        assert_eq!(listed(&holder("eve", Some("*"), None, None), ""), Vec::<String>::new());
        let subscriptions = |token: &str| {
            let page = rest(&site, token, "GET", "/v1/subscriptions", "");
            let page: Value = serde_json::from_str(&page.body).unwrap();
            page["subscriptions"].as_array().unwrap().len()
        };
        assert_eq!((subscriptions(&all), subscriptions(&ada)), (6, 5));
        assert_eq!(subscriptions(&holder("eve", Some("*"), None, None)), 0);
    }

    /// A1, section 6: what another made wants a role; one's own does not
    fn what_others_made_wants_a_role(shards) {
        let (_data, site) = serve(shards, RightsChoice::Explicit);
        let all = holder("root", Some("*"), Some("*"), Some("admin"));
        let made = rest(&site, &all, "POST", "/v1/topics", r#"{"name":"t"}"#);
        assert_eq!(made.status, 201);
        let of = |sub: &str, role| holder(sub, Some("*"), Some("*"), role);
        let subscribed = |sub: &str| {
            let mut client = connect(&site, "/v1/ws", "tidegate.durable.v1", &of(sub, None));
            let answer = client.open("t", sub, "");
            answer["subscription_id"].as_str().unwrap().to_owned()
        };
        let (adas, bobs) = (subscribed("ada"), subscribed("bob"));
        let missing = format!("{}{}", &adas[..adas.len() - 4], "0000");
        let one = |token: &str, method: &str, id: &str| {
            let target = format!("/v1/subscriptions/{id}");
            rest(&site, token, method, &target, r#"{"from_seq":1}"#).status
        };
        for method in ["PATCH", "DELETE"] {
            for id in [&bobs, &missing] {
                assert_eq!(one(&of("ada", None), method, id), 403, "{method}");
            }
        }
        assert_eq!(one(&of("ada", None), "PATCH", &adas), 200);
        assert_eq!(one(&of("ada", None), "GET", &bobs), 200);
        assert_eq!(one(&holder("bob", Some("*"), None, None), "DELETE", &bobs), 403);
        assert_eq!(one(&of("ada", None), "DELETE", &adas), 204);
        assert_eq!(one(&holder("ops", None, None, Some("manager")), "PATCH", &bobs), 200);
        assert_eq!(one(&of("ops", Some("manager")), "DELETE", &bobs), 204);
        let topic = |token: &str| rest(&site, token, "DELETE", "/v1/topics/t", "").status;
        assert_eq!(topic(&of("root", None)), 403);
        assert_eq!(topic(&of("root", Some("user"))), 403);
        assert_eq!(topic(&holder("ops", None, None, Some("manager"))), 204);
    }

    /// Section 6: who made a subscription is known after a restart too
    fn a_maker_is_remembered(shards) {
        let data = tempfile::tempdir().unwrap();
        let of = |sub: &str| holder(sub, Some("*"), Some("*"), None);
        let id = {
            let site = explicit(shards, data.path(), RightsChoice::Explicit).start();
            assert_eq!(rest(&site, &of("a"), "POST", "/v1/topics", r#"{"name":"t"}"#).status, 201);
            let mut client = connect(&site, "/v1/ws", "tidegate.durable.v1", &of("ada"));
            let answer = client.open("t", "s", "");
            answer["subscription_id"].as_str().unwrap().to_owned()
        };
        let site = explicit(shards, data.path(), RightsChoice::Explicit).start();
        let target = format!("/v1/subscriptions/{id}");
        assert_eq!(rest(&site, &of("bob"), "DELETE", &target, "").status, 403);
        assert_eq!(rest(&site, &of("ada"), "DELETE", &target, "").status, 204);
    }

    /// Section 6: connections want a role, their addresses the role admin, in `contains` too
    fn connections_want_a_role(shards) {
        let (_data, site) = serve(shards, RightsChoice::Explicit);
        let ada = holder("ada", Some("*"), Some("*"), None);
        let _open = connect(&site, "/ws", "tidegate.relay.v1", &ada);
        let listed = |role, query: &str| {
            let token = holder("ops", None, None, role);
            rest(&site, &token, "GET", &format!("/v1/connections{query}"), "")
        };
        assert!(is_problem(&listed(None, "")));
        assert!(is_problem(&listed(Some("user"), "")));
        let of = |answer: Answer| serde_json::from_str::<Value>(&answer.body).unwrap();
        let manager = of(listed(Some("manager"), ""));
        assert_eq!(manager["count"], 1);
        assert_eq!(manager["connections"][0]["peer"], Value::Null);
        assert_eq!(of(listed(Some("manager"), "?contains=127.0"))["count"], 0);
        let admin = of(listed(Some("admin"), "?contains=127.0"));
        let peer = admin["connections"][0]["peer"].as_str().unwrap().to_owned();
        assert!(peer.starts_with("127.0.0.1:"), "{peer}");
        let id = admin["connections"][0]["id"].as_str().unwrap();
        let close = |role| {
            let token = holder("ops", None, None, Some(role));
            rest(&site, &token, "DELETE", &format!("/v1/connections/{id}"), "").status
        };
        assert_eq!((close("manager"), close("admin")), (403, 204));
    }

    /// Section 6: a renewed token's rights hold at once, and end what they do not allow
    fn a_renewed_token_brings_its_rights(shards) {
        let (_data, site) = serve(shards, RightsChoice::Explicit);
        let all = holder("ada", Some("*"), Some("*"), None);
        let less = holder("ada", Some("a"), Some("a"), None);
        let mut relay = connect(&site, "/ws", "tidegate.relay.v1", &all);
        for topic in ["a", "b"] {
            relay.subscribe(topic);
        }
        relay.send(&json!({"type": "auth", "token": less}).to_string());
        relay.expect(r#"{"type":"error","message":"forbidden: the token does not allow it","code":"forbidden","topic":"b"}"#);
        relay.expect(r#"{"type":"unsubscribed","topic":"b"}"#);
        for topic in ["a", "b"] {
            let body = json!({"topic": topic, "event": "e", "payload": 1}).to_string();
            assert_eq!(rest(&site, &all, "POST", "/v1/relay/push", &body).status, 200);
        }
        relay.expect_push("a", "e", "1");
        relay.say("b", "e", "2");
        relay.expect(r#"{"type":"error","message":"forbidden: the token does not allow it","code":"forbidden","topic":"b"}"#);
        relay.send(&json!({"type": "auth", "token": all}).to_string());
        relay.subscribe("b");

        for name in ["a", "b"] {
            let body = json!({"name": name}).to_string();
            assert_eq!(rest(&site, &all, "POST", "/v1/topics", &body).status, 201);
        }
        let mut durable = connect(&site, "/v1/ws", "tidegate.durable.v1", &all);
        for name in ["a", "b"] {
            durable.open(name, "s", "");
        }
        durable.send(&json!({"type": "auth", "token": less}).to_string());
        let ended: Value = serde_json::from_str(&durable.receive()).unwrap();
        assert_eq!((&ended["type"], &ended["reason"]), (&json!("unsubscribed"), &json!("forbidden")));
        durable.send(r#"{"type":"publish","topic":"b","payload":1,"ref":1}"#);
        let refused: Value = serde_json::from_str(&durable.receive()).unwrap();
        assert!(is_refusal(&refused, "b", Some(1)), "{refused}");
        durable.send(r#"{"type":"publish","topic":"a","payload":1,"ref":2}"#);
        let (first, second) = (durable.receive(), durable.receive());
        assert!(first.contains("pub_ack") || second.contains("pub_ack"), "{first} {second}");
    }
}

/// A handler with a guard in its join, as the example `orders` has one.
async fn guarded(event: RelayEvent, relay: Relay, user: CurrentUser) -> Result<(), String> {
    let topic = event.topic().to_owned();
    match &event {
        RelayEvent::Join { conn_id, .. } => {
            let _ = relay.track(&topic, *conn_id, &user.id).await;
            let _ = relay.push(&topic, "joined", &user.id).await;
            match user.roles.iter().any(|role| role == "member") {
                true => Ok(()),
                false => Err("members only".to_owned()),
            }
        }
        RelayEvent::Message { event, payload, .. } => {
            let _ = relay.push(&topic, &format!("vip:{event}"), payload).await;
            Ok(())
        }
        RelayEvent::Leave { .. } => {
            let _ = relay.push(&topic, "left", &user.id).await;
            Ok(())
        }
    }
}

both_shards! {
    /// A1, section 6: a push by REST is a message of its user, so the handler's guard guards it
    fn a_push_does_not_walk_around_a_join_guard(shards) {
        let site = Plan::new(shards).relay("vip:*", guarded).start();
        let member = holder("ada", None, None, Some("member"));
        let mut ada = connect(&site, "/ws", "tidegate.relay.v1", &member);
        ada.send(r#"{"type":"subscribe","topic":"vip:1"}"#);
        ada.expect(r#"{"type":"subscribed","topic":"vip:1"}"#);
        ada.expect_push("vip:1", "joined", r#""ada""#);
        let push = |token: &str| {
            let body = r#"{"topic":"vip:1","event":"e","payload":42.50}"#;
            let answer = rest(&site, token, "POST", "/v1/relay/push", body);
            (answer.status, answer.body)
        };
        let (status, body) = push(&token("demo", "eve"));
        assert_eq!(status, 403, "{body}");
        assert!(body.contains("members only") && body.contains("join_rejected"), "{body}");
        let bob = holder("bob", None, None, Some("member"));
        assert_eq!(push(&bob), (200, r#"{"handled":true}"#.to_owned()));
        ada.expect_push("vip:1", "vip:e", "42.50");
        ada.expect_nothing();
        let presence = rest(&site, &member, "GET", "/v1/relay/presence?topic=vip:1", "");
        assert!(presence.body.contains(r#""count":1"#), "{presence:?}");
    }

    /// Section 6: `rest_push` says who takes a push
    fn rest_push_says_who_takes_a_push(shards) {
        let body = r#"{"topic":"vip:1","event":"e","payload":1}"#;
        for (mode, status, answer) in [
            (RestPush::Direct, 200, Some(r#"{"accepted":1}"#)),
            (RestPush::Off, 403, None),
        ] {
            let site = Plan::new(shards)
                .config(move |config| {
                    if let Some(relay) = &mut config.relay {
                        relay.rest_push = mode;
                    }
                })
                .relay("vip:*", guarded)
                .start();
            let member = holder("ada", None, None, Some("member"));
            let mut ada = connect(&site, "/ws", "tidegate.relay.v1", &member);
            ada.send(r#"{"type":"subscribe","topic":"vip:1"}"#);
            ada.expect(r#"{"type":"subscribed","topic":"vip:1"}"#);
            ada.expect_push("vip:1", "joined", r#""ada""#);
            let pushed = rest(&site, &token("demo", "eve"), "POST", "/v1/relay/push", body);
            assert_eq!(pushed.status, status, "{pushed:?}");
            match answer {
                Some(answer) => {
                    assert_eq!(pushed.body, answer);
                    ada.expect_push("vip:1", "e", "1");
                }
                None => ada.expect_nothing(),
            }
        }
    }
}

/// Section 6: a claim that is no list of texts is no token
#[test]
fn a_malformed_claim_is_refused() {
    let (_data, site) = serve(1, RightsChoice::Open);
    for claim in ["publish", "subscribe"] {
        for bad in [
            json!("room:*"),
            json!(null),
            json!([1]),
            json!({"a": 1}),
            json!(true),
        ] {
            let mut claims = Claims::new(tenant("demo"), "ada");
            claims.others.insert(claim.to_owned(), bad.clone());
            let token = token_of(&claims, 60);
            let answer = rest(&site, &token, "GET", "/v1/topics", "");
            assert_eq!(answer.status, 401, "{claim} {bad}");
        }
        let mut claims = Claims::new(tenant("demo"), "ada");
        claims.others.insert(claim.to_owned(), json!([]));
        assert_eq!(
            rest(&site, &token_of(&claims, 60), "GET", "/v1/topics", "").status,
            200
        );
    }
}
