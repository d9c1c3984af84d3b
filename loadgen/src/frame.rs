//! WebSocket frames as a load generator needs them: built once and masked before the run, and
//! walked by their headers when they come back. Knows no socket and no clock, and does not look
//! at payload bytes except those of control frames.

use thiserror::Error;

/// A text message.
pub(crate) const TEXT: u8 = 0x1;
/// A binary message.
pub(crate) const BINARY: u8 = 0x2;
/// The end of a connection.
pub(crate) const CLOSE: u8 = 0x8;
/// A question whether the peer lives.
pub(crate) const PING: u8 = 0x9;
/// The answer to a ping.
pub(crate) const PONG: u8 = 0xA;

/// A complete, masked client frame.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked_with(FIN | opcode, payload)
}

/// The same around what was compressed.
pub(crate) fn masked_compressed(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked_with(FIN | COMPRESSED | opcode, payload)
}

fn masked_with(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + HEADER_BYTES_MAX);
    frame.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < LENGTH_16 => frame.push(MASKED | short),
        (_, Ok(medium)) => {
            frame.push(MASKED | LENGTH_16);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(MASKED | LENGTH_64);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// What a walk found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A piece of a message has passed: its opcode (0 for a continuation), its payload length, and
    /// whether that is the length of what was compressed.
    Data {
        opcode: u8,
        bytes: u64,
        is_compressed: bool,
    },
    /// A control frame with its payload, still masked if the peer masked it.
    Control { opcode: u8, payload: &'a [u8] },
}

/// Bytes that no peer of ours may send.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Without a negotiated extension these bits are zero.
    #[error("frame with reserved bits {0:#04x}: nothing negotiated them")]
    Reserved(u8),
    /// A control frame has at most 125 bytes.
    #[error("control frame of {0} bytes exceeds 125")]
    LongControl(u64),
}

/// Follows one connection's frames over any split of its bytes.
#[derive(Debug, Default)]
pub(crate) struct FrameWalker {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    payload_bytes: u64,
    payload_left: u64,
    control: Vec<u8>,
    takes_compressed: bool,
}

impl FrameWalker {
    /// A walker of a connection on which compression was negotiated, or was not.
    pub(crate) fn new(takes_compressed: bool) -> Self {
        Self {
            takes_compressed,
            ..Self::default()
        }
    }

    /// Walks a chunk and shows each frame when its last byte has passed.
    pub(crate) fn walk(
        &mut self,
        mut chunk: &[u8],
        mut visit: impl FnMut(Frame<'_>),
    ) -> Result<(), Malformed> {
        while !chunk.is_empty() {
            chunk = if let Some((frame, rest)) = self.whole_short_frame(chunk) {
                visit(frame);
                rest
            } else if self.payload_left == 0 {
                self.take_header(chunk, &mut visit)?
            } else {
                self.take_payload(chunk, &mut visit)
            };
        }
        Ok(())
    }

    /// The common case: a short, unmasked data frame that lies in the chunk as a whole.
    fn whole_short_frame<'a>(&self, chunk: &'a [u8]) -> Option<(Frame<'static>, &'a [u8])> {
        let [first, second, rest @ ..] = chunk else {
            return None;
        };
        let between_frames = self.header_bytes == 0 && self.payload_left == 0;
        let plain = first & (RESERVED | CONTROL) == 0 && *second < LENGTH_16;
        let rest = rest.get(usize::from(*second)..)?;
        let frame = Frame::Data {
            opcode: first & OPCODE,
            bytes: u64::from(*second),
            is_compressed: false,
        };
        (between_frames && plain).then_some((frame, rest))
    }

