//! The line in the log that an event leaves behind at debug: which, on which connection, how
//! it ended and how long it took. Knows outcomes; no handler.

use tracing::debug;

use crate::gateway::client::WsClient;
use crate::gateway::engine::dispatch::Outcome;
use crate::gateway::engine::registries::Registries;

/// What the log says of an event.
pub(super) struct Line {
    started_us: u64,
    event: &'static str,
    client: WsClient,
}

impl Line {
    pub(super) fn begin(event: &'static str, client: &WsClient) -> Self {
        Self {
            started_us: now_us(),
            event,
            client: client.clone(),
        }
    }

    pub(super) fn write(&self, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Nothing => "silent",
            Outcome::Frame(_) => "frame",
            Outcome::Close { .. } => "close",
        };
        let (conn_id, event) = (self.client.id(), self.event);
        let us = now_us().saturating_sub(self.started_us);
        let trace_id = trace_id(self.client.header("traceparent"));
        debug!(target: "tidegate::ws", conn_id, event, outcome, us, trace_id, "message");
    }
}

/// The trace of a W3C `traceparent`: `00-<trace id>-<parent id>-<flags>`.
fn trace_id(traceparent: Option<&str>) -> Option<&str> {
    traceparent?.split('-').nth(1)
}

/// The shard's clock, for the log alone.
fn now_us() -> u64 {
    Registries::here().map_or(0, |here| here.now_us())
}
