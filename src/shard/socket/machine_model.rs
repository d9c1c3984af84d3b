//! Drives the machine of a connection without a ring: any order of what may happen, against what a
//! ring would hold, and peers on a clock of their own against what may be done to them. Knows no
//! socket.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::config::Limits;

use super::*;
use crate::shard::socket::deadlines::{CLOSE_MS_MAX, Due, Facts, due};

/// What may happen to a connection.
#[derive(Debug, Clone, Copy)]
enum Event {
    Received { more: bool },
    Ended { why: u8, more: bool },
    Pause(u8),
    Resume(u8),
    ResumeAll,
    Sent { whole: bool },
    Send,
    Open,
    Close { peer: bool, at_work: bool },
    FinishWork,
    Linger,
    Die,
    Poll { is_idle: bool },
    Pass { ms: u64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = prop_oneof![
        any::<bool>().prop_map(|more| Event::Received { more }),
        (0..4_u8, any::<bool>()).prop_map(|(why, more)| Event::Ended { why, more }),
        (0..4_u8).prop_map(Event::Pause),
        (0..4_u8).prop_map(Event::Resume),
        Just(Event::ResumeAll),
        any::<bool>().prop_map(|whole| Event::Sent { whole }),
        Just(Event::Send),
        Just(Event::Open),
        any::<(bool, bool)>().prop_map(|(peer, at_work)| Event::Close { peer, at_work }),
        Just(Event::FinishWork),
        Just(Event::Linger),
        Just(Event::Die),
        any::<bool>().prop_map(|is_idle| Event::Poll { is_idle }),
        (0..2_000_u64).prop_map(|ms| Event::Pass { ms }),
    ];
    proptest::collection::vec(one, 1..60)
}

fn pause_of(number: u8) -> Pause {
    [Pause::Inbox, Pause::Outbox, Pause::Publishes, Pause::Kept][usize::from(number)]
}

fn ended_of(number: u8) -> Ended {
    [
        Ended::Starved,
        Ended::Interrupted,
        Ended::End,
        Ended::Broken,
    ][usize::from(number)]
}

/// What the kernel holds for one connection.
#[derive(Debug, Default)]
struct Kernel {
    armed: bool,
    cancelled: bool,
    sending: bool,
    pauses: [bool; 4],
    dead: bool,
}

impl Kernel {
    fn arm(&mut self, machine: &mut Machine, is_idle: bool, now_ms: u64) {
        let wanted = !self.dead && !self.pauses.contains(&true);
        match machine.poll_receive(is_idle, now_ms) {
            Some(Arm::Cancel) => {
                assert!(self.armed && !self.cancelled && !wanted);
                self.cancelled = true;
            }
            Some(Arm::Once | Arm::Many) => {
                assert!(
                    !self.armed && wanted,
                    "one receive, and only who is read from"
                );
                self.armed = true;
            }
            None => assert!(self.armed == wanted || self.cancelled),
        }
    }

    fn apply(&mut self, machine: &mut Machine, event: Event, now_ms: &mut u64) {
        let now = *now_ms;
        match event {
            Event::Received { more } if self.armed => {
                self.goes_on(more);
                machine.handle_received(more, now);
            }
            Event::Ended { why, more } if self.armed => {
                self.goes_on(more);
                if machine.handle_receive_end(ended_of(why), more, now) == AfterEnd::Abort {
                    machine.die();
                    self.dead = true;
                }
            }
            Event::Pause(number) if !self.dead => {
                machine.pause(pause_of(number), now);
                self.pauses[usize::from(number)] = true;
            }
            Event::Resume(number) => {
                machine.resume(pause_of(number));
                self.pauses[usize::from(number)] = false;
            }
            Event::ResumeAll => {
                machine.resume_all();
                self.pauses = [false; 4];
            }
            Event::Send if !self.sending && !matches!(machine.phase(), Phase::Head(_)) => {
                machine.handle_send(now);
                self.sending = true;
            }
            Event::Sent { whole } if self.sending => {
                match whole {
                    true => machine.handle_sent(now),
                    false => machine.handle_sent_some(now),
                }
                self.sending = !whole;
            }
            Event::Poll { is_idle } => self.arm(machine, is_idle, now),
            Event::Pass { ms } => *now_ms += ms,
            other => self.live(machine, other, now),
        }
    }

