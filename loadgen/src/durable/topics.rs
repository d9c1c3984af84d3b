//! Many topics, each published to once: what they cost the server in time, files, maps and memory.

use std::path::Path;

use anyhow::Result;
use indicatif::ProgressBar;

use super::client::{Client, make_topics, publish_frame};
use super::disk::Disk;
use super::facts::Facts;
use super::options::Topics;
use crate::clock::Clock;
use crate::usage::Memory;

/// Runs the load and tells what it came to.
pub(crate) fn run(options: &Topics) -> Result<Facts> {
    let place = &options.place;
    let mut facts = Facts::new("durable topics");
    let mut disk = place.data_dir.as_deref().map(Disk::new).transpose()?;
    let pid = place.common.pid.map(|pid| pid.to_string());
    let before = pid.as_deref().map(Memory::of).transpose()?;
    disk.iter_mut().try_for_each(Disk::probe)?;
    let name = |number: u32| format!("{}-{number:05}", place.topic);
    let (bar, clock) = (ProgressBar::new(u64::from(options.count)), Clock::start());
    let names: Vec<String> = (0..options.count).map(name).collect();
    make_topics(place, &names, |made| bar.set_position(made))?;
    let made = clock.now();
    let mut client = Client::connect(place)?;
    for some in names.chunks(SENT_AT_ONCE) {
        let frame = |name: &String| publish_frame(name, PAYLOAD_BYTES);
        let frames: Vec<u8> = some.iter().flat_map(frame).collect();
        client.send(&frames)?;
        client.await_messages(some.len() as u64)?;
    }
    let published = clock.now() - made;
    bar.finish_and_clear();
    let per_second = |nanos: u64| f64::from(options.count) * 1e9 / nanos.max(1) as f64;
    facts.add("topics", f64::from(options.count), "");
    facts.add("topics made", per_second(made), "/s");
    facts.add("topics published to", per_second(published), "/s");
    if let (Some(pid), Some(before)) = (&pid, before) {
        let more = Memory::of(pid)?.anonymous.saturating_sub(before.anonymous);
        let per_topic = more as f64 / f64::from(options.count.max(1));
        facts.add("memory of a topic", per_topic, "B");
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let of_log = maps.lines().filter(|line| line.ends_with(".segment"));
        facts.add("maps of segments", of_log.count() as f64, "");
        facts.add("maps of the server", maps.lines().count() as f64, "");
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        facts.add("open files of the server", open as f64, "");
    }
    disk.iter_mut().try_for_each(Disk::probe)?;
    facts.add_disk(disk.as_ref());
    drop(disk);
    if let Some(folder) = &place.data_dir {
        facts.add("files", files(folder)? as f64, "");
    }
    Ok(facts)
}

fn files(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        count += if path.is_dir() { files(&path)? } else { 1 };
    }
    Ok(count)
}

const SENT_AT_ONCE: usize = 256;
const PAYLOAD_BYTES: usize = 128;
