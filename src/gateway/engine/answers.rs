//! Answers of the engine itself, which no handler gives and no filter sees. Knows their texts, not
//! why they go out.

use tracing::warn;

use crate::gateway::engine::dispatch::{Outcome, Request};
use crate::gateway::engine::wire::Wire;
use crate::gateway::reply::{Body, Exception, ExceptionKind, Frame};
use crate::proto::CloseCode;
use crate::proto::event::{LAGGED_EVENT, Lagged};

/// The answer to a frame of another shape than an envelope.
pub fn invalid_envelope() -> Frame {
    error_frame("error", "invalid envelope", Wire::PLAIN)
}

/// The answer to a binary frame.
pub fn binary_refused() -> Frame {
    error_frame("error", "binary frames are not supported", Wire::PLAIN)
}

/// Tells a client how many frames its full outbox has shed.
pub(crate) fn lagged(missed: u64) -> Frame {
    let body = Body::envelope(LAGGED_EVENT, &Lagged { missed });
    body.map(|body| body.into_frame(Wire::PLAIN))
        .unwrap_or_default()
}

/// Clients in browsers see no pings of the protocol and ask by this event whether the server is
/// there; a handler of that name goes first.
const PING_EVENT: &str = "$ping";

/// Whoever panics has decided nothing, so the connection does not go on.
pub(super) fn internal_error() -> Outcome {
    Outcome::Close {
        code: CloseCode::Internal,
        reason: "internal error".to_owned(),
    }
}

pub(super) fn unknown_event(request: Request<'_>) -> Outcome {
    if request.event == PING_EVENT {
        let body = Body::envelope(PING_EVENT, &());
        let pong = body.map(|body| body.into_frame(request.wire));
        return Outcome::Frame(pong.unwrap_or_default());
    }
    let message = format!("unknown event `{}`", request.event);
    Outcome::Frame(error_frame(request.event, &message, request.wire))
}

/// An error frame that no filter sees.
pub(crate) fn error_frame(event: &str, message: &str, wire: Wire<'_>) -> Frame {
    warn!(target: "tidegate::ws", event, error = message, "error frame");
    let exception = Exception::of(ExceptionKind::Handler, message.to_owned());
    let body = Body::envelope(event, &exception.data());
    body.map(|body| body.into_frame(wire)).unwrap_or_default()
}
