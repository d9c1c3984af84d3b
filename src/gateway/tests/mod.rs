//! The framework by itself: gateways on shards that are only structs, no socket, no server.

mod dispatch;

mod layers;

mod log;

mod registries;

mod start;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;

use crate::auth::Caller;
use crate::broker::ConnKey;
use crate::gateway::client::{Handshake, WsClient};
use crate::gateway::engine::dispatch::{Dispatch, Handling, Outcome, Request};
use crate::gateway::engine::outlet::{Fate, Outlet, Post, Tally};
use crate::gateway::engine::program::Program;
use crate::gateway::engine::push::Push;
use crate::gateway::engine::registries::Registries;
use crate::gateway::extract::EventData;
use crate::gateway::module::App;
use crate::gateway::send::SendError;
use crate::id::Tenant;
use crate::proto::http::{HeadLimits, parse_head};

/// What sockets and mailboxes of a shard would have got.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) frames: RefCell<BTreeMap<u32, Vec<Bytes>>>,
    pub(super) closes: RefCell<Vec<(u32, u16, String)>>,
    pub(super) posts: RefCell<Vec<(u16, Post)>>,
    pub(super) full: Cell<bool>,
    /// The shard whose mailbox alone is full.
    pub(super) full_for: Cell<Option<u16>>,
    pub(super) waiting: RefCell<Vec<Waker>>,
    pub(super) panics: Cell<usize>,
    pub(super) shut: RefCell<Vec<ConnKey>>,
}

impl Outlet for Wire {
    fn send(&self, connection: ConnKey, push: &Push) -> Fate {
        if self.shut.borrow().contains(&connection) {
            return Fate::Gone;
        }
        self.note(connection, push.plain().clone());
        Fate::Accepted
    }

    fn poll_send(&self, connection: ConnKey, push: &Push, waker: &Waker) -> Poll<Fate> {
        match self.full.get() {
            true => {
                self.waiting.borrow_mut().push(waker.clone());
                Poll::Pending
            }
            false => Poll::Ready(self.send(connection, push)),
        }
    }

    fn send_all(&self, connections: &[ConnKey], push: &Push) -> Tally {
        let fates = connections
            .iter()
            .map(|connection| self.send(*connection, push));
        let accepted = fates.filter(|fate| *fate == Fate::Accepted).count();
        Tally { accepted, shed: 0 }
    }

    fn close(&self, connection: ConnKey, code: u16, reason: &str) {
        self.closes
            .borrow_mut()
            .push((connection.slot, code, reason.to_owned()));
    }

    fn post(&self, shard: u16, post: Post) -> Result<(), SendError> {
        match self.full.get() || self.full_for.get() == Some(shard) {
            true => Err(SendError::Overloaded),
            false => {
                self.posts.borrow_mut().push((shard, post));
                Ok(())
            }
        }
    }

    fn post_surely(&self, shard: u16, post: Post) {
        self.posts.borrow_mut().push((shard, post));
    }

    fn note_panic(&self) {
        self.panics.set(self.panics.get() + 1);
    }

    fn now_us(&self) -> u64 {
        0
    }
}

impl Wire {
    /// Keeps a frame that went to a connection.
    pub(super) fn note(&self, connection: ConnKey, frame: Bytes) {
        let mut frames = self.frames.borrow_mut();
        frames.entry(connection.slot).or_default().push(frame);
    }

    /// The texts that a connection has got since it was asked last.
    pub(super) fn take(&self, connection: ConnKey) -> Vec<String> {
        let frames = self.frames.borrow_mut().remove(&connection.slot);
        frames.unwrap_or_default().iter().map(text).collect()
    }
}

/// A shard without sockets, and the gateways on it.
pub(super) struct Rig {
    pub(super) wire: Rc<Wire>,
    pub(super) here: Rc<Registries>,
    pub(super) program: Program,
    next_slot: Cell<u32>,
}

impl Rig {
    pub(super) fn new(app: App) -> Self {
        Self::on((0, 1), app.build().unwrap())
    }

