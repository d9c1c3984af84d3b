//! The client in Rust where things go wrong: servers that answer oddly or not at all, connections
//! that are lost after many publishes by name, what is received in time or not; and the same client
//! on tokio. Knows the client's interface only.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::client::asynchronous;
use tidegate::client::{
    Client, ClientError, DurableFrame, EventFrame, Publish, Reconnect, RelayFrame, Subscribe,
};

use crate::durable::plan;
use crate::gateways::notify;
use crate::harness::{Plan, both_shards, token};

/// Runs it on a runtime with sockets and time, as a program has one.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

fn client(address: SocketAddr) -> Client {
    Client::new(&format!("http://{address}"), &token("demo", "ada")).unwrap()
}

/// A server that gives each connection the same bytes as soon as it has asked, and keeps it open.
fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut asked = [0; 4_096];
            let _ = stream.read(&mut asked);
            let _ = stream.write_all(answer.as_bytes());
            kept.push(stream);
        }
    });
    address
}

/// K4: whatever a server says of the length of its answer, the program goes on
#[test]
fn odd_answers_over_rest_are_errors_or_are_read() {
    let short = |answer| client(answering(answer)).time_max(Duration::from_millis(300));
    let chunked = short(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         9\r\n{\"id\":\"ab\r\n3\r\nc\"}\r\n0\r\n\r\n",
    );
    assert_eq!(chunked.topic("orders").unwrap(), "abc");
    let huge = short("HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\n{");
    huge.topic("orders").unwrap_err();
    let late = short("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{");
    let error = late.topic("orders").unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains("within 300 ms"), "{error}");
    let odd = short("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    assert!(matches!(odd.topic("a"), Err(ClientError::Strange(_))));
    short("what?\r\n\r\n").topic("orders").unwrap_err();
    let refused = short(
        "HTTP/1.1 507 Insufficient Storage\r\nTransfer-Encoding: chunked\r\n\r\n\
         11\r\n{\"detail\":\"full\"}\r\n0\r\n\r\n",
    );
    let error = refused.push("t", "e", &1).unwrap_err();
    assert!(
        matches!(&error, ClientError::Refused { status: 507, detail } if detail == "full"),
        "{error:?}"
    );
}

/// K4: nobody waits for ever, be it for a connection, an upgrade or an answer
#[test]
fn silence_ends_in_time() {
    let silent = client(answering("")).time_max(Duration::from_millis(200));
    let began = Instant::now();
    for error in [
        silent.relay().map(drop).unwrap_err(),
        silent.durable().map(drop).unwrap_err(),
        silent.events("/chat").map(drop).unwrap_err(),
        silent.push("t", "e", &1).unwrap_err(),
        wait(asynchronous::Relay::connect(&silent, "/ws"))
            .map(drop)
            .unwrap_err(),
    ] {
        assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

both_shards! {
    /// K4: publishes by the name of a topic are answered by its id, and are answered all the same
    fn publishes_by_name_are_counted_off(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = plan(shards, data.path()).start();
        let client = client(site.address).reconnecting(Reconnect::default());
        client.topic("orders").unwrap();
        let mut writer = client.durable().unwrap();
        for nth in 0..1_500_u64 {
            let how = Publish { reference: Some(nth % 3), idempotency_key: None };
            writer.publish("orders", &nth, how).unwrap();
            let frame = writer.receive().unwrap().frame;
            let DurableFrame::Published(published) = frame else {
                panic!("no answer to publish {nth} but {frame:?}");
            };
            assert_eq!((published.seq, published.reference), (nth + 1, how.reference));
        }
        writer.close();
    }

    /// K4: what is left delivers nothing more, and a time without messages is no error
    fn a_subscription_is_left(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = plan(shards, data.path()).start();
        let client = client(site.address);
        let topic = client.topic("orders").unwrap();
        let (mut reader, mut writer) = (client.durable().unwrap(), client.durable().unwrap());
        reader.subscribe(&Subscribe::new(&topic, "A").from_seq(0)).unwrap();
        assert!(matches!(reader.receive().unwrap().frame, DurableFrame::Subscribed(_)));
        let soon = Duration::from_millis(100);
        assert!(reader.receive_within(soon).unwrap().is_none());
        writer.publish(&topic, &1, Publish::default()).unwrap();
        writer.receive().unwrap();
        let received = reader.receive_within(Duration::from_secs(20)).unwrap().unwrap();
        assert!(matches!(received.frame, DurableFrame::Message(_)));
        reader.unsubscribe(&topic, "A").unwrap();
        assert!(matches!(reader.receive().unwrap().frame, DurableFrame::Unsubscribed(_)));
        writer.publish(&topic, &2, Publish::default()).unwrap();
        writer.receive().unwrap();
        assert!(reader.receive_within(soon).unwrap().is_none());
    }

    /// K4: gateways are asked, say things, and fail as errors
    fn gateways_are_spoken_to(shards) {
        let site = notify(shards);
        let client = client(site.address);
        let (mut ada, mut bob) = (client.events("/chat").unwrap(), client.events("/chat").unwrap());
        let within = Duration::from_secs(20);
        assert_eq!(ada.request("presence", &(), within).unwrap().get(), "2");
        ada.emit("say", &json!({ "text": "hello" })).unwrap();
        let said = loop {
            let EventFrame::Event(event) = bob.receive().unwrap().frame else {
                panic!("no event");
            };
            if event.event == "said" {
                break event.data;
            }
        };
        assert_eq!(said.get(), r#"{"text":"hello"}"#);
        let failed = ada.request("fail", &json!({ "how": "teapot" }), within).unwrap_err();
        assert!(
            matches!(&failed, ClientError::Event { error, .. } if error == "short and stout"),
            "{failed:?}"
        );
        bob.close();
        ada.close();
    }

    /// K4: the same on tokio
    fn all_dialects_on_tokio(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = plan(shards, data.path()).start();
        let client = client(site.address).reconnecting(Reconnect::default());
        wait(async {
            let topic = asynchronous::topic(&client, "orders").await.unwrap();
            let mut durable = asynchronous::Durable::connect(&client, "/v1/ws").await.unwrap();
            durable.subscribe(&Subscribe::new("orders", "A").from_seq(0)).await.unwrap();
            let frame = durable.receive().await.unwrap().frame;
            assert!(matches!(frame, DurableFrame::Subscribed(_)), "{frame:?}");
            let how = Publish { reference: Some(9), idempotency_key: None };
            durable.publish("orders", &json!({ "n": 1 }), how).await.unwrap();
            let (mut acked, mut read) = (false, false);
            while !(acked && read) {
                match durable.receive().await.unwrap().frame {
                    DurableFrame::Published(published) => {
                        assert_eq!(published.reference, Some(9));
                        acked = true;
                    }
                    DurableFrame::Message(message) => {
                        assert_eq!(message.topic, topic);
                        durable.ack(&topic, "A", message.seq).await.unwrap();
                        read = true;
                    }
                    other => panic!("{other:?}"),
                }
            }
            // What is given up half way loses nothing.
            let soon = Duration::from_millis(50);
            assert!(tokio::time::timeout(soon, durable.receive()).await.is_err());
            durable.unsubscribe(&topic, "A").await.unwrap();
            let frame = durable.receive().await.unwrap().frame;
            assert!(matches!(frame, DurableFrame::Unsubscribed(_)), "{frame:?}");
            durable.close().await;
        });
    }
}

/// K4: a relay and a gateway on tokio
#[test]
fn a_relay_and_a_gateway_on_tokio() {
    let site = Plan::new(1).start();
    let near = client(site.address);
    wait(async {
        let mut relay = asynchronous::Relay::connect(&near, "/ws").await.unwrap();
        relay.subscribe("room").await.unwrap();
        let frame = relay.receive().await.unwrap().frame;
        assert!(matches!(frame, RelayFrame::Subscribed(_)), "{frame:?}");
        asynchronous::push(&near, "room", "said", "hi")
            .await
            .unwrap();
        let frame = relay.receive().await.unwrap().frame;
        assert!(matches!(&frame, RelayFrame::Push(push) if push.payload.get() == "\"hi\""));
        assert_eq!(
            asynchronous::presence(&near, "room").await.unwrap().len(),
            1
        );
        relay.close().await;
    });
    let site = notify(1);
    let near = client(site.address);
    wait(async {
        let mut events = asynchronous::Events::connect(&near, "/chat").await.unwrap();
        let within = Duration::from_secs(20);
        let online = events.request("presence", &(), within).await.unwrap();
        assert_eq!(online.get(), "1");
        events.close().await;
    });
}

/// K5: a server that restarts says 1012 and 1013, and its client comes back
#[test]
fn closes_that_ask_to_come_back_are_no_errors_of_the_protocol() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        for code in [1012, 1013, 1014] {
            let (stream, _) = listener.accept().unwrap();
            let mut socket = tungstenite::accept(stream).unwrap();
            let close = tungstenite::protocol::CloseFrame {
                code: tungstenite::protocol::frame::coding::CloseCode::from(code),
                reason: "".into(),
            };
            socket.close(Some(close)).unwrap();
            let answered = socket.read();
            // The library of this server knows no 1014 either, so what comes back of it is its own.
            assert!(
                code == 1014
                    || matches!(&answered, Ok(tungstenite::Message::Close(Some(close))) if u16::from(close.code) == code),
                "{answered:?}"
            );
        }
    });
    let fast = Reconnect {
        wait_min: Duration::from_millis(1),
        wait_max: Duration::from_millis(5),
        ..Reconnect::default()
    };
    let client = client(address).plain().reconnecting(fast);
    let mut relay = client.relay().unwrap();
    for _ in 0..2 {
        assert!(matches!(
            relay.receive().unwrap().frame,
            RelayFrame::Lost(_)
        ));
        assert!(matches!(relay.receive().unwrap().frame, RelayFrame::Back));
    }
    assert!(matches!(
        relay.receive().unwrap().frame,
        RelayFrame::Lost(_)
    ));
    server.join().unwrap();
}
