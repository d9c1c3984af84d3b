//! What an operator sees of a running server beyond what its users see: topics with their
//! numbers, slow connections, the configuration in force. Needs the role `admin`; shows the
//! tenant of the token and nothing of another. Knows no shard.

#![expect(
    unused_qualifications,
    reason = "the description of a route's query is written by a macro"
)]

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request;
use axum::{Extension, Json};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::{Caller, ROLE_ADMIN};
use crate::broker::relay::{TopicCount, TopicFilter};
use crate::config::setting::Setting;
use crate::gateway::topics::TopicError;

use super::connections::ConnectionInfo;
use super::problem::{Problem, Refused};
use super::query::Query;
use super::topics::Owned;
use super::{Deps, subscriptions, topics};

/// A caller with the role `admin`.
#[derive(Debug)]
pub(super) struct Admin(pub(super) Arc<Caller>);

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        let caller = Extension::<Arc<Caller>>::from_request_parts(parts, state).await;
        let Ok(Extension(caller)) = caller else {
            return Err(Problem::unauthorized());
        };
        match caller.has_role(ROLE_ADMIN) {
            true => Ok(Self(caller)),
            false => Err(Problem::forbidden("the role admin is needed").coded("forbidden")),
        }
    }
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// The last name of the page before.
    after: Option<String>,
    /// Only names in which this stands, where names are asked for.
    contains: Option<String>,
    /// How many at most [default: 100].
    limit: Option<usize>,
}

/// A relay topic in numbers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RelayTopic {
    name: String,
    members: u64,
    present: usize,
}

/// Relay topics by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RelayTopics {
    /// Topics in whose names `contains` stands, on all pages.
    count: usize,
    topics: Vec<RelayTopic>,
    /// What `after` is for the next page; this is the last one if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// `GET /v1/admin/relay/topics?contains=&after=&limit=`: by name.
#[utoipa::path(
    get,
    path = "/v1/admin/relay/topics",
    operation_id = "admin_relay_topics",
    tag = "administration",
    params(Page),
    responses((status = OK, body = RelayTopics), Refused)
)]
pub(super) async fn relay_topics(
    State(deps): State<Deps>,
    Admin(caller): Admin,
    Query(page): Query<Page>,
) -> Result<Json<RelayTopics>, Problem> {
    let limit = page.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    let after = page.after;
    let filter = TopicFilter {
        after: after.as_deref().map(Into::into),
        contains: page.contains.unwrap_or_default().into(),
        limit: limit + 1,
    };
    let found = deps.node.relay_topics(&caller.tenant, filter).await;
    let count = found.count;
    let (found, next) = topics::cut(found.topics, limit, |topic| topic.name.to_string());
    let shown = |topic: TopicCount| RelayTopic {
        name: topic.name.into(),
        members: topic.members,
        present: topic.present,
    };
    Ok(Json(RelayTopics {
        count,
        topics: found.into_iter().map(shown).collect(),
        next: next.map(|last| last.or(after).unwrap_or_default()),
    }))
}

/// A durable topic with the first of its subscriptions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DurableTopic {
    #[serde(flatten)]
    topic: topics::Shown,
    /// By id, and no more than a page shows.
    subscriptions: Vec<subscriptions::Shown>,
    /// There are more than these.
    more: bool,
}

/// Durable topics by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DurableTopics {
    topics: Vec<DurableTopic>,
    /// What `after` is for the next page; this is the last one if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// `GET /v1/admin/topics?after=&limit=`: by name, each with cursor and lag of its subscriptions.
#[utoipa::path(
    get,
    path = "/v1/admin/topics",
    operation_id = "admin_durable_topics",
    tag = "administration",
    params(Page),
    responses((status = OK, body = DurableTopics), Refused)
)]
pub(super) async fn durable_topics(
    Admin(_): Admin,
    Owned(handle): Owned,
    Query(page): Query<Page>,
) -> Result<Json<DurableTopics>, Problem> {
    let limit = page.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_DEFAULT);
    let views = handle.list(page.after.as_deref(), limit + 1).await?;
    let (views, next) = topics::cut(views, limit, |view| view.name.to_string());
    let next = next.map(|last| last.or(page.after).unwrap_or_default());
    let with_subscriptions = views.into_iter().map(|view| {
        let handle = &handle;
        async move {
            let topic = view.id.to_string();
            let page = (None, SUBSCRIPTIONS_MAX + 1);
            let mut found = match handle.subscriptions(Some(&topic), None, page).await {
                Ok(found) => found,
                // It was deleted meanwhile.
                Err(TopicError::Refused(_)) => Vec::new(),
                Err(error) => return Err(Problem::from(error)),
            };
            let more = SUBSCRIPTIONS_MAX < found.len();
            found.truncate(SUBSCRIPTIONS_MAX);
            Ok(DurableTopic {
                topic: view.into(),
                subscriptions: found.into_iter().map(Into::into).collect(),
                more,
            })
        }
    });
    let topics = try_join_all(with_subscriptions).await?;
    Ok(Json(DurableTopics { topics, next }))
}

/// A connection that does not keep up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SlowConnection)]
pub(crate) struct SlowInfo {
    /// Which.
    #[serde(flatten)]
    pub(crate) connection: ConnectionInfo,
    /// Frames that wait for its socket.
    pub(crate) queued_frames: usize,
    /// Their bytes.
    pub(crate) queued_bytes: usize,
    /// Relay pushes that it missed since it connected.
    pub(crate) missed: u32,
    /// For how long its socket has taken nothing.
    pub(crate) stalled_ms: u64,
    /// Whether it is not read from until it has taken what waits for it.
    pub(crate) paused: bool,
}

/// Connections that do not keep up.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Slow {
    connections: Vec<SlowInfo>,
}

/// `GET /v1/admin/slow?limit=`: those with the most bytes waiting first.
#[utoipa::path(
    get,
    path = "/v1/admin/slow",
    operation_id = "admin_slow",
    tag = "administration",
    params(Page),
    responses((status = OK, body = Slow), Refused)
)]
pub(super) async fn slow(
    State(deps): State<Deps>,
    Admin(caller): Admin,
    Query(page): Query<Page>,
) -> Result<Json<Slow>, Problem> {
    let limit = page.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    let connections = deps.node.slow(&caller.tenant, limit).await;
    Ok(Json(Slow { connections }))
}

/// The configuration in force.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Settings {
    settings: Vec<Setting>,
}

/// `GET /v1/admin/config`: every value with the layer that set it.
#[utoipa::path(
    get,
    path = "/v1/admin/config",
    operation_id = "admin_config",
    tag = "administration",
    responses((status = OK, body = Settings), Refused)
)]
pub(super) async fn config(State(deps): State<Deps>, Admin(_): Admin) -> Json<Settings> {
    settings(&deps)
}

/// The same on the listener for operators.
pub(super) async fn config_for_operators(State(deps): State<Deps>) -> Json<Settings> {
    settings(&deps)
}

fn settings(deps: &Deps) -> Json<Settings> {
    Json(Settings {
        settings: Vec::clone(&deps.settings.load()),
    })
}

/// What a page holds, unless another number is asked for.
const PAGE_DEFAULT: usize = 100;
/// What it holds at most.
const PAGE_MAX: usize = 1_000;
/// Subscriptions that are shown with their topic.
const SUBSCRIPTIONS_MAX: usize = 20;
