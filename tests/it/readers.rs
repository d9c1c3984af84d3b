//! Whoever reads loses nothing and is never punished, and who asks little waits for nobody: bursts
//! in one write, replies larger than an outbox, readers that are slow and steady, closes behind
//! questions. Knows frames and limits; not how a turn is cut.

use std::io::Read;
use std::time::{Duration, Instant};

use tidegate::metrics::Counter;
use tidegate::prelude::*;

use crate::harness::wire::{self, frame};
use crate::harness::{Client, Opcode, PATIENCE, Plan, Site, Wire, both_shards, client, token};

#[gateway(path = "/rooms")]
struct RoomGateway;

#[messages]
impl RoomGateway {
    #[subscribe_message("join")]
    async fn join(&self, room: String, client: &WsClient) -> Result<(), SendError> {
        client.join(&room)
    }

    /// To all in the room.
    #[subscribe_message("say")]
    async fn say(&self, number: u32, client: &WsClient) -> Result<(), SendError> {
        client.to("r", "said", &number).map(drop)
    }

    /// Many by one call.
    #[subscribe_message("pour")]
    async fn pour(&self, count: u32, client: &WsClient) -> u32 {
        let sends = (0..count).map(|number| client.to("r", "said", &number));
        u32::try_from(sends.take_while(Result::is_ok).count()).unwrap()
    }

    /// Many to the one that asks.
    #[subscribe_message("flood")]
    async fn flood(&self, count: u64, client: &WsClient) {
        for number in 0..count {
            let _ = client.emit("said", &number);
        }
    }

    #[subscribe_message("large")]
    async fn large(&self, bytes: usize) -> String {
        "x".repeat(bytes)
    }

    #[subscribe_message("slow")]
    async fn slow(&self, number: u32) -> u32 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        number
    }

    /// Holds its shard.
    #[subscribe_message("hold")]
    async fn hold(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }
}

#[module(gateways = [RoomGateway])]
struct RoomModule;

fn start(shards: u16) -> Site {
    Plan::new(shards)
        .with(|server| server.module::<RoomModule>())
        .start()
}

