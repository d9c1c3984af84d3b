//! Frames of the relay dialect: topics by name. Knows the texts, not who is subscribed.

use super::json::{self, JsonParser};
use super::typed::{optional_bool, required_text, unknown_type};
use super::ws::Payload;

pub use super::typed::{
    About, ErrorFrame, InvalidMessage, about, put_error, put_pong, put_token_expiring,
};

/// The name of the dialect as a subprotocol.
pub const PROTOCOL: &str = "tidegate.relay.v1";

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayRequest<'a> {
    /// To get what is pushed to a topic.
    Subscribe {
        /// The topic's name.
        topic: &'a str,
        /// What else is wanted with it.
        wishes: Wishes,
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

/// What a subscriber wants beside what is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// To be told who comes and goes.
    pub presence: bool,
    /// The last push of before, where it is kept.
    pub last: bool,
}

/// Reads a request. The JSON is checked whole.
pub fn parse<'a>(
    parser: &'a mut JsonParser,
    payload: &'a mut Payload<'_>,
) -> Result<RelayRequest<'a>, InvalidMessage> {
    let names = [
        "type", "topic", "event", "payload", "token", "presence", "last",
    ];
    let fields = parser.parse(payload)?.fields(names)?;
    let [kind, topic, event, payload, token, presence, last] = fields;
    let topic = || required_text("topic", topic);
    Ok(match required_text("type", kind)? {
        "message" => RelayRequest::Message {
            topic: topic()?,
            event: required_text("event", event)?,
            payload: payload.map_or(b"null", |field| field.span),
        },
        "subscribe" => RelayRequest::Subscribe {
            topic: topic()?,
            wishes: Wishes {
                presence: optional_bool("presence", presence)?,
                last: optional_bool("last", last)?,
            },
        },
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

/// Somebody who is present: the number of a connection, and what is said of it as JSON.
pub type Present<'a> = (u64, &'a [u8]);

/// Appends who came and who went.
pub fn put_presence<'a>(
    out: &mut Vec<u8>,
    topic: &str,
    joined: impl Iterator<Item = Present<'a>>,
    left: impl Iterator<Item = Present<'a>>,
) {
    out.extend_from_slice(br#"{"type":"presence","topic":"#);
    json::put_string(out, topic);
    out.extend_from_slice(br#","joined":["#);
    put_present(out, joined);
    out.extend_from_slice(br#"],"left":["#);
    put_present(out, left);
    out.extend_from_slice(b"]}");
}

fn put_present<'a>(out: &mut Vec<u8>, all: impl Iterator<Item = Present<'a>>) {
    for (index, (conn_id, meta)) in all.enumerate() {
        if 0 < index {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"conn_id":"#);
        json::put_u64(out, conn_id);
        out.extend_from_slice(br#","meta":"#);
        out.extend_from_slice(meta);
        out.push(b'}');
    }
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
