//! Subscribers that do not read while a backlog grows for them: what each costs the server in
//! memory, and whether their neighbour gets everything meanwhile.

use std::thread;

use anyhow::{Context, Result, anyhow};

use super::client::{Client, make_topics};
use super::disk::Disk;
use super::facts::Facts;
use super::options::Stalled;
use crate::clock::Clock;
use crate::usage::Memory;

/// Runs the load and tells what it came to.
pub(crate) fn run(options: &Stalled) -> Result<Facts> {
    let place = &options.place;
    let pid = place.common.pid.map(|pid| pid.to_string());
    let pid = pid.context("durable stalled needs --pid, the server's process id")?;
    let topic = format!("{}-{}", place.topic, std::process::id());
    make_topics(place, std::slice::from_ref(&topic), |_| ())?;
    let mut disk = place.data_dir.as_deref().map(Disk::new).transpose()?;
    disk.iter_mut().try_for_each(Disk::probe)?;
    let bytes = u64::from(options.bytes);
    let count = (u64::from(options.mib) << 20).div_ceil(bytes);
    let mut neighbour = Client::connect(place)?;
    neighbour.subscribe(&topic, "neighbour", WINDOW)?;
    neighbour.await_messages(1)?;
    publish(options, &topic, &mut neighbour, (0, count))?;
    // What publishing so much costs by itself is not theirs.
    let warm = Memory::of(&pid)?.anonymous;
    let alone = publish(options, &topic, &mut neighbour, (count, count))?;
    let before = Memory::of(&pid)?.anonymous;
    let mut stalled = Vec::new();
    for number in 0..options.connections {
        let mut client = Client::connect(place)?;
        client.subscribe(&topic, &format!("stalled-{number}"), WINDOW)?;
        stalled.push(client);
    }
    let beside = publish(options, &topic, &mut neighbour, (2 * count, count))?;
    let after = Memory::of(&pid)?.anonymous;
    let clock = Clock::start();
    let first = stalled.first_mut().context("at least one stalls")?;
    read(first, (&topic, "stalled-0"), (0, 3 * count + 1))?;
    let caught_up = clock.now() as f64 / 1e9;
    disk.iter_mut().try_for_each(Disk::probe)?;
    let mut facts = Facts::new("durable stalled");
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    facts.add("stalled subscribers", f64::from(options.connections), "");
    facts.add("backlog of each", 3.0 * f64::from(options.mib), "MiB");
    facts.add("memory of the server", mib(before), "MiB");
    let without = mib(before) - mib(warm);
    facts.add("more after a part without them", without, "MiB");
    let more = mib(after) - mib(before);
    facts.add("more after a part with them", more, "MiB");
    let each = more / f64::from(options.connections);
    facts.add("that is for each", each, "MiB");
    facts.add("neighbour alone", count as f64 / alone, "messages/s");
    facts.add("neighbour beside them", count as f64 / beside, "messages/s");
    facts.add("one of them caught up in", caught_up, "s");
    facts.add_disk(disk.as_ref());
    Ok(facts)
}

/// Publishes while the neighbour reads; returns the seconds until it has everything.
fn publish(
    options: &Stalled,
    topic: &str,
    neighbour: &mut Client,
    (from, count): (u64, u64),
) -> Result<f64> {
    let clock = Clock::start();
    let bytes = usize::try_from(options.bytes)?;
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(neighbour, (topic, "neighbour"), (from, count)));
        Client::connect(&options.place)?.publish_many(topic, bytes, count, |_| ())?;
        reader
            .join()
            .map_err(|_| anyhow!("the neighbour panicked"))?
    })?;
    Ok(clock.now() as f64 / 1e9)
}

/// Reads and acks `count` messages behind the seq `from`.
fn read(client: &mut Client, of: (&str, &str), (from, count): (u64, u64)) -> Result<()> {
    let (mut seen, mut acked) = (0, 0);
    while seen < count {
        seen += client.receive()?;
        // The first answer may be that to the subscribe, so the last message is not acked.
        if acked + ACKED_EVERY < seen {
            acked = seen - 1;
            client.ack(of.0, of.1, from + acked)?;
        }
    }
    Ok(())
}

const WINDOW: u32 = 1024;
const ACKED_EVERY: u64 = 64;
