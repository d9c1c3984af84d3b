//! Connections over TCP, within the time that a client has. Knows no protocol.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use rustix::net::sockopt;

use super::{Client, ClientError};

pub(super) fn connect(client: &Client) -> Result<TcpStream, ClientError> {
    let connected = first(client).and_then(|stream| {
        prepare(&stream)?;
        Ok(stream)
    });
    connected.map_err(|source| ClientError::Connect(client.host.clone(), source))
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

const ASKED_AFTER: Duration = Duration::from_secs(30);
const ASKED_EVERY: Duration = Duration::from_secs(10);
const ASKED_TIMES: u32 = 3;
