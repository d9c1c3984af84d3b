//! A socket that a handler owns: messages wait in its inbox until the handler takes them. Knows
//! the handler's end of the socket; nothing of the wire.

use std::rc::Rc;

use crate::gateway::engine::inbox::Inbox;
use crate::gateway::socket::Message;

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
