//! From sends to the ring, and from the ring back. Knows who goes first, and when a turn has sent enough.
//!
//! Bounds: a turn makes at most 1,000 sends and takes `turn_us_max` for them; who is left is first in
//! the next one.

use crate::metrics::Counter;

use crate::shard::kernel::clock::now;
use crate::shard::socket::machine::Phase;
use crate::shard::turn::Turn;

/// At most so many sends are made in a turn; who is left is first in the next one.
const SENDS_TURN_MAX: usize = 1_000;
/// So many are submitted together: the kernel does their work at once, so the clock is looked at
/// behind them.
const SENDS_BATCH: usize = 64;

impl Turn {
    /// Sends what is queued and arms receives: at most one of each for a socket. Whoever has an
    /// answer goes before those who are given what many get; who finds no time stays in line.
    pub(crate) fn flush(&mut self) -> bool {
        let began = now();
        let (mut worked, mut sends) = (false, 0);
        {
            let mut state = self.shard.state.borrow_mut();
            state.give_out();
            worked |= state.flush_engines();
            state.note_packed();
        }
        loop {
            let mut state = self.shard.state.borrow_mut();
            worked |= state.flush_some(SENDS_BATCH);
            sends += state.offers.len();
            for offer in state.offers.drain(..) {
                self.ring.send(offer.fd, offer.key, offer.sending);
            }
            let us_max = u128::from(state.live.limits.turn_us_max);
            drop(state);
            self.rearm();
            self.ring.submit();
            // The kernel takes at once what the peer has room for, and then more may go.
            self.reap();
            // The rest of a send that was taken in part goes out now, not when the shard wakes again.
            self.ring.submit();
            let is_late = || us_max <= began.elapsed().as_micros();
            if !self.shard.state.borrow().has_output() || SENDS_TURN_MAX <= sends || is_late() {
                return worked;
            }
        }
    }

    pub(crate) fn handle_sent(&mut self, index: u32, result: i32) {
        let (key, mut sending) = self.ring.sent(index);
        let mut state = self.shard.state.borrow_mut();
        let now_ms = state.peer_ms();
        let Ok(count) = usize::try_from(result) else {
            return state.send_failed(key);
        };
        state.metrics.add(Counter::BytesSent, count as u64);
        // What TLS had to say may be on its way still when its socket goes to HTTP.
        let Some(connection) = state.connections.alive(key) else {
            return;
        };
        sending.advance(count);
        let aborted = matches!(connection.machine.phase(), Phase::Dead);
        if !sending.rest().is_empty() && !aborted {
            connection.machine.handle_sent_some(now_ms);
            return self.ring.send(connection.raw_fd(), key, sending);
        }
        connection.machine.handle_sent(now_ms);
        connection.outbox.note_sent();
        state.spare.keep(sending);
        state.sent(key);
    }

    /// Arms receives that were wished for, and those that had found no buffer.
    fn rearm(&mut self) {
        let mut state = self.shard.state.borrow_mut();
        let wishes = std::mem::take(&mut state.wishes);
        for key in wishes {
            state.grant(key, &mut self.ring);
        }
        // As many as there are buffers, in the order in which they found none.
        let count = self.ring.buffers_left().min(self.starved.len());
        for key in self.starved.drain(..count) {
            state.grant(key, &mut self.ring);
        }
    }
}
