//! Whether the server lives, whether it is ready, and what it has counted. The first two say only
//! yes or no.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::auth::{Caller, ROLE_ADMIN};
use crate::metrics::TEXT_CONTENT_TYPE;

use super::problem::{Problem, Refused};
use super::{Deps, Inside};

/// The process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    security(()),
    responses((status = OK, body = String, content_type = "text/plain"))
)]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The server takes connections and its storage works.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    security(()),
    responses((status = OK, body = String, content_type = "text/plain"), Refused)
)]
pub(super) async fn readyz(State(deps): State<Deps>) -> Result<&'static str, Problem> {
    match deps.node.is_ready() {
        true => Ok("ok\n"),
        false => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not ready")),
    }
}

/// All numbers, for those who may see the inside.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses(
        (status = OK, body = String, content_type = "application/openmetrics-text"),
        Refused
    )
)]
pub(super) async fn metrics(
    State(deps): State<Deps>,
    caller: Option<Extension<Arc<Caller>>>,
) -> Result<Response, Problem> {
    let admin = caller.is_some_and(|caller| caller.has_role(ROLE_ADMIN));
    match (deps.inside, admin) {
        (Inside::Everybody, _) | (Inside::Admins, true) => {
            Ok(([(CONTENT_TYPE, TEXT_CONTENT_TYPE)], deps.metrics.to_text()).into_response())
        }
        (Inside::Admins, false) => Err(Problem::forbidden("the role admin is needed")),
        (Inside::Elsewhere, _) => Err(Problem::not_found()),
    }
}
