//! Messages of durable topics over REST: published one by one, as an array or line by line, and
//! read back by seq. A payload goes in and comes out byte for byte. Knows JSON; no log.

#![expect(
    unused_qualifications,
    reason = "the description of a route's query is written by a macro"
)]

use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::broker::durable::{Message as Stored, NewMessage};
use crate::gateway::topics::{History, Published};

use super::body;
use super::problem::{self, Problem};
use super::query::Query;
use super::topics::Owned;

/// A message in a body.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewMessage)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    /// Any JSON; it comes out as it was written.
    #[serde(borrow)]
    #[schema(value_type = serde_json::Value)]
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
    bytes: Bytes,
) -> Result<Response, Problem> {
    let (messages, is_one) = messages_of(&headers, &bytes)?;
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
fn messages_of(headers: &HeaderMap, bytes: &[u8]) -> Result<(Vec<NewMessage>, bool), Problem> {
    let (written, is_alone) = body::read_many::<Written<'_>>(bytes)?;
    if written.is_empty() {
        return Err(Problem::unprocessable("the body holds no message"));
    }
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let by_line = kind.is_some_and(|kind| kind.contains("ndjson"));
    let is_one = is_alone && !by_line;
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
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Range {
    /// The first seq that is wanted [default: 1].
    from_seq: Option<u64>,
    /// How many at most [default: 100]; 1000 are the most that are ever shown.
    limit: Option<u32>,
    /// The last so many, in place of `from_seq` and `limit`; 1000 are the most that are ever shown.
    last: Option<u32>,
}

const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

/// `GET /v1/topics/{id}/messages?from_seq&limit` or `?last`: up to the last durable one.
#[utoipa::path(
    get,
    path = "/v1/topics/{id}/messages",
    operation_id = "messages",
    tag = "messages",
    params(("id" = String, Path, description = "The topic's id or its name."), Range),
    responses((status = OK, body = Page<'static>), problem::Refused)
)]
pub(super) async fn history(
    Owned(topics): Owned,
    Path(topic): Path<String>,
    Query(range): Query<Range>,
) -> Result<Response, Problem> {
    let (from_seq, limit) = match range.last {
        Some(_) if range.from_seq.is_some() || range.limit.is_some() => {
            let detail = "`last` or `from_seq` and `limit`, not both";
            return Err(Problem::unprocessable(detail));
        }
        Some(last) => {
            let limit = last.min(LIMIT_MAX);
            let view = topics.topic(&topic).await?;
            (view.last_seq.saturating_sub(limit.into()) + 1, limit)
        }
        None => (
            range.from_seq.unwrap_or(1),
            range.limit.unwrap_or(LIMIT).min(LIMIT_MAX),
        ),
    };
    let history = topics.history(&topic, from_seq, limit).await?;
    Ok(Json(Page::of(&history)?).into_response())
}

/// A page of messages, and what is missing between them.
#[derive(Serialize, ToSchema)]
#[schema(as = History)]
pub(super) struct Page<'a> {
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    gaps: Vec<Gap>,
    /// The last message of the topic; 0 if there never was one.
    last_seq: u64,
    /// What `from_seq` is for the next page; this is the last one if it is missing. A page ends at
    /// its number of messages or of bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct Message<'a> {
    seq: u64,
    #[schema(value_type = serde_json::Value)]
    payload: &'a RawValue,
    /// When it was stored, in milliseconds since 1970.
    ts: u64,
}

/// Messages that are not there any more, the last of them too.
#[derive(Serialize, ToSchema)]
struct Gap {
    from: u64,
    to: u64,
    reason: &'static str,
}

impl<'a> Page<'a> {
    /// The payloads go in as they are: they were checked when they came.
    fn of(history: &'a History) -> Result<Self, Problem> {
        let shown = |message: &'a Stored| {
            Ok(Message {
                seq: message.seq,
                payload: serde_json::from_slice(&message.payload)
                    .map_err(|_| Problem::internal())?,
                ts: message.unix_ms,
            })
        };
        let messages = history.messages.iter().map(shown);
        let gaps = history.gaps.iter().map(|gap| Gap {
            from: gap.from,
            to: gap.to,
            reason: gap.reason.as_str(),
        });
        Ok(Self {
            messages: messages.collect::<Result<_, Problem>>()?,
            gaps: gaps.collect(),
            last_seq: history.last_seq,
            next: history.next,
        })
    }
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
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
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
