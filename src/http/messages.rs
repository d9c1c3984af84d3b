//! Messages of durable topics over REST: published one by one, as an array or line by line, and
//! read back by seq. A payload goes in and comes out byte for byte. Knows JSON; no log.

#![expect(
    unused_qualifications,
    reason = "the description of a route's query is written by a macro"
)]

use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::broker::durable::NewMessage;
use crate::gateway::topics::{History, Published};

use super::problem::{self, Problem};
use super::query::Query;
use super::topics::{Owned, bad_json, read};

/// A message in a body.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewMessage)]
struct Written<'a> {
    /// Any JSON; it comes out as it was written.
    #[serde(borrow)]
    #[schema(value_type = Value)]
    payload: &'a RawValue,
    /// The same key again is the same message.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 128)]
    idempotency_key: Option<String>,
}

/// `POST /v1/topics/{id}/messages`: one message, an array of them, or a line for each. All of
/// them get consecutive seqs, or none is published.
#[utoipa::path(
    post,
    path = "/v1/topics/{id}/messages",
    operation_id = "publish",
    tag = "messages",
    params(("id" = String, Path, description = "The topic's id or its name.")),
    request_body(content(
        (Body<'static> = "application/json"),
        (Written<'static> = "application/x-ndjson")
    )),
    responses((status = OK, body = Seqs), problem::Refused)
)]
pub(super) async fn publish(
    Owned(topics): Owned,
    Path(topic): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let (messages, is_one) = messages_of(&headers, &body)?;
    let published = topics.publish_all(&topic, messages).await?;
    Ok(answer(&published, is_one))
}

/// One message, or many that belong together.
#[derive(ToSchema)]
#[schema(as = NewMessages)]
#[serde(untagged)]
#[expect(dead_code, reason = "its schema is read, never the value")]
enum Body<'a> {
    One(Written<'a>),
    Many(Vec<Written<'a>>),
}

/// The messages of a body, and whether it was one alone.
fn messages_of(headers: &HeaderMap, body: &[u8]) -> Result<(Vec<NewMessage>, bool), Problem> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let written: Vec<Written<'_>> = if first == Some(&b'[') {
        read(body)?
    } else {
        let lines = serde_json::Deserializer::from_slice(body).into_iter();
        lines
            .collect::<Result<_, _>>()
            .map_err(|error| bad_json(&error))?
    };
    if written.is_empty() {
        return Err(Problem::unprocessable("the body holds no message"));
    }
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let by_line = kind.is_some_and(|kind| kind.contains("ndjson"));
    let is_one = written.len() == 1 && first != Some(&b'[') && !by_line;
    let messages = written
        .into_iter()
        .map(message_of)
        .collect::<Result<_, _>>()?;
    Ok((messages, is_one))
}

fn message_of(written: Written<'_>) -> Result<NewMessage, Problem> {
    let payload = written.payload.get().as_bytes();
    if DEPTH_MAX < depth(payload) {
        let detail = format!("a payload is nested deeper than {DEPTH_MAX}");
        return Err(Problem::unprocessable(detail));
    }
    Ok(NewMessage {
        payload: Bytes::copy_from_slice(payload),
        idempotency_key: written.idempotency_key.map(Into::into),
    })
}

/// What every JSON reader of a subscriber can take; a frame that holds the payload adds one.
const DEPTH_MAX: usize = 126;

/// How deep arrays and objects stand in each other, in JSON that is known to be good.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn answer(published: &Published, is_one: bool) -> Response {
    let Published {
        topic,
        first_seq,
        last_seq,
        duplicate,
    } = *published;
    let topic = topic.to_string();
    let seqs = match is_one {
        true => Seqs::One {
            topic,
            seq: first_seq,
            duplicate,
        },
        false => Seqs::Many {
            topic,
            first_seq,
            last_seq,
            duplicate,
        },
    };
    Json(seqs).into_response()
}