    fn goes_on(&mut self, more: bool) {
        self.armed = more;
        self.cancelled &= more;
    }

    fn live(&mut self, machine: &mut Machine, event: Event, now: u64) {
        let is_head = matches!(machine.phase(), Phase::Head(_));
        match event {
            Event::Open if is_head => machine.open(now),
            Event::Close { peer, at_work } if !is_head => {
                machine.close(b"close", (peer, at_work), now);
            }
            Event::FinishWork => {
                let was = matches!(machine.phase(), Phase::Ending { .. });
                assert_eq!(machine.finish_work(now).is_some(), was);
            }
            Event::Linger if machine.finishes_when_sent() => machine.linger(now),
            Event::Die => {
                machine.resume_all();
                self.pauses = [false; 4];
                machine.die();
                self.dead = true;
            }
            _ => {}
        }
    }
}

/// Whatever happens, at most one receive is armed, none for whom nothing may be armed, and a dead
/// connection is over as soon as the kernel has ended what it had.
#[test]
fn the_machine_and_the_kernel_agree() {
    let config = Config::with_cases(2_000);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let run = |events: Vec<Event>| {
        let (mut machine, mut kernel, mut now_ms) = (Machine::new(1_000), Kernel::default(), 1_000);
        kernel.arm(&mut machine, true, now_ms);
        for event in events {
            kernel.apply(&mut machine, event, &mut now_ms);
            kernel.arm(&mut machine, false, now_ms);
            if !kernel.dead {
                machine.assert_invariants();
            }
            assert_eq!(machine.is_sending(), kernel.sending);
            assert_eq!(
                machine.is_over(),
                kernel.dead && !kernel.armed && !kernel.sending
            );
        }
        kernel.apply(&mut machine, Event::Die, &mut now_ms);
        kernel.arm(&mut machine, false, now_ms);
        kernel.apply(
            &mut machine,
            Event::Ended {
                why: 1,
                more: false,
            },
            &mut now_ms,
        );
        kernel.apply(&mut machine, Event::Sent { whole: true }, &mut now_ms);
        assert!(machine.is_over());
        Ok(())
    };
    runner.run(&events(), run).unwrap();
}

/// A peer and the kernel between it and us, in steps of 50 ms.
struct Peer {
    machine: Machine,
    now_ms: u64,
    /// Bytes that it reads in a step.
    reads: u64,
    /// Whether it answers pings that it has read.
    answers: bool,
    given: u64,
    taken: u64,
    /// Where our ping stands in what it is given.
    ping_at: Option<u64>,
    limits: Limits,
    facts: Facts,
}

const STEP_MS: u64 = 50;

impl Peer {
    fn new(reads: u64, answers: bool) -> Self {
        let mut machine = Machine::new(1_000);
        machine.open(1_000);
        machine.poll_receive(true, 1_000);
        let limits = Limits {
            ping_interval_ms: 1_000,
            pong_timeout_ms: 500,
            write_stall_ms_max: 2_000,
            ..Limits::default()
        };
        Self {
            machine,
            now_ms: 1_000,
            reads,
            answers,
            given: 0,
            taken: 0,
            ping_at: None,
            limits,
            facts: Facts::default(),
        }
    }

    /// So much is given to the kernel in one send.
    fn give(&mut self, bytes: u64) {
        self.machine.handle_send(self.now_ms);
        self.given += bytes;
    }

