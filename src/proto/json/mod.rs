//! JSON texts by simd-json: one pass proves the whole text valid and yields its top-level fields.
//! A field is read as a value or cut out verbatim. Knows no dialect.
//!
//! The parser unescapes strings where they lie, so it works on a copy and spans are cut from the
//! untouched original. The copy costs no more than a search for backslashes would, and it lets
//! fields, spans and typed values be used side by side.

mod document;
mod scan;
mod text;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::de::DeserializeOwned;
use simd_json::{Buffers, INPUT_PADDING, Tape};

pub use self::document::{Document, Elements, Field, Scalar};
pub use self::scan::first_value;
pub use self::text::{put_bool, put_string, put_u64};

/// How deep arrays and objects may be nested; the same as for `serde_json`.
pub const DEPTH_MAX: usize = 127;

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It cannot be read as JSON.
    #[error("not valid json")]
    Syntax,
    /// It is not even UTF-8.
    #[error("not valid utf-8")]
    Utf8,
    /// It is nested too deep.
    #[error("json nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// It is JSON, but no object.
    #[error("not a json object")]
    NotAnObject,
    /// It is JSON, but no array.
    #[error("not a json array")]
    NotAnArray,
}

/// A value that does not fit the type it is wanted as; the text is serde's.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InvalidValue(serde_json::Error);

/// A parser with the memory it works in, which is kept from one text to the next.
pub struct JsonParser {
    buffers: Buffers,
    tape: Tape<'static>,
    copy: Vec<u8>,
}

impl Default for JsonParser {
    fn default() -> Self {
        Self {
            buffers: Buffers::with_max_depth(0, DEPTH_MAX),
            tape: Tape(Vec::new()),
            copy: Vec::new(),
        }
    }
}

impl fmt::Debug for JsonParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonParser")
            .field("copy_bytes", &self.copy.capacity())
            .field("tape_nodes", &self.tape.0.capacity())
            .finish()
    }
}

impl JsonParser {
    /// Parses `text`, which must be one JSON value.
    pub fn parse<'a>(&'a mut self, text: &'a [u8]) -> Result<Document<'a>, JsonError> {
        self.give_back(text.len());
        self.copy.clear();
        self.copy.reserve(text.len() + INPUT_PADDING);
        self.copy.extend_from_slice(text);
        self.copy.resize(text.len() + INPUT_PADDING, 0);
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let copy_start = self.copy.as_ptr().addr();
        let filled =
            simd_json::fill_tape_padded(&mut self.copy, text.len(), &mut self.buffers, &mut tape);
        let document = Document::new(text, copy_start, tape, &mut self.tape);
        match filled {
            Ok(()) => Ok(document),
            Err(error) => Err(refusal(text, &error)),
        }
    }

    /// A rare large text must not keep its memory for ever.
    fn give_back(&mut self, wanted: usize) {
        let is_large = RETAINED_BYTES_MAX < self.copy.capacity()
            || RETAINED_NODES_MAX < self.tape.0.capacity();
        if is_large && wanted < RETAINED_BYTES_MAX / 8 {
            *self = Self::default();
        }
    }
}

/// Reads a span that was cut from a valid text, for a value that had to wait for its handler.
pub fn from_span<T: DeserializeOwned>(span: &[u8]) -> Result<T, InvalidValue> {
    serde_json::from_slice(span).or_else(|error| from_tree(span, error))
}

/// Reads the value from a tree, so that the error does not name a line and a column.
fn from_tree<T: DeserializeOwned>(
    span: &[u8],
    error: serde_json::Error,
) -> Result<T, InvalidValue> {
    match serde_json::from_slice::<serde_json::Value>(span) {
        Ok(tree) => T::deserialize(tree).map_err(InvalidValue),
        Err(_) => Err(InvalidValue(error)),
    }
}

#[cold]
fn refusal(text: &[u8], error: &simd_json::Error) -> JsonError {
    if std::str::from_utf8(text).is_err() {
        return JsonError::Utf8;
    }
    match error.error() {
        simd_json::ErrorType::DepthLimitExceeded => JsonError::TooDeep,
        _ => JsonError::Syntax,
    }
}

const RETAINED_BYTES_MAX: usize = 256 << 10;
const RETAINED_NODES_MAX: usize = 32 << 10;
