//! `tidegate log`: what a data directory holds, and whether every byte of it is as it was
//! written; and what of it stands in the way of a start. Offline: a directory that a server uses is
//! locked. Nothing is changed but by a repair that was asked for twice.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::log::{DirectoryReport, PartitionReport, inspect, plan_repair, repair, verify};

use super::{Failure, answer};

#[derive(Debug, Subcommand)]
pub(super) enum LogVerb {
    /// Read every stored byte; fails if anything is damaged
    Verify(LogOptions),
    /// Print partitions, segments, topics and cursors
    Inspect(LogOptions),
    /// Print what stands in the way of a start; with --yes, move it aside
    Repair(RepairOptions),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without --yes nothing is changed: the plan is printed, a line for each file. With it these files are
moved to DIR/quarantine-NNNN and nothing is deleted; moving them back undoes it. Damaged messages
need no repair: a server keeps what is intact and tells the rest as gaps.")]
pub(super) struct RepairOptions {
    /// The data directory
    directory: PathBuf,
    /// Do it
    #[arg(long)]
    yes: bool,
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
        LogVerb::Repair(options) => run_repair(options),
    }
}

fn run_repair(options: &RepairOptions) -> Result<ExitCode, Failure> {
    let directory = &options.directory;
    let plan = plan_repair(directory)?;
    for step in &plan.moves {
        let (partition, file, reason) = (step.partition.0, &step.file, &step.reason);
        answer(format!("partition {partition}: move {file}: {reason}"))?;
    }
    for reason in &plan.left {
        answer(format!("cannot be repaired: {reason}"))?;
    }
    let count = plan.moves.len();
    let name = directory.display();
    match (count, options.yes) {
        (0, _) => answer(format!("{name}: no file to move"))?,
        (_, false) => {
            answer(format!(
                "{name}: {count} files to move, nothing was changed; --yes does it"
            ))?;
            return Ok(ExitCode::FAILURE);
        }
        (_, true) => {
            let to = repair(directory, &plan)?;
            answer(format!("{name}: {count} files moved to {}", to.display()))?;
        }
    }
    let is_done = plan.left.is_empty();
    Ok(if is_done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
    print_lost(report)
}

/// Files that are not there or not understood, and what they leave nameless.
fn print_lost(report: &PartitionReport) -> Result<(), Failure> {
    let partition = report.partition.0;
    let recovery = &report.recovery;
    if let Some(reason) = &report.unreadable {
        answer(format!(
            "partition {partition}: {reason}; a server serves the other partitions"
        ))?;
    }
    for segment in &recovery.segments_missing {
        answer(format!(
            "partition {partition}: segment {segment} is missing"
        ))?;
    }
    for segment in &recovery.segments_unknown {
        answer(format!(
            "partition {partition}: segment {segment} is no part of the log and not blank; it is left \
             as it is"
        ))?;
    }
    for (count, what) in [
        (
            recovery.topics_nameless,
            "topics have messages and no entry of their own; they are kept",
        ),
        (
            recovery.checkpoints_bad,
            "checkpoints are not whole; a start does without",
        ),
    ] {
        if 0 < count {
            answer(format!("partition {partition}: {count} {what}"))?;
        }
    }
    if !recovery.segments_protected.is_empty() {
        answer(format!(
            "partition {partition}: segments {:?} are kept from cleaning, as something of them is \
             damaged, missing or nameless",
            recovery.segments_protected
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
