//! From the files of a partition to a live log: the newest checkpoint, then the batches behind it.
//! Uses the blocking storage; what it decides is in `replay` and `scan`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::id::{HomedId, Partition, Seq, Tenant};

use super::ballast::Ballast;
use super::batch::{Chain, Place};
use super::checkpoint::{CheckpointTask, Used};
use super::checkpoint_bytes::{Checkpoint, NamedSegment};
use super::clean::Cleaner;
use super::commit_log::{Active, Blocks, CommitLog, LogConfig, Now, SegmentInfo, Start};
use super::lack::is_damage;
use super::prepare::{Prepare, Prepared};
use super::ready::make_ready;
use super::record::{Entry, Retention};
use super::replay::{From, LastBatch, Replay, ReplayReport, ends, is_begun};
use super::room::Class;
use super::segment::{Position, SEGMENT_HEAD_BYTES, SegmentHead};
use super::state::{State, StoredKey, nobody};
use super::storage::{FileName, Storage, Target, load, patiently, write_all};
use super::survey::{Kind, Survey};

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The partition.
    pub partition: Partition,
    /// The secret in the meta file.
    pub salt: u64,
}

/// What a log held when it was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveredState {
    /// Every topic, ordered by id.
    pub topics: Vec<RecoveredTopic>,
    /// What the replay met.
    pub report: RecoveryReport,
}

/// A topic that was there.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveredTopic {
    /// Its id.
    pub id: HomedId,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its name.
    pub name: Arc<str>,
    /// Unix time in milliseconds.
    pub created_at_ms: u64,
    /// The first seq that is kept.
    pub first_seq: Seq,
    /// The last seq that was given; `first_seq - 1` if nothing is kept.
    pub last_seq: Seq,
    /// Bytes of the messages that are kept.
    pub bytes: u64,
    /// The identity of this life of its log.
    pub epoch: u64,
    /// Grows in the order in which the log first told of topics and subscriptions.
    pub born: u64,
    /// What may be forgotten.
    pub retention: Retention,
    /// Its subscriptions, ordered by id.
    pub subscriptions: Vec<RecoveredSubscription>,
    /// The idempotency keys that are remembered, ordered by seq.
    pub keys: Vec<StoredKey>,
}

/// A subscription that was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredSubscription {
    /// Its id.
    pub id: HomedId,
    /// Its `sub_name`.
    pub name: Arc<str>,
    /// The claim `sub` of whoever made it; empty if it is not known.
    pub maker: Box<str>,
    /// The seq acked through.
    pub cursor: Seq,
    /// Unix time in milliseconds.
    pub created_at_ms: u64,
    /// Grows in the order in which the log first told of topics and subscriptions.
    pub born: u64,
}

/// How a recovery went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// What the replay met.
    pub replay: ReplayReport,
    /// The checkpoint that was used.
    pub checkpoint: Option<u64>,
    /// Checkpoints that were not whole: a crash leaves one, damage does too.
    pub checkpoints_bad: u64,
    /// Segments that a checkpoint names, or that a later one follows, and that are not there.
    pub segments_missing: Vec<u64>,
    /// Segment files that are no part of the log and not blank either, so that nobody knows what
    /// is in them: they stay as they are.
    pub segments_unknown: Vec<u64>,
    /// Segments that are kept as they are, because something of them is damaged, missing or belongs
    /// to a topic that nobody can name; found now or at a start before.
    pub segments_protected: Vec<u64>,
    /// Topics of which only messages were found, their own entry being lost.
    pub topics_nameless: u64,
    /// Whether the epoch is a new one, because nobody knows whose records were lost.
    pub is_epoch_new: bool,
}

/// Why a log cannot be opened. Nothing in its folder has been changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A file cannot be read or written.
    #[error("recovery of the log failed at {file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file of another data directory, or the meta file is another directory's.
    #[error(
        "{file} belongs to another data directory: the meta file has the mark {expected:08x}, the file {found:08x}; put back the meta file that was made with it (nothing was changed)"
    )]
    OtherDirectory {
        /// The file.
        file: String,
        /// What stands for the secret in the meta file.
        expected: u32,
        /// What stands for the secret in the file.
        found: u32,
    },
    /// A file of another partition.
    #[error(
        "{file} belongs to partition {found}, and this is the folder of partition {expected}; put it back where it was (nothing was changed)"
    )]
    OtherPartition {
        /// The file.
        file: String,
        /// Whose folder it is.
        expected: u16,
        /// Whose file it is.
        found: u16,
    },
    /// A file of a later version of the format.
    #[error(
        "{file} has version {found} of the format, and this program reads version {expected}; start the tidegate that wrote it (nothing was changed)"
    )]
    Version {
        /// The file.
        file: String,
        /// What this program reads.
        expected: u8,
        /// What was found.
        found: u8,
    },
}

