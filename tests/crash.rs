//! Kills a server at random moments under load and looks at what it has kept (T-D1): what was
//! acked is there with the same bytes and the same seq, what is there was sent, no seq is
//! missing or used twice, and no cursor that was confirmed is forgotten or runs ahead.
//!
//! `TIDEGATE_CRASH_CYCLES` asks for more cycles, `TIDEGATE_CRASH_SEED` repeats the moments.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test crate: a failed step is a failed test, and a kill is timed by a clock"
)]

#[path = "crash/world.rs"]
mod world;

use std::time::Instant;

use world::{Model, Server, look, number, seeded, strike};

/// P1, P2, P3, P4, B-15, B-16, B-17, D-33, D-42
#[test]
fn a_killed_server_keeps_what_it_acked() {
    let cycles = number("TIDEGATE_CRASH_CYCLES", 12);
    let mut random = seeded("TIDEGATE_CRASH_SEED");
    let data = tempfile::tempdir().unwrap();
    let mut models: Vec<Model> = Vec::new();
    let mut ready = Vec::new();
    for cycle in 0..cycles {
        let started = Instant::now();
        let server = Server::start(data.path(), 1 + cycle % 2);
        ready.push(started.elapsed());
        look(&server, &mut models);
        strike(server, &mut models, &mut random, || {});
    }
    let server = Server::start(data.path(), 1);
    look(&server, &mut models);
    let acked: usize = models.iter().map(|model| model.seen.len()).sum();
    let sent: u64 = models.iter().map(|model| model.sent).sum();
    ready.sort_unstable();
    println!(
        "{cycles} kills: {sent} sent, {acked} seen, slowest start {:?}",
        ready.last()
    );
    assert!(0 < acked);
    server.kill();
}
