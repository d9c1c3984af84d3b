//! One connection as a pure state machine: what came, what went, pauses of ours and time go in;
//! what to arm, to cancel and to close comes out. Knows no socket, no ring, no clock, and nothing of
//! what bytes mean; `deadlines.rs` has its decisions about time.
//!
//! Liveness is progress: a peer is judged by the bytes that came or left, and never by time in
//! which it was not read from. `now_ms` is time in which the shard ran (`State::peer_ms`).
//!
//! Invariants: at most one receive and one send are in flight; nothing is armed for a dead
//! connection; what waits counts against the peer only behind a send in flight.

use crate::shard::kernel::departed::Departed;

pub(crate) use crate::shard::socket::steps::{
    AfterClose, AfterEnd, Arm, Ended, Pause, Phase, Reader, Room,
};

/// What the kernel does with the receiving side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    /// Nothing is armed.
    Off,
    /// A receive is armed.
    Armed,
    /// A cancellation is on its way; it is armed until then.
    Cancelling,
}

/// The pauses that hold, a bit for each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Pauses(u8);

impl Pauses {
    fn bit(pause: Pause) -> u8 {
        1 << pause as u8
    }

    fn any(self) -> bool {
        self.0 != 0
    }
}

/// What is remembered of a peer for which something waited when it was looked at.
#[derive(Debug, Clone, Copy)]
struct Suspicion {
    acked: u64,
    /// Something waits to leave.
    waits: bool,
    /// Our ping has left when so many bytes are acknowledged; 0 when it has.
    ping_at: u64,
}

/// When things happened, in milliseconds of the shard's running time; 0 is never.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Times {
    pub(super) opened_ms: u64,
    pub(super) seen_ms: u64,
    /// Since when an answer to our ping is awaited.
    pub(super) pong_from_ms: u64,
    /// When bytes left last, as far as is known, or the send in flight began.
    pub(super) left_ms: u64,
    /// Since when a message is incomplete, or of whoever closes, since when.
    pub(super) since_ms: u64,
    /// Since when the peer is not listened to.
    deaf_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(super) phase: Phase,
    receiving: Receiving,
    pauses: Pauses,
    /// One buffer is received at a time, for a multishot receive goes on past any bound.
    is_careful: bool,
    sending: bool,
    /// A ping of ours is not answered.
    pub(super) pinged: bool,
    pub(super) times: Times,
    suspicion: Option<Box<Suspicion>>,
}