/// Opens the log of one partition, whatever state a crash left it in.
pub fn recover(
    storage: &mut impl Storage,
    identity: Identity,
    config: &LogConfig,
    now: Now,
) -> Result<(CommitLog, RecoveredState), RecoverError> {
    let files = Survey::of(storage, identity)?;
    let mut report = RecoveryReport::default();
    let checkpoint = newest_checkpoint(storage, &files, identity, &mut report)?;
    let mut found = replay_files(storage, &files, identity.salt, checkpoint, &mut report)?;
    if let Some(batch) = &found.replay.last_batch {
        make_durable(storage, batch)?;
    }
    patiently(|| storage.sync(Target::Directory)).map_err(at("the folder"))?;
    report.is_epoch_new = found.replay.is_epoch_due;
    report.topics_nameless = settle(&mut found.replay.state);
    report.replay = found.replay.report.clone();
    let unused = unused_segments(&files, &found, &mut report);
    let mut log = start_log(&files, identity, config, found, unused, report.checkpoint);
    make_ready(&mut log, storage, &files, now)?;
    if report.is_epoch_new {
        let generation = log.state.generation + 1;
        log.state.generation = generation;
        // Without room for it the next start finds the same damage, and the same epoch.
        let _ = log.append_entry(nobody(), Class::Control, &Entry::Epoch { generation });
    }
    let topics = recovered_topics(&log.state, log.epoch());
    Ok((log, RecoveredState { topics, report }))
}

pub(super) fn at(file: impl ToString) -> impl FnOnce(io::Error) -> RecoverError {
    move |source| RecoverError::Io {
        file: file.to_string(),
        source,
    }
}

/// What the files add up to.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) replay: Replay,
    pub(super) segments: BTreeMap<u64, SegmentInfo>,
    pub(super) next_id: u64,
    /// The segment to go on in.
    active: Option<Active>,
    /// The checkpoint that was used.
    checkpoint: Option<Used>,
    heads: BTreeMap<u64, SegmentHead>,
}

impl Found {
    /// The number of the batch behind a segment, as far as that is known.
    pub(super) fn next_number(&self, segment: u64) -> u64 {
        let next = self.heads.values().find(|head| head.previous == segment);
        next.map_or(self.replay.chain.number, |head| head.chain.number)
    }
}

pub(super) fn newest_checkpoint(
    storage: &mut impl Storage,
    files: &Survey,
    identity: Identity,
    report: &mut RecoveryReport,
) -> Result<Option<Checkpoint>, RecoverError> {
    for &number in files.checkpoints.iter().rev() {
        let file = FileName::Checkpoint(number);
        let bytes = match load(storage, file) {
            // It can be made again from the segments.
            Err(error) if is_damage(&error) => Vec::new(),
            bytes => bytes.map_err(at(file.file_name()))?,
        };
        if let Some(checkpoint) = Checkpoint::decode(&bytes, identity, number) {
            report.checkpoint = Some(number);
            return Ok(Some(checkpoint));
        }
        report.checkpoints_bad += 1;
    }
    Ok(None)
}

