//! Server frames: header and payload in one piece of bytes, unmasked, never fragmented. Knows
//! nothing of what the payload means.

use bytes::Bytes;

/// The kinds of frames that a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// UTF-8 text.
    Text = 1,
    /// Any bytes.
    Binary = 2,
    /// The end, with a code and a reason.
    Close = 8,
    /// A question whether the peer is there.
    Ping = 9,
    /// The answer to a ping.
    Pong = 10,
}

/// The longest header of a server frame.
pub const HEADER_BYTES_MAX: usize = 10;

/// The longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;

/// The header of a whole frame: the bytes and how many of them count.
pub fn header(opcode: Opcode, payload_len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut bytes = [0; HEADER_BYTES_MAX];
    bytes[0] = FINAL | opcode as u8;
    let header_len = if payload_len <= CONTROL_BYTES_MAX {
        bytes[1] = payload_len.to_le_bytes()[0];
        2
    } else if let Ok(len) = u16::try_from(payload_len) {
        bytes[1] = LENGTH_IS_U16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        4
    } else {
        bytes[1] = LENGTH_IS_U64;
        bytes[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
        10
    };
    (bytes, header_len)
}

/// The kind, the length of the header and the whole length of the first of `frames`, which a server
/// wrote; the kind only if it is of data. `None` when there is no whole frame.
pub fn measure(frames: &[u8]) -> Option<(Option<Opcode>, usize, usize)> {
    let (&[first, second], rest) = frames.split_first_chunk()?;
    let (header_len, payload_len) = match second {
        LENGTH_IS_U16 => (4, u16::from_be_bytes(*rest.first_chunk()?).into()),
        LENGTH_IS_U64 => (
            10,
            usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?,
        ),
        len => (2, usize::from(len)),
    };
    let opcode = match first & OPCODE_BITS {
        1 => Some(Opcode::Text),
        2 => Some(Opcode::Binary),
        _ => None,
    };
    let whole_len = payload_len.checked_add(header_len)?;
    (whole_len <= frames.len()).then_some((opcode, header_len, whole_len))
}

/// Appends a whole frame.
pub fn put(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(HEADER_BYTES_MAX + payload.len());
    match u8::try_from(payload.len()) {
        Ok(len) if payload.len() <= CONTROL_BYTES_MAX => {
            out.extend_from_slice(&[FINAL | opcode as u8, len]);
        }
        _ => {
            let (bytes, header_len) = header(opcode, payload.len());
            out.extend_from_slice(&bytes[..header_len]);
        }
    }
    out.extend_from_slice(payload);
}

/// Appends a text frame whose payload `write` appends. The header stands in front of it without
/// a second buffer: room for the shortest one is left, and only a longer payload is moved.
pub fn put_text_with(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES_MIN]);
    write(out);
    assert!(
        start + HEADER_BYTES_MIN <= out.len(),
        "a writer only appends"
    );
    let payload_len = out.len() - start - HEADER_BYTES_MIN;
    let (bytes, header_len) = header(Opcode::Text, payload_len);
    if HEADER_BYTES_MIN < header_len {
        out.resize(out.len() + header_len - HEADER_BYTES_MIN, 0);
        let payload = start + HEADER_BYTES_MIN;
        out.copy_within(payload..payload + payload_len, start + header_len);
    }
    out[start..start + header_len].copy_from_slice(&bytes[..header_len]);
}

/// A text frame.
pub fn text(payload: &[u8]) -> Bytes {
    whole(Opcode::Text, payload)
}

/// A binary frame.
pub fn binary(payload: &[u8]) -> Bytes {
    whole(Opcode::Binary, payload)
}

/// A ping. A control frame holds no more than 125 bytes: the rest of the payload is cut.
pub fn ping(payload: &[u8]) -> Bytes {
    whole(
        Opcode::Ping,
        &payload[..payload.len().min(CONTROL_BYTES_MAX)],
    )
}

/// A pong, cut like a ping.
pub fn pong(payload: &[u8]) -> Bytes {
    whole(
        Opcode::Pong,
        &payload[..payload.len().min(CONTROL_BYTES_MAX)],
    )
}

/// A close frame; the reason is cut at 123 bytes, at the end of a character.
pub fn close(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    whole(Opcode::Close, &payload)
}

/// The answer to a close frame that carried no code.
pub fn close_without_code() -> Bytes {
    whole(Opcode::Close, &[])
}

fn whole(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = Vec::new();
    put(&mut out, opcode, payload);
    out.into()
}

const FINAL: u8 = 0x80;
const OPCODE_BITS: u8 = 0x0f;
const LENGTH_IS_U16: u8 = 126;
const LENGTH_IS_U64: u8 = 127;
const HEADER_BYTES_MIN: usize = 2;
const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every class of length, at its borders, read back by another codec.
    #[test]
    fn headers_are_the_shortest_possible() {
        use tungstenite::protocol::frame::FrameHeader;
        for (len, header_len) in [
            (0, 2),
            (125, 2),
            (126, 4),
            (65_535, 4),
            (65_536, 10),
            (5_000_000_000, 10),
        ] {
            let (bytes, used) = header(Opcode::Binary, len);
            assert_eq!(used, header_len);
            let mut cursor = std::io::Cursor::new(&bytes[..used]);
            let (parsed, parsed_len) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert_eq!(parsed_len, len as u64);
            assert!(parsed.is_final && parsed.mask.is_none());
            assert!(!parsed.rsv1 && !parsed.rsv2 && !parsed.rsv3);
            assert_eq!(u8::from(parsed.opcode), 2);
        }
    }

    #[test]
    fn a_frame_written_in_place_equals_a_frame_of_a_payload() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![b'x'; len];
            let mut out = b"before".to_vec();
            put_text_with(&mut out, |out| out.extend_from_slice(&payload));
            let mut expected = b"before".to_vec();
            put(&mut expected, Opcode::Text, &payload);
            assert!(out == expected, "payload of {len} bytes");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close(1001, &"é".repeat(100));
        assert_eq!(&frame[..4], [0x88, 124, 0x03, 0xe9]);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
        assert_eq!(&close(1000, "bye")[..], b"\x88\x05\x03\xe8bye");
        assert_eq!(&close_without_code()[..], b"\x88\x00");
    }

    #[test]
    fn control_frames_are_never_too_long() {
        assert_eq!(&ping(b"hi")[..], b"\x89\x02hi");
        assert_eq!(pong(&[0; 126]).len(), 127);
    }
}
