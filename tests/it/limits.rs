//! Each bound of the configuration at its edge: what still passes, what is refused with which
//! words, and that it passes again when there is room. Bounds of one dialect stand with its tests.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use tidegate::config::Limits;
use tidegate::gateway::socket::echo;
use tidegate::metrics::Counter;
use tidegate::prelude::*;

use crate::durable::{Durable as _, plan as durable_plan};
use crate::harness::client::connected_from;
use crate::harness::http::{Answer, ask, request};
use crate::harness::wire::{frame, upgrade_request};
use crate::harness::{Client, Opcode, Plan, Site, Wire, both_shards, eventually, token, wait};

pub(crate) fn start(shards: u16, limits: impl Fn(&mut Limits)) -> Site {
    Plan::new(shards).limits(limits).raw("/raw", echo).start()
}

/// What is answered to an upgrade on `/raw` by this connection.
fn upgrade(mut wire: Wire, lines: &[&str]) -> (Wire, u16) {
    // It may have been refused and closed before it has said anything.
    let _ = wire.try_write(upgrade_request("/raw", lines).as_bytes());
    let answer = wire.read_answer();
    (wire, answer.status)
}

fn status(site: &Site) -> u16 {
    upgrade(Wire::connect(site.address), &[]).1
}

/// From another address of this machine.
fn status_from(site: &Site, host: u8) -> u16 {
    upgrade(connect_from(site, host), &[]).1
}

fn connect_from(site: &Site, host: u8) -> Wire {
    Wire::over(connected_from(Ipv4Addr::new(127, 0, 0, host), site.address))
}

/// A connection that is refused before it says anything.
#[track_caller]
fn expect_turned_away(site: &Site, status: u16, key: &str) {
    let answer = Wire::connect(site.address).read_answer();
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(key), "{answer:?}");
}

pub(crate) fn with_token(site: &Site, token: &str) -> u16 {
    let bearer = format!("Authorization: Bearer {token}");
    upgrade(Wire::connect(site.address), &[&bearer]).1
}

pub(crate) fn rest(site: &Site, token: &str, target: &str, body: &str) -> Answer {
    let method = if body.is_empty() { "GET" } else { "POST" };
    ask(site.address, &request(method, target, Some(token), body))
}

