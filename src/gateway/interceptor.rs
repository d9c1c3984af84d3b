//! Interceptors: code around handlers, for what each event needs alike. They see only events
//! that their guards let pass.

use std::fmt;
use std::future::Future;

use futures_util::future::LocalBoxFuture;

use crate::gateway::context::ExecutionContext;
use crate::gateway::engine::container::Injectable;
use crate::gateway::guard::Layer;
use crate::gateway::reply::WsReply;

/// Code around a handler: what stands before `next.run()` runs before it, the rest after it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an interceptor",
    label = "implement `Interceptor` for `{Self}`"
)]
pub trait Interceptor: Injectable {
    /// Runs the handler by `next.run().await`, or answers in its place.
    fn intercept(
        &self,
        context: &ExecutionContext<'_>,
        next: Next<'_>,
    ) -> impl Future<Output = WsReply>;
}

/// What an interceptor stands around: the interceptors inside of it, then the handler.
pub struct Next<'a> {
    pub(crate) context: &'a ExecutionContext<'a>,
    pub(crate) inner: &'a [Layer<dyn AnyInterceptor>],
    pub(crate) handler: LocalBoxFuture<'a, WsReply>,
}

impl Next<'_> {
    /// Runs it; what comes back is not on the wire yet.
    pub async fn run(self) -> WsReply {
        let Self {
            context,
            inner,
            handler,
        } = self;
        match inner.split_first() {
            Some((outermost, inner)) => {
                let next = Next {
                    context,
                    inner,
                    handler,
                };
                outermost.layer.run(context, next).await
            }
            None => handler.await,
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next")
            .field("inner", &self.inner.len())
            .finish_non_exhaustive()
    }
}

/// Interceptors of any type.
pub(crate) trait AnyInterceptor: Send + Sync {
    fn run<'a>(
        &'a self,
        context: &'a ExecutionContext<'a>,
        next: Next<'a>,
    ) -> LocalBoxFuture<'a, WsReply>;
}

impl<I: Interceptor> AnyInterceptor for I {
    fn run<'a>(
        &'a self,
        context: &'a ExecutionContext<'a>,
        next: Next<'a>,
    ) -> LocalBoxFuture<'a, WsReply> {
        Box::pin(self.intercept(context, next))
    }
}
