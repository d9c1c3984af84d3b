//! What RFC 6455 and the limits allow. Knows single frames and how they follow each other, not
//! where their bytes lie.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::partial::Partial;

/// How much a client may send.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// The longest payload of one frame.
    pub frame_bytes_max: u64,
    /// The longest message, of however many frames.
    pub message_bytes_max: u64,
    /// A message may consist of this many frames, and one more for each 32 bytes of it.
    pub fragments_base_max: u32,
    /// Leave it to a parser to find out whether text is UTF-8.
    pub skip_utf8: bool,
    /// Messages may be compressed, as negotiated: the first reserved bit says that one is.
    pub deflate: bool,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 64 << 10,
            message_bytes_max: 64 << 10,
            fragments_base_max: 1024,
            skip_utf8: false,
            deflate: false,
        }
    }
}

/// What a client did that ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A bit that only an extension may set.
    #[error("reserved bits are set")]
    ReservedBits,
    /// An opcode without meaning.
    #[error("opcode {0} is reserved")]
    ReservedOpcode(u8),
    /// A client must mask.
    #[error("the frame is not masked")]
    Unmasked,
    /// A length in more bytes than it needs.
    #[error("a length of {0} bytes is not written in the shortest form")]
    LengthNotMinimal(u64),
    /// A length beyond 63 bits.
    #[error("a length of {0} bytes has its highest bit set")]
    LengthHighestBit(u64),
    /// A control frame beyond 125 bytes.
    #[error("a control frame of {0} bytes exceeds 125")]
    ControlTooLong(u64),
    /// A control frame without FIN.
    #[error("a control frame is fragmented")]
    ControlFragmented,
    /// A continuation of nothing.
    #[error("a continuation without a message")]
    ContinuationUnexpected,
    /// A new message within an unfinished one.
    #[error("a new message before the last one ended")]
    ContinuationExpected,
    /// A close frame with half a code.
    #[error("a close frame of one byte")]
    CloseTooShort,
    /// A close code that must not go over the wire.
    #[error("close code {0} is not allowed")]
    CloseCode(u16),
    /// Text or a close reason that is not UTF-8.
    #[error("text is not utf-8")]
    Utf8,
    /// A compressed message whose bytes are damaged, or do not end where it does.
    #[error("the compressed message is damaged")]
    Deflate,
    /// One frame is too long.
    #[error("frame of {bytes} bytes exceeds frame_bytes_max = {max}")]
    FrameTooLong {
        /// The length in the header.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// All frames of a message together are too long.
    #[error("message of {bytes} bytes exceeds message_bytes_max = {max}")]
    MessageTooLong {
        /// The length so far, with the frame that was announced.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A message in too many pieces.
    #[error("message of {bytes} bytes in {fragments} fragments exceeds fragments_base_max = {max}")]
    TooManyFragments {
        /// The length so far.
        bytes: u64,
        /// The frames so far.
        fragments: u64,
        /// The limit, to which one fragment for each 32 bytes is added.
        max: u32,
    },
}

impl ProtocolError {
    /// The code to close the connection with.
    pub fn close_code(&self) -> u16 {
        match self {
            Self::Utf8 | Self::Deflate => 1007,
            Self::TooManyFragments { .. } => 1008,
            Self::FrameTooLong { .. } | Self::MessageTooLong { .. } => 1009,
            _ => 1002,
        }
    }
}

/// The kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continue,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn of(code: OpCode) -> Result<Self, ProtocolError> {
        Ok(match code {
            OpCode::Data(Data::Continue) => Self::Continue,
            OpCode::Data(Data::Text) => Self::Text,
            OpCode::Data(Data::Binary) => Self::Binary,
            OpCode::Control(Control::Close) => Self::Close,
            OpCode::Control(Control::Ping) => Self::Ping,
            OpCode::Control(Control::Pong) => Self::Pong,
            OpCode::Data(Data::Reserved(code)) | OpCode::Control(Control::Reserved(code)) => {
                return Err(ProtocolError::ReservedOpcode(code));
            }
        })
    }
}

