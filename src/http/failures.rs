//! What the calls of user code fail with, as HTTP says it: in the server's own routes, and in those
//! of users that return such an error. Knows the errors of handles; no request.

use std::error::Error;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::broker::durable::Refused;
use crate::gateway::send::SendError;
use crate::gateway::topics::TopicError;

use super::problem::Problem;

impl From<SendError> for Problem {
    fn from(error: SendError) -> Self {
        let status = match &error {
            SendError::Overloaded | SendError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            SendError::NoRelay => StatusCode::NOT_FOUND,
            SendError::Serialize(_) | SendError::NoTenant => return of_program(&error),
            SendError::Room(_) | SendError::NotSubscribed(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.to_string())
    }
}

/// What is foreign and what is unknown are the same.
impl From<TopicError> for Problem {
    fn from(error: TopicError) -> Self {
        let refused = match &error {
            TopicError::Refused(refused) => refused,
            TopicError::Disabled => return Self::not_found(),
            TopicError::Overloaded | TopicError::Stopping => {
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
            }
            TopicError::Serialize(_) | TopicError::NoTenant => return of_program(&error),
        };
        let (status, code) = match refused {
            Refused::UnknownSubscription => (StatusCode::NOT_FOUND, "unknown_subscription"),
            other => (status_of(other), other.code().as_str()),
        };
        Self::new(status, refused.to_string()).coded(code)
    }
}

/// Who asked can do nothing about it; whoever wrote the route reads the log.
fn of_program(error: &dyn Error) -> Problem {
    tracing::error!(target: "tidegate::http", %error, "a route failed");
    Problem::internal()
}

fn status_of(refused: &Refused) -> StatusCode {
    match refused {
        Refused::UnknownTopic | Refused::UnknownSubscription => StatusCode::NOT_FOUND,
        Refused::NotSubscribed
        | Refused::Fenced
        | Refused::Duplicate
        | Refused::AckAhead { .. }
        | Refused::IdempotencyConflict => StatusCode::CONFLICT,
        Refused::SeqOutOfRange { .. }
        | Refused::Empty { .. }
        | Refused::NameBytes { .. }
        | Refused::NameIsId => StatusCode::UNPROCESSABLE_ENTITY,
        Refused::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refused::Forbidden | Refused::TopicsFull { .. } | Refused::SubscriptionLimit { .. } => {
            StatusCode::FORBIDDEN
        }
        Refused::BytesFull { .. } | Refused::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        Refused::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refused::StorageFailed | Refused::OutcomeUnknown => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A route of the user's fails as the server's own do.
impl IntoResponse for SendError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

/// A route of the user's fails as the server's own do.
impl IntoResponse for TopicError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
