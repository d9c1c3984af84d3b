//! When a shard gives way to its tasks and timers, which costs a system call: not for a message that
//! comes alone, and all the same while it never sleeps. Knows what is counted; no system calls.

use std::time::{Duration, Instant};

use tidegate::metrics::Counter;
use tidegate::{Relay, RelayEvent, Result, WebSocket};

use crate::harness::{Client, Plan, Site, eventually};

/// Holds the shard for longer than its runtime may be kept waiting.
fn hold() {
    let began = Instant::now();
    while began.elapsed() < Duration::from_micros(300) {}
}

async fn echo_slowly(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        hold();
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn push_slowly(event: RelayEvent, relay: Relay) -> Result<()> {
    if let RelayEvent::Message { topic, payload, .. } = &event {
        hold();
        relay.push(topic, "slow", payload).await?;
    }
    Ok(())
}

/// A sleep follows the turn behind the message, and a sleep is a visit: another one before it would be
/// a system call for nothing.
#[test]
fn a_message_alone_makes_no_visit() {
    let site = Plan::new(1)
        .raw("/slow", echo_slowly)
        .relay("slow", push_slowly)
        .start();
    let mut raw = Client::connect_public(site.address, "/slow");
    let mut relay = site.join("demo", "ada");
    relay.subscribe("slow");
    let before = site.count(Counter::RuntimeVisits);
    for _ in 0..100 {
        until_asleep(&site, || raw.ask("ping", "ping"));
        until_asleep(&site, || {
            relay.say("slow", "e", "1");
            relay.expect_push("slow", "slow", "1");
        });
    }
    let visits = site.count(Counter::RuntimeVisits) - before;
    assert!(visits <= 5, "{visits} visits for 200 messages");
}

/// Does `ask`, which wakes the shard, and waits until it sleeps again.
fn until_asleep(site: &Site, ask: impl FnOnce()) {
    let before = site.count(Counter::Sleeps);
    ask();
    eventually("it sleeps again", || before < site.count(Counter::Sleeps));
}

/// A shard that polls busily has turns with nothing to do, and no sleep behind them.
#[test]
fn timers_run_on_a_shard_that_never_sleeps() {
    async fn echo_later(mut socket: WebSocket) {
        while let Some(Ok(message)) = socket.recv().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
            if socket.send(message).await.is_err() {
                return;
            }
        }
    }
    let site = Plan::new(1)
        .config(|config| config.shard.busy_poll_us = 1_000_000)
        .raw("/later", echo_later)
        .start();
    let mut client = Client::connect_public(site.address, "/later");
    client.ask("awake", "awake");
    let before = site.count(Counter::Sleeps);
    for _ in 0..10 {
        client.ask("ping", "ping");
    }
    assert_eq!(site.count(Counter::Sleeps), before);
}
