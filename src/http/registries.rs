//! Broadcasts to the registries of gateways over REST, in the tenant of the token. Knows
//! registries by the names of their markers.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::gateway::engine::program::Program;
use crate::gateway::server::Scope;
use crate::id::ConnId;

use super::body;
use super::problem::{Problem, Refused};

/// What goes out, and to whom: to everybody, to a room, or to one connection.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Broadcast<'a> {
    event: String,
    #[serde(borrow)]
    #[schema(value_type = serde_json::Value, required = false)]
    data: Option<&'a RawValue>,
    room: Option<String>,
    #[schema(value_type = Option<u64>)]
    client: Option<ConnId>,
}

/// How many outboxes took it, over all shards.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    accepted: usize,
}

/// `POST /v1/registries/{name}/broadcast {"event","data","room"?,"client"?}`. The body is read as
/// JSON whatever its content type says, and the data goes out as it was written. Wants the role
/// `manager` or `admin` where rights are explicit, and where a gateway of the registry has guards.
#[utoipa::path(
    post,
    path = "/v1/registries/{name}/broadcast",
    operation_id = "broadcast",
    tag = "registries",
    params(("name" = String, Path, description = "The name of its marker type.")),
    request_body = Broadcast<'static>,
    responses((status = OK, body = Accepted), Refused)
)]
pub(super) async fn broadcast(
    Extension(caller): Extension<Arc<Caller>>,
    program: Option<Extension<Program>>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<Accepted>, Problem> {
    caller.to_manage()?;
    if !caller.is_manager()
        && program
            .as_ref()
            .is_some_and(|program| program.is_guarded(&name))
    {
        return Err(Problem::not_allowed());
    }
    let unknown = || Problem::new(StatusCode::NOT_FOUND, format!("no registry `{name}`"));
    let scope = program.and_then(|program| program.registry(&name, &caller.tenant));
    let scope = scope.ok_or_else(unknown)?;
    let broadcast: Broadcast<'_> = body::read(&bytes)?;
    let accepted = send(&scope, &broadcast).await?;
    Ok(Json(Accepted { accepted }))
}

async fn send(scope: &Scope, broadcast: &Broadcast<'_>) -> Result<usize, Problem> {
    let data = broadcast.data.unwrap_or(RawValue::NULL);
    let sent = match (&broadcast.room, broadcast.client) {
        (None, None) => scope.broadcast_total(&broadcast.event, data).await,
        (Some(room), None) => scope.room(room).emit_total(&broadcast.event, data).await,
        (None, Some(client)) => {
            scope
                .client(client)
                .emit_total(&broadcast.event, data)
                .await
        }
        (Some(_), Some(_)) => {
            return Err(Problem::unprocessable("`room` or `client`, not both"));
        }
    };
    Ok(sent?)
}
