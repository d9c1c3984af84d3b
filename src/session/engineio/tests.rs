//! The machine by its rows, and against made-up orders of polls, posts, probes and pushes: no message
//! is lost or doubled, and each request is answered once.

use proptest::prelude::*;

use super::*;
use crate::proto::engineio::Payload;

const LIMITS: EngineLimits = EngineLimits {
    ping_interval_ms: 300,
    pong_timeout_ms: 200,
    upgrade_ms_max: 100,
    payload_bytes_max: 1_000,
};

struct Rig {
    engine: Engine<u8>,
    now_ms: u64,
    effects: Effects<u8>,
}

impl Rig {
    fn polling() -> Self {
        let engine = Engine::of_polling(Sid::new(0, 0, [1; 12]), 1_000, &LIMITS);
        Self {
            engine,
            now_ms: 1_000,
            effects: Effects::new(),
        }
    }

    fn socket() -> Self {
        Self {
            engine: Engine::of_socket(1, 1_000, &LIMITS),
            ..Self::polling()
        }
    }

    fn take(&mut self) -> Vec<Effect<u8>> {
        self.effects.drain(..).collect()
    }

    fn poll(&mut self, id: PollId) -> Vec<Effect<u8>> {
        self.engine
            .handle_poll(id, self.now_ms, &LIMITS, &mut self.effects);
        self.take()
    }

