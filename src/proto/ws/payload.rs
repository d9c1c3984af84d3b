//! What the decoder reads from and what it lends out. Knows no protocol.

use std::ops::{Deref, Range};

/// A receive buffer: the bytes that have arrived, and behind them some that have not.
#[derive(Debug)]
pub struct Input<'b> {
    pub(super) buf: &'b mut [u8],
    at: usize,
    filled: usize,
}

impl<'b> Input<'b> {
    /// The input `buf[..filled]`; the bytes behind it are never handed out as received, but a
    /// message may be lent together with them, as padding for a parser.
    pub fn new(buf: &'b mut [u8], filled: usize) -> Self {
        assert!(filled <= buf.len(), "no more is filled than there is");
        Self { buf, at: 0, filled }
    }

    /// How many received bytes are not decoded yet.
    pub fn remaining(&self) -> usize {
        self.filled - self.at
    }

    /// What is not decoded yet.
    pub fn rest(&self) -> &[u8] {
        &self.buf[self.at..self.filled]
    }

    pub(super) fn take(&mut self, len: usize) -> Range<usize> {
        let start = self.at;
        self.at += len;
        assert!(self.at <= self.filled, "no more is taken than was received");
        start..self.at
    }
}

/// A complete message or control frame.
#[derive(Debug)]
pub enum Message<'a> {
    /// Text, checked to be UTF-8 unless the limits say that a parser will.
    Text(Payload<'a>),
    /// Any bytes.
    Binary(Payload<'a>),
    /// A question that wants a pong with the same bytes.
    Ping(&'a [u8]),
    /// An answer to a ping, or a one-sided sign of life.
    Pong(&'a [u8]),
    /// The end, with its code and reason.
    Close(Option<(u16, &'a str)>),
}

/// The unmasked bytes of a message, lent from the receive buffer or from the decoder.
#[derive(Debug)]
pub struct Payload<'a> {
    bytes: &'a mut [u8],
    len: usize,
    is_deflated: bool,
}

impl<'a> Payload<'a> {
    /// A payload of the first `len` of `bytes`; what follows is padding.
    pub fn new(bytes: &'a mut [u8], len: usize) -> Self {
        assert!(len <= bytes.len(), "a payload lies within its bytes");
        Self {
            bytes,
            len,
            is_deflated: false,
        }
    }

    /// The same payload, as compressed as the peer sent it.
    pub(super) fn deflated(self, is_deflated: bool) -> Self {
        Self {
            is_deflated,
            ..self
        }
    }

    /// Whether it is compressed still; then an `Inflater` must open it first.
    pub fn is_deflated(&self) -> bool {
        self.is_deflated
    }

    /// The payload with the bytes behind it, which a parser may read but must leave as they are,
    /// and the length of the payload.
    pub fn as_mut_padded(&mut self) -> (&mut [u8], usize) {
        (self.bytes, self.len)
    }
}

impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
