//! The stream of an HTTP connection: what was read from it before stands in front, and a peer that
//! reads nothing is given up. Knows bytes and time; no request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::shard::door::sealed::Stream;
use crate::tls::Tls;

/// A stream with what was read from it before in front. Bound: a write waits `stall` for progress.
pub(crate) struct Rewound {
    read: Vec<u8>,
    at: usize,
    stream: Stream,
    stall: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Rewound {
    pub(crate) fn new(stream: Stream, read: Vec<u8>, stall: Duration) -> Self {
        Self {
            read,
            at: 0,
            stream,
            stall,
            stalled: None,
        }
    }

    /// The stream, and what nobody has read yet.
    pub(crate) fn into_parts(mut self) -> (Option<TcpStream>, Option<Box<Tls>>, Vec<u8>) {
        self.read.drain(..self.at);
        let (stream, tls, opened) = self.stream.into_parts();
        self.read.extend_from_slice(&opened);
        (stream, tls, self.read)
    }

    /// The same, or an error once it has been pending for too long.
    fn or_stalled<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stall = self.stall;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(stalled.as_mut().poll(cx));
        let text = format!(
            "nothing could be written for write_stall_ms_max = {}",
            stall.as_millis()
        );
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.read[self.at..];
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, out);
        }
        let count = rest.len().min(out.remaining());
        out.put_slice(&rest[..count]);
        self.at += count;
        if self.at == self.read.len() {
            self.read = Vec::new();
            self.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.or_stalled(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.or_stalled(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
