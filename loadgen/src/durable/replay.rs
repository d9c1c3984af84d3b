//! Subscribers that read a topic from its beginning, as fast as they can. Messages are counted by
//! their frames and not read.

use std::thread;

use anyhow::{Result, anyhow};
use indicatif::ProgressBar;

use super::client::{Client, make_topics};
use super::disk::Disk;
use super::facts::Facts;
use super::options::Replay;
use crate::clock::{Clock, Nanos};
use crate::usage::Threads;

/// Runs the load and tells what it came to.
pub(crate) fn run(options: &Replay) -> Result<Facts> {
    let place = &options.place;
    let bytes = u64::from(options.bytes);
    let count = (u64::from(options.mib) << 20).div_ceil(bytes);
    if !options.filled {
        fill(options, count)?;
    }
    let mut disk = place.data_dir.as_deref().map(Disk::new).transpose()?;
    disk.iter_mut().try_for_each(Disk::probe)?;
    let mut facts = Facts::new("durable replay");
    facts.add("messages of a round", count as f64, "");
    let mut rounds = (0..options.rounds)
        .map(|round| replay(options, (round, count)))
        .collect::<Result<Vec<Round>>>()?;
    rounds.sort_by_key(|round| round.nanos);
    let rate = |round: &Round| (round.messages * bytes) as f64 * 1e3 / round.nanos as f64;
    if let [fastest, .., slowest] = &rounds[..] {
        facts.add("payload, fastest round", rate(fastest), "MB/s");
        facts.add("payload, slowest round", rate(slowest), "MB/s");
    }
    if let Some(median) = rounds.get(rounds.len() / 2) {
        facts.add("payload, median round", rate(median), "MB/s");
        let per_second = median.messages as f64 * 1e9 / median.nanos as f64;
        facts.add("messages", per_second, "/s");
        if let Some(busy) = median.server {
            let share = busy as f64 * 100.0 / median.nanos as f64;
            facts.add("server core", share, "%");
            let cost = busy as f64 / median.messages as f64;
            facts.add("server CPU per message", cost, "ns");
        }
    }
    disk.iter_mut().try_for_each(Disk::probe)?;
    facts.add_disk(disk.as_ref());
    Ok(facts)
}

/// Publishes the messages that are read later.
fn fill(options: &Replay, count: u64) -> Result<()> {
    let place = &options.place;
    make_topics(place, std::slice::from_ref(&place.topic), |_| ())?;
    let bar = ProgressBar::new(count).with_message("filling");
    let bytes = usize::try_from(options.bytes)?;
    Client::connect(place)?.publish_many(&place.topic, bytes, count, |done| {
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// What one round of all subscribers came to.
struct Round {
    messages: u64,
    nanos: Nanos,
    server: Option<Nanos>,
}

fn replay(options: &Replay, (round, count): (u32, u64)) -> Result<Round> {
    let pid = options.place.common.pid.map(|pid| pid.to_string());
    let usage = || pid.as_deref().map(Threads::of).transpose();
    let clock = Clock::start();
    let (before, began) = (usage()?, clock.now());
    thread::scope(|scope| {
        let readers: Vec<_> = (0..options.connections)
            .map(|number| {
                let sub_name = format!("reader-{}-{round}-{number}", std::process::id());
                scope.spawn(move || read(options, &sub_name, count))
            })
            .collect();
        readers
            .into_iter()
            .try_for_each(|reader| reader.join().map_err(|_| anyhow!("a reader panicked"))?)
    })?;
    let nanos = clock.now() - began;
    Ok(Round {
        messages: count * u64::from(options.connections),
        nanos,
        server: usage()?.zip(before).map(|(now, then)| now.since(&then).run),
    })
}

/// Reads all messages and acks them.
fn read(options: &Replay, sub_name: &str, count: u64) -> Result<()> {
    let topic = &options.place.topic;
    let mut client = Client::connect(&options.place)?;
    client.subscribe(topic, sub_name, options.window)?;
    // A window is one of bytes too: an ack for each part of what the server lets out.
    let step = (u64::from(options.window) / 4)
        .min(ACKED_BYTES / u64::from(options.bytes))
        .max(1);
    let (mut seen, mut acked) = (0, 0);
    // The answer to the subscribe comes first.
    while seen < count + 1 {
        seen += client.receive()?;
        if acked + step < seen {
            acked = seen - 1;
            client.ack(topic, sub_name, acked)?;
        }
    }
    Ok(())
}

const ACKED_BYTES: u64 = 64 << 10;
