//! A socket that HTTP is spoken over, and who watches it for the end of the peer's side: while a request
//! is answered hyper reads nothing, so nobody else would notice that whoever asked has gone. Knows a
//! socket; no request.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A socket that may be watched.
pub(crate) struct Line(Arc<TcpStream>);

/// Who watches a socket. It keeps nothing open.
#[derive(Clone)]
pub(crate) struct Watch(Weak<TcpStream>);

impl Line {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(Arc::downgrade(&self.0))
    }

    /// The socket, unless somebody waits for its end at this moment.
    pub(crate) fn into_stream(self) -> Option<TcpStream> {
        Arc::into_inner(self.0)
    }
}

impl Watch {
    /// Waits until the peer has said that nothing more comes, or the connection is broken.
    pub(crate) async fn peer_ended(&self) {
        let Some(stream) = self.0.upgrade() else {
            return;
        };
        // What else this interest stands for is urgent data, which never comes to a socket of HTTP's;
        // the end of the reading side is kept once it was seen.
        let _ = stream.ready(Interest::PRIORITY).await;
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(out.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    out.advance(count);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&*self.0, Shutdown::Write).map_err(io::Error::from))
    }
}
