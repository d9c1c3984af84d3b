//! Row by row what a client of durable topics may rely on: keys, cursors, windows, gaps, limits,
//! errors. Knows texts. The demo of the seed, restarts, takeovers and other tenants are in
//! `durable.rs`.

use serde_json::{Value, json};
use tidegate::auth::Claims;
use tidegate::config::{BindSubNames, OnDuplicate};

use crate::durable::{Durable as _, plan, serve};
use crate::harness::http::{ask, request};
use crate::harness::{Client, both_shards, eventually, tenant, token, token_of};

impl Client {
    /// The next frame, as a value.
    #[track_caller]
    fn frame(&mut self) -> Value {
        serde_json::from_str(&self.receive()).unwrap()
    }

    /// Sends a text; the code of the error that it is answered with.
    #[track_caller]
    fn refused(&mut self, text: &str) -> String {
        self.send(text);
        let answer = self.frame();
        assert_eq!(answer["type"], "error", "{answer}");
        answer["code"].as_str().unwrap().to_owned()
    }
}

/// Publishes 1 to `last`, each a number.
fn fill(client: &mut Client, topic: &str, last: u64) {
    for seq in 1..=last {
        client.publish(topic, &seq.to_string(), seq);
    }
}

both_shards! {
    /// B-03, B-04, B-06, B-08, D-25: a token in the URL, a name or an id, a stable UUIDv7
    fn topics_have_ids_and_names(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'7'));
        assert_ne!(site.topic("other", "t"), id);
        let target = format!("/v1/ws?token={}", token("demo", "svc"));
        let mut ada = Client::connect_public(site.address, &target);
        ada.publish(&id, "1", 1);
        let by_name = format!(r#"{{"type":"pub_ack","topic":"{id}","seq":2}}"#);
        ada.ask(r#"{"type":"publish","topic":"t","payload":2}"#, &by_name);
        assert_eq!(ada.open("t", "A", "")["topic"], json!(id));
        let name = |bytes| format!(r#"{{"name":"{}"}}"#, "n".repeat(bytes));
        assert_eq!(site.rest("demo", "POST", "/v1/topics", &name(255)).status, 201);
        assert_eq!(site.rest("demo", "POST", "/v1/topics", &name(256)).status, 422);
        assert_eq!(site.rest("demo", "POST", "/v1/topics", &name(0)).status, 422);
    }

    /// What goes to the disk is measured: its bytes, and how long its syncs take
    fn syncs_are_measured(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        site.durable("demo").publish(&id, r#""on the disk""#, 1);
        let admin = token_of(&Claims::new(tenant("demo"), "root").role("admin"), 60);
        eventually("a sync is in the metrics", || {
            let metrics = ask(site.address, &request("GET", "/metrics", Some(&admin), ""));
            let numbers = metrics.body.lines().filter(|line| {
                line.starts_with("tidegate_sync_duration_seconds_count")
                    || line.starts_with("tidegate_log_written_bytes_total")
            });
            let moved = numbers.filter(|line| !line.ends_with(" 0")).count();
            2 <= moved
        });
    }

    /// B-10, B-15, D-26: what is refused takes no seq
    fn a_refused_publish_takes_no_seq(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        ada.publish(&id, "1", 1);
        let bad = format!(r#"{{"type":"publish","topic":"{id}","payload":}}"#);
        assert_eq!(ada.refused(&bad), "invalid_message");
        let long = "k".repeat(1_000);
        let keyed = format!(r#"{{"type":"publish","topic":"{id}","payload":1,"idempotency_key":"{long}"}}"#);
        assert_eq!(ada.refused(&keyed), "invalid_message");
        let target = format!("/v1/topics/{id}/messages");
        let half_good = format!(r#"[{{"payload":1}},{{"payload":1,"idempotency_key":"{long}"}}]"#);
        assert!(400 <= site.rest("demo", "POST", &target, &half_good).status);
        ada.publish(&id, "2", 2);
    }

    /// D-27: the same key again, another payload under it, any `ref`, acks in order
    fn keys_and_references(shards) {
        let (data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        let keyed = |payload: &str, reference: &str| {
            format!(
                r#"{{"type":"publish","topic":"{id}","payload":{payload},"idempotency_key":"k","ref":{reference}}}"#
            )
        };
        let acked = |more: &str| format!(r#"{{"type":"pub_ack","topic":"{id}","seq":1{more}}}"#);
        ada.ask(&keyed("1", "1"), &acked(r#","ref":1"#));
        ada.ask(&keyed("1", r#""two""#), &acked(r#","duplicate":true,"ref":"two""#));
        assert_eq!(ada.refused(&keyed("2", "3")), "idempotency_conflict");
        ada.publish(&id, "2", 2);
        site.stop();
        let site = plan(shards, data.path()).start();
        let mut ada = site.durable("demo");
        ada.ask(&keyed("1", "4"), &acked(r#","duplicate":true,"ref":4"#));
        let others: Vec<String> = (0..4).map(|number| site.topic("demo", &format!("o-{number}"))).collect();
        for number in 0..100 {
            for other in &others {
                ada.send(&format!(r#"{{"type":"publish","topic":"{other}","payload":0,"ref":{number}}}"#));
            }
        }
        let mut next = vec![0; others.len()];
        for _ in 0..400 {
            let answer = ada.frame();
            let which = others.iter().position(|other| answer["topic"] == **other).unwrap();
            assert_eq!((&answer["ref"], &answer["seq"]), (&json!(next[which]), &json!(next[which] + 1)));
            next[which] += 1;
        }
    }

    /// B-09, D-30, D-29: where a subscription starts, and that a cursor wins
    fn where_a_subscription_starts(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        fill(&mut ada, &id, 5);
        for (name, from, next) in [("a", r#","from_seq":0"#, 1), ("b", r#","from_seq":1"#, 1), ("c", r#","from_seq":4"#, 4), ("d", r#","from_seq":6"#, 6), ("e", "", 6)] {
            let answer = ada.open(&id, name, from);
            assert_eq!((&answer["next_seq"], &answer["resumed"]), (&json!(next), &json!(false)), "{name}");
            for seq in next..=5 {
                ada.expect_message(&id, seq, &seq.to_string());
            }
        }
        ada.ack_surely(&id, "a", 4);
        drop(ada);
        let mut ada = site.durable("demo");
        let answer = ada.open(&id, "a", r#","from_seq":1"#);
        assert_eq!((&answer["cursor"], &answer["next_seq"], &answer["resumed"]), (&json!(4), &json!(5), &json!(true)));
        ada.expect_message(&id, 5, "5");
        let answer = ada.open(&id, "a", r#","from_seq":3,"seek":true"#);
        assert_eq!(answer["next_seq"], 3);
        for seq in 3..=5 {
            ada.expect_message(&id, seq, &seq.to_string());
        }
        let beyond = format!(r#"{{"type":"subscribe","topic":"{id}","sub_name":"z","from_seq":7}}"#);
        assert_eq!(ada.refused(&beyond), "seq_out_of_range");
    }

    /// D-31: what retention took is told by a gap, and the cursor is behind it
    fn retention_is_told_by_a_gap(shards) {
        let (_data, site) = serve(shards);
        let made = site.rest_json("demo", "POST", "/v1/topics", r#"{"name":"t","retention":{"max_messages":3}}"#);
        let id = made["id"].as_str().unwrap();
        assert_eq!(made["retention"], json!({"max_messages": 3}));
        let mut ada = site.durable("demo");
        ada.open(id, "A", r#","from_seq":0"#);
        ada.ask(
            &format!(r#"{{"type":"unsubscribe","topic":"{id}","sub_name":"A"}}"#),
            &format!(r#"{{"type":"unsubscribed","topic":"{id}","sub_name":"A"}}"#),
        );
        fill(&mut ada, id, 10);
        eventually("the oldest are gone", || {
            site.rest_json("demo", "GET", &format!("/v1/topics/{id}"), "")["first_seq"] == 8
        });
        ada.open(id, "A", "");
        ada.expect(&format!(r#"{{"type":"gap","topic":"{id}","sub_name":"A","from":1,"to":7,"reason":"retention"}}"#));
        for seq in 8..=10 {
            ada.expect_message(id, seq, &seq.to_string());
        }
    }

    /// D-32: a client that remembers another life of the log starts over and is told
    fn another_epoch_starts_over(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        fill(&mut ada, &id, 3);
        let epoch = ada.open(&id, "A", r#","from_seq":0"#)["epoch"].as_u64().unwrap();
        for seq in 1..=3 {
            ada.expect_message(&id, seq, &seq.to_string());
        }
        ada.ack_surely(&id, "A", 3);
        let mut bob = site.durable("demo");
        assert_eq!(bob.open(&id, "A", &format!(r#","epoch":{epoch}"#))["next_seq"], 4);
        let mut bob = site.durable("demo");
        bob.open(&id, "A", &format!(r#","epoch":{}"#, epoch + 1));
        let gap = bob.frame();
        assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("epoch")));
        bob.expect_message(&id, 1, "1");
    }

    /// B-12, D-33: acks are cumulative; late ones do nothing, early ones are refused
    fn acks_are_cumulative(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        fill(&mut ada, &id, 5);
        let ack = |seq: &str| format!(r#"{{"type":"ack","topic":"{id}","sub_name":"A","seq":{seq}}}"#);
        assert_eq!(ada.refused(&ack("1")), "not_subscribed");
        ada.open(&id, "A", r#","from_seq":0"#);
        for seq in 1..=5 {
            ada.expect_message(&id, seq, &seq.to_string());
        }
        ada.ack(&id, "A", 4);
        ada.ack(&id, "A", 2);
        assert_eq!(ada.refused(&ack("6")), "ack_ahead");
        assert_eq!(ada.refused(&ack("-1")), "invalid_message");
        assert_eq!(ada.refused(&ack(r#""5""#)), "invalid_message");
        assert_eq!(ada.refused(&ack("1.5")), "invalid_message");
        ada.send(&format!(r#"{{"type":"ack","topic":"{id}","sub_name":"A","seq":1,"ref":1}}"#));
        assert_eq!(ada.frame()["type"], "acked", "an old one changes nothing");
        ada.vanish();
        let mut ada = site.durable("demo");
        eventually("the cursor is where the highest ack was", || {
            site.rest_json("demo", "GET", "/v1/subscriptions", "")["subscriptions"][0]["cursor"] == 4
        });
        assert_eq!(ada.open(&id, "A", "")["cursor"], 4);
        ada.expect_message(&id, 5, "5");
    }

    /// B-18, D-34: a full window waits for an ack; a client may ask for another
    fn a_window_is_bounded(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        fill(&mut ada, &id, 300);
        for (name, more, window) in [("a", "", 256), ("b", r#","max_in_flight":2"#, 2)] {
            ada.open(&id, name, &format!(r#","from_seq":0{more}"#));
            for seq in 1..=window {
                ada.expect_message(&id, seq, &seq.to_string());
            }
            ada.ask(r#"{"type":"ping"}"#, r#"{"type":"pong"}"#);
            ada.ack(&id, name, 1);
            ada.expect_message(&id, window + 1, &(window + 1).to_string());
            ada.ask(r#"{"type":"ping"}"#, r#"{"type":"pong"}"#);
        }
    }

    /// D-38: messages published while a long backlog is replayed come once each and in order
    fn replay_goes_live_without_a_seam(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut publisher = site.durable("demo");
        fill(&mut publisher, &id, 500);
        let mut reader = site.durable("demo");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for seq in 501..=1_000 {
                    publisher.publish(&id, &seq.to_string(), seq);
                }
            });
            reader.open(&id, "A", r#","from_seq":0"#);
            for seq in 1..=1_000 {
                reader.expect_message(&id, seq, &seq.to_string());
                if seq % 20 == 0 {
                    reader.ack(&id, "A", seq);
                }
            }
        });
    }

    /// D-37: a disconnect and an unsubscribe keep the cursor, a second subscribe changes nothing
    fn only_a_delete_removes(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        let first = ada.open(&id, "A", "");
        let again = ada.open(&id, "A", "");
        assert_eq!(first["subscription_id"], again["subscription_id"]);
        ada.vanish();
        let target = format!("/v1/subscriptions/{}", first["subscription_id"].as_str().unwrap());
        eventually("the server sees that it is gone", || {
            site.rest_json("demo", "GET", &target, "")["attached"] == false
        });
        let mut ada = site.durable("demo");
        ada.publish(&id, "1", 1);
        let resumed = ada.open(&id, "A", "");
        assert_eq!(resumed["subscription_id"], first["subscription_id"]);
        ada.expect_message(&id, 1, "1");
        assert_eq!(site.rest("other", "DELETE", &target, "").status, 404);
        assert_eq!(site.rest("demo", "DELETE", &target, "").status, 204);
        ada.receive();
        assert_ne!(ada.open(&id, "A", "")["subscription_id"], first["subscription_id"]);
    }

    /// D-40: a deleted topic says goodbye, and its name begins again
    fn a_deleted_topic_says_goodbye(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        fill(&mut ada, &id, 2);
        ada.open(&id, "A", "");
        assert_eq!(site.rest("demo", "DELETE", &format!("/v1/topics/{id}"), "").status, 204);
        ada.expect(&format!(r#"{{"type":"unsubscribed","topic":"{id}","sub_name":"A","reason":"topic_deleted"}}"#));
        let publish = format!(r#"{{"type":"publish","topic":"{id}","payload":1}}"#);
        assert_eq!(ada.refused(&publish), "unknown_topic");
        let new = site.topic("demo", "t");
        assert_ne!(new, id);
        ada.publish(&new, "1", 1);
    }

    /// D-41: bytes come back as they went in, over the socket, a restart and REST
    fn payloads_come_back_byte_for_byte(shards) {
        let (data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let payloads = ["42.50", "123456789012345678901234567890", "1E40", r#"{"b" : 1,"a":[ ]}"#, r#""é\u00e9\/""#, "null", "-0.0"];
        let mut ada = site.durable("demo");
        for (payload, seq) in payloads.iter().zip(1..) {
            ada.publish(&id, payload, seq);
        }
        site.stop();
        let site = plan(shards, data.path()).start();
        let mut ada = site.durable("demo");
        ada.open(&id, "A", r#","from_seq":0"#);
        for (payload, seq) in payloads.iter().zip(1..) {
            ada.expect_message(&id, seq, payload);
        }
        let read = site.rest("demo", "GET", &format!("/v1/topics/{id}/messages"), "").body;
        for payload in payloads {
            assert!(read.contains(&format!(r#""payload":{payload},"ts""#)), "{payload} in {read}");
        }
    }

    /// D-07, D-08: bad frames are answered, and the connection stays
    fn bad_frames_are_answered(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        for bad in [
            "{".to_owned(),
            "[]".to_owned(),
            r#"{"type":"nonsense"}"#.to_owned(),
            r#"{"type":"publish","payload":1}"#.to_owned(),
            format!(r#"{{"type":"subscribe","topic":"{id}"}}"#),
            format!(r#"{{"type":"ack","topic":"{id}","sub_name":"A"}}"#),
            format!(r#"{{"type":"subscribe","topic":"{id}","sub_name":7}}"#),
        ] {
            assert_eq!(ada.refused(&bad), "invalid_message", "{bad}");
        }
        let long = "s".repeat(129);
        let subscribe = format!(r#"{{"type":"subscribe","topic":"{id}","sub_name":"{long}"}}"#);
        assert_eq!(ada.refused(&subscribe), "invalid_message");
        ada.publish(&id, "1", 1);
    }

    /// RFC 9457: what REST refuses says so in a document with a stable code
    fn rest_refuses_with_problem_documents(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let messages = format!("/v1/topics/{id}/messages");
        let unknown = "/v1/topics/018bcfe5-6800-7000-a442-8b7b22409730";
        let conflict = r#"{"payload":2,"idempotency_key":"k"}"#;
        site.rest_json("demo", "POST", &messages, r#"{"payload":1,"idempotency_key":"k"}"#);
        for (method, target, body, status, code) in [
            ("GET", unknown, "", 404, json!("unknown_topic")),
            ("GET", "/v1/subscriptions/nonsense", "", 404, json!("unknown_subscription")),
            ("POST", "/v1/topics", "{", 400, Value::Null),
            ("POST", "/v1/topics", r#"{"nam":"x"}"#, 422, Value::Null),
            ("POST", &messages, conflict, 409, json!("idempotency_conflict")),
            ("GET", &format!("{messages}?from_seq=x"), "", 422, Value::Null),
        ] {
            let answer = site.rest("demo", method, target, body);
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{target}");
            let document: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!((answer.status, &document["status"], &document["code"]), (status, &json!(status), &code), "{target} {document}");
            assert!(document["title"].is_string() && document["detail"].is_string(), "{document}");
        }
        for (method, target) in [("POST", "/v1/topics"), ("GET", "/v1/topics"), ("GET", "/v1/subscriptions")] {
            assert_eq!(ask(site.address, &request(method, target, None, "{}")).status, 401, "{target}");
        }
    }
}

/// D-29: with `bind_sub_names = "sub"` two users of one name have two cursors
#[test]
fn sub_names_may_belong_to_their_users() {
    let data = tempfile::tempdir().unwrap();
    let bound = plan(2, data.path());
    let site = bound
        .config(|config| config.durable.bind_sub_names = BindSubNames::Sub)
        .start();
    let id = site.topic("demo", "t");
    let mut clients =
        ["ada", "bob"].map(|sub| Client::connect(site.address, "/v1/ws", &token("demo", sub)));
    let ids = clients
        .each_mut()
        .map(|client| client.open(&id, "A", "")["subscription_id"].clone());
    assert_ne!(ids[0], ids[1]);
    // L15: a slash in a user's name is part of that name.
    let pairs = [("a", "b/c"), ("a/b", "c"), ("a%2Fb", "c")];
    let mut slashed = pairs.map(|(sub, name)| {
        let mut client = Client::connect(site.address, "/v1/ws", &token("demo", sub));
        let opened = client.open(&id, name, "");
        assert_eq!(
            (opened["sub_name"].as_str(), opened["resumed"].as_bool()),
            (Some(name), Some(false))
        );
        client
    });
    for client in clients.iter_mut().chain(&mut slashed) {
        client.ask(r#"{"type":"ping"}"#, r#"{"type":"pong"}"#);
    }
}

/// D-36: with `on_duplicate = "reject"` the first one stays
#[test]
fn a_second_connection_may_be_refused() {
    let data = tempfile::tempdir().unwrap();
    let strict = plan(2, data.path());
    let site = strict
        .config(|config| config.durable.on_duplicate = OnDuplicate::Reject)
        .start();
    let id = site.topic("demo", "t");
    let (mut first, mut second) = (site.durable("demo"), site.durable("demo"));
    first.open(&id, "A", "");
    let subscribe = format!(r#"{{"type":"subscribe","topic":"{id}","sub_name":"A"}}"#);
    assert_eq!(second.refused(&subscribe), "fenced");
    second.publish(&id, "1", 1);
    first.expect_message(&id, 1, "1");
}

/// L12: a tenant's limits hold over all its partitions, also for requests that come at once
#[test]
fn limits_of_a_tenant_hold_over_all_partitions() {
    for shards in 1..=3 {
        let data = tempfile::tempdir().unwrap();
        let site = plan(shards, data.path())
            .limits(|limits| {
                limits.topics_per_tenant_max = 10;
                limits.subscriptions_per_tenant_max = 10;
                limits.bytes_per_tenant_max = 200_000;
            })
            .start();
        let make = |ns: &str, name: usize| {
            let body = format!(r#"{{"name":"t{name}"}}"#);
            site.rest(ns, "POST", "/v1/topics", &body).status
        };
        let made: usize = std::thread::scope(|scope| {
            let part = |part: usize| {
                (part * 10..part * 10 + 10)
                    .filter(|name| make("demo", *name) == 201)
                    .count()
            };
            let threads: Vec<_> = (0..4)
                .map(|number| scope.spawn(move || part(number)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(made, 10, "{shards} shards");
        assert_eq!(make("other", 1), 201, "another tenant has its own");
        let listed = site.rest_json("demo", "GET", "/v1/topics", "");
        let ids: Vec<String> = listed["topics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|topic| topic["id"].as_str().unwrap().to_owned())
            .collect();
        let mut ada = site.durable("demo");
        let mut bound = 0;
        for id in &ids {
            for name in ["A", "B"] {
                ada.send(&format!(
                    r#"{{"type":"subscribe","topic":"{id}","sub_name":"{name}"}}"#
                ));
                bound += usize::from(ada.receive().contains("subscribed\""));
            }
        }
        assert_eq!(bound, 10);
        let mut bob = site.durable("demo");
        let pad = "x".repeat(9_000);
        let mut stored = 0;
        for id in ids.iter().cycle().take(40) {
            bob.send(&format!(
                r#"{{"type":"publish","topic":"{id}","payload":"{pad}"}}"#
            ));
            stored += usize::from(bob.receive().contains("pub_ack"));
        }
        assert_eq!(stored, 22, "{shards} shards: each takes 9,072 bytes");
        // What is given back can be taken again, wherever it was.
        for id in &ids {
            let gone = site.rest("demo", "DELETE", &format!("/v1/topics/{id}"), "");
            assert_eq!(gone.status, 204);
        }
        let made_again = (100..140).filter(|name| make("demo", *name) == 201);
        assert_eq!(made_again.count(), 10);
    }
}
