//! permessage-deflate from outside: who gets it, what is compressed and how often, and what a peer
//! must not do with it (Z-01 to Z-19).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use std::sync::Arc;
use tidegate::gateway::socket::echo;

use tidegate::metrics::Counter;
use tidegate::prelude::*;

use crate::harness::wire::{frame, upgrade_request};
use crate::harness::{Opcode, Plan, Site, Wire, both_shards, eventually, token};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const RSV1: u8 = 0x40;

fn plan(shards: u16) -> Plan {
    Plan::new(shards)
        .raw("/raw", echo)
        .limits(|limits| limits.compression = true)
        .config(|config| {
            // Of a raw handler that the program registers the limits are those of the server.
            config.limits.compression = true;
        })
}

/// A socket that agreed on compression, and the head of the answer.
fn upgraded(site: &Site, target: &str, offer: &str) -> (Wire, String) {
    let mut wire = Wire::connect(site.address);
    wire.write(upgrade_request(target, &[offer]));
    let head = wire.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    (wire, head)
}

fn deflated(plain: &[u8]) -> Vec<u8> {
    let mut state = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(plain.len() + 64);
    state
        .compress_vec(plain, &mut out, FlushCompress::Sync)
        .unwrap();
    out.truncate(out.len() - 4);
    out
}

fn inflated(payload: &[u8]) -> Vec<u8> {
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut out = Vec::with_capacity(1 << 21);
    let mut state = Decompress::new(false);
    state
        .decompress_vec(&whole, &mut out, FlushDecompress::Sync)
        .unwrap();
    out
}

/// The next frame: whether it is compressed, and its plain payload.
fn read(wire: &mut Wire) -> (bool, Vec<u8>) {
    let head = wire.read_bytes(2);
    let is_deflated = head[0] & RSV1 != 0;
    assert_eq!(head[0] & !RSV1 & 0xf0, 0x80, "whole frames");
    let length = match head[1] {
        126 => wire.read_bytes(2),
        127 => wire.read_bytes(8),
        short => vec![short],
    };
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let payload = wire.read_bytes(length);
    match is_deflated {
        true => (true, inflated(&payload)),
        false => (false, payload),
    }
}

/// A masked frame of a compressed message.
fn compressed(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(true, opcode, payload);
    bytes[0] |= RSV1;
    bytes
}

/// Who tells a room what may be compressed, and what must not.
macro_rules! telling {
    ($name:ident, $marker:ident, $($how:tt)*) => {
        #[gateway($($how)*, namespace = $marker)]
        struct $name {
            #[inject]
            server: Arc<WsServer<$marker>>,
        }

        #[messages]
        impl $name {
            #[subscribe_message("join")]
            async fn join(&self, client: &WsClient) -> Result<bool, SendError> {
                client.join("all").map(|()| true)
            }

            #[subscribe_message("tell")]
            async fn tell(&self, may_be_compressed: bool) {
                let to = self.server.room("all").compress(may_be_compressed);
                let _ = to.emit("told", &"what all may read ".repeat(100));
            }
        }
    };
}

struct Events;
struct Packets;

telling!(TellingEvents, Events, path = "/events");
telling!(
    TellingPackets,
    Packets,
    path = "/socket.io",
    adapter = SocketIo
);

#[module(gateways = [TellingEvents, TellingPackets])]
struct TellingModule;

#[test]
fn nobody_gets_what_is_off_or_was_not_offered() {
    let off = Plan::new(1).raw("/raw", echo).start();
    let (mut wire, head) = upgraded(&off, "/raw", OFFER);
    assert!(!head.to_lowercase().contains("extensions"), "{head}");
    wire.write(compressed(Opcode::TEXT, &deflated(b"hello")));
    wire.expect_close(1002);
    let on = plan(1).start();
    let (mut wire, head) = upgraded(&on, "/raw", "X-None: 1");
    assert!(!head.to_lowercase().contains("extensions"), "{head}");
    wire.write(compressed(Opcode::TEXT, &deflated(b"hello")));
    wire.expect_close(1002);
    for (offer, answer) in [
        (OFFER, Some(ANSWER.to_owned())),
        (
            "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8",
            None,
        ),
        (
            "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10",
            Some(format!("{ANSWER}; server_max_window_bits=10")),
        ),
        (
            "Sec-WebSocket-Extensions: x-other, permessage-deflate; a=b\r\n\
             Sec-WebSocket-Extensions: permessage-deflate",
            Some(ANSWER.to_owned()),
        ),
    ] {
        let (_, head) = upgraded(&on, "/raw", offer);
        let line = head
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-extensions: "));
        assert_eq!(line.map(str::to_owned), answer, "{offer}");
    }
}

