//! What the gateway's handles reach a shard through. On the shard's own thread a call acts at
//! once; on another it becomes a command in the outside queue.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::broker::relay::LeaveReason;
use crate::gateway::engine::inbox::{Inboxes, SocketId, SocketLink};
use crate::gateway::relay::{HomeJob, Relay, RelayLink};
use crate::gateway::send::SendError;
use crate::gateway::socket::{Message, SocketError};
use crate::gateway::topics::{Ask, TopicError, TopicsLink};
use crate::id::{ConnId, Tenant};
use crate::metrics::Counter;
use crate::proto::frame::{self, Opcode};
use crate::session::engineio::Reason as Ended;

use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::machine::Pause;
use crate::shard::state::command::Command;
use crate::shard::state::engines::is_engine;
use crate::shard::state::homes::posted_of;
use crate::shard::state::shard::Shard;
use crate::shard::state::shard::key_of;
use crate::shard::state::shared::{RelayWorld, Shared};
use crate::shard::state::{State, mark_dirty};

/// The relay of a server, for its own handlers and requests.
pub(crate) fn relay_of(shared: &Arc<Shared>) -> Relay {
    let link = shared.relay.is_some().then(|| {
        let link: Arc<dyn RelayLink> = Arc::new(HomeLink(Arc::clone(shared)));
        link
    });
    Relay::new(link)
}

/// The way to the homes of durable topics. Services hold it, and the server holds services, so
/// it does not hold the server.
pub(crate) struct StoreLink(pub(crate) Weak<Shared>);

impl TopicsLink for StoreLink {
    fn partitions(&self) -> u16 {
        let shared = self.0.upgrade();
        let world = shared.as_ref().and_then(|shared| shared.durable.as_ref());
        world.map_or(1, |world| world.rules.partitions)
    }

    fn next_stream(&self) -> u64 {
        let shared = self.0.upgrade();
        let world = shared.as_ref().and_then(|shared| shared.durable.as_ref());
        world.map_or(0, |world| world.streams.fetch_add(1, Ordering::Relaxed))
    }

    fn ask(&self, ask: Ask) -> Result<(), TopicError> {
        let shared = self.0.upgrade().ok_or(TopicError::Stopping)?;
        if let Some(shard) = Shard::current(&shared) {
            shard.with_state(|state| state.ask_for_code(ask));
            return Ok(());
        }
        let shard = ask.partition.shard(shared.shards());
        let asks = Command::Asks(vec![posted_of(ask)]);
        let posted = shared.ports[usize::from(shard)].post(asks);
        posted.map_err(|_| TopicError::Overloaded)
    }
}

struct HomeLink(Arc<Shared>);

impl HomeLink {
    fn to(&self, shard: u16, job: HomeJob) -> Result<(), SendError> {
        let port = &self.0.ports[usize::from(shard)];
        port.post(Command::Home(job))
            .map_err(|_| SendError::Overloaded)
    }
}

impl RelayLink for HomeLink {
    fn at_home(&self, tenant: &Tenant, topic: &str, job: HomeJob) -> Result<(), SendError> {
        match Shard::current(&self.0) {
            Some(shard) => shard
                .with_state(|state| state.at_home(tenant, topic, job))
                .map_err(|_| SendError::Overloaded),
            None => self.to(self.0.home_of(tenant, topic), job),
        }
    }

    fn at_every_home(&self, job: &dyn Fn() -> HomeJob) -> Result<(), SendError> {
        let here = Shard::current(&self.0);
        let give = |shard| match &here {
            Some(here) if here.index() == shard => {
                here.with_state(|state| state.run_home(job()));
                Ok(())
            }
            Some(here) => here
                .with_state(|state| state.posts.try_post(shard, Command::Home(job())))
                .map_err(|_| SendError::Overloaded),
            None => self.to(shard, job()),
        };
        // Homes behind a full mailbox get it all the same.
        let mut posted = Ok(());
        for shard in 0..self.0.shards() {
            let one = give(shard);
            posted = posted.and(one);
        }
        posted
    }

    fn next_conn_id(&self) -> ConnId {
        let relay = self.0.relay.as_ref();
        relay.map_or(0, RelayWorld::next_conn_id)
    }

