//! The interface that a user writes to: gateways, relay handlers, guards, services.
//! Knows the wire and the broker, but no shard and no socket.

pub mod container;
