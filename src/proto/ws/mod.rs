//! Frames from clients, without I/O: bytes go in as they arrive, messages come out. A frame that
//! lies whole in the buffer is unmasked there and lent out; only what spans buffers or fragments
//! is copied. Knows nothing of what a text means, nor of time: the caller limits how long a
//! message may stay unfinished.
//!
//! Lengths are checked against the limits before anything is reserved, and text is checked as
//! its bytes arrive, so the peer's first wrong byte ends it.

pub mod deflate;
mod partial;
mod payload;
mod rules;
mod utf8;

#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod deflate_tests;
#[cfg(test)]
mod tests;

use std::io::Cursor;
use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;

pub use self::payload::{Input, Message, Payload};
pub use self::rules::{FrameLimits, ProtocolError};

use self::partial::Partial;
use self::rules::{Frame, Opcode};

/// What a connection remembers between two buffers: next to nothing while no frame is unfinished.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
    lent: Lent,
    ended: bool,
}

const _: () = assert!(size_of::<Decoder>() <= 64);

/// Which stored bytes the last message borrowed; they are given up at the next call.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Lent {
    #[default]
    Nothing,
    Control,
    Message,
}

/// Where the bytes of a complete message lie, and whether they are compressed.
struct Found {
    opcode: Opcode,
    place: Place,
    is_deflated: bool,
}

enum Place {
    Input(Range<usize>),
    Stored,
}

