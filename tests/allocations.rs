//! What an event costs whose handler completes without waiting: no task, and one allocation, the
//! box of its future; what its own types allocate comes on top. Counted on a shard without
//! sockets, in a process of its own for its allocator.

#![expect(
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test crate, and counting is what an allocator of one's own is for"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use serde::{Deserialize, Serialize};
use tidegate::auth::Caller;
use tidegate::broker::ConnKey;
use tidegate::gateway::client::Handshake;
use tidegate::gateway::engine::dispatch::{Dispatch, Handling, Outcome, Request};
use tidegate::gateway::engine::outlet::{Fate, Outlet, Post, Tally};
use tidegate::gateway::engine::push::Push;
use tidegate::gateway::engine::registries::Registries;
use tidegate::gateway::engine::wire::Wire;
use tidegate::gateway::extract::EventData;
use tidegate::prelude::*;
use tidegate::proto::http::{HeadLimits, parse_head};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `alloc` above, which is the system's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Serialize, Deserialize)]
struct Said {
    author: String,
    text: String,
}

#[gateway(path = "/cost")]
struct CostGateway;

#[messages]
impl CostGateway {
    #[subscribe_message("silent")]
    async fn silent(&self) {}

    #[subscribe_message("number")]
    async fn number(&self, number: u64) -> u64 {
        number + 1
    }

    #[subscribe_message("say")]
    async fn say(&self, said: Said, _client: &WsClient) -> Result<Said, SendError> {
        Ok(said)
    }
}

/// A shard without sockets.
struct Nowhere;

impl Outlet for Nowhere {
    fn send(&self, _: ConnKey, _: &Push) -> Fate {
        Fate::Accepted
    }

    fn poll_send(&self, _: ConnKey, _: &Push, _: &Waker) -> Poll<Fate> {
        Poll::Ready(Fate::Accepted)
    }

    fn send_all(&self, connections: &[ConnKey], _: &Push) -> Tally {
        let accepted = connections.len();
        Tally { accepted, shed: 0 }
    }

    fn close(&self, _: ConnKey, _: u16, _: &str) {}

    fn post(&self, _: u16, _: Post) -> Result<(), SendError> {
        Ok(())
    }

    fn post_surely(&self, _: u16, _: Post) {}

    fn note_panic(&self) {}

    fn now_us(&self) -> u64 {
        0
    }
}

fn connected() -> (Rc<dyn Dispatch>, WsClient) {
    let mut app = App::new();
    app.gateway::<CostGateway>();
    let program = app.build().unwrap();
    let here = Registries::new((0, 1), Rc::new(Nowhere), &program.pools(), 1);
    here.install();
    let plan = &program.gateways()[0];
    let head = parse_head(b"GET /cost HTTP/1.1\r\n\r\n", &HeadLimits::default());
    let handshake = Handshake {
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        head: head.unwrap().unwrap(),
        subprotocol: None,
    };
    let key = ConnKey {
        shard: 0,
        lane: 0,
        slot: 0,
        generation: 0,
    };
    let registry = plan.registry().clone();
    let caller = Caller::anonymous();
    let client = WsClient::connect(&here, key, registry, caller, Arc::new(handshake));
    (program.open(plan).unwrap(), client)
}

/// Allocations of one event, once its thread has run a few.
fn cost(event: &str, data: &str, answered: bool) -> usize {
    let (gateway, client) = connected();
    let run = || {
        let data = EventData::of(data.as_bytes());
        let wire = Wire::PLAIN;
        match gateway.message(&client, Request { event, data, wire }) {
            Handling::Done(Outcome::Frame(frame)) => assert!(answered && !frame.is_empty()),
            Handling::Done(outcome) => assert!(!answered && outcome == Outcome::Nothing),
            Handling::Pending(_) => panic!("no handler here waits"),
        }
    };
    (0..10).for_each(|_| run());
    let before = ALLOCATIONS.get();
    (0..100).for_each(|_| run());
    let all = ALLOCATIONS.get() - before;
    assert_eq!(all % 100, 0, "{all} allocations of 100 equal events");
    all / 100
}

#[test]
fn a_handler_that_is_ready_costs_the_box_of_its_future() {
    assert_eq!(cost("silent", "null", false), 1);
    assert_eq!(cost("number", "41", true), 1);
}

#[test]
fn what_a_payload_owns_comes_on_top() {
    let said = r#"{"author":"ada","text":"hello to everybody"}"#;
    assert_eq!(cost("say", said, true), 3);
}
