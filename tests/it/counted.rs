//! What is counted of ends and refusals, and what a reload changes for connections that are open.
//! Knows numbers of the metrics page; no dialect beyond what is needed to have a connection.

use std::sync::Arc;

use tidegate::auth::Claims;
use tidegate::gateway::socket::{SocketError, echo};
use tidegate::{CurrentUser, Message, Relay, RelayEvent, Result, State, WebSocket};
use tokio::sync::Semaphore;
use tungstenite::Message as Wired;

use crate::harness::http::{ask, request};
use crate::harness::wire::frame;
use crate::harness::{
    Client, Opcode, Plan, Site, Wire, both_shards, eventually, tenant, token, token_of, wait,
};

/// The number of this metric with this label, over all shards.
fn number(site: &Site, name: &str, label: &str) -> u64 {
    let admin = token_of(&Claims::new(tenant("demo"), "root").role("admin"), 60);
    let page = ask(site.address, &request("GET", "/metrics", Some(&admin), "")).body;
    let is_it = |line: &&str| line.starts_with(name) && line.contains(label);
    let value = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
    page.lines().filter(is_it).filter_map(value).sum()
}

#[track_caller]
fn expect_number(site: &Site, name: &str, label: &str, wanted: u64) {
    eventually(&format!("{name} {label} is {wanted}"), || {
        number(site, name, label) == wanted
    });
}

both_shards! {
    /// C11: an end without a close handshake is one of 1006, one with it of the peer's code
    fn ends_are_counted_by_their_code(shards) {
        let site = Plan::new(shards).raw("/raw", echo).start();
        let closed = "tidegate_connections_closed_total";
        let mut wires: Vec<Wire> = (0..4).map(|_| Wire::upgraded(site.address, "/raw")).collect();
        drop(wires.pop());
        expect_number(&site, closed, "code=\"1006\"", 1);
        let mut polite = wires.pop().unwrap();
        polite.write(frame(true, Opcode::CLOSE, &1001_u16.to_be_bytes()));
        expect_number(&site, closed, "code=\"1001\"", 1);
        let mut silent = wires.pop().unwrap();
        silent.write(frame(true, Opcode::CLOSE, b""));
        expect_number(&site, closed, "code=\"other\"", 1);
        // Half a frame is no close either.
        let mut torn = wires.pop().unwrap();
        torn.write(b"\x81");
        drop(torn);
        expect_number(&site, closed, "code=\"1006\"", 2);
        // Whoever answers our close is counted once, by what we said.
        let mut rude = Wire::upgraded(site.address, "/raw");
        rude.write(b"\xf0\x80");
        rude.read_to_end();
        expect_number(&site, closed, "code=\"1002\"", 1);
        drop((polite, silent));
        expect_number(&site, closed, "code=\"1006\"", 2);
    }

    /// C11: a head that does not come in time is a refusal
    fn late_heads_are_counted(shards) {
        let site = Plan::new(shards).limits(|limits| limits.handshake_ms_max = 300).raw("/raw", echo).start();
        let mut late = Wire::connect(site.address);
        late.write("GET /raw HTTP/1.1\r\n");
        late.read_to_end();
        expect_number(&site, "tidegate_connections_refused_total", "reason=\"timeout\"", 1);
    }

    /// C11: a ping of a handler has at most 125 bytes (RFC 6455 section 5.5)
    fn long_control_frames_are_refused(shards) {
        async fn pings(mut socket: WebSocket) {
            for make in [Message::Ping, Message::Pong] {
                let refused = socket.send(make(vec![7; 126])).await;
                assert_eq!(refused, Err(SocketError::ControlTooLong(126)));
                socket.send(make(vec![7; 125])).await.unwrap();
            }
            let _ = socket.send("still here".into()).await;
        }
        let site = Plan::new(shards).raw("/raw", pings).start();
        let mut client = Client::connect_public(site.address, "/raw");
        assert_eq!(client.receive_message(), Wired::Pong(vec![7; 125].into()));
        client.expect("still here");
        client.expect_close(1000, "");
    }

    /// C11: a reload reaches who is connected: rates, inboxes, life times
    fn a_reload_reaches_open_connections(shards) {
        let site = Plan::new(shards).start();
        let (mut ada, mut bob) = site.join_two("demo");
        let subscribe = r#"{"type":"subscribe","topic":"t"}"#;
        for client in [&mut ada, &mut bob] {
            client.ask(subscribe, r#"{"type":"subscribed","topic":"t"}"#);
        }
        site.reload_limits(|limits| limits.messages_per_s_max = 1);
        for client in [&mut ada, &mut bob] {
            eventually("it is too fast", || {
                client.send(r#"{"type":"unsubscribe","topic":"u"}"#);
                client.receive().contains("messages_per_s_max")
            });
        }
        site.reload_limits(|limits| limits.lifetime_ms_max = 200);
        for client in [ada, bob] {
            client.expect_close(1001, "connection lifetime reached, re-upgrade to continue");
        }
    }

    /// C11: what a join pushes is held only for the topic that is joined, also while others are
    fn a_join_that_pushes_elsewhere_is_not_held_there(shards) {
        async fn joins(event: RelayEvent, relay: Relay, user: CurrentUser, State(gates): State<Arc<[Semaphore; 2]>>) -> Result<()> {
            let RelayEvent::Join { topic, .. } = &event else {
                return Ok(());
            };
            if topic == "room:all" {
                gates[0].acquire().await?.forget();
                for number in 0..ROOMS {
                    relay.push(&format!("room:{number}"), "came", &1).await?;
                }
            }
            if user.id == "ada" {
                gates[1].acquire().await?.forget();
            }
            Ok(())
        }
        const ROOMS: usize = 8;
        let gates = Arc::new([0, 0].map(Semaphore::new));
        let site = Plan::new(shards).provide(Arc::clone(&gates)).relay("room:*", joins).start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.send(r#"{"type":"subscribe","topic":"room:all"}"#);
        for number in 0..ROOMS {
            let topic = format!("room:{number}");
            bob.subscribe(&topic);
            ada.send(&format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#));
        }
        ada.expect_nothing();
        gates[0].add_permits(1);
        for _ in 0..ROOMS {
            let push = bob.receive();
            assert!(push.contains(r#""event":"came""#), "{push}");
        }
        gates[1].add_permits(ROOMS + 1);
        let of_ada: Vec<String> = (0..2 * ROOMS + 1).map(|_| ada.receive()).collect();
        let joined = of_ada.iter().filter(|frame| frame.contains("subscribed")).count();
        assert_eq!(joined, ROOMS + 1, "{of_ada:?}");
    }

    /// C11: a mount that speaks relay has one, with the defaults of `[relay]`
    fn a_mount_that_speaks_relay_has_one(shards) {
        let site = Plan::new(shards)
            .config(|config| {
                config.relay = None;
                config.mounts[0].path = "/x".to_owned();
            })
            .start();
        let mut ada = Client::connect(site.address, "/x", &token("demo", "ada"));
        ada.subscribe("t");
        wait(site.relay("demo").push("t", "e", &1)).unwrap();
        ada.expect_push("t", "e", "1");
    }
}
