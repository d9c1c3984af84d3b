//! Frames of the durable dialect: topics with a log, cursors, acks. Knows the texts, not what is
//! stored. Where optional things are absent, the frames are exactly those of the first version
//! of the protocol.

use super::json::{self, Field, JsonParser};
use super::typed::{
    optional_bool, optional_text, optional_whole, put_reference, put_text_field, put_whole_field,
    reference, required_text, unknown_type,
};
use super::ws::Payload;

pub use super::typed::{
    About, ErrorFrame, InvalidMessage, about, put_error, put_pong, put_token_expiring,
};

/// The name of the dialect as a subprotocol.
pub const PROTOCOL: &str = "tidegate.durable.v1";

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurableRequest<'a> {
    /// To get the messages of a topic through a subscription.
    Subscribe(Subscribe<'a>),
    /// To get no more of them for now.
    Unsubscribe {
        /// The topic's id or name.
        topic: &'a str,
        /// The key of the subscription.
        sub_name: &'a str,
        /// What the answer echoes.
        reference: Option<&'a [u8]>,
    },
    /// To store a message.
    Publish {
        /// The topic's id or name.
        topic: &'a str,
        /// The JSON, as it was written; `null` if there was none.
        payload: &'a [u8],
        /// The same key again is the same message.
        idempotency_key: Option<&'a str>,
        /// What the answer echoes.
        reference: Option<&'a [u8]>,
    },
    /// To have the cursor moved.
    Ack {
        /// The topic's id or name.
        topic: &'a str,
        /// The key of the subscription.
        sub_name: &'a str,
        /// Everything up to here is done.
        seq: u64,
        /// Wanted only with an answer, which echoes it.
        reference: Option<&'a [u8]>,
    },
    /// Whether the server is there.
    Ping,
    /// To go on with another token.
    Auth {
        /// The token.
        token: &'a str,
    },
}

/// How a subscription is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The topic's id or name.
    pub topic: &'a str,
    /// The key of the subscription.
    pub sub_name: &'a str,
    /// Where a new one starts.
    pub from_seq: Option<u64>,
    /// Move the cursor of an old one there too.
    pub seek: bool,
    /// How many messages may be un-acked.
    pub max_in_flight: Option<u64>,
    /// The life of the log that the client remembers.
    pub epoch: Option<u64>,
    /// What the answer echoes.
    pub reference: Option<&'a [u8]>,
}

/// Reads a request. The JSON is checked whole.
pub fn parse<'a>(
    parser: &'a mut JsonParser,
    payload: &'a mut Payload<'_>,
) -> Result<DurableRequest<'a>, InvalidMessage> {
    let fields = Fields::of(parser, payload)?;
    let topic = || required_text("topic", fields.topic);
    let sub_name = || required_text("sub_name", fields.sub_name);
    let reference = || reference(fields.reference);
    Ok(match required_text("type", fields.kind)? {
        "publish" => DurableRequest::Publish {
            topic: topic()?,
            payload: fields.payload.map_or(b"null", |field| field.span),
            idempotency_key: optional_text("idempotency_key", fields.idempotency_key)?,
            reference: reference()?,
        },
        "ack" => DurableRequest::Ack {
            topic: topic()?,
            sub_name: sub_name()?,
            seq: optional_whole("seq", fields.seq)?.ok_or(InvalidMessage::Missing("seq"))?,
            reference: reference()?,
        },
        "subscribe" => DurableRequest::Subscribe(Subscribe {
            topic: topic()?,
            sub_name: sub_name()?,
            from_seq: optional_whole("from_seq", fields.from_seq)?,
            seek: optional_bool("seek", fields.seek)?,
            max_in_flight: optional_whole("max_in_flight", fields.max_in_flight)?,
            epoch: optional_whole("epoch", fields.epoch)?,
            reference: reference()?,
        }),
        "unsubscribe" => DurableRequest::Unsubscribe {
            topic: topic()?,
            sub_name: sub_name()?,
            reference: reference()?,
        },
        "ping" => DurableRequest::Ping,
        "auth" => DurableRequest::Auth {
            token: required_text("token", fields.token)?,
        },
        unknown => return Err(unknown_type(unknown)),
    })
}

/// All fields that any request may have.
struct Fields<'a> {
    kind: Option<Field<'a>>,
    topic: Option<Field<'a>>,
    sub_name: Option<Field<'a>>,
    seq: Option<Field<'a>>,
    payload: Option<Field<'a>>,
    from_seq: Option<Field<'a>>,
    seek: Option<Field<'a>>,
    max_in_flight: Option<Field<'a>>,
    epoch: Option<Field<'a>>,
    idempotency_key: Option<Field<'a>>,
    reference: Option<Field<'a>>,
    token: Option<Field<'a>>,
}

impl<'a> Fields<'a> {
    fn of(parser: &'a mut JsonParser, text: &'a [u8]) -> Result<Self, InvalidMessage> {
        let names = [
            "type",
            "topic",
            "sub_name",
            "seq",
            "payload",
            "from_seq",
            "seek",
            "max_in_flight",
            "epoch",
            "idempotency_key",
            "ref",
            "token",
        ];
        let [
            kind,
            topic,
            sub_name,
            seq,
            payload,
            from_seq,
            seek,
            max_in_flight,
            epoch,
            idempotency_key,
            reference,
            token,
        ] = parser.parse(text)?.fields(names)?;
        Ok(Self {
            kind,
            topic,
            sub_name,
            seq,
            payload,
            from_seq,
            seek,
            max_in_flight,
            epoch,
            idempotency_key,
            reference,
            token,
        })
    }
}