/// The answer to a publish: to one message its seq, to many the first and the last.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Published)]
#[serde(untagged)]
pub(super) enum Seqs {
    One {
        topic: String,
        seq: u64,
        #[serde(skip_serializing_if = "is_false")]
        duplicate: bool,
    },
    Many {
        topic: String,
        first_seq: u64,
        last_seq: u64,
        #[serde(skip_serializing_if = "is_false")]
        duplicate: bool,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Which messages.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Range {
    /// The first seq that is wanted [default: 1].
    from_seq: Option<u64>,
    /// How many at most [default: 100]; 1000 are the most that are ever shown.
    limit: Option<u32>,
}

const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

/// `GET /v1/topics/{id}/messages?from_seq&limit`: up to the last durable one.
#[utoipa::path(
    get,
    path = "/v1/topics/{id}/messages",
    operation_id = "messages",
    tag = "messages",
    params(("id" = String, Path, description = "The topic's id or its name."), Range),
    responses((status = OK, body = Page), problem::Refused)
)]
pub(super) async fn history(
    Owned(topics): Owned,
    Path(topic): Path<String>,
    Query(range): Query<Range>,
) -> Result<Response, Problem> {
    let limit = range.limit.unwrap_or(LIMIT).min(LIMIT_MAX);
    let from_seq = range.from_seq.unwrap_or(1);
    let history = topics.history(&topic, from_seq, limit).await?;
    Ok(json(written(&history)))
}

/// A page of messages, and what is missing between them.
#[derive(ToSchema)]
#[schema(as = History)]
#[expect(
    dead_code,
    reason = "its schema is read; payloads are written as they came"
)]
pub(super) struct Page {
    messages: Vec<Message>,
    #[schema(required = false)]
    gaps: Vec<Gap>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
struct Message {
    seq: u64,
    payload: Value,
    /// When it was stored, in milliseconds since 1970.
    ts: u64,
}

/// Messages that are not there any more, the last of them too.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as above")]
struct Gap {
    from: u64,
    to: u64,
    reason: String,
}

/// The payloads go in as they are: they were checked when they came.
fn written(history: &History) -> Vec<u8> {
    let payloads: usize = history
        .messages
        .iter()
        .map(|message| message.payload.len())
        .sum();
    let mut out = Vec::with_capacity(payloads + history.messages.len() * 64 + 64);
    out.extend_from_slice(br#"{"messages":["#);
    for (index, message) in history.messages.iter().enumerate() {
        let comma = if 0 < index { "," } else { "" };
        let head = format!(r#"{comma}{{"seq":{},"payload":"#, message.seq);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&message.payload);
        out.extend_from_slice(format!(r#","ts":{}}}"#, message.unix_ms).as_bytes());
    }
    out.push(b']');
    if !history.gaps.is_empty() {
        let gaps = history.gaps.iter().map(|gap| {
            let (from, to, reason) = (gap.from, gap.to, gap.reason.as_str());
            format!(r#"{{"from":{from},"to":{to},"reason":"{reason}"}}"#)
        });
        let gaps = gaps.collect::<Vec<_>>().join(",");
        out.extend_from_slice(format!(r#","gaps":[{gaps}]"#).as_bytes());
    }
    out.push(b'}');
    out
}

fn json(body: Vec<u8>) -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, kind)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_texts() {
        assert_eq!(depth(b"42.50"), 0);
        assert_eq!(depth(br#"{"a":[1,{"b\"[":"[["}],"c":[]}"#), 3);
    }

    /// C-03: one, an array, and lines
    #[test]
    fn a_body_is_one_message_or_many() {
        let count = |body: &str, kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            let found = messages_of(&headers, body.as_bytes());
            found
                .map(|(messages, is_one)| (messages.len(), is_one))
                .ok()
        };
        let form = "application/x-www-form-urlencoded";
        assert_eq!(count(r#" {"payload":1} "#, form), Some((1, true)));
        assert_eq!(count(r#"[{"payload":1}]"#, form), Some((1, false)));
        assert_eq!(
            count("{\"payload\":1}\n{\"payload\":2}\n", form),
            Some((2, false))
        );
        assert_eq!(
            count("{\"payload\":1}\n", "application/x-ndjson"),
            Some((1, false))
        );
        for bad in [
            "",
            "[]",
            "{}",
            "1",
            r#"{"payload":1}x"#,
            r#"{"payload":1,}"#,
            "[{]",
        ] {
            assert_eq!(count(bad, form), None, "{bad}");
        }
        let deep = format!(r#"{{"payload":{}1{}}}"#, "[".repeat(127), "]".repeat(127));
        assert_eq!(count(&deep, form), None);
    }
}
