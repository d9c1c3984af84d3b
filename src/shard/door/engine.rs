//! How a session of Engine.IO begins: by an upgrade, by a first poll, or as a socket that comes to a
//! session which is there already, on whatever shard that is. Knows requests and mounts; not what
//! packets mean.

use std::rc::Rc;
use std::sync::Arc;

use crate::auth::{Caller, token_of};
use crate::broker::relay::LeaveReason;
use crate::gateway::client::Handshake;
use crate::gateway::engine::inbox::{Inbox, SocketLink};
use crate::gateway::socket::WebSocket;
use crate::proto::engineio::{self, Open, Query, Refusal, Sid, Transport};
use crate::proto::frame;
use crate::proto::http::Head;
use crate::session::engineio::Engine;
use crate::session::raw::RawSession;
use crate::session::socketio::SocketIo;

use crate::gateway::engine::inbox::InboxBounds;
use crate::proto::CloseCode;
use crate::shard::kernel::clock::unix_s;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::state::State;
use crate::shard::state::admitted::Opened;
use crate::shard::state::admitted::in_default_tenant;
use crate::shard::state::engines::{New, Upper, carrying};
use crate::shard::state::shard::Shard;
use crate::shard::state::shard::socket_id;
use crate::shard::state::shared::Dialect;

/// Who begins a session, and where.
#[derive(Debug)]
pub(crate) struct Begin {
    pub(crate) mount: u16,
    pub(crate) caller: Arc<Caller>,
    pub(crate) has_token: bool,
    pub(crate) expires_ms: u64,
    pub(crate) handshake: Arc<Handshake>,
}

impl Shard {
    /// Whether packets of Engine.IO travel on a mount.
    pub(crate) fn is_engine(&self, mount: u16) -> bool {
        self.shared.mounts[usize::from(mount)].engine
    }

    /// Checks what an upgrade asks of Engine.IO.
    pub(crate) fn check_engine(&self, head: &Head) -> Result<(), Refusal> {
        let query = self.query_of(head.query().unwrap_or(""))?;
        if query.transport != Transport::WebSocket {
            return Err(Refusal::Request);
        }
        let Some(sid) = query.sid else { return Ok(()) };
        let shards = self.shared.shards();
        let sid = Sid::parse(&sid).filter(|sid| sid.shard() < shards);
        let sid = sid.ok_or(Refusal::Sid)?;
        let known = self
            .with_state(|state| sid.shard() != state.index || state.engines.find(&sid).is_some());
        match known {
            true => Ok(()),
            false => Err(Refusal::Sid),
        }
    }

    /// The other shard that an upgrade belongs to, because its session is there.
    pub(crate) fn engine_home(&self, mount: u16, head: &Head) -> Option<u16> {
        if !self.is_engine(mount) {
            return None;
        }
        let query = Query::parse(head.query()?).ok()?;
        let sid = Sid::parse(&query.sid?)?;
        let is_other = sid.shard() != self.index() && sid.shard() < self.shared.shards();
        is_other.then_some(sid.shard())
    }

    /// A socket is open: it begins a session, or wants to take one over.
    pub(crate) fn start_engine(
        self: &Rc<Self>,
        socket: SlotKey,
        mount: u16,
        (caller, handshake): (Arc<Caller>, Arc<Handshake>),
    ) {
        let query = Query::parse(handshake.head.query().unwrap_or(""));
        let Ok(query) = query else { return };
        if let Some(sid) = query.sid {
            return self.with_state(|state| state.attach_engine(socket, Sid::parse(&sid)));
        }
        let (begin, engine) = self.with_state(|state| {
            let limits = state.engine_limits(mount);
            let expires_ms = state.token_end_ms(&caller);
            let has_token = state
                .engine_identity(mount, &handshake.head)
                .is_ok_and(|(_, has_token)| has_token);
            let begin = Begin {
                mount,
                caller,
                has_token,
                expires_ms,
                handshake,
            };
            (begin, Engine::of_socket(socket, state.now_ms, &limits))
        });
        let key = self.begin_engine(begin, engine);
        let mut secret = [0; 12];
        // It names nothing: a session that a socket carries cannot be asked for.
        let _ = getrandom::fill(&mut secret);
        self.with_state(|state| {
            let limits = state.engine_limits(mount);
            if let Some(connection) = state.connections.alive(socket) {
                connection.session = carrying(key);
            }
            let name = Sid::new(u16::MAX, u32::MAX, secret).text();
            state.queue_with(socket, |out| {
                let open = Open {
                    sid: &name,
                    may_upgrade: false,
                    ping_interval_ms: limits.ping_interval_ms,
                    pong_timeout_ms: limits.pong_timeout_ms,
                    payload_bytes_max: limits.payload_bytes_max,
                };
                frame::put_text_with(out, |out| engineio::put_open(out, &open));
            });
        });
    }

