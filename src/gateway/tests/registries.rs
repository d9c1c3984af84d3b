//! Registries, rooms and tenants, on one shard and on two.

use std::sync::Arc;

use serde_json::json;
use tidegate_macros::{gateway, injectable, messages, module};

use super::{Peer, Rig, block_on};
use crate::auth::{CALLER, Caller};
use crate::gateway::client::WsClient;
use crate::gateway::engine::outlet::{Outside, Post, Registries};
use crate::gateway::engine::program::Program;
use crate::gateway::module::{App, Module};
use crate::gateway::send::SendError;
use crate::gateway::server::WsServer;
use crate::id::Tenant;
use crate::proto::CloseCode;

struct NotifyNs;

#[gateway(path = "/chat")]
struct Chat {
    #[inject]
    notifier: Arc<Notifier>,
}

#[messages]
impl Chat {
    #[on_connect]
    async fn welcome(&self, client: &WsClient) {
        client
            .emit("welcome", &json!({"conn_id": client.id()}))
            .unwrap();
    }

    #[on_disconnect]
    async fn gone(&self, client: &WsClient) {
        client.broadcast("bye", &client.id()).unwrap();
        for room in client.rooms() {
            client.to(&room, "gone", &room).unwrap();
        }
    }

    #[subscribe_message("join")]
    async fn join(&self, room: String, client: &WsClient) -> Result<(), SendError> {
        client.join(&room)
    }

    #[subscribe_message("leave")]
    async fn leave(&self, room: String, client: &WsClient) -> Result<(), SendError> {
        client.leave(&room)
    }

    #[subscribe_message("room")]
    async fn room(&self, room: String, client: &WsClient) -> Result<usize, SendError> {
        client.to(&room, "said", &"hey")
    }

    #[subscribe_message("say")]
    async fn say(&self, client: &WsClient) -> Result<usize, SendError> {
        client.broadcast("said", &1)
    }

    #[subscribe_message("presence")]
    async fn presence(&self) -> Result<usize, SendError> {
        self.notifier.chat.connection_count()
    }

    #[subscribe_message("shout")]
    async fn shout(&self, text: String) -> Result<usize, SendError> {
        self.notifier.notify.broadcast("alert", &text)
    }

    #[subscribe_message("to")]
    async fn to(&self, name: String) -> Result<usize, SendError> {
        self.notifier.chat.to(name).emit("whisper", &1)
    }
}

#[gateway(path = "notify/", namespace = NotifyNs)]
#[derive(Default)]
struct Notify;

#[messages]
impl Notify {
    #[subscribe_message("ping")]
    async fn ping(&self, client: &WsClient) {
        let _ = client.broadcast("pong", &"hi");
    }
}

/// N-08: one service, both registries.
#[injectable]
struct Notifier {
    #[inject]
    chat: Arc<WsServer>,
    #[inject]
    notify: Arc<WsServer<NotifyNs>>,
}

#[module(providers = [Notifier], gateways = [Chat, Notify])]
struct Both;

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

fn program() -> Program {
    let mut app = App::new();
    Both::register(&mut app);
    app.build().unwrap()
}

fn took(rig: &Rig, peer: &Peer) -> Vec<String> {
    rig.wire.take(peer.key)
}

