//! Whose files stand in the folder of a partition, told before anything in it is changed: files of
//! another directory, another partition or a later format end the start, and a file that nobody
//! understands is never taken for one that nobody needs. Knows heads of files, not what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::id::Partition;

use super::checkpoint_bytes::{CHECKPOINT_HEAD_BYTES, CheckpointHead, is_whole};
use super::layout::VERSION;
use super::recovery::{Identity, RecoverError};
use super::segment::{FoundHead, SegmentHead};
use super::storage::{FileName, Storage, load, read_some};

/// What a segment file is, by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its head is intact and its own.
    Own(SegmentHead),
    /// Its head is intact and names this older segment: the file was to be used again.
    Reused(u64),
    /// Nothing but zeroes.
    Blank,
    /// Something else stands there.
    Unknown,
    /// Its head cannot be read.
    Unreadable,
}

/// The files of a partition, by kind and number.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Sizes.
    pub(super) segments: BTreeMap<u64, u64>,
    pub(super) kinds: BTreeMap<u64, Kind>,
    pub(super) indexes: BTreeSet<u64>,
    pub(super) checkpoints: BTreeSet<u64>,
    /// Sizes of checkpoints, ..
    pub(super) checkpoint_bytes: BTreeMap<u64, u64>,
    /// .. and of the ballast.
    pub(super) ballasts: BTreeMap<u64, u64>,
    /// Whether a file of this directory and partition was met.
    pub(super) is_known: bool,
}

impl Survey {
    /// Whether there is a file for a segment, whatever is in it.
    pub(super) fn has(&self, segment: u64) -> bool {
        self.segments.contains_key(&segment)
    }

    /// Looks at every file.
    pub(super) fn of(storage: &mut impl Storage, identity: Identity) -> Result<Self, RecoverError> {
        let mut survey = Self::list(storage)?;
        let ids: Vec<u64> = survey.segments.keys().copied().collect();
        for id in ids {
            let kind = survey.segment_kind(storage, identity, id)?;
            survey.is_known |= matches!(kind, Kind::Own(_) | Kind::Reused(_));
            survey.kinds.insert(id, kind);
        }
        for number in survey.checkpoints.clone() {
            survey.is_known |= check_checkpoint(storage, identity, number)?;
        }
        Ok(survey)
    }

    fn list(storage: &mut impl Storage) -> Result<Self, RecoverError> {
        let mut survey = Self::default();
        let files = storage
            .list()
            .map_err(|source| RecoverError::io("the folder", source))?;
        for (name, bytes) in files {
            match name {
                FileName::Segment(id) => drop(survey.segments.insert(id, bytes)),
                FileName::Index(id) => drop(survey.indexes.insert(id)),
                FileName::Checkpoint(id) => {
                    survey.checkpoints.insert(id);
                    survey.checkpoint_bytes.insert(id, bytes);
                }
                FileName::Ballast(id) => drop(survey.ballasts.insert(id, bytes)),
            }
        }
        Ok(survey)
    }

    /// Whether no segment holds anything.
    pub(super) fn is_blank(&self) -> bool {
        self.checkpoints.is_empty() && self.kinds.values().all(|kind| *kind == Kind::Blank)
    }

    /// The intact heads of segments from `start` on.
    pub(super) fn heads(&self, start: u64) -> BTreeMap<u64, SegmentHead> {
        let own = |(id, kind): (&u64, &Kind)| match kind {
            Kind::Own(head) => Some((*id, *head)),
            _ => None,
        };
        self.kinds.range(start..).filter_map(own).collect()
    }

    pub(super) fn kind(&self, id: u64) -> Kind {
        self.kinds.get(&id).copied().unwrap_or(Kind::Unknown)
    }