    fn departed(&self) -> Departed {
        Departed {
            acked: self.taken,
            waiting: self.given - self.taken,
        }
    }

    /// Lets a step pass; what is due then, if anything but a ping.
    fn step(&mut self) -> Option<Due> {
        self.now_ms += STEP_MS;
        self.taken = self.given.min(self.taken + self.reads);
        if self.taken == self.given && self.machine.is_sending() {
            self.machine.handle_sent(self.now_ms);
        }
        let has_read_ping = self.ping_at.is_some_and(|at| at <= self.taken);
        if has_read_ping && self.answers && !self.machine.is_deaf() {
            self.ping_at = None;
            self.machine.handle_received(true, self.now_ms);
        }
        self.look()
    }

    fn look(&mut self) -> Option<Due> {
        let now_ms = self.now_ms;
        if self.machine.asks_departed() {
            let departed = self.departed();
            self.machine.handle_departed(departed, now_ms);
        }
        match due(&self.machine, self.facts, &self.limits, now_ms) {
            Due::Nothing { next_ms } => {
                assert!(now_ms < next_ms, "a look that is due is met");
                None
            }
            Due::Ping => {
                let departed = self.departed();
                self.machine.handle_ping(Some(departed), now_ms);
                self.given += 2;
                self.ping_at = Some(self.given);
                None
            }
            other => Some(other),
        }
    }