impl Machine {
    /// A new connection, whose request head is to be read.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            phase: Phase::Head(Vec::new()),
            receiving: Receiving::Off,
            pauses: Pauses::default(),
            is_careful: false,
            sending: false,
            pinged: false,
            times: Times {
                opened_ms: now_ms,
                seen_ms: now_ms,
                ..Times::default()
            },
            suspicion: None,
        }
    }

    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether frames may still be queued for the peer.
    pub(crate) fn takes_frames(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Ending { .. })
    }

    /// Whether its last bytes are on their way out.
    fn is_ending(&self) -> bool {
        matches!(
            self.phase,
            Phase::Refusing | Phase::Ending { .. } | Phase::Closing { .. }
        )
    }

    /// Whether its slot may be given to another.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Dead) && self.receiving == Receiving::Off && !self.sending
    }

    /// Whether a send is in flight.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending
    }

    // What comes.

    /// A receive brought bytes, and goes on if there are `more` to come.
    pub(crate) fn handle_received(&mut self, more: bool, now_ms: u64) -> Reader {
        if !more {
            self.receiving = Receiving::Off;
        }
        self.times.seen_ms = now_ms;
        self.pinged = false;
        self.heed(now_ms);
        match self.phase {
            Phase::Head(_) => Reader::Head,
            Phase::Open | Phase::Closing { peer_closed: false } => Reader::Frames,
            Phase::Refusing
            | Phase::Ending { .. }
            | Phase::Closing { peer_closed: true }
            | Phase::Lingering
            | Phase::Dead => Reader::Nobody,
        }
    }

    /// A receive brought nothing, and does not go on if there is no `more`.
    pub(crate) fn handle_receive_end(&mut self, why: Ended, more: bool, now_ms: u64) -> AfterEnd {
        if !more {
            self.receiving = Receiving::Off;
        }
        self.heed(now_ms);
        if self.receiving != Receiving::Off {
            return AfterEnd::Nothing;
        }
        match why {
            Ended::Starved => AfterEnd::WaitInLine,
            Ended::Interrupted if !matches!(self.phase, Phase::Dead) => AfterEnd::Rearm,
            Ended::End if self.is_ending() => {
                self.note_peer_closed();
                AfterEnd::FlushFirst
            }
            Ended::Interrupted | Ended::End | Ended::Broken => AfterEnd::Abort,
        }
    }

    /// The next receive is for the rest of the head.
    pub(crate) fn keep_head(&mut self, bytes: Vec<u8>) {
        if let Phase::Head(so_far) = &mut self.phase {
            *so_far = bytes;
        }
    }

    /// What came of the head so far.
    pub(crate) fn take_head(&mut self) -> Option<Vec<u8>> {
        match &mut self.phase {
            Phase::Head(so_far) => Some(std::mem::take(so_far)),
            _ => None,
        }
    }

    /// A message has begun and is not whole, or none has. A message is `new` if one before it has
    /// become whole. Whether a new one was begun.
    pub(crate) fn note_partial(&mut self, is_partial: bool, is_new: bool, now_ms: u64) -> bool {
        if !matches!(self.phase, Phase::Open) {
            return false;
        }
        let began = is_partial && (is_new || self.times.since_ms == 0);
        if !is_partial {
            self.times.since_ms = 0;
        } else if began {
            self.times.since_ms = now_ms;
        }
        began
    }

    /// What is to be done about the receive now. `is_idle` says that nothing waits for the peer or
    /// for a handler. `None` if all is as it should be.
    pub(crate) fn poll_receive(&mut self, is_idle: bool, now_ms: u64) -> Option<Arm> {
        let wanted = !self.pauses.any() && !matches!(self.phase, Phase::Dead);
        self.is_careful &= !is_idle;
        let arm = match self.receiving {
            Receiving::Off if wanted => {
                self.receiving = Receiving::Armed;
                let once = self.is_careful || matches!(self.phase, Phase::Head(_));
                Some(if once { Arm::Once } else { Arm::Many })
            }
            Receiving::Armed if !wanted => {
                self.receiving = Receiving::Cancelling;
                Some(Arm::Cancel)
            }
            _ => None,
        };
        self.heed(now_ms);
        arm
    }

    /// The peer is not read from until [`Machine::resume`]. Whether that is new.
    pub(crate) fn pause(&mut self, pause: Pause, now_ms: u64) -> bool {
        let before = self.pauses.0;
        self.pauses.0 |= Pauses::bit(pause);
        self.is_careful = true;
        self.heed(now_ms);
        before != self.pauses.0
    }

    /// The bound is free again. Whether that is new.
    pub(crate) fn resume(&mut self, pause: Pause) -> bool {
        let before = self.pauses.0;
        self.pauses.0 &= !Pauses::bit(pause);
        before != self.pauses.0
    }

    /// Nobody is protected any more, and the peer's close is to be seen. Whether that is new.
    pub(crate) fn resume_all(&mut self) -> bool {
        std::mem::take(&mut self.pauses).any()
    }

    /// Whether this bound is reached.
    pub(crate) fn is_paused_by(&self, pause: Pause) -> bool {
        self.pauses.0 & Pauses::bit(pause) != 0
    }

    /// Whether what has come may be decoded now. What came before a bound was reached but behind
    /// what reached it waits with us.
    pub(crate) fn may_decode(&self) -> bool {
        self.pauses.0 & !Pauses::bit(Pause::Kept) == 0
    }

    /// Whether what comes is decoded at all.
    pub(crate) fn reads(&self) -> bool {
        matches!(
            self.phase,
            Phase::Open | Phase::Closing { peer_closed: false }
        )
    }

    /// Whether what the peer says now would not be heard.
    pub(super) fn is_deaf(&self) -> bool {
        self.pauses.any() || self.receiving == Receiving::Off
    }

    /// Time in which the peer is not listened to is not its own.
    fn heed(&mut self, now_ms: u64) {
        let since_ms = self.times.deaf_ms;
        match (self.is_deaf(), since_ms) {
            (true, 0) => self.times.deaf_ms = now_ms,
            (false, 1..) => {
                self.times.deaf_ms = 0;
                let later = |at_ms: u64| match at_ms {
                    0 => 0,
                    before if before < since_ms => before + (now_ms - since_ms),
                    _ => now_ms,
                };
                self.times.pong_from_ms = later(self.times.pong_from_ms);
                if matches!(self.phase, Phase::Open) {
                    self.times.since_ms = later(self.times.since_ms);
                }
                self.times.seen_ms = later(self.times.seen_ms);
            }
            _ => {}
        }
    }

    // What goes.

    /// A send begins.
    pub(crate) fn handle_send(&mut self, now_ms: u64) {
        debug_assert!(!self.sending, "one send is in flight at most");
        self.sending = true;
        self.times.left_ms = now_ms;
    }

    /// A part of the send in flight has gone.
    pub(crate) fn handle_sent_some(&mut self, now_ms: u64) {
        debug_assert!(self.sending, "something was in flight");
        self.times.left_ms = now_ms;
    }

    /// The send in flight has ended.
    pub(crate) fn handle_sent(&mut self, now_ms: u64) {
        debug_assert!(self.sending, "something was in flight");
        self.sending = false;
        self.times.left_ms = now_ms;
    }

    /// What there is room for beside what waits. A backlog counts only behind a send in flight:
    /// before that nothing was offered to the peer that it could have taken.
    pub(crate) fn room(
        &self,
        (frames, bytes): (usize, usize),
        frames_max: usize,
        bytes_max: usize,
    ) -> Room {
        let is_full = frames_max <= frames || bytes_max < bytes;
        match self.sending {
            false if is_full => Room::Offer,
            false => Room::Free,
            // One frame always may wait.
            true if bytes_max < bytes && 1 < frames => Room::Full,
            true if is_full || bytes_max / 2 <= bytes => Room::Pause,
            true => Room::Free,
        }
    }

    /// Whether what the kernel says of departed bytes matters to what is due.
    pub(crate) fn asks_departed(&self) -> bool {
        self.sending || self.pinged || !matches!(self.phase, Phase::Head(_) | Phase::Open)
    }

    /// What the kernel says of the bytes that it was given.
    pub(crate) fn handle_departed(&mut self, seen: Departed, now_ms: u64) {
        let waits = 0 < seen.waiting;
        let before = self.suspicion.as_deref().copied();
        if before.is_none() && !waits {
            return;
        }
        let before = before.unwrap_or(Suspicion {
            acked: seen.acked,
            waits,
            ping_at: 0,
        });
        let progress = before.acked < seen.acked;
        if progress {
            self.times.left_ms = now_ms;
        }
        if before.waits && !waits && !matches!(self.phase, Phase::Open) {
            // Only now can the peer have read our close.
            self.times.since_ms = now_ms;
        }
        let mut ping_at = before.ping_at;
        if 0 < ping_at && (progress || !waits) {
            // It waits behind what leaves, or has just left: only from here on it can be answered.
            self.times.pong_from_ms = now_ms;
            if ping_at <= seen.acked || !waits {
                ping_at = 0;
            }
        }
        let next = Suspicion {
            acked: seen.acked,
            waits,
            ping_at,
        };
        self.suspicion = waits.then(|| Box::new(next));
    }

    /// Whether something waits to leave, as far as was looked.
    pub(super) fn waits(&self) -> bool {
        self.sending || self.suspicion.as_ref().is_some_and(|it| it.waits)
    }

    /// A ping is queued, behind what waits.
    pub(crate) fn handle_ping(&mut self, seen: Option<Departed>, now_ms: u64) {
        self.pinged = true;
        self.times.pong_from_ms = now_ms;
        let behind = seen.filter(|seen| 0 < seen.waiting);
        self.suspicion = behind.map(|seen| {
            Box::new(Suspicion {
                acked: seen.acked,
                waits: true,
                ping_at: seen.acked + seen.waiting,
            })
        });
    }

    /// Since when the send in flight makes no progress.
    pub(crate) fn stalled_ms(&self, now_ms: u64) -> u64 {
        match self.sending {
            true => now_ms.saturating_sub(self.times.left_ms),
            false => 0,
        }
    }

    // Its life.

    /// The request was admitted.
    pub(crate) fn open(&mut self, now_ms: u64) {
        debug_assert!(matches!(self.phase, Phase::Head(_)), "it opens once");
        self.phase = Phase::Open;
        self.times.opened_ms = now_ms;
    }

    /// The request was refused.
    pub(crate) fn refuse(&mut self, now_ms: u64) {
        debug_assert!(matches!(self.phase, Phase::Head(_)), "a head is refused");
        self.phase = Phase::Refusing;
        self.times.since_ms = now_ms;
    }

    /// Somebody closes, with this frame; `is_at_work` says that what came before may still be
    /// answered.
    pub(crate) fn close(
        &mut self,
        close: &[u8],
        (peer_closed, is_at_work): (bool, bool),
        now_ms: u64,
    ) -> AfterClose {
        match self.phase {
            Phase::Open if peer_closed && is_at_work => {
                self.phase = Phase::Ending {
                    close: Box::from(close),
                };
                self.times.since_ms = now_ms;
                AfterClose::Wait
            }
            Phase::Ending { .. } => AfterClose::FinishWork,
            Phase::Open => {
                self.phase = Phase::Closing { peer_closed };
                self.times.since_ms = now_ms;
                AfterClose::Say
            }
            Phase::Closing { peer_closed: false } if peer_closed => {
                self.note_peer_closed();
                AfterClose::Answered
            }
            _ => AfterClose::Nothing,
        }
    }

    /// What came before the peer's close was answered, or had its time: the close frame that is to
    /// be queued.
    pub(crate) fn finish_work(&mut self, now_ms: u64) -> Option<Box<[u8]>> {
        let Phase::Ending { close } = &mut self.phase else {
            return None;
        };
        let close = std::mem::take(close);
        self.phase = Phase::Closing { peer_closed: true };
        self.times.since_ms = now_ms;
        Some(close)
    }

    fn note_peer_closed(&mut self) {
        if let Phase::Closing { peer_closed } = &mut self.phase {
            *peer_closed = true;
        }
    }

    /// Whether the socket is to be shut when nothing waits to be sent.
    pub(crate) fn finishes_when_sent(&self) -> bool {
        matches!(
            self.phase,
            Phase::Refusing | Phase::Closing { peer_closed: true }
        )
    }

    /// Everything was handed to the kernel. The peer's end is awaited.
    pub(crate) fn linger(&mut self, now_ms: u64) {
        self.phase = Phase::Lingering;
        self.times.since_ms = now_ms;
    }

    /// It is over. The phase before.
    pub(crate) fn die(&mut self) -> Phase {
        std::mem::replace(&mut self.phase, Phase::Dead)
    }

    /// What must hold between two turns.
    pub(crate) fn assert_invariants(&self) {
        if cfg!(debug_assertions) {
            let is_dead = matches!(self.phase, Phase::Dead);
            assert!(!(is_dead && self.pauses.any()), "nobody waits for the dead");
            let deaf = self.times.deaf_ms != 0;
            assert_eq!(deaf, self.is_deaf(), "since when it is deaf is known");
        }
    }
}

#[cfg(test)]
#[path = "machine_model.rs"]
mod model;
