//! How an answer stands on the wire of its connection: the event dialect, or a namespace of Socket.IO
//! with or without a number that an answer is awaited under. Knows frames; no connection.

use std::sync::Arc;

use bytes::Bytes;

use crate::proto::frame::{self, Opcode};
use crate::proto::socketio::{self, EventParts};

/// What an answer is written for.
#[derive(Debug, Clone, Copy)]
pub enum Wire<'a> {
    /// The event dialect; an `id` goes into the answer.
    Event {
        /// The JSON of the `id`.
        id: Option<&'a [u8]>,
    },
    /// A namespace of Socket.IO.
    SocketIo {
        /// Its name.
        nsp: &'a Arc<str>,
        /// The number of the answer that is awaited.
        ack: Option<u64>,
    },
}

impl Wire<'_> {
    /// The event dialect without an `id`.
    pub const PLAIN: Wire<'static> = Wire::Event { id: None };

    /// The same to keep.
    pub(crate) fn to_kept(self) -> KeptWire {
        match self {
            Wire::Event { id } => KeptWire::Event(id.map(Into::into)),
            Wire::SocketIo { nsp, ack } => KeptWire::SocketIo(Arc::clone(nsp), ack),
        }
    }
}

/// A wire that outlives the buffer that its `id` came in.
#[derive(Debug, Clone)]
pub(crate) enum KeptWire {
    Event(Option<Box<[u8]>>),
    SocketIo(Arc<str>, Option<u64>),
}

impl KeptWire {
    pub(crate) fn wire(&self) -> Wire<'_> {
        match self {
            Self::Event(id) => Wire::Event { id: id.as_deref() },
            Self::SocketIo(nsp, ack) => Wire::SocketIo { nsp, ack: *ack },
        }
    }
}

/// One event or answer, before its namespace is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    /// The name as JSON.
    pub(crate) event: &'a [u8],
    /// The arguments as JSON, with the commas between them.
    pub(crate) args: &'a [u8],
    pub(crate) attachments: &'a [Bytes],
}

impl Said<'_> {
    /// Appends the frames of an event; `id` asks for an answer.
    pub(crate) fn put_event(&self, out: &mut Vec<u8>, nsp: &str, id: Option<u64>) {
        let event = match self.event {
            [] => MESSAGE,
            event => event,
        };
        let parts = self.parts(nsp, id);
        frame::put_text_with(out, |out| socketio::put_event(out, event, &parts));
        self.put_attachments(out);
    }

    /// Appends the frames of an answer.
    pub(crate) fn put_ack(&self, out: &mut Vec<u8>, nsp: &str, id: u64) {
        let parts = self.parts(nsp, Some(id));
        frame::put_text_with(out, |out| socketio::put_ack(out, &parts));
        self.put_attachments(out);
    }

    fn parts<'b>(&'b self, nsp: &'b str, id: Option<u64>) -> EventParts<'b> {
        EventParts {
            nsp,
            id,
            attachments: self.attachments.len(),
            args: self.args,
        }
    }

    fn put_attachments(&self, out: &mut Vec<u8>) {
        for bytes in self.attachments {
            frame::put(out, Opcode::Binary, bytes);
        }
    }
}

/// An answer without arguments.
pub(crate) const NOTHING: Said<'static> = Said {
    event: b"",
    args: b"",
    attachments: &[],
};

/// The event under which goes what has no name; the one of `socket.send`.
const MESSAGE: &[u8] = br#""message""#;
