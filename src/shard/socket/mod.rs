//! One connection: its socket and decoder, what waits for it, its time, and the way out of it. Knows
//! bytes, bounds and deadlines; not what its messages mean.

pub(crate) mod connection;
pub(crate) mod deadlines;
pub(crate) mod flush;
pub(crate) mod looks;
pub(crate) mod machine;
pub(crate) mod outbox;
pub(crate) mod packing;
pub(crate) mod share;
pub(crate) mod steps;
pub(crate) mod timer;
pub(crate) mod transport;
pub(crate) mod who;
