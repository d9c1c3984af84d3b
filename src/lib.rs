//! Tidegate: an io_uring WebSocket edge server for Linux, and the framework it is built with.
//!
//! One process holds very many WebSocket connections, routes what they send to typed handlers,
//! fans messages out to rooms and topics, and keeps durable topics on disk with a cursor for each
//! subscriber. The path of a connection decides what is spoken on it:
//!
//! * **events**: `{"event","data"}` for the handlers of a gateway, see [`guide::gateways`];
//! * **relay**: topics by name, with patterns and presence, see [`Relay`] and [`RelayEvent`];
//! * **durable**: topics on disk, replayed and acknowledged;
//! * **raw**: a socket for a handler of your own, see [`WebSocket`].
//!
//! ```
//! use tidegate::prelude::*;
//!
//! #[gateway(path = "/chat")]
//! #[derive(Default)]
//! struct ChatGateway;
//!
//! #[messages]
//! impl ChatGateway {
//!     #[subscribe_message("message")]
//!     async fn message(&self, text: String, client: &WsClient) -> Result<(), SendError> {
//!         client.broadcast("message", &text)?;
//!         Ok(())
//!     }
//! }
//!
//! #[module(gateways = [ChatGateway])]
//! struct ChatModule;
//!
//! // In `main` it is `Server::from_args()?.module::<ChatModule>().run()?`.
//! let server = tidegate::testing::TestServer::start(|server| server.module::<ChatModule>());
//! let mut ada = server.connect("/chat", "ada");
//! ada.ask(r#"{"event":"message","data":"hi"}"#, r#"{"event":"message","data":"hi"}"#);
//! ```
//!
//! The guide: [gateways](guide::gateways), [messages](guide::messages),
//! [registries and rooms](guide::registries), [guards, interceptors and filters](guide::layers),
//! [streaming](guide::streaming), [services](guide::services), [by hand](guide::by_hand), and
//! [tests](testing).

// What the macros write names the crate from outside; inside of it that name is this one.
extern crate self as tidegate;

pub use tidegate_macros::{
    after_init, concurrent, gateway, injectable, messages, module, on_connect, on_disconnect,
    relay, subscribe_message, use_filters, use_guards, use_interceptors,
};

pub mod id;

pub mod auth;
pub mod config;
pub mod logging;
pub mod metrics;

pub mod proto;

pub mod log;

pub mod broker;

pub mod gateway;

mod session;

mod shard;

mod http;

pub mod server;

pub mod cli;

pub use auth::{AuthConfig, CurrentUser};
pub use broker::durable::{NewMessage, Open, Retention};
pub use broker::presence::PresenceEntry;
pub use broker::relay::LeaveReason;
pub use gateway::container::State;
pub use gateway::relay::Relay;
pub use gateway::relay_handler::RelayEvent;
pub use gateway::send::SendError;
pub use gateway::socket::{CloseFrame, Message, SocketError, WebSocket, WsReceiver, WsSender};
pub use gateway::spawn::spawn;
pub use gateway::topics::{Delivery, History, Published, Subscription, TopicError, Topics};
pub use server::{RelayConfig, Server};

pub mod prelude;

pub mod testing;

pub mod guide;

/// Anything that a handler or a `main` can fail with; the text that a client sees is its
/// `Display`.
pub use anyhow::Error;

/// What handlers and `main` return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
