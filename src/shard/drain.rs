//! The end of a shard: nobody new, everybody is told to come back, and when nobody is connected
//! to any shard any more the logs end. Time passes in any case (`limits.drain_ms_max`).

use std::sync::atomic::Ordering;

use crate::broker::relay::LeaveReason;
use crate::session::Session;

use super::connection::Phase;
use super::ring::SlotKey;
use super::state::State;
use super::turn::Turn;

impl Turn {
    pub(super) fn drain(&mut self) {
        {
            let mut state = self.shard.state.borrow_mut();
            state.draining = true;
            let drain_ms_max = state.live.limits.drain_ms_max;
            let end_ms = state.now_ms + drain_ms_max;
            for key in state.connections.keys() {
                state.drain_one(key);
            }
            state.drain_until_ms = Some(end_ms);
        }
        for index in 0..self.listeners.len() {
            self.ring
                .cancel_accept(u32::try_from(index).unwrap_or(u32::MAX));
        }
        self.shard.state.borrow_mut().homes.end_streams();
        self.http.drain();
    }

    /// First nobody is connected any more, on no shard; then what was accepted is written and
    /// the logs end. Time passes in any case.
    pub(super) fn is_drained(&mut self) -> bool {
        let mut state = self.shard.state.borrow_mut();
        let Some(end_ms) = state.drain_until_ms else {
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
    /// The server stops: the peer is told to come back.
    pub(super) fn close_for_restart(&mut self, key: SlotKey) {
        self.close(key, 1012, "the server restarts", LeaveReason::Shutdown);
    }

    fn drain_one(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        match connection.phase {
            Phase::Open if matches!(connection.session, Session::Durable(_)) => {
                self.drain_durable(key);
            }
            Phase::Open => self.close_for_restart(key),
            Phase::Head(_) => self.abort(key, LeaveReason::Shutdown),
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
pub(super) const LOOK_MS: u64 = 5;