/// Replays what stands behind the checkpoint, or everything.
pub(super) fn replay_files(
    storage: &mut impl Storage,
    files: &Survey,
    salt: u64,
    checkpoint: Option<Checkpoint>,
    report: &mut RecoveryReport,
) -> Result<Found, RecoverError> {
    let last_id = files.segments.keys().chain(&files.indexes).max();
    let last_id = last_id.copied().unwrap_or(0);
    let used = report.checkpoint.zip(checkpoint.as_ref());
    let used = used.map(|(number, checkpoint)| checkpoint.used(number));
    let (position, named, state, next_id) = match checkpoint {
        Some(old) => (Some(old.position), old.segments, old.state, old.next_id),
        None => (None, BTreeMap::new(), State::default(), 1),
    };
    let start = position.map_or((0, 0), |position| (position.segment, position.offset()));
    let chain = position.map_or(Chain::START, |position| position.chain);
    let mut segments = named_segments(files, &named, start.0, report);
    let mut replay = Replay::new(salt, state, start, chain);
    let later: Vec<u64> = files.segments.range(start.0..).map(|(id, _)| *id).collect();
    let heads = files.heads(start.0);
    let mut active = None;
    let mut newest = newest_begun(storage, files, start.0, salt)?;
    let newest_id = newest.as_ref().map(|(id, _)| *id);
    let ends = ends(&heads, newest_id.unwrap_or(start.0));
    for &id in later
        .iter()
        .filter(|&&id| newest_id.is_some_and(|newest| id <= newest))
    {
        let bytes = match newest.take_if(|(newest, _)| *newest == id) {
            Some((_, bytes)) => bytes,
            None => load_segment(storage, id)?,
        };
        let head = heads.get(&id);
        let from = start_in(position.as_ref(), id, head);
        let is_part =
            id == start.0 || ends.contains_key(&id) || is_begun(&bytes, Place::new(salt, id), head);
        if is_part {
            // Behind the checkpoint that is used nothing was cleaned, and nothing where there never was one.
            // Where none can be read, one that was cleaned and one that is lost look alike.
            let may_miss = id != start.0;
            if let Some(head) = head.filter(|head| may_miss && !files.has(head.previous)) {
                replay.note_missing(head, &mut report.segments_missing);
            }
            let (end, index) = replay.segment(id, &bytes, from, ends.get(&id).copied());
            let is_newest = Some(id) == newest_id;
            active = resumed(position.as_ref(), id, &bytes, end)
                .filter(|_| is_newest && matches!(files.kind(id), Kind::Own(_)));
            let blocks = match active {
                Some(_) => Blocks::Open(index),
                None => Blocks::Held(index),
            };
            let bytes = bytes.len() as u64;
            segments.insert(id, SegmentInfo { bytes, end, blocks });
        }
    }
    rebuild_indexes(storage, (files, &named), &mut segments, salt)?;
    protect(&mut replay, report);
    Ok(Found {
        active,
        checkpoint: used,
        replay,
        segments,
        next_id: next_id.max(last_id + 1),
        heads,
    })
}

/// From where in a segment the replay counts.
fn start_in(position: Option<&Position>, id: u64, head: Option<&SegmentHead>) -> From {
    match position.filter(|position| position.segment == id) {
        Some(position) => From {
            offset: position.offset(),
            chain: Some(position.chain),
        },
        None => From {
            offset: SEGMENT_HEAD_BYTES,
            chain: head.map(|head| head.chain),
        },
    }
}

/// After a clean stop the log ends where its last checkpoint was made, and nothing was cut off behind
/// it: it goes on there, so that restarts take no space.
fn resumed(position: Option<&Position>, id: u64, bytes: &[u8], end: usize) -> Option<Active> {
    let is_clean = position.is_some_and(|at| (at.segment, at.offset()) == (id, end));
    let rest = bytes.get(end..).filter(|_| is_clean);
    let is_blank = rest.is_some_and(|rest| rest.iter().all(|&byte| byte == 0));
    is_blank.then_some(Active {
        id,
        bytes: bytes.len(),
        end,
    })
}

/// The segments before the one at which the replay starts.
fn named_segments(
    files: &Survey,
    named: &BTreeMap<u64, NamedSegment>,
    start: u64,
    report: &mut RecoveryReport,
) -> BTreeMap<u64, SegmentInfo> {
    let mut segments = BTreeMap::new();
    for (&id, info) in named
        .iter()
        .filter(|&(&id, _)| id != start || !files.segments.contains_key(&id))
    {
        if !files.segments.contains_key(&id) {
            report.segments_missing.push(id);
        }
        // One that is missing is named as long as something in it is needed: it may come back.
        let blocks = Blocks::Stored;
        segments.insert(
            id,
            SegmentInfo {
                bytes: info.bytes,
                end: info.end,
                blocks,
            },
        );
    }
    segments
}

