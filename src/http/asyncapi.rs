//! The description of what gateways speak, made of the gateways themselves. Knows documents; no gateway.

use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use crate::gateway::engine::program::Program;

/// `GET /asyncapi.json`: every event of every gateway as AsyncAPI 3.0.
#[utoipa::path(
    get,
    path = "/asyncapi.json",
    operation_id = "asyncapi",
    tag = "operation",
    responses((status = OK, body = serde_json::Value))
)]
pub(super) async fn document(program: Option<Extension<Program>>) -> Response {
    let schema = program.map(|Extension(program)| program.schema());
    Json(schema.map(|schema| schema.asyncapi())).into_response()
}
