//! Bytes to values and back. Knows nothing: no clock, socket, file or async.

pub mod http;

pub mod handshake;

pub mod ws;

pub mod frame;

pub mod json;

pub mod relay;

mod error_code;

pub use error_code::ErrorCode;
