//! The interface that a user writes to: gateways, relay handlers, guards, services.
//! Knows the wire and the broker, but no shard and no socket.

pub mod container;

pub mod socket;

pub mod raw_handler;

pub mod send;

pub mod relay;

pub mod relay_handler;

pub mod topics;

pub mod module;

pub mod table;

pub mod extract;

pub mod reply;

pub mod client;

pub mod server;

pub mod context;

pub mod guard;

pub mod interceptor;

pub mod builtin;

pub mod filter;

pub mod dispatch;

pub mod outlet;

#[cfg(test)]
mod tests;

pub mod spawn;