fn text_of(event: &str, data: impl std::fmt::Display) -> Vec<u8> {
    let text = format!(r#"{{"event":"{event}","data":{data}}}"#);
    frame(true, Opcode::TEXT, text.as_bytes())
}

fn relay_text(text: &str) -> Vec<u8> {
    frame(true, Opcode::TEXT, text.as_bytes())
}

/// On the gateway.
fn connect(site: &Site) -> Wire {
    Wire::upgraded(
        site.address,
        &format!("/rooms?token={}", token("demo", "ada")),
    )
}

/// On the relay.
fn join(site: &Site) -> Wire {
    let mut wire = Wire::upgraded(site.address, &format!("/ws?token={}", token("demo", "ada")));
    wire.write(relay_text(r#"{"type":"subscribe","topic":"t"}"#));
    wire.expect_text(r#"{"type":"subscribed","topic":"t"}"#);
    wire
}

/// A ping that stands behind nothing but what was asked before it on this connection.
fn expect_pong(wire: &mut Wire) {
    wire.send(Opcode::PING, "there?");
    wire.expect_frame(Opcode::PONG, "there?");
}

both_shards! {
    /// C1: 500 messages to a room in one write, to members that read: each gets 500
    fn a_room_loses_nothing_in_a_burst(shards) {
        let site = start(shards);
        let mut members: Vec<Client> = (0..4)
            .map(|_| Client::connect(site.address, "/rooms", &token("demo", "bob")))
            .collect();
        for member in &mut members {
            member.send(r#"{"event":"join","data":"r"}"#);
            member.ask(r#"{"event":"large","data":1}"#, r#"{"event":"large","data":"x"}"#);
        }
        let mut sender = connect(&site);
        let burst: Vec<u8> = (0..500).flat_map(|number| text_of("say", number)).collect();
        sender.write(&burst);
        for member in &mut members {
            for number in 0..500 {
                member.expect(&format!(r#"{{"event":"said","data":{number}}}"#));
            }
        }
        expect_pong(&mut sender);
        assert_eq!(site.count(Counter::OutboxSheds), 0);
    }

    /// A8: who named the dialect is told how many it missed, at the place where they were missed, and
    /// stays; so it is for rooms and for pushes to one client
    fn who_named_the_dialect_is_told_what_it_missed(shards) {
        let site = start(shards);
        let mut member = Wire::connect(site.address);
        let target = format!("/rooms?token={}", token("demo", "ada"));
        let protocol = "sec-websocket-protocol: tidegate.event.v1";
        member.write(wire::upgrade_request(&target, &[protocol]));
        assert!(member.read_head().starts_with("HTTP/1.1 101 "));
        member.write(text_of("join", r#""r""#));
        member.write(text_of("large", 1));
        member.expect_text(r#"{"event":"large","data":"x"}"#);
        // To itself, so that all of it is on one shard whatever their number.
        member.write(text_of("flood", 300_000));
        let (mut next, mut missed_in_all) = (0, 0);
        while next < 300_000 {
            let (opcode, text) = member.read_frame();
            assert_eq!(opcode, Opcode::TEXT);
            let frame: serde_json::Value = serde_json::from_slice(&text).unwrap();
            match frame["event"].as_str().unwrap() {
                "said" => {
                    assert_eq!(frame["data"], next);
                    next += 1;
                }
                "lagged" => {
                    let missed = frame["data"]["missed"].as_u64().unwrap();
                    assert!(0 < missed);
                    (next, missed_in_all) = (next + missed, missed_in_all + missed);
                }
                other => assert_eq!(other, "flood"),
            }
        }
        assert!(0 < missed_in_all, "nothing was shed, so nothing was tested");
        expect_pong(&mut member);
    }

    /// C1: the same by one call of one handler; what is not given is told to who is not given it
    fn a_room_never_loses_in_silence(shards) {
        let site = start(shards);
        let mut member = connect(&site);
        member.write(text_of("join", r#""r""#));
        member.write(text_of("large", 1));
        member.expect_text(r#"{"event":"large","data":"x"}"#);
        let mut sender = connect(&site);
        sender.write(text_of("pour", 5_000));
        let (_, answer) = sender.read_frame();
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let taken = answer["data"].as_u64().unwrap();
        assert!(0 < taken && taken <= 5_000, "{taken}");
        let mut next = 0;
        loop {
            match member.read_frame() {
                (Opcode::TEXT, text) => {
                    let expected = format!(r#"{{"event":"said","data":{next}}}"#);
                    assert_eq!(String::from_utf8(text).unwrap(), expected);
                    next += 1;
                    if next == taken {
                        return expect_pong(&mut member);
                    }
                }
                (Opcode::CLOSE, reason) => {
                    assert_eq!(reason[..2], 1008_u16.to_be_bytes());
                    return assert!(256 <= next, "an idle socket takes a full outbox: {next}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// C1: 200 pushes to a relay topic in one write, and 2,000: nobody who reads lags
    fn a_topic_loses_nothing_in_a_burst(shards) {
        let site = Plan::new(shards).start();
        for count in [200, 2_000] {
            let (mut reader, mut sender) = (join(&site), join(&site));
            let say = |number: u32| {
                relay_text(&format!(
                    r#"{{"type":"message","topic":"t","event":"e","payload":{number}}}"#
                ))
            };
            let burst: Vec<u8> = (0..count).flat_map(say).collect();
            let write = || sender.write(&burst);
            std::thread::scope(|scope| {
                scope.spawn(write);
                for number in 0..count {
                    reader.expect_text(&format!(
                        r#"{{"type":"push","topic":"t","event":"e","payload":{number}}}"#
                    ));
                }
            });
            assert_eq!(site.count(Counter::FramesLagged), 0);
        }
    }

    /// C1: with the smallest backlogs as well
    fn small_backlogs_lose_nothing_either(shards) {
        let site = Plan::new(shards)
            .limits(|limits| limits.outbox_frames_max = 4)
            .config(|config| {
                if let Some(relay) = &mut config.relay {
                    relay.topic_capacity = 2;
                }
            })
            .start();
        let (mut reader, mut sender) = (join(&site), join(&site));
        let say = |number: u32| {
            relay_text(&format!(
                r#"{{"type":"message","topic":"t","event":"e","payload":{number}}}"#
            ))
        };
        sender.write((0..100).flat_map(say).collect::<Vec<u8>>());
        for number in 0..100 {
            reader.expect_text(&format!(
                r#"{{"type":"push","topic":"t","event":"e","payload":{number}}}"#
            ));
        }
    }

    /// S3: replies of 20 KB to 100 requests in one segment: nobody is slow who was offered nothing
    fn large_replies_to_a_burst_arrive(shards) {
        let site = start(shards);
        let mut wire = connect(&site);
        wire.write(text_of("large", 20_000).repeat(100));
        let expected = format!(r#"{{"event":"large","data":"{}"}}"#, "x".repeat(20_000));
        for _ in 0..100 {
            wire.expect_text(&expected);
        }
        expect_pong(&mut wire);
    }

    /// S3: the same where each reply alone is larger than an outbox
    fn a_reply_larger_than_an_outbox_arrives(shards) {
        let site = Plan::new(shards)
            .limits(|limits| limits.outbox_bytes_max = 65_536)
            .with(|server| server.module::<RoomModule>())
            .start();
        let mut wire = connect(&site);
        wire.write(text_of("large", 200_000).repeat(5));
        let expected = format!(r#"{{"event":"large","data":"{}"}}"#, "x".repeat(200_000));
        for _ in 0..5 {
            wire.expect_text(&expected);
        }
    }

    /// S3: 10,000 answers of 245 B on a relay
    fn many_answers_to_a_burst_arrive(shards) {
        let site = Plan::new(shards).start();
        let mut wire = join(&site);
        let topic = "t".repeat(210);
        let ask = relay_text(&format!(r#"{{"type":"unsubscribe","topic":"{topic}"}}"#));
        let answer = format!(r#"{{"type":"unsubscribed","topic":"{topic}"}}"#);
        let mut writer = Wire::over(wire.stream().try_clone().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write(ask.repeat(10_000)));
            for _ in 0..10_000 {
                wire.expect_text(&answer);
            }
        });
        expect_pong(&mut wire);
    }

    /// S4: what was asked before a close is answered before it
    fn a_close_behind_events_is_answered_last(shards) {
        let site = start(shards);
        let mut wire = connect(&site);
        let close = frame(true, Opcode::CLOSE, &1000_u16.to_be_bytes());
        let asked: Vec<u8> = (0..3).flat_map(|number| text_of("slow", number)).collect();
        wire.write([asked, close].concat());
        for number in 0..3 {
            wire.expect_text(&format!(r#"{{"event":"slow","data":{number}}}"#));
        }
        assert_eq!(wire.expect_close(1000), "");
        wire.expect_end();
    }

    /// S2: a steady reader of little is not stalled, and its pongs are not late, for they stand
    /// behind what it has not read
    fn a_slow_reader_is_left_alone(shards) {
        let site = Plan::new(shards)
            .limits(|limits| {
                limits.write_stall_ms_max = 900;
                limits.ping_interval_ms = 200;
                limits.pong_timeout_ms = 600;
                limits.outbox_bytes_max = 64 << 20;
                limits.outbox_frames_max = 10_000;
                limits.message_bytes_max = 1 << 20;
            })
            .with(|server| server.module::<RoomModule>())
            .start();
        let mut wire = Wire::over(client::connected_with_small_buffer(site.address));
        wire.upgrade(&format!("/rooms?token={}", token("demo", "ada")));
        wire.write(text_of("large", 400_000).repeat(10));
        let (mut chunk, mut read) = ([0; 2_048], 0);
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(4_000) {
            let count = read_some(&wire, &mut chunk);
            assert_ne!(count, 0, "it was closed after {read} bytes in {:?}", started.elapsed());
            read += count;
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(read < 3_000_000, "it was slow: {read}");
    }

    /// S2: a close is not cut while what stands before it is read
    fn a_close_behind_a_backlog_arrives(shards) {
        let site = Plan::new(shards)
            .limits(|limits| {
                limits.outbox_bytes_max = 64 << 20;
                limits.lifetime_ms_max = 700;
            })
            .with(|server| server.module::<RoomModule>())
            .start();
        let mut wire = Wire::over(client::connected_with_small_buffer(site.address));
        wire.upgrade(&format!("/rooms?token={}", token("demo", "ada")));
        wire.write(text_of("large", 1_000_000).repeat(6));
        let (mut chunk, mut last, mut read) = (vec![0; 65_536], Vec::new(), 0);
        let started = Instant::now();
        loop {
            let count = read_some(&wire, &mut chunk);
            if count == 0 || PATIENCE < started.elapsed() {
                break;
            }
            read += count;
            last.extend_from_slice(&chunk[..count]);
            last.drain(..last.len().saturating_sub(100));
            if last.ends_with(b"re-upgrade to continue") {
                assert!(Duration::from_millis(3_000) < started.elapsed(), "{:?}", started.elapsed());
                return assert!(6_000_000 < read, "{read}");
            }
            let pace = Duration::from_micros(700 * read as u64 / 1_000);
            std::thread::sleep(pace.saturating_sub(started.elapsed()));
        }
        panic!("cut after {read} bytes in {:?}", started.elapsed());
    }

    /// C4: a client that reads steadily, slower than it asks, is never closed for it
    fn who_reads_steadily_is_not_closed(shards) {
        let site = Plan::new(shards).raw("/raw", tidegate::gateway::socket::echo).start();
        let mut wire = Wire::over(client::connected_with_small_buffer(site.address));
        wire.upgrade("/raw");
        let text = "x".repeat(30_000);
        let ask = frame(true, Opcode::TEXT, text.as_bytes());
        let mut writer = Wire::over(wire.stream().try_clone().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write(ask.repeat(300)));
            for _ in 0..300 {
                wire.expect_text(&text);
                std::thread::sleep(Duration::from_millis(3));
            }
        });
    }

    /// C5: a bystander does not wait for pushes to many
    fn a_bystander_waits_for_nobody(shards) {
        const MEMBERS: usize = 1_500;
        let site = Plan::new(shards).start();
        let members: Vec<Wire> = (0..MEMBERS).map(|_| join(&site)).collect();
        let mut sender = join(&site);
        let mut bystander = join(&site);
        bystander.write(relay_text(r#"{"type":"unsubscribe","topic":"t"}"#));
        bystander.expect_text(r#"{"type":"unsubscribed","topic":"t"}"#);
        let mut waits = Vec::new();
        for round in 0..40 {
            sender.write(relay_text(&format!(
                r#"{{"type":"message","topic":"t","event":"e","payload":{round}}}"#
            )));
            let asked = Instant::now();
            expect_pong(&mut bystander);
            waits.push(asked.elapsed());
        }
        waits.sort_unstable();
        // A push to all of them takes this machine tens of milliseconds without optimization.
        assert!(waits[waits.len() / 2] < Duration::from_millis(20), "{waits:?}");
        drop(members);
    }
}

/// S2: time in which a handler holds the shard is nobody's silence
#[test]
fn a_held_shard_drops_nobody() {
    let site = Plan::new(1)
        .limits(|limits| {
            limits.ping_interval_ms = 300;
            limits.pong_timeout_ms = 300;
        })
        .with(|server| server.module::<RoomModule>())
        .start();
    let mut quiet: Vec<Wire> = (0..4).map(|_| connect(&site)).collect();
    let mut holder = connect(&site);
    for wire in &mut quiet {
        wire.expect_frame(Opcode::PING, "");
    }
    holder.write(text_of("hold", 1_500));
    // Their answers are on their way while nobody looks; what is asked next is answered too.
    std::thread::sleep(Duration::from_millis(1_300));
    for wire in &mut quiet {
        wire.send(Opcode::PONG, "");
    }
    for wire in &mut quiet {
        wire.expect_frame(Opcode::PING, "");
        wire.send(Opcode::PONG, "");
        wire.send(Opcode::PING, "still there?");
        wire.expect_frame(Opcode::PONG, "still there?");
    }
}

/// Reads what there is, at most so much; never 0 but at the end.
fn read_some(wire: &Wire, chunk: &mut [u8]) -> usize {
    loop {
        match wire.stream().read(chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read.unwrap(),
        }
    }
}