    fn packet(&mut self, from: Option<u8>, packet: Packet<'static>) -> Up<'static> {
        self.engine
            .handle_packet(from, packet, &LIMITS, &mut self.effects)
    }

    fn say(&mut self, text: &str) {
        self.engine.queue(&frame::text(text.as_bytes()), 1);
        self.engine.flush(&LIMITS, &mut self.effects);
    }

    fn pass(&mut self, ms: u64) -> Vec<Effect<u8>> {
        self.now_ms += ms;
        self.engine
            .handle_time(self.now_ms, &LIMITS, &mut self.effects);
        self.take()
    }
}

fn answer(id: PollId, body: &str) -> Effect<u8> {
    Effect::Answer(id, body.as_bytes().to_vec())
}

fn sent(socket: u8, text: &str) -> Effect<u8> {
    Effect::Send(socket, frame::text(text.as_bytes()).to_vec())
}

/// S-11
#[test]
fn a_poll_waits_for_packets() {
    let mut rig = Rig::polling();
    assert_eq!(rig.poll(1), []);
    rig.say("4a");
    assert_eq!(rig.take(), [answer(1, "4a")]);
    rig.say("4b");
    rig.say("4c");
    assert_eq!(rig.poll(2), [answer(2, "4b\u{1e}4c")]);
    assert_eq!(rig.engine.waiting(), (0, 0));
}

/// S-11
#[test]
fn a_second_poll_and_one_that_is_given_up_end_the_session() {
    let mut rig = Rig::polling();
    rig.poll(1);
    let ended = Effect::Ended(Reason::TransportError);
    assert_eq!(rig.poll(2), [answer(1, "1"), Effect::Refuse(2), ended]);
    assert_eq!(rig.poll(3), [Effect::Refuse(3)]);
    let mut rig = Rig::polling();
    rig.poll(1);
    rig.engine.handle_poll_gone(1, &mut rig.effects);
    assert_eq!(rig.take(), [Effect::Ended(Reason::TransportError)]);
    assert!(rig.engine.is_over());
}

/// S-12
#[test]
fn a_close_in_a_body_ends_the_poll_with_a_noop() {
    let mut rig = Rig::polling();
    rig.poll(1);
    rig.packet(None, Packet::Close);
    let ended = Effect::Ended(Reason::TransportClose);
    assert_eq!(rig.take(), [answer(1, "6"), ended]);
}

/// S-12: a poll that was sent before the close, and comes behind it, ends as one that was there
#[test]
fn a_close_in_a_body_may_overtake_the_poll() {
    let closed = || {
        let mut rig = Rig::polling();
        rig.packet(None, Packet::Close);
        assert_eq!(rig.take(), [Effect::Ended(Reason::TransportClose)]);
        assert_eq!(rig.packet(None, Packet::Text("late")), Up::Nothing);
        rig
    };
    let mut rig = closed();
    assert_eq!(rig.poll(1), [answer(1, "6")]);
    assert_eq!(rig.poll(2), [Effect::Refuse(2)]);
    let mut rig = closed();
    assert_eq!(rig.pass(50), []);
    assert_eq!(rig.poll(1), [Effect::Refuse(1)]);
}

/// S-12
#[test]
fn a_second_post_meanwhile_ends_the_session() {
    let mut rig = Rig::polling();
    let begin = |rig: &mut Rig| {
        rig.engine
            .handle_post_begin(rig.now_ms, &LIMITS, &mut rig.effects);
        rig.take()
    };
    let end = |rig: &mut Rig| {
        rig.engine
            .handle_post_end(rig.now_ms, &LIMITS, &mut rig.effects)
    };
    assert_eq!(begin(&mut rig), []);
    assert!(end(&mut rig));
    assert_eq!(begin(&mut rig), []);
    assert_eq!(begin(&mut rig), [Effect::Ended(Reason::TransportError)]);
    assert!(!end(&mut rig));
}

/// S-13
#[test]
fn a_probe_ends_the_poll_at_once_and_an_upgrade_carries_over_what_waits() {
    let mut rig = Rig::polling();
    rig.poll(1);
    rig.engine
        .handle_socket(1, 1_000, &LIMITS, &mut rig.effects);
    assert_eq!(rig.take(), []);
    rig.packet(Some(1), Packet::Ping(PROBE));
    assert_eq!(rig.take(), [sent(1, "3probe"), answer(1, "6")]);
    rig.say("4a");
    assert_eq!(rig.poll(2), [answer(2, "6")], "packets wait for the socket");
    // A second socket is turned away, the first unharmed.
    rig.engine
        .handle_socket(2, 1_000, &LIMITS, &mut rig.effects);
    assert_eq!(rig.take(), [Effect::Close(2, 1000)]);
    rig.packet(Some(1), Packet::Upgrade);
    assert_eq!(rig.take(), [sent(1, "4a")]);
    assert_eq!(rig.engine.socket(), Some(1));
    assert_eq!(rig.poll(3), [Effect::Refuse(3)]);
    rig.engine
        .handle_socket(3, 1_000, &LIMITS, &mut rig.effects);
    assert_eq!(rig.take(), [Effect::Close(3, 1000)]);
    assert_eq!(rig.packet(Some(1), Packet::Text("x")), Up::Text("x"));
}

/// S-13
#[test]
fn a_probe_that_is_not_finished_leaves_polling_as_it_was() {
    let mut rig = Rig::polling();
    rig.engine
        .handle_socket(1, 1_000, &LIMITS, &mut rig.effects);
    rig.packet(Some(1), Packet::Ping(PROBE));
    rig.take();
    rig.say("4a");
    assert_eq!(rig.pass(99), []);
    assert_eq!(rig.pass(1), [Effect::GiveUpgradeUp(1)]);
    assert_eq!(rig.poll(1), [answer(1, "4a")]);
    // Nor one whose socket breaks, or says something else.
    rig.engine
        .handle_socket(2, 1_000, &LIMITS, &mut rig.effects);
    rig.engine
        .handle_socket_gone(2, Reason::TransportClose, &LIMITS, &mut rig.effects);
    rig.engine
        .handle_socket(3, 1_000, &LIMITS, &mut rig.effects);
    rig.packet(Some(3), Packet::Text("x"));
    assert_eq!(rig.take(), [Effect::Close(3, 1002)]);
    rig.engine
        .handle_socket(4, 1_000, &LIMITS, &mut rig.effects);
    rig.packet(Some(4), Packet::Upgrade);
    assert_eq!(rig.take(), [Effect::Close(4, 1002)]);
    assert!(rig.engine.is_open());
}

/// S-14
#[test]
fn pings_go_out_whatever_else_is_said() {
    let mut rig = Rig::socket();
    for _ in 0..4 {
        for _ in 0..2 {
            assert_eq!(rig.pass(100), []);
            assert_eq!(rig.packet(Some(1), Packet::Text("x")), Up::Text("x"));
        }
        assert_eq!(rig.pass(100), [sent(1, "2")]);
        rig.packet(Some(1), Packet::Text("any packet is an answer"));
    }
    assert_eq!(rig.pass(300), [sent(1, "2")]);
    assert_eq!(rig.pass(199), []);
    let ended = Effect::Ended(Reason::PingTimeout);
    assert_eq!(rig.pass(1), [Effect::Close(1, 1000), ended]);
}

/// S-15
#[test]
fn a_request_past_the_deadline_is_refused_though_nobody_has_looked() {
    let mut rig = Rig::polling();
    rig.now_ms += 499;
    assert_eq!(rig.poll(1), []);
    let mut rig = Rig::polling();
    rig.now_ms += 500;
    let ended = Effect::Ended(Reason::PingTimeout);
    assert_eq!(rig.poll(1), [ended, Effect::Refuse(1)]);
}

/// S-55
#[test]
fn a_close_of_ours_is_told_to_the_next_poll() {
    let mut rig = Rig::polling();
    rig.say("4a");
    let close = |rig: &mut Rig| {
        let (now_ms, effects) = (rig.now_ms, &mut rig.effects);
        rig.engine
            .handle_close(Reason::Forced, 1012, now_ms, &LIMITS, effects);
        rig.take()
    };
    assert_eq!(close(&mut rig), [Effect::Ended(Reason::Forced)]);
    assert_eq!(close(&mut rig), []);
    assert_eq!(rig.poll(1), [answer(1, "4a\u{1e}1")]);
    assert!(rig.engine.is_over());
    let mut rig = Rig::polling();
    rig.poll(1);
    let ended = Effect::Ended(Reason::Forced);
    assert_eq!(close(&mut rig), [ended, answer(1, "1")]);
    let mut rig = Rig::polling();
    close(&mut rig);
    assert_eq!(rig.pass(200), []);
    assert!(rig.engine.is_over());
    let mut rig = Rig::socket();
    let ended = Effect::Ended(Reason::Forced);
    assert_eq!(close(&mut rig), [Effect::Close(1, 1012), ended]);
}

/// S-13, S-55: a client whose probe was answered has stopped polling, and hears of an end by its socket: when it
/// changes to that, or when there was time enough
#[test]
fn a_close_of_ours_waits_for_an_upgrade_that_is_under_way() {
    let probed = || {
        let mut rig = Rig::polling();
        rig.engine
            .handle_socket(1, 1_000, &LIMITS, &mut rig.effects);
        rig.packet(Some(1), Packet::Ping(PROBE));
        rig.take();
        rig.say("4a");
        let (now_ms, effects) = (rig.now_ms, &mut rig.effects);
        rig.engine
            .handle_close(Reason::Forced, 1012, now_ms, &LIMITS, effects);
        assert_eq!(rig.take(), [Effect::Ended(Reason::Forced)]);
        rig
    };
    let mut rig = probed();
    rig.packet(Some(1), Packet::Upgrade);
    assert_eq!(rig.take(), [sent(1, "4a"), Effect::Close(1, 1012)]);
    assert!(rig.engine.is_over());
    let mut rig = probed();
    assert_eq!(
        rig.poll(1),
        [Effect::Close(1, 1012), answer(1, "4a\u{1e}1")]
    );
    assert!(rig.engine.is_over());
    let mut rig = probed();
    assert_eq!(rig.pass(200), [Effect::Close(1, 1012)]);
    assert!(rig.engine.is_over());
}

#[derive(Debug, Clone)]
enum Step {
    Poll,
    GiveUp,
    Say,
    Hear,
    Socket,
    Probe,
    Upgrade,
    Break,
    Pass(u64),
    Invalid,
    Close,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Poll),
        1 => Just(Step::GiveUp),
        6 => Just(Step::Say),
        4 => Just(Step::Hear),
        2 => Just(Step::Socket),
        2 => Just(Step::Probe),
        2 => Just(Step::Upgrade),
        1 => Just(Step::Break),
        2 => (1_u64..150).prop_map(Step::Pass),
        1 => Just(Step::Invalid),
        1 => Just(Step::Close),
    ]
}