    /// Enters a session, with whoever takes its messages.
    pub(crate) fn begin_engine(self: &Rc<Self>, begin: Begin, engine: Engine<SlotKey>) -> SlotKey {
        let Begin {
            mount,
            caller,
            has_token,
            expires_ms,
            handshake,
        } = begin;
        let link = Rc::clone(self) as Rc<dyn SocketLink>;
        let mut state = self.state.borrow_mut();
        let is_socketio = matches!(
            self.shared.mounts[usize::from(mount)].dialect,
            Dialect::SocketIo(_)
        );
        let connect_by_ms = match is_socketio {
            true => state.now_ms + state.live.socketio.connect_ms_max,
            false => 0,
        };
        let new = New {
            upper: match is_socketio {
                true => Upper::SocketIo(SocketIo::default()),
                false => Upper::None,
            },
            mount,
            connect_by_ms,
            expires_ms,
            caller: Arc::clone(&caller),
            has_token,
            handshake: Arc::clone(&handshake),
        };
        let key = state.engines.insert(new, engine);
        if !is_socketio {
            let bounds = InboxBounds::of(state.live.limits_of(mount));
            let inbox = Inbox::new(link, socket_id(key), bounds);
            if let Some(carried) = state.engines.alive(key) {
                carried.upper = Upper::Raw(RawSession {
                    inbox: Rc::clone(&inbox),
                });
            }
            state.opened.push(Opened {
                mount,
                socket: WebSocket::new(inbox),
                caller,
                handshake,
            });
        }
        // The first look is asked for by a step that does nothing.
        state.with_engine(key, |_, _, _, _| ());
        key
    }
}

impl State {
    /// A socket comes to a session that is there.
    fn attach_engine(&mut self, socket: SlotKey, sid: Option<Sid>) {
        let Some(key) = sid.and_then(|sid| self.engines.find(&sid)) else {
            return self.close(socket, CloseCode::Normal, "", LeaveReason::Closed);
        };
        if let Some(connection) = self.connections.alive(socket) {
            connection.session = carrying(key);
        }
        self.with_engine(key, |engine, limits, now_ms, effects| {
            engine.handle_socket(socket, now_ms, limits, effects);
        });
    }

    /// When the token of a caller ends, the leeway of clocks counted in; 0 without a token.
    pub(crate) fn token_end_ms(&self, caller: &Caller) -> u64 {
        let leeway_s = self.live.authenticator.leeway_s();
        let left_s = |until_s: u64| (until_s + leeway_s).saturating_sub(unix_s());
        let until_s = caller.expires_at;
        until_s.map_or(0, |until_s| self.now_ms + left_s(until_s) * 1_000)
    }

    /// Whether a session that polls may go over to a socket.
    pub(crate) fn offers_upgrade(&self) -> bool {
        let socketio = &self.live.socketio;
        let websocket = crate::config::Transport::WebSocket;
        socketio.allow_upgrades && socketio.transports.contains(&websocket)
    }

    /// As whom a request comes, and whether it showed a token. Without one a session may begin where
    /// its namespaces ask for one later.
    pub(crate) fn engine_identity(
        &mut self,
        mount: u16,
        head: &Head,
    ) -> Result<(Arc<Caller>, bool), Refusal> {
        let shared = Arc::clone(&self.shared);
        let rules = &shared.mounts[usize::from(mount)];
        let query = head.query_param("token");
        let token = token_of(head.header("authorization"), query.as_deref(), &[]);
        let Some((token, _)) = token else {
            let may_wait = rules.public || matches!(rules.dialect, Dialect::SocketIo(_));
            return match may_wait {
                true => Ok((Caller::anonymous(), false)),
                false => Err(Refusal::Forbidden),
            };
        };
        if self.live.limits_of(mount).token_bytes_max < token.len() {
            return Err(Refusal::Forbidden);
        }
        let verified = self
            .tokens
            .verify(&self.live.authenticator, token, unix_s());
        let caller = verified.map_err(|_| Refusal::Forbidden)?;
        Ok(match rules.shared {
            true => (in_default_tenant(&caller), true),
            false => (caller, true),
        })
    }
}
