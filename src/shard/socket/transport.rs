//! What stands between the bytes of a socket and the frames of its connection. Knows bytes; no
//! socket, no frame and no time.
//!
//! A connection without encryption is `Plain`, where both directions hand on what they were given:
//! no copy, no allocation, no memory. A transport that encrypts is another variant, behind a box,
//! so that a plain connection does not pay for it. Its place on both paths:
//!
//! * **In**: [`Transport::open`] is given what a receive brought, before the head or the decoder
//!   sees it, and returns what is to be read: whole records opened in place or in memory of its own.
//!   What is not whole it keeps. Answers of its own (a handshake, an alert) it leaves for `seal`.
//! * **Out**: [`Transport::seal`] is given what a send would carry, in the order in which it goes
//!   out, and returns what is sent in its place. It is called once for each send and never again for
//!   what is left of a short one.

use crate::shard::kernel::buffers::PADDING_BYTES;
use crate::shard::kernel::sending::Sending;
use crate::shard::socket::outbox::Spare;
use crate::tls::{Fault, Opened, Tls};

/// The transport of one connection.
#[derive(Debug, Default)]
pub(crate) enum Transport {
    /// Bytes are what they are.
    #[default]
    Plain,
    /// Bytes are sealed by TLS.
    Sealed(Box<Tls>),
}

// A plain connection pays a word for the others.
const _: () = assert!(size_of::<Transport>() <= 8);

impl Transport {
    /// The transport of a connection with this session, or without one.
    pub(crate) fn of(tls: Option<Box<Tls>>) -> Self {
        tls.map_or(Self::Plain, Self::Sealed)
    }

    /// The session, if there is one.
    pub(crate) fn into_tls(self) -> Option<Box<Tls>> {
        match self {
            Self::Sealed(tls) => Some(tls),
            Self::Plain => None,
        }
    }

    /// Whether its handshake is still to be done, which costs a good part of a turn.
    pub(crate) fn is_greeting(&self) -> bool {
        matches!(self, Self::Sealed(tls) if !tls.is_open())
    }

    /// Whether there is something to send beside frames.
    pub(crate) fn has_output(&self) -> bool {
        matches!(self, Self::Sealed(tls) if tls.has_output())
    }

    /// Opens what came: `buffer[..filled]`, behind which a parser may look. The buffer that is to be
    /// read in its place, how much of it is filled, and what else came of it.
    pub(crate) fn open<'b>(
        &mut self,
        buffer: &'b mut [u8],
        filled: usize,
        scratch: &'b mut Vec<u8>,
    ) -> Result<(&'b mut [u8], usize, Opened), Fault> {
        match self {
            Self::Plain => Ok((buffer, filled, Opened::default())),
            Self::Sealed(tls) => {
                scratch.clear();
                let opened = tls.handle_received(&mut buffer[..filled], scratch)?;
                let filled = scratch.len();
                scratch.resize(filled + PADDING_BYTES, 0);
                Ok((scratch, filled, opened))
            }
        }
    }

    /// Seals what goes, behind what the transport itself has to send; nothing if there is neither.
    pub(crate) fn seal(&mut self, sending: Option<Sending>, spare: &mut Spare) -> Option<Sending> {
        let tls = match self {
            Self::Plain => return sending,
            Self::Sealed(tls) => tls,
        };
        if sending.is_none() && !tls.has_output() {
            return None;
        }
        let mut out = spare.take();
        match sending {
            Some(sending) => {
                tls.seal(sending.rest(), &mut out);
                spare.keep(sending);
            }
            None => tls.take_output(&mut out),
        }
        (!out.is_empty()).then(|| Sending::own(out))
    }

    /// What tells the peer that nothing more comes, once; the last thing that is sent.
    pub(crate) fn end(&mut self, spare: &mut Spare) -> Option<Sending> {
        let Self::Sealed(tls) = self else {
            return None;
        };
        let mut out = spare.take();
        tls.seal_end(&mut out);
        (!out.is_empty()).then(|| Sending::own(out))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;

    use crate::shard::socket::outbox::{Outbox, Piece, Spare};

    use super::*;

    /// The plain one hands on the very same memory.
    #[test]
    fn plain_copies_nothing() {
        let mut transport = Transport::default();
        let mut buffer = *b"bytes and padding";
        let at = buffer.as_ptr();
        let mut scratch = Vec::new();
        let (opened, filled, _) = transport.open(&mut buffer, 5, &mut scratch).unwrap();
        assert_eq!((opened.as_ptr(), filled), (at, 5));
        let (mut outbox, mut spare) = (Outbox::default(), Spare::default());
        let piece = Rc::new(Piece::of_frame(Bytes::from_static(b"frame")));
        outbox.push_piece(&mut spare, &piece);
        let sending = outbox.take_sending(&mut spare).unwrap();
        let at = sending.rest().as_ptr();
        let sealed = transport.seal(Some(sending), &mut spare).unwrap();
        assert_eq!(sealed.rest().as_ptr(), at);
        assert!(transport.seal(None, &mut spare).is_none());
    }
}
