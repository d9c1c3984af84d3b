//! The stream of an HTTP connection on the wire: plain, or sealed by TLS. Knows bytes; no request.
//!
//! Bound: at most one write of hyper's waits sealed; the next waits until it has gone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::shard::door::line::Line;
use crate::tls::Tls;

/// What HTTP is spoken over.
pub(crate) enum Stream {
    Plain(Line),
    Sealed(Box<Sealed>),
}

/// A socket with its session.
pub(crate) struct Sealed {
    stream: Line,
    tls: Box<Tls>,
    /// What was opened and not read, from `at` on.
    plain: Vec<u8>,
    at: usize,
    /// What was sealed and not written, from `gone` on.
    out: Vec<u8>,
    gone: usize,
    /// The peer has said, or shown, that nothing more comes.
    is_ended: bool,
    is_closed: bool,
}

impl Stream {
    pub(crate) fn new(stream: Line, tls: Option<Box<Tls>>) -> Self {
        match tls {
            None => Self::Plain(stream),
            Some(tls) => Self::Sealed(Box::new(Sealed {
                stream,
                tls,
                plain: Vec::new(),
                at: 0,
                out: Vec::new(),
                gone: 0,
                is_ended: false,
                is_closed: false,
            })),
        }
    }

    /// The socket, its session, and what was opened and not read. All that was written has gone: hyper
    /// flushes before it gives a stream away.
    pub(crate) fn into_parts(self) -> (Option<TcpStream>, Option<Box<Tls>>, Vec<u8>) {
        match self {
            Self::Plain(stream) => (stream.into_stream(), None, Vec::new()),
            Self::Sealed(mut sealed) => {
                sealed.plain.drain(..sealed.at);
                (sealed.stream.into_stream(), Some(sealed.tls), sealed.plain)
            }
        }
    }
}

impl Sealed {
    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let rest = &self.plain[self.at..];
            if !rest.is_empty() {
                let count = rest.len().min(out.remaining());
                out.put_slice(&rest[..count]);
                self.at += count;
                if self.at == self.plain.len() {
                    self.plain = Vec::new();
                    self.at = 0;
                }
                return Poll::Ready(Ok(()));
            }
            if self.is_ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_more(cx))?;
        }
    }

    /// Opens what the socket has.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = vec![0; READ_BYTES];
        let mut buf = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        let count = buf.filled().len();
        if count == 0 {
            self.is_ended = true;
            return Poll::Ready(Ok(()));
        }
        let opened = self
            .tls
            .handle_received(&mut bytes[..count], &mut self.plain);
        if self.tls.has_output() {
            self.tls.take_output(&mut self.out);
            // What does not go now goes with the next write.
            let _ = self.poll_out(cx);
        }
        let opened = opened.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
        self.is_ended |= opened.is_ended;
        Poll::Ready(Ok(()))
    }

    /// Writes what was sealed.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.out.len() {
            let rest = &self.out[self.gone..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gone += count;
        }
        self.out = Vec::new();
        self.gone = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        let count = bytes.len().min(WRITE_BYTES_MAX);
        self.tls.seal(&bytes[..count], &mut self.out);
        // It is taken; whether it goes now or with the next write is for `poll_out`.
        match self.poll_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.tls.seal_end(&mut self.out);
        }
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, out),
            Self::Sealed(sealed) => sealed.poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Sealed(sealed) => sealed.poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Sealed(sealed) => sealed.poll_out(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Sealed(sealed) => sealed.poll_shutdown(cx),
        }
    }
}

const READ_BYTES: usize = 16 * 1024;
/// What one record takes.
const WRITE_BYTES_MAX: usize = 16 * 1024;
