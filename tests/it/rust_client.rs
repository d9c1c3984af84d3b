//! The client in Rust against a server: both dialects typed, verbatim payloads, refusals with their
//! codes, and what cannot be reached. Knows the client's interface only.

use serde_json::json;
use serde_json::value::RawValue;
use tidegate::client::{
    Client, ClientError, DurableFrame, Publish, Published, RelayFrame, Subscribe,
};

use crate::durable::plan;
use crate::harness::{Plan, Site, both_shards, token};

fn client(site: &Site, sub: &str) -> Client {
    Client::new(&format!("http://{}", site.address), &token("demo", sub)).unwrap()
}

both_shards! {
    /// C-24, B-05: what is published is stored as written, read in order, and gone on behind the ack
    fn durable_topics_are_published_and_read(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = plan(shards, data.path()).start();
        let client = client(&site, "ada");
        let topic = client.topic("orders").unwrap();
        assert_eq!(client.topic(&topic).unwrap(), topic, "an id is itself");
        let mut writer = client.durable().unwrap();
        let verbatim = RawValue::from_string(r#"{ "total":42.50}"#.into()).unwrap();
        let how = Publish { reference: Some(7), idempotency_key: Some("k") };
        for duplicate in [false, true] {
            writer.publish(&topic, &verbatim, how).unwrap();
            let DurableFrame::Published(published) = writer.receive().unwrap().frame else {
                panic!("no answer to a publish");
            };
            let expected = Published { topic: topic.clone(), seq: 1, duplicate, reference: Some(7) };
            assert_eq!(published, expected);
        }
        writer.publish(&topic, &json!([2]), Publish::default()).unwrap();
        assert!(matches!(writer.receive().unwrap().frame, DurableFrame::Published(_)));
        for (first, acked) in [(1, 1), (2, 2)] {
            let mut reader = client.durable().unwrap();
            reader.subscribe(&Subscribe::new(&topic, "A").from_seq(0)).unwrap();
            let DurableFrame::Subscribed(subscribed) = reader.receive().unwrap().frame else {
                panic!("no answer to a subscribe");
            };
            assert_eq!((subscribed.next_seq, subscribed.last_seq), (first, 2));
            let received = reader.receive().unwrap();
            let DurableFrame::Message(message) = received.frame else {
                panic!("no message but {}", received.text);
            };
            assert_eq!(message.seq, first);
            if first == 1 {
                assert_eq!(message.payload.get(), r#"{ "total":42.50}"#);
            }
            reader.ack_surely(&topic, "A", acked).unwrap();
            while !matches!(reader.receive().unwrap().frame, DurableFrame::Acked(_)) {}
            reader.close();
        }
    }

    /// R-05, C-06, C-07: heard, said, pushed over REST, present, left
    fn relay_topics_are_heard_and_pushed(shards) {
        let site = Plan::new(shards).start();
        let (ada, bob) = (client(&site, "ada"), client(&site, "bob"));
        let (mut one, mut two) = (ada.relay().unwrap(), bob.relay().unwrap());
        for relay in [&mut one, &mut two] {
            relay.subscribe("room 1").unwrap();
            let frame = relay.receive().unwrap().frame;
            assert!(matches!(frame, RelayFrame::Subscribed(topic) if topic == "room 1"));
        }
        one.send("room 1", "said", &json!({ "n": 1 })).unwrap();
        ada.push("room 1", "pushed", "hi").unwrap();
        for (event, payload) in [("said", r#"{"n":1}"#), ("pushed", r#""hi""#)] {
            let RelayFrame::Push(push) = two.receive().unwrap().frame else {
                panic!("no push");
            };
            assert_eq!((push.event.as_str(), push.payload.get()), (event, payload));
        }
        assert_eq!(ada.presence("room 1").unwrap().len(), 2);
        two.unsubscribe("room 1").unwrap();
        assert!(matches!(two.receive().unwrap().frame, RelayFrame::Unsubscribed(_)));
        two.ping().unwrap();
        assert!(matches!(two.receive().unwrap().frame, RelayFrame::Pong));
        two.send("room 1", "said", &1).unwrap();
        let RelayFrame::Refused(refusal) = two.receive().unwrap().frame else {
            panic!("no refusal");
        };
        assert_eq!(refusal.code.as_deref(), Some("not_subscribed"));
        assert_eq!(refusal.topic.as_deref(), Some("room 1"));
        one.close();
    }
}

/// Each mistake is an error of its own, which names what was wrong
#[test]
fn what_is_wrong_is_told_apart() {
    let site = Plan::new(1).start();
    let address = site.address;
    let with = |url: &str, token: &str| Client::new(url, token);
    for url in [
        "https://x/y",
        "http://x/y",
        "x:1",
        "ftp://nowhere",
        "http://a:b",
    ] {
        assert!(matches!(with(url, "t"), Err(ClientError::Url(_))), "{url}");
    }
    let url = format!("http://{address}");
    let bad = with(&url, "bad").unwrap();
    let refused = bad.push("t", "e", &1);
    assert!(
        matches!(refused, Err(ClientError::Refused { status: 401, .. })),
        "{refused:?}"
    );
    assert!(matches!(bad.relay(), Err(ClientError::Upgrade { .. })));
    let split = with(&url, "a\r\nx: y").unwrap();
    assert!(matches!(
        split.push("t", "e", &1),
        Err(ClientError::BadToken)
    ));
    assert!(matches!(split.relay(), Err(ClientError::BadToken)));
    let nobody = with("http://127.0.0.1:1", "t").unwrap();
    assert!(matches!(nobody.relay(), Err(ClientError::Connect(..))));
    let missing = client(&site, "ada").durable_at("/nowhere");
    assert!(matches!(missing, Err(ClientError::Upgrade { .. })));
}
