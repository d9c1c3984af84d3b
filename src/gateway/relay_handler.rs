//! Handlers of relay topics: async functions whose arguments are what they need (R-11..R-17).
//! Knows calls and services; not who runs them.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::auth::Caller;
use crate::broker::relay::{HandlerEvent, TopicKey};
use crate::id::ConnId;

use super::call::{Call, CallKind, FromCall, fits};
use super::exception::{INTERNAL, Told};
use super::relay::Relay;
use crate::gateway::engine::container::{Container, Dependency};

/// What happened to a topic.
#[derive(Debug, Clone)]
pub enum RelayEvent {
    /// A connection wants to subscribe. It runs before that is confirmed: an error refuses it.
    Join {
        /// The topic.
        topic: String,
        /// The connection.
        conn_id: ConnId,
    },
    /// A subscriber sent a message. Nothing is relayed unless the handler pushes it.
    Message {
        /// The topic.
        topic: String,
        /// Its event.
        event: String,
        /// Its payload, as it was sent, byte for byte.
        payload: Box<RawValue>,
        /// The connection.
        conn_id: ConnId,
    },
    /// A subscriber left, by unsubscribing or by any end of its connection. The handler may ask
    /// why with an argument of type `Option<LeaveReason>`.
    Leave {
        /// The topic.
        topic: String,
        /// The connection.
        conn_id: ConnId,
    },
}

impl RelayEvent {
    /// The topic.
    pub fn topic(&self) -> &str {
        match self {
            Self::Join { topic, .. } | Self::Message { topic, .. } | Self::Leave { topic, .. } => {
                topic
            }
        }
    }

    /// The connection.
    pub fn conn_id(&self) -> ConnId {
        match self {
            Self::Join { conn_id, .. }
            | Self::Message { conn_id, .. }
            | Self::Leave { conn_id, .. } => *conn_id,
        }
    }

    fn new(topic: &TopicKey, conn_id: ConnId, event: &HandlerEvent) -> Self {
        let topic = topic.name.to_string();
        match event {
            HandlerEvent::Join => Self::Join { topic, conn_id },
            HandlerEvent::Leave(_) => Self::Leave { topic, conn_id },
            HandlerEvent::Message { event, payload } => {
                let event = event.to_string();
                // The parser has validated the payload when it came in.
                let payload = serde_json::from_slice(payload).unwrap_or_else(|_| null());
                Self::Message {
                    topic,
                    event,
                    payload,
                    conn_id,
                }
            }
        }
    }
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// The call of a handler, as its topic's home orders it.
pub(crate) fn call_of(
    topic: &TopicKey,
    conn_id: ConnId,
    event: &HandlerEvent,
    services: (Arc<Caller>, Relay, Container),
) -> Call {
    let reason = match event {
        HandlerEvent::Leave(reason) => Some(*reason),
        HandlerEvent::Join | HandlerEvent::Message { .. } => None,
    };
    Call::of_relay(RelayEvent::new(topic, conn_id, event), reason, services)
}

/// A running handler. It stays on its core, so it need not be `Send`.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// An async function that can be registered for a pattern of topics. `Args` are the types of its
/// arguments, in any order, up to eight.
pub trait RelayHandler<Args>: Send + Sync + 'static {
    /// The services that its arguments need.
    fn dependencies(&self) -> Vec<Dependency>;

    /// Starts it. The text of its error goes to the client, if the program wrote it.
    fn call(&self, call: &Call) -> HandlerFuture;
}

macro_rules! relay_handler {
    ($($arg:ident $name:ident),*) => {
        impl<F, Fut, E, $($arg,)*> RelayHandler<($($arg,)*)> for F
        where
            F: Fn($($arg),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<(), E>> + 'static,
            E: Display + 'static,
            $($arg: FromCall + 'static,)*
        {
            fn dependencies(&self) -> Vec<Dependency> {
                const {
                    $(assert!(
                        fits($arg::ONLY_FOR, CallKind::Relay),
                        "a relay handler has no such argument: it belongs to another kind of handler"
                    );)*
                }
                let all: [Vec<Dependency>; _] = [$($arg::dependencies()),*];
                all.into_iter().flatten().collect()
            }

            fn call(&self, call: &Call) -> HandlerFuture {
                $(
                    let $name = match $arg::from_call(call) {
                        Ok(argument) => argument,
                        Err(exception) => {
                            exception.log_hidden(call.event());
                            let text = exception.message().to_owned();
                            return Box::pin(std::future::ready(Err(text)));
                        }
                    };
                )*
                let future = self($($name),*);
                Box::pin(async move { future.await.map_err(|error| told(&error)) })
            }
        }
    };
}

/// What a subscriber is told of a handler's error.
fn told<E: Display + 'static>(error: &E) -> String {
    match Told::of(error) {
        Told::Client(text) => text,
        Told::Log(error) => {
            tracing::error!(target: "tidegate::relay", error, "a handler failed");
            INTERNAL.to_owned()
        }
    }
}

relay_handler!(A1 a1);
relay_handler!(A1 a1, A2 a2);
relay_handler!(A1 a1, A2 a2, A3 a3);
relay_handler!(A1 a1, A2 a2, A3 a3, A4 a4);
relay_handler!(A1 a1, A2 a2, A3 a3, A4 a4, A5 a5);
relay_handler!(A1 a1, A2 a2, A3 a3, A4 a4, A5 a5, A6 a6);
relay_handler!(A1 a1, A2 a2, A3 a3, A4 a4, A5 a5, A6 a6, A7 a7);
relay_handler!(A1 a1, A2 a2, A3 a3, A4 a4, A5 a5, A6 a6, A7 a7, A8 a8);

/// A handler whose argument types are forgotten.
pub(crate) trait AnyRelayHandler: Send + Sync {
    fn call(&self, call: &Call) -> HandlerFuture;
}

struct Erased<H, Args>(H, std::marker::PhantomData<fn(Args)>);

impl<Args: 'static, H: RelayHandler<Args>> AnyRelayHandler for Erased<H, Args> {
    fn call(&self, call: &Call) -> HandlerFuture {
        self.0.call(call)
    }
}

/// Forgets the argument types of a handler.
pub(crate) fn erase<Args: 'static>(handler: impl RelayHandler<Args>) -> Box<dyn AnyRelayHandler> {
    Box::new(Erased(handler, std::marker::PhantomData))
}
