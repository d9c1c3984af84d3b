//! Subscribers that read a topic from its beginning, as fast as they can, and what a publisher on
//! another topic sees meanwhile. Messages are counted by their frames and not read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use indicatif::ProgressBar;

use super::client::{Client, make_topics};
use super::disk::Disk;
use super::facts::Facts;
use super::live;
use super::options::{Place, Replay};
use crate::clock::{Clock, Nanos};
use crate::latency::Latencies;
use crate::usage::Threads;

/// Runs the load and tells what it came to.
pub(crate) fn run(options: &Replay) -> Result<Facts> {
    let place = &options.place;
    let topic = format!("{}-{}", place.topic, std::process::id());
    let live_topic = format!("{topic}-live");
    make_topics(
        place,
        [topic.clone(), live_topic.clone()].into_iter(),
        |_| (),
    )?;
    let count = fill(options, &topic)?;
    let mut disk = place.data_dir.as_deref().map(Disk::new).transpose()?;
    disk.iter_mut().try_for_each(Disk::probe)?;
    let mut facts = Facts::new("durable replay");
    let beside = |name, work: &mut dyn FnMut() -> Result<()>| match options.live_rate {
        Some(rate) => beside(place, &live_topic, rate, name, work).map(Some),
        None => work().map(|()| None),
    };
    let alone = beside("live publish alone", &mut || {
        if options.live_rate.is_some() {
            thread::sleep(Duration::from_secs_f64(place.common.seconds));
        }
        Ok(())
    })?;
    let mut last = None;
    let replayed = beside("live publish beside the replay", &mut || {
        for round in 0..ROUNDS {
            last = Some(replay(options, &topic, (round, count))?);
        }
        Ok(())
    })?;
    let done = last.context("a round was run")?;
    disk.iter_mut().try_for_each(Disk::probe)?;
    let seconds = done.nanos as f64 / 1e9;
    facts.add("messages of a round", done.messages as f64, "");
    facts.add("messages replayed", done.messages as f64 / seconds, "/s");
    facts.add(
        "payload replayed",
        done.payload_bytes as f64 / seconds / 1e6,
        "MB/s",
    );
    facts.add("on the wire", done.bytes as f64 / seconds / 1e6, "MB/s");
    if let Some(cpu) = done.server {
        facts.add(
            "server CPU per message",
            cpu as f64 / done.messages as f64,
            "ns",
        );
        let per_core = done.payload_bytes as f64 * 1e3 / cpu.max(1) as f64;
        facts.add("payload per second of server CPU", per_core, "MB");
        facts.add("server core", cpu as f64 * 100.0 / done.nanos as f64, "%");
    }
    for series in alone.iter().chain(&replayed) {
        facts.add_latencies(series.summary());
    }
    facts.add_disk(disk.as_ref());
    Ok(facts)
}

/// Publishes the messages that are read later.
fn fill(options: &Replay, topic: &str) -> Result<u64> {
    let bytes = u64::from(options.bytes);
    let count = (u64::from(options.mib) << 20).div_ceil(bytes);
    let bar = ProgressBar::new(count).with_message("filling");
    let mut client = Client::connect(&options.place)?;
    client.publish_many(topic, usize::try_from(bytes)?, count, |done| {
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(count)
}

/// Does `work` while somebody publishes.
fn beside(
    place: &Place,
    topic: &str,
    rate: f64,
    name: &'static str,
    work: &mut dyn FnMut() -> Result<()>,
) -> Result<Latencies> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let publisher = scope.spawn(|| live::publish(place, topic, rate, name, &ended));
        let worked = work();
        ended.store(true, Ordering::Relaxed);
        let latencies = publisher
            .join()
            .map_err(|_| anyhow!("the live publisher panicked"))?;
        worked.and(latencies)
    })
}

/// What one round of all subscribers came to.
struct Round {
    messages: u64,
    payload_bytes: u64,
    bytes: u64,
    nanos: Nanos,
    server: Option<Nanos>,
}

fn replay(options: &Replay, topic: &str, (round, count): (u32, u64)) -> Result<Round> {
    let place = &options.place;
    let pid = place.common.pid.map(|pid| pid.to_string());
    let usage = || pid.as_deref().map(Threads::of).transpose();
    let clock = Clock::start();
    let (before, began) = (usage()?, clock.now());
    let bytes = thread::scope(|scope| {
        let readers: Vec<_> = (0..options.connections)
            .map(|number| {
                let sub_name = format!("reader-{round}-{number}");
                scope.spawn(move || read(options, topic, &sub_name, count))
            })
            .collect();
        let mut bytes = 0;
        for reader in readers {
            bytes += reader.join().map_err(|_| anyhow!("a reader panicked"))??;
        }
        anyhow::Ok(bytes)
    })?;
    let nanos = clock.now() - began;
    let messages = count * u64::from(options.connections);
    Ok(Round {
        messages,
        payload_bytes: messages * u64::from(options.bytes),
        bytes,
        nanos,
        server: usage()?.zip(before).map(|(now, then)| now.since(&then).0),
    })
}

/// Reads all messages and acks them; returns the bytes of their frames' payloads.
fn read(options: &Replay, topic: &str, sub_name: &str, count: u64) -> Result<u64> {
    let mut client = Client::connect(&options.place)?;
    client.subscribe(topic, sub_name, options.window)?;
    // A window is one of bytes too: an ack for each part of what the server lets out.
    let step = (u64::from(options.window) / 4)
        .min(ACKED_BYTES / u64::from(options.bytes))
        .max(1);
    let (mut seen, mut acked, mut bytes) = (0, 0, 0);
    // The answer to the subscribe comes first.
    while seen < count + 1 {
        let received = client.receive()?;
        seen += received.messages;
        bytes += received.bytes;
        if ack_is_due(seen, acked, step) {
            acked = seen - 1;
            client.ack(topic, sub_name, acked)?;
        }
    }
    if seen != count + 1 {
        bail!("{seen} messages came where {} were awaited", count + 1);
    }
    Ok(bytes)
}

fn ack_is_due(seen: u64, acked: u64, step: u64) -> bool {
    acked + step < seen
}

const ROUNDS: u32 = 3;
const ACKED_BYTES: u64 = 64 << 10;