    fn is_shared(&self) -> bool {
        self.0.relay.as_ref().is_some_and(|relay| relay.shared)
    }
}

impl SocketLink for Shard {
    fn try_send(&self, id: SocketId, message: &Message) -> Result<bool, SocketError> {
        let opcode = match message {
            Message::Text(_) => Opcode::Text,
            Message::Binary(_) => Opcode::Binary,
            Message::Ping(_) => Opcode::Ping,
            Message::Pong(_) => Opcode::Pong,
            Message::Close(_) => Opcode::Close,
        };
        let payload = message.as_bytes();
        let key = key_of(id);
        self.with_state(|state| match is_engine(key) {
            true => state.try_send_engine(key, message),
            false => state.try_send_raw(key, opcode, payload),
        })
    }

    fn close(&self, id: SocketId, code: u16, reason: &str) {
        let key = key_of(id);
        self.with_state(|state| match is_engine(key) {
            true => state.close_engine(key, code, Ended::Forced),
            false => state.close(key, code, reason, LeaveReason::Closed),
        });
    }

    fn drained(&self, id: SocketId) {
        let key = key_of(id);
        if !is_engine(key) {
            self.with_state(|state| state.finish_ending(key));
        }
    }

    fn resume(&self, id: SocketId) {
        self.with_state(|state| {
            let key = state.socket_of(key_of(id));
            state.resume(key, Pause::Inbox);
        });
    }

    fn peer(&self, id: SocketId) -> Option<SocketAddr> {
        let key = key_of(id);
        self.with_state(|state| match is_engine(key) {
            true => Some(state.engines.alive(key)?.handshake.peer),
            false => state.peer_of(key),
        })
    }

    fn inboxes(&self) -> &Inboxes {
        &self.inboxes
    }
}

impl State {
    /// The same over Engine.IO.
    fn try_send_engine(&mut self, key: SlotKey, message: &Message) -> Result<bool, SocketError> {
        let carried = self.engines.alive(key).ok_or(SocketError::Closed)?;
        if !carried.engine.is_open() {
            return Err(SocketError::Closed);
        }
        let socket = carried.engine.socket();
        let mut whole = Vec::new();
        match message {
            Message::Text(text) => frame::put_text_with(&mut whole, |out| {
                out.push(b'4');
                out.extend_from_slice(text.as_bytes());
            }),
            Message::Binary(bytes) => frame::put(&mut whole, Opcode::Binary, bytes),
            // Engine.IO has pings of its own.
            _ => return Ok(true),
        }
        let is_full = match socket {
            Some(socket) => {
                let limits_of = |state: &mut Self| {
                    let connection = state.connections.alive(socket)?;
                    let limits = state.live.outbox_limits(connection.mount, usize::MAX);
                    let outbox = &connection.outbox;
                    Some(outbox.is_full_for(whole.len(), &limits) && !outbox.is_empty())
                };
                limits_of(self).unwrap_or(true)
            }
            None => self.is_engine_full(key, whole.len()),
        };
        if !is_full {
            self.queue_engine(key, &whole, 1);
        }
        Ok(!is_full)
    }

    /// Queues a frame of a raw handler, unless a send is in flight and the outbox is full: then
    /// the handler waits. One frame always fits.
    fn try_send_raw(
        &mut self,
        key: SlotKey,
        opcode: Opcode,
        payload: &[u8],
    ) -> Result<bool, SocketError> {
        let connection = self.connections.alive(key).ok_or(SocketError::Closed)?;
        if !connection.takes_frames() {
            return Err(SocketError::Closed);
        }
        let limits = self.live.outbox_limits(connection.mount, usize::MAX);
        let is_full = connection.outbox.is_full_for(payload.len(), &limits);
        if is_full && connection.machine.is_sending() && connection.outbox.backlog().0 != 0 {
            return Ok(false);
        }
        connection
            .outbox
            .push_with(&mut self.spare, |out| frame::put(out, opcode, payload));
        self.metrics.add(Counter::MessagesSent, 1);
        mark_dirty(&mut self.dirty, connection, key);
        if is_full {
            self.offer(key);
        }
        Ok(true)
    }
}
