//! From an admitted request to an open connection: the 101 goes out, frames begin, and the session
//! of its mount starts. Knows no dialect.

use std::rc::Rc;
use std::sync::Arc;

use crate::metrics::Counter;

use crate::shard::door::renew::note_end;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::packing::Packing;
use crate::shard::state::admitted::Admitted;
use crate::shard::state::shard::Shard;

impl Shard {
    /// A request was admitted: the 101 goes out and frames begin.
    pub(crate) fn open(self: &Rc<Self>, key: SlotKey, admitted: Admitted, answer: bool) {
        let (mount, caller) = (admitted.mount, Arc::clone(&admitted.caller));
        let handshake = admitted.handshake.clone();
        self.open_connection(key, admitted, answer);
        match handshake {
            Some(handshake) if self.is_engine(mount) => {
                self.start_engine(key, mount, (caller, handshake));
            }
            Some(handshake) => self.start_event(key, mount, caller, handshake),
            None => {}
        }
        let mut state = self.state.borrow_mut();
        if state.draining {
            // It came back from HTTP when everybody else had been told already.
            state.close_for_restart(key);
        }
    }

    fn open_connection(self: &Rc<Self>, key: SlotKey, mut admitted: Admitted, answer: bool) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let (now_ms, peer_ms) = (state.now_ms, state.peer_ms());
        let Some(connection) = state.connections.alive(key) else {
            return;
        };
        connection.machine.open(peer_ms);
        connection.mount = admitted.mount;
        connection.guard_with(
            state.live.limits_of(admitted.mount),
            admitted.ticket.take(),
            peer_ms,
        );
        connection.caller = Some(Arc::clone(&admitted.caller));
        connection.enrolled = true;
        state.roll.add(&admitted.caller.tenant);
        let leeway_s = state.live.authenticator.leeway_s();
        note_end(connection, &admitted.caller, leeway_s, now_ms);
        if answer {
            let response = &admitted.response;
            connection
                .outbox
                .push_with(&mut state.spare, |out| out.extend_from_slice(response));
        }
        if let Some(deflate) = admitted.deflate {
            let limits = state.live.limits_of(admitted.mount);
            let packing = Packing::new(deflate.window, limits);
            connection.outbox.packing = state.spare.packings.id_of(packing);
            connection.inflates = true;
            state.metrics.add(Counter::ConnectionsCompressed, 1);
        }
        crate::shard::state::mark_dirty(&mut state.dirty, connection, key);
        state.wishes.push(key);
        state.half_open.remove(key);
        state.metrics.add(Counter::ConnectionsUpgraded, 1);
        if let Some(session) = self.on_open(state, key, &admitted)
            && let Some(connection) = state.connections.alive(key)
        {
            connection.session = session;
        }
        state.look_at_next(key);
    }
}
