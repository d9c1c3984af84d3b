//! What the load generator shares with the peers that it measures: the ring.

pub mod ring;
