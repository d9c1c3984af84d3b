//! What bodies of HTTP carry beside their bytes: a request the time by which it must be here
//! (`limits.body_ms_max`), an answer the place of its request. Knows no routes.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use crate::shard::socket::tickets::Ticket;

/// Whether a body was not here in time. A route that reads it sees an error, and what it makes of
/// that is not the answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lateness(Arc<AtomicBool>);

impl Lateness {
    pub(crate) fn is_late(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The body of a request, from whose head on time passes.
    pub(crate) fn watch(&self, body: Incoming, ms_max: u64) -> Body {
        if body.is_end_stream() {
            return Body::empty();
        }
        Body::new(Timed {
            body,
            end: Box::pin(sleep(Duration::from_millis(ms_max))),
            lateness: self.clone(),
        })
    }
}

struct Timed {
    body: Incoming,
    end: Pin<Box<Sleep>>,
    lateness: Lateness,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        std::task::ready!(self.end.as_mut().poll(cx));
        self.lateness.0.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err(axum::Error::new("the body is late"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer that keeps the place of its request until it is sent.
struct Held {
    body: Body,
    _ticket: Ticket<IpAddr>,
}

/// Lets an answer keep the place of its request.
pub(crate) fn hold(body: Body, ticket: Option<Ticket<IpAddr>>) -> Body {
    match ticket {
        Some(_ticket) => Body::new(Held { body, _ticket }),
        None => body,
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
