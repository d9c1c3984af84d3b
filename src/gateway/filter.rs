//! Exception filters: what an error becomes on its way to the client. The filters of the method
//! are asked first, then those of the gateway, then those of the server.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::gateway::context::WsArgumentsHost;
use crate::gateway::engine::container::Injectable;
use crate::gateway::guard::Layer;
use crate::gateway::reply::{Body, Exception, WsReply};
use crate::proto::CloseCode;

/// Decides what becomes of an error.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an exception filter",
    label = "implement `ExceptionFilter` for `{Self}`"
)]
pub trait ExceptionFilter: Injectable {
    /// [`Caught::Pass`] leaves it to the next filter, and in the end to the error frame.
    fn catch(&self, exception: &Exception, host: &WsArgumentsHost<'_>) -> Caught;
}

/// What a filter has decided.
#[derive(Debug)]
pub enum Caught {
    /// Nothing: the next one may.
    Pass,
    /// Other data in the error frame.
    Replace(Box<RawValue>),
    /// No frame.
    Swallow,
    /// The end of the connection.
    Close {
        /// The close code.
        code: CloseCode,
        /// The reason.
        reason: String,
    },
}

impl Caught {
    /// The end of the connection.
    pub fn close(code: CloseCode, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Close { code, reason }
    }

    /// Other data in the error frame; what has no JSON passes on.
    pub fn replace(data: impl Serialize) -> Self {
        to_raw_value(&data).map_or(Self::Pass, Self::Replace)
    }
}

/// Filters of any type.
pub(crate) trait AnyFilter: Send + Sync {
    fn run(&self, exception: &Exception, host: &WsArgumentsHost<'_>) -> Caught;
}

impl<F: ExceptionFilter> AnyFilter for F {
    fn run(&self, exception: &Exception, host: &WsArgumentsHost<'_>) -> Caught {
        self.catch(exception, host)
    }
}

/// Asks the filters in turn; without an answer the error is a frame under its event.
pub(crate) fn filtered(
    exception: &Exception,
    filters: &[Layer<dyn AnyFilter>],
    host: &WsArgumentsHost<'_>,
) -> WsReply {
    let mut decided = filters
        .iter()
        .map(|filter| filter.layer.run(exception, host));
    let event = host.event();
    exception.log_hidden(event);
    let body = match decided.find(|caught| !matches!(caught, Caught::Pass)) {
        Some(Caught::Swallow) => return WsReply::Silent,
        Some(Caught::Close { code, reason }) => return WsReply::Close { code, reason },
        Some(Caught::Replace(data)) => Body::envelope(event, &data),
        Some(Caught::Pass) | None => Body::envelope(event, &exception.data()),
    };
    tracing::warn!(target: "tidegate::ws", event, error = exception.message(), "error frame");
    body.map_or(WsReply::Silent, WsReply::Frame)
}
