//! How connections end when time or the server ends them: pings that nobody answers, tokens,
//! life times, writes that do not move, messages that do not become whole, drains. Knows clocks
//! and close codes; no dialect beyond what is needed to have a connection.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tidegate::auth::{Claims, Rules};
use tidegate::config::Limits;
use tidegate::gateway::socket::echo;
use tidegate::metrics::Counter;

use crate::harness::wire::{frame, upgrade_request};
use crate::harness::{
    Client, Opcode, PATIENCE, Plan, Site, Wire, both_shards, client, eventually, tenant, token,
    token_of, wait,
};

fn start(shards: u16, limits: impl Fn(&mut Limits)) -> Site {
    // Tokens end when they say so.
    let rules = Rules {
        leeway_s: 0,
        ..Rules::default()
    };
    let plan = Plan::new(shards).rules(rules);
    plan.limits(limits).raw("/raw", echo).start()
}

/// A request target with a token that is valid for `ttl_s` seconds.
fn target(ttl_s: u64) -> String {
    let claims = Claims::new(tenant("demo"), "ada");
    format!("/ws?token={}", token_of(&claims, ttl_s))
}

/// Sends the same again and again without reading, until the server has ended the connection.
fn flood_until_refused(wire: &Wire, bytes: &[u8]) -> bool {
    let patience = Some(Duration::from_millis(50));
    wire.stream().set_write_timeout(patience).unwrap();
    let flood = bytes.repeat(64 * 1024 / bytes.len());
    let (started, mut at) = (Instant::now(), 0);
    while started.elapsed() < 3 * PATIENCE {
        match wire.stream().write(&flood[at % flood.len()..]) {
            Ok(count) => at += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
    }
    false
}

/// Sends the same again and again without reading, until nothing has been taken for a while.
fn fill_up(wire: &Wire, bytes: &[u8]) {
    let patience = Some(Duration::from_millis(200));
    wire.stream().set_write_timeout(patience).unwrap();
    while wire
        .stream()
        .write(bytes)
        .is_ok_and(|count| count == bytes.len())
    {}
}

fn expect_expiry(mut client: Wire) {
    assert_eq!(client.expect_close(4401), "token expired");
}

both_shards! {
    /// D-21, P12: a quiet peer is pinged, one that answers stays, one that does not is gone
    fn a_peer_that_is_gone_is_noticed(shards) {
        let site = start(shards, |limits| {
            limits.ping_interval_ms = 100;
            limits.pong_timeout_ms = 200;
        });
        let mut dead = Wire::upgraded(site.address, "/raw");
        let mut alive = Wire::upgraded(site.address, "/raw");
        for _ in 0..8 {
            alive.expect_frame(Opcode::PING, "");
            alive.send(Opcode::PONG, "");
        }
        // Anything that comes counts, not only a pong.
        for _ in 0..4 {
            alive.expect_frame(Opcode::PING, "");
            alive.send(Opcode::TEXT, "still here");
            alive.expect_text("still here");
        }
        dead.expect_frame(Opcode::PING, "");
        dead.expect_end();
    }

    /// D-09: at `exp` the connection is closed with 4401, on relay and raw mounts
    fn an_expired_token_ends_its_connection(shards) {
        let site = start(shards, |_| {});
        let mut relay = Wire::upgraded(site.address, &target(1));
        relay.send(Opcode::TEXT, r#"{"type":"subscribe","topic":"t"}"#);
        relay.expect_text(r#"{"type":"subscribed","topic":"t"}"#);
        let raw = Wire::upgraded(site.address, &target(1).replace("/ws", "/raw"));
        let started = Instant::now();
        expect_expiry(relay);
        expect_expiry(raw);
        assert!(started.elapsed() < Duration::from_secs(4));
        site.await_presence("demo", "t", 0);
    }

    /// D-09: `auth` moves the end, for the same tenant and subject only
    fn a_token_can_be_renewed(shards) {
        let site = start(shards, |_| {});
        let mut wire = Wire::upgraded(site.address, &target(2));
        for bad in [token("demo", "bob"), token("other", "ada"), "bad".to_owned(), String::new()] {
            wire.send(Opcode::TEXT, format!(r#"{{"type":"auth","token":"{bad}"}}"#));
            wire.expect_text(r#"{"type":"error","message":"the token is not valid for this connection"}"#);
        }
        let renewed = token_of(&Claims::new(tenant("demo"), "ada"), 60);
        wire.send(Opcode::TEXT, format!(r#"{{"type":"auth","token":"{renewed}"}}"#));
        let unrenewed = Wire::upgraded(site.address, &target(2));
        // Two of the same age: the one that did nothing has ended, the other has not.
        expect_expiry(unrenewed);
        wire.send(Opcode::TEXT, r#"{"type":"ping"}"#);
        wire.expect_text(r#"{"type":"pong"}"#);
        // It can also be cut short.
        let short = token_of(&Claims::new(tenant("demo"), "ada"), 1);
        wire.send(Opcode::TEXT, format!(r#"{{"type":"auth","token":"{short}"}}"#));
        expect_expiry(wire);
    }

    /// X-08, X-09: the life time of a connection
    fn a_life_time_ends(shards) {
        let site = start(shards, |limits| limits.lifetime_ms_max = 300);
        let ada = site.join("demo", "ada");
        let mut busy = Client::connect_public(site.address, "/raw");
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(150) {
            busy.ask("a", "a");
        }
        let reason = "connection lifetime reached, re-upgrade to continue";
        ada.expect_close(1001, reason);
        busy.expect_close(1001, reason);
        assert!(Duration::from_millis(250) < started.elapsed());
    }

    /// RELIABILITY section 7: a fragmented message must become whole in time
    fn a_message_must_become_whole(shards) {
        let site = start(shards, |limits| limits.message_complete_ms_max = 300);
        let mut wire = Wire::upgraded(site.address, "/raw");
        wire.write(frame(false, Opcode::TEXT, b"never "));
        let reason = wire.expect_close(1008);
        assert_eq!(reason, "a fragmented message was not complete in time");
        let mut wire = Wire::upgraded(site.address, "/raw");
        let whole = frame(true, Opcode::TEXT, b"part of a frame");
        wire.write(&whole[..9]);
        wire.expect_close(1008);
        // Whole in time, several in a row, is no reason.
        let mut client = Client::connect_public(site.address, "/raw");
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(600) {
            client.ask("whole", "whole");
        }
    }

    /// RELIABILITY section 7: no progress in writing
    fn a_write_that_stalls_ends(shards) {
        let site = start(shards, |limits| limits.write_stall_ms_max = 400);
        let mut stalled = Wire::over(client::connected_with_small_buffer(site.address));
        stalled.upgrade(&target(3_600));
        stalled.send(Opcode::TEXT, r#"{"type":"subscribe","topic":"t"}"#);
        stalled.expect_text(r#"{"type":"subscribed","topic":"t"}"#);
        let relay = site.relay("demo");
        let pad = "x".repeat(60_000);
        for _ in 0..400 {
            wait(relay.push("t", "e", &pad)).unwrap();
        }
        site.await_presence("demo", "t", 0);
    }

    /// X-10: answers to a peer that does not read are bounded, and it is told why it is closed
    fn a_peer_that_reads_nothing_is_bounded(shards) {
        let site = start(shards, |limits| {
            limits.outbox_bytes_max = 65_536;
            limits.write_stall_ms_max = 500;
        });
        let mut deaf = Wire::over(client::connected_with_small_buffer(site.address));
        deaf.upgrade(&target(3_600));
        let ask = format!(r#"{{"type":"unsubscribe","topic":"{}"}}"#, "t".repeat(200));
        // It is not read from while it does not read, until its write has stalled for too long.
        assert!(flood_until_refused(&deaf, &frame(true, Opcode::TEXT, ask.as_bytes())));
    }

    /// A peer that never stops sending is ended all the same
    fn a_peer_that_never_stops_is_ended(shards) {
        let site = start(shards, |_| {});
        for end in [frame(true, Opcode(3), b""), frame(true, Opcode::CLOSE, b"\x03\xe8")] {
            let mut wire = Wire::upgraded(site.address, "/raw");
            wire.write(end);
            assert!(flood_until_refused(&wire, &frame(true, Opcode::TEXT, &[b'x'; 1_000])));
        }
        // Also one that the server wants to close.
        let drained = Wire::upgraded(site.address, "/raw");
        site.server().drain();
        assert!(flood_until_refused(&drained, &frame(true, Opcode::BINARY, &[7; 1_000])));
    }

    /// A stream in which every read ends within a message is no message that never ends
    fn a_stream_of_messages_may_go_on(shards) {
        let site = start(shards, |limits| limits.message_complete_ms_max = 300);
        let mut wire = Wire::upgraded(site.address, "/raw");
        let text = frame(true, Opcode::TEXT, b"one of many");
        let (front, back) = text.split_at(text.len() / 2);
        wire.write(front);
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(1_000) {
            wire.write([back, front].concat());
            wire.expect_text("one of many");
        }
    }

    /// C-23, P13, T-O1: a drain closes everybody with 1012, answers what is on its way, and is quick
    fn a_drain_closes_everybody(shards) {
        let site = start(shards, |_| {});
        let (mut ada, bob) = site.join_two("demo");
        ada.subscribe("t");
        let raw = Client::connect_public(site.address, "/raw");
        let silent = Wire::connect(site.address);
        let mut mute = Wire::upgraded(site.address, "/raw");
        ada.say("t", "last", "1");
        ada.expect_push("t", "last", "1");
        site.server().drain();
        for client in [ada, bob, raw] {
            client.expect_close(1012, "the server restarts");
        }
        assert_eq!(mute.expect_close(1012), "the server restarts");
        // One that has said nothing and one that answers nothing do not hold it up for long.
        let took = site.stop();
        assert!(took < Duration::from_secs(5), "{took:?}");
        drop((silent, mute));
    }

    /// S5: while one that does not read holds up the drain, whoever comes is refused at once
    fn nobody_waits_for_a_server_that_drains(shards) {
        let site = start(shards, |limits| limits.drain_ms_max = 3_000);
        let slow = Wire::upgraded(site.address, "/raw");
        fill_up(&slow, &frame(true, Opcode::BINARY, &[7; 1_000]));
        site.server().drain();
        let started = Instant::now();
        let refused = std::iter::repeat_with(|| TcpStream::connect(site.address)).find_map(Result::err);
        // One that was on its way when the listener was closed is reset by the kernel.
        let refused = refused.unwrap().kind();
        assert!(matches!(refused, ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset));
        assert!(started.elapsed() < Duration::from_secs(1));
        drop(slow);
    }

    /// P13: sockets that are on their way between shards when the drain begins are not forgotten
    fn a_drain_among_connects_ends(shards) {
        for _ in 0..3 {
            let site = start(shards, |_| {});
            let address = site.address;
            let connecting = std::thread::spawn(move || {
                let mut sockets = Vec::new();
                while let Ok(socket) = TcpStream::connect(address) {
                    let mut wire = Wire::over(socket);
                    if wire.try_write(upgrade_request("/raw", &[]).as_bytes()).is_err() {
                        break;
                    }
                    sockets.push(wire);
                }
                sockets.len()
            });
            eventually("connections come", || {
                10 < site.count(Counter::ConnectionsUpgraded)
            });
            let took = site.stop();
            assert!(took < Duration::from_secs(5), "{took:?}");
            assert!(10 < connecting.join().unwrap());
        }
    }

    /// P13: under load a drain ends as well, and nobody is left without a close or an end
    fn a_drain_under_load_ends(shards) {
        let site = start(shards, |_| {});
        std::thread::scope(|scope| {
            let address = site.address;
            for _ in 0..4 {
                scope.spawn(move || {
                    let mut wire = Wire::upgraded(address, "/raw");
                    let text = frame(true, Opcode::TEXT, b"load");
                    loop {
                        if wire.try_write(&text).is_err() {
                            return;
                        }
                        match wire.read_frame() {
                            (Opcode::TEXT, _) => {}
                            (Opcode::CLOSE, payload) => {
                                assert_eq!(payload[..2], 1012u16.to_be_bytes());
                                return;
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                });
            }
            eventually("there is load", || {
                site.count(Counter::ConnectionsUpgraded) == 4
                    && 100 < site.count(Counter::MessagesReceived)
            });
            assert!(site.stop() < Duration::from_secs(5));
        });
    }
}
