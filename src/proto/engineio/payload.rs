//! Bodies of polling requests: packets joined by `\x1e`, bytes as base64 behind a `b`. Frames that
//! wait for a poll are server frames of WebSocket, so that they can go out either way.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};

use super::Packet;

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPayload {
    /// It is not UTF-8.
    #[error("the body is not utf-8")]
    Utf8,
    /// One of its packets is none.
    #[error("not an engine.io packet")]
    Packet,
    /// The bytes of a packet are not base64.
    #[error("not base64")]
    Base64,
}

/// The body of a request.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a>(&'a str);

impl<'a> Payload<'a> {
    /// Reads a body as text.
    pub fn of(body: &'a [u8]) -> Result<Self, InvalidPayload> {
        simdutf8::basic::from_utf8(body)
            .map(Self)
            .map_err(|_| InvalidPayload::Utf8)
    }

    /// How many packets it has.
    pub fn count(&self) -> usize {
        self.0.bytes().filter(|byte| *byte == SEPARATOR).count() + 1
    }

    /// Its packets in their order; the last one read may be an error.
    pub fn packets(&self) -> PacketsOf<'a> {
        PacketsOf(Some(self.0))
    }
}

/// The packets of a body.
#[derive(Debug)]
pub struct PacketsOf<'a>(Option<&'a str>);

impl<'a> Iterator for PacketsOf<'a> {
    type Item = Result<Packet<'a>, InvalidPayload>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.take()?;
        let text = match rest.split_once(char::from(SEPARATOR)) {
            Some((text, behind)) => {
                self.0 = Some(behind);
                text
            }
            None => rest,
        };
        let packet = match text.strip_prefix('b') {
            Some(encoded) => bytes_of(encoded),
            None => Packet::parse(text).map_err(|_| InvalidPayload::Packet),
        };
        if packet.is_err() {
            self.0 = None;
        }
        Some(packet)
    }
}

fn bytes_of(encoded: &str) -> Result<Packet<'static>, InvalidPayload> {
    let bytes = LENIENT.decode(encoded);
    bytes
        .map(Packet::Binary)
        .map_err(|_| InvalidPayload::Base64)
}

/// Collects frames into the body of an answer, as far as they fit.
#[derive(Debug)]
pub struct PayloadWriter {
    body: Vec<u8>,
    bytes_max: usize,
}

impl PayloadWriter {
    /// An answer of at most `bytes_max` bytes; one packet always fits.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            body: Vec::new(),
            bytes_max,
        }
    }

    /// Takes what fits of `frames`, whole server frames one behind the other. Returns how many
    /// bytes and how many frames were taken.
    pub fn take(&mut self, frames: &[u8]) -> (usize, usize) {
        let (mut taken, mut count) = (0, 0);
        while let Some((is_text, payload)) = split_frame(&frames[taken..]) {
            let encoded = match is_text {
                true => payload.len(),
                false => 1 + payload.len().div_ceil(3) * 4,
            };
            let separator = usize::from(!self.body.is_empty());
            if !self.body.is_empty() && self.bytes_max < self.body.len() + separator + encoded {
                break;
            }
            if separator == 1 {
                self.body.push(SEPARATOR);
            }
            put_packet(&mut self.body, is_text, payload);
            let end = payload.as_ptr().addr() - frames.as_ptr().addr() + payload.len();
            (taken, count) = (end, count + 1);
        }
        (taken, count)
    }

    /// The body.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }
}

fn put_packet(body: &mut Vec<u8>, is_text: bool, payload: &[u8]) {
    if is_text {
        body.extend_from_slice(payload);
        return;
    }
    body.push(b'b');
    let start = body.len();
    body.resize(start + payload.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(payload, &mut body[start..]);
    debug_assert!(written.is_ok(), "the length was reckoned before");
}

/// Takes one unmasked frame apart: whether it is text, and its payload.
fn split_frame(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let (first, length) = (bytes.first()?, bytes.get(1)?);
    let (start, len): (usize, usize) = match length {
        126 => (4, usize::from(u16::from_be_bytes(array(bytes, 2)?))),
        127 => {
            let len = u64::from_be_bytes(array(bytes, 2)?);
            (10, usize::try_from(len).ok()?)
        }
        short => (2, usize::from(*short)),
    };
    let payload = bytes.get(start..start.checked_add(len)?)?;
    Some((first & OPCODE_BITS == TEXT, payload))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

const SEPARATOR: u8 = 0x1e;
const OPCODE_BITS: u8 = 0x0f;
const TEXT: u8 = 1;

/// Clients pad, or do not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
