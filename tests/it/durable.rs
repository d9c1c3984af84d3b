//! The durable dialect on the wire and over REST: every frame of the seed byte for byte, cursors,
//! windows, takeovers, restarts, slow readers, and what another tenant sees. Knows texts; what is
//! on disk is looked at only by starting again.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::broker::durable::Open;
use tidegate::gateway::topics::Delivery;

use crate::harness::http::{Answer, ask, request};
use crate::harness::process::Process;
use crate::harness::wire::frame;
use crate::harness::{
    Client, Opcode, Plan, Site, Wire, both_shards, client, eventually, tenant, token, wait,
};

/// A server with topics on disk.
pub(crate) fn plan(shards: u16, data: &Path) -> Plan {
    let data = data.to_owned();
    Plan::new(shards).config(move |config| {
        config.durable.enabled = true;
        config.server.data_dir = data;
    })
}

pub(crate) fn serve(shards: u16) -> (TempDir, Site) {
    let data = tempfile::tempdir().unwrap();
    let site = plan(shards, data.path()).start();
    (data, site)
}

/// A server with durable topics, here or in a process of its own.
pub(crate) trait Durable {
    /// Where it listens.
    fn address(&self) -> SocketAddr;

    fn durable(&self, ns: &str) -> Client {
        Client::connect(self.address(), "/v1/ws", &token(ns, "svc"))
    }

    /// A client that asked for all fields.
    fn durable_v1(&self, ns: &str) -> Client {
        let bearer = format!("Bearer {}", token(ns, "svc"));
        let headers = [
            ("authorization", bearer.as_str()),
            ("sec-websocket-protocol", "tidegate.durable.v1"),
        ];
        Client::connect_with(self.address(), "/v1/ws", &headers)
    }

    fn rest(&self, ns: &str, method: &str, target: &str, body: &str) -> Answer {
        let token = token(ns, "svc");
        ask(self.address(), &request(method, target, Some(&token), body))
    }

