//! The end of a shard: nobody new, everybody is told to come back, at once or one after the other
//! (`limits.drain_spread_ms`), and when nobody is connected to any shard any more the logs end. Time passes in any case (`limits.drain_ms_max`).

use std::sync::atomic::Ordering;

use crate::broker::relay::LeaveReason;

use crate::metrics::Refusal as RefusedFor;
use crate::proto::CloseCode;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::machine::Phase;
use crate::shard::state::State;
use crate::shard::state::spread::Drain;
use crate::shard::turn::Turn;

impl Turn {
    pub(crate) fn drain(&mut self) {
        self.shard.state.borrow_mut().begin_drain();
        let own_from = self.shard.shared.own_listeners_from;
        for (index, listener) in self.listeners.iter().enumerate() {
            self.ring
                .cancel_accept(u32::try_from(index).unwrap_or(u32::MAX));
            if own_from <= index {
                // Whoever comes now is refused at once, in place of waiting in a queue that nobody takes
                // from. The first shard does it for all, and the others have nothing left to end.
                let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Read);
            }
        }
        self.shard.state.borrow_mut().homes.end_streams();
        self.http.drain();
    }

    /// First nobody is connected any more, on no shard; then what was accepted is written and
    /// the logs end. Time passes in any case.
    pub(crate) fn is_drained(&mut self) -> bool {
        let mut state = self.shard.state.borrow_mut();
        state.drain_some();
        let Some(end_ms) = state.drain.as_ref().map(|drain| drain.until_ms) else {
            return false;
        };
        let hooks = state.ended.len() + state.hooks_running;
        let quiet = state.connections.len() + hooks == 0 && self.http.is_idle();
        let late = end_ms <= state.now_ms;
        if (quiet || late) && !self.quiet {
            self.quiet = true;
            state.shared.quiet.fetch_add(1, Ordering::AcqRel);
        }
        let all_quiet =
            usize::from(state.shared.shards()) <= state.shared.quiet.load(Ordering::Acquire);
        if !(all_quiet || late) || !state.posts.mailboxes().is_empty() {
            return false;
        }
        state.homes.close();
        let closed = state.homes.is_closed() && self.files.is_idle();
        closed || end_ms + LOG_MS_MAX <= state.now_ms
    }
}

impl State {
    /// Whoever is not connected yet goes at once, the others over `drain_spread_ms`.
    fn begin_drain(&mut self) {
        self.draining = true;
        self.drain_engines();
        let keys = self.connections.keys().into_iter();
        let (waiting, others): (Vec<_>, Vec<_>) = keys.partition(|key| self.is_open(*key));
        for key in others {
            self.drain_one(key);
        }
        self.drain = Some(Drain {
            began_ms: self.now_ms,
            until_ms: self.now_ms + self.live.limits.drain_ms_max,
            count: waiting.len(),
            waiting,
        });
        self.drain_some();
    }

    /// Somebody is to be told later.
    pub(crate) fn is_spreading(&self) -> bool {
        let drain = self.drain.as_ref();
        drain.is_some_and(|drain| !drain.waiting.is_empty())
    }

    /// Tells those whose turn has come.
    fn drain_some(&mut self) {
        let (spread_ms, now_ms) = (self.live.limits.drain_spread_ms, self.now_ms);
        let next = |state: &mut Self| state.drain.as_mut()?.next(spread_ms, now_ms);
        while let Some(key) = next(self) {
            self.drain_one(key);
        }
    }

    /// The server stops: the peer is told to come back.
    pub(crate) fn close_for_restart(&mut self, key: SlotKey) {
        self.close(
            key,
            CloseCode::Restart,
            "the server restarts",
            LeaveReason::Shutdown,
        );
    }

    fn drain_one(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        match connection.machine.phase() {
            Phase::Open => self.on_restart(key),
            Phase::Head(_) => self.give_up(key, RefusedFor::Draining),
            Phase::Refusing
            | Phase::Ending { .. }
            | Phase::Closing { .. }
            | Phase::Lingering
            | Phase::Dead => {}
        }
    }
}

/// How long a log may take to end behind the last connection.
const LOG_MS_MAX: u64 = 800;
/// While the server stops, each shard looks this often whether the others are quiet.
pub(crate) const LOOK_MS: u64 = 5;