    pub(super) fn on(place: (u16, u16), program: Program) -> Self {
        let wire = Rc::new(Wire::default());
        let here = Registries::new(place, wire.clone(), &program.pools(), 8);
        here.install();
        Self {
            wire,
            here,
            program,
            next_slot: Cell::new(1),
        }
    }

    /// A connection to the gateway at `path`, its hooks run.
    pub(super) fn connect(&self, path: &str, tenant: &str, roles: &[&str]) -> Peer {
        self.here.install();
        let plan = self
            .program
            .gateways()
            .iter()
            .find(|plan| plan.path == path)
            .unwrap();
        let gateway = self.program.open(plan).unwrap();
        let slot = self.next_slot.replace(self.next_slot.get() + 1);
        let key = ConnKey {
            shard: self.here.shard(),
            lane: 0,
            slot,
            generation: 1,
        };
        let client = WsClient::connect(
            &self.here,
            key,
            plan.registry().clone(),
            caller(tenant, roles),
            handshake(path),
        );
        let peer = Peer {
            gateway,
            client,
            key,
            wire: self.wire.clone(),
        };
        peer.finish(peer.gateway.connected(&peer.client));
        peer
    }

    /// The connection ends.
    pub(super) fn disconnect(&self, peer: &Peer) {
        self.here.install();
        self.wire.shut.borrow_mut().push(peer.key);
        peer.finish(peer.gateway.disconnected(&peer.client));
        peer.client.disconnected(&self.here);
    }
}

/// A client of the rig.
pub(super) struct Peer {
    pub(super) gateway: Rc<dyn Dispatch>,
    pub(super) client: WsClient,
    pub(super) key: ConnKey,
    wire: Rc<Wire>,
}

impl Peer {
    /// Sends an event and answers with all that came back, pushes first as they were made.
    pub(super) fn ask(&self, event: &str, data: &str) -> Vec<String> {
        let request = Request {
            event,
            data: EventData::of(data.as_bytes()),
            wire: crate::gateway::engine::wire::Wire::PLAIN,
        };
        self.send(request);
        self.wire.take(self.key)
    }

    /// Sends an event, and waits for it where it must, as a task would.
    pub(super) fn send(&self, request: Request<'_>) {
        let outcome = block_on(async {
            match self.gateway.message(&self.client, request) {
                Handling::Done(outcome) => outcome,
                Handling::Pending(pending) => pending.await,
            }
        });
        self.finish(Handling::Done(outcome));
    }

    pub(super) fn finish(&self, handling: Handling) {
        let outcome = match handling {
            Handling::Done(outcome) => outcome,
            Handling::Pending(pending) => block_on(pending),
        };
        match outcome {
            Outcome::Nothing => {}
            Outcome::Frame(frame) => {
                self.wire.note(self.key, frame.into_bytes());
            }
            Outcome::Close { code, reason } => self.wire.close(self.key, code.get(), &reason),
        }
    }
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

pub(super) fn caller(tenant: &str, roles: &[&str]) -> Arc<Caller> {
    Arc::new(Caller {
        tenant: Tenant::parse(tenant).unwrap(),
        subject: Some("ada".to_owned()),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..Caller::clone(&Caller::anonymous())
    })
}

/// Who traces requests sends this along.
const TRACE: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(super) fn handshake(path: &str) -> Arc<Handshake> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-colour: blue\r\n{TRACE}\r\n\r\n");
    let head = parse_head(request.as_bytes(), &HeadLimits::default())
        .unwrap()
        .unwrap();
    let peer = SocketAddr::from(([127, 0, 0, 1], 9));
    Arc::new(Handshake {
        peer,
        head,
        subprotocol: None,
    })
}

/// The text of a frame.
pub(super) fn text(frame: &Bytes) -> String {
    let header = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    assert_eq!(frame[0], 0x81);
    String::from_utf8(frame[header..].to_vec()).unwrap()
}
