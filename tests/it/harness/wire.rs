//! A socket for hostile bytes: what goes out is exactly what a test writes, and what comes in is
//! shown frame by frame. Answers nothing by itself. Knows the layout of frames, no rules.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::client::{connected, is_timeout};
use super::patient::Patient;

/// The kinds of frames, as numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opcode(pub(crate) u8);

impl Opcode {
    pub(crate) const CONTINUE: Self = Self(0);
    pub(crate) const TEXT: Self = Self(1);
    pub(crate) const BINARY: Self = Self(2);
    pub(crate) const CLOSE: Self = Self(8);
    pub(crate) const PING: Self = Self(9);
    pub(crate) const PONG: Self = Self(10);
}

/// One connection.
pub(crate) struct Wire {
    stream: Patient<TcpStream>,
    /// What was received and not taken yet.
    received: Vec<u8>,
}

impl Wire {
    /// Connects and says nothing.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(connected(address))
    }

    /// Uses a connected stream.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self {
            stream: Patient(stream),
            received: Vec::new(),
        }
    }

    /// Connects and upgrades on `target`, which may carry a token.
    #[track_caller]
    pub(crate) fn upgraded(address: SocketAddr, target: &str) -> Self {
        let mut wire = Self::connect(address);
        wire.upgrade(target);
        wire
    }

    /// Upgrades on `target`.
    #[track_caller]
    pub(crate) fn upgrade(&mut self, target: &str) {
        self.write(upgrade_request(target, &[]));
        let head = self.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// Sends these bytes.
    #[track_caller]
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let written = self.try_write(bytes.as_ref());
        written.expect("the bytes can be sent");
    }

    /// Sends these bytes, if the server still listens.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a masked frame.
    #[track_caller]
    pub(crate) fn send(&mut self, opcode: Opcode, payload: impl AsRef<[u8]>) {
        self.write(frame(true, opcode, payload.as_ref()));
    }

    /// The head of an HTTP response, with its empty line.
    #[track_caller]
    pub(crate) fn read_head(&mut self) -> String {
        loop {
            let end = self
                .received
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(at) = end {
                let head = self.take(at + 4);
                return String::from_utf8(head).unwrap();
            }
            assert!(self.read_more(), "the head of a response does not come");
        }
    }

    /// Exactly so many bytes.
    #[track_caller]
    pub(crate) fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert!(self.read_more(), "{count} bytes do not come");
        }
        self.take(count)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.received.split_off(count);
        std::mem::replace(&mut self.received, rest)
    }

    /// All bytes until the server ends the connection.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.received)
    }

    /// The next frame of the server: never masked, never fragmented.
    #[track_caller]
    pub(crate) fn read_frame(&mut self) -> (Opcode, Vec<u8>) {
        let head = self.read_bytes(2);
        assert_eq!(head[0] & 0xf0, 0x80, "whole frames without reserved bits");
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let length = match head[1] {
            126 => self.read_number(2),
            127 => self.read_number(8),
            short => usize::from(short),
        };
        (Opcode(head[0] & 0x0f), self.read_bytes(length))
    }

    fn read_number(&mut self, bytes: usize) -> usize {
        let bytes = self.read_bytes(bytes);
        let shift = |sum, byte: &u8| sum << 8 | usize::from(*byte);
        bytes.iter().fold(0, shift)
    }

    /// The next frame must be this one.
    #[track_caller]
    pub(crate) fn expect_frame(&mut self, opcode: Opcode, payload: impl AsRef<[u8]>) {
        let found = self.read_frame();
        assert_eq!(found, (opcode, payload.as_ref().to_vec()));
    }

    /// The next frame must be a text, and this one.
    #[track_caller]
    pub(crate) fn expect_text(&mut self, text: &str) {
        let (opcode, payload) = self.read_frame();
        let payload = String::from_utf8_lossy(&payload);
        assert_eq!((opcode, &*payload), (Opcode::TEXT, text));
    }

    /// The next frame that is no ping must be a close with this code; the reason that it gives.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) -> String {
        loop {
            let (opcode, payload) = self.read_frame();
            match opcode {
                Opcode::PING => {}
                Opcode::CLOSE => {
                    let (found, reason) = payload.split_at_checked(2).expect("a close code");
                    assert_eq!(u16::from_be_bytes([found[0], found[1]]), code);
                    return String::from_utf8(reason.to_vec()).unwrap();
                }
                other => panic!("no close but {other:?} {payload:?}"),
            }
        }
    }

    /// The server must end the connection; nothing more may come.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    /// Ends the sending side only.
    pub(crate) fn finish(&self) {
        self.stream.0.shutdown(Shutdown::Write).unwrap();
    }

    /// The socket.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream.0
    }

    /// Reads what there is; `false` at the end.
    #[track_caller]
    fn read_more(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) if is_timeout(&error) => panic!("the server is silent: {error}"),
            // A reset is an end too.
            Err(_) => false,
        }
    }
}

/// A request that upgrades on `target`, with more header lines.
pub(crate) fn upgrade_request(target: &str, lines: &[&str]) -> String {
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for line in lines {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request + "\r\n"
}

/// A masked frame in its shortest form.
pub(crate) fn frame(is_final: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let first = if is_final { 0x80 } else { 0 } | opcode.0;
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | u8::try_from(short).unwrap()),
        medium @ 126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    bytes.extend(masked.map(|(byte, key)| byte ^ key));
    bytes
}

/// A header that announces `length` bytes in eight of its own, without a payload.
pub(crate) fn giant(opcode: Opcode, length: u64) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode.0, 0x80 | 127];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&MASK);
    bytes
}

/// Any four bytes mask.
pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
