//! `tidegate log`: what a data directory holds, and whether every byte of it is as it was
//! written. Offline: a directory that a server uses is locked. Changes nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::log::{DirectoryReport, PartitionReport, inspect, verify};

use super::{Failure, answer};

#[derive(Debug, Subcommand)]
pub(super) enum LogVerb {
    /// Read every stored byte; fails if anything is damaged
    Verify(LogOptions),
    /// Print partitions, segments, topics and cursors
    Inspect(LogOptions),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Stop the server first, or look at a copy. A backup is a copy of a directory that nobody writes:
  cp -a DIR COPY
  tidegate log verify COPY
and a server started with it is its restore:
  tidegate serve --data COPY")]
pub(super) struct LogOptions {
    /// The data directory
    directory: PathBuf,
}

pub(super) fn run(verb: &LogVerb) -> Result<ExitCode, Failure> {
    match verb {
        LogVerb::Verify(options) => {
            let report = verify(&options.directory)?;
            report.partitions.iter().try_for_each(print_verdict)?;
            verdict(&options.directory, &report)
        }
        LogVerb::Inspect(options) => {
            let report = inspect(&options.directory)?;
            report.partitions.iter().try_for_each(print_partition)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn verdict(directory: &Path, report: &DirectoryReport) -> Result<ExitCode, Failure> {
    let sum =
        |count: fn(&PartitionReport) -> u64| -> u64 { report.partitions.iter().map(count).sum() };
    let records = sum(|partition| {
        partition
            .segments
            .iter()
            .map(|segment| segment.records)
            .sum()
    });
    let topics = sum(|partition| partition.topics.len() as u64);
    let found = format!(
        "{}: {} partitions, {records} records, {topics} topics",
        directory.display(),
        report.partitions.len()
    );
    if report.is_intact() {
        answer(format!("{found}: intact"))?;
        return Ok(ExitCode::SUCCESS);
    }
    answer(format!("{found}: DAMAGED"))?;
    Ok(ExitCode::FAILURE)
}

/// What is not as it should be.
fn print_verdict(report: &PartitionReport) -> Result<(), Failure> {
    let partition = report.partition.0;
    if let Some((segment, offset)) = report.recovery.replay.torn {
        answer(format!(
            "partition {partition}: segment {segment} ends at {offset} with a batch that nobody was \
             told of; a start cuts it off"
        ))?;
    }
    for damage in &report.damage {
        answer(format!(
            "partition {partition}: segment {} is damaged from {} to {}: {} records saved, the \
             messages in it are {}",
            damage.segment,
            damage.from,
            damage.to,
            damage.saved_records,
            if damage.is_accounted {
                "known and told as gaps"
            } else {
                "not all known"
            }
        ))?;
    }
    for segment in &report.indexes_bad {
        answer(format!(
            "partition {partition}: the index of segment {segment} is bad; it is made again"
        ))?;
    }
    for segment in &report.recovery.segments_missing {
        answer(format!(
            "partition {partition}: segment {segment} is missing"
        ))?;
    }
    Ok(())
}

fn print_partition(report: &PartitionReport) -> Result<(), Failure> {
    let used: usize = report.segments.iter().map(|segment| segment.end).sum();
    answer(format!(
        "partition {}: {} segments, {used} bytes in them, {} topics",
        report.partition.0,
        report.segments.len(),
        report.topics.len()
    ))?;
    for segment in &report.segments {
        let (id, bytes, end) = (segment.id, segment.bytes, segment.end);
        answer(format!("  segment {id}: {end} of {bytes} bytes"))?;
    }
    print_verdict(report)?;
    for topic in &report.topics {
        answer(format!(
            "  topic {} {}/{}: seq {} to {}, {} bytes",
            topic.id, topic.tenant, topic.name, topic.first_seq, topic.last_seq, topic.bytes
        ))?;
        for subscription in &topic.subscriptions {
            let (id, name, cursor) = (subscription.id, &subscription.name, subscription.cursor);
            answer(format!("    subscription {id} {name}: cursor {cursor}"))?;
        }
    }
    Ok(())
}
