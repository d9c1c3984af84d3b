//! Bytes to values and back. Knows nothing: no clock, socket, file or async.
//!
//! `http` and `handshake` open a connection, `ws` and `frame` carry its messages, `json` reads
//! them, and each dialect has a file with its frames.

pub mod http;

pub mod handshake;

pub mod ws;

pub mod frame;

pub mod json;

pub mod event;

pub mod relay;

pub mod durable;

mod typed;

mod error_code;

pub use error_code::ErrorCode;
