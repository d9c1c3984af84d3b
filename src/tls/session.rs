//! One session over one socket: received bytes are opened into plain ones, plain ones are sealed
//! into records. Holds no buffer while idle. Knows no socket.
//!
//! What is sealed has its place in the order of the wire: it is sealed once, when it is sent.

use std::fmt;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{HandshakeKind, ServerConfig};

use super::{Fault, Greeting, Opened};

/// A session of the server's side.
pub(crate) struct Tls {
    connection: UnbufferedServerConnection,
    /// The beginning of a record, or of a handshake message, whose rest has not come.
    held: Vec<u8>,
    /// Records of the handshake that go out before anything else.
    out: Vec<u8>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has come yet.
    New,
    Handshake,
    Open,
    /// Our end was sealed. What comes is still opened.
    Ended,
    /// An alert of ours is the last that goes out.
    Failed,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("stage", &self.stage)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn new(config: &Arc<ServerConfig>) -> Option<Self> {
        let connection = UnbufferedServerConnection::new(Arc::clone(config)).ok()?;
        Some(Self {
            connection,
            held: Vec::new(),
            out: Vec::new(),
            stage: Stage::New,
        })
    }

    /// Whether the handshake is done, so that what is sealed goes out.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Ended)
    }

    /// Whether records of its own wait to be sent.
    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Bytes that wait for their rest.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Opens what was received and appends what it says to `plain`. After an error nothing more is
    /// opened; what `take_output` gives then, an alert, still goes out.
    pub(crate) fn handle_received(
        &mut self,
        received: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<Opened, Fault> {
        if self.stage == Stage::New && !received.is_empty() {
            if received[0].is_ascii_alphabetic() {
                self.stage = Stage::Failed;
                return Err(Fault::PlainHttp);
            }
            self.stage = Stage::Handshake;
        }
        if self.stage == Stage::Failed {
            return Ok(Opened::default());
        }
        if self.held.is_empty() {
            let (used, opened) = self.process(received, plain)?;
            self.hold(&received[used..])?;
            return Ok(opened);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(received);
        let (used, opened) = self.process(&mut held, plain)?;
        if used < held.len() {
            held.drain(..used);
            self.held = held;
            self.check_held()?;
        }
        Ok(opened)
    }

    fn hold(&mut self, rest: &[u8]) -> Result<(), Fault> {
        if !rest.is_empty() {
            self.held.extend_from_slice(rest);
        }
        self.check_held()
    }

    fn check_held(&mut self) -> Result<(), Fault> {
        if HELD_BYTES_MAX < self.held.len() {
            self.held = Vec::new();
            self.stage = Stage::Failed;
            return Err(Fault::TooLong(HELD_BYTES_MAX));
        }
        Ok(())
    }

    /// Works on `bytes` until they are used up or their rest is missing; how many were used.
    fn process(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<(usize, Opened), Fault> {
        let mut used = 0;
        let mut opened = Opened::default();
        loop {
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut bytes[used..]);
            let mut is_done = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.out),
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::PeerClosed) => opened.is_ended = true,
                Ok(ConnectionState::WriteTraffic(_)) => {
                    is_done = true;
                    if self.stage == Stage::Handshake {
                        self.stage = Stage::Open;
                        opened.greeted = Some(Greeting::Full);
                    }
                }
                // Early data is never accepted, so its state is never reached.
                Ok(_) => is_done = true,
                Err(error) => return Err(self.fail(&error)),
            }
            used += discard;
            if is_done {
                break;
            }
        }
        if opened.greeted.is_some()
            && self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
        {
            opened.greeted = Some(Greeting::Resumed);
        }
        Ok((used, opened))
    }

    /// Notes that the session is over; its alert is what goes out last.
    fn fail(&mut self, error: &rustls::Error) -> Fault {
        let before_hello = self.out.is_empty() && self.stage == Stage::Handshake;
        self.stage = Stage::Failed;
        // What was answered before the fault goes out in front of the alert.
        while let Ok(ConnectionState::EncodeTlsData(mut data)) =
            self.connection.process_tls_records(&mut []).state
        {
            encode(&mut data, &mut self.out);
        }
        let is_unknown_name =
            matches!(error, rustls::Error::General(text) if text.contains("certificate chain"));
        if is_unknown_name && before_hello {
            self.out = UNRECOGNIZED_NAME.to_vec();
        }
        Fault::Protocol(error.to_string())
    }

    /// Moves the records that the session itself has to send to the end of `out`.
    pub(crate) fn take_output(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
        self.out = Vec::new();
    }

    /// Appends `plain` as records, at most 16 KiB each, behind what the session itself has to send.
    /// What is sealed must be sent, in this order.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.take_output(out);
        self.write(out, |traffic, room| traffic.encrypt(plain, room));
    }

    /// Appends the word that nothing more comes, once; nothing is sealed behind it.
    pub(crate) fn seal_end(&mut self, out: &mut Vec<u8>) {
        self.take_output(out);
        self.write(out, |traffic, room| traffic.queue_close_notify(room));
        if self.stage == Stage::Open {
            self.stage = Stage::Ended;
        }
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        mut put: impl FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) {
        while self.stage == Stage::Open {
            match self.connection.process_tls_records(&mut []).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return with_room(out, |room| match put(&mut traffic, room) {
                        Ok(len) => Ok(len),
                        Err(EncryptError::InsufficientSize(needed)) => Err(needed.required_size),
                        Err(EncryptError::EncryptExhausted) => Ok(0),
                    });
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, out),
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

type Data = rustls::server::ServerConnectionData;
type Traffic<'c> = rustls::unbuffered::WriteTraffic<'c, Data>;

fn encode(data: &mut rustls::unbuffered::EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    with_room(out, |room| match data.encode(room) {
        Ok(len) => Ok(len),
        Err(EncodeError::InsufficientSize(needed)) => Err(needed.required_size),
        Err(EncodeError::AlreadyEncoded) => Ok(0),
    });
}

/// Appends what `put` writes; it says how much it wrote, or how much room it needs.
fn with_room(out: &mut Vec<u8>, mut put: impl FnMut(&mut [u8]) -> Result<usize, usize>) {
    let start = out.len();
    let mut room = 0;
    loop {
        out.resize(start + room, 0);
        match put(&mut out[start..]) {
            Ok(len) => return out.truncate(start + len),
            Err(needed) => {
                assert!(
                    room < needed,
                    "more room is asked for only where it is missing"
                );
                room = needed;
            }
        }
    }
}

/// A whole record with its header, or a client's part of a handshake.
const HELD_BYTES_MAX: usize = 18 * 1024;
/// The fatal alert `unrecognized_name` (112) in a record of its own.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];
