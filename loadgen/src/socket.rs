//! Opening connections before a run: source addresses, the upgrade, the first exchange of frames.
//! Blocking and in order; what is measured happens later, on the ring.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::frame::{self, Frame, FrameWalker};
use crate::seal::{Session, Trust};
use crate::stream::Stream;
use crate::ways::{self, Ways};

/// Whom to connect to, and how.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) server: SocketAddr,
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    /// Plain TCP: no upgrade, the server returns the bytes it gets.
    pub(crate) raw: bool,
    /// How many loopback addresses the connections come from; 0 chooses by their number.
    pub(crate) sources: u8,
    pub(crate) ways: Ways,
    /// What is trusted, where TLS is spoken.
    pub(crate) trust: Option<Trust>,
}

impl Target {
    /// The request that opens a WebSocket.
    pub(crate) fn upgrade_request(&self) -> Vec<u8> {
        let authorization = self.token.as_ref().map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let Self { server, path, .. } = self;
        let path = self.ways.target(path);
        let extensions = match self.ways.deflate {
            true => OFFER,
            false => "",
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n{extensions}{authorization}\r\n"
        )
        .into_bytes()
    }

    /// Opens `count` connections, some at a time so that the server's accept queue is not
    /// overrun, and tells `opened` how many there are.
    pub(crate) fn open(&self, count: usize, opened: impl Fn(usize)) -> Result<Vec<Stream>> {
        let sources = self.source_count(count);
        let request = self.upgrade_request();
        let mut streams = Vec::with_capacity(count);
        while streams.len() < count {
            let from = streams.len();
            for number in from..count.min(from + OPENED_AT_ONCE) {
                let mut stream = self.connect(number, sources)?;
                if !self.raw {
                    stream.write(&request)?;
                }
                streams.push(stream);
            }
            if !self.raw {
                let mut new = streams[from..].iter_mut();
                new.try_for_each(|stream| self.await_open(stream))?;
            }
            opened(streams.len());
        }
        Ok(streams)
    }

    /// A socket bound to its source address, not yet connected.
    pub(crate) fn bound_socket(&self, number: usize, sources: u8) -> Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(self.server),
            Type::STREAM,
            Some(Protocol::TCP),
        )
        .context("open a socket")?;
        socket.set_tcp_nodelay(true)?;
        if let (true, Ok(offset)) = (1 < sources, u8::try_from(number % usize::from(sources))) {
            // Ports of earlier runs are still waiting: each process has addresses of its own.
            let network = u8::try_from(std::process::id() % 255).unwrap_or(0);
            let source = Ipv4Addr::new(127, 1, network, 1 + offset);
            socket
                .bind(&SocketAddr::from((source, 0)).into())
                .with_context(|| format!("bind to {source}: no free port left there"))?;
        }
        Ok(socket)
    }

    /// How many source addresses `count` connections want: one has some 28,000 ports.
    pub(crate) fn source_count(&self, count: usize) -> u8 {
        let loopback = matches!(self.server.ip(), IpAddr::V4(ip) if ip.octets()[0] == 127);
        match (loopback, self.sources) {
            (false, _) => 1,
            (true, 0) => u8::try_from(1 + count / PORTS_PER_SOURCE).unwrap_or(SOURCES_MAX),
            (true, sources) => sources.min(SOURCES_MAX),
        }
    }

    /// A session of TLS, where it is spoken.
    pub(crate) fn session(&self) -> Result<Option<Box<Session>>> {
        let trust = self.trust.as_ref();
        trust
            .map(|trust| Session::new(trust, self.server.ip()))
            .transpose()
    }

    /// Waits for the end of the upgrade; of Socket.IO, until the namespace `/` is joined.
    fn await_open(&self, stream: &mut Stream) -> Result<()> {
        let head = stream.read_until("the answer to the upgrade", upgraded)?;
        if self.ways.deflate && !has_deflate(&head) {
            bail!("the server did not take --deflate: is `compression = true` there?");
        }
        if self.ways.socketio {
            read_text(stream, b"0{")?;
            stream.write(&frame::masked(frame::TEXT, ways::JOIN))?;
            read_text(stream, b"40{")?;
        }
        Ok(())
    }

    fn connect(&self, number: usize, sources: u8) -> Result<Stream> {
        let socket = self.bound_socket(number, sources)?;
        socket
            .connect(&self.server.into())
            .with_context(|| format!("connect to {}: is the server up?", self.server))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Stream::new(stream, self.session()?))
    }
}

