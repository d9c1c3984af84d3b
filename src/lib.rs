//! Tidegate: an io_uring WebSocket edge server for Linux, and the framework it is built with.

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
