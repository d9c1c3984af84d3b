//! One open WebSocket on the ring: its bytes become counted messages, a ping is answered.
//! Knows frames and the ring, not what the messages are for.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail, ensure};
use loadgen::ring::{Completion, Ring};

use crate::frame::{self, Frame, FrameWalker};
use crate::stream::Stream;
use crate::ways::{self, Ways};

/// A connection and where its frames stand.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    walker: FrameWalker,
    sending: &'static [u8],
    /// Bytes of a record, or several, that are on their way.
    sealed: usize,
    /// A text of one byte is Socket.IO's question whether the peer lives.
    is_socketio: bool,
}

/// A message that has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    bytes: u64,
    is_compressed: bool,
}

impl Message {
    pub(crate) fn is_at_most(self, bytes: u64) -> bool {
        self.bytes <= bytes
    }

    /// Whether it can be one of so many bytes; what was compressed is not inflated to look.
    pub(crate) fn is_of(self, bytes: u64) -> bool {
        match self.is_compressed {
            true => self.bytes < bytes,
            false => self.bytes == bytes,
        }
    }
}

impl Connection {
    /// Takes over an opened socket and starts to receive from it.
    pub(crate) fn arm(stream: Stream, ways: &Ways, ring: &mut Ring, id: u32) -> Result<Self> {
        ring.receive(stream.socket.as_fd(), id)?;
        Ok(Self {
            stream,
            walker: FrameWalker::new(ways.deflate),
            sending: &[],
            sealed: 0,
            is_socketio: ways.socketio,
        })
    }

    /// Shows each message of a receive to `message`.
    pub(crate) fn take(
        &mut self,
        ring: &mut Ring,
        completion: &Completion,
        mut message: impl FnMut(Message),
    ) -> Result<()> {
        match completion.result {
            Ok(0) => bail!("the server closed a connection during the run"),
            Ok(_) | Err(libc::ENOBUFS) => {}
            Err(error) => bail!("receive: {}", std::io::Error::from_raw_os_error(error)),
        }
        let (mut pong, mut closed) = (None, None);
        let (walker, is_socketio) = (&mut self.walker, self.is_socketio);
        let mut walk = |bytes: &[u8]| {
            walker.walk(bytes, |frame| match frame {
                Frame::Data { bytes: 1, .. } if is_socketio => {
                    pong = Some(frame::masked(frame::TEXT, ways::PONG));
                }
                Frame::Data {
                    bytes,
                    is_compressed,
                    ..
                } => message(Message {
                    bytes,
                    is_compressed,
                }),
                Frame::Control {
                    opcode: frame::PING,
                    payload,
                } => {
                    pong = Some(frame::masked(frame::PONG, payload));
                }
                Frame::Control {
                    opcode: frame::CLOSE,
                    payload,
                } => closed = Some(payload.to_vec()),
                Frame::Control { .. } => {}
            })
        };
        let walked = match &mut self.stream.tls {
            None => ring.read(completion, walk),
            Some(tls) => {
                let mut plain = Vec::new();
                ring.read(completion, |bytes| tls.open(bytes, &mut plain))?;
                walk(&plain)
            }
        };
        walked.context("walk the frames of the server")?;
        if let Some(payload) = closed {
            let code = payload
                .first_chunk()
                .map_or(1005, |code| u16::from_be_bytes(*code));
            bail!("the server closed a connection with code {code}");
        }
        // Servers ping those that are silent, so no send of ours is in flight beside this one.
        if let Some(pong) = pong {
            let pong = match &mut self.stream.tls {
                None => pong,
                Some(tls) => tls.seal(&pong)?,
            };
            ring.send_owned(self.stream.socket.as_fd(), pong)?;
        }
        if !completion.more {
            ring.receive(self.stream.socket.as_fd(), completion.id)?;
        }
        Ok(())
    }

    /// A send is under way: one at a time, so that frames never mix.
    pub(crate) fn is_sending(&self) -> bool {
        !self.sending.is_empty() || self.sealed != 0
    }

    /// Starts a send.
    pub(crate) fn send(&mut self, ring: &mut Ring, bytes: &'static [u8], id: u32) -> Result<()> {
        assert!(!self.is_sending(), "one send at a time");
        if let Some(tls) = &mut self.stream.tls {
            let sealed = tls.seal(bytes)?;
            self.sealed = sealed.len();
            return Ok(ring.send_made(self.stream.socket.as_fd(), sealed, id)?);
        }
        self.sending = bytes;
        Ok(ring.send(self.stream.socket.as_fd(), bytes, id)?)
    }

    /// A send has ended: goes on if it was short.
    pub(crate) fn sent(&mut self, ring: &mut Ring, completion: &Completion) -> Result<()> {
        match completion.result {
            Ok(bytes) if self.sealed != 0 => {
                let left = std::mem::take(&mut self.sealed) - bytes as usize;
                ensure!(left == 0, "send: {left} bytes of a record were not taken");
            }
            Ok(bytes) => self.sending = &self.sending[bytes as usize..],
            Err(error) => bail!("send: {}", std::io::Error::from_raw_os_error(error)),
        }
        if !self.sending.is_empty() {
            ring.send(self.stream.socket.as_fd(), self.sending, completion.id)?;
        }
        Ok(())
    }
}