/// N-01, N-06, N-09, N-10: equal ids, different pools, nothing in common.
#[test]
fn a_private_registry_hears_nothing_of_the_global_one() {
    let rig = Rig::on((0, 1), program());
    let (chat, notify) = (
        rig.connect("/chat", "demo", &[]),
        rig.connect("/notify", "demo", &[]),
    );
    assert_eq!((chat.client.id(), notify.client.id()), (1, 1));
    assert_eq!(
        took(&rig, &chat),
        [r#"{"event":"welcome","data":{"conn_id":1}}"#]
    );
    assert_eq!(
        notify.ask("ping", "null"),
        [r#"{"event":"pong","data":"hi"}"#]
    );
    assert!(took(&rig, &chat).is_empty());
    assert_eq!(
        chat.ask("shout", r#""fire""#),
        [r#"{"event":"shout","data":1}"#]
    );
    assert_eq!(took(&rig, &notify), [r#"{"event":"alert","data":"fire"}"#]);
    assert_eq!(
        chat.ask("presence", "null"),
        [r#"{"event":"presence","data":1}"#]
    );
    assert_eq!(notify.client.registry().name(), "NotifyNs");
}

/// X-02, X-03: rooms can be read while the hook runs.
#[test]
fn a_connection_that_ends_is_missed_in_its_rooms() {
    let rig = Rig::on((0, 1), program());
    let (ada, bob) = (
        rig.connect("/chat", "demo", &[]),
        rig.connect("/chat", "demo", &[]),
    );
    ada.ask("join", r#""lobby""#);
    bob.ask("join", r#""lobby""#);
    took(&rig, &bob);
    assert_eq!(bob.ask("room", r#""lobby""#).len(), 2);
    took(&rig, &ada);
    rig.disconnect(&ada);
    let heard = [
        r#"{"event":"bye","data":1}"#,
        r#"{"event":"gone","data":"lobby"}"#,
    ];
    assert_eq!(took(&rig, &bob), heard);
    assert!(took(&rig, &ada).is_empty());
    assert_eq!(
        bob.ask("presence", "null"),
        [r#"{"event":"presence","data":1}"#]
    );
    assert!(!ada.client.emit("x", &1).unwrap());
    bob.ask("leave", r#""lobby""#);
    assert_eq!(
        bob.ask("room", r#""lobby""#),
        [r#"{"event":"room","data":0}"#]
    );
}

/// D-06: another tenant's world is never reached, whatever the way.
#[test]
fn tenants_are_worlds_of_their_own() {
    let rig = Rig::on((0, 1), program());
    let (ada, eve) = (
        rig.connect("/chat", "a", &[]),
        rig.connect("/chat", "b", &[]),
    );
    ada.ask("join", r#""lobby""#);
    eve.ask("join", r#""lobby""#);
    took(&rig, &eve);
    assert_eq!(ada.ask("say", "null").len(), 2);
    ada.ask("room", r#""lobby""#);
    assert_eq!(ada.ask("to", r#""2""#), [r#"{"event":"to","data":0}"#]);
    assert_eq!(
        ada.ask("presence", "null"),
        [r#"{"event":"presence","data":1}"#]
    );
    assert!(took(&rig, &eve).is_empty());
}

/// D-06: without a caller it works while it is clear, and never falls open.
#[test]
fn a_call_without_a_caller_needs_a_tenant() {
    let rig = Rig::on((0, 1), program());
    let server = rig.program.container().get::<WsServer>().unwrap();
    assert_eq!(server.broadcast("x", &1).unwrap(), 0);
    let ada = rig.connect("/chat", "a", &[]);
    assert_eq!(server.broadcast("x", &1).unwrap(), 1);
    let eve = rig.connect("/chat", "b", &[]);
    let refused = server.broadcast("x", &1).unwrap_err();
    assert!(matches!(refused, SendError::NoTenant));
    assert!(refused.to_string().contains(".tenant("));
    assert!(matches!(
        server.connection_count(),
        Err(SendError::NoTenant)
    ));
    assert_eq!(server.tenant(tenant("a")).connection_count(), 1);
    assert_eq!(server.all_tenants().connection_count(), 2);
    assert_eq!(server.all_tenants().broadcast("x", &1).unwrap(), 2);
    let everyone = server.tenant(tenant("b")).everyone();
    assert_eq!(everyone.except(eve.client.id()).emit("x", &1).unwrap(), 0);
    let caller = Arc::new(Caller {
        tenant: tenant("b"),
        ..Caller::clone(&Caller::anonymous())
    });
    CALLER.sync_scope(caller, || {
        assert_eq!(server.connection_count().unwrap(), 1);
        assert!(!server.client(ada.client.id()).reach("x", &1).unwrap());
        assert!(server.client(eve.client.id()).reach("x", &1).unwrap());
    });
}

/// Carries posts between shards until all are carried.
fn settle(rigs: &[&Rig]) {
    let mut moved = true;
    while moved {
        moved = false;
        for rig in rigs {
            let posts = std::mem::take(&mut *rig.wire.posts.borrow_mut());
            for (shard, post) in posts {
                let to = rigs[usize::from(shard)];
                to.here.install();
                to.here.handle_post(post);
                moved = true;
            }
        }
    }
}

/// D-24, D-16: rooms, broadcasts, ids and counts over two shards.
#[test]
fn sends_reach_the_other_shard_by_one_post() {
    let program = program();
    let left = Rig::on((0, 2), program.clone());
    let right = Rig::on((1, 2), program);
    let (ada, bob) = (
        left.connect("/chat", "a", &[]),
        right.connect("/chat", "a", &[]),
    );
    assert_eq!(bob.client.id(), 2);
    bob.ask("join", r#""lobby""#);
    settle(&[&left, &right]);
    took(&right, &bob);
    took(&left, &ada);

    left.here.install();
    assert_eq!(
        ada.ask("presence", "null"),
        [r#"{"event":"presence","data":2}"#]
    );
    assert_eq!(
        ada.ask("room", r#""lobby""#),
        [r#"{"event":"room","data":0}"#]
    );
    assert_eq!(left.wire.posts.borrow().len(), 1);
    ada.ask("say", "null");
    ada.ask("to", r#""2""#);
    assert!(bob.client.emit("direct", &1).unwrap());
    settle(&[&left, &right]);
    assert_eq!(
        took(&right, &bob),
        [
            r#"{"event":"said","data":"hey"}"#,
            r#"{"event":"said","data":1}"#,
            r#"{"event":"whisper","data":1}"#,
            r#"{"event":"direct","data":1}"#,
        ]
    );

    left.here.install();
    bob.client.leave("lobby").unwrap();
    settle(&[&left, &right]);
    left.here.install();
    ada.ask("room", r#""lobby""#);
    assert!(left.wire.posts.borrow().is_empty());
}

/// D-23: what all shards took can be waited for.
#[test]
fn a_total_counts_all_shards() {
    let program = program();
    let left = Rig::on((0, 2), program.clone());
    let right = Rig::on((1, 2), program);
    let (_ada, bob) = (
        left.connect("/chat", "a", &[]),
        right.connect("/chat", "a", &[]),
    );
    settle(&[&left, &right]);
    left.here.install();
    let server = left.program.container().get::<WsServer>().unwrap();
    let scope = server.tenant(tenant("a"));
    let total = block_on(async {
        let total = scope.broadcast_total("x", &1);
        let carry = async {
            settle(&[&left, &right]);
            left.here.install();
        };
        tokio::join!(total, carry).0
    });
    assert_eq!(total.unwrap(), 2);
    assert_eq!(took(&right, &bob).len(), 2);
}

/// D-24: a full mailbox refuses sends, but what shards must know of each other is not refused.
#[test]
fn a_full_mailbox_loses_no_notice() {
    let program = program();
    let left = Rig::on((0, 2), program.clone());
    let right = Rig::on((1, 2), program);
    let ada = left.connect("/chat", "a", &[]);
    let _bob = right.connect("/chat", "a", &[]);
    settle(&[&left, &right]);
    right.wire.full.set(true);
    right.here.install();
    let eve = right.connect("/chat", "a", &[]);
    eve.client.join("lobby").unwrap();
    assert!(matches!(
        eve.client.broadcast("x", &1),
        Err(SendError::Overloaded)
    ));
    settle(&[&left, &right]);
    left.here.install();
    ada.ask("room", r#""lobby""#);
    assert_eq!(left.wire.posts.borrow().len(), 1);
}

/// Hands what comes from outside to none yet, but keeps it.
#[derive(Default)]
struct Kept(parking_lot::Mutex<Vec<Post>>);

impl Outside for Kept {
    fn post(&self, shard: u16, post: Post) -> Result<(), SendError> {
        assert_eq!(shard, 0);
        self.0.lock().push(post);
        Ok(())
    }
}

/// Sends work from threads beside the shards, names resolved where rooms are known.
#[test]
fn a_thread_that_is_no_shard_can_send() {
    let rig = Rig::on((0, 1), program());
    let ada = rig.connect("/chat", "a", &[]);
    took(&rig, &ada);
    let server = rig.program.container().get::<WsServer>().unwrap();
    Registries::uninstall();
    assert!(matches!(
        server.broadcast("x", &1),
        Err(SendError::Stopping)
    ));
    let kept = Arc::new(Kept::default());
    rig.program.pools()[0].open(kept.clone());
    let thread = {
        let (server, client) = (server, ada.client.clone());
        std::thread::spawn(move || {
            server.to(1).emit("x", &1).unwrap();
            client.join("lobby").unwrap();
            server
                .tenant(tenant("a"))
                .emit_to("lobby", "y", &2)
                .unwrap();
            client.emit("z", &3).unwrap();
            client.disconnect(CloseCode::own(4000), "enough").unwrap();
        })
    };
    thread.join().unwrap();
    rig.here.install();
    for post in std::mem::take(&mut *kept.0.lock()) {
        rig.here.handle_post(post);
    }
    assert_eq!(
        took(&rig, &ada),
        [
            r#"{"event":"x","data":1}"#,
            r#"{"event":"y","data":2}"#,
            r#"{"event":"z","data":3}"#,
        ]
    );
    assert_eq!(*rig.wire.closes.borrow(), [(1, 4000, "enough".to_owned())]);
}

/// P-14: a stream waits for room and is given its turn; who is away from the shard is told too.
#[test]
fn a_stream_waits_for_room() {
    let rig = Rig::on((0, 1), program());
    let ada = rig.connect("/chat", "a", &[]);
    took(&rig, &ada);
    rig.wire.full.set(true);
    let streamed = block_on(async {
        let stream = ada.client.stream("x", &1);
        let make_room = async {
            assert!(took(&rig, &ada).is_empty());
            rig.wire.full.set(false);
            let waiting = std::mem::take(&mut *rig.wire.waiting.borrow_mut());
            waiting.iter().for_each(std::task::Waker::wake_by_ref);
        };
        tokio::join!(stream, make_room).0
    });
    assert!(streamed.unwrap());
    assert_eq!(took(&rig, &ada), [r#"{"event":"x","data":1}"#]);
    rig.disconnect(&ada);
    assert!(!block_on(ada.client.stream("x", &1)).unwrap());
}
