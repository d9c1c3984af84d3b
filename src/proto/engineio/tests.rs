//! Packets, bodies, queries and names of Engine.IO, byte by byte, and against made-up input.

use proptest::prelude::*;

use super::*;
use crate::proto::frame;

#[test]
fn packets_of_clients() {
    let parse = Packet::parse;
    for (text, packet) in [
        ("1", Packet::Close),
        ("2", Packet::Ping("")),
        ("2probe", Packet::Ping(PROBE)),
        ("3", Packet::Pong("")),
        ("3probe", Packet::Pong(PROBE)),
        ("4", Packet::Text("")),
        ("4é", Packet::Text("é")),
        ("5", Packet::Upgrade),
        ("6", Packet::Noop),
    ] {
        assert_eq!(parse(text), Ok(packet), "{text}");
    }
    for text in ["", "0", "0{}", "7", "a", "abc", "é", "1x", "5x", "6x", "b"] {
        assert_eq!(parse(text), Err(InvalidPacket), "{text:?}");
    }
}

/// The keys stand in the order of the reference, without spaces.
#[test]
fn the_open_packet() {
    let mut out = Vec::new();
    let mut open = Open {
        sid: "a",
        may_upgrade: true,
        ping_interval_ms: 25_000,
        pong_timeout_ms: 20_000,
        payload_bytes_max: 1_000_000,
    };
    put_open(&mut out, &open);
    let rest = r#""pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
    let expected = format!(r#"0{{"sid":"a","upgrades":["websocket"],{rest}"#);
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    open.may_upgrade = false;
    let mut out = Vec::new();
    put_open(&mut out, &open);
    let expected = format!(r#"0{{"sid":"a","upgrades":[],{rest}"#);
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

fn packets(body: &str) -> Vec<Result<Packet<'_>, InvalidPayload>> {
    Payload::of(body.as_bytes()).unwrap().packets().collect()
}

#[test]
fn bodies_of_posts() {
    let four = Packet::Binary(vec![1, 2, 3, 4]);
    assert_eq!(
        packets("4hello\u{1e}bAQIDBA==\u{1e}3"),
        [
            Ok(Packet::Text("hello")),
            Ok(four.clone()),
            Ok(Packet::Pong(""))
        ]
    );
    assert_eq!(packets("bAQIDBA"), [Ok(four)]);
    assert_eq!(packets("b"), [Ok(Packet::Binary(Vec::new()))]);
    assert_eq!(packets("b!"), [Err(InvalidPayload::Base64)]);
    assert_eq!(packets(""), [Err(InvalidPayload::Packet)]);
    assert_eq!(
        packets("4a\u{1e}x\u{1e}4b"),
        [Ok(Packet::Text("a")), Err(InvalidPayload::Packet)]
    );
    assert_eq!(Payload::of(b"4a\x1e4b").unwrap().count(), 2);
    assert_eq!(Payload::of(b"\xff").unwrap_err(), InvalidPayload::Utf8);
}

#[test]
fn answers_to_polls() {
    let mut frames = frame::text(b"4hello").to_vec();
    frames.extend_from_slice(&frame::binary(&[1, 2, 3, 4]));
    frames.extend_from_slice(&frame::text(b"2"));
    let mut writer = PayloadWriter::new(1_000);
    assert_eq!(writer.take(&frames), (frames.len(), 3));
    assert_eq!(writer.into_body(), b"4hello\x1ebAQIDBA==\x1e2");
    // Only as many as fit, but always one.
    let mut writer = PayloadWriter::new(3);
    let (bytes, count) = writer.take(&frames);
    assert_eq!((count, writer.into_body().as_slice()), (1, &b"4hello"[..]));
    let mut writer = PayloadWriter::new(9);
    let (more, count) = writer.take(&frames[bytes..]);
    assert_eq!(
        (count, writer.into_body().as_slice()),
        (1, &b"bAQIDBA=="[..])
    );
    let mut writer = PayloadWriter::new(9);
    assert_eq!(writer.take(&frames[bytes + more..]).1, 1);
    for len in [125, 126, 65_535, 65_536] {
        let frame = frame::text(&vec![b'4'; len]);
        let mut writer = PayloadWriter::new(1);
        assert_eq!(writer.take(&frame), (frame.len(), 1));
        assert_eq!(writer.into_body().len(), len);
    }
}

#[test]
fn queries_and_refusals() {
    let parse = Query::parse;
    let polling = Query {
        transport: Transport::Polling,
        sid: None,
    };
    assert_eq!(parse("EIO=4&transport=polling"), Ok(polling.clone()));
    assert_eq!(parse("EIO=4&transport=polling&sid="), Ok(polling));
    let named = parse("t=1&transport=websocket&EIO=4&sid=a%2Db").unwrap();
    assert_eq!(named.transport, Transport::WebSocket);
    assert_eq!(named.sid.as_deref(), Some("a-b"));
    for (query, refusal, body) in [
        (
            "",
            Refusal::Transport,
            r#"{"code":0,"message":"Transport unknown"}"#,
        ),
        (
            "EIO=4",
            Refusal::Transport,
            r#"{"code":0,"message":"Transport unknown"}"#,
        ),
        (
            "EIO=4&transport=abc",
            Refusal::Transport,
            r#"{"code":0,"message":"Transport unknown"}"#,
        ),
        (
            "transport=polling",
            Refusal::Version,
            r#"{"code":5,"message":"Unsupported protocol version"}"#,
        ),
        (
            "EIO=3&transport=polling",
            Refusal::Version,
            r#"{"code":5,"message":"Unsupported protocol version"}"#,
        ),
    ] {
        assert_eq!(parse(query), Err(refusal), "{query}");
        assert_eq!(String::from_utf8(refusal.body()).unwrap(), body);
    }
    let body = String::from_utf8(Refusal::Sid.body()).unwrap();
    assert_eq!(body, r#"{"code":1,"message":"Session ID unknown"}"#);
    let body = String::from_utf8(Refusal::Method.body()).unwrap();
    assert_eq!(body, r#"{"code":2,"message":"Bad handshake method"}"#);
    let body = String::from_utf8(Refusal::Request.body()).unwrap();
    assert_eq!(body, r#"{"code":3,"message":"Bad request"}"#);
    let forbidden = Refusal::Forbidden.response();
    let expected = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\n\
                    content-length: 32\r\nconnection: close\r\n\r\n\
                    {\"code\":4,\"message\":\"Forbidden\"}";
    assert_eq!(std::str::from_utf8(&forbidden).unwrap(), expected);
}

/// S-16
#[test]
fn a_sid_names_its_place_and_is_compared_whole() {
    let sid = Sid::new(513, 7, [9; 12]);
    let text = sid.text();
    assert_eq!(text.len(), SID_LEN);
    let read = Sid::parse(&text).unwrap();
    assert_eq!((read.shard(), read.place()), (513, 7));
    assert!(read == sid);
    for at in 0..SID_LEN {
        let mut other = text.clone().into_bytes();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        let other = Sid::parse(std::str::from_utf8(&other).unwrap()).unwrap();
        assert!(other != sid, "character {at}");
    }
    for wrong in ["", "a", "_".repeat(23).as_str(), "+".repeat(24).as_str()] {
        assert!(Sid::parse(wrong).is_none(), "{wrong}");
    }
}

proptest! {
    #![proptest_config(crate::proto::proptest_config())]

    /// What is written for a poll is what was queued, whatever it is and however it is cut.
    #[test]
    fn frames_survive_a_poll(
        parts in proptest::collection::vec((any::<bool>(), "[^\u{1e}]{0,140}"), 1..8),
        bytes_max in 1_usize..300,
    ) {
        let mut frames = Vec::new();
        for (is_text, text) in &parts {
            let whole = match is_text {
                true => frame::text(format!("4{text}").as_bytes()),
                false => frame::binary(text.as_bytes()),
            };
            frames.extend_from_slice(&whole);
        }
        let (mut read, mut at) = (Vec::new(), 0);
        while at < frames.len() {
            let mut writer = PayloadWriter::new(bytes_max);
            let (bytes, count) = writer.take(&frames[at..]);
            prop_assert!(0 < bytes && 0 < count);
            at += bytes;
            let body = writer.into_body();
            prop_assert!(count == 1 || body.len() <= bytes_max);
            for packet in Payload::of(&body).unwrap().packets() {
                read.push(match packet.unwrap() {
                    Packet::Text(text) => (true, text.to_owned()),
                    Packet::Binary(bytes) => (false, String::from_utf8(bytes).unwrap()),
                    other => panic!("{other:?}"),
                });
            }
        }
        prop_assert_eq!(read, parts);
    }

    #[test]
    fn any_bytes_are_refused_or_sound(body in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(payload) = Payload::of(&body) {
            prop_assert!(payload.packets().count() <= payload.count());
        }
        let text = String::from_utf8_lossy(&body);
        if let Some(sid) = Sid::parse(&text) {
            prop_assert_eq!(sid.text(), &*text);
        }
        if let Ok(query) = Query::parse(&text) {
            prop_assert!(query.sid.is_none_or(|sid| !sid.is_empty()));
        }
    }
}