/// Full segments whose index file was not durable when the checkpoint was made.
fn rebuild_indexes(
    storage: &mut impl Storage,
    (files, named): (&Survey, &BTreeMap<u64, NamedSegment>),
    segments: &mut BTreeMap<u64, SegmentInfo>,
    salt: u64,
) -> Result<(), RecoverError> {
    let there = segments
        .iter_mut()
        .filter(|(id, _)| files.segments.contains_key(id));
    for (id, info) in there {
        let is_missing = named.get(id).is_some_and(|named| !named.is_indexed);
        if is_missing && matches!(info.blocks, Blocks::Stored) {
            let bytes = load_segment(storage, *id)?;
            let bytes = &bytes[..info.end.min(bytes.len())];
            let index = super::rebuild::rebuild_index(bytes, Place::new(salt, *id));
            info.blocks = Blocks::Held(index);
        }
    }
    Ok(())
}

fn load_segment(storage: &mut impl Storage, id: u64) -> Result<Vec<u8>, RecoverError> {
    let file = FileName::Segment(id);
    load(storage, file).map_err(at(file.file_name()))
}

/// The newest segment that is part of the log, with its bytes. What is newer was only prepared.
fn newest_begun(
    storage: &mut impl Storage,
    files: &Survey,
    start: u64,
    salt: u64,
) -> Result<Option<(u64, Vec<u8>)>, RecoverError> {
    for &id in files.segments.range(start..).rev().map(|(id, _)| id) {
        let kind = files.kind(id);
        if id != start && kind == Kind::Blank {
            continue;
        }
        let bytes = load_segment(storage, id)?;
        let head = match &kind {
            Kind::Own(head) => Some(head),
            _ => None,
        };
        if id == start || is_begun(&bytes, Place::new(salt, id), head) {
            return Ok(Some((id, bytes)));
        }
    }
    Ok(None)
}

/// The newest batch may be in the page cache only: the sync behind it may never have happened, or
/// may have failed and left pages that look clean. Writing the same bytes again makes them dirty,
/// so that this sync tells the truth.
fn make_durable(storage: &mut impl Storage, batch: &LastBatch) -> Result<(), RecoverError> {
    let file = FileName::Segment(batch.segment);
    write_all(storage, file, batch.offset as u64, &batch.bytes).map_err(at(file.file_name()))?;
    patiently(|| storage.sync(Target::File(file))).map_err(at(file.file_name()))
}

/// What is damaged or missing, and what belongs to a topic that nobody can name, stays where it is.
fn protect(replay: &mut Replay, report: &mut RecoveryReport) {
    let damaged = replay.report.damage.iter().map(|damage| damage.segment);
    let missing = report.segments_missing.iter().copied();
    let state = &mut replay.state;
    state.protected.extend(damaged.chain(missing));
    let nameless = state.topics.values().filter(|topic| topic.name.is_none());
    let of_nameless = nameless.flat_map(|topic| topic.spans.iter().map(|span| span.segment));
    state.protected.extend(of_nameless);
    report.segments_protected = state.protected.iter().copied().collect();
}

/// Everything that was found is durable by now. Counts the topics without an entry of their own.
pub(super) fn settle(state: &mut State) -> u64 {
    let mut nameless = 0;
    for topic in state.topics.values_mut() {
        topic.durable_seq = topic.last_seq;
        nameless += u64::from(topic.name.is_none());
    }
    nameless
}

/// Segment files that may be used again or removed: those that are blank, or of which it is known
/// what stood in them and that nothing needs it. All others are told and kept.
pub(super) fn unused_segments(
    files: &Survey,
    found: &Found,
    report: &mut RecoveryReport,
) -> Vec<Prepared> {
    // If one is missing, it may have been given another name, and what looks old may be needed.
    let is_whole = report.segments_missing.is_empty();
    let mut unused = Vec::new();
    for (&id, &bytes) in &files.segments {
        if found.segments.contains_key(&id) {
            continue;
        }
        match files.kind(id) {
            Kind::Blank => unused.push(Prepared { id, bytes }),
            Kind::Own(_) | Kind::Reused(_) if is_whole => unused.push(Prepared { id, bytes }),
            _ => report.segments_unknown.push(id),
        }
    }
    unused
}