    /// When something is done to it, and what, within so many steps.
    fn fate(&mut self, steps: u64) -> Option<(u64, Due)> {
        let began_ms = self.now_ms;
        (0..steps).find_map(|_| {
            let due = self.step()?;
            Some((self.now_ms - began_ms, due))
        })
    }
}

/// S2: who reads, however slowly, is neither stalled nor silent: its pong stands behind what it reads.
#[test]
fn a_slow_reader_lives() {
    let mut peer = Peer::new(1_550, true);
    peer.give(4 << 20);
    assert_eq!(peer.fate(4_000), None);
    assert_eq!(peer.taken, peer.given);
}

/// Who reads nothing is stalled, at the time that the limit says and a look at most.
#[test]
fn a_peer_that_reads_nothing_stalls() {
    let mut peer = Peer::new(0, true);
    peer.limits.pong_timeout_ms = 60_000;
    peer.give(1 << 20);
    let (after_ms, due) = peer.fate(100).unwrap();
    assert_eq!((due, after_ms), (Due::WriteStall, 2_000));
}

/// D-21: who answers nothing is gone, at the time that the limits say.
#[test]
fn a_silent_peer_is_dropped() {
    let mut peer = Peer::new(1 << 20, false);
    let (after_ms, due) = peer.fate(100).unwrap();
    assert_eq!((due, after_ms), (Due::PongTimeout, 1_500));
}

/// Who reads what stands before the ping, and then does not answer, has from then on.
#[test]
fn a_peer_that_reads_but_never_answers_is_dropped() {
    let mut peer = Peer::new(10_000, false);
    peer.give(300_000);
    peer.limits.write_stall_ms_max = 60_000;
    let (after_ms, due) = peer.fate(400).unwrap();
    assert_eq!(due, Due::PongTimeout);
    assert!((1_500..=2_600).contains(&after_ms), "{after_ms}");
}

/// S2: while it is not read from, nothing that it says could be heard; its time stands still.
#[test]
fn a_pause_of_ours_is_not_the_peers_silence() {
    for pause in [Pause::Inbox, Pause::Outbox, Pause::Publishes, Pause::Kept] {
        let mut peer = Peer::new(1 << 20, true);
        peer.machine.note_partial(true, true, peer.now_ms);
        peer.limits.message_complete_ms_max = 400;
        peer.facts.idle_since_ms = peer.now_ms;
        peer.limits.idle_ms_max = 400;
        peer.machine.pause(pause, peer.now_ms);
        peer.machine.poll_receive(false, peer.now_ms);
        assert_eq!(peer.fate(200), None, "{pause:?}");
        peer.machine.resume(pause);
        peer.machine
            .handle_receive_end(Ended::Interrupted, false, peer.now_ms);
        peer.facts.idle_since_ms = 0;
        peer.machine.poll_receive(false, peer.now_ms);
        assert_eq!(peer.look(), None, "{pause:?}");
        let (after_ms, due) = peer.fate(20).unwrap();
        assert_eq!((due, after_ms), (Due::MessageTimeout, 400), "{pause:?}");
    }
}

/// The same without a buffer to receive into.
#[test]
fn a_starved_receive_is_not_the_peers_silence() {
    let mut peer = Peer::new(1 << 20, true);
    let after = peer
        .machine
        .handle_receive_end(Ended::Starved, false, peer.now_ms);
    assert_eq!(after, AfterEnd::WaitInLine);
    assert_eq!(peer.fate(200), None);
}

/// S2: a close is not cut while what stands before it is read, and is when nothing is read.
#[test]
fn a_close_waits_for_a_reader() {
    for (reads, is_slow, expected_ms) in [
        (20_000, false, None),
        (0, false, Some(2_000)),
        (0, true, Some(CLOSE_MS_MAX)),
    ] {
        let mut peer = Peer::new(reads, true);
        peer.facts.is_slow = is_slow;
        peer.give(3_000_000);
        peer.machine.close(b"close", (false, false), peer.now_ms);
        let fate = peer.fate(3_000_000 / 20_000);
        assert_eq!(fate.map(|(after_ms, _)| after_ms), expected_ms, "{reads}");
        if expected_ms.is_none() {
            // It has all of it now, and time to answer.
            let (after_ms, due) = peer.fate(100).unwrap();
            assert_eq!(due, Due::CloseTimeout);
            assert!(
                (CLOSE_MS_MAX..=CLOSE_MS_MAX + 100).contains(&after_ms),
                "{after_ms}"
            );
        }
    }
}

/// C4: after a pause one buffer is received at a time, until nothing waits any more.
#[test]
fn who_was_paused_is_read_with_care() {
    let mut machine = Machine::new(1);
    machine.open(1);
    assert_eq!(machine.poll_receive(true, 1), Some(Arm::Many));
    assert!(machine.pause(Pause::Outbox, 1) && !machine.pause(Pause::Outbox, 1));
    assert_eq!(machine.poll_receive(false, 1), Some(Arm::Cancel));
    machine.handle_receive_end(Ended::Interrupted, false, 1);
    assert_eq!(machine.poll_receive(false, 1), None);
    machine.resume(Pause::Outbox);
    assert_eq!(machine.poll_receive(false, 1), Some(Arm::Once));
    machine.handle_received(false, 1);
    assert_eq!(machine.poll_receive(false, 1), Some(Arm::Once));
    machine.handle_received(false, 1);
    assert_eq!(machine.poll_receive(true, 1), Some(Arm::Many));
}

/// C1, S3: before anything is in flight a backlog says nothing of the peer.
#[test]
fn a_backlog_counts_behind_a_send() {
    let mut machine = Machine::new(1);
    machine.open(1);
    assert_eq!(machine.room((7, 100), 8, 1_000), Room::Free);
    assert_eq!(machine.room((8, 100), 8, 1_000), Room::Offer);
    assert_eq!(machine.room((1, 5_000), 8, 1_000), Room::Offer);
    machine.handle_send(1);
    assert_eq!(machine.room((7, 100), 8, 1_000), Room::Free);
    assert_eq!(machine.room((8, 100), 8, 1_000), Room::Pause);
    assert_eq!(machine.room((1, 500), 8, 1_000), Room::Pause);
    assert_eq!(machine.room((1, 1_001), 8, 1_000), Room::Pause);
    assert_eq!(machine.room((2, 1_001), 8, 1_000), Room::Full);
}
