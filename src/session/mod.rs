//! What a message means on its mount: one file per dialect, one closed enum. Knows `proto`,
//! `broker` and `gateway`; decides, and leaves sockets and queues to the shard.

pub(crate) mod durable;
pub(crate) mod engineio;
pub(crate) mod event;
pub(crate) mod raw;
pub(crate) mod relay;
pub(crate) mod socketio;

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
    /// A session of Engine.IO, which this socket carries or wants to: the place and the life of it.
    Engine(u32, u32),
    /// Topics by name.
    Relay(Box<relay::RelaySession>),
}
