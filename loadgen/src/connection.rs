//! One open WebSocket on the ring: its bytes become counted messages, a ping is answered.
//! Knows frames and the ring, not what the messages are for.

use std::net::TcpStream;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use loadgen::ring::{Completion, Ring};

use crate::frame::{self, Frame, FrameWalker};

/// A connection and where its frames stand.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    walker: FrameWalker,
    sending: &'static [u8],
}

impl Connection {
    /// Takes over an opened socket and starts to receive from it.
    pub(crate) fn arm(socket: TcpStream, ring: &mut Ring, id: u32) -> Result<Self> {
        ring.receive(socket.as_fd(), id)?;
        Ok(Self {
            socket,
            walker: FrameWalker::default(),
            sending: &[],
        })
    }

    /// Shows each message of a receive to `message` by its payload bytes.
    pub(crate) fn take(
        &mut self,
        ring: &mut Ring,
        completion: &Completion,
        mut message: impl FnMut(u64),
    ) -> Result<()> {
        match completion.result {
            Ok(0) => bail!("the server closed a connection during the run"),
            Ok(_) | Err(libc::ENOBUFS) => {}
            Err(error) => bail!("receive: {}", std::io::Error::from_raw_os_error(error)),
        }
        let (mut pong, mut closed) = (None, None);
        let walker = &mut self.walker;
        let walked = ring.read(completion, |bytes| {
            walker.walk(bytes, |frame| match frame {
                Frame::Data { bytes, .. } => message(bytes),
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
        });
        walked.context("walk the frames of the server")?;
        if let Some(payload) = closed {
            let code = payload
                .first_chunk()
                .map_or(1005, |code| u16::from_be_bytes(*code));
            bail!("the server closed a connection with code {code}");
        }
        // Servers ping those that are silent, so no send of ours is in flight beside this one.
        if let Some(pong) = pong {
            ring.send_owned(self.socket.as_fd(), pong)?;
        }
        if !completion.more {
            ring.receive(self.socket.as_fd(), completion.id)?;
        }
        Ok(())
    }

    /// A send is under way: one at a time, so that frames never mix.
    pub(crate) fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Starts a send.
    pub(crate) fn send(&mut self, ring: &mut Ring, bytes: &'static [u8], id: u32) -> Result<()> {
        assert!(!self.is_sending(), "one send at a time");
        self.sending = bytes;
        Ok(ring.send(self.socket.as_fd(), bytes, id)?)
    }

    /// A send has ended: goes on if it was short.
    pub(crate) fn sent(&mut self, ring: &mut Ring, completion: &Completion) -> Result<()> {
        match completion.result {
            Ok(bytes) => self.sending = &self.sending[bytes as usize..],
            Err(error) => bail!("send: {}", std::io::Error::from_raw_os_error(error)),
        }
        if self.is_sending() {
            ring.send(self.socket.as_fd(), self.sending, completion.id)?;
        }
        Ok(())
    }
}