fn start_log(
    files: &Survey,
    identity: Identity,
    config: &LogConfig,
    found: Found,
    unused: Vec<Prepared>,
    checkpoint: Option<u64>,
) -> CommitLog {
    let (mut pool, mut removed): (Vec<_>, Vec<_>) = unused
        .into_iter()
        .partition(|segment| config.segment_bytes_min <= segment.bytes);
    removed.extend(pool.drain(pool.len().min(1)..));
    let size_bytes = found.checkpoint.map_or(0, |used| used.size_bytes);
    let mut ballast = Ballast::new(config, &files.ballasts, size_bytes);
    let mut kept = Vec::new();
    removed.retain(|old| match ballast.adopt_segment(old.bytes) {
        Some(name) => {
            kept.push((FileName::Segment(old.id), name, old.bytes));
            false
        }
        None => true,
    });
    let orphans = files
        .indexes
        .iter()
        .filter(|id| !found.segments.contains_key(id));
    let old = files.checkpoints.iter().copied();
    let mut old: Vec<u64> = old.filter(|&number| Some(number) != checkpoint).collect();
    // One that was under way on a full disk may stand in the room that is kept for it.
    if let Some(number) = old.last().copied()
        && let Some(name) = ballast.adopt_checkpoint()
    {
        old.pop();
        let bytes = files.checkpoint_bytes.get(&number).copied().unwrap_or(0);
        kept.push((FileName::Checkpoint(number), name, bytes.max(1)));
    }
    let leftovers: Vec<FileName> = (removed.iter().map(|segment| FileName::Segment(segment.id)))
        .chain(orphans.map(|&id| FileName::Index(id)))
        .chain(old.into_iter().map(FileName::Checkpoint))
        .collect();
    let mut cleaner = Cleaner::new(&leftovers);
    for (from, to, bytes) in kept {
        cleaner.keep(from, to, bytes);
    }
    let number_next = files.checkpoints.last().map_or(1, |last| last + 1);
    let (bytes_min, bytes_max) = (config.segment_bytes_min, config.segment_bytes_max);
    let prepare = Prepare::new(bytes_min, bytes_max, found.next_id, pool);
    let start = Start {
        partition: identity.partition,
        salt: identity.salt,
        cleaner,
        ballast,
        checkpoint: CheckpointTask::new(number_next, found.checkpoint, found.replay.bytes),
        active: found.active,
        prepare,
        previous: found.replay.previous,
        chain: found.replay.chain,
        state: found.replay.state,
        segments: found.segments,
    };
    CommitLog::new(config.clone(), start)
}

/// Identity of one life of a log: below 2^53, so that JSON keeps it whole.
pub(super) fn epoch(salt: u64, partition: Partition, generation: u64) -> u64 {
    let mut seed = [0; 18];
    seed[..8].copy_from_slice(&salt.to_le_bytes());
    seed[8..10].copy_from_slice(&partition.0.to_le_bytes());
    seed[10..].copy_from_slice(&generation.to_le_bytes());
    1 + (xxhash_rust::xxh3::xxh3_64(&seed) >> 12)
}

/// The topics as a caller learns them.
pub(super) fn recovered_topics(state: &State, epoch: u64) -> Vec<RecoveredTopic> {
    let subscription = |id: &HomedId| {
        let subscription = state.subscriptions.get(id)?;
        let (name, cursor) = (Arc::clone(&subscription.name), subscription.cursor);
        let created_at_ms = subscription.created_at_ms;
        Some(RecoveredSubscription {
            id: *id,
            name,
            maker: subscription.maker.clone(),
            cursor,
            created_at_ms,
            born: subscription.born,
        })
    };
    let topics = state.topics.iter().filter_map(|(id, topic)| {
        let name = topic.name.as_ref()?;
        Some(RecoveredTopic {
            id: *id,
            tenant: name.tenant.clone(),
            name: Arc::clone(&name.name),
            created_at_ms: name.created_at_ms,
            first_seq: topic.first_seq,
            last_seq: topic.last_seq,
            bytes: topic.bytes(),
            epoch,
            born: topic.born,
            retention: topic.retention,
            subscriptions: topic
                .subscriptions
                .iter()
                .filter_map(subscription)
                .collect(),
            keys: topic.keys.iter().copied().collect(),
        })
    });
    topics.collect()
}
