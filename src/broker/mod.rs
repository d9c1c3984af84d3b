//! Who gets which frame: single-threaded state that never waits; `now` is an argument.
//!
//! Knows `proto` and `log`, not sockets, tasks or handlers. A caller hands something in with
//! `handle_*` and then drains every effect before the next.

pub mod pattern;
pub mod presence;
pub mod registry;
pub mod relay;

mod names;
mod shelf;

mod topic;

mod subscription;

pub mod durable;

/// One connection of one life of its slot, as other shards name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnKey {
    /// The shard that owns its socket.
    pub shard: u16,
    /// 0 for the connection itself, else which of its namespaces of Socket.IO.
    pub lane: u8,
    /// Its place there.
    pub slot: u32,
    /// Which life of that place.
    pub generation: u32,
}

// Lanes cost nothing: they stand where a gap was.
const _: () = assert!(size_of::<ConnKey>() == 12);
