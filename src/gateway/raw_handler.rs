//! Handlers of raw mounts: async functions that own a socket. Knows sockets and who is at their
//! other end; not who runs them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::auth::{Caller, CurrentUser};

use super::socket::WebSocket;
use crate::gateway::engine::container::{Container, Dependency, Inject, Resolver, StartError};

/// All that a raw handler's further arguments are made from.
#[derive(Debug)]
pub struct RawCall {
    pub(crate) caller: Arc<Caller>,
    pub(crate) container: Container,
}

/// An argument of a raw handler, behind the socket.
pub trait FromRawCall: Sized {
    /// The services that it needs, checked before the server listens.
    fn dependencies() -> Vec<Dependency> {
        Vec::new()
    }

    /// Takes it from the call.
    ///
    /// # Errors
    /// When a service is missing that was not listed.
    fn from_call(call: &RawCall) -> Result<Self, StartError>;
}

impl FromRawCall for CurrentUser {
    fn from_call(call: &RawCall) -> Result<Self, StartError> {
        Ok(Self::from(&*call.caller))
    }
}

impl<T: Inject> FromRawCall for T {
    fn dependencies() -> Vec<Dependency> {
        T::dependencies()
    }

    fn from_call(call: &RawCall) -> Result<Self, StartError> {
        Resolver::over(&call.container, "a raw handler").inject()
    }
}

/// A running raw handler. It stays on its core, so it need not be `Send`.
pub type RawFuture = Pin<Box<dyn Future<Output = ()>>>;

/// An async function that can be mounted: the socket first, then up to four further arguments.
pub trait RawHandler<Args>: Send + Sync + 'static {
    /// The services that its arguments need.
    fn dependencies(&self) -> Vec<Dependency>;

    /// Starts it.
    fn call(&self, socket: WebSocket, call: &RawCall) -> RawFuture;
}

macro_rules! raw_handler {
    ($($arg:ident $name:ident),*) => {
        impl<F, Fut, $($arg,)*> RawHandler<($($arg,)*)> for F
        where
            F: Fn(WebSocket, $($arg),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = ()> + 'static,
            $($arg: FromRawCall + 'static,)*
        {
            fn dependencies(&self) -> Vec<Dependency> {
                let all: [Vec<Dependency>; _] = [$($arg::dependencies()),*];
                all.into_iter().flatten().collect()
            }

            fn call(&self, socket: WebSocket, call: &RawCall) -> RawFuture {
                // Without further arguments nothing is taken from the call.
                let _ = call;
                $(
                    let $name = match $arg::from_call(call) {
                        Ok(argument) => argument,
                        Err(error) => {
                            tracing::error!(target: "tidegate::raw", %error, "argument");
                            return Box::pin(socket.close_with(1011, "internal"));
                        }
                    };
                )*
                Box::pin(self(socket, $($name),*))
            }
        }
    };
}

raw_handler!();
raw_handler!(A1 a1);
raw_handler!(A1 a1, A2 a2);
raw_handler!(A1 a1, A2 a2, A3 a3);
raw_handler!(A1 a1, A2 a2, A3 a3, A4 a4);

/// A handler whose argument types are forgotten.
pub(crate) trait AnyRawHandler: Send + Sync {
    fn call(&self, socket: WebSocket, call: &RawCall) -> RawFuture;
}

struct Erased<H, Args>(H, std::marker::PhantomData<fn(Args)>);

impl<Args: 'static, H: RawHandler<Args>> AnyRawHandler for Erased<H, Args> {
    fn call(&self, socket: WebSocket, call: &RawCall) -> RawFuture {
        self.0.call(socket, call)
    }
}

/// Forgets the argument types of a handler.
pub(crate) fn erase<Args: 'static>(handler: impl RawHandler<Args>) -> Box<dyn AnyRawHandler> {
    Box::new(Erased(handler, std::marker::PhantomData))
}
