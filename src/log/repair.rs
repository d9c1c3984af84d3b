//! Takes files out of the way of a start: what no start can use is moved to a folder of its own, by a
//! plan that is told before anything is done. Deletes nothing, and leaves alone what it does not
//! understand as a whole: a directory with another meta file wants that file back. Offline.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::id::Partition;

use super::checkpoint_bytes::Checkpoint;
use super::directory::{DataDirectory, DirectoryError, folder_name};
use super::lack::is_damage;
use super::recovery::{
    Identity, RecoverError, RecoveryReport, newest_checkpoint, replay_files, unused_segments,
};
use super::storage::{Change, FileName, Folder, Storage, Target, load};
use super::survey::Survey;
use super::verify::VerifyError;

/// What a repair would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairPlan {
    /// Files to be moved away.
    pub moves: Vec<RepairMove>,
    /// What is wrong and no repair can mend, with what to do about it.
    pub left: Vec<String>,
}

/// One file to be moved away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairMove {
    /// Of which partition.
    pub partition: Partition,
    /// Its name in the folder of the partition.
    pub file: String,
    /// What is wrong with it, and what a start does without it.
    pub reason: String,
}

/// Looks at a directory that no server uses and tells what would be moved. Changes nothing.
pub fn plan_repair(path: &Path) -> Result<RepairPlan, VerifyError> {
    let directory = DataDirectory::open_existing(path)?;
    let meta = directory.fixed();
    let mut plan = RepairPlan::default();
    for partition in (0..meta.partitions).map(Partition) {
        if directory.folder_path(partition).is_dir() {
            let mut seen = Without::new(directory.folder(partition));
            let identity = meta.identity(partition);
            look(&mut seen, identity, &mut plan)?;
        }
    }
    if plan.moves.is_empty()
        && let Err(error) = directory.check()
    {
        plan.left.push(error.to_string());
    }
    plan.left.dedup();
    Ok(plan)
}

/// Moves what the plan names, and tells where to. The folder and the names in it are as they were.
///
/// # Errors
/// When the directory is in use, or a file cannot be moved; what was moved before that stays so.
pub fn repair(path: &Path, plan: &RepairPlan) -> Result<PathBuf, VerifyError> {
    let _directory = DataDirectory::open_existing(path)?;
    let quarantine = unused_name(path);
    for step in &plan.moves {
        let name = folder_name(step.partition);
        let (from, to) = (path.join(&name), quarantine.join(&name));
        let failed = |error| DirectoryError::Io(from.join(&step.file), error);
        std::fs::create_dir_all(&to).map_err(failed)?;
        std::fs::rename(from.join(&step.file), to.join(&step.file)).map_err(failed)?;
        for folder in [&to, &from] {
            let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(failed)?;
        }
    }
    Ok(quarantine)
}

/// Never one that is there: what was moved before stays apart.
fn unused_name(path: &Path) -> PathBuf {
    let name = |number| path.join(format!("quarantine-{number:04}"));
    let mut numbers = 1_u32..;
    let free = numbers.find(|&number| !name(number).exists());
    name(free.unwrap_or(u32::MAX))
}

/// Goes through one partition as a start would, and hides what stands in its way.
fn look(seen: &mut Without, identity: Identity, plan: &mut RepairPlan) -> Result<(), VerifyError> {
    let mut reasons: BTreeMap<FileName, String> = BTreeMap::new();
    let files = loop {
        match try_start(seen, identity) {
            Ok(files) => break files,
            Err(RecoverError::Version { .. }) if reasons.is_empty() => {
                let error = try_start(seen, identity).err();
                plan.left.extend(error.map(|error| error.to_string()));
                return Ok(());
            }
            Err(error) => match file_of(&error).filter(|file| !seen.hidden.contains(file)) {
                Some(file) => {
                    seen.hidden.insert(file);
                    reasons.insert(file, format!("{error}"));
                }
                None => return Err(error.into()),
            },
        }
    };
    if !reasons.is_empty() && !files.is_known {
        // Nothing here is its own, so it is the meta file that is wrong.
        plan.left.extend(reasons.into_values().take(1));
        return Ok(());
    }
    bad_checkpoints(seen, identity, &files, &mut reasons)?;
    for id in unknown_segments(seen, identity, &files)? {
        let reason = "no part of the log, and not blank: a start leaves it where it is";
        reasons.insert(FileName::Segment(id), reason.to_owned());
    }
    let partition = identity.partition;
    plan.moves
        .extend(reasons.into_iter().map(|(file, reason)| RepairMove {
            partition,
            file: file.file_name(),
            reason,
        }));
    Ok(())
}

/// What a start reads, as far as the first file that ends it.
fn try_start(seen: &mut Without, identity: Identity) -> Result<Survey, RecoverError> {
    let files = Survey::of(seen, identity)?;
    let mut report = RecoveryReport::default();
    let checkpoint = newest_checkpoint(seen, &files, identity, &mut report)?;
    replay_files(seen, &files, identity.salt, checkpoint, &mut report)?;
    Ok(files)
}

fn unknown_segments(
    seen: &mut Without,
    identity: Identity,
    files: &Survey,
) -> Result<Vec<u64>, RecoverError> {
    let mut report = RecoveryReport::default();
    let checkpoint = newest_checkpoint(seen, files, identity, &mut report)?;
    let found = replay_files(seen, files, identity.salt, checkpoint, &mut report)?;
    unused_segments(files, &found, &mut report);
    Ok(report.segments_unknown)
}

fn bad_checkpoints(
    seen: &mut Without,
    identity: Identity,
    files: &Survey,
    reasons: &mut BTreeMap<FileName, String>,
) -> Result<(), RecoverError> {
    for &number in &files.checkpoints {
        let file = FileName::Checkpoint(number);
        let bytes = match load(seen, file) {
            Err(error) if is_damage(&error) => Vec::new(),
            bytes => bytes.map_err(|error| RecoverError::io(&file.file_name(), error))?,
        };
        if Checkpoint::decode(&bytes, identity, number).is_none() {
            let reason = "not whole: a start uses an older one, or reads all segments";
            reasons.insert(file, reason.to_owned());
        }
    }
    Ok(())
}

/// The file that an error is of, if moving it away is a way on.
fn file_of(error: &RecoverError) -> Option<FileName> {
    let name = match error {
        RecoverError::Io { file, source } if is_damage(source) => file,
        RecoverError::OtherDirectory { file, .. } | RecoverError::OtherPartition { file, .. } => {
            file
        }
        RecoverError::Io { .. } | RecoverError::Version { .. } => return None,
    };
    FileName::parse(name)
}

/// A folder without some of its files. Nothing is written to it.
#[derive(Debug)]
struct Without {
    folder: Folder,
    hidden: BTreeSet<FileName>,
}

impl Without {
    fn new(folder: Folder) -> Self {
        let hidden = BTreeSet::new();
        Self { folder, hidden }
    }
}

impl Storage for Without {
    fn list(&mut self) -> io::Result<Vec<(FileName, u64)>> {
        let mut files = self.folder.list()?;
        files.retain(|(file, _)| !self.hidden.contains(file));
        Ok(files)
    }

    fn read(&mut self, file: FileName, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.folder.read(file, offset, into)
    }

    fn write(&mut self, _: FileName, _: u64, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&mut self, _: Target) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn change(&mut self, _: Change) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn folder(&self) -> &Path {
        self.folder.folder()
    }
}
