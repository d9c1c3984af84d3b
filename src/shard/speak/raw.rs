//! Raw mounts on a shard: what came goes into the inbox of the handler, which `handlers.rs` runs. Knows
//! bounds; nothing of what a message says.

use std::rc::Rc;
use std::sync::Arc;

use crate::gateway::engine::inbox::{Inbox, InboxBounds, SocketLink};
use crate::gateway::socket::WebSocket;
use crate::metrics::Counter;
use crate::session::Session;
use crate::session::raw::RawSession;

use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::machine::Pause;
use crate::shard::state::State;
use crate::shard::state::admitted::Admitted;
use crate::shard::state::admitted::Opened;
use crate::shard::state::shard::socket_id;

impl State {
    /// Makes the two ends of a socket: the session here, and the one whose handler is to be started.
    pub(crate) fn open_raw(
        &mut self,
        key: SlotKey,
        admitted: &Admitted,
        link: Rc<dyn SocketLink>,
    ) -> Option<Session> {
        let handshake = admitted.handshake.clone()?;
        let bounds = InboxBounds::of(self.live.limits_of(admitted.mount));
        let inbox = Inbox::new(link, socket_id(key), bounds);
        self.opened.push(Opened {
            mount: admitted.mount,
            socket: WebSocket::new(Rc::clone(&inbox)),
            caller: Arc::clone(&admitted.caller),
            handshake,
        });
        Some(RawSession { inbox }.into())
    }

    /// A message was handed to the handler; without room for more its peer is not read from.
    pub(crate) fn note_inbox(&mut self, key: SlotKey, has_room: bool) {
        if !has_room && self.pause(key, Pause::Inbox) {
            self.metrics.add(Counter::InboxPauses, 1);
        }
    }
}