both_shards! {
    fn messages_go_both_ways_compressed(shards) {
        let site = plan(shards).start();
        let (mut wire, _) = upgraded(&site, "/raw", OFFER);
        let long = "a text that says the same again and again, ".repeat(100);
        wire.write(compressed(Opcode::TEXT, &deflated(long.as_bytes())));
        assert_eq!(read(&mut wire), (true, long.clone().into_bytes()));
        // In fragments, the bit on the first alone, with a ping between them.
        let whole = deflated(long.as_bytes());
        let (head, tail) = whole.split_at(whole.len() / 2);
        let mut first = frame(false, Opcode::TEXT, head);
        first[0] |= RSV1;
        wire.write([first, frame(true, Opcode::PING, b"p"), frame(true, Opcode::CONTINUE, tail)].concat());
        assert_eq!(read(&mut wire), (false, b"p".to_vec()));
        assert_eq!(read(&mut wire), (true, long.clone().into_bytes()));
        // Plain ones are allowed, short ones stay plain, binary ones too.
        wire.send(Opcode::TEXT, &long);
        assert_eq!(read(&mut wire), (true, long.clone().into_bytes()));
        wire.send(Opcode::TEXT, "short");
        assert_eq!(read(&mut wire), (false, b"short".to_vec()));
        wire.send(Opcode::BINARY, &long);
        assert_eq!(read(&mut wire), (false, long.into_bytes()));
    }

    /// Z-12: one compression for all on a shard, whoever did not agree gets the plain frame.
    fn what_goes_to_many_is_compressed_once(shards) {
        let site = plan(shards).start();
        let target = format!("/ws?token={}", token("acme", "ada"));
        let mut packed: Vec<_> = (0..20)
            .map(|_| {
                let (mut wire, _) = upgraded(&site, &target, OFFER);
                wire.send(Opcode::TEXT, r#"{"type":"subscribe","topic":"news"}"#);
                assert!(!read(&mut wire).0);
                wire
            })
            .collect();
        let mut plain = site.join("acme", "bob");
        plain.subscribe("news");
        let before = site.count(Counter::DeflateBytesIn);
        let payload = serde_json::Value::from("news of the day ".repeat(200));
        let relay = site.relay("acme");
        crate::harness::wait(async { relay.push("news", "said", &payload).await }).unwrap();
        let expected = plain.receive();
        for wire in &mut packed {
            assert_eq!(read(wire), (true, expected.clone().into_bytes()));
        }
        eventually("it is counted", || before < site.count(Counter::DeflateBytesIn));
        let taken = site.count(Counter::DeflateBytesIn) - before;
        let frame_bytes = expected.len() as u64 + 4;
        assert_eq!(taken, frame_bytes * u64::from(shards));
    }

    /// Z-18: what is not to be compressed goes out as it is to all, in each dialect.
    fn an_event_may_be_kept_out_of_it(shards) {
        let site = plan(shards)
            .with(|server| {
                let server = server.module::<TellingModule>();
                server.public_route("GET", "/events").public_route("GET", "/socket.io")
            })
            .start();
        let packets = "/socket.io/?EIO=4&transport=websocket";
        for (target, hello, join, tell) in [
            ("/events", None, r#"{"event":"join","id":1}"#, r#"{"event":"tell","data":IT}"#),
            (packets, Some("40"), r#"420["join"]"#, r#"42["tell",IT]"#),
        ] {
            let mut all: Vec<_> = (0..6).map(|_| upgraded(&site, target, OFFER).0).collect();
            for wire in &mut all {
                if let Some(hello) = hello {
                    assert!(read(wire).1.starts_with(b"0{"));
                    wire.send(Opcode::TEXT, hello);
                    assert!(read(wire).1.starts_with(b"40{"));
                }
                wire.send(Opcode::TEXT, join);
                read(wire);
            }
            for may_be in [true, false, true] {
                all[0].send(Opcode::TEXT, tell.replace("IT", if may_be { "true" } else { "false" }));
                for wire in &mut all {
                    let (is_deflated, text) = read(wire);
                    let text = String::from_utf8(text).unwrap();
                    assert!(text.contains("what all may read what all"), "{text}");
                    assert_eq!(is_deflated, may_be, "{target}");
                }
            }
        }
    }

    /// Z-06 to Z-09: what must not be ends the connection of who sent it, with its own code.
    fn bad_input_ends_its_sender(shards) {
        let site = plan(shards).start();
        let (mut good, _) = upgraded(&site, "/raw", OFFER);
        let bomb = deflated(&vec![b'a'; 16 << 20]);
        assert!(bomb.len() < 20_000);
        let mut second = frame(true, Opcode::CONTINUE, b"x");
        second[0] |= RSV1;
        for (bytes, code) in [
            (compressed(Opcode::BINARY, &bomb), 1009),
            (compressed(Opcode::TEXT, b"\xff\xff\xff"), 1007),
            (compressed(Opcode::TEXT, &deflated(b"\xff\xfe not text")), 1007),
            (compressed(Opcode::TEXT, &[&deflated(b"good")[..], b"garbage"].concat()), 1007),
            (compressed(Opcode::PING, b"p"), 1002),
            ([frame(false, Opcode::TEXT, b"a"), second].concat(), 1002),
        ] {
            let (mut wire, _) = upgraded(&site, "/raw", OFFER);
            wire.write(bytes);
            wire.expect_close(code);
        }
        good.send(Opcode::TEXT, "still here");
        assert_eq!(read(&mut good), (false, b"still here".to_vec()));
        // The dialects that are JSON find out the same.
        let target = format!("/ws?token={}", token("acme", "ada"));
        let (mut wire, _) = upgraded(&site, &target, OFFER);
        wire.write(compressed(Opcode::TEXT, &deflated(br#"{"type":"ping"}"#)));
        assert_eq!(read(&mut wire).1, br#"{"type":"pong"}"#);
        wire.write(compressed(Opcode::TEXT, &deflated(b"\"\xff\"")));
        wire.expect_close(1007);
    }
}
