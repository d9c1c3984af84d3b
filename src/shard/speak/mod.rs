//! What was read becomes calls, answers and pushes: a file for each dialect, and the ways to the homes
//! and members of topics. Knows sessions and brokers; touches no socket.

pub(crate) mod call;
pub(crate) mod dialect;
pub(crate) mod durable;
pub(crate) mod engine;
pub(crate) mod event;
pub(crate) mod handlers;
pub(crate) mod homes;
pub(crate) mod outlet;
pub(crate) mod raw;
pub(crate) mod refusals;
pub(crate) mod relay;
pub(crate) mod route;
pub(crate) mod socketio;
