//! A frame or message that spans buffers or fragments: one contiguous copy, which grows only with
//! what has arrived. Exists only while something is unfinished.

use super::payload::Input;
use super::rules::{self, Frame, FrameLimits, Opcode, ProtocolError};
use super::utf8::Utf8Stream;

/// What has arrived of it.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// The bytes of a header that is not whole; else empty.
    pub(super) header: Vec<u8>,
    /// A frame whose payload is not whole.
    pub(super) frame: Option<Frame>,
    /// The payload of a control frame; else empty.
    pub(super) control: Vec<u8>,
    /// The kind of the unfinished message, if there is one.
    pub(super) kind: Option<Opcode>,
    /// The message is compressed: what it says is looked at when it is whole.
    pub(super) is_deflated: bool,
    /// The unmasked bytes of the message.
    pub(super) message: Vec<u8>,
    /// The frames of the message, with the unfinished one.
    pub(super) fragments: u64,
    utf8: Utf8Stream,
}

impl Partial {
    pub(super) fn bytes(&self) -> usize {
        self.header.len() + self.control.len() + self.message.len()
    }

    fn checks_utf8(&self, limits: &FrameLimits) -> bool {
        self.kind == Some(Opcode::Text) && !self.is_deflated && !limits.skip_utf8
    }

    /// Begins with a frame whose header has just been allowed.
    pub(super) fn open(&mut self, frame: &Frame) {
        if !frame.opcode.is_control() {
            self.kind.get_or_insert(frame.opcode);
            self.is_deflated |= frame.is_deflated;
            self.fragments += 1;
        }
    }

    /// Takes what the input has of the frame's payload; is it whole now?
    pub(super) fn absorb(
        &mut self,
        mut frame: Frame,
        input: &mut Input<'_>,
        limits: &FrameLimits,
    ) -> Result<bool, ProtocolError> {
        let is_control = frame.opcode.is_control();
        let missing = frame.length - frame.received;
        let range = input.take(missing.min(input.remaining()));
        let arrived = &mut input.buf[range];
        super::unmask(arrived, frame.mask, frame.received);
        frame.received += arrived.len();
        if is_control {
            self.control.extend_from_slice(arrived);
        } else {
            if self.checks_utf8(limits) {
                self.utf8.push(arrived)?;
            }
            append(&mut self.message, arrived, &frame, missing);
        }
        let is_whole = frame.received == frame.length;
        if !is_whole {
            self.frame = Some(frame);
        }
        Ok(is_whole)
    }

    /// The frame's payload is whole: is the message? Then its kind.
    pub(super) fn complete(
        &self,
        frame: &Frame,
        limits: &FrameLimits,
    ) -> Result<Option<Opcode>, ProtocolError> {
        if frame.opcode.is_control() {
            rules::check_payload(frame.opcode, &self.control, limits)?;
            return Ok(Some(frame.opcode));
        }
        if !frame.is_final {
            return Ok(None);
        }
        if self.checks_utf8(limits) {
            self.utf8.finish()?;
        }
        Ok(self.kind)
    }
}

/// Appends `arrived`. The buffer at most doubles, so many small fragments cost no more than one
/// large one; the last frame's length is known to be the end, so nothing is reserved beyond it.
fn append(message: &mut Vec<u8>, arrived: &[u8], frame: &Frame, missing: usize) {
    let needed = message.len() + arrived.len();
    if message.capacity() < needed {
        let doubled = needed.max(message.capacity() * 2);
        let capacity = if frame.is_final {
            doubled.min(message.len() + missing)
        } else {
            doubled
        };
        message.reserve_exact(capacity - message.len());
    }
    message.extend_from_slice(arrived);
}
