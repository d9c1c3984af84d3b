//! The connections of a tenant, and the end of one. Knows them only by what a shard tells.

#![expect(
    unused_qualifications,
    reason = "the description of a route's query is written by a macro"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::{Caller, ROLE_ADMIN};
use crate::id::ConnId;

use super::Deps;
use super::problem::{Problem, Refused};
use super::query::Query;

/// One open connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Connection)]
pub(crate) struct ConnectionInfo {
    /// Its name in the whole server: shard, slot and generation.
    pub(crate) id: String,
    /// Where it is mounted.
    pub(crate) path: String,
    /// Its number in its registry or on the relay, if its dialect gives one.
    #[schema(value_type = Option<u64>, required)]
    pub(crate) conn_id: Option<ConnId>,
    /// The claim `sub` of its token.
    #[schema(required)]
    pub(crate) sub: Option<String>,
    /// Where it comes from: what a proxy of `server.trusted_proxies` told, else its peer.
    #[schema(value_type = Option<String>, required)]
    pub(crate) peer: Option<SocketAddr>,
}

/// The answer to a question for connections.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Connections {
    /// How many there are, shown or not.
    pub(crate) count: usize,
    /// Those that are shown.
    pub(crate) connections: Vec<ConnectionInfo>,
}

/// Which of them: all, unless less is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Something shown of a connection contains this, whatever its case.
    pub(crate) contains: Option<String>,
    /// No more than so many.
    pub(crate) limit: Option<usize>,
    /// Where they come from is shown, and looked at by `contains`.
    #[serde(skip)]
    #[param(ignore)]
    pub(crate) addresses: bool,
}

/// `GET /v1/connections?contains=&limit=`: those of the caller's tenant. Where rights are explicit
/// it wants the role `manager` or `admin`, and only `admin` is told where they come from.
#[utoipa::path(
    get,
    path = "/v1/connections",
    operation_id = "list_connections",
    tag = "connections",
    params(Which),
    responses((status = OK, body = Connections), Refused)
)]
pub(super) async fn list(
    State(deps): State<Deps>,
    Extension(caller): Extension<Arc<Caller>>,
    Query(which): Query<Which>,
) -> Result<Json<Connections>, Problem> {
    caller.to_manage()?;
    let which = Which {
        addresses: caller.sees_addresses(),
        ..which
    };
    Ok(Json(deps.node.connections(&caller.tenant, which).await))
}

/// `DELETE /v1/connections/{id}`, for admins of the tenant.
#[utoipa::path(
    delete,
    path = "/v1/connections/{id}",
    operation_id = "close_connection",
    tag = "connections",
    params(("id" = String, Path, description = "As `GET /v1/connections` tells it.")),
    responses((status = NO_CONTENT, description = "It is closed."), Refused)
)]
pub(super) async fn close(
    State(deps): State<Deps>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    if !caller.has_role(ROLE_ADMIN) {
        return Err(Problem::forbidden("the role admin is needed").coded("forbidden"));
    }
    match deps.node.close(&caller.tenant, &id).await {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}
