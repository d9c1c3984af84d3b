//! What Socket.IO keeps of peers that take and give nothing: it has a bound, ends in time, and nobody
//! else's answers are lost with it (S-11, S-31, S-35, S-42, S-60, S-83).

use std::time::{Duration, Instant};

use tidegate::metrics::{Counter, Gauge};

use crate::harness::http::{Answer, request};
use crate::harness::{Opcode, Plan, Site, Wire, both_shards, eventually, token};
use crate::refusals::socketio::SocketIoModule;

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

fn plan(shards: u16) -> Plan {
    Plan::new(shards)
        .with(|server| server.module::<SocketIoModule>())
        .config(|config| config.socketio.connect_ms_max = 60_000)
}

/// One request over a connection that is kept.
fn ask(wire: &mut Wire, method: &str, target: &str, body: &str) -> Answer {
    wire.write(request(method, target, None, body));
    wire.read_answer()
}

/// The target of a session by polling, or the status that refused it.
fn begin(wire: &mut Wire) -> Result<String, u16> {
    let answer = ask(wire, "GET", POLLING, "");
    let sid = answer.body.split('"').nth(3).map(str::to_owned);
    match (answer.status, sid) {
        (200, Some(sid)) => Ok(format!("{POLLING}&sid={sid}")),
        (status, _) => Err(status),
    }
}

