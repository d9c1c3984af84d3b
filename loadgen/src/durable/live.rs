//! A publisher at a fixed rate, one publish at a time: what somebody sees who publishes while the
//! server is busy with others.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use super::client::{Client, publish_frame};
use super::options::Place;
use crate::clock::Clock;
use crate::latency::Latencies;
use crate::schedule::Schedule;

/// Publishes until it is told to end. A latency counts from the moment at which a publish was due.
pub(crate) fn publish(
    place: &Place,
    topic: &str,
    rate: f64,
    name: &'static str,
    ended: &AtomicBool,
) -> Result<Latencies> {
    let mut client = Client::connect(place)?;
    let frame = publish_frame(topic, PAYLOAD_BYTES);
    let mut latencies = Latencies::new(name)?;
    let clock = Clock::start();
    let mut schedule = Schedule::new(0, rate);
    while !ended.load(Ordering::Relaxed) {
        let due = schedule.next();
        schedule.advance();
        clock.sleep_until(due);
        client.send(&frame)?;
        client.await_messages(1)?;
        latencies.record(clock.now().saturating_sub(due), 1);
    }
    Ok(latencies)
}

const PAYLOAD_BYTES: usize = 128;
