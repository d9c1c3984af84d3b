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

use crate::shard::socket::outbox::Sending;

/// The transport of one connection.
#[derive(Debug, Default)]
pub(crate) enum Transport {
    /// Bytes are what they are.
    #[default]
    Plain,
}

// Until there is another one it takes no place in a connection.
const _: () = assert!(size_of::<Transport>() == 0);

#[expect(
    clippy::needless_pass_by_ref_mut,
    reason = "a transport that encrypts counts its records"
)]
impl Transport {
    /// Opens what came: `buffer[..filled]`, behind which a parser may look. The buffer that is to be
    /// read in its place, and how much of it is filled.
    pub(crate) fn open<'b>(
        &mut self,
        buffer: &'b mut [u8],
        filled: usize,
    ) -> (&'b mut [u8], usize) {
        match self {
            Self::Plain => (buffer, filled),
        }
    }

    /// Seals what goes.
    pub(crate) fn seal(&mut self, sending: Sending) -> Sending {
        match self {
            Self::Plain => sending,
        }
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
        let (opened, filled) = transport.open(&mut buffer, 5);
        assert_eq!((opened.as_ptr(), filled), (at, 5));
        let (mut outbox, mut spare) = (Outbox::default(), Spare::default());
        let piece = Rc::new(Piece::of_frame(Bytes::from_static(b"frame")));
        outbox.push_piece(&mut spare, &piece);
        let sending = outbox.take_sending(&mut spare).unwrap();
        let at = sending.rest().as_ptr();
        assert_eq!(transport.seal(sending).rest().as_ptr(), at);
    }
}