/// Sends a text message and reads until one data frame has come back.
pub(crate) fn exchange(stream: &mut Stream, request: &[u8]) -> Result<()> {
    stream.write(request).context("send the first message")?;
    let mut walker = FrameWalker::new(true);
    let mut answered = false;
    let mut chunk = [0; 4096];
    while !answered {
        let bytes = stream
            .read(&mut chunk)
            .context("wait for the answer to the first message")?;
        if bytes == 0 {
            bail!("the server closed a connection instead of answering its first message");
        }
        walker.walk(&chunk[..bytes], |frame| {
            answered |= matches!(frame, Frame::Data { .. })
        })?;
    }
    Ok(())
}

/// The frame that subscribes to a relay topic, or joins a room of Socket.IO.
pub(crate) fn subscribe_frame(topic: &str, ways: &Ways) -> Vec<u8> {
    let message = serde_json::json!({"type": "subscribe", "topic": topic});
    let event = serde_json::json!(["join", topic]);
    let text = match ways.socketio {
        true => format!("420{event}"),
        false => message.to_string(),
    };
    frame::masked(frame::TEXT, text.as_bytes())
}

/// Where a response's head ends, if it is complete; an answer other than 101 is an error.
pub(crate) fn upgraded(head: &[u8]) -> Result<Option<usize>> {
    let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    if !head.starts_with(b"HTTP/1.1 101 ") {
        let status =
            String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or(head));
        bail!("the server refused the upgrade with `{status}`: check --path and --token");
    }
    Ok(Some(end + 4))
}

/// Whether an answer to an upgrade names the extension.
fn has_deflate(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.contains("sec-websocket-extensions: permessage-deflate")
}

/// Reads one short text frame that begins as Socket.IO says.
fn read_text(stream: &mut Stream, begin: &[u8]) -> Result<()> {
    let begun = String::from_utf8_lossy(begin);
    let frame = stream.read_until(&format!("`{begun}..` of Socket.IO"), |read| {
        let (header, length) = match read {
            [_, length @ 0..=125, ..] => (2, usize::from(*length)),
            [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            _ => return Ok(None),
        };
        Ok((header + length <= read.len()).then_some(header + length))
    })?;
    let payload = &frame[if frame[1] == 126 { 4 } else { 2 }..];
    let text = String::from_utf8_lossy(payload);
    if !payload.starts_with(begin) {
        bail!("the server said `{text}` in place of `{begun}..`: check --path and --token");
    }
    Ok(())
}

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n";

/// Fewer than the accept queue of a careful server holds (128).
const OPENED_AT_ONCE: usize = 64;
const PORTS_PER_SOURCE: usize = 8_000;
const SOURCES_MAX: u8 = 250;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            server: "127.0.0.1:9000".parse().unwrap(),
            path: "/echo".into(),
            token: Some("abc".into()),
            raw: false,
            sources: 0,
            ways: Ways::default(),
            trust: None,
        }
    }

    #[test]
    fn the_token_goes_out_as_a_bearer_header() {
        let request = String::from_utf8(target().upgrade_request()).unwrap();
        assert!(request.starts_with("GET /echo HTTP/1.1\r\nHost: 127.0.0.1:9000\r\n"));
        assert!(request.ends_with("\r\nAuthorization: Bearer abc\r\n\r\n"));
    }

    #[test]
    fn the_request_says_what_is_spoken() {
        let mut target = target();
        target.path = "/socket.io/".into();
        target.ways.socketio = true;
        target.ways.deflate = true;
        let request = String::from_utf8(target.upgrade_request()).unwrap();
        assert!(request.starts_with("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"));
        assert!(request.contains("\r\nSec-WebSocket-Extensions: permessage-deflate; client_no"));
        assert!(has_deflate(
            b"A: b\r\nsec-websocket-extensions: permessage-deflate; x\r\n"
        ));
        assert!(!has_deflate(b"A: permessage-deflate\r\n"));
    }

    #[test]
    fn many_connections_come_from_many_addresses() {
        assert_eq!(target().source_count(100), 1);
        assert_eq!(target().source_count(15_000), 2);
        let elsewhere = Target {
            server: "10.1.2.3:80".parse().unwrap(),
            ..target()
        };
        assert_eq!(elsewhere.source_count(15_000), 1);
    }

    #[test]
    fn only_a_101_opens_a_connection() {
        assert_eq!(
            upgraded(b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n").unwrap(),
            None
        );
        assert_eq!(upgraded(b"HTTP/1.1 101 X\r\n\r\nabc").unwrap(), Some(18));
        let refusal = upgraded(b"HTTP/1.1 401 Unauthorized\r\n\r\n")
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("401 Unauthorized"), "{refusal}");
    }
}
