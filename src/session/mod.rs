//! What a message means on its mount: one file per dialect, one closed enum. Knows `proto`,
//! `broker` and `gateway`; decides, and leaves sockets and queues to the shard.

pub(crate) mod durable;
pub(crate) mod event;
pub(crate) mod raw;
pub(crate) mod relay;

/// The state that one connection has in its dialect.
#[derive(Debug)]
pub(crate) enum Session {
    /// The upgrade has not happened yet.
    None,
    /// A handler owns the socket.
    Raw(raw::RawSession),
    /// Topics on disk.
    Durable(Box<durable::DurableSession>),
    /// Events for the handlers of a gateway.
    Event(std::rc::Rc<event::EventSession>),
    /// Topics by name.
    Relay(Box<relay::RelaySession>),
}
