//! permessage-deflate (RFC 7692) without context takeover: messages are inflated and deflated one by
//! one on states that a whole shard shares. Knows bytes and bounds; not who sent them, nor what was
//! negotiated.

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::payload::{Message, Payload};
use super::rules::ProtocolError;
use crate::proto::frame::{self, Opcode};
use crate::proto::handshake::extensions::Window;

/// Inflates messages into one buffer, which the next one uses again.
pub struct Inflater {
    state: Decompress,
    /// What the last message became, and room behind it.
    scratch: Vec<u8>,
    bytes_in: u64,
    bytes_out: u64,
}

impl Default for Inflater {
    fn default() -> Self {
        Self {
            state: Decompress::new(false),
            scratch: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
        }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater")
            .field("scratch", &self.scratch.len())
            .finish_non_exhaustive()
    }
}

impl Inflater {
    /// The message as it was before the peer compressed it; one that is not compressed stays where it
    /// is. Stops behind `message_bytes_max` bytes, however much more there is.
    pub fn open<'a>(
        &'a mut self,
        message: Message<'a>,
        message_bytes_max: u64,
        skip_utf8: bool,
    ) -> Result<Message<'a>, ProtocolError> {
        match message {
            Message::Text(payload) if payload.is_deflated() => {
                let len = self.inflate(&payload, message_bytes_max)?;
                if !skip_utf8 && simdutf8::basic::from_utf8(&self.scratch[..len]).is_err() {
                    return Err(ProtocolError::Utf8);
                }
                Ok(Message::Text(Payload::new(&mut self.scratch, len)))
            }
            Message::Binary(payload) if payload.is_deflated() => {
                let len = self.inflate(&payload, message_bytes_max)?;
                Ok(Message::Binary(Payload::new(&mut self.scratch, len)))
            }
            message => Ok(message),
        }
    }

    /// Gives back what a long message took; to be called when the last message has been handled.
    pub fn release(&mut self) {
        if SCRATCH_BYTES_MAX < self.scratch.len() {
            self.scratch = Vec::new();
        }
    }

    /// Bytes before and after inflating since the last call.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.bytes_in),
            std::mem::take(&mut self.bytes_out),
        )
    }

    fn inflate(&mut self, payload: &[u8], max: u64) -> Result<usize, ProtocolError> {
        self.state.reset(false);
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut filled = 0;
        let is_ended = self.feed(payload, &mut filled, max)?;
        // The tail that the sender cut off, and a final block of our own: only where both end a block
        // did the payload end with one, and nothing was missing or left over.
        if !is_ended && !self.feed(&TAIL, &mut filled, max)? {
            return Err(ProtocolError::Deflate);
        }
        self.bytes_in += payload.len() as u64;
        self.bytes_out += filled as u64;
        Ok(filled)
    }

    /// Takes all of `input`; whether it ended with a final block.
    fn feed(
        &mut self,
        mut input: &[u8],
        filled: &mut usize,
        max: usize,
    ) -> Result<bool, ProtocolError> {
        loop {
            self.make_room(*filled, max);
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let end = self.scratch.len();
            let status = self
                .state
                .decompress(input, &mut self.scratch[*filled..], FlushDecompress::Sync)
                .map_err(|_| ProtocolError::Deflate)?;
            let taken = usize::try_from(self.state.total_in() - before_in).unwrap_or(0);
            let made = usize::try_from(self.state.total_out() - before_out).unwrap_or(0);
            input = &input[taken..];
            *filled += made;
            if max < *filled {
                return Err(ProtocolError::MessageTooLong {
                    bytes: *filled as u64,
                    max: max as u64,
                });
            }
            match status {
                Status::StreamEnd if input.is_empty() => return Ok(true),
                // A sender may end a block for good and go on with another one (7.2.3.4).
                Status::StreamEnd => self.state.reset(false),
                _ if input.is_empty() && *filled < end => return Ok(false),
                // Neither progress nor an end, with bytes left over.
                _ if taken == 0 && made == 0 => return Err(ProtocolError::Deflate),
                _ => {}
            }
        }
    }

    /// Room for at least one more byte, and at most one more than the limit lets in.
    fn make_room(&mut self, filled: usize, max: usize) {
        if self.scratch.len() <= filled {
            let doubled = (filled * 2).max(SCRATCH_BYTES_MIN);
            let len = doubled.min(max.saturating_add(1)).max(filled + 1);
            self.scratch.resize(len, 0);
        }
    }
}

