//! Bytes to values and back. Knows nothing: no clock, socket, file or async.
//!
//! `http` and `handshake` open a connection, `ws` and `frame` carry its messages, `json` reads
//! them, and each dialect has a file with its frames; Socket.IO has two, for it stands on Engine.IO.

pub mod http;

pub mod handshake;

pub mod ws;

pub mod frame;

pub mod json;

pub mod event;

pub mod relay;

pub mod durable;

pub mod engineio;

pub mod socketio;

mod typed;

mod error_code;

mod close_code;

pub mod reference;

pub use close_code::{CloseCode, InvalidCloseCode, OwnCode};
pub use error_code::ErrorCode;

#[cfg(test)]
mod hostile;

/// Tests with made-up input are the same in every run unless a seed is given.
#[cfg(test)]
pub(crate) fn proptest_config() -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    let mut config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(6455);
    }
    config
}
