//! Whether the server lives, whether it is ready, and what it has counted. The first two say only
//! yes or no.

#![expect(
    unused_qualifications,
    reason = "the description of a route's query is written by a macro"
)]

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::{Caller, ROLE_ADMIN};
use crate::metrics::TEXT_CONTENT_TYPE;

use super::problem::{Problem, Refused};
use super::query::Query;
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

/// Which numbers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only these, with commas between them and named as their `TYPE` lines name them; whoever
    /// asks often and for few costs less. Names that are not there are passed over.
    families: Option<String>,
}

/// All numbers or some, for those who may see the inside.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    params(Which),
    responses(
        (status = OK, body = String, content_type = "application/openmetrics-text"),
        Refused
    )
)]
pub(super) async fn metrics(
    State(deps): State<Deps>,
    caller: Option<Extension<Arc<Caller>>>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let admin = caller.is_some_and(|caller| caller.has_role(ROLE_ADMIN));
    match (deps.inside, admin) {
        (Inside::Everybody, _) | (Inside::Admins, true) => {
            let text = match &which.families {
                Some(families) => {
                    let families: Vec<&str> = families.split(',').collect();
                    deps.metrics.to_text_of(&families)
                }
                None => deps.metrics.to_text(),
            };
            Ok(([(CONTENT_TYPE, TEXT_CONTENT_TYPE)], text).into_response())
        }
        (Inside::Admins, false) => {
            Err(Problem::forbidden("the role admin is needed").coded("forbidden"))
        }
        (Inside::Elsewhere, _) => Err(Problem::not_found()),
    }
}
