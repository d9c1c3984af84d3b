//! Raw mounts on a shard: what came goes into the inbox of the handler, which `handlers.rs` runs, and while
//! there is room without a look at the connection for each message. Knows bounds; nothing of what a
//! message says.

use std::rc::Rc;
use std::sync::Arc;

use crate::gateway::engine::inbox::{Inbox, InboxBounds, SocketLink};
use crate::gateway::socket::{Message as RawMessage, WebSocket};
use crate::metrics::Counter;
use crate::proto::ws::Message;
use crate::session::Session;
use crate::session::raw::RawSession;

use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::machine::Pause;
use crate::shard::state::State;
use crate::shard::state::admitted::Admitted;
use crate::shard::state::admitted::Opened;
use crate::shard::state::shard::socket_id;

/// The inbox of a raw handler, straight from the decoder: while what came is decoded nothing but a control
/// frame reaches the connection, so only then it is looked at again.
pub(crate) struct Direct {
    inbox: Option<Rc<Inbox>>,
    /// Whether the last message left room for another one, if it came this way.
    has_room: Option<bool>,
    count: u64,
}

impl Direct {
    /// The way of a connection; it has none where messages are measured, or another dialect is spoken.
    pub(crate) fn of(inbox: Option<Rc<Inbox>>) -> Self {
        Self {
            inbox,
            has_room: None,
            count: 0,
        }
    }

    /// Whether another message may be decoded, if the connection need not be asked.
    pub(crate) fn goes_on(&self) -> Option<bool> {
        self.has_room
    }

    /// Takes a message, or gives back one that must go through the state.
    pub(crate) fn take<'m>(&mut self, message: Message<'m>) -> Option<Message<'m>> {
        let Some(inbox) = &self.inbox else {
            return Some(message);
        };
        let message = match message {
            Message::Text(text) => RawMessage::Text(text_of(&text)),
            Message::Binary(bytes) => RawMessage::Binary(bytes.to_vec()),
            control => {
                self.has_room = None;
                return Some(control);
            }
        };
        self.count += 1;
        if !inbox.is_closed() {
            self.has_room = Some(inbox.push(message));
        }
        None
    }
}

/// The text of a message, which the decoder has checked.
pub(crate) fn text_of(payload: &[u8]) -> String {
    match simdutf8::basic::from_utf8(payload) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(payload).into_owned(),
    }
}

impl State {
    /// Counts what went straight to an inbox, and pauses its peer if that is full.
    pub(crate) fn note_direct(&mut self, key: SlotKey, direct: &Direct) {
        if 0 < direct.count {
            self.metrics.add(Counter::MessagesReceived, direct.count);
        }
        self.note_inbox(key, direct.has_room != Some(false));
    }

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
