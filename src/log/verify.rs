//! Looks at a data directory that no server uses, without changing it: `inspect` tells what a start
//! would find, `verify` reads every byte as well. Prints nothing.

use std::path::Path;

use crate::id::Partition;

use super::batch::Place;
use super::commit_log::Blocks;
use super::directory::{DataDirectory, DirectoryError};
use super::index::SegmentIndex;
use super::layout::Seed;
use super::meta::Meta;
use super::rebuild::rebuild_index;
use super::recovery::{
    Found, Identity, RecoverError, RecoveredTopic, RecoveryReport, epoch, newest_checkpoint,
    recovered_topics, replay_files, settle, unused_segments,
};
use super::replay::{DamagedStretch, From, Replay};
use super::scan::Known;
use super::segment::SEGMENT_HEAD_BYTES;
use super::state::State;
use super::storage::{FileName, Folder, load};
use super::survey::Survey;

/// What a data directory holds.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectoryReport {
    /// What was fixed when it was made.
    pub meta: Meta,
    /// Each partition, in order.
    pub partitions: Vec<PartitionReport>,
}

/// What one partition holds.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionReport {
    /// Which.
    pub partition: Partition,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Every topic with its subscriptions and cursors, ordered by id.
    pub topics: Vec<RecoveredTopic>,
    /// How a recovery would go.
    pub recovery: RecoveryReport,
    /// Damaged stretches in all segments; only `verify` looks for those before the checkpoint.
    pub damage: Vec<DamagedStretch>,
    /// Index files that are damaged or do not fit their segment; only `verify` looks for them. The
    /// log makes them again.
    pub indexes_bad: Vec<u64>,
    /// Why nothing of it can be told: a file of it cannot be read. A server serves the others.
    pub unreadable: Option<String>,
}

/// One segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its number.
    pub id: u64,
    /// The size of the file.
    pub bytes: u64,
    /// Where its batches end; 0 if it is prepared or waits to be used again.
    pub end: usize,
    /// Its intact batches; 0 unless `verify` counted them.
    pub batches: u64,
    /// The records in them.
    pub records: u64,
}

/// Why a data directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The directory itself.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The files of a partition.
    #[error(transparent)]
    Recover(#[from] RecoverError),
}

impl DirectoryReport {
    /// Whether every byte that was stored is as it was written. A torn end is no damage.
    pub fn is_intact(&self) -> bool {
        self.partitions.iter().all(|partition| {
            partition.unreadable.is_none()
                && partition.damage.is_empty()
                && partition.indexes_bad.is_empty()
                && partition.recovery.segments_missing.is_empty()
                && partition.recovery.segments_unknown.is_empty()
                && partition.recovery.topics_nameless == 0
        })
    }
}

impl PartitionReport {
    fn unreadable(partition: Partition, reason: String) -> Self {
        Self {
            partition,
            segments: Vec::new(),
            topics: Vec::new(),
            recovery: RecoveryReport::default(),
            damage: Vec::new(),
            indexes_bad: Vec::new(),
            unreadable: Some(reason),
        }
    }
}

/// What a start would find.
pub fn inspect(path: &Path) -> Result<DirectoryReport, VerifyError> {
    report(path, false)
}

/// What a start would find, and whether every stored byte is as it was written.
pub fn verify(path: &Path) -> Result<DirectoryReport, VerifyError> {
    report(path, true)
}

fn report(path: &Path, is_thorough: bool) -> Result<DirectoryReport, VerifyError> {
    let directory = DataDirectory::open_existing(path)?;
    directory.check()?;
    let meta = directory.fixed();
    let mut partitions = Vec::new();
    for partition in (0..meta.partitions).map(Partition) {
        let mut folder = directory.folder(partition);
        let report = partition_report(&mut folder, partition, meta.salt, is_thorough);
        partitions.push(match report {
            Err(VerifyError::Recover(error)) if error.is_damage() => {
                PartitionReport::unreadable(partition, error.to_string())
            }
            report => report?,
        });
    }
    Ok(DirectoryReport { meta, partitions })
}

fn partition_report(
    folder: &mut Folder,
    partition: Partition,
    salt: u64,
    is_thorough: bool,
) -> Result<PartitionReport, VerifyError> {
    let identity = Identity { partition, salt };
    let files = Survey::of(folder, identity)?;
    let mut recovery = RecoveryReport::default();
    let checkpoint = newest_checkpoint(folder, &files, identity, &mut recovery)?;
    let mut found = replay_files(folder, &files, salt, checkpoint, &mut recovery)?;
    unused_segments(&files, &found, &mut recovery);
    recovery.topics_nameless = settle(&mut found.replay.state);
    recovery.replay = found.replay.report.clone();
    recovery.is_epoch_new = found.replay.is_epoch_due;
    let generation = found.replay.state.generation + u64::from(recovery.is_epoch_new);
    let topics = recovered_topics(&found.replay.state, epoch(salt, partition, generation));
    let mut report = PartitionReport {
        partition,
        segments: Vec::new(),
        topics,
        damage: recovery.replay.damage.clone(),
        recovery,
        indexes_bad: Vec::new(),
        unreadable: None,
    };
    if is_thorough {
        report.damage.clear();
    }
    for (&id, &bytes) in &files.segments {
        let end = found.segments.get(&id).map_or(0, |info| info.end);
        let mut segment = SegmentReport {
            id,
            bytes,
            end,
            batches: 0,
            records: 0,
        };
        if is_thorough && 0 < end {
            verify_segment(folder, salt, &found, &mut segment, &mut report)?;
        }
        report.segments.push(segment);
    }
    Ok(report)
}

/// Reads one segment from its first batch to its last, and its index.
fn verify_segment(
    folder: &mut Folder,
    salt: u64,
    found: &Found,
    segment: &mut SegmentReport,
    report: &mut PartitionReport,
) -> Result<(), RecoverError> {
    let file = FileName::Segment(segment.id);
    let failed = |source| RecoverError::io(&file.file_name(), source);
    let bytes = load(folder, file).map_err(failed)?;
    let from = From {
        offset: SEGMENT_HEAD_BYTES,
        chain: None,
    };
    let number = found.next_number(segment.id);
    let end = Known {
        offset: segment.end,
        number,
    };
    let mut replay = Replay::new(salt, State::default(), (0, 0), found.replay.chain);
    replay.segment(segment.id, &bytes, from, Some(end));
    segment.batches = replay.report.batches;
    segment.records = replay.report.records;
    let is_damaged = !replay.report.damage.is_empty();
    report.damage.extend(replay.report.damage);
    let is_stored = |blocks: &Blocks| matches!(blocks, Blocks::Stored);
    if found
        .segments
        .get(&segment.id)
        .is_some_and(|info| is_stored(&info.blocks))
    {
        let place = Place::new(salt, segment.id);
        let fresh = rebuild_index(&bytes[..segment.end.min(bytes.len())], place).finish();
        let stored = load(folder, FileName::Index(segment.id)).unwrap_or_default();
        let stored = SegmentIndex::decode(&stored, Seed::new(salt, segment.id));
        // An index made before the damage knows more than one made after it.
        if !stored.is_some_and(|(stored, _)| is_damaged || stored == fresh) {
            report.indexes_bad.push(segment.id);
        }
    }
    Ok(())
}
