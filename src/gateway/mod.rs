//! The interface that a user writes to: gateways, relay handlers, guards, services.
//! Knows the wire and the broker, but no shard and no socket.

pub mod socket;

pub mod raw_handler;

pub mod send;

pub mod relay;

pub mod relay_handler;

pub mod topics;

pub mod module;

pub mod call;

pub mod extract;

pub mod rules;

mod exception;

pub mod reason;

pub mod arguments;

pub mod ask;

pub mod reply;

pub mod client;

pub mod server;

pub mod context;

pub mod guard;

pub mod interceptor;

pub mod builtin;

pub mod filter;

pub mod spawn;

pub mod schema;

pub mod typescript;

/// What runs all of it; users name only what the modules beside it show.
#[doc(hidden)]
pub mod engine;

/// Services by type: what a struct injects, and how one is built by hand.
pub mod container {
    pub use super::engine::container::{
        Container, Dependency, Inject, Injectable, Resolver, StartError, State,
    };
    pub use super::engine::workshop::{Factory, Making};
}

/// What a gateway binds: `#[messages]` and `#[gateway]` write these calls, and a program may.
pub mod table {
    pub use super::engine::table::{
        Binding, GuardKind, Invocation, Layers, Messages, NoGuard, Table, initialised,
    };
}

#[cfg(test)]
mod tests;