/// What the client has seen, in order.
#[derive(Default)]
struct Seen {
    said: u32,
    heard: Vec<u32>,
    open_polls: Vec<PollId>,
    ended: usize,
    closed: Vec<u8>,
}

impl Seen {
    fn note(&mut self, effects: Vec<Effect<u8>>) {
        for effect in effects {
            match effect {
                Effect::Answer(poll, body) => {
                    self.answered(poll);
                    for packet in Payload::of(&body).unwrap().packets() {
                        match packet {
                            Ok(Packet::Text(number)) => self.heard.push(number.parse().unwrap()),
                            Ok(_) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
                Effect::Refuse(poll) => self.answered(poll),
                Effect::Send(socket, frames) => {
                    assert!(!self.closed.contains(&socket), "nothing behind a close");
                    let mut writer = PayloadWriter::new(1 << 20);
                    assert_eq!(writer.take(&frames).0, frames.len());
                    let body = writer.into_body();
                    for packet in Payload::of(&body).unwrap().packets() {
                        if let Ok(Packet::Text(number)) = packet {
                            self.heard.push(number.parse().unwrap());
                        }
                    }
                }
                Effect::Close(socket, _) | Effect::GiveUpgradeUp(socket) => {
                    self.closed.push(socket);
                }
                Effect::Ended(_) => self.ended += 1,
            }
        }
    }

    fn answered(&mut self, poll: PollId) {
        let at = self.open_polls.iter().position(|open| *open == poll);
        self.open_polls.remove(at.expect("answered once"));
    }
}

impl Seen {
    /// What holds after every step.
    fn check(&self, rig: &Rig) -> Result<(), TestCaseError> {
        let in_order: Vec<u32> = (1..).take(self.heard.len()).collect();
        prop_assert_eq!(&self.heard, &in_order);
        prop_assert!(self.ended <= 1);
        prop_assert!(self.open_polls.len() <= 1);
        if rig.engine.is_open() {
            prop_assert_eq!(self.ended, 0);
            let waiting = rig.engine.waiting().0;
            prop_assert!(self.said as usize <= self.heard.len() + waiting);
        } else {
            prop_assert_eq!(self.ended, 1);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(crate::proto::proptest_config())]

    #[test]
    fn nothing_is_lost_doubled_or_answered_twice(
        steps in proptest::collection::vec(any_step(), 0..60),
    ) {
        let (mut rig, mut seen) = (Rig::polling(), Seen::default());
        let (mut next_poll, mut socket) = (0, 0);
        for step in steps {
            let engine = &mut rig.engine;
            match step {
                Step::Poll => {
                    next_poll += 1;
                    seen.open_polls.push(next_poll);
                    engine.handle_poll(next_poll, rig.now_ms, &LIMITS, &mut rig.effects);
                }
                Step::GiveUp => {
                    if let Some(poll) = seen.open_polls.pop() {
                        engine.handle_poll_gone(poll, &mut rig.effects);
                    }
                }
                Step::Say if engine.is_open() => {
                    seen.said += 1;
                    let whole = frame::text(format!("4{}", seen.said).as_bytes());
                    match engine.socket() {
                        Some(socket) => rig.effects.push(Effect::Send(socket, whole.to_vec())),
                        None => {
                            engine.queue(&whole, 1);
                            engine.flush(&LIMITS, &mut rig.effects);
                        }
                    }
                }
                Step::Hear if engine.is_open() => {
                    let from = engine.socket();
                    let up = engine.handle_packet(from, Packet::Text("x"), &LIMITS, &mut rig.effects);
                    prop_assert_eq!(up, Up::Text("x"));
                }
                Step::Socket => {
                    socket += 1;
                    engine.handle_socket(socket, rig.now_ms, &LIMITS, &mut rig.effects);
                }
                Step::Probe | Step::Upgrade if engine.socket().is_none() && 0 < socket => {
                    let packet = match step {
                        Step::Probe => Packet::Ping(PROBE),
                        _ => Packet::Upgrade,
                    };
                    if !seen.closed.contains(&socket) {
                        engine.handle_packet(Some(socket), packet, &LIMITS, &mut rig.effects);
                    }
                }
                Step::Break if 0 < socket && !seen.closed.contains(&socket) => {
                    let reason = Reason::TransportClose;
                    engine.handle_socket_gone(socket, reason, &LIMITS, &mut rig.effects);
                    seen.closed.push(socket);
                }
                Step::Pass(ms) => {
                    rig.now_ms += ms;
                    engine.handle_time(rig.now_ms, &LIMITS, &mut rig.effects);
                }
                Step::Invalid if engine.is_open() => {
                    engine.handle_invalid(engine.socket(), &mut rig.effects);
                }
                Step::Close => {
                    let now_ms = rig.now_ms;
                    engine.handle_close(Reason::Forced, 1000, now_ms, &LIMITS, &mut rig.effects);
                }
                _ => {}
            }
            let effects = rig.take();
            seen.note(effects);
            seen.check(&rig)?;
        }
    }
}
