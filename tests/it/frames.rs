//! Frames as nobody should send them, and those that everybody may: what each costs its sender,
//! and that it costs nobody else anything. Knows RFC 6455; no dialect beyond an echo.

use tidegate::config::Limits;
use tidegate::gateway::socket::echo;
use tidegate::metrics::Counter;

use crate::harness::wire::{MASK, frame, giant};
use crate::harness::{
    Client, Opcode, Plan, Site, Wire, both_shards, eventually, is_alone, resident_bytes, token,
};

fn start(shards: u16) -> Site {
    Plan::new(shards).raw("/raw", echo).start()
}

fn start_with(shards: u16, limits: impl Fn(&mut Limits)) -> Site {
    Plan::new(shards).limits(limits).raw("/raw", echo).start()
}

both_shards! {
    /// RELIABILITY section 3 and 6: each broken rule has its code, and the server stays
    fn broken_rules_end_the_connection(shards) {
        if !is_alone() {
            return;
        }
        let site = start(shards);
        let mut neighbour = Client::connect_public(site.address, "/raw");
        let unmasked = vec![0x81, 2, b'h', b'i'];
        let with_first = |first: u8| vec![first, 0x80, 1, 2, 3, 4];
        let in_two_bytes = [&[0x82, 0xfe, 0, 5], &MASK[..], b"12345"].concat();
        let in_eight_bytes = [&giant(Opcode::BINARY, 126)[..], &[0; 126]].concat();
        let text_in_text = [frame(false, Opcode::TEXT, b"a"), frame(true, Opcode::TEXT, b"b")].concat();
        let table = [
            ("unmasked", unmasked, 1002),
            ("rsv1", with_first(0xc1), 1002),
            ("rsv2", with_first(0xa1), 1002),
            ("rsv3", with_first(0x91), 1002),
            ("opcode 3", with_first(0x83), 1002),
            ("opcode 7", with_first(0x87), 1002),
            ("opcode 11", with_first(0x8b), 1002),
            ("opcode 15", with_first(0x8f), 1002),
            ("a fragmented ping", with_first(0x09), 1002),
            ("a fragmented close", with_first(0x08), 1002),
            ("a continuation of nothing", frame(true, Opcode::CONTINUE, b"x"), 1002),
            ("a text within a text", text_in_text, 1002),
            ("a long ping", frame(true, Opcode::PING, &[0; 126]), 1002),
            ("a length in more bytes than it needs", in_two_bytes, 1002),
            ("a length in far more bytes", in_eight_bytes, 1002),
            ("2^63", giant(Opcode::BINARY, 1 << 63), 1002),
            ("2^63 - 1", giant(Opcode::BINARY, (1 << 63) - 1), 1009),
            ("2^32", giant(Opcode::TEXT, 1 << 32), 1009),
            ("2^64 - 1", giant(Opcode::TEXT, u64::MAX), 1002),
            ("too large", giant(Opcode::TEXT, 65_537), 1009),
            ("half a close code", frame(true, Opcode::CLOSE, &[3]), 1002),
            ("close code 999", frame(true, Opcode::CLOSE, &999u16.to_be_bytes()), 1002),
            ("close code 1005", frame(true, Opcode::CLOSE, &1005u16.to_be_bytes()), 1002),
            ("a close reason in latin-1", frame(true, Opcode::CLOSE, b"\x03\xe8\xe9"), 1007),
            ("a text in latin-1", frame(true, Opcode::TEXT, b"caf\xe9"), 1007),
            ("half a character", frame(true, Opcode::TEXT, b"\xf0\x9f\x98"), 1007),
            ("a surrogate", frame(true, Opcode::TEXT, b"\xed\xa0\x80"), 1007),
        ];
        let before = resident_bytes();
        for (what, bytes, code) in table {
            let mut wire = Wire::upgraded(site.address, "/raw");
            wire.write(bytes);
            // Shown only when the next line fails.
            println!("{what}");
            let reason = wire.expect_close(code);
            assert!(!reason.is_empty(), "{what}");
            wire.expect_end();
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "a length was believed: {grown} bytes");
        neighbour.ask("still here", "still here");
    }

    /// Fail fast: the first wrong byte ends it, without waiting for the rest of the frame
    fn a_wrong_byte_ends_it_at_once(shards) {
        let site = start(shards);
        let mut wire = Wire::upgraded(site.address, "/raw");
        wire.write(frame(false, Opcode::TEXT, "κόσμε".as_bytes()));
        let whole = frame(true, Opcode::CONTINUE, b"\xed\xa0\x80 and much more");
        wire.write(&whole[..whole.len() - 10]);
        wire.expect_close(1007);
        wire.expect_end();
    }

/// X-09: what came before an end is answered before it; what follows is ignored
    fn what_follows_an_end_is_ignored(shards) {
        let site = start(shards);
        let hello = || frame(true, Opcode::TEXT, b"hello");
        let mut wire = Wire::upgraded(site.address, "/raw");
        wire.write([hello(), frame(true, Opcode(3), b""), hello()].concat());
        wire.expect_text("hello");
        wire.expect_close(1002);
        wire.expect_end();
        let mut wire = Wire::upgraded(site.address, "/raw");
        let close = frame(true, Opcode::CLOSE, b"\x0f\xa0bye");
        wire.write([hello(), close.clone(), close, hello()].concat());
        wire.expect_text("hello");
        wire.expect_frame(Opcode::CLOSE, 4000u16.to_be_bytes());
        wire.expect_end();
    }

    /// A peer that has ended its side still gets what is due to it
    fn a_half_closed_peer_gets_its_answers(shards) {
        let site = start(shards);
        let mut wire = Wire::upgraded(site.address, "/raw");
        let close = frame(true, Opcode::CLOSE, b"\x03\xe8");
        wire.write([frame(true, Opcode::TEXT, &vec![b'x'; 60_000]), close].concat());
        wire.finish();
        wire.expect_text(&"x".repeat(60_000));
        wire.expect_frame(Opcode::CLOSE, b"\x03\xe8");
        wire.expect_end();
        let mut wire = Wire::connect(site.address);
        wire.write("GET /raw HTTP/1.1\r\nHost: x\r\n\r\n");
        wire.finish();
        assert_eq!(wire.read_answer().status, 400);
        wire.expect_end();
    }

    /// X-09: a close is echoed, with its code if it had one
    fn a_close_is_echoed(shards) {
        let site = start(shards);
        for (sent, echoed) in [(&b""[..], &b""[..]), (b"\x03\xe8", b"\x03\xe8"), (b"\x03\xe9gone", b"\x03\xe9")] {
            let mut wire = Wire::upgraded(site.address, "/raw");
            wire.send(Opcode::CLOSE, sent);
            wire.expect_frame(Opcode::CLOSE, echoed);
            wire.expect_end();
        }
    }

    /// D-21: pings are answered, between the fragments of a message too
    fn pings_are_answered(shards) {
        let site = start(shards);
        let mut wire = Wire::upgraded(site.address, "/raw");
        wire.send(Opcode::PING, "are you there");
        wire.expect_frame(Opcode::PONG, "are you there");
        wire.send(Opcode::PONG, "nobody asked");
        wire.write(frame(false, Opcode::TEXT, b"one "));
        wire.send(Opcode::PING, [0xff; 125]);
        wire.expect_frame(Opcode::PONG, [0xff; 125]);
        wire.write(frame(true, Opcode::CONTINUE, b"message"));
        wire.expect_text("one message");
    }

    /// Any split of the bytes gives the same messages
    fn frames_may_come_byte_by_byte(shards) {
        let site = start(shards);
        let mut wire = Wire::upgraded(site.address, "/raw");
        let text = "é".repeat(100);
        let bytes = [
            frame(false, Opcode::TEXT, &text.as_bytes()[..101]),
            frame(true, Opcode::PING, b"p"),
            frame(true, Opcode::CONTINUE, &text.as_bytes()[101..]),
        ]
        .concat();
        for byte in bytes {
            wire.write([byte]);
        }
        wire.expect_frame(Opcode::PONG, "p");
        wire.expect_text(&text);
    }

    /// Section 8: frames and messages of exactly the limit pass, one byte more does not
    fn sizes_end_where_they_say(shards) {
        let site = start(shards);
        let mut wire = Wire::upgraded(site.address, "/raw");
        let largest = "x".repeat(65_536);
        wire.send(Opcode::TEXT, &largest);
        wire.expect_text(&largest);
        wire.write(frame(false, Opcode::TEXT, &largest.as_bytes()[..65_000]));
        wire.write(frame(false, Opcode::CONTINUE, &largest.as_bytes()[65_000..]));
        wire.write(giant(Opcode::CONTINUE, 1));
        wire.expect_close(1002);
        let mut wire = Wire::upgraded(site.address, "/raw");
        wire.write(frame(false, Opcode::TEXT, largest.as_bytes()));
        wire.write(frame(true, Opcode::CONTINUE, b"x"));
        let reason = wire.expect_close(1009);
        assert_eq!(reason, "message of 65537 bytes exceeds message_bytes_max = 65536");
    }

    /// RELIABILITY section 6: a flood of fragments is ended by its budget
    fn a_flood_of_fragments_is_ended(shards) {
        let site = start_with(shards, |limits| limits.fragments_base_max = 100);
        for payload in [&b""[..], b"x"] {
            let mut wire = Wire::upgraded(site.address, "/raw");
            let mut flood = frame(false, Opcode::BINARY, payload);
            for _ in 0..200 {
                flood.extend(frame(false, Opcode::CONTINUE, payload));
            }
            wire.write(flood);
            wire.expect_close(1008);
            wire.expect_end();
        }
    }

    /// D-07: bad UTF-8 ends a relay connection too, wherever it stands in the JSON
    fn a_relay_text_must_be_utf8(shards) {
        let site = start(shards);
        let target = format!("/ws?token={}", token("demo", "ada"));
        let table = [
            &b"{\"type\":\"ping\",\"x\":\"\xff\"}"[..],
            b"{\"type\":\"p\xc3\"}",
            b"\xed\xa0\x80",
            b"{\"type\":\"ping\"}\xfe",
        ];
        for text in table {
            let mut wire = Wire::upgraded(site.address, &target);
            wire.send(Opcode::TEXT, text);
            wire.expect_close(1007);
            wire.expect_end();
        }
    }

    /// RELIABILITY section 3: hostile JSON is an error frame and no more
    fn hostile_json_is_refused_in_band(shards) {
        let site = start(shards);
        let mut ada = site.join("demo", "ada");
        let table = [
            ("[".repeat(60_000), true),
            (format!(r#"{{"type":{}"#, "[".repeat(60_000)), true),
            (r#"{"a":"#.repeat(10_000), true),
            (format!(r#"{{"type":"ping","{}":1}}"#, "k".repeat(60_000)), false),
            (r#"{"type":"ping","n":1e400}"#.to_owned(), true),
            (r#"{"type":"ping","s":"\ud800"}"#.to_owned(), true),
            (r#"{"type":"ping","s":"\u0000"}"#.to_owned(), false),
            ("{\"type\":\"ping\",\"s\":\"\0\"}".to_owned(), true),
            (r#"{"type":"nope","type":"ping"}"#.to_owned(), false),
        ];
        for (text, is_refused) in table {
            ada.send(&text);
            let answer = ada.receive();
            let start = &text[..text.len().min(40)];
            assert_eq!(answer.starts_with(r#"{"type":"error","message":"invalid message: "#), is_refused, "{start} {answer}");
            ada.expect_nothing();
        }
    }

    /// D-07: ten invalid frames in a row are enough
    fn ten_invalid_frames_end_the_connection(shards) {
        let site = start(shards);
        let mut ada = site.join("demo", "ada");
        for _ in 0..3 {
            for _ in 0..9 {
                ada.send("no");
                ada.expect_error("invalid message: not valid json");
            }
            ada.expect_nothing();
        }
        for _ in 0..10 {
            ada.send("no");
            ada.expect_error("invalid message: not valid json");
        }
        ada.expect_close(1008, "too many invalid frames in a row");
    }

    /// RELIABILITY section 3: 100,000 pings from a client that reads nothing
    fn a_flood_of_pings_stays_bounded(shards) {
        if !is_alone() {
            return;
        }
        let site = start(shards);
        let mut neighbour = Client::connect_public(site.address, "/raw");
        let before = resident_bytes();
        let mut wire = Wire::upgraded(site.address, "/raw");
        wire.stream().set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let pings = frame(true, Opcode::PING, &[7; 125]).repeat(1_000);
        // The server may stop reading or may answer; either way it may not hoard.
        let mut sent = 0;
        while sent < 100 && wire.try_write(&pings).is_ok() {
            sent += 1;
        }
        neighbour.ask("still here", "still here");
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{sent} thousand pings cost {grown} bytes");
    }
}

/// Counted where everybody can see it
#[test]
fn invalid_frames_are_counted() {
    let site = start(1);
    let mut ada = site.join("demo", "ada");
    ada.send("no");
    ada.expect_error("invalid message: not valid json");
    eventually("the frame is counted", || {
        site.count(Counter::InvalidFrames) == 1
    });
}
