//! Durable topics over REST: made or resolved, listed, deleted, in the tenant of the token.
//! Knows what a home answers; no shard and no log.

#![expect(
    unused_qualifications,
    reason = "the description of a route's query is written by a macro"
)]

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path};
use axum::http::{StatusCode, request};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::Caller;
use crate::broker::durable::{Retention, TopicView};
use crate::gateway::topics::Topics;

use super::body;
use super::problem::{self, Problem};
use super::query::Query;

/// The topics of the caller, whose token names its tenant: what is kept belongs to somebody who
/// was named on purpose.
#[derive(Debug)]
pub(super) struct Owned(pub(super) Topics);

impl<S: Send + Sync> FromRequestParts<S> for Owned {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        let caller = Extension::<Arc<Caller>>::from_request_parts(parts, state).await;
        let Ok(Extension(caller)) = caller else {
            return Err(Problem::unauthorized());
        };
        if !caller.has_ns {
            return Err(Problem::unauthorized());
        }
        let Ok(topics) = Topics::from_request_parts(parts, state).await;
        let publisher = caller.subject.as_deref().unwrap_or_default();
        Ok(Self(
            topics.publisher(publisher).rights(caller.rights.clone()),
        ))
    }
}

/// A topic as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Topic)]
pub(super) struct Shown {
    id: String,
    #[schema(value_type = String)]
    name: Arc<str>,
    ns: String,
    created_at: u64,
    first_seq: u64,
    last_seq: u64,
    #[serde(skip_serializing_if = "Kept::is_all")]
    #[schema(required = false)]
    retention: Kept,
}

/// What a topic keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Retention)]
#[serde(deny_unknown_fields)]
struct Kept {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_messages: Option<u64>,
}

impl Kept {
    fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Kept> for Retention {
    fn from(kept: Kept) -> Self {
        Self {
            age_ms_max: kept.max_age_ms,
            bytes_max: kept.max_bytes,
            messages_max: kept.max_messages,
        }
    }
}

impl From<TopicView> for Shown {
    fn from(view: TopicView) -> Self {
        let Retention {
            age_ms_max,
            bytes_max,
            messages_max,
        } = view.retention;
        Self {
            id: view.id.to_string(),
            name: view.name,
            ns: view.tenant.to_string(),
            created_at: view.created_ms,
            first_seq: view.first_seq,
            last_seq: view.last_seq,
            retention: Kept {
                max_age_ms: age_ms_max,
                max_bytes: bytes_max,
                max_messages: messages_max,
            },
        }
    }
}

/// A topic that is to be there.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewTopic)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    /// What it is to keep; without it a topic that is there stays as it is.
    #[schema(value_type = Option<Kept>)]
    retention: Option<Kept>,
}

/// `POST /v1/topics {"name"}`: made, or found. The body is read as JSON whatever its content type
/// says.
#[utoipa::path(
    post,
    path = "/v1/topics",
    operation_id = "resolve_topic",
    tag = "topics",
    request_body = Wanted,
    responses(
        (status = CREATED, description = "It was made.", body = Shown),
        (status = OK, description = "It was there.", body = Shown),
        problem::Refused
    )
)]
pub(super) async fn resolve(Owned(topics): Owned, bytes: Bytes) -> Result<Response, Problem> {
    let wanted: Wanted = body::read(&bytes)?;
    let retention = Retention::from(wanted.retention.unwrap_or_default());
    let resolved = topics.resolve_with(&wanted.name, retention).await;
    let (view, created) = resolved?;
    if !created && wanted.retention.is_some() && retention != view.retention {
        let detail = "the topic keeps something else: PATCH it, or leave `retention` out";
        return Err(Problem::new(StatusCode::CONFLICT, detail).coded("retention_conflict"));
    }
    let status = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(Shown::from(view))).into_response())
}

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// The last name of the page before.
    after: Option<String>,
    /// How many at most; 1000 are the most that are ever shown.
    limit: Option<usize>,
}

/// A page of topics.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Topics)]
pub(super) struct List {
    topics: Vec<Shown>,
    /// What `after` is for the next page; this is the last one if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What a page holds, unless less is asked for.
pub(super) const PAGE_MAX: usize = 1_000;

/// `GET /v1/topics?after=&limit=`: by name.
#[utoipa::path(
    get,
    path = "/v1/topics",
    operation_id = "list_topics",
    tag = "topics",
    params(Page),
    responses((status = OK, body = List), problem::Refused)
)]
pub(super) async fn list(
    Owned(topics): Owned,
    Query(page): Query<Page>,
) -> Result<Json<List>, Problem> {
    let limit = page.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let views = topics.list(page.after.as_deref(), limit + 1).await?;
    let (views, next) = cut(views, limit, |view| view.name.to_string());
    Ok(Json(List {
        topics: views.into_iter().map(Shown::from).collect(),
        next: next.map(|last| last.or(page.after).unwrap_or_default()),
    }))
}

/// A page of so many, of one more than is shown; and if there is more, what stands last on it.
pub(super) fn cut<T>(
    mut found: Vec<T>,
    limit: usize,
    key: impl Fn(&T) -> String,
) -> (Vec<T>, Option<Option<String>>) {
    let more = limit < found.len();
    found.truncate(limit);
    let last = found.last().map(key);
    (found, more.then_some(last))
}

/// `GET /v1/topics/{id}`.
#[utoipa::path(
    get,
    path = "/v1/topics/{id}",
    operation_id = "topic",
    tag = "topics",
    params(("id" = String, Path, description = "The topic's id or its name.")),
    responses((status = OK, body = Shown), problem::Refused)
)]
pub(super) async fn get(
    Owned(topics): Owned,
    Path(topic): Path<String>,
) -> Result<Json<Shown>, Problem> {
    let view = topics.topic(&topic).await?;
    Ok(Json(view.into()))
}

/// What a topic is to keep.
#[derive(Deserialize, ToSchema)]
#[schema(as = TopicChange)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// The whole of it: what is left out has no bound from now on.
    retention: Kept,
}

/// `PATCH /v1/topics/{id} {"retention":{..}}`: what it keeps from now on.
#[utoipa::path(
    patch,
    path = "/v1/topics/{id}",
    operation_id = "change_topic",
    tag = "topics",
    params(("id" = String, Path, description = "The topic's id or its name.")),
    request_body = Change,
    responses((status = OK, body = Shown), problem::Refused)
)]
pub(super) async fn change(
    Owned(topics): Owned,
    Path(topic): Path<String>,
    bytes: Bytes,
) -> Result<Json<Shown>, Problem> {
    let change: Change = body::read(&bytes)?;
    let changed = topics.change_retention(&topic, change.retention.into());
    Ok(Json(changed.await?.into()))
}

/// `DELETE /v1/topics/{id}`.
#[utoipa::path(
    delete,
    path = "/v1/topics/{id}",
    operation_id = "delete_topic",
    tag = "topics",
    params(("id" = String, Path, description = "The topic's id or its name.")),
    responses((status = NO_CONTENT, description = "It is gone."), problem::Refused)
)]
pub(super) async fn delete(
    Owned(topics): Owned,
    Path(topic): Path<String>,
) -> Result<StatusCode, Problem> {
    topics.delete(&topic).await?;
    Ok(StatusCode::NO_CONTENT)
}
