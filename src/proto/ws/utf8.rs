//! UTF-8 that comes in pieces, refused at its first wrong byte. Knows no frames.

use super::rules::ProtocolError;

/// The bytes of a character that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct Utf8Stream {
    held: [u8; CHARACTER_BYTES_MAX],
    held_len: usize,
}

impl Utf8Stream {
    /// Checks the next bytes of the text.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        while 0 < self.held_len {
            let Some((first, rest)) = bytes.split_first() else {
                return Ok(());
            };
            self.held[self.held_len] = *first;
            self.held_len += 1;
            bytes = rest;
            if is_whole(&self.held[..self.held_len])? {
                self.held_len = 0;
            }
        }
        if let Err(error) = simdutf8::compat::from_utf8(bytes) {
            if error.error_len().is_some() {
                return Err(ProtocolError::Utf8);
            }
            let begun = &bytes[error.valid_up_to()..];
            self.held[..begun.len()].copy_from_slice(begun);
            self.held_len = begun.len();
        }
        Ok(())
    }

    /// The text has ended.
    pub(super) fn finish(&self) -> Result<(), ProtocolError> {
        if self.held_len == 0 {
            Ok(())
        } else {
            Err(ProtocolError::Utf8)
        }
    }
}

/// Is this one character, or the beginning of one? Anything else is an error.
fn is_whole(bytes: &[u8]) -> Result<bool, ProtocolError> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(true),
        Err(error) if error.error_len().is_none() => Ok(false),
        Err(_) => Err(ProtocolError::Utf8),
    }
}

const CHARACTER_BYTES_MAX: usize = 4;
