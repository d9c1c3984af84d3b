//! Refusals name what they refuse, so that whoever waits for an answer finds it: rates and invalid
//! frames in every dialect. Knows frames; no limit but the rate of messages.

use serde_json::Value;
use tidegate::config::Limits;

use crate::harness::{Client, Opcode, Plan, Site, Wire, both_shards, token};
use crate::{durable, gateways};

#[path = "../../examples/socketio.rs"]
#[expect(dead_code, reason = "the example's `main` is not called here")]
pub(crate) mod socketio;

/// Five messages pass at once; then one each 200 ms.
fn slow(limits: &mut Limits) {
    limits.messages_per_s_max = 5;
    limits.messages_burst_max = 5;
}

fn negotiated(site: &Site, path: &str, protocol: &str) -> Client {
    let bearer = format!("Bearer {}", token("demo", "ada"));
    let headers = [
        ("authorization", &*bearer),
        ("sec-websocket-protocol", protocol),
    ];
    Client::connect_with(site.address, path, &headers)
}

/// Sends `count` messages at once and returns the answers of those that came too fast.
fn too_fast(client: &mut Client, count: usize, message: impl Fn(usize) -> String) -> Vec<Value> {
    (0..count).for_each(|number| client.send(&message(number)));
    let answers = (0..count).map(|_| serde_json::from_str(&client.receive()).unwrap());
    let refused = answers.filter(|answer: &Value| answer.to_string().contains("rate limited"));
    let refused: Vec<Value> = refused.collect();
    assert!(!refused.is_empty(), "nothing was refused");
    refused
}

both_shards! {
    /// S9: what the rates refuse is named by its topic, subscription and `ref`
    fn rates_name_what_they_refuse(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = durable::plan(shards, data.path()).limits(slow).start();
        let mut relay = negotiated(&site, "/ws", "tidegate.relay.v1");
        for refused in too_fast(&mut relay, 12, |n| format!(r#"{{"type":"subscribe","topic":"t{n}"}}"#)) {
            assert!(refused["topic"].as_str().unwrap().starts_with('t'), "{refused}");
            assert_eq!(refused["code"], "rate_limited");
        }
        let mut durable = negotiated(&site, "/v1/ws", "tidegate.durable.v1");
        let ack = |n| format!(r#"{{"type":"ack","topic":"none","sub_name":"A","seq":1,"ref":{n}}}"#);
        let refused = too_fast(&mut durable, 12, ack);
        for refused in &refused {
            assert_eq!((&refused["topic"], &refused["sub_name"]), (&"none".into(), &"A".into()));
        }
        let references = refused.iter().map(|refused| refused["ref"].as_u64().unwrap());
        let behind: Vec<u64> = (12 - refused.len() as u64..12).collect();
        assert_eq!(references.collect::<Vec<_>>(), behind);
    }

    /// S9: an event that came too fast is answered under its name and with its id
    fn rates_name_events(shards) {
        let site = gateways::notify_plan(shards).limits(slow).start();
        let mut client = Client::connect(site.address, "/chat", &token("demo", "ada"));
        client.receive();
        let refused = too_fast(&mut client, 12, |n| format!(r#"{{"event":"presence","id":{n}}}"#));
        for refused in refused {
            assert_eq!(refused["event"], "presence");
            assert!(refused["id"].is_u64() && refused["data"]["error"].is_string(), "{refused}");
        }
    }

    /// S9: with Socket.IO every ack comes, and the session outlives what was refused
    fn rates_answer_acks(shards) {
        let site = Plan::new(shards)
            .with(|server| server.module::<socketio::SocketIoModule>())
            .limits(slow)
            .start();
        let mut wire = Wire::upgraded(site.address, "/socket.io/?EIO=4&transport=websocket");
        assert_eq!(wire.read_frame().0, Opcode::TEXT, "the handshake");
        wire.send(Opcode::TEXT, format!(r#"40{{"token":"{}"}}"#, token("demo", "ada")));
        let joined = String::from_utf8(wire.read_frame().1).unwrap();
        assert!(joined.starts_with("40{"), "{joined}");
        for number in 0..12 {
            wire.send(Opcode::TEXT, format!(r#"42{number}["message-with-ack",{number}]"#));
        }
        let mut acks = Vec::new();
        while acks.len() < 12 {
            match wire.read_frame() {
                (Opcode::TEXT, payload) if payload.starts_with(b"43") => acks.push(String::from_utf8(payload).unwrap()),
                (Opcode::TEXT, _) => {}
                other => panic!("{other:?}"),
            }
        }
        let refused = acks.iter().filter(|ack| ack.contains("rate limited")).count();
        assert!(0 < refused && refused < 12, "{acks:?}");
    }

    /// S9: a frame that is no request is refused with as much of its names as can be read
    fn invalid_frames_are_named(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = durable::plan(shards, data.path()).start();
        let mut durable = negotiated(&site, "/v1/ws", "tidegate.durable.v1");
        for (frame, named) in [
            (r#"{"type":"ack","topic":"T","sub_name":"A","ref":"x"}"#, r#""topic":"T","sub_name":"A","ref":"x"}"#),
            (r#"{"type":"sing","topic":"T","ref":7}"#, r#""topic":"T","ref":7}"#),
            (r#"{"type":"publish","topic":5,"ref":8}"#, r#""code":"invalid_message","ref":8}"#),
            (r#"{"type":"publish","topic":"T","ref":[]}"#, r#""code":"invalid_message","topic":"T"}"#),
            (r#"{"type":"#, r#""code":"invalid_message"}"#),
        ] {
            durable.send(frame);
            let answer = durable.receive();
            assert!(answer.ends_with(named), "{frame}: {answer}");
        }
        let mut relay = negotiated(&site, "/ws", "tidegate.relay.v1");
        relay.send(r#"{"type":"message","topic":"T"}"#);
        assert!(relay.receive().ends_with(r#""code":"invalid_message","topic":"T"}"#));
        // Who negotiated nothing sees what it always saw (R-09).
        let mut plain = Client::connect(site.address, "/ws", &token("demo", "bob"));
        plain.ask(
            r#"{"type":"message","topic":"T"}"#,
            r#"{"type":"error","message":"invalid message: missing field `event`"}"#,
        );
    }
}
