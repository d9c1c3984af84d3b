//! What runs gateways: services, tables of handlers, the way of an event, the registries of a shard.
//! Users name none of it but by the modules beside this one; knows no socket and no ring.

pub mod container;

pub mod workshop;

pub mod table;

pub mod program;

mod caught;

pub(crate) mod chosen;

pub mod dispatch;

pub mod answers;

mod line;

pub mod sids;
pub(in crate::gateway) mod spans;

pub mod pool;

pub mod wire;

pub mod push;

pub mod outlet;

pub mod registries;

pub mod inbox;
