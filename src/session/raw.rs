//! A socket that a handler owns: messages wait in its inbox until the handler takes them. Knows
//! the handler's end of the socket; nothing of the wire.

use std::rc::Rc;

use crate::config::Limits;
use crate::gateway::engine::inbox::{Inbox, InboxBounds};
use crate::gateway::socket::Message;
use crate::session::Speaker;

/// One connection on a raw mount.
#[derive(Debug)]
pub(crate) struct RawSession {
    pub(crate) inbox: Rc<Inbox>,
}

impl RawSession {
    /// Hands a message to the handler; whether the inbox has room for more.
    pub(crate) fn handle(&self, message: Message) -> bool {
        self.inbox.push(message)
    }
}

impl Speaker for RawSession {
    fn is_behind(&self) -> bool {
        !self.inbox.is_empty()
    }

    fn handle_peer_end(&self) -> bool {
        self.inbox.end()
    }

    fn waiting_bytes(&self) -> usize {
        self.inbox.bytes()
    }

    fn has_error_frames(&self) -> bool {
        false
    }

    fn renew_limits(&self, limits: &Limits) {
        self.inbox.set_bounds(InboxBounds::of(limits));
    }
}
