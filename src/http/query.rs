//! The fields behind the `?` of a route's path. Knows how they are read and how a bad one is
//! refused; nothing of what they are for.

use axum::extract::{FromRequestParts, Query as Fields};
use axum::http::{Uri, request};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// What was asked for behind the `?`; what does not fit is a problem that cannot be processed.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Problem> {
        let fields = own_fields(parts.uri.query().unwrap_or_default());
        let read = Uri::try_from(format!("/?{fields}"));
        let read = read.map_err(|_| Problem::unprocessable("the query is not as expected"))?;
        match Fields::try_from_uri(&read) {
            Ok(Fields(fields)) => Ok(Self(fields)),
            Err(error) => Err(Problem::unprocessable(error.body_text())),
        }
    }
}

/// The fields that are the route's: `token` is read before any route is chosen.
fn own_fields(query: &str) -> String {
    let mut own = form_urlencoded::Serializer::new(String::new());
    let pairs = form_urlencoded::parse(query.as_bytes());
    own.extend_pairs(pairs.filter(|(name, _)| name != "token"));
    own.finish()
}
