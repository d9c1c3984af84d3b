//! Envelopes of the event dialect: `{"event":string,"data":any}`, both ways. Knows the texts, not
//! which events there are.

use std::cell::Cell;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::json::{self, Document, Field, InvalidValue, JsonError, JsonParser, Scalar};
use super::ws::Payload;

/// The name of the dialect as a subprotocol.
pub const PROTOCOL: &str = "tidegate.event.v1";

/// The event under which frames are answered that have none of their own.
pub const ERROR_EVENT: &str = "error";

/// Why a frame is no envelope. The peer is told no more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnvelope {
    /// It is not even UTF-8: the connection is closed with 1007.
    #[error("invalid envelope")]
    Utf8,
    /// It is no JSON object with an `event`.
    #[error("invalid envelope")]
    Shape,
}

/// What a client sent.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// What it is.
    pub event: &'a str,
    /// The JSON as it was written; `null` where it was missing.
    pub data: &'a [u8],
    /// The `id` as it was written, if there was a number or a string. It goes into the answer.
    pub id: Option<&'a [u8]>,
    document: Document<'a>,
    field: Option<Field<'a>>,
}

impl<'a> Envelope<'a> {
    /// Of a document that another dialect has read, whose data is this value.
    pub(super) fn of(event: &'a str, document: Document<'a>, data: Option<Field<'a>>) -> Self {
        Self {
            event,
            data: data.map_or(b"null", |field| field.span),
            id: None,
            document,
            field: data,
        }
    }

    /// Reads the data as a value, without parsing it again.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, InvalidValue> {
        match self.field {
            Some(field) => self.document.read(&field),
            None => json::from_span(self.data),
        }
    }
}

/// An envelope whose data is still to be read, by whoever comes first to know its type.
pub struct Unread<'a>(Cell<Option<Envelope<'a>>>);

impl<'a> Unread<'a> {
    /// Of this envelope.
    pub fn of(envelope: Envelope<'a>) -> Self {
        Self(Cell::new(Some(envelope)))
    }
}

impl fmt::Debug for Unread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unread")
    }
}

/// What [`Unread`] can do, whatever it borrows.
pub trait ReadOnce: fmt::Debug {
    /// Gives the envelope to `read`, the first time.
    fn take(&self, read: &mut dyn FnMut(Envelope<'_>));
}

impl ReadOnce for Unread<'_> {
    fn take(&self, read: &mut dyn FnMut(Envelope<'_>)) {
        if let Some(envelope) = self.0.take() {
            read(envelope);
        }
    }
}

/// Reads an envelope. The JSON is checked whole.
pub fn parse<'a>(
    parser: &'a mut JsonParser,
    payload: &'a mut Payload<'_>,
) -> Result<Envelope<'a>, InvalidEnvelope> {
    let document = parser.parse(payload).map_err(|error| match error {
        JsonError::Utf8 => InvalidEnvelope::Utf8,
        _ => InvalidEnvelope::Shape,
    })?;
    let [event, data, id] = document
        .fields(["event", "data", "id"])
        .map_err(|_| InvalidEnvelope::Shape)?;
    let Some(Scalar::Text(event)) = event.map(|field| field.value) else {
        return Err(InvalidEnvelope::Shape);
    };
    Ok(Envelope {
        event,
        data: data.map_or(b"null", |field| field.span),
        id: id.filter(is_id).map(|field| field.span),
        document,
        field: data,
    })
}

/// An `id` waits with its event, so a long one is treated like an unknown field.
fn is_id(field: &Field<'_>) -> bool {
    let is_kind = matches!(
        field.value,
        Scalar::Text(_) | Scalar::Whole(_) | Scalar::Number
    );
    is_kind && field.span.len() <= ID_BYTES_MAX
}

/// What stands before the name of an event.
pub const EVENT_KEY: &[u8] = br#"{"event":"#;
/// What stands between it and the data.
pub const DATA_KEY: &[u8] = br#","data":"#;
const ID_KEY: &[u8] = br#","id":"#;

/// Appends an envelope up to where its data begins; the data and [`end_envelope`] come behind. Every
/// reply, push and error of the dialect is written by these two.
pub fn begin_envelope(out: &mut Vec<u8>, event: &str) {
    out.extend_from_slice(EVENT_KEY);
    json::put_string(out, event);
    out.extend_from_slice(DATA_KEY);
}

/// Appends the end of an envelope, with the `id` of the request if it had one.
pub fn end_envelope(out: &mut Vec<u8>, id: Option<&[u8]>) {
    if let Some(id) = id {
        out.extend_from_slice(ID_KEY);
        out.extend_from_slice(id);
    }
    out.push(b'}');
}

/// The data of an error, which goes out under the event of its request.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ErrorData<'a> {
    /// What went wrong, for people and for programs.
    pub error: &'a str,
    /// Which fields did not validate: each with the rules that it breaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<&'a serde_json::Value>,
}

/// The data of `lagged`: so many frames were shed, because the client reads too slowly.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Lagged {
    /// How many.
    pub missed: u64,
}

/// The event under which a client hears of frames that were shed.
pub const LAGGED_EVENT: &str = "lagged";

const ID_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests;