    fn take_header<'a>(
        &mut self,
        chunk: &'a [u8],
        visit: &mut impl FnMut(Frame<'_>),
    ) -> Result<&'a [u8], Malformed> {
        let (byte, rest) = chunk
            .split_first()
            .map_or((0, chunk), |(byte, rest)| (*byte, rest));
        self.header[self.header_bytes] = byte;
        self.header_bytes += 1;
        if self.header_bytes < header_bytes(&self.header, self.header_bytes) {
            return Ok(rest);
        }
        let (first, length) = (self.header[0], payload_bytes(&self.header));
        self.header_bytes = 0;
        let allowed = match self.takes_compressed && first & CONTROL == 0 {
            true => COMPRESSED,
            false => 0,
        };
        if first & RESERVED & !allowed != 0 {
            return Err(Malformed::Reserved(first & RESERVED));
        }
        if first & CONTROL != 0 && CONTROL_BYTES_MAX < length {
            return Err(Malformed::LongControl(length));
        }
        (self.payload_bytes, self.payload_left) = (length, length);
        if length == 0 {
            self.finish(visit);
        }
        Ok(rest)
    }

    fn take_payload<'a>(&mut self, chunk: &'a [u8], visit: &mut impl FnMut(Frame<'_>)) -> &'a [u8] {
        let left = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
        let (piece, rest) = chunk.split_at(left.min(chunk.len()));
        if self.header[0] & CONTROL != 0 {
            self.control.extend_from_slice(piece);
        }
        self.payload_left -= piece.len() as u64;
        if self.payload_left == 0 {
            self.finish(visit);
        }
        rest
    }

    fn finish(&mut self, visit: &mut impl FnMut(Frame<'_>)) {
        let opcode = self.header[0] & OPCODE;
        if opcode & CONTROL == 0 {
            visit(Frame::Data {
                opcode,
                bytes: self.payload_bytes,
                is_compressed: self.header[0] & COMPRESSED != 0,
            });
        } else {
            visit(Frame::Control {
                opcode,
                payload: &self.control,
            });
            self.control.clear();
        }
    }
}

/// How long the header is, as far as its first `known` bytes tell.
fn header_bytes(header: &[u8; HEADER_BYTES_MAX], known: usize) -> usize {
    if known < 2 {
        return 2;
    }
    let extended = match header[1] & LENGTH {
        LENGTH_16 => 2,
        LENGTH_64 => 8,
        _ => 0,
    };
    let mask = if header[1] & MASKED == 0 {
        0
    } else {
        MASK.len()
    };
    2 + extended + mask
}

fn payload_bytes(header: &[u8; HEADER_BYTES_MAX]) -> u64 {
    let mut wide = [0; 8];
    match header[1] & LENGTH {
        LENGTH_16 => wide[6..].copy_from_slice(&header[2..4]),
        LENGTH_64 => wide.copy_from_slice(&header[2..10]),
        short => wide[7] = short,
    }
    u64::from_be_bytes(wide)
}

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const COMPRESSED: u8 = 0x40;
const OPCODE: u8 = 0x0F;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7F;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
const CONTROL_BYTES_MAX: u64 = 125;
const HEADER_BYTES_MAX: usize = 14;
/// Any key other than zero costs a server the same; a fixed one lets frames be made beforehand.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Data(u8, u64),
        Control(u8, Vec<u8>),
    }

    fn walk_in_pieces(bytes: &[u8], cuts: &[usize]) -> Vec<Seen> {
        let mut walker = FrameWalker::default();
        let mut seen = Vec::new();
        let mut rest = bytes;
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (piece, tail) = rest.split_at(cut.min(rest.len()));
            let visit = |frame: Frame<'_>| {
                seen.push(match frame {
                    Frame::Data { opcode, bytes, .. } => Seen::Data(opcode, bytes),
                    Frame::Control { opcode, payload } => Seen::Control(opcode, payload.to_vec()),
                });
            };
            walker.walk(piece, visit).unwrap();
            rest = tail;
        }
        seen
    }

    /// The same frame as a server sends it.
    fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = masked(opcode, payload);
        let mask_at = frame.len() - payload.len() - MASK.len();
        frame.drain(mask_at..mask_at + MASK.len());
        frame.truncate(mask_at);
        frame.extend_from_slice(payload);
        frame[1] &= !MASKED;
        frame
    }

    #[test]
    fn a_masked_frame_is_as_the_protocol_draws_it() {
        assert_eq!(
            masked(TEXT, b"Hello"),
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
        );
        assert_eq!(masked(BINARY, &[0; 126])[..4], [0x82, 0xFE, 0, 126]);
        assert_eq!(
            masked(BINARY, &vec![0; 65_536])[..10],
            [0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }

    #[test]
    fn frames_that_break_the_protocol_are_refused() {
        let refuse = |bytes: &[u8]| FrameWalker::default().walk(bytes, |_| ()).unwrap_err();
        assert_eq!(refuse(b"\xC1\x00"), Malformed::Reserved(0x40));
        assert_eq!(refuse(b"\x89\x7E\x00\x7E"), Malformed::LongControl(126));
    }

    #[test]
    fn a_compressed_frame_is_one_where_that_was_negotiated() {
        let mut walker = FrameWalker::new(true);
        let mut seen = Vec::new();
        let both = b"\xC1\x02ab\x81\x01c";
        walker
            .walk(both, |frame| {
                if let Frame::Data {
                    bytes,
                    is_compressed,
                    ..
                } = frame
                {
                    seen.push((bytes, is_compressed));
                }
            })
            .unwrap();
        assert_eq!(seen, [(2, true), (1, false)]);
        let control = FrameWalker::new(true).walk(b"\xC9\x00", |_| ());
        assert_eq!(control, Err(Malformed::Reserved(0x40)));
        assert_eq!(masked_compressed(TEXT, b"a")[0], 0xC1);
    }

    proptest! {
        #[test]
        fn any_split_shows_the_same_frames(
            frames in prop::collection::vec(
                (prop::sample::select(vec![0, TEXT, BINARY, CLOSE, PING, PONG]), 0..70_000usize,
                 any::<bool>()), 1..6),
            cuts in prop::collection::vec(0..400usize, 0..40),
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (opcode, length, from_server) in frames {
                let length = if opcode & CONTROL == 0 { length } else { length % 126 };
                let payload = vec![0x5A; length];
                if opcode & CONTROL == 0 {
                    bytes.extend(if from_server { unmasked(opcode, &payload) } else { masked(opcode, &payload) });
                    expected.push(Seen::Data(opcode, length as u64));
                } else {
                    bytes.extend(unmasked(opcode, &payload));
                    expected.push(Seen::Control(opcode, payload));
                }
            }
            prop_assert_eq!(walk_in_pieces(&bytes, &cuts), expected);
        }
    }
}