both_shards! {
    /// connections_max, over all shards; connections that speak HTTP count as well
    fn all_connections_are_counted(shards) {
        let site = start(shards, |limits| limits.connections_max = 3);
        let first = Wire::upgraded(site.address, "/raw");
        let second = Wire::upgraded(site.address, "/raw");
        let mut kept_alive = Wire::connect(site.address);
        kept_alive.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(kept_alive.read_answer().status, 200);
        expect_turned_away(&site, 503, "limits.connections_max");
        drop(first);
        eventually("a place is free", || status(&site) == 101);
        let mut held = None;
        eventually("the place of who asked is free", || {
            let (wire, status) = upgrade(Wire::connect(site.address), &[]);
            held = Some(wire);
            status == 101
        });
        expect_turned_away(&site, 503, "limits.connections_max");
        drop(kept_alive);
        eventually("the place of a request is free", || status(&site) == 101);
        site.reload_limits(|limits| limits.connections_max = 4);
        eventually("there are more places", || {
            let (wire, status) = upgrade(Wire::connect(site.address), &[]);
            let (_other, other) = upgrade(Wire::connect(site.address), &[]);
            drop(wire);
            (status, other) == (101, 101)
        });
        drop((second, held));
    }

    /// C9, T-N1, half_open_max: silent sockets cost nobody a place, those silent for longest go
    fn silent_sockets_cost_nobody_a_place(shards) {
        let site = start(shards, |limits| limits.half_open_max = 4);
        let open = Wire::upgraded(site.address, "/raw");
        for round in 0..3 {
            let silent: Vec<Wire> = (0..20).map(|_| Wire::connect(site.address)).collect();
            eventually("who came last has a place", || status(&site) == 101);
            assert_eq!(status_from(&site, 2), 101, "round {round}");
            // Long before `handshake_ms_max`.
            for mut wire in silent.into_iter().take(10) {
                wire.read_to_end();
            }
        }
        drop(open);
    }

    /// C9, half_open_per_address_max: who shares no address with them keeps what it has begun
    fn an_address_pays_for_its_silent_sockets(shards) {
        let site = start(shards, |limits| {
            limits.half_open_max = 16;
            limits.half_open_per_address_max = 4;
        });
        let request = upgrade_request("/raw", &[]);
        let (begun, rest) = request.split_at(20);
        let mut slow: Vec<Wire> = (0..3).map(|_| connect_from(&site, 2)).collect();
        slow.iter_mut().for_each(|wire| wire.write(begun));
        let silent: Vec<Wire> = (0..60).map(|_| Wire::connect(site.address)).collect();
        eventually("who came last has a place", || status(&site) == 101);
        for wire in &mut slow {
            wire.write(rest);
            assert_eq!(wire.read_answer().status, 101);
        }
        drop(silent);
    }

    /// T-N1, handshake_ms_max
    fn a_silent_socket_has_its_time(shards) {
        let site = start(shards, |limits| limits.handshake_ms_max = 500);
        let mut silent = Wire::connect(site.address);
        let began = Instant::now();
        silent.expect_end();
        assert!(400 <= began.elapsed().as_millis());
    }

    /// connections_per_address_max: others are let in, and REST counts too
    fn connections_of_an_address_are_counted(shards) {
        let site = start(shards, |limits| limits.connections_per_address_max = 2);
        let first = Wire::upgraded(site.address, "/raw");
        let mut second = Wire::connect(site.address);
        second.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(second.read_answer().status, 200);
        expect_turned_away(&site, 503, "limits.connections_per_address_max");
        assert_eq!(status_from(&site, 2), 101);
        drop(second);
        eventually("a place is free", || status(&site) == 101);
        drop(first);
    }

    /// connects_per_address_per_s_max
    fn connects_of_an_address_are_metered(shards) {
        let site = start(shards, |limits| limits.connects_per_address_per_s_max = 2);
        assert_eq!([status(&site), status(&site)], [101, 101]);
        expect_turned_away(&site, 429, "limits.connects_per_address_per_s_max");
        assert_eq!(status_from(&site, 2), 101);
        eventually("time has passed", || status(&site) == 101);
    }

    /// connections_per_tenant_max, also for who upgrades behind a request
    fn connections_of_a_tenant_are_counted(shards) {
        let site = start(shards, |limits| limits.connections_per_tenant_max = 1);
        let ada = site.join("demo", "ada");
        assert_eq!(with_token(&site, &token("demo", "bob")), 503);
        let mut late = Wire::connect(site.address);
        late.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(late.read_answer().status, 200);
        let bearer = format!("Authorization: Bearer {}", token("demo", "bob"));
        let (late, refused) = upgrade(late, &[&bearer]);
        assert_eq!(refused, 503);
        assert_eq!(with_token(&site, &token("other", "eve")), 101);
        ada.close();
        drop(late);
        eventually("the place is free", || {
            with_token(&site, &token("demo", "bob")) == 101
        });
    }

    /// auth_failures_per_address_per_min_max, for upgrades and REST together; who is right passes
    fn wrong_tokens_are_metered(shards) {
        let site = start(shards, |limits| limits.auth_failures_per_address_per_min_max = 3);
        assert_eq!([with_token(&site, "bad"), with_token(&site, "worse")], [401, 401]);
        assert_eq!(rest(&site, "bad", "/v1/connections", "").status, 401);
        let answer = rest(&site, "bad", "/v1/connections", "");
        assert_eq!(answer.status, 429, "{answer:?}");
        assert!(answer.body.contains("limits.auth_failures_per_address_per_min_max"));
        assert_eq!(with_token(&site, "bad"), 429);
        assert_eq!(with_token(&site, &token("demo", "ada")), 101);
        assert_eq!(rest(&site, &token("demo", "ada"), "/v1/connections", "").status, 200);
        let stream = connected_from(Ipv4Addr::new(127, 0, 0, 2), site.address);
        assert_eq!(upgrade(Wire::over(stream), &["Authorization: Bearer bad"]).1, 401);
    }

    /// messages_per_s_max, messages_burst_max: an error frame for each, and after 5 s the end
    fn messages_are_metered(shards) {
        let site = start(shards, |limits| {
            limits.messages_per_s_max = 20;
            limits.messages_burst_max = 30;
        });
        let bearer = format!("Bearer {}", token("demo", "ada"));
        let headers = [("authorization", &*bearer), ("sec-websocket-protocol", "tidegate.relay.v1")];
        let mut fast = Client::connect_with(site.address, "/ws", &headers);
        let mut neighbour = site.join("demo", "bob");
        let mut answers = [0, 0];
        let started = Instant::now();
        for _ in 0..60 {
            fast.send(r#"{"type":"ping"}"#);
        }
        for _ in 0..60 {
            match fast.receive() {
                pong if pong.contains("pong") => answers[0] += 1,
                error => {
                    assert!(error.contains("rate limited: slow down") && error.contains(r#""code":"rate_limited""#), "{error}");
                    assert!(error.contains("limits.messages_per_s_max"), "{error}");
                    answers[1] += 1;
                }
            }
        }
        let flowed = started.elapsed().as_millis() / 50 + 1;
        assert!(30 <= answers[0] && answers[0] <= 30 + flowed, "{answers:?} in {flowed}");
        neighbour.expect_nothing();
        // A message that passes begins anew, so only one that never rests is let go.
        let mut flood = Wire::upgraded(site.address, "/raw");
        flood.write(frame(true, Opcode::TEXT, b"x").repeat(60));
        let reason = loop {
            match flood.read_frame() {
                (Opcode::TEXT, _) => {}
                (Opcode::CLOSE, payload) => break payload,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reason, b"\x03\xf0rate limited");
    }

    /// bytes_per_s_max, control_frames_per_s_max
    fn bytes_and_pings_are_metered(shards) {
        let site = start(shards, |limits| {
            limits.bytes_per_s_max = 10_000;
            limits.control_frames_per_s_max = 10;
        });
        let mut large = Wire::upgraded(site.address, "/raw");
        let half = "x".repeat(5_000);
        for _ in 0..2 {
            large.send(Opcode::TEXT, &half);
            large.expect_text(&half);
        }
        large.send(Opcode::TEXT, &half);
        large.expect_close(1008);
        let mut pings = Wire::upgraded(site.address, "/raw");
        for _ in 0..10 {
            pings.send(Opcode::PING, "p");
            pings.expect_frame(Opcode::PONG, "p");
        }
        pings.write(frame(true, Opcode::PING, b"p").repeat(10));
        while let (Opcode::PONG, _) = pings.read_frame() {}
        pings.expect_end();
        let mut quiet = Client::connect_public(site.address, "/raw");
        quiet.ask("still here", "still here");
    }

    /// idle_ms_max: who talks or is subscribed stays
    fn who_does_nothing_is_let_go(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = durable_plan(shards, data.path())
            .limits(|limits| limits.idle_ms_max = 1_000)
            .raw("/raw", echo)
            .start();
        let topic = site.topic("demo", "kept");
        let mut subscribed = site.join("demo", "ada");
        subscribed.subscribe("t");
        let mut durable = site.durable("demo");
        durable.open(&topic, "s", "");
        let idle = [
            Client::connect_public(site.address, "/raw"),
            site.join("demo", "bob"),
            site.durable("demo"),
        ];
        let mut talks = Client::connect_public(site.address, "/raw");
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(1_500) {
            talks.ask("hi", "hi");
        }
        for idle in idle {
            idle.expect_close(1000, "idle for too long");
        }
        subscribed.expect_nothing();
        durable.ask(r#"{"type":"ping"}"#, r#"{"type":"pong"}"#);
    }

    /// frame_bytes_max below message_bytes_max: a frame is refused, a message in pieces is not
    fn a_frame_has_a_size_of_its_own(shards) {
        let site = start(shards, |limits| limits.frame_bytes_max = 1_000);
        let mut wire = Wire::upgraded(site.address, "/raw");
        wire.write(frame(false, Opcode::TEXT, &[b'a'; 1_000]));
        wire.write(frame(true, Opcode::CONTINUE, &[b'b'; 1_000]));
        wire.expect_text(&("a".repeat(1_000) + &"b".repeat(1_000)));
        wire.send(Opcode::TEXT, [b'a'; 1_001]);
        let reason = wire.expect_close(1009);
        assert_eq!(reason, "frame of 1001 bytes exceeds frame_bytes_max = 1000");
    }

    /// invalid_frames_max, on the mount that sets it
    fn invalid_frames_are_counted_in_a_row(shards) {
        let site = start(shards, |limits| limits.invalid_frames_max = 2);
        let mut ada = site.join("demo", "ada");
        for _ in 0..2 {
            ada.send("no");
            ada.expect_error("invalid message: not valid json");
            ada.expect_nothing();
        }
        ada.send("no");
        ada.send("no");
        ada.expect_error("invalid message: not valid json");
        ada.expect_error("invalid message: not valid json");
        ada.expect_close(1008, "too many invalid frames in a row");
    }

    /// json_depth_max: as serde_json counts, the frame itself included
    fn nesting_ends_where_it_says(shards) {
        let site = start(shards, |_| {});
        let mut ada = site.join("demo", "ada");
        ada.subscribe("t");
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        ada.say("t", "e", &nested(126));
        ada.expect_push("t", "e", &nested(126));
        ada.say("t", "e", &nested(127));
        let refused = ada.receive();
        assert!(refused.contains("invalid message"), "{refused}");
        ada.expect_nothing();
    }

    /// drain_ms_max: what does not end by itself is ended
    fn a_stop_takes_no_longer_than_it_may(shards) {
        let router = Router::new().route("/never", get(std::future::pending::<String>));
        let site = Plan::new(shards)
            .limits(|limits| limits.drain_ms_max = 400)
            .with(|server| server.router(router))
            .start();
        let mut stuck = Wire::connect(site.address);
        stuck.write(request("GET", "/never", Some(&token("demo", "ada")), ""));
        eventually("the request is under way", || {
            site.count(Counter::RequestsHandedOver) == 1
        });
        let took = site.stop();
        assert!(Duration::from_millis(350) < took && took < Duration::from_secs(4), "{took:?}");
    }

    /// drain_spread_ms: connections are told one after the other, and work until they are
    fn a_stop_may_tell_one_after_the_other(shards) {
        let site = start(shards, |limits| limits.drain_spread_ms = 1_000);
        let wires = (0..20).map(|_| Wire::upgraded(site.address, "/raw"));
        let wires: Vec<_> = wires.collect();
        let began = Instant::now();
        site.server().drain();
        let ends: Vec<_> = std::thread::scope(|scope| {
            let end = |mut wire: Wire| {
                let _ = wire.try_write(&frame(true, Opcode::TEXT, b"still here"));
                let (opcode, payload) = wire.read_frame();
                let answered = opcode == Opcode::TEXT;
                match answered {
                    true => assert_eq!(wire.expect_close(1012), "the server restarts"),
                    false => assert_eq!(payload[..2], 1012_u16.to_be_bytes()),
                }
                (began.elapsed(), answered)
            };
            let ends: Vec<_> = wires.into_iter().map(|wire| scope.spawn(move || end(wire))).collect();
            ends.into_iter().map(|end| end.join().unwrap()).collect()
        });
        let early = ends.iter().filter(|(told, _)| *told < Duration::from_millis(400)).count();
        assert!(early <= 12, "{ends:?}");
        let last = ends.iter().max().unwrap();
        assert!(Duration::from_millis(850) < last.0 && last.1, "{ends:?}");
    }

    /// turn_completions_max, turn_us_max: the smallest turns do all there is to do
    fn small_turns_are_enough(shards) {
        let site = start(shards, |limits| {
            limits.turn_completions_max = 1;
            limits.turn_us_max = 10;
        });
        let mut clients: Vec<_> = (0..30)
            .map(|_| Client::connect_public(site.address, "/raw"))
            .collect();
        for round in 0..10 {
            for client in &mut clients {
                client.send(&round.to_string());
            }
            for client in &mut clients {
                client.expect(&round.to_string());
            }
        }
    }

    /// mailbox_descriptors_max, outside_queue_max: what was taken arrives in order or is told as
    /// missed, the rest is refused
    fn full_mailboxes_say_so(shards) {
        let site = start(shards, |limits| {
            limits.mailbox_descriptors_max = 2;
            limits.outside_queue_max = 2;
        });
        let mut clients: Vec<_> = (0..4).map(|n| site.join("demo", &n.to_string())).collect();
        for client in &mut clients {
            client.subscribe("t");
        }
        let relay = site.relay("demo");
        let mut taken = Vec::new();
        for number in 0..200 {
            let sends = [(); 4].map(|()| relay.push("t", "e", &number));
            for send in sends {
                match wait(send) {
                    Ok(()) => taken.push(number),
                    Err(error) => assert!(error.to_string().contains("limits.outside_queue_max"), "{error}"),
                }
            }
        }
        assert!(!taken.is_empty() && taken.len() < 800, "{}", taken.len());
        for client in &mut clients {
            let (mut seen, mut missed) = (Vec::new(), 0);
            while seen.len() + missed < taken.len() {
                let frame: serde_json::Value = serde_json::from_str(&client.receive()).unwrap();
                match frame["type"].as_str().unwrap() {
                    "push" => seen.push(frame["payload"].as_u64().unwrap()),
                    "lagged" => missed += usize::try_from(frame["missed"].as_u64().unwrap()).unwrap(),
                    other => panic!("{other}"),
                }
            }
            assert!(seen.is_sorted(), "{seen:?}");
            assert_eq!(seen.len() + missed, taken.len());
            client.expect_nothing();
        }
    }

    /// rooms_per_connection_max: the join is refused, and there is room again behind a leave
    fn rooms_are_counted(shards) {
        let site = Plan::new(shards)
            .limits(|limits| limits.rooms_per_connection_max = 2)
            .with(|server| server.module::<RoomModule>())
            .start();
        let mut ada = Client::connect(site.address, "/rooms", &token("demo", "ada"));
        for room in ["a", "b", "a"] {
            ada.ask(&format!(r#"{{"event":"join","data":"{room}"}}"#), r#"{"event":"join","data":"in"}"#);
        }
        ada.send(r#"{"event":"join","data":"c"}"#);
        let refused = ada.receive();
        assert!(refused.contains("limits.rooms_per_connection_max"), "{refused}");
        ada.ask(r#"{"event":"leave","data":"a"}"#, r#"{"event":"leave","data":"out"}"#);
        ada.ask(r#"{"event":"join","data":"c"}"#, r#"{"event":"join","data":"in"}"#);
        ada.send(&format!(r#"{{"event":"join","data":"{}"}}"#, "r".repeat(256)));
        let refused = ada.receive();
        assert!(refused.contains("256 bytes"), "{refused}");
    }

    /// Limits of durable topics: names, topics, subscriptions and bytes of a tenant
    fn durable_topics_have_limits(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = durable_plan(shards, data.path())
            .limits(|limits| {
                limits.topics_per_tenant_max = 2;
                limits.subscriptions_per_tenant_max = 2;
                limits.bytes_per_tenant_max = 1_048_576;
                limits.sub_name_bytes_max = 10;
                limits.name_bytes_max = 20;
            })
            .config(|config| config.durable.partitions = 1)
            .start();
        let make = |ns: &str, name: &str| {
            site.rest(ns, "POST", "/v1/topics", &format!(r#"{{"name":"{name}"}}"#))
        };
        let long = make("demo", &"t".repeat(21));
        assert!((400..500).contains(&long.status) && long.body.contains("21 bytes"), "{long:?}");
        let topic = site.topic("demo", &"t".repeat(20));
        site.topic("demo", "b");
        let third = make("demo", "c");
        assert!((400..500).contains(&third.status) && third.body.contains("topics_per_tenant_max = 2"), "{third:?}");
        assert_eq!(make("demo", "b").status, 200, "what is there is found");
        assert_eq!(make("other", "c").status, 201, "another tenant has its own");
        let mut ada = site.durable("demo");
        let subscribe = |name: &str| format!(r#"{{"type":"subscribe","topic":"{topic}","sub_name":"{name}"}}"#);
        ada.open(&topic, "one", "");
        ada.open(&topic, "two", "");
        for (name, words) in [("three", "subscriptions_per_tenant_max = 2"), ("a-long-name", "sub_name_bytes_max = 10")] {
            ada.send(&subscribe(name));
            let refused = ada.receive();
            assert!(refused.contains("error") && refused.contains(words), "{refused}");
        }
        let mut publisher = site.durable("demo");
        let mut last = String::new();
        for _ in 0..20 {
            let pad = "x".repeat(60_000);
            publisher.send(&format!(r#"{{"type":"publish","topic":"{topic}","payload":"{pad}"}}"#));
            last = publisher.receive();
        }
        assert!(last.contains("bytes_per_tenant_max = 1048576"), "{last}");
    }

    /// publishes_in_flight_max: the peer waits, nothing is lost
    fn publishes_in_flight_wait(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = durable_plan(shards, data.path())
            .limits(|limits| limits.publishes_in_flight_max = 2)
            .start();
        let topic = site.topic("demo", "t");
        let mut publisher = site.durable("demo");
        for number in 0..100 {
            publisher.send(&format!(r#"{{"type":"publish","topic":"{topic}","payload":{number}}}"#));
        }
        for seq in 1..=100 {
            publisher.expect(&format!(r#"{{"type":"pub_ack","topic":"{topic}","seq":{seq}}}"#));
        }
    }
}

#[gateway(path = "/rooms")]
struct RoomGateway;

#[messages]
impl RoomGateway {
    #[subscribe_message("join")]
    async fn join(&self, client: &WsClient, room: String) -> Result<&'static str, String> {
        client.join(&room).map_err(|error| error.to_string())?;
        Ok("in")
    }

    #[subscribe_message("leave")]
    async fn leave(&self, client: &WsClient, room: String) -> Result<&'static str, String> {
        client.leave(&room).map_err(|error| error.to_string())?;
        Ok("out")
    }
}

#[module(gateways = [RoomGateway])]
struct RoomModule;
