//! What the relay and the durable dialect share: frames that carry a `type`. Knows no requests.

use super::ErrorCode;
use super::json::{self, Field, JsonError, JsonParser, Scalar};

/// Why a frame is no request; the text goes behind `invalid message: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// No JSON object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field that must be there is not.
    #[error("missing field `{0}`")]
    Missing(&'static str),
    /// A field is of another type.
    #[error("field `{field}` must be {expected}")]
    WrongType {
        /// Its name.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// No request of the dialect.
    #[error("unknown type `{0}`")]
    UnknownType(Box<str>),
}

impl InvalidMessage {
    /// Is the text not even UTF-8? Then the connection is closed with 1007.
    pub fn is_utf8(&self) -> bool {
        *self == Self::Json(JsonError::Utf8)
    }
}

/// A field that must be a string.
pub(super) fn required_text<'a>(
    name: &'static str,
    field: Option<Field<'a>>,
) -> Result<&'a str, InvalidMessage> {
    optional_text(name, field)?.ok_or(InvalidMessage::Missing(name))
}

/// A field that may be a string; `null` is the same as none.
pub(super) fn optional_text<'a>(
    name: &'static str,
    field: Option<Field<'a>>,
) -> Result<Option<&'a str>, InvalidMessage> {
    match field.map(|field| field.value) {
        None | Some(Scalar::Null) => Ok(None),
        Some(Scalar::Text(text)) => Ok(Some(text)),
        Some(_) => Err(wrong_type(name, "a string")),
    }
}

/// A field that may be a whole number.
pub(super) fn optional_whole(
    name: &'static str,
    field: Option<Field<'_>>,
) -> Result<Option<u64>, InvalidMessage> {
    match field.map(|field| field.value) {
        None | Some(Scalar::Null) => Ok(None),
        Some(Scalar::Whole(number)) => Ok(Some(number)),
        Some(_) => Err(wrong_type(name, "a whole number")),
    }
}

/// A field that may be true or false, and is false if it is not there.
pub(super) fn optional_bool(
    name: &'static str,
    field: Option<Field<'_>>,
) -> Result<bool, InvalidMessage> {
    match field.map(|field| field.value) {
        None | Some(Scalar::Null) => Ok(false),
        Some(Scalar::Bool(value)) => Ok(value),
        Some(_) => Err(wrong_type(name, "true or false")),
    }
}

/// The `ref` of a request. It waits for the answer, so it must be short.
pub(super) fn reference(field: Option<Field<'_>>) -> Result<Option<&[u8]>, InvalidMessage> {
    let Some(field) = field else {
        return Ok(None);
    };
    match field.value {
        Scalar::Null => Ok(None),
        Scalar::Text(_) | Scalar::Whole(_) | Scalar::Number
            if field.span.len() <= REFERENCE_BYTES_MAX =>
        {
            Ok(Some(field.span))
        }
        _ => Err(wrong_type(
            "ref",
            "a string or a number of at most 128 bytes",
        )),
    }
}

/// What a frame is about, as far as it can be read: its refusal names that, so that whoever waits for an
/// answer finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct About<'a> {
    /// The topic.
    pub topic: Option<&'a str>,
    /// The subscription.
    pub sub_name: Option<&'a str>,
    /// The `ref`, as it was written.
    pub reference: Option<&'a [u8]>,
}

/// Reads what a frame is about, whatever else is wrong with it. Long names are not sent back.
pub fn about<'a>(parser: &'a mut JsonParser, text: &'a [u8]) -> About<'a> {
    let document = parser.parse(text);
    let fields = document.and_then(|document| document.fields(["topic", "sub_name", "ref"]));
    let Ok([topic, sub_name, own]) = fields else {
        return About::default();
    };
    let short = |field| optional_text("", field).ok().flatten();
    let short = |field| short(field).filter(|text| text.len() <= SHOWN_NAME_BYTES_MAX);
    About {
        topic: short(topic),
        sub_name: short(sub_name),
        reference: reference(own).ok().flatten(),
    }
}

fn wrong_type(field: &'static str, expected: &'static str) -> InvalidMessage {
    InvalidMessage::WrongType { field, expected }
}

/// The error names what was sent, but does not carry a long text back.
pub(super) fn unknown_type(kind: &str) -> InvalidMessage {
    let shown = &kind[..kind.floor_char_boundary(SHOWN_BYTES_MAX)];
    InvalidMessage::UnknownType(shown.into())
}

/// A refusal. Clients of the seed get only the message.
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorFrame<'a> {
    /// For people.
    pub message: &'a str,
    /// For programs.
    pub code: Option<ErrorCode>,
    /// The topic concerned.
    pub topic: Option<&'a str>,
    /// The subscription concerned.
    pub sub_name: Option<&'a str>,
    /// The `ref` of the request, as it was written.
    pub reference: Option<&'a [u8]>,
}

/// Appends a refusal.
pub fn put_error(out: &mut Vec<u8>, error: &ErrorFrame<'_>) {
    out.extend_from_slice(br#"{"type":"error","message":"#);
    json::put_string(out, error.message);
    let code = error.code.map(ErrorCode::as_str);
    for (key, value) in [
        (r#","code":"#, code),
        (r#","topic":"#, error.topic),
        (r#","sub_name":"#, error.sub_name),
    ] {
        if let Some(value) = value {
            put_text_field(out, key, value);
        }
    }
    put_reference(out, error.reference);
    out.push(b'}');
}

/// Appends the answer to a ping.
pub fn put_pong(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"pong"}"#);
}

/// Appends the warning that the token ends in so many seconds.
pub fn put_token_expiring(out: &mut Vec<u8>, seconds: u64) {
    put_whole_field(out, r#"{"type":"token_expiring","seconds":"#, seconds);
    out.push(b'}');
}

/// Appends `key`, which is everything up to the value, and a string.
pub(super) fn put_text_field(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    json::put_string(out, value);
}

/// Appends `key`, which is everything up to the value, and a number.
pub(super) fn put_whole_field(out: &mut Vec<u8>, key: &str, value: u64) {
    out.extend_from_slice(key.as_bytes());
    json::put_u64(out, value);
}

/// Appends the `ref` of a request to its answer, if it had one.
pub(super) fn put_reference(out: &mut Vec<u8>, reference: Option<&[u8]>) {
    if let Some(reference) = reference {
        out.extend_from_slice(br#","ref":"#);
        out.extend_from_slice(reference);
    }
}

const REFERENCE_BYTES_MAX: usize = 128;
const SHOWN_BYTES_MAX: usize = 32;
/// No topic and no subscription has a longer name.
const SHOWN_NAME_BYTES_MAX: usize = 255;