    fn rest_json(&self, ns: &str, method: &str, target: &str, body: &str) -> Value {
        let answer = self.rest(ns, method, target, body);
        assert!((200..300).contains(&answer.status), "{answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    fn topic(&self, ns: &str, name: &str) -> String {
        let made = self.rest_json(ns, "POST", "/v1/topics", &format!(r#"{{"name":"{name}"}}"#));
        made["id"].as_str().unwrap().to_owned()
    }
}

impl Durable for Site {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Durable for Process {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Client {
    /// Publishes and expects the ack of the seed.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, payload: &str, seq: u64) {
        self.ask(
            &format!(r#"{{"type":"publish","topic":"{topic}","payload":{payload}}}"#),
            &format!(r#"{{"type":"pub_ack","topic":"{topic}","seq":{seq}}}"#),
        );
    }

    /// Subscribes and returns the answer.
    #[track_caller]
    pub(crate) fn open(&mut self, topic: &str, sub_name: &str, more: &str) -> Value {
        self.send(&format!(
            r#"{{"type":"subscribe","topic":"{topic}","sub_name":"{sub_name}"{more}}}"#
        ));
        let answer: Value = serde_json::from_str(&self.receive()).unwrap();
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    #[track_caller]
    pub(crate) fn expect_message(&mut self, topic: &str, seq: u64, payload: &str) {
        self.expect(&format!(
            r#"{{"type":"message","topic":"{topic}","seq":{seq},"payload":{payload}}}"#
        ));
    }

    pub(crate) fn ack(&mut self, topic: &str, sub_name: &str, seq: u64) {
        self.send(&format!(
            r#"{{"type":"ack","topic":"{topic}","sub_name":"{sub_name}","seq":{seq}}}"#
        ));
    }

    /// Acks and waits until the cursor is on the disk.
    #[track_caller]
    pub(crate) fn ack_surely(&mut self, topic: &str, sub_name: &str, seq: u64) {
        self.ask(
            &format!(
                r#"{{"type":"ack","topic":"{topic}","sub_name":"{sub_name}","seq":{seq},"ref":1}}"#
            ),
            &format!(
                r#"{{"type":"acked","topic":"{topic}","sub_name":"{sub_name}","seq":{seq},"ref":1}}"#
            ),
        );
    }
}

both_shards! {
    /// B-01, B-06, B-07, B-09, B-10, B-11, B-12, D-25, D-29, D-41: the demo of the seed
    fn frames_are_those_of_the_seed(shards) {
        let (_data, site) = serve(shards);
        let made = site.rest("demo", "POST", "/v1/topics", r#"{"name":"topic-1"}"#);
        assert_eq!(made.status, 201);
        let topic: Value = serde_json::from_str(&made.body).unwrap();
        let id = topic["id"].as_str().unwrap();
        assert_eq!(
            (&topic["name"], &topic["ns"], &topic["first_seq"], &topic["last_seq"]),
            (&json!("topic-1"), &json!("demo"), &json!(1), &json!(0))
        );
        let again = site.rest("demo", "POST", "/v1/topics", r#"{"name":"topic-1"}"#);
        assert_eq!((again.status, again.body), (200, made.body));
        let mut ada = site.durable("demo");
        ada.publish(id, r#""hello""#, 1);
        ada.publish(id, "42.50", 2);
        ada.send(&format!(
            r#"{{"type":"subscribe","topic":"{id}","sub_name":"A","from_seq":0}}"#
        ));
        let subscribed = ada.receive();
        let answer: Value = serde_json::from_str(&subscribed).unwrap();
        let (subscription, epoch) = (&answer["subscription_id"], &answer["epoch"]);
        assert_eq!(
            subscribed,
            format!(
                r#"{{"type":"subscribed","topic":"{id}","sub_name":"A","subscription_id":{subscription},"cursor":0,"next_seq":1,"first_seq":1,"last_seq":2,"epoch":{epoch},"resumed":false}}"#
            )
        );
        ada.expect_message(id, 1, r#""hello""#);
        ada.expect_message(id, 2, "42.50");
        ada.ack(id, "A", 2);
        let mut bob = site.durable("demo");
        bob.send(r#"{"type":"publish","topic":"topic-1","payload":{"a":[1, 2]},"ref":"r-1"}"#);
        bob.expect(&format!(r#"{{"type":"pub_ack","topic":"{id}","seq":3,"ref":"r-1"}}"#));
        ada.expect_message(id, 3, r#"{"a":[1, 2]}"#);
        ada.ack_surely(id, "A", 3);
        ada.ask(r#"{"type":"ping"}"#, r#"{"type":"pong"}"#);
        ada.close();
    }

    /// B-02, B-16, B-17, D-35, D-42: what was acked stays acked, what was not comes again
    fn a_restart_keeps_messages_and_cursors(shards) {
        let (data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        for seq in 1..=5 {
            ada.publish(&id, &seq.to_string(), seq);
        }
        ada.open(&id, "A", r#","from_seq":0"#);
        for seq in 1..=5 {
            ada.expect_message(&id, seq, &seq.to_string());
        }
        ada.ack(&id, "A", 3);
        // The ack was read: what is asked behind it is answered.
        ada.ask(r#"{"type":"ping"}"#, r#"{"type":"pong"}"#);
        ada.vanish();
        site.stop();
        // As many shards as before, or another number: partitions do not mind.
        for shards in [shards, 3 - shards] {
            let site = plan(shards, data.path()).start();
            assert_eq!(site.topic("demo", "t"), id);
            let mut ada = site.durable_v1("demo");
            let answer = ada.open(&id, "A", r#","from_seq":0"#);
            assert_eq!((&answer["cursor"], &answer["resumed"]), (&json!(3), &json!(true)));
            for seq in [4, 5] {
                let message: Value = serde_json::from_str(&ada.receive()).unwrap();
                assert_eq!((&message["seq"], &message["redelivered"]), (&json!(seq), &json!(true)));
                assert!(message["ts"].is_u64());
            }
        }
    }

    /// B-04, B-05, B-19, D-25: over the socket and over REST
    fn another_tenant_sees_nothing(shards) {
        let (_data, site) = serve(shards);
        let foreign = site.topic("other", "secret");
        assert_ne!(site.topic("demo", "secret"), foreign);
        let mut owner = site.durable("other");
        owner.publish(&foreign, "1", 1);
        let subscription = owner.open(&foreign, "A", "")["subscription_id"].clone();
        let subscription = subscription.as_str().unwrap();
        let unknown = "018bcfe5-6800-7000-a442-8b7b22409730";
        let mut ada = site.durable("demo");
        for id in [foreign.as_str(), unknown, "no such name"] {
            let error = format!(
                r#"{{"type":"error","message":"unknown topic","code":"unknown_topic","topic":"{id}""#
            );
            ada.ask(
                &format!(r#"{{"type":"publish","topic":"{id}","payload":1,"ref":7}}"#),
                &format!(r#"{error},"ref":7}}"#),
            );
            for kind in ["subscribe", "unsubscribe", "ack"] {
                ada.ask(
                    &format!(r#"{{"type":"{kind}","topic":"{id}","sub_name":"A","seq":1}}"#),
                    &format!(r#"{error},"sub_name":"A"}}"#),
                );
            }
        }
        let mut bodies = Vec::new();
        for id in [foreign.as_str(), unknown] {
            for (method, target, body) in [
                ("GET", format!("/v1/topics/{id}"), ""),
                ("DELETE", format!("/v1/topics/{id}"), ""),
                ("POST", format!("/v1/topics/{id}/messages"), r#"{"payload":1}"#),
                ("GET", format!("/v1/topics/{id}/messages"), ""),
                ("GET", format!("/v1/subscriptions?topic={id}"), ""),
            ] {
                let answer = site.rest("demo", method, &target, body);
                assert_eq!(answer.status, 404, "{method} {target}");
                assert!(answer.body.contains(r#""code":"unknown_topic""#), "{}", answer.body);
                bodies.push(answer.body);
            }
        }
        assert_eq!(bodies[..5], bodies[5..]);
        for id in [subscription, unknown, "nonsense"] {
            for (method, body) in [("GET", ""), ("PATCH", r#"{"from_seq":0}"#), ("DELETE", "")] {
                let answer = site.rest("demo", method, &format!("/v1/subscriptions/{id}"), body);
                assert_eq!(answer.status, 404, "{method} {id}");
            }
        }
        let listed = site.rest_json("demo", "GET", "/v1/subscriptions", "");
        assert_eq!(listed, json!({"subscriptions": []}));
        assert_eq!(site.rest("other", "GET", &format!("/v1/topics/{foreign}"), "").status, 200);
    }

    /// B-13, B-14, D-37: clients drop out one by one
    fn clients_drop_out_one_by_one(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut clients: Vec<_> = (0..3)
            .map(|index| {
                let mut client = site.durable("demo");
                let name = format!("sub-{index}");
                let answer = client.open(&id, &name, r#","from_seq":0"#);
                let subscription = answer["subscription_id"].as_str().unwrap().to_owned();
                (client, name, subscription)
            })
            .collect();
        let mut publisher = site.durable("demo");
        let mut seq = 0;
        while !clients.is_empty() {
            seq += 1;
            publisher.publish(&id, "1", seq);
            for (client, name, _) in &mut clients {
                client.expect_message(&id, seq, "1");
                // Else its ack and the deletion could pass each other.
                client.ack_surely(&id, name, seq);
            }
            let (mut gone, name, subscription) = clients.remove(0);
            let target = format!("/v1/subscriptions/{subscription}");
            assert_eq!(site.rest("demo", "DELETE", &target, "").status, 204);
            assert_eq!(site.rest("demo", "DELETE", &target, "").status, 404);
            gone.expect(&format!(
                r#"{{"type":"unsubscribed","topic":"{id}","sub_name":"{name}","reason":"deleted"}}"#
            ));
            publisher.publish(&id, "2", seq + 1);
            seq += 1;
            for (client, name, _) in &mut clients {
                client.expect_message(&id, seq, "2");
                client.ack_surely(&id, name, seq);
            }
            gone.ask(r#"{"type":"ping"}"#, r#"{"type":"pong"}"#);
        }
    }

    /// D-36, D-33: one subscription, two connections
    fn the_newer_connection_takes_over(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let (mut old, mut new) = (site.durable("demo"), site.durable("demo"));
        old.open(&id, "A", "");
        new.publish(&id, "1", 1);
        old.expect_message(&id, 1, "1");
        new.open(&id, "A", "");
        new.expect_message(&id, 1, "1");
        old.expect(&format!(
            r#"{{"type":"unsubscribed","topic":"{id}","sub_name":"A","reason":"taken_over"}}"#
        ));
        old.ask(
            &format!(r#"{{"type":"ack","topic":"{id}","sub_name":"A","seq":1}}"#),
            &format!(
                r#"{{"type":"error","message":"the subscription was taken over by another connection","code":"fenced","topic":"{id}","sub_name":"A"}}"#
            ),
        );
        new.ack_surely(&id, "A", 1);
        new.ask(
            &format!(r#"{{"type":"ack","topic":"{id}","sub_name":"A","seq":2,"ref":1.5}}"#),
            &format!(
                r#"{{"type":"error","message":"ack of seq 2 is beyond the last delivered seq 1","code":"ack_ahead","topic":"{id}","sub_name":"A","ref":1.5}}"#
            ),
        );
        new.ask(
            &format!(r#"{{"type":"unsubscribe","topic":"{id}","sub_name":"A"}}"#),
            &format!(r#"{{"type":"unsubscribed","topic":"{id}","sub_name":"A"}}"#),
        );
        old.publish(&id, "2", 2);
        assert_eq!(new.open(&id, "A", "")["next_seq"], 2);
        new.expect_message(&id, 2, "2");
    }

    /// D-27, C-03: one, an array, lines; the same key again
    fn publishing_over_rest(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let target = format!("/v1/topics/{id}/messages");
        let publish = |body: &str| {
            let answer = site.rest("demo", "POST", &target, body);
            (answer.status, answer.body)
        };
        let one = |seq: u64, more: &str| (200, format!(r#"{{"topic":"{id}","seq":{seq}{more}}}"#));
        assert_eq!(publish(r#"{"payload":42.50}"#), one(1, ""));
        let many = |first, last| {
            (200, format!(r#"{{"topic":"{id}","first_seq":{first},"last_seq":{last}}}"#))
        };
        assert_eq!(publish(r#"[{"payload":1},{"payload":{"a" : 2}}]"#), many(2, 3));
        let lines = concat!(r#"{"payload":"x"}"#, "\n", r#"{"payload":null}"#, "\n");
        assert_eq!(publish(lines), many(4, 5));
        let keyed = r#"{"payload":"k","idempotency_key":"key-1"}"#;
        assert_eq!(publish(keyed), one(6, ""));
        assert_eq!(publish(keyed), one(6, r#","duplicate":true"#));
        let (status, body) = publish(r#"{"payload":"other","idempotency_key":"key-1"}"#);
        assert_eq!(status, 409);
        assert!(body.contains(r#""code":"idempotency_conflict""#), "{body}");
        for (bad, status) in [
            ("", 422),
            ("{", 400),
            ("[]", 422),
            ("1", 422),
            (r#"{"payload":1}x"#, 400),
            (r#"{"other":1}"#, 422),
            (r#"[{"payload":1},{"payload":}]"#, 400),
        ] {
            assert_eq!(publish(bad).0, status, "{bad}");
        }
        let large = format!(r#"{{"payload":"{}"}}"#, "x".repeat(65_536));
        assert_eq!(publish(&large).0, 413);
        let read = site.rest("demo", "GET", &format!("{target}?from_seq=1&limit=3"), "").body;
        let ts = |index: usize| {
            let body: Value = serde_json::from_str(&read).unwrap();
            body["messages"][index]["ts"].clone()
        };
        assert_eq!(
            read,
            format!(
                r#"{{"messages":[{{"seq":1,"payload":42.50,"ts":{}}},{{"seq":2,"payload":1,"ts":{}}},{{"seq":3,"payload":{{"a" : 2}},"ts":{}}}],"last_seq":6,"next":4}}"#,
                ts(0), ts(1), ts(2)
            )
        );
        let rest = site.rest_json("demo", "GET", &format!("{target}?from_seq=4"), "");
        assert_eq!(rest["messages"].as_array().unwrap().len(), 3);
        let listed = site.rest_json("demo", "GET", "/v1/topics", "");
        assert_eq!((&listed["topics"][0]["id"], &listed["topics"][0]["last_seq"]), (&json!(id), &json!(6)));
        assert_eq!(site.rest("demo", "DELETE", &format!("/v1/topics/{id}"), "").status, 204);
        assert_eq!(site.rest("demo", "GET", &format!("/v1/topics/{id}"), "").status, 404);
    }

    /// C-05, D-30: a cursor is looked at and moved
    fn subscriptions_over_rest(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        for seq in 1..=4 {
            ada.publish(&id, "1", seq);
        }
        let answer = ada.open(&id, "A", "");
        let subscription = answer["subscription_id"].as_str().unwrap();
        ada.open(&id, "B", "");
        let listed = site.rest_json("demo", "GET", &format!("/v1/subscriptions?topic={id}&sub_name=A"), "");
        let one = &listed["subscriptions"][0];
        assert_eq!(listed["subscriptions"].as_array().unwrap().len(), 1);
        assert_eq!((&one["id"], &one["cursor"], &one["lag"]), (&json!(subscription), &json!(4), &json!(0)));
        let target = format!("/v1/subscriptions/{subscription}");
        let moved = site.rest_json("demo", "PATCH", &target, r#"{"from_seq":3}"#);
        assert_eq!((&moved["cursor"], &moved["attached"]), (&json!(2), &json!(true)));
        ada.expect_message(&id, 3, "1");
        ada.expect_message(&id, 4, "1");
        assert_eq!(site.rest("demo", "PATCH", &target, r#"{"from_seq":9}"#).status, 422);
        assert_eq!(site.rest("demo", "PATCH", &target, "{}").status, 422);
        let all = site.rest_json("demo", "GET", "/v1/subscriptions", "");
        assert_eq!(all["subscriptions"].as_array().unwrap().len(), 2);
        ada.ask(
            &format!(r#"{{"type":"subscribe","topic":"{id}","sub_name":"C","from_seq":6}}"#),
            &format!(
                r#"{{"type":"error","message":"from_seq 6 is beyond the next seq 5","code":"seq_out_of_range","topic":"{id}","sub_name":"C"}}"#
            ),
        );
    }

    /// B-18, D-34, P9: a reader that does not read lags and loses nothing; the others do not wait
    fn a_slow_reader_pauses_its_own_delivery_only(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let bearer = format!("Bearer {}", token("demo", "slow"));
        let stream = client::connected_with_small_buffer(site.address);
        let mut slow = Client::over(stream, "/v1/ws", &[("authorization", &bearer)]);
        slow.open(&id, "slow", r#","from_seq":0,"max_in_flight":4096"#);
        let mut fast = site.durable("demo");
        fast.open(&id, "fast", r#","from_seq":0"#);
        let payload = format!(r#""{}""#, "x".repeat(8_000));
        let mut publisher = site.durable("demo");
        const COUNT: u64 = 300;
        for seq in 1..=COUNT {
            publisher.publish(&id, &payload, seq);
            fast.expect_message(&id, seq, &payload);
            fast.ack(&id, "fast", seq);
        }
        let listed = site.rest_json("demo", "GET", "/v1/subscriptions?sub_name=slow", "");
        let in_flight = listed["subscriptions"][0]["in_flight"].as_u64().unwrap();
        assert!(in_flight < 64, "{in_flight} messages of 8 kB are on their way to a stalled reader");
        for seq in 1..=COUNT {
            slow.expect_message(&id, seq, &payload);
            if seq % 10 == 0 {
                slow.ack(&id, "slow", seq);
            }
        }
    }

    /// Inward backpressure: many publishes at once are all acked, in order
    fn a_burst_of_publishes_is_acked_in_order(shards) {
        let (_data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        let mut reader = site.durable("demo");
        reader.open(&id, "A", "");
        const COUNT: u64 = 5_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for seq in 1..=COUNT {
                    reader.expect_message(&id, seq, &seq.to_string());
                    if seq % 50 == 0 {
                        reader.ack(&id, "A", seq);
                    }
                }
            });
            for block in 0..COUNT / 500 {
                for seq in block * 500 + 1..=(block + 1) * 500 {
                    ada.send(&format!(r#"{{"type":"publish","topic":"{id}","payload":{seq}}}"#));
                }
            }
            for seq in 1..=COUNT {
                ada.expect(&format!(r#"{{"type":"pub_ack","topic":"{id}","seq":{seq}}}"#));
            }
        });
    }

    /// P13, B-17: what was sent before the stop is answered, and is there afterwards
    fn a_stop_answers_what_was_published(shards) {
        let (data, site) = serve(shards);
        let id = site.topic("demo", "t");
        let mut ada = site.durable("demo");
        ada.publish(&id, "0", 1);
        for _ in 0..200 {
            ada.send(&format!(r#"{{"type":"publish","topic":"{id}","payload":1}}"#));
        }
        ada.expect(&format!(r#"{{"type":"pub_ack","topic":"{id}","seq":2}}"#));
        let stopping = std::thread::spawn(move || site.stop());
        let mut acked = 2;
        while let tungstenite::Message::Text(text) = ada.receive_message() {
            acked += 1;
            assert_eq!(text.as_str(), format!(r#"{{"type":"pub_ack","topic":"{id}","seq":{acked}}}"#));
        }
        ada.expect_end();
        assert!(stopping.join().unwrap() < std::time::Duration::from_secs(10));
        let site = plan(shards, data.path()).start();
        let last = site.rest_json("demo", "GET", &format!("/v1/topics/{id}"), "")["last_seq"].clone();
        assert_eq!(last, acked, "acked and kept are the same");
    }

    /// S4: what was published before a close, in one segment with it, is acknowledged before it
    fn a_close_behind_publishes_is_answered_last(shards) {
        let (_data, site) = serve(shards);
        for name in ["a", "b", "c"] {
            let topic = site.topic("demo", name);
            let target = format!("/v1/ws?token={}", token("demo", "svc"));
            let mut wire = Wire::upgraded(site.address, &target);
            let publish = |number: u32| {
                let text = format!(r#"{{"type":"publish","topic":"{topic}","payload":{number}}}"#);
                frame(true, Opcode::TEXT, text.as_bytes())
            };
            let close = frame(true, Opcode::CLOSE, &1000_u16.to_be_bytes());
            wire.write([(0..20).flat_map(publish).collect(), close].concat());
            for seq in 1..=20 {
                wire.expect_text(&format!(r#"{{"type":"pub_ack","topic":"{topic}","seq":{seq}}}"#));
            }
            assert_eq!(wire.expect_close(1000), "");
            wire.expect_end();
        }
    }

    /// The handle of user code: from a thread that is no shard
    fn topics_from_rust(shards) {
        let (_data, site) = serve(shards);
        let topics = site.server().topics().tenant(tenant("demo"));
        wait(async {
            let (topic, created) = topics.resolve("t").await.unwrap();
            assert!(created);
            let id = topic.id.to_string();
            for seq in 1..=300 {
                assert_eq!(topics.publish(&id, &seq).await.unwrap().first_seq, seq);
            }
            let open = Open { from_seq: Some(0), ..Open::default() };
            let mut subscription = topics.subscribe("t", "A", open.clone()).await.unwrap();
            for seq in 1..=300 {
                let delivery = subscription.next().await.unwrap();
                assert_eq!(delivery.json::<u64>().unwrap(), Some(seq));
                subscription.ack(seq).unwrap();
            }
            let mut second = topics.subscribe("t", "A", open).await.unwrap();
            let Some(Delivery::Ended(ended)) = subscription.next().await else { panic!() };
            assert_eq!(ended.as_str(), "taken_over");
            topics.publish_once("t", "k", "x").await.unwrap();
            assert!(topics.publish_once("t", "k", "x").await.unwrap().duplicate);
            let delivery = second.next().await.unwrap();
            assert_eq!(delivery.json::<String>().unwrap().as_deref(), Some("x"));
            drop(second);
            let history = topics.history("t", 299, 10).await.unwrap();
            assert_eq!(history.messages.len(), 3);
        });
        eventually("the dropped stream is detached", || {
            let listed = site.rest_json("demo", "GET", "/v1/subscriptions", "");
            listed["subscriptions"][0]["attached"] == false
        });
        let nobody = wait(site.server().topics().resolve("t")).unwrap_err();
        assert!(nobody.to_string().starts_with("no tenant"), "{nobody}");
    }
}

/// C-25, T-O1: a directory has one server
#[test]
fn a_data_directory_is_locked() {
    let (data, _site) = serve(1);
    let error = plan(1, data.path())
        .try_start()
        .expect_err("it is locked")
        .to_string();
    assert!(error.contains("is locked"), "{error}");
}

/// `durable.enabled = false`: no mount, no routes
#[test]
fn without_durable_topics_there_is_no_route() {
    let site = Plan::new(1).start();
    assert_eq!(site.rest("demo", "GET", "/v1/topics", "").status, 404);
    assert_eq!(site.rest("demo", "GET", "/v1/ws", "").status, 404);
}