fn connect_packet() -> String {
    format!(r#"40{{"token":"{}"}}"#, token("demo", "ada"))
}

/// A session by polling that has joined.
fn joined(wire: &mut Wire) -> Result<String, u16> {
    let target = begin(wire)?;
    assert_eq!(ask(wire, "POST", &target, &connect_packet()).body, "ok");
    let answer = ask(wire, "GET", &target, "");
    assert!(
        answer.body.starts_with("40{") && answer.body.contains(r#"42["auth""#),
        "{}",
        answer.body
    );
    Ok(target)
}

/// A session by WebSocket that has joined.
fn socket(site: &Site) -> Wire {
    let mut wire = Wire::upgraded(site.address, WEBSOCKET);
    assert!(text(&mut wire).starts_with("0{"));
    wire.send(Opcode::TEXT, connect_packet());
    assert!(text(&mut wire).starts_with("40{"));
    assert!(text(&mut wire).starts_with(r#"42["auth""#));
    wire
}

fn text(wire: &mut Wire) -> String {
    let (opcode, payload) = wire.read_frame();
    assert_eq!(opcode, Opcode::TEXT, "{payload:?}");
    String::from_utf8(payload).unwrap()
}

#[track_caller]
fn echoes(wire: &mut Wire) {
    wire.send(Opcode::TEXT, r#"427["message-with-ack","here"]"#);
    assert_eq!(text(wire), r#"437["here"]"#);
}

both_shards! {
    /// S-83: sessions that nobody polls, and polls that are given up, leave nothing behind
    fn what_is_given_up_leaves_nothing(shards) {
        let site = plan(shards)
            .config(|config| config.socketio.connect_ms_max = 2_500)
            .limits(|limits| limits.pong_timeout_ms = 1_000)
            .start();
        // One on each shard: whoever sleeps measures nothing.
        let mut good: Vec<Wire> = (0..4).map(|_| socket(&site)).collect();
        let mut kept = Wire::connect(site.address);
        for _ in 0..40 {
            begin(&mut kept).unwrap();
        }
        eventually("the sessions are there", || {
            good.iter_mut().for_each(echoes);
            site.gauge(Gauge::EngineIoUnjoined) == 40
        });
        for number in 0..20 {
            let target = joined(&mut kept).unwrap();
            let mut wire = Wire::connect(site.address);
            if number % 2 == 0 {
                assert_eq!(ask(&mut wire, "GET", "/healthz", "").status, 200);
            }
            wire.write(request("GET", &target, None, ""));
            std::thread::sleep(Duration::from_millis(20));
        }
        eventually("no session is left", || {
            good.iter_mut().for_each(echoes);
            site.gauge(Gauge::EngineIoPolling) == 0
                && site.gauge(Gauge::EngineIoUnjoined) == 0
        });
        assert_eq!(site.gauge(Gauge::EngineIoWebSocket), 4);
    }

    /// S-11, RFC 9112 9.6: who ends its side behind a poll hears what there is, or that it has ended
    fn a_poll_of_a_half_closed_client_is_answered(shards) {
        let site = plan(shards).start();
        let mut kept = Wire::connect(site.address);
        let target = joined(&mut kept).unwrap();
        assert_eq!(ask(&mut kept, "POST", &target, r#"427["message-with-ack","here"]"#).body, "ok");
        for expected in [(200, r#"437["here"]"#), (400, "Bad request")] {
            let mut wire = Wire::connect(site.address);
            wire.write(request("GET", &target, None, ""));
            wire.finish();
            let answer = wire.read_answer();
            let is_right = answer.status == expected.0 && answer.body.contains(expected.1);
            assert!(is_right, "{expected:?}: {answer:?}");
            wire.expect_end();
        }
        assert_eq!(ask(&mut kept, "GET", &target, "").status, 400);
    }

    /// S-31: who begins by polling and joins nothing is told of the end in time, whether it polls or not
    fn sessions_that_do_not_join_end_in_time(shards) {
        let site = plan(shards)
            .config(|config| config.socketio.connect_ms_max = 1_000)
            .start();
        let mut kept = Wire::connect(site.address);
        let (polled, silent) = (begin(&mut kept).unwrap(), begin(&mut kept).unwrap());
        let stays = joined(&mut kept).unwrap();
        let began = Instant::now();
        let mut wire = Wire::connect(site.address);
        let answer = ask(&mut wire, "GET", &polled, "");
        assert_eq!((answer.status, answer.body.as_str()), (200, "1"));
        let after = began.elapsed();
        assert!(Duration::from_millis(700) < after, "{after:?}");
        assert_eq!(ask(&mut kept, "GET", &polled, "").status, 400);
        // It is told so late as it asks, and then it is unknown.
        assert_eq!(ask(&mut kept, "GET", &silent, "").body, "1");
        assert_eq!(ask(&mut kept, "GET", &silent, "").status, 400);
        assert_eq!(ask(&mut kept, "POST", &stays, r#"427["message-with-ack","here"]"#).body, "ok");
        assert_eq!(ask(&mut kept, "GET", &stays, "").body, r#"437["here"]"#);
    }

    /// S-60, S-83: sessions that join nothing have a bound, and make room for those who come
    fn sessions_that_join_nothing_make_room(shards) {
        let site = plan(shards)
            .config(|config| {
                config.limits.half_open_max = 16;
                config.limits.half_open_per_address_max = 0;
            })
            .start();
        let mut kept = Wire::connect(site.address);
        let early = joined(&mut kept).unwrap();
        let mut first = None;
        for _ in 0..100 {
            let begun = begin(&mut kept).ok();
            first = first.or(begun);
        }
        let unknown = ask(&mut kept, "POST", &first.unwrap(), &connect_packet());
        assert_eq!((unknown.status, unknown.body.contains("unknown")), (400, true), "{}", unknown.body);
        let late = joined(&mut kept).unwrap();
        for target in [&early, &late] {
            assert_eq!(ask(&mut kept, "POST", target, r#"420["nothing"]"#).body, "ok");
        }
        assert!(50 < site.count(Counter::EngineIoRefused));
        eventually("few are left", || {
            assert_eq!(ask(&mut kept, "GET", "/healthz", "").status, 200);
            (1..=16).contains(&site.gauge(Gauge::EngineIoUnjoined))
        });
    }

    /// S-83: as many sessions poll as there may be connections, each shard its part
    fn sessions_that_poll_have_a_bound(shards) {
        let site = plan(shards).config(|config| config.limits.connections_max = 24).start();
        let mut kept = Wire::connect(site.address);
        let begun = (0..40).map_while(|_| joined(&mut kept).ok()).count();
        assert_eq!(begun, 24 / usize::from(shards));
        let answer = ask(&mut kept, "GET", POLLING, "");
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains("limits.connections_max"), "{}", answer.body);
    }

    /// S-35, S-83: bytes that were announced and do not come end the session in time
    fn attachments_that_do_not_come_end_the_session(shards) {
        let site = plan(shards)
            .limits(|limits| limits.message_complete_ms_max = 1_000)
            .start();
        let (mut good, mut slow, mut whole) = (socket(&site), socket(&site), socket(&site));
        let header = r#"4510-["message",{"_placeholder":true,"num":0}]"#;
        slow.send(Opcode::TEXT, header);
        whole.send(Opcode::TEXT, r#"451-5["message-with-ack",{"_placeholder":true,"num":0}]"#);
        whole.send(Opcode::BINARY, "bytes");
        assert!(text(&mut whole).starts_with("461-5["));
        whole.expect_frame(Opcode::BINARY, "bytes");
        for number in 0..9 {
            slow.send(Opcode::BINARY, [number]);
        }
        slow.expect_close(1008);
        echoes(&mut good);
        // Who was whole in time stays.
        whole.send(Opcode::TEXT, r#"423["nothing"]"#);
        assert_eq!(text(&mut whole), "433[]");
    }

    /// S-42, S-81: who is silent costs nobody's answer
    fn answers_are_kept_when_one_is_silent(shards) {
        let site = plan(shards).start();
        let mut room: Vec<Wire> = (0..6).map(|_| socket(&site)).collect();
        for (wire, number) in room.iter_mut().zip(0..) {
            wire.send(Opcode::TEXT, r#"421["join","voters"]"#);
            assert!(text(wire).starts_with("431["), "{number}");
        }
        let mut chair = socket(&site);
        chair.send(Opcode::TEXT, r#"422["poll-room","voters"]"#);
        for (wire, number) in room.iter_mut().zip(0..) {
            let asked = text(wire);
            let id = asked.trim_start_matches("42").split('[').next().unwrap();
            assert!(asked.contains(r#"["vote""#), "{asked}");
            // The last is silent.
            if number < 5 {
                wire.send(Opcode::TEXT, format!("43{id}[{number}]"));
            }
        }
        let answer = text(&mut chair);
        let votes: (bool, Vec<u64>) = serde_json::from_str(answer.strip_prefix("432").unwrap()).unwrap();
        assert_eq!((votes.0, votes.1.len()), (true, 5), "{answer}");
        eventually("who was silent is counted", || site.count(Counter::SocketIoAsksUnanswered) == 1);
    }
}
