//! Connections over TCP, within the time that a client has. Knows no protocol.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use rustix::net::sockopt;

use super::sealed::Stream;
use super::{Client, ClientError};

/// A stream whose reads and writes take `time_max`, sealed where the client asks for it.
pub(super) fn connect(client: &Client) -> Result<Stream, ClientError> {
    let connected = first(client).and_then(|stream| {
        prepare(&stream)?;
        // A read that takes longer interrupts a handshake; a write that does, ends the connection.
        stream.set_read_timeout(Some(client.time_max))?;
        stream.set_write_timeout(Some(client.time_max))?;
        Ok(stream)
    });
    let stream = connected.map_err(|source| ClientError::Connect(client.host.clone(), source))?;
    match &client.tls {
        Some(tls) => tls.seal(client, stream),
        None => Ok(Stream::Plain(stream)),
    }
}

/// The first address that answers.
fn first(client: &Client) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in client.host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, client.time_max) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A server whose machine has gone says nothing: the kernel asks.
pub(super) fn prepare(stream: &impl std::os::fd::AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(stream, true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, ASKED_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, ASKED_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, ASKED_TIMES)?;
    Ok(())
}

/// A stream that a signal interrupts in nothing: with a time-out the kernel does not go on by itself
/// what a signal has interrupted, so a read that is not tried again would be taken for a loss.
#[derive(Debug)]
pub(super) struct Patient<S>(pub(super) S);

impl<S: Read> Read for Patient<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        again(|| self.0.read(into))
    }
}

impl<S: Write> Write for Patient<S> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        again(|| self.0.write(from))
    }

    fn flush(&mut self) -> io::Result<()> {
        again(|| self.0.flush())
    }
}

fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

const ASKED_AFTER: Duration = Duration::from_secs(30);
const ASKED_EVERY: Duration = Duration::from_secs(10);
const ASKED_TIMES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// Interrupted before every call that does something.
    struct Interrupted(bool);

    impl Interrupted {
        fn call<T>(&mut self, done: T) -> io::Result<T> {
            self.0 = !self.0;
            match self.0 {
                true => Err(io::ErrorKind::Interrupted.into()),
                false => Ok(done),
            }
        }
    }

    impl Read for Interrupted {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.call(1)
        }
    }

    impl Write for Interrupted {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            self.call(from.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.call(())
        }
    }

    #[test]
    fn a_signal_is_not_a_loss() {
        let mut stream = Patient(Interrupted(false));
        assert_eq!(stream.read(&mut [0; 4]).unwrap(), 1);
        assert_eq!(stream.write(b"abc").unwrap(), 3);
        stream.flush().unwrap();
    }
}