    fn segment_kind(
        &self,
        storage: &mut impl Storage,
        identity: Identity,
        id: u64,
    ) -> Result<Kind, RecoverError> {
        let file = FileName::Segment(id);
        let mut bytes = [0; HEAD_PROBE_BYTES];
        let count = match read_some(storage, file, 0, &mut bytes) {
            Ok(count) => count,
            Err(error) if super::lack::is_damage(&error) => return Ok(Kind::Unreadable),
            Err(error) => return Err(RecoverError::io(&file.file_name(), error)),
        };
        let Some(found) = FoundHead::decode(&bytes[..count]) else {
            let is_blank = bytes[..count].iter().all(|&byte| byte == 0);
            return match is_blank && is_blank_to_its_end(storage, id)? {
                true => Ok(Kind::Blank),
                false => Ok(Kind::Unknown),
            };
        };
        let file = file.file_name();
        check_version(&file, found.version)?;
        check_owner(&file, identity, (found.salt, found.head.partition))?;
        Ok(match found.segment {
            own if own == id => Kind::Own(found.head),
            // One that is still there under its own name was copied, not used again.
            older if older < id && !self.segments.contains_key(&older) => Kind::Reused(older),
            _ => Kind::Unknown,
        })
    }
}

fn check_version(file: &str, found: u8) -> Result<(), RecoverError> {
    if found == VERSION {
        return Ok(());
    }
    Err(RecoverError::Version {
        file: file.to_owned(),
        expected: VERSION,
        found,
    })
}

pub(super) fn check_owner(
    file: &str,
    identity: Identity,
    (salt, partition): (u64, Partition),
) -> Result<(), RecoverError> {
    if salt != identity.salt {
        return Err(RecoverError::OtherDirectory {
            file: file.to_owned(),
            expected: mark(identity.salt),
            found: mark(salt),
        });
    }
    if partition != identity.partition {
        return Err(RecoverError::OtherPartition {
            file: file.to_owned(),
            expected: identity.partition.0,
            found: partition.0,
        });
    }
    Ok(())
}

/// What may be shown of the secret of a directory.
pub(super) fn mark(salt: u64) -> u32 {
    crc32c::crc32c(&salt.to_le_bytes())
}

/// A checkpoint that does not fit is only foreign if it is whole: damage costs nothing. Tells
/// whether it is one of ours by its head.
fn check_checkpoint(
    storage: &mut impl Storage,
    identity: Identity,
    number: u64,
) -> Result<bool, RecoverError> {
    let file = FileName::Checkpoint(number);
    let mut bytes = [0; CHECKPOINT_HEAD_BYTES];
    let count = match read_some(storage, file, 0, &mut bytes) {
        Ok(count) => count,
        Err(error) if super::lack::is_damage(&error) => return Ok(false),
        Err(error) => return Err(RecoverError::io(&file.file_name(), error)),
    };
    let Some(head) = CheckpointHead::decode(&bytes[..count]) else {
        return Ok(false);
    };
    let name = file.file_name();
    let checked = check_version(&name, head.version)
        .and_then(|()| check_owner(&name, identity, (head.salt, Partition(head.partition))));
    let Err(error) = checked else {
        return Ok(true);
    };
    match load(storage, file) {
        Ok(bytes) if is_whole(&bytes) => Err(error),
        Ok(_) => Ok(false),
        Err(source) if super::lack::is_damage(&source) => Ok(false),
        Err(source) => Err(RecoverError::io(&name, source)),
    }
}

/// One that was only prepared holds zeroes to its end.
fn is_blank_to_its_end(storage: &mut impl Storage, id: u64) -> Result<bool, RecoverError> {
    let file = FileName::Segment(id);
    let mut bytes = vec![0; BLANK_PROBE_BYTES];
    let mut offset = 0;
    loop {
        match read_some(storage, file, offset, &mut bytes) {
            Ok(0) => return Ok(true),
            Ok(count) if bytes[..count].iter().any(|&byte| byte != 0) => return Ok(false),
            Ok(count) => offset += count as u64,
            Err(error) if super::lack::is_damage(&error) => return Ok(false),
            Err(error) => return Err(RecoverError::io(&file.file_name(), error)),
        }
    }
}

impl RecoverError {
    /// Whether bytes cannot be read, and so will not be at the next start either: this partition
    /// alone is lost until somebody looks at it.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Io { source, .. } if super::lack::is_damage(source))
    }

    pub(super) fn io(file: &str, source: io::Error) -> Self {
        Self::Io {
            file: file.to_owned(),
            source,
        }
    }
}

const HEAD_PROBE_BYTES: usize = 128;
const BLANK_PROBE_BYTES: usize = 1 << 20;
