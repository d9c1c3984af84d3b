//! Subscriptions over REST: listed, looked at, moved, deleted, in the tenant of the token.

#![expect(
    unused_qualifications,
    reason = "the description of a route's query is written by a macro"
)]

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::broker::durable::{Refused, SubscriptionView};
use crate::gateway::topics::TopicError;
use crate::id::HomedId;

use super::body;
use super::problem::{self, Problem};
use super::query::Query;
use super::topics::{Owned, PAGE_MAX, cut};

/// A subscription as it is shown: one that nobody reads is seen by `attached` and `active_at`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Subscription)]
pub(super) struct Shown {
    id: String,
    topic: String,
    #[schema(value_type = String)]
    sub_name: Arc<str>,
    /// Everything up to here is acked.
    cursor: u64,
    last_seq: u64,
    /// How many messages it has not acked.
    lag: u64,
    in_flight: u32,
    attached: bool,
    /// When it was last read, in milliseconds since 1970.
    active_at: u64,
}

impl From<SubscriptionView> for Shown {
    fn from(view: SubscriptionView) -> Self {
        Self {
            id: view.id.to_string(),
            topic: view.topic.to_string(),
            sub_name: view.sub_name,
            cursor: view.cursor,
            last_seq: view.last_seq,
            lag: view.last_seq.saturating_sub(view.cursor),
            in_flight: view.in_flight,
            attached: view.attached,
            active_at: view.active_ms,
        }
    }
}

/// Which of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// A topic's id or name.
    topic: Option<String>,
    sub_name: Option<String>,
    /// The last id of the page before.
    #[param(pattern = r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
    after: Option<String>,
    /// How many at most; 1000 are the most that are ever shown.
    limit: Option<usize>,
}

/// A page of subscriptions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Subscriptions)]
pub(super) struct List {
    subscriptions: Vec<Shown>,
    /// What `after` is for the next page; this is the last one if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// `GET /v1/subscriptions?topic=&sub_name=`: by id.
#[utoipa::path(
    get,
    path = "/v1/subscriptions",
    operation_id = "list_subscriptions",
    tag = "subscriptions",
    params(Which),
    responses((status = OK, body = List), problem::Refused)
)]
pub(super) async fn list(
    Owned(topics): Owned,
    Query(which): Query<Which>,
) -> Result<Json<List>, Problem> {
    let after = which.after.map(|after| after.parse::<HomedId>());
    let after = after
        .transpose()
        .map_err(|_| Problem::unprocessable("`after` is no id"))?;
    let limit = which.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let page = (after, limit + 1);
    let views = topics.subscriptions(which.topic.as_deref(), which.sub_name.as_deref(), page);
    let (views, next) = cut(views.await?, limit, |view| view.id.to_string());
    let first = || after.map_or_else(|| FIRST_ID.to_owned(), |after| after.to_string());
    Ok(Json(List {
        next: next.map(|last| last.unwrap_or_else(first)),
        subscriptions: views.into_iter().map(Shown::from).collect(),
    }))
}

/// `GET /v1/subscriptions/{id}`.
#[utoipa::path(
    get,
    path = "/v1/subscriptions/{id}",
    operation_id = "subscription",
    tag = "subscriptions",
    params(("id" = String, Path, description = "The subscription's id.")),
    responses((status = OK, body = Shown), problem::Refused)
)]
pub(super) async fn get(
    Owned(topics): Owned,
    Path(id): Path<String>,
) -> Result<Json<Shown>, Problem> {
    let view = topics.subscription(parse(&id)?).await?;
    Ok(Json(view.into()))
}

/// Where to: one of the two.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Move {
    /// What is delivered next.
    FromSeq(u64),
    /// Everything up to here is acked.
    Cursor(u64),
}

/// `PATCH /v1/subscriptions/{id} {"from_seq"}` or `{"cursor"}`: forward or back, on purpose.
#[utoipa::path(
    patch,
    path = "/v1/subscriptions/{id}",
    operation_id = "move_subscription",
    tag = "subscriptions",
    params(("id" = String, Path, description = "The subscription's id.")),
    request_body = Move,
    responses((status = OK, body = Shown), problem::Refused)
)]
pub(super) async fn move_to(
    Owned(topics): Owned,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<Shown>, Problem> {
    let from_seq = match body::read(&bytes)? {
        Move::FromSeq(from_seq) => from_seq,
        Move::Cursor(cursor) => cursor.saturating_add(1),
    };
    let moved = topics.move_subscription(parse(&id)?, from_seq).await;
    Ok(Json(moved?.into()))
}

/// `DELETE /v1/subscriptions/{id}`.
#[utoipa::path(
    delete,
    path = "/v1/subscriptions/{id}",
    operation_id = "delete_subscription",
    tag = "subscriptions",
    params(("id" = String, Path, description = "The subscription's id.")),
    responses((status = NO_CONTENT, description = "It is gone."), problem::Refused)
)]
pub(super) async fn delete(
    Owned(topics): Owned,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    topics.delete_subscription(parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Before all ids.
const FIRST_ID: &str = "00000000-0000-7000-8000-000000000000";

/// What is no id names nothing.
fn parse(id: &str) -> Result<HomedId, Problem> {
    let unknown = |_| Problem::from(TopicError::Refused(Refused::UnknownSubscription));
    id.parse().map_err(unknown)
}
