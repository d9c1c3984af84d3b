//! What a message means on its mount: one file per dialect, one closed enum. Knows `proto`,
//! `broker` and `gateway`; decides, and leaves sockets and queues to the shard.

pub(crate) mod raw;
pub(crate) mod relay;

/// The state that one connection has in its dialect.
#[derive(Debug)]
pub(crate) enum Session {
    /// The upgrade has not happened yet.
    None,
    /// A handler owns the socket.
    Raw(raw::RawSession),
    /// Topics by name.
    Relay(Box<relay::RelaySession>),
}
