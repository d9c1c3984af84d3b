//! Handlers of raw mounts: async functions that own a socket. Knows sockets and who is at their
//! other end; not who runs them.

use std::future::Future;
use std::pin::Pin;

use super::call::{Call, CallKind, FromCall, fits};
use super::engine::container::Dependency;
use super::exception::{Exception, INTERNAL};
use super::socket::WebSocket;
use crate::proto::CloseCode;

/// A running raw handler. It stays on its core, so it need not be `Send`.
pub type RawFuture = Pin<Box<dyn Future<Output = ()>>>;

/// An async function that can be mounted: the socket first, then up to four further arguments.
pub trait RawHandler<Args>: Send + Sync + 'static {
    /// The services that its arguments need.
    fn dependencies(&self) -> Vec<Dependency>;

    /// Starts it.
    fn call(&self, socket: WebSocket, call: &Call) -> RawFuture;
}

macro_rules! raw_handler {
    ($($arg:ident $name:ident),*) => {
        impl<F, Fut, $($arg,)*> RawHandler<($($arg,)*)> for F
        where
            F: Fn(WebSocket, $($arg),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = ()> + 'static,
            $($arg: FromCall + 'static,)*
        {
            fn dependencies(&self) -> Vec<Dependency> {
                const {
                    $(assert!(
                        fits($arg::ONLY_FOR, CallKind::Raw),
                        "a raw handler has no such argument: it belongs to another kind of handler"
                    );)*
                }
                let all: [Vec<Dependency>; _] = [$($arg::dependencies()),*];
                all.into_iter().flatten().collect()
            }

            fn call(&self, socket: WebSocket, call: &Call) -> RawFuture {
                // Without further arguments nothing is taken from the call.
                let _ = call;
                $(
                    let $name = match $arg::from_call(call) {
                        Ok(argument) => argument,
                        Err(exception) => return Box::pin(refused(socket, exception)),
                    };
                )*
                Box::pin(self(socket, $($name),*))
            }
        }
    };
}

/// A socket that lacks an argument of its handler ends: with 1011 where only the log may know why.
async fn refused(socket: WebSocket, exception: Exception) {
    exception.log_hidden("raw");
    let message = exception.message();
    let code = match message {
        INTERNAL => CloseCode::Internal,
        _ => CloseCode::Policy,
    };
    socket.close_with(code, message).await;
}

raw_handler!();
raw_handler!(A1 a1);
raw_handler!(A1 a1, A2 a2);
raw_handler!(A1 a1, A2 a2, A3 a3);
raw_handler!(A1 a1, A2 a2, A3 a3, A4 a4);

/// A handler whose argument types are forgotten.
pub(crate) trait AnyRawHandler: Send + Sync {
    fn call(&self, socket: WebSocket, call: &Call) -> RawFuture;

    /// The subprotocols that it speaks, the one that it likes best first.
    fn protocols(&self) -> &[String];
}

struct Erased<H, Args> {
    handler: H,
    protocols: Vec<String>,
    arguments: std::marker::PhantomData<fn(Args)>,
}

impl<Args: 'static, H: RawHandler<Args>> AnyRawHandler for Erased<H, Args> {
    fn call(&self, socket: WebSocket, call: &Call) -> RawFuture {
        self.handler.call(socket, call)
    }

    fn protocols(&self) -> &[String] {
        &self.protocols
    }
}

/// Forgets the argument types of a handler that speaks these subprotocols.
pub(crate) fn erase<Args: 'static>(
    handler: impl RawHandler<Args>,
    protocols: Vec<String>,
) -> Box<dyn AnyRawHandler> {
    Box::new(Erased {
        handler,
        protocols,
        arguments: std::marker::PhantomData,
    })
}
