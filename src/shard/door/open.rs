//! From an admitted request to an open connection: the 101 goes out, frames begin, and the session
//! of its mount starts. Knows dialects by name; not what messages mean.

use std::rc::Rc;
use std::sync::Arc;

use crate::config::Limits;
use crate::gateway::engine::inbox::{Inbox, InboxBounds, SocketLink};
use crate::gateway::socket::WebSocket;
use crate::metrics::Counter;
use crate::session::Session;
use crate::session::durable::DurableSession;
use crate::session::raw::RawSession;
use crate::session::relay::RelaySession;

use crate::shard::door::renew::note_end;
use crate::shard::door::upgrade::Admitted;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::link::socket_id;
use crate::shard::shared::Dialect;
use crate::shard::socket::packing::Packing;
use crate::shard::speak::handlers::Opened;
use crate::shard::state::State;

impl crate::shard::Shard {
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
        let Some(connection) = state.connections.get(key) else {
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
        state.end_handshake();
        state.metrics.add(Counter::ConnectionsUpgraded, 1);
        self.start_session(state, key, &admitted);
        state.look_at_next(key);
    }

    fn start_session(self: &Rc<Self>, state: &mut State, key: SlotKey, admitted: &Admitted) {
        let shared = Arc::clone(&state.shared);
        let limits = state.live.limits_of(admitted.mount);
        let Some(connection) = state.connections.get(key) else {
            return;
        };
        match &shared.mounts[usize::from(admitted.mount)].dialect {
            Dialect::Relay => {
                let Some(relay) = &shared.relay else { return };
                let session = RelaySession::new(relay.next_conn_id(), admitted.negotiated);
                connection.session = Session::Relay(Box::new(session));
            }
            // It starts when the state is not borrowed any more, for its hooks are user code.
            Dialect::Event(_) | Dialect::SocketIo(_) => {}
            Dialect::Raw(_) if shared.mounts[usize::from(admitted.mount)].engine => {}
            Dialect::Durable => {
                let Some(world) = &shared.durable else { return };
                let caller = &admitted.caller;
                let session = DurableSession::new(caller, admitted.negotiated, &world.rules);
                connection.session = Session::Durable(Box::new(session));
            }
            Dialect::Raw(_) => {
                let Some(handshake) = admitted.handshake.clone() else {
                    return;
                };
                let bounds = inbox_bounds(limits);
                let link = Rc::clone(self) as Rc<dyn SocketLink>;
                let inbox = Inbox::new(link, socket_id(key), bounds);
                connection.session = Session::Raw(RawSession {
                    inbox: Rc::clone(&inbox),
                });
                state.opened.push(Opened {
                    mount: admitted.mount,
                    socket: WebSocket::new(inbox),
                    caller: Arc::clone(&admitted.caller),
                    handshake,
                });
            }
        }
    }
}

fn inbox_bounds(limits: &Limits) -> InboxBounds {
    InboxBounds {
        bytes_max: u32::try_from(limits.inbox_bytes_max).unwrap_or(u32::MAX),
        messages_max: u32::try_from(limits.inbox_messages_max).unwrap_or(u32::MAX),
    }
}