impl Decoder {
    /// The next message, or `None` when the input is used up. After a close frame or an error
    /// everything is swallowed.
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut Input<'_>,
        limits: &FrameLimits,
    ) -> Result<Option<Message<'a>>, ProtocolError> {
        self.release();
        let small = self.find_small(input, limits);
        match small.unwrap_or_else(|| self.find(input, limits)) {
            Ok(Some(found)) => Ok(Some(self.lend(found, input)?)),
            Ok(None) => Ok(None),
            Err(error) => {
                *self = Self {
                    ended: true,
                    ..Self::default()
                };
                input.take(input.remaining());
                Err(error)
            }
        }
    }

    /// How many bytes of an unfinished frame or message are held.
    pub fn partial_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.bytes())
    }

    /// Is a frame or a message unfinished?
    pub fn has_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Is a message unfinished, of which at least the first header has arrived?
    pub fn is_fragmented(&self) -> bool {
        self.partial
            .as_ref()
            .is_some_and(|partial| partial.kind.is_some())
    }

    /// Has a close frame or an error been seen?
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    fn release(&mut self) {
        match std::mem::take(&mut self.lent) {
            Lent::Nothing => {}
            Lent::Message => self.partial = None,
            Lent::Control => {
                if let Some(partial) = &mut self.partial {
                    partial.control.clear();
                    if partial.kind.is_none() {
                        self.partial = None;
                    }
                }
            }
        }
    }

    /// A short frame that is a message by itself and lies whole in the input, as most do; of all else
    /// nothing is said, and nothing taken.
    fn find_small(
        &self,
        input: &mut Input<'_>,
        limits: &FrameLimits,
    ) -> Option<Result<Option<Found>, ProtocolError>> {
        if self.ended || self.partial.is_some() {
            return None;
        }
        let (opcode, mask, length) = rules::small_header(input.rest(), limits)?;
        if input.rest().len() < rules::SMALL_HEADER_BYTES + length {
            return None;
        }
        input.take(rules::SMALL_HEADER_BYTES);
        let range = input.take(length);
        let payload = &mut input.buf[range.clone()];
        unmask(payload, mask, 0);
        let checked = rules::check_payload(opcode, payload, limits);
        Some(checked.map(|()| {
            Some(Found {
                opcode,
                place: Place::Input(range),
                is_deflated: false,
            })
        }))
    }

    fn find(
        &mut self,
        input: &mut Input<'_>,
        limits: &FrameLimits,
    ) -> Result<Option<Found>, ProtocolError> {
        if self.ended {
            input.take(input.remaining());
        }
        loop {
            let unfinished = self.partial.as_mut().and_then(|it| it.frame.take());
            let is_new = unfinished.is_none();
            let frame = match unfinished {
                Some(frame) => frame,
                None => match self.header(input, limits)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let is_whole = frame.received == 0 && frame.length <= input.remaining();
            let is_alone = frame.opcode.is_control() || (frame.is_final && !self.is_fragmented());
            if is_whole && is_alone {
                let range = unmask_whole(&frame, input);
                if !frame.is_deflated {
                    rules::check_payload(frame.opcode, &input.buf[range.clone()], limits)?;
                }
                self.ended |= frame.opcode == Opcode::Close;
                if !self.is_fragmented() {
                    self.partial = None;
                }
                return Ok(Some(Found {
                    opcode: frame.opcode,
                    place: Place::Input(range),
                    is_deflated: frame.is_deflated,
                }));
            }
            let partial = self.partial.get_or_insert_default();
            if is_new {
                partial.open(&frame);
            }
            if !partial.absorb(frame, input, limits)? {
                return Ok(None);
            }
            if let Some(opcode) = partial.complete(&frame, limits)? {
                self.ended |= opcode == Opcode::Close;
                let is_deflated = !opcode.is_control() && partial.is_deflated;
                return Ok(Some(Found {
                    opcode,
                    place: Place::Stored,
                    is_deflated,
                }));
            }
        }
    }

    /// Reads a header, which may have begun in an earlier buffer.
    fn header(
        &mut self,
        input: &mut Input<'_>,
        limits: &FrameLimits,
    ) -> Result<Option<Frame>, ProtocolError> {
        if let Some(partial) = &mut self.partial
            && !partial.header.is_empty()
        {
            let held = partial.header.len();
            let more = input.rest().len().min(HEADER_BYTES_MAX - held);
            partial.header.extend_from_slice(&input.rest()[..more]);
            let Some((header, length, used)) = parse_header(&partial.header)? else {
                input.take(more);
                rules::check_start(&partial.header, Some(partial), limits)?;
                return Ok(None);
            };
            assert!(held < used, "a whole header would have been read before");
            input.take(used - held);
            let bytes = std::mem::take(&mut partial.header);
            let open = self.partial.as_deref();
            let checked = rules::check_header(&header, length, used, open, limits);
            let fault = |error| self.first_fault(&bytes[..used], limits, error);
            return checked.map(Some).map_err(fault);
        }
        let parsed = parse_header(input.rest());
        let parsed = parsed.map_err(|error| self.first_fault(input.rest(), limits, error))?;
        let Some((header, length, used)) = parsed else {
            let rest = input.take(input.remaining());
            if !rest.is_empty() {
                let held = &input.buf[rest];
                rules::check_start(held, self.partial.as_deref(), limits)?;
                let partial = self.partial.get_or_insert_default();
                partial.header.extend_from_slice(held);
            }
            return Ok(None);
        };
        let head = input.take(used);
        let checked = rules::check_header(&header, length, used, self.partial.as_deref(), limits);
        let frame = checked.map_err(|error| self.first_fault(&input.buf[head], limits, error))?;
        Ok(Some(frame))
    }

    /// Of all that is wrong with a header what comes first, so that it is the same however it was
    /// cut. Of one and the same fault the whole header knows more.
    fn first_fault(
        &self,
        bytes: &[u8],
        limits: &FrameLimits,
        found: ProtocolError,
    ) -> ProtocolError {
        let partial = self.partial.as_deref();
        let starts = (1..=bytes.len().min(HEADER_BYTES_MAX)).map(|count| &bytes[..count]);
        let first = starts
            .map(|start| rules::check_start(start, partial, limits))
            .find_map(Result::err);
        match first {
            Some(first) if std::mem::discriminant(&first) != std::mem::discriminant(&found) => {
                first
            }
            _ => found,
        }
    }

    fn lend<'a>(
        &'a mut self,
        found: Found,
        input: &'a mut Input<'_>,
    ) -> Result<Message<'a>, ProtocolError> {
        let (opcode, is_deflated) = (found.opcode, found.is_deflated);
        let (bytes, len) = match found.place {
            Place::Input(range) => (&mut input.buf[range.start..], range.len()),
            Place::Stored => {
                let partial = self.partial.get_or_insert_default();
                let bytes = if opcode.is_control() {
                    self.lent = Lent::Control;
                    &mut partial.control[..]
                } else {
                    self.lent = Lent::Message;
                    &mut partial.message[..]
                };
                let len = bytes.len();
                (bytes, len)
            }
        };
        Ok(match opcode {
            Opcode::Text => Message::Text(Payload::new(bytes, len).deflated(is_deflated)),
            Opcode::Binary | Opcode::Continue => {
                Message::Binary(Payload::new(bytes, len).deflated(is_deflated))
            }
            Opcode::Ping => Message::Ping(&bytes[..len]),
            Opcode::Pong => Message::Pong(&bytes[..len]),
            Opcode::Close => Message::Close(rules::close_payload(&bytes[..len])?),
        })
    }
}

/// Takes the payload of a frame that lies whole in the input and unmasks it there.
fn unmask_whole(frame: &Frame, input: &mut Input<'_>) -> Range<usize> {
    let range = input.take(frame.length);
    unmask(&mut input.buf[range.clone()], frame.mask, 0);
    range
}

/// The header, the length of the payload and the bytes that the header took.
fn parse_header(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, ProtocolError> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| {
        ProtocolError::ReservedOpcode(bytes.first().map_or(0, |first| first & OPCODE_BITS))
    })?;
    let used = usize::try_from(cursor.position()).unwrap_or(bytes.len());
    Ok(parsed.map(|(header, length)| (header, length, used)))
}

/// Removes the mask from `bytes`, which begin `offset` bytes into their frame. Lanes of eight
/// bytes are what the compiler turns into vector instructions.
fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut mask = mask;
    mask.rotate_left(offset % 4);
    let half_key = u64::from(u32::from_le_bytes(mask));
    let lane_key = half_key << 32 | half_key;
    let (lanes, rest) = bytes.as_chunks_mut::<8>();
    for lane in lanes {
        *lane = (u64::from_le_bytes(*lane) ^ lane_key).to_le_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(lane_key.to_le_bytes()) {
        *byte ^= key;
    }
}

const HEADER_BYTES_MAX: usize = 14;
const OPCODE_BITS: u8 = 0x0f;
