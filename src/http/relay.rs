//! The relay over REST: push and presence, in the tenant of the token. Knows no subscriber.

#![expect(
    unused_qualifications,
    reason = "the description of a route's query is written by a macro"
)]

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::auth::Caller;
use crate::broker::presence::PresenceEntry;
use crate::broker::relay as broker;
use crate::config::{Limits, RestPush};
use crate::gateway::relay::Relay;
use crate::proto::ErrorCode;

use super::problem::{Problem, Refused};
use super::query::Query;
use super::{Deps, body};

/// The answer to a push: how many subscribers it goes to, or that the topic's handler took it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pushed {
    /// Subscribers that it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    accepted: Option<u64>,
    /// The handler of the topic took it as a message of the pushing user.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    handled: bool,
}

impl Pushed {
    fn members(count: u64) -> Self {
        Self {
            accepted: Some(count),
            handled: false,
        }
    }
}

/// What a push says.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Push<'a> {
    #[schema(min_length = 1, max_length = 255)]
    topic: String,
    #[schema(min_length = 1, max_length = 128)]
    event: String,
    /// Any JSON, which goes out as it was written; null where it is missing.
    #[serde(borrow)]
    #[schema(value_type = Value, required = false)]
    payload: Option<&'a RawValue>,
}

/// `POST /v1/relay/push {"topic","event","payload"}`. The body is read as JSON whatever its
/// content type says, and the payload goes out as it was written. Wants the right to publish to
/// the topic; a topic that a handler takes is given to it (`relay.rest_push`).
#[utoipa::path(
    post,
    path = "/v1/relay/push",
    operation_id = "push",
    tag = "relay",
    request_body = Push<'static>,
    responses((status = OK, body = Pushed), Refused)
)]
pub(super) async fn push(
    State(deps): State<Deps>,
    Extension(caller): Extension<Arc<Caller>>,
    relay: Relay,
    body: Bytes,
) -> Result<Json<Pushed>, Problem> {
    let Push {
        topic,
        event,
        payload,
    } = body::read(&body)?;
    let limits = &deps.access.load().limits;
    let topic = topic_name(Some(&topic), limits)?;
    let bytes_max = limits.event_bytes_max;
    let event = name("event", Some(&event), "event_bytes_max", bytes_max)?;
    let allowed = caller.to_publish(topic)?;
    let said = (event, payload.unwrap_or(RawValue::NULL));
    let pushed = match deps.rest_push {
        RestPush::Off => return Err(Problem::forbidden(PUSH_OFF).coded("forbidden")),
        RestPush::Direct => Pushed::members(relay.push_past(allowed, said).await?),
        RestPush::Handlers => match relay.push_as(&caller, allowed, said).await? {
            Ok(broker::Pushed::Members(count)) => Pushed::members(count),
            Ok(broker::Pushed::Handler) => Pushed {
                accepted: None,
                handled: true,
            },
            Err(refusal) => return Err(refused(&refusal)),
        },
    };
    Ok(Json(pushed))
}

const PUSH_OFF: &str = "pushes by REST are switched off: relay.rest_push = \"off\"";

/// What the handler of a topic says to a visitor.
fn refused(refusal: &broker::Refusal) -> Problem {
    let (status, code) = match refusal {
        broker::Refusal::JoinRejected(_) | broker::Refusal::NotSubscribed(_) => {
            (StatusCode::FORBIDDEN, ErrorCode::JoinRejected)
        }
        broker::Refusal::HandlerFailed(_) => {
            (StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::HandlerError)
        }
    };
    Problem::new(status, refusal.to_string()).coded(code.as_str())
}

/// Whom presence is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
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
    Extension(caller): Extension<Arc<Caller>>,
    relay: Relay,
    Query(query): Query<PresenceQuery>,
) -> Result<Json<Presence>, Problem> {
    let topic = topic_name(query.topic.as_deref(), &deps.access.load().limits)?;
    let mut members = relay.presence_for(caller.to_subscribe(topic)?).await?;
    let count = members.len();
    members.truncate(query.limit.unwrap_or(count));
    Ok(Json(Presence { count, members }))
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
