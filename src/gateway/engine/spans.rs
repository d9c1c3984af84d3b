//! Spans of connections and messages, for subscribers that ask for `tidegate::span=trace`: what is
//! logged and measured inside of a handler belongs to one. Knows clients; no subscriber.
//!
//! They are not there at any level that operators read, so that log lines stay as they are.

use futures_util::FutureExt as _;
use tracing::{Instrument as _, Level, Span, enabled, trace_span};

use crate::auth::Caller;
use crate::gateway::client::{Handshake, WsClient};
use crate::gateway::engine::dispatch::{Handling, Pending};
use crate::id::ConnId;

/// Whether somebody asks for spans.
pub(super) fn are_wanted() -> bool {
    enabled!(target: "tidegate::span", Level::TRACE)
}

/// The span of a connection; its hooks run inside, and its messages below. `traceparent` is what the
/// client's handshake said, for whoever joins the client's trace.
pub(in crate::gateway) fn of_connection(
    registry: &str,
    conn_id: ConnId,
    caller: &Caller,
    handshake: &Handshake,
) -> Span {
    trace_span!(
        target: "tidegate::span",
        "connection",
        registry,
        conn_id,
        tenant = caller.tenant.as_str(),
        sub = caller.subject.as_deref(),
        peer = %handshake.peer,
        traceparent = handshake.head.header("traceparent"),
    )
}

/// Runs a message in a span of its own, also where it waits.
pub(super) fn in_span(
    client: &WsClient,
    event: &'static str,
    run: impl FnOnce() -> Handling,
) -> Handling {
    let span = trace_span!(target: "tidegate::span", parent: client.span(), "message", event);
    match span.in_scope(run) {
        Handling::Pending(pending) => {
            let is_concurrent = pending.is_concurrent();
            let future = pending.instrument(span).boxed_local();
            Handling::Pending(Pending::new(future, is_concurrent))
        }
        done => done,
    }
}
