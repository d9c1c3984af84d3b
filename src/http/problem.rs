//! Errors as problem documents (RFC 9457). A peer reads what it did wrong and what a limit is; of
//! what went wrong inside it reads nothing.

use std::any::Any;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::auth::Forbidden;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    code: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            code: None,
        }
    }

    /// The same with the code by which a program knows it.
    pub(super) fn coded(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    #[cfg(test)]
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The one answer to every missing or bad token.
    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            crate::auth::Unauthorized.to_string(),
        )
    }

    pub(super) fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// What a token's rights do not allow, whether it is there or not.
    pub(super) fn not_allowed() -> Self {
        Self::forbidden(&Forbidden.to_string()).coded("forbidden")
    }

    pub(super) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// What is not there, and what belongs to somebody else: nobody learns which of the two.
    pub(super) fn not_found() -> Self {
        Self::of_status(StatusCode::NOT_FOUND)
    }

    /// What went wrong inside: the log says what.
    pub(super) fn internal() -> Self {
        Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn of_status(status: StatusCode) -> Self {
        let detail = match status {
            StatusCode::NOT_FOUND => "there is nothing here",
            StatusCode::METHOD_NOT_ALLOWED => "this method is not allowed here, see Allow",
            StatusCode::INTERNAL_SERVER_ERROR => "internal",
            other => other.canonical_reason().unwrap_or("the request failed"),
        };
        Self::new(status, detail)
    }
}

impl From<Forbidden> for Problem {
    fn from(_: Forbidden) -> Self {
        Self::not_allowed()
    }
}

/// The document itself; its type is told by the status alone.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// Always `about:blank`.
    r#type: &'static str,
    /// What the status means.
    title: &'a str,
    status: u16,
    /// What was wrong with this request, for people.
    detail: &'a str,
    /// The same for programs, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// Every error of every route.
#[derive(IntoResponses)]
#[response(status = "default", content_type = "application/problem+json")]
#[expect(dead_code, reason = "its schema is read, never the value")]
pub(super) struct Refused(Document<'static>);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM);
        if let StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE = self.status {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What is full or about to stop is another a second later.
const RETRY_AFTER_S: &str = "1";

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error without a body comes from a router that found no route or no method.
pub(super) async fn of_empty(response: Response) -> Response {
    let failed = response.status().is_client_error() || response.status().is_server_error();
    let empty = response.body().is_end_stream();
    match failed && empty {
        true => replaced(&response, Problem::of_status(response.status())),
        false => response,
    }
}

/// An error in plain text comes from an extractor, which says what did not fit.
pub(super) async fn of_text(response: Response) -> Response {
    let failed = response.status().is_client_error() || response.status().is_server_error();
    let kind = response.headers().get(CONTENT_TYPE);
    if !failed || !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain")) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, DETAIL_BYTES_MAX).await.unwrap_or_default();
    let problem = Problem::new(parts.status, String::from_utf8_lossy(&text));
    replaced(&Response::from_parts(parts, Body::empty()), problem)
}

/// The text of a panic is for the log.
pub(super) fn of_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(target: "tidegate::http", panic = text.unwrap_or("?"), "a route panicked");
    Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response()
}

/// The problem with the headers of the answer that it stands for, such as `Allow`.
fn replaced(response: &Response, problem: Problem) -> Response {
    let mut document = problem.into_response();
    for (name, value) in response.headers() {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            document.headers_mut().insert(name, value.clone());
        }
    }
    document
}

/// What an extractor says is short.
const DETAIL_BYTES_MAX: usize = 4_096;
