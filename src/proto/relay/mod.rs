//! Frames of the relay dialect: topics by name. Knows the texts, not who is subscribed.

use super::ErrorCode;
use super::json::{self, Field, JsonError, JsonParser, Scalar};
use super::ws::Payload;

/// The name of the dialect as a subprotocol.
pub const PROTOCOL: &str = "tidegate.relay.v1";

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayRequest<'a> {
    /// To get what is pushed to a topic.
    Subscribe {
        /// The topic's name.
        topic: &'a str,
    },
    /// Not to get it any more.
    Unsubscribe {
        /// The topic's name.
        topic: &'a str,
    },
    /// To hand something to the topic's handler.
    Message {
        /// The topic's name.
        topic: &'a str,
        /// What it is.
        event: &'a str,
        /// Its JSON, as it was written; `null` if there was none.
        payload: &'a [u8],
    },
    /// Whether the server is there.
    Ping,
    /// To go on with another token.
    Auth {
        /// The token.
        token: &'a str,
    },
}

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

/// Reads a request. The JSON is checked whole.
pub fn parse<'a>(
    parser: &'a mut JsonParser,
    payload: &'a mut Payload<'_>,
) -> Result<RelayRequest<'a>, InvalidMessage> {
    let names = ["type", "topic", "event", "payload", "token"];
    let [kind, topic, event, payload, token] = parser.parse(payload)?.fields(names)?;
    let topic = || required_text("topic", topic);
    Ok(match required_text("type", kind)? {
        "message" => RelayRequest::Message {
            topic: topic()?,
            event: required_text("event", event)?,
            payload: payload.map_or(b"null", |field| field.span),
        },
        "subscribe" => RelayRequest::Subscribe { topic: topic()? },
        "unsubscribe" => RelayRequest::Unsubscribe { topic: topic()? },
        "ping" => RelayRequest::Ping,
        "auth" => RelayRequest::Auth {
            token: required_text("token", token)?,
        },
        unknown => return Err(unknown_type(unknown)),
    })
}

pub(super) fn required_text<'a>(
    name: &'static str,
    field: Option<Field<'a>>,
) -> Result<&'a str, InvalidMessage> {
    match field.map(|field| field.value) {
        Some(Scalar::Text(text)) => Ok(text),
        Some(_) => Err(InvalidMessage::WrongType {
            field: name,
            expected: "a string",
        }),
        None => Err(InvalidMessage::Missing(name)),
    }
}

/// The error names what was sent, but does not carry a long text back.
pub(super) fn unknown_type(kind: &str) -> InvalidMessage {
    let shown = &kind[..kind.floor_char_boundary(SHOWN_BYTES_MAX)];
    InvalidMessage::UnknownType(shown.into())
}

/// Appends the answer to a subscribe.
pub fn put_subscribed(out: &mut Vec<u8>, topic: &str) {
    out.extend_from_slice(br#"{"type":"subscribed","topic":"#);
    json::put_string(out, topic);
    out.push(b'}');
}

/// Appends the answer to an unsubscribe.
pub fn put_unsubscribed(out: &mut Vec<u8>, topic: &str) {
    out.extend_from_slice(br#"{"type":"unsubscribed","topic":"#);
    json::put_string(out, topic);
    out.push(b'}');
}

/// Appends what subscribers get; `payload` is JSON and goes in verbatim.
pub fn put_push(out: &mut Vec<u8>, topic: &str, event: &str, payload: &[u8]) {
    out.reserve(PUSH_OVERHEAD + topic.len() + event.len() + payload.len());
    out.extend_from_slice(br#"{"type":"push","topic":"#);
    json::put_string(out, topic);
    out.extend_from_slice(br#","event":"#);
    json::put_string(out, event);
    out.extend_from_slice(br#","payload":"#);
    out.extend_from_slice(payload);
    out.push(b'}');
}

/// Appends the answer to a ping.
pub fn put_pong(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"pong"}"#);
}

/// Appends what stands in for pushes that were lost.
pub fn put_lagged(out: &mut Vec<u8>, topic: &str, missed: u64) {
    out.extend_from_slice(br#"{"type":"lagged","topic":"#);
    json::put_string(out, topic);
    out.extend_from_slice(br#","missed":"#);
    json::put_u64(out, missed);
    out.push(b'}');
}

/// Appends the warning that the token ends in so many seconds.
pub fn put_token_expiring(out: &mut Vec<u8>, seconds: u64) {
    out.extend_from_slice(br#"{"type":"token_expiring","seconds":"#);
    json::put_u64(out, seconds);
    out.push(b'}');
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
            out.extend_from_slice(key.as_bytes());
            json::put_string(out, value);
        }
    }
    put_reference(out, error.reference);
    out.push(b'}');
}

/// Appends the `ref` of a request to its answer, if it had one.
pub(super) fn put_reference(out: &mut Vec<u8>, reference: Option<&[u8]>) {
    if let Some(reference) = reference {
        out.extend_from_slice(br#","ref":"#);
        out.extend_from_slice(reference);
    }
}

const PUSH_OVERHEAD: usize = 48;
const SHOWN_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests;
