//! Frames of the relay dialect: topics by name. Knows the texts, not who is subscribed.

use super::json::{self, JsonParser};
use super::typed::{required_text, unknown_type};
use super::ws::Payload;

pub use super::typed::{ErrorFrame, InvalidMessage, put_error, put_pong, put_token_expiring};

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

/// Appends what stands in for pushes that were lost.
pub fn put_lagged(out: &mut Vec<u8>, topic: &str, missed: u64) {
    out.extend_from_slice(br#"{"type":"lagged","topic":"#);
    json::put_string(out, topic);
    out.extend_from_slice(br#","missed":"#);
    json::put_u64(out, missed);
    out.push(b'}');
}

const PUSH_OVERHEAD: usize = 48;

#[cfg(test)]
mod tests;
