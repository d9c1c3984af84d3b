//! Peers of Engine.IO and Socket.IO that guess, flood, hold back and go away in the middle (S-83): each
//! costs itself, memory stays flat, and who behaves is served at once all the while.

use std::time::{Duration, Instant};

use crate::harness::http::{Answer, request};
use crate::harness::wire::frame;
use tidegate::auth::Claims;

use crate::harness::{
    Opcode, PATIENCE, Plan, Site, Wire, both_shards, eventually, is_alone, resident_bytes, tenant,
    token, token_of,
};
use crate::refusals::socketio;

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

fn start(shards: u16) -> Site {
    let plan = Plan::new(shards).with(|server| server.module::<socketio::SocketIoModule>());
    plan.start()
}

/// What comes as one text.
#[track_caller]
fn text(wire: &mut Wire) -> String {
    match wire.read_frame() {
        (Opcode::TEXT, payload) => String::from_utf8(payload).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A client that has joined `/` over a WebSocket.
struct Good(Wire);

impl Good {
    fn join(site: &Site) -> Self {
        let mut wire = Wire::upgraded(site.address, WEBSOCKET);
        assert!(text(&mut wire).starts_with("0{"));
        wire.send(
            Opcode::TEXT,
            format!(r#"40{{"token":"{}"}}"#, token("demo", "ada")),
        );
        assert!(text(&mut wire).starts_with("40{"));
        assert!(text(&mut wire).starts_with(r#"42["auth""#));
        Self(wire)
    }

    /// An event comes back, within the time that one takes who waits for nobody.
    #[track_caller]
    fn expect_prompt(&mut self) {
        let began = Instant::now();
        self.0.send(Opcode::TEXT, r#"421["message-with-ack",1]"#);
        loop {
            match text(&mut self.0).as_str() {
                // Pings of Engine.IO.
                "2" => self.0.send(Opcode::TEXT, "3"),
                r#"431[1]"# => break,
                other => panic!("{other}"),
            }
        }
        let took = began.elapsed();
        assert!(took < PROMPT, "{took:?}");
    }
}

/// Far above what one round trip takes here, far below what waiting for a peer would.
const PROMPT: Duration = Duration::from_millis(500);

/// A session that has come by polling.
fn poll_in(site: &Site) -> (Wire, String) {
    let mut wire = Wire::connect(site.address);
    wire.write(request("GET", POLLING, None, ""));
    let answer = wire.read_answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    let sid = answer.body.split(r#""sid":""#).nth(1).unwrap();
    let sid = sid.split('"').next().unwrap().to_owned();
    (wire, sid)
}

fn of(sid: &str) -> String {
    format!("{POLLING}&sid={sid}")
}

fn ask_on(wire: &mut Wire, method: &str, target: &str, body: &str) -> Answer {
    wire.write(request(method, target, None, body));
    wire.read_answer()
}

/// Memory does not grow with what was tried.
#[track_caller]
fn expect_flat(before: usize) {
    if is_alone() {
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 48 << 20, "{grown}");
    }
}

both_shards! {
    /// S-83: names of sessions are guessed
    fn guessed_sessions_are_unknown(shards) {
        let site = start(shards);
        let mut good = Good::join(&site);
        let (_mine, sid) = poll_in(&site);
        let before = resident_bytes();
        let mut wire = Wire::connect(site.address);
        for guess in 0..3_000_u32 {
            // Of the right length, nearly the right one, and nonsense.
            let name = match guess % 4 {
                0 => format!("{guess:020}"),
                1 => { let mut near = sid.clone().into_bytes(); near[guess as usize % sid.len()] ^= 1; String::from_utf8_lossy(&near).replace(['%', '&', '#', ' ', '"', '\u{fffd}'], "A") }
                2 => "x".repeat(guess as usize % 512),
                _ => format!("{sid}{guess}"),
            };
            let method = if guess % 2 == 0 { "GET" } else { "POST" };
            let answer = ask_on(&mut wire, method, &of(&name), "2");
            assert_eq!(answer.status, 400, "{name} {answer:?}");
            assert!(answer.body.contains(r#""code":1"#) || name.is_empty(), "{answer:?}");
            if guess % 500 == 0 {
                good.expect_prompt();
            }
        }
        expect_flat(before);
    }

    /// S-83: more packets in one POST than may be there, and more bytes
    fn crowded_posts_end_their_session(shards) {
        let site = start(shards);
        let mut good = Good::join(&site);
        let before = resident_bytes();
        let crowds = ["4".to_owned() + &"\u{1e}4".repeat(300_000), "\u{1e}".repeat(900_000), "4\u{1e}".repeat(300), "2".repeat(1_200_000), "4".to_owned() + &"x".repeat(1_200_000)];
        for _ in 0..5 {
            for crowd in &crowds {
                let (_polled, sid) = poll_in(&site);
                let mut wire = Wire::connect(site.address);
                let answer = ask_on(&mut wire, "POST", &of(&sid), crowd);
                assert!(matches!(answer.status, 400 | 413), "{} bytes: {answer:?}", crowd.len());
                good.expect_prompt();
            }
        }
        expect_flat(before);
    }

    /// S-83: attachments that were announced and never come, or others in their place
    fn attachments_that_never_come(shards) {
        let site = start(shards);
        let mut good = Good::join(&site);
        let before = resident_bytes();
        let announced = r#"4510-["message",{"_placeholder":true,"num":0}]"#;
        let mut held: Vec<Good> = (0..20).map(|_| Good::join(&site)).collect();
        for one in &mut held {
            one.0.send(Opcode::TEXT, announced);
            for _ in 0..9 {
                one.0.send(Opcode::BINARY, [7_u8; 1_000]);
            }
        }
        good.expect_prompt();
        // An event in the middle of them is a mistake of the packets; so are too many, or none announced.
        for wrong in [&[announced, r#"42["message",1]"#][..], &[r#"4511-["message",{"_placeholder":true,"num":0}]"#], &[r#"45999999999999-["m"]"#], &[r#"451-["message",{"_placeholder":true,"num":5}]"#, "\0"], &["\0"]] {
            let mut one = Good::join(&site);
            for packet in wrong {
                match *packet {
                    "\0" => one.0.send(Opcode::BINARY, b"bytes"),
                    text => one.0.send(Opcode::TEXT, text),
                }
            }
            let end = one.0.read_to_end();
            assert!(end.len() < 1_000, "{wrong:?} {}", end.len());
            good.expect_prompt();
        }
        drop(held);
        good.expect_prompt();
        expect_flat(before);
    }

    /// S-83: upgrades that are begun again and again
    fn probes_without_an_end(shards) {
        let site = start(shards);
        let mut good = Good::join(&site);
        let (mut polled, sid) = poll_in(&site);
        let before = resident_bytes();
        let upgrade = format!("{WEBSOCKET}&sid={sid}");
        let mut held = Vec::new();
        for number in 0..300 {
            let mut wire = Wire::connect(site.address);
            wire.write(crate::harness::wire::upgrade_request(&upgrade, &[]));
            let answer = wire.read_head();
            if answer.starts_with("HTTP/1.1 101") {
                let _ = wire.try_write(&frame(true, Opcode::TEXT, b"2probe"));
                if number % 3 == 0 {
                    let _ = wire.try_write(&frame(true, Opcode::TEXT, b"2probe"));
                }
                if number % 2 == 0 {
                    held.push(wire);
                }
            }
            if number % 50 == 0 {
                good.expect_prompt();
            }
        }
        drop(held);
        // Whatever they did, the session answers, or has ended and says so.
        let answer = ask_on(&mut polled, "POST", &of(&sid), "40");
        assert!(matches!(answer.status, 200 | 400), "{answer:?}");
        good.expect_prompt();
        expect_flat(before);
    }

    /// S-83: polls that are asked for and given up
    fn polls_that_are_given_up(shards) {
        let site = start(shards);
        let mut good = Good::join(&site);
        let before = resident_bytes();
        for round in 0..100 {
            let (mut wire, sid) = poll_in(&site);
            let joined = ask_on(&mut wire, "POST", &of(&sid), &format!(r#"40{{"token":"{}"}}"#, token("demo", "bob")));
            assert_eq!(joined.status, 200, "{joined:?}");
            for _ in 0..3 {
                let mut gone = Wire::connect(site.address);
                gone.write(request("GET", &of(&sid), None, ""));
                drop(gone);
            }
            if round % 20 == 0 {
                good.expect_prompt();
            }
        }
        expect_flat(before);
    }

    /// S-83: a connect to each of very many namespaces, known and unknown
    fn namespaces_without_an_end(shards) {
        let site = start(shards);
        let mut good = Good::join(&site);
        let before = resident_bytes();
        let mut one = Good::join(&site);
        let mut refused = 0;
        'all: for number in 0..10_000 {
            if one.0.try_write(&frame(true, Opcode::TEXT, format!("40/n{number},").as_bytes())).is_err() {
                break;
            }
            if number % 100 == 99 {
                for _ in 0..100 {
                    match one.0.read_frame() {
                        (Opcode::TEXT, payload) if payload.starts_with(b"44/n") => refused += 1,
                        (Opcode::TEXT, payload) if payload == b"2" => one.0.send(Opcode::TEXT, "3"),
                        (Opcode::CLOSE, _) => break 'all,
                        other => panic!("{other:?}"),
                    }
                }
                good.expect_prompt();
            }
        }
        assert!(0 < refused);
        // The refusal names what it refuses, so it is as long as that, and no longer.
        let mut long = Good::join(&site);
        long.0.send(Opcode::TEXT, format!("40/{},", "n".repeat(50_000)));
        let answer = long.0.read_frame().1.len();
        assert!(answer < 50_100, "{answer}");
        good.expect_prompt();
        expect_flat(before);
    }

    /// S-83: ids that grow beyond numbers, and acks of what was never asked
    fn ids_that_grow(shards) {
        let site = start(shards);
        let mut good = Good::join(&site);
        let before = resident_bytes();
        for digits in [1, 9, 15, 16, 19, 20, 25, 1_000, 60_000] {
            let mut one = Good::join(&site);
            let id = "9".repeat(digits);
            one.0.send(Opcode::TEXT, format!(r#"42{id}["message-with-ack",1]"#));
            match one.0.read_frame() {
                (Opcode::TEXT, payload) => assert_eq!(String::from_utf8_lossy(&payload), format!("43{id}[1]"), "{digits}"),
                (Opcode::CLOSE, _) => assert!(15 < digits, "{digits}"),
                other => panic!("{other:?}"),
            }
            let mut one = Good::join(&site);
            for number in 0..50 {
                let _ = one.0.try_write(&frame(true, Opcode::TEXT, format!("43{id}{number}[1]").as_bytes()));
            }
            good.expect_prompt();
        }
        good.expect_prompt();
        expect_flat(before);
    }

    /// S-81: what came, what was refused, and by which way sessions are there
    fn what_happens_is_counted(shards) {
        let site = start(shards);
        let admin = token_of(&Claims::new(tenant("demo"), "root").role("admin"), 60);
        let number = |name: &str, label: &str| {
            let page = crate::harness::http::ask(site.address, &request("GET", "/metrics", Some(&admin), "")).body;
            let lines = page.lines().filter(|line| line.starts_with(&format!("tidegate_{name}")) && line.contains(label));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
        };
        let mut good = Good::join(&site);
        good.expect_prompt();
        let (_wire, _sid) = poll_in(&site);
        eventually("both ways are seen", || {
            number("engineio_sessions_websocket", "") == 1 && number("engineio_sessions_polling", "") == 1
        });
        good.0.send(Opcode::TEXT, "40/nowhere,");
        assert!(text(&mut good.0).starts_with("44/nowhere,"));
        good.0.send(Opcode::TEXT, "437[1]");
        good.0.send(Opcode::TEXT, "41");
        good.0.send(Opcode::TEXT, r#"40{"token":"wrong"}"#);
        assert!(text(&mut good.0).starts_with("44"));
        good.0.send(Opcode::TEXT, "4nonsense");
        good.0.read_to_end();
        for (name, label, wanted) in [
            ("socketio_packets_total", "type=\"connect\"", 3),
            ("socketio_packets_total", "type=\"event\"", 1),
            ("socketio_packets_total", "type=\"ack\"", 1),
            ("socketio_packets_total", "type=\"disconnect\"", 1),
            ("socketio_packets_total", "type=\"malformed\"", 1),
            ("socketio_joins_refused_total", "reason=\"namespace\"", 1),
            ("socketio_joins_refused_total", "reason=\"token\"", 1),
            ("socketio_acks_late_total", "", 1),
            ("engineio_sessions_websocket", "", 0),
        ] {
            eventually(&format!("{name} {label} is {wanted}"), || number(name, label) == wanted);
        }
    }

    /// S-60: a transport that joins nothing is half open, and ends by itself
    fn transports_that_join_nothing(shards) {
        let plan = Plan::new(shards).config(|config| config.socketio.connect_ms_max = 400);
        let site = plan.with(|server| server.module::<socketio::SocketIoModule>()).start();
        let mut silent: Vec<Wire> = (0..50).map(|_| Wire::upgraded(site.address, WEBSOCKET)).collect();
        let began = Instant::now();
        for wire in &mut silent {
            wire.read_to_end();
        }
        assert!(began.elapsed() < PATIENCE);
        let (mut polled, sid) = poll_in(&site);
        eventually("the session has ended", || ask_on(&mut polled, "POST", &of(&sid), "3").status == 400);
    }
}
