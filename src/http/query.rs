//! The fields behind the `?` of a route's path. Knows how they are read and how a bad one is
//! refused; nothing of what they are for.

use axum::extract::{FromRequestParts, Query as Fields};
use axum::http::request;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// What was asked for behind the `?`; what does not fit is a problem that cannot be processed.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        match Fields::from_request_parts(parts, state).await {
            Ok(Fields(fields)) => Ok(Self(fields)),
            Err(error) => Err(Problem::unprocessable(error.body_text())),
        }
    }
}
