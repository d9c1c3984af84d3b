//! What shards say to each other, and what other threads say to a shard.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::broker::relay::Effect;
use crate::gateway::engine::outlet::Post;
use crate::gateway::relay::HomeJob;

use crate::shard::socket::tickets::Ticket;
use crate::shard::socket::transport::Transport;
use crate::shard::state::State;
use crate::shard::state::admitted::Admitted;
use crate::shard::state::engines::EngineAsk;
use crate::shard::state::homes::{Posted, Told};
use crate::shard::state::shared::Live;

/// Something that a shard is to do with its own state; for what is rare.
pub(crate) type StateJob = Box<dyn FnOnce(&mut State) + Send>;

/// A socket that was accepted, with its ticket if its address is counted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) fd: OwnedFd,
    pub(crate) ticket: Option<Ticket<IpAddr>>,
    /// It came from the listener for TLS.
    pub(crate) is_tls: bool,
    /// Another shard has read of it, and found that it belongs here.
    pub(crate) moved: Option<Box<Moved>>,
}

/// What a shard knows of a socket that belongs to another one.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) transport: Transport,
    /// What came first.
    pub(crate) read: Vec<u8>,
    /// Its upgrade, if that was answered already.
    pub(crate) admitted: Option<Box<Admitted>>,
}

/// One entry of a mailbox.
pub(crate) enum Command {
    /// A connection that another shard accepted.
    Adopt(Accepted),
    /// Something to do at the home of relay topics.
    Home(HomeJob),
    /// What a home decided for members on this shard.
    Relay(Effect),
    /// What a request asks of a session of Engine.IO here.
    Engine(EngineAsk),
    /// Something to do in the registries of gateways.
    Registry(Post),
    /// What is asked of the homes of durable topics here.
    Asks(Vec<Posted>),
    /// What homes of durable topics say to connections here.
    Told(Vec<Told>),
    /// Anything else.
    Run(StateJob),
    /// Keys and limits were loaded anew.
    Reload(Arc<Live>),
    /// All shards are set up: connections may come.
    Accept,
    /// The server stops.
    Drain,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adopt(_) => "Adopt",
            Self::Home(_) => "Home",
            Self::Relay(_) => "Relay",
            Self::Registry(_) => "Registry",
            Self::Engine(_) => "Engine",
            Self::Asks(_) => "Asks",
            Self::Told(_) => "Told",
            Self::Run(_) => "Run",
            Self::Reload(_) => "Reload",
            Self::Accept => "Accept",
            Self::Drain => "Drain",
        })
    }
}
