//! Subscriptions over REST: listed, looked at, moved, deleted, in the tenant of the token.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::broker::durable::{Refused, SubscriptionView};
use crate::gateway::topics::TopicError;
use crate::id::HomedId;

use super::problem::Problem;
use super::topics::{Owned, PAGE_MAX, problem_of, read};

/// A subscription as it is shown: one that nobody reads is seen by `attached` and `active_at`.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    id: String,
    topic: String,
    sub_name: Arc<str>,
    cursor: u64,
    last_seq: u64,
    lag: u64,
    in_flight: u32,
    attached: bool,
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
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    topic: Option<String>,
    sub_name: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    subscriptions: Vec<Shown>,
}

/// `GET /v1/subscriptions?topic=&sub_name=`: by id.
pub(super) async fn list(
    Owned(topics): Owned,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<List>, Problem> {
    let Query(which) = which.map_err(|error| Problem::unprocessable(error.body_text()))?;
    let after = which.after.map(|after| after.parse::<HomedId>());
    let after = after
        .transpose()
        .map_err(|_| Problem::unprocessable("`after` is no id"))?;
    let page = (after, which.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX));
    let views = topics.subscriptions(which.topic.as_deref(), which.sub_name.as_deref(), page);
    let views = views.await.map_err(problem_of)?;
    Ok(Json(List {
        subscriptions: views.into_iter().map(Shown::from).collect(),
    }))
}

/// `GET /v1/subscriptions/{id}`.
pub(super) async fn get(
    Owned(topics): Owned,
    Path(id): Path<String>,
) -> Result<Json<Shown>, Problem> {
    let view = topics.subscription(parse(&id)?).await.map_err(problem_of)?;
    Ok(Json(view.into()))
}

/// Where to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    from_seq: Option<u64>,
    cursor: Option<u64>,
}

/// `PATCH /v1/subscriptions/{id} {"from_seq"}` or `{"cursor"}`: forward or back, on purpose.
pub(super) async fn move_to(
    Owned(topics): Owned,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Shown>, Problem> {
    let from_seq = match read::<Move>(&body)? {
        Move {
            from_seq: Some(from_seq),
            cursor: None,
        } => from_seq,
        Move {
            from_seq: None,
            cursor: Some(cursor),
        } => cursor.saturating_add(1),
        _ => {
            return Err(Problem::unprocessable(
                "the body names either `from_seq` or `cursor`",
            ));
        }
    };
    let moved = topics.move_subscription(parse(&id)?, from_seq).await;
    Ok(Json(moved.map_err(problem_of)?.into()))
}

/// `DELETE /v1/subscriptions/{id}`.
pub(super) async fn delete(
    Owned(topics): Owned,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    topics
        .delete_subscription(parse(&id)?)
        .await
        .map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is no id names nothing.
fn parse(id: &str) -> Result<HomedId, Problem> {
    let unknown = |_| problem_of(TopicError::Refused(Refused::UnknownSubscription));
    id.parse().map_err(unknown)
}
