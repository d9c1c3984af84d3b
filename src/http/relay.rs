//! The relay over REST: push and presence, in the tenant of the token. Knows no subscriber.

#![expect(
    unused_qualifications,
    reason = "the description of a route's query is written by a macro"
)]

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::broker::presence::PresenceEntry;
use crate::config::Limits;
use crate::gateway::relay::Relay;
use crate::proto::json::{Field, JsonParser, Scalar};

use super::Deps;
use super::problem::{Problem, Refused};
use super::query::Query;

/// The answer to a push: whether anybody listens is nobody's business.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pushed {}

/// What a push says. Read field by field, so that the payload stays as it was written.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its schema is read, never the value")]
pub(super) struct Push {
    #[schema(min_length = 1, max_length = 255)]
    topic: String,
    #[schema(min_length = 1, max_length = 128)]
    event: String,
    /// Any JSON; null where it is missing.
    #[schema(required = false)]
    payload: Value,
}

/// `POST /v1/relay/push {"topic","event","payload"}`. The body is read as JSON whatever its
/// content type says, and the payload goes out as it was written.
#[utoipa::path(
    post,
    path = "/v1/relay/push",
    operation_id = "push",
    tag = "relay",
    request_body = Push,
    responses((status = OK, body = Pushed), Refused)
)]
pub(super) async fn push(
    State(deps): State<Deps>,
    relay: Relay,
    body: Bytes,
) -> Result<Json<Pushed>, Problem> {
    let mut parser = JsonParser::default();
    let document = parser
        .parse(&body)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is {error}")))?;
    let fields = document.fields(["topic", "event", "payload"]);
    let [topic, event, payload] =
        fields.map_err(|error| Problem::unprocessable(format!("the body is {error}")))?;
    let limits = &deps.access.load().limits;
    let topic = topic_name(text(topic), limits)?;
    let event = name(
        "event",
        text(event),
        "event_bytes_max",
        limits.event_bytes_max,
    )?;
    relay
        .push(topic, event, verbatim(payload.as_ref())?)
        .await?;
    Ok(Json(Pushed {}))
}

/// Whom presence is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PresenceQuery {
    /// The topic's name.
    #[param(required, min_length = 1, max_length = 255)]
    topic: Option<String>,
    /// No more members than so many; `count` is of all.
    limit: Option<usize>,
}

/// Who is present.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Presence {
    count: usize,
    #[schema(value_type = Vec<Member>)]
    members: Vec<PresenceEntry>,
}

/// One connection that is present.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "its schema is read, the value is a `PresenceEntry`"
)]
pub(super) struct Member {
    conn_id: u64,
    /// What was said of it when it was tracked.
    meta: Value,
}

/// `GET /v1/relay/presence?topic=`.
#[utoipa::path(
    get,
    path = "/v1/relay/presence",
    operation_id = "presence",
    tag = "relay",
    params(PresenceQuery),
    responses((status = OK, body = Presence), Refused)
)]
pub(super) async fn presence(
    State(deps): State<Deps>,
    relay: Relay,
    Query(query): Query<PresenceQuery>,
) -> Result<Json<Presence>, Problem> {
    let topic = topic_name(query.topic.as_deref(), &deps.access.load().limits)?;
    let mut members = relay.presence(topic).await?;
    let count = members.len();
    members.truncate(query.limit.unwrap_or(count));
    Ok(Json(Presence { count, members }))
}

fn text<'a>(field: Option<Field<'a>>) -> Option<&'a str> {
    match field?.value {
        Scalar::Text(text) => Some(text),
        _ => None,
    }
}

fn topic_name<'a>(topic: Option<&'a str>, limits: &Limits) -> Result<&'a str, Problem> {
    name("topic", topic, "name_bytes_max", limits.name_bytes_max)
}

fn name<'a>(
    what: &str,
    name: Option<&'a str>,
    limit: &str,
    bytes_max: usize,
) -> Result<&'a str, Problem> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Err(Problem::unprocessable(format!(
            "`{what}` must be a string that is not empty"
        )));
    };
    match name.len() <= bytes_max {
        true => Ok(name),
        false => Err(Problem::unprocessable(format!(
            "`{what}` of {} bytes exceeds limits.{limit} = {bytes_max}",
            name.len()
        ))),
    }
}

/// The payload as it was written; a push without one says null.
fn verbatim<'a>(payload: Option<&Field<'a>>) -> Result<&'a RawValue, Problem> {
    let span = payload.map_or(b"null".as_slice(), |field| field.span);
    serde_json::from_slice(span).map_err(|error| Problem::unprocessable(error.to_string()))
}
