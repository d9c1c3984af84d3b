//! One core: rings, sockets, time, files, handlers. The only folder that knows io_uring.
//!
//! A shard is one thread with one runtime (`runtime.rs`); its loop is the future of `block_on`. The
//! loop drives the data ring and the handlers of raw mounts, and yields at least every 100
//! microseconds, so that what waits, timers and HTTP, which are ordinary tasks of the same
//! runtime, run between two of its steps.
//!
//! Invariant: no borrow of [`state::State`] is held while user code runs, for it may call back.
//!
//! A room knows those above it in this list, and none below; `tests/tidy.rs` holds that.

pub(crate) mod kernel;

pub(crate) mod post;

pub(crate) mod socket;

mod commit;

pub(crate) mod state;

pub(crate) mod link;

pub(crate) mod speak;

pub(crate) mod door;

pub(crate) mod tell;

mod turn;

pub use kernel::ring::{RingError, probe};

pub(crate) use commit::Recovered;
pub(crate) use kernel::clock::{now, us_since};
pub(crate) use turn::Setup;
pub(crate) use turn::runtime::run;
