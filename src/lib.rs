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
//! use std::sync::Arc;
//!
//! use parking_lot::Mutex;
//! use serde::{Deserialize, Serialize};
//! use tidegate::prelude::*;
//!
//! #[derive(Clone, Deserialize, Serialize)]
//! struct ChatMessage {
//!     author: String,
//!     text: String,
//! }
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("author `{0}` is not allowed to post")]
//! struct NotAllowed(String);
//!
//! /// A service: built once, shared by all shards.
//! #[injectable]
//! #[derive(Default)]
//! struct ChatRoom {
//!     history: Mutex<Vec<ChatMessage>>,
//! }
//!
//! #[gateway(path = "/chat")]
//! struct ChatGateway {
//!     #[inject]
//!     room: Arc<ChatRoom>,
//! }
//!
//! #[messages]
//! impl ChatGateway {
//!     /// Answers under its own event, with what was said or with an error.
//!     #[subscribe_message("message")]
//!     async fn message(&self, message: ChatMessage) -> Result<ChatMessage, NotAllowed> {
//!         if message.author == "banned" {
//!             return Err(NotAllowed(message.author));
//!         }
//!         self.room.history.lock().push(message.clone());
//!         Ok(message)
//!     }
//!
//!     #[subscribe_message("history")]
//!     async fn history(&self) -> Vec<ChatMessage> {
//!         self.room.history.lock().clone()
//!     }
//!
//!     /// Answers nothing, and tells all who are connected.
//!     #[subscribe_message("typing")]
//!     async fn typing(&self, message: ChatMessage, client: &WsClient) {
//!         let _ = client.broadcast("typing", &message);
//!     }
//! }
//!
//! #[module(providers = [ChatRoom], gateways = [ChatGateway])]
//! struct ChatModule;
//!
//! // In `main` it is `Server::from_args()?.module::<ChatModule>().run()?`.
//! let server = tidegate::testing::TestServer::start(|server| server.module::<ChatModule>());
//! let mut ada = server.connect("/chat", "ada");
//! ada.ask(
//!     r#"{"event":"message","data":{"author":"ada","text":"hi"}}"#,
//!     r#"{"event":"message","data":{"author":"ada","text":"hi"}}"#,
//! );
//! ada.ask(
//!     r#"{"event":"message","data":{"author":"banned","text":"hi"}}"#,
//!     r#"{"event":"message","data":{"error":"author `banned` is not allowed to post"}}"#,
//! );
//! ada.ask(
//!     r#"{"event":"history"}"#,
//!     r#"{"event":"history","data":[{"author":"ada","text":"hi"}]}"#,
//! );
//! ```
//!
//! Until it is published, depend on a copy of its sources:
//!
//! ```toml
//! [dependencies]
//! tidegate = { path = "../tidegate" }
//! ```
//!
//! The guide:
//!
//! 1. [gateways](guide::gateways) and [messages](guide::messages),
//! 2. [registries, rooms and push](guide::registries),
//! 3. [guards, interceptors and filters](guide::layers), [services](guide::services),
//!    [databases and calls that block](guide::databases),
//! 4. [relay topics](guide::relay) and [durable topics](guide::durable), with their
//!    [backup](guide::backup),
//! 5. [streaming](guide::streaming): tokens, a live dashboard, agent to agent, the progress of a job,
//! 6. [testing](guide::testing),
//! 7. [a browser app end to end](guide::browser), [other languages](guide::other_languages),
//!    [deployment](guide::deployment), [upgrade](guide::upgrade);
//!
//! and for those who know something like it, [coming from](guide::coming_from) nest-rs, NestJS,
//! PyNest, Rapina or Socket.IO; [by hand](guide::by_hand) shows what the macros write.

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

#[doc(hidden)]
pub mod proto;

#[doc(hidden)]
pub mod log;

#[doc(hidden)]
pub mod broker;

pub mod gateway;

#[cfg(not(target_os = "linux"))]
compile_error!(
    "Tidegate runs on Linux alone, for it is made of io_uring; on macOS and Windows run its image in a \
     container or a virtual machine: README.md, `Not on Linux?`, has the line. The client \
     (`tidegate-client`) is for Linux too; `src/web/client` and `src/client-python` run anywhere"
);

mod session;

mod shard;
mod tls;

mod http;

pub mod server;

#[cfg(feature = "client")]
#[doc(inline)]
pub use tidegate_client as client;

pub mod cli;

pub use auth::{AuthConfig, CurrentUser};
pub use broker::durable::{NewMessage, Open, Retention};
pub use broker::presence::PresenceEntry;
pub use broker::relay::LeaveReason;
pub use gateway::container::State;
pub use gateway::relay::Relay;
pub use gateway::relay_handler::RelayEvent;
pub use gateway::schema::Schema;
pub use gateway::send::SendError;
pub use gateway::socket::{CloseFrame, Message, SocketError, WebSocket, WsReceiver, WsSender};
pub use gateway::spawn::spawn;
pub use gateway::topics::{Delivery, History, Published, Subscription, TopicError, Topics};
pub use proto::{CloseCode, InvalidCloseCode, OwnCode};
/// Shapes of types for documents: `#[derive(JsonSchema)]` with `#[schemars(crate = "tidegate::schemars")]`.
pub use schemars::{self, JsonSchema};
pub use server::{RelayConfig, Server};

pub mod prelude;

pub mod testing;

pub mod guide;

/// The programs of the README are compiled as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;

/// Anything that a handler or a `main` can fail with. A client reads the text that the program
/// wrote (`Error::msg`, `anyhow!`, `.context(..)`); an error that came by `?` from elsewhere is
/// `internal` to it, and its text stands in the log.
pub use anyhow::Error;

/// What handlers and `main` return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