/// The answer to a subscribe.
#[derive(Debug, Clone, Copy)]
pub struct Subscribed<'a> {
    /// The topic's id.
    pub topic: &'a str,
    /// The key of the subscription.
    pub sub_name: &'a str,
    /// Its id, by which it is deleted.
    pub subscription_id: &'a str,
    /// Everything up to here is acked.
    pub cursor: u64,
    /// What is delivered next.
    pub next_seq: u64,
    /// The earliest message kept.
    pub first_seq: u64,
    /// The last durable message.
    pub last_seq: u64,
    /// The life of this log.
    pub epoch: u64,
    /// Was the subscription there before?
    pub resumed: bool,
    /// The `ref` of the request.
    pub reference: Option<&'a [u8]>,
}

/// Appends the answer to a subscribe.
pub fn put_subscribed(out: &mut Vec<u8>, answer: &Subscribed<'_>) {
    put_binding(out, "subscribed", answer.topic, answer.sub_name);
    put_text_field(out, r#","subscription_id":"#, answer.subscription_id);
    for (key, value) in [
        (r#","cursor":"#, answer.cursor),
        (r#","next_seq":"#, answer.next_seq),
        (r#","first_seq":"#, answer.first_seq),
        (r#","last_seq":"#, answer.last_seq),
        (r#","epoch":"#, answer.epoch),
    ] {
        put_whole_field(out, key, value);
    }
    out.extend_from_slice(br#","resumed":"#);
    json::put_bool(out, answer.resumed);
    put_reference(out, answer.reference);
    out.push(b'}');
}

/// Appends that a binding has ended, and why if the client did not ask for it.
pub fn put_unsubscribed(
    out: &mut Vec<u8>,
    topic: &str,
    sub_name: &str,
    reason: Option<&str>,
    reference: Option<&[u8]>,
) {
    put_binding(out, "unsubscribed", topic, sub_name);
    if let Some(reason) = reason {
        put_text_field(out, r#","reason":"#, reason);
    }
    put_reference(out, reference);
    out.push(b'}');
}

/// Everything in front of the seq in the messages of one topic, written once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagePrefix(Box<[u8]>);

impl MessagePrefix {
    /// The prefix of a topic, by its id.
    pub fn new(topic: &str) -> Self {
        let mut text = Vec::new();
        put_text_field(&mut text, r#"{"type":"message","topic":"#, topic);
        text.extend_from_slice(br#","seq":"#);
        Self(text.into())
    }
}

/// What only clients that asked for it get to see of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageExtras {
    /// When it was stored, in milliseconds of Unix time.
    pub ts: Option<u64>,
    /// It may have been sent before.
    pub redelivered: bool,
}

/// Appends a message; `payload` is JSON and goes in verbatim.
pub fn put_message(
    out: &mut Vec<u8>,
    prefix: &MessagePrefix,
    seq: u64,
    payload: &[u8],
    extras: MessageExtras,
) {
    out.reserve(prefix.0.len() + payload.len() + MESSAGE_OVERHEAD);
    out.extend_from_slice(&prefix.0);
    json::put_u64(out, seq);
    out.extend_from_slice(br#","payload":"#);
    out.extend_from_slice(payload);
    if let Some(ts) = extras.ts {
        put_whole_field(out, r#","ts":"#, ts);
    }
    if extras.redelivered {
        out.extend_from_slice(br#","redelivered":true"#);
    }
    out.push(b'}');
}

/// Appends the answer to a publish.
pub fn put_pub_ack(
    out: &mut Vec<u8>,
    topic: &str,
    seq: u64,
    duplicate: bool,
    reference: Option<&[u8]>,
) {
    put_text_field(out, r#"{"type":"pub_ack","topic":"#, topic);
    put_whole_field(out, r#","seq":"#, seq);
    if duplicate {
        out.extend_from_slice(br#","duplicate":true"#);
    }
    put_reference(out, reference);
    out.push(b'}');
}

/// Appends the answer to an ack that had a `ref`.
pub fn put_acked(
    out: &mut Vec<u8>,
    topic: &str,
    sub_name: &str,
    seq: u64,
    reference: Option<&[u8]>,
) {
    put_binding(out, "acked", topic, sub_name);
    put_whole_field(out, r#","seq":"#, seq);
    put_reference(out, reference);
    out.push(b'}');
}

/// Appends what stands in for the messages `from` to `to`, which will not come.
pub fn put_gap(
    out: &mut Vec<u8>,
    topic: &str,
    sub_name: &str,
    missing: std::ops::RangeInclusive<u64>,
    reason: &str,
) {
    put_binding(out, "gap", topic, sub_name);
    put_whole_field(out, r#","from":"#, *missing.start());
    put_whole_field(out, r#","to":"#, *missing.end());
    put_text_field(out, r#","reason":"#, reason);
    out.push(b'}');
}

/// The beginning of every answer about one subscription.
fn put_binding(out: &mut Vec<u8>, kind: &str, topic: &str, sub_name: &str) {
    put_text_field(out, r#"{"type":"#, kind);
    put_text_field(out, r#","topic":"#, topic);
    put_text_field(out, r#","sub_name":"#, sub_name);
}

/// The keys behind the prefix with the longest numbers.
const MESSAGE_OVERHEAD: usize = 80;

#[cfg(test)]
mod tests;
