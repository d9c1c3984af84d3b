//! One connection: its socket and decoder, what waits for it, its time, and what it is measured by. Knows
//! bytes, bounds and deadlines; not what its messages mean.

pub(crate) mod connection;
pub(crate) mod deadlines;
pub(crate) mod half_open;
pub(crate) mod machine;
pub(crate) mod outbox;
pub(crate) mod packing;
pub(crate) mod rates;
pub(crate) mod share;
pub(crate) mod steps;
pub(crate) mod tickets;
pub(crate) mod timer;
pub(crate) mod transport;