/// Deflates the payloads of frames, each by itself.
#[derive(Default)]
pub struct Deflater {
    /// One for each window and level that is in use; each takes up to 380 KB.
    states: Vec<(Window, u32, Compress)>,
    scratch: Vec<u8>,
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").finish_non_exhaustive()
    }
}

impl Deflater {
    /// Appends the frames of `plain`, whole server frames one behind the other, each data frame of
    /// at least `threshold` bytes compressed where that makes it smaller. Calls `end` with the length
    /// of `out` behind each frame. Whether any of them was compressed.
    pub fn put_frames(
        &mut self,
        out: &mut Vec<u8>,
        plain: &[u8],
        how: How,
        mut end: impl FnMut(usize),
    ) -> bool {
        let mut is_any = false;
        let mut rest = plain;
        while let Some((opcode, header_len, whole_len)) = frame::measure(rest) {
            let (whole, next) = rest.split_at(whole_len);
            let payload = &whole[header_len..];
            let is_long = how.threshold_bytes <= payload.len();
            let is_smaller = match opcode {
                Some(Opcode::Binary) if !how.binary => false,
                Some(opcode) if is_long => self.put_frame(out, opcode, payload, how),
                _ => false,
            };
            if !is_smaller {
                out.extend_from_slice(whole);
            }
            is_any |= is_smaller;
            end(out.len());
            rest = next;
        }
        assert!(rest.is_empty(), "frames of our own are whole");
        is_any
    }

    /// Appends one compressed frame, unless it would not be smaller.
    fn put_frame(&mut self, out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], how: How) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let is_smaller = self.deflate(payload, &mut scratch, how);
        if is_smaller {
            let (bytes, len) = frame::header(opcode, scratch.len());
            let start = out.len();
            out.extend_from_slice(&bytes[..len]);
            out[start] |= RSV1;
            out.extend_from_slice(&scratch);
        }
        if scratch.capacity() <= SCRATCH_BYTES_MAX {
            self.scratch = scratch;
        }
        is_smaller
    }

    /// Deflates into `out`, at most as many bytes as there were; whether it became smaller.
    fn deflate(&mut self, payload: &[u8], out: &mut Vec<u8>, how: How) -> bool {
        let level = if LEVEL_BYTES_MAX < payload.len() {
            1
        } else {
            how.level.clamp(1, 9)
        };
        let state = self.state(how.window, level);
        state.reset();
        // One byte less than before is the least that helps, and the tail is cut off.
        out.reserve_exact(payload.len() + TAIL_CUT);
        let ended = state.compress_vec(payload, out, FlushCompress::Sync);
        let is_whole = ended.is_ok()
            && usize::try_from(state.total_in()) == Ok(payload.len())
            && out.ends_with(&TAIL[..TAIL_CUT]);
        if !is_whole {
            return false;
        }
        out.truncate(out.len() - TAIL_CUT);
        out.len() < payload.len()
    }

    fn state(&mut self, window: Window, level: u32) -> &mut Compress {
        let of_these = |(w, l, _): &(Window, u32, Compress)| (*w, *l) == (window, level);
        if let Some(at) = self.states.iter().position(of_these) {
            return &mut self.states[at].2;
        }
        if self.states.len() == STATES_MAX {
            self.states.remove(0);
        }
        let bits = match window {
            Window::Bits15 => 15,
            Window::Bits9 => 9,
        };
        let state = Compress::new_with_window_bits(Compression::new(level), false, bits);
        self.states.push((window, level, state));
        let last = self.states.len() - 1;
        &mut self.states[last].2
    }
}

/// How to compress.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// What the receiver keeps.
    pub window: Window,
    /// From 1, fast, to 9, small.
    pub level: u32,
    /// Shorter payloads stay as they are.
    pub threshold_bytes: usize,
    /// Binary messages are compressed too.
    pub binary: bool,
}

/// What a sync flush ends with and the wire leaves out, and a final empty block.
const TAIL: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];
const TAIL_CUT: usize = 4;
const RSV1: u8 = 0x40;
/// A buffer that one long message made is given back.
const SCRATCH_BYTES_MAX: usize = 256 * 1024;
const SCRATCH_BYTES_MIN: usize = 16 * 1024;
/// Longer messages are compressed the fast way, for a turn's sake.
const LEVEL_BYTES_MAX: usize = 256 * 1024;
/// Two windows, two levels; a reload of the configuration may bring others.
const STATES_MAX: usize = 4;