/// A frame whose header was read and allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) is_final: bool,
    /// It begins a compressed message.
    pub(super) is_deflated: bool,
    pub(super) mask: [u8; 4],
    pub(super) length: usize,
    pub(super) received: usize,
}

/// Checks a header of `used` bytes against the protocol, the unfinished message and the limits.
pub(super) fn check_header(
    header: &FrameHeader,
    length: u64,
    used: usize,
    partial: Option<&Partial>,
    limits: &FrameLimits,
) -> Result<Frame, ProtocolError> {
    let may_deflate =
        limits.deflate && matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
    if (header.rsv1 && !may_deflate) || header.rsv2 || header.rsv3 {
        return Err(ProtocolError::ReservedBits);
    }
    let mask = header.mask.ok_or(ProtocolError::Unmasked)?;
    if header.len(length) != used {
        return Err(ProtocolError::LengthNotMinimal(length));
    }
    let opcode = Opcode::of(header.opcode)?;
    if opcode.is_control() {
        check_control(header.is_final, length)?;
    } else {
        check_data(opcode, length, partial, limits)?;
    }
    let length = usize::try_from(length).map_err(|_| ProtocolError::LengthHighestBit(length))?;
    Ok(Frame {
        opcode,
        is_final: header.is_final,
        is_deflated: header.rsv1,
        mask,
        length,
        received: 0,
    })
}

/// The header of what most messages are, its mask and its length: a short text or binary frame that is a
/// message by itself, within every limit. Of all else nothing is said here, of what is wrong least of all.
pub(super) fn small_header(bytes: &[u8], limits: &FrameLimits) -> Option<(Opcode, [u8; 4], usize)> {
    let [first, second, mask @ ..] = bytes.first_chunk::<SMALL_HEADER_BYTES>()?;
    let opcode = match first {
        0x81 => Opcode::Text,
        0x82 => Opcode::Binary,
        _ => return None,
    };
    let length = second ^ MASK_BIT;
    let length_max = CONTROL_BYTES_MAX
        .min(limits.frame_bytes_max)
        .min(limits.message_bytes_max);
    let fits = u64::from(length) <= length_max && 1 <= limits.fragments_base_max;
    fits.then_some((opcode, *mask, length.into()))
}

/// Checks what has come of a header that is not whole: a byte that no header may have ends the
/// connection as soon as it is there, whatever was to follow.
pub(super) fn check_start(
    bytes: &[u8],
    partial: Option<&Partial>,
    limits: &FrameLimits,
) -> Result<(), ProtocolError> {
    let Some(first) = bytes.first() else {
        return Ok(());
    };
    let may_deflate = limits.deflate && matches!(first & OPCODE_BITS, 1 | 2);
    let allowed_bits = if may_deflate { FIRST_RESERVED_BIT } else { 0 };
    if first & RESERVED_BITS & !allowed_bits != 0 {
        return Err(ProtocolError::ReservedBits);
    }
    let opcode = Opcode::of(OpCode::from(first & OPCODE_BITS))?;
    let is_final = first & FINAL_BIT != 0;
    let (least, most) = match bytes.get(1) {
        None => (0, u64::MAX),
        Some(second) if second & MASK_BIT == 0 => return Err(ProtocolError::Unmasked),
        Some(second) => length_so_far(second & !MASK_BIT, &bytes[2..]),
    };
    // Zero for the form that has no shorter one, and so does the length that is not known yet.
    let shorter_max = bytes
        .get(1)
        .map_or(0, |second| shorter_form_max(second & !MASK_BIT));
    if opcode.is_control() {
        // A control frame has the shortest form or is too long.
        let by_form = if 0 < shorter_max { shorter_max + 1 } else { 0 };
        return check_control(is_final, least.max(by_form));
    }
    if 0 < shorter_max && most <= shorter_max {
        return Err(ProtocolError::LengthNotMinimal(most));
    }
    // The form alone does not say that a message is too long: the length may still prove not to be in
    // its shortest form, and where a header is cut must not change what is answered.
    let sure = if shorter_max < least { least } else { 0 };
    check_data(opcode, sure, partial, limits)
}

