//! Durable topics over REST: what a topic keeps, how that is changed, when a request is told to come
//! again, and what of a list is still to be read. Knows JSON; no frames.

use serde_json::{Value, json};
use tidegate::metrics::Gauge;

use crate::durable::{Durable as _, plan, serve};
use crate::harness::http::{Answer, ask, request};
use crate::harness::{Site, Wire, both_shards, eventually, token};

fn call(site: &Site, ns: &str, (method, target): (&str, &str), body: &Value) -> Answer {
    let body = body.to_string();
    ask(
        site.address,
        &request(method, target, Some(&token(ns, "svc")), &body),
    )
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("no JSON: {answer:?}"))
}

both_shards! {
    /// H10: a topic that is there and keeps something else is a conflict, told by its code
    fn another_retention_is_a_conflict(shards) {
        let (_data, site) = serve(shards);
        for name in ["a", "b", "c", "d"] {
            let make = |retention: Value| {
                let mut body = json!({ "name": name });
                if !retention.is_null() {
                    body["retention"] = retention;
                }
                call(&site, "demo", ("POST", "/v1/topics"), &body)
            };
            let two = json!({ "max_messages": 2 });
            assert_eq!(make(two.clone()).status, 201);
            let same = make(two.clone());
            assert_eq!((same.status, &json_of(&same)["retention"]), (200, &two));
            assert_eq!(make(Value::Null).status, 200, "nothing is asked for");
            for other in [json!({"max_messages": 3}), json!({"max_messages": 2, "max_bytes": 9}), json!({})] {
                let refused = make(other);
                assert_eq!((refused.status, &json_of(&refused)["code"]), (409, &json!("retention_conflict")));
            }
            for wrong in [json!({"max_message": 2}), json!([]), json!({"max_messages": -1}), json!(7)] {
                let refused = make(wrong.clone());
                assert_eq!(refused.status, 422, "{wrong} {refused:?}");
            }
        }
    }

    /// H10: what a topic keeps can be changed, holds at once, and after a restart
    fn a_retention_can_be_changed(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = plan(shards, data.path()).start();
        let ids: Vec<String> = ["a", "b", "c"].map(|name| site.topic("demo", name)).into();
        for id in &ids {
            let target = format!("/v1/topics/{id}");
            let messages = format!("{target}/messages");
            for number in 0..5 {
                let body = json!({ "payload": number });
                assert_eq!(call(&site, "demo", ("POST", &messages), &body).status, 200);
            }
            let patch = |body: Value| call(&site, "demo", ("PATCH", &target), &body);
            let changed = json_of(&patch(json!({"retention": {"max_messages": 2}})));
            assert_eq!(changed["retention"], json!({"max_messages": 2}));
            let shown = || json_of(&call(&site, "demo", ("GET", &target), &Value::Null));
            eventually("three are gone", || shown()["first_seq"] == 4);
            for wrong in [json!({}), json!({"retention": null}), json!({"retantion": {}}), json!([{"retention": {}}])] {
                assert_eq!(patch(wrong.clone()).status, 422, "{wrong}");
            }
            assert_eq!(call(&site, "other", ("PATCH", &target), &json!({"retention": {}})).status, 404);
        }
        assert_eq!(call(&site, "demo", ("PATCH", "/v1/topics/none"), &json!({"retention": {}})).status, 404);
        drop(site);
        let site = plan(shards, data.path()).start();
        for id in &ids {
            let target = format!("/v1/topics/{id}");
            let shown = json_of(&call(&site, "demo", ("GET", &target), &Value::Null));
            assert_eq!((&shown["retention"], &shown["first_seq"]), (&json!({"max_messages": 2}), &json!(4)));
            let all = json_of(&call(&site, "demo", ("PATCH", &target), &json!({"retention": {}})));
            assert_eq!(all.get("retention"), None, "{all}");
        }
    }

    /// H10: who is refused for now is told when to come again
    fn refusals_for_now_say_when_to_come_again(shards) {
        let site = plan(shards, tempfile::tempdir().unwrap().path())
            .limits(|limits| limits.connects_per_address_per_s_max = 1)
            .start();
        let refused = (0..5).map(|_| {
            let mut wire = Wire::connect(site.address);
            let _ = wire.try_write(request("GET", "/healthz", None, "").as_bytes());
            wire.read_answer()
        });
        let refused: Vec<Answer> = refused.filter(|answer| answer.status != 200).collect();
        assert!(!refused.is_empty());
        for answer in refused {
            assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")), "{answer:?}");
        }
    }

    /// H10: a page that ends early says where the next one begins, also when its bytes ran out
    fn pages_say_where_the_next_begins(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let target = format!("/v1/topics/{id}/messages");
        let large = json!({ "payload": "x".repeat(60_000) });
        for _ in 0..150 {
            assert_eq!(call(&site, "demo", ("POST", &target), &large).status, 200);
        }
        let (mut from, mut seqs, mut pages) = (json!(1), Vec::new(), 0);
        while !from.is_null() {
            let page = json_of(&call(&site, "demo", ("GET", &format!("{target}?from_seq={from}&limit=1000")), &Value::Null));
            assert_eq!(page["last_seq"], 150);
            seqs.extend(page["messages"].as_array().unwrap().iter().map(|message| message["seq"].as_u64().unwrap()));
            from = page["next"].clone();
            pages += 1;
        }
        assert_eq!(seqs, Vec::from_iter(1..=150));
        assert!(1 < pages, "a page has an end in bytes");
    }

    /// N11: how far subscriptions are behind is counted, all together and the most
    fn lags_are_counted(shards) {
        let (_data, site) = serve(shards);
        let mut client = site.durable("demo");
        let mut seqs = 0;
        for name in ["a", "b", "c"] {
            let id = site.topic("demo", name);
            client.open(&id, "A", "");
            for _ in 0..5 {
                seqs += 1;
                let body = json!({ "payload": seqs });
                assert_eq!(call(&site, "demo", ("POST", &format!("/v1/topics/{id}/messages")), &body).status, 200);
                client.receive();
            }
            if name == "a" {
                client.ack_surely(&id, "A", 4);
            }
        }
        eventually("11 in all", || site.gauge(Gauge::SubscriptionLag) == 11);
        // Of each shard its own most.
        assert!((5..=10).contains(&site.gauge(Gauge::SubscriptionLagMax)));
    }
}
