//! Limits that were changed while the server runs. Most are looked up where they are used; what a
//! connection keeps of them is renewed here, for some connections in each turn.

use std::sync::Arc;

use crate::session::Speaker;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::machine::Phase;
use crate::shard::socket::share::Share;
use crate::shard::state::State;
use crate::shard::state::engines::Upper;
use crate::shard::state::shared::Live;
use crate::shard::turn::Turn;

/// So many slots are looked at in one turn.
const SLOTS_PER_TURN: u32 = 256;

impl Turn {
    pub(crate) fn reload(&self, live: Arc<Live>) {
        let mut state = self.shard.state.borrow_mut();
        let state = &mut *state;
        if let (Some(home), Some(relay)) = (&mut state.home, &state.shared.relay) {
            home.set_limits(crate::shard::state::home_limits(&live.limits, relay));
        }
        if let Some(registries) = &self.shard.gateways.registries {
            registries.set_rooms_max(live.limits.rooms_per_connection_max);
        }
        state.share = Share::of(live.all_limits(), state.shared.topic_capacity());
        state.live = live;
        state.renewing = Some(0);
    }
}

impl State {
    /// Renews what the next connections keep of limits, if a reload has changed them.
    pub(crate) fn renew_some(&mut self) {
        let Some(first) = self.renewing else {
            return;
        };
        let next = first.saturating_add(SLOTS_PER_TURN);
        self.renewing = (next < self.connections.slots()).then_some(next);
        for slot in first..next {
            if let Some(key) = self.connections.key_at(slot) {
                self.renew_limits(key);
            }
        }
        if self.renewing.is_none() {
            self.renew_engines();
        }
    }

    fn renew_limits(&mut self, key: SlotKey) {
        let peer_ms = self.peer_ms();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        if matches!(connection.machine.phase(), Phase::Open) {
            let limits = self.live.limits_of(connection.mount);
            connection.renew_guard(limits, peer_ms);
            connection.session.speaker().renew_limits(limits);
        }
        // What is due may be due sooner than it was.
        self.look_at_next(key);
    }

    fn renew_engines(&mut self) {
        for key in self.engines.keys() {
            let Some(carried) = self.engines.alive(key) else {
                continue;
            };
            if let Upper::Raw(session) = &carried.upper {
                session.renew_limits(self.live.limits_of(carried.mount));
            }
        }
    }
}