/// Between which lengths lies the one whose first bytes are these?
fn length_so_far(short: u8, bytes: &[u8]) -> (u64, u64) {
    let width = match short {
        126 => 2,
        127 => 8,
        short => return (short.into(), short.into()),
    };
    let known = &bytes[..bytes.len().min(width)];
    let at = |missing: u8| {
        let all = known.iter().copied().chain(std::iter::repeat(missing));
        all.take(width)
            .fold(0, |sum, byte| sum << 8 | u64::from(byte))
    };
    (at(0), at(0xff))
}

/// The longest payload that needs no such form of a length.
fn shorter_form_max(short: u8) -> u64 {
    match short {
        127 => 0xffff,
        126 => CONTROL_BYTES_MAX,
        _ => 0,
    }
}

fn check_control(is_final: bool, length: u64) -> Result<(), ProtocolError> {
    if CONTROL_BYTES_MAX < length {
        return Err(ProtocolError::ControlTooLong(length));
    }
    if !is_final {
        return Err(ProtocolError::ControlFragmented);
    }
    Ok(())
}

fn check_data(
    opcode: Opcode,
    length: u64,
    partial: Option<&Partial>,
    limits: &FrameLimits,
) -> Result<(), ProtocolError> {
    let open = partial.filter(|partial| partial.kind.is_some());
    match (opcode == Opcode::Continue, open.is_some()) {
        (true, false) => return Err(ProtocolError::ContinuationUnexpected),
        (false, true) => return Err(ProtocolError::ContinuationExpected),
        _ => {}
    }
    if i64::MAX.unsigned_abs() < length {
        return Err(ProtocolError::LengthHighestBit(length));
    }
    if limits.frame_bytes_max < length {
        let max = limits.frame_bytes_max;
        return Err(ProtocolError::FrameTooLong { bytes: length, max });
    }
    let (held, fragments) = open.map_or((0, 0), |it| (it.message.len() as u64, it.fragments));
    let bytes = held.saturating_add(length);
    if limits.message_bytes_max < bytes {
        let max = limits.message_bytes_max;
        return Err(ProtocolError::MessageTooLong { bytes, max });
    }
    let fragments = fragments + 1;
    let max = limits.fragments_base_max;
    if u64::from(max) + bytes / BYTES_PER_FRAGMENT < fragments {
        return Err(ProtocolError::TooManyFragments {
            bytes,
            fragments,
            max,
        });
    }
    Ok(())
}

/// Checks the unmasked payload of a whole frame that is a message by itself.
pub(super) fn check_payload(
    opcode: Opcode,
    payload: &[u8],
    limits: &FrameLimits,
) -> Result<(), ProtocolError> {
    match opcode {
        Opcode::Text if !limits.skip_utf8 => simdutf8::basic::from_utf8(payload)
            .map(drop)
            .map_err(|_| ProtocolError::Utf8),
        Opcode::Close => close_payload(payload).map(drop),
        _ => Ok(()),
    }
}

/// The code and the reason of a close frame.
pub(super) fn close_payload(payload: &[u8]) -> Result<Option<(u16, &str)>, ProtocolError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(ProtocolError::CloseTooShort),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    // 1012 to 1014 are registered behind the RFC: our own 1012 comes back as an answer.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ProtocolError::CloseCode(code));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::Utf8)?;
    Ok(Some((code, reason)))
}

/// Two bytes and a mask.
pub(super) const SMALL_HEADER_BYTES: usize = 6;
const CONTROL_BYTES_MAX: u64 = 125;
const FINAL_BIT: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
/// It says that a message is compressed, where that was negotiated.
const FIRST_RESERVED_BIT: u8 = 0x40;
const OPCODE_BITS: u8 = 0x0f;
const MASK_BIT: u8 = 0x80;
/// Conformance suites send 4 MiB in pieces of 64 bytes; floods come in pieces of one or none.
const BYTES_PER_FRAGMENT: u64 = 32;
