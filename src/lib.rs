//! Tidegate: an io_uring WebSocket edge server for Linux, and the framework it is built with.

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
pub use broker::presence::PresenceEntry;
pub use broker::relay::LeaveReason;
pub use gateway::container::State;
pub use gateway::relay::Relay;
pub use gateway::relay_handler::RelayEvent;
pub use gateway::send::SendError;
pub use gateway::socket::{CloseFrame, Message, SocketError, WebSocket, WsReceiver, WsSender};
pub use gateway::spawn::spawn;
pub use server::{RelayConfig, Server};

pub mod prelude;

pub mod testing;

/// Anything that a handler or a `main` can fail with; the text that a client sees is its
/// `Display`.
pub use anyhow::Error;

/// What handlers and `main` return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
