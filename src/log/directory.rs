//! The data directory: its meta file, its lock, a folder for each partition with a mark of whose it
//! is. Knows no log. A directory is looked at as a whole before anything in it is changed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::id::{PARTITIONS_MAX, Partition};

use super::meta::{
    IDENTITY_FILE, META_COPY_BYTES, META_VERSION, Meta, MetaFound, PLACE_FUNCTION, decode_identity,
    decode_meta, encode_identity, encode_meta,
};
use super::recovery::{Identity, RecoverError};
use super::storage::{FileName, Folder};
use super::survey::Survey;

/// A data directory that this process has locked.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    meta: Meta,
    /// The lock lasts as long as the descriptor.
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process has it.
    #[error(
        "data directory {0} is locked: another tidegate serves it; stop that one or choose another --data"
    )]
    Locked(PathBuf),
    /// There is none.
    #[error("{0} is no data directory: it holds no meta file")]
    Missing(PathBuf),
    /// There are logs and no meta file: without its secret no stored byte validates.
    #[error(
        "data directory {0} holds logs and no meta file; put back the one that was made with them (nothing was changed)"
    )]
    Bare(PathBuf),
    /// Both copies of its meta file are bad.
    #[error(
        "meta file of data directory {0} is damaged; put back a copy of it (nothing was changed)"
    )]
    Meta(PathBuf),
    /// Its meta file is of another version of the format.
    #[error(
        "meta file of data directory {path} has version {found} of the format, and this program reads version {expected}; start the tidegate that wrote it (nothing was changed)"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// What this program reads.
        expected: u16,
        /// What was found.
        found: u16,
    },
    /// Its topics were given to partitions by a function that this version does not have.
    #[error(
        "meta file of data directory {path} names the place function \"{found}\", and this program has \"{expected}\"; start the tidegate that wrote it (nothing was changed)"
    )]
    PlaceFunction {
        /// The directory.
        path: PathBuf,
        /// What this program has.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// The folder of a partition is not there.
    #[error(
        "data directory {path} has {partitions} partitions, and the folder {name} is missing; mount the disk that holds it, or put it back (nothing was changed)"
    )]
    PartitionMissing {
        /// The directory.
        path: PathBuf,
        /// As its meta file says.
        partitions: u16,
        /// The folder.
        name: String,
    },
    /// The folder of a partition is empty, and others are not.
    #[error(
        "data directory {path}: the folder {name} is empty; mount the disk that belongs there, or put its files back (nothing was changed)"
    )]
    PartitionEmpty {
        /// The directory.
        path: PathBuf,
        /// The folder.
        name: String,
    },
    /// There are files of more partitions than there should be.
    #[error(
        "data directory {path} has {partitions} partitions by its meta file, and there are files in {name}; put back the meta file that was made with them (nothing was changed)"
    )]
    PartitionBeyond {
        /// The directory.
        path: PathBuf,
        /// As its meta file says.
        partitions: u16,
        /// The folder.
        name: String,
    },
    /// Nothing in the folder of a partition is what this directory would have written.
    #[error(
        "data directory {path}: no file in {name} is of this directory; put back the meta file that was made with them (nothing was changed)"
    )]
    PartitionUnknown {
        /// The directory.
        path: PathBuf,
        /// The folder.
        name: String,
    },
    /// The files of a partition are not those of this directory.
    #[error("{folder}: {source}", folder = folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with them.
        source: RecoverError,
    },
    /// The number of partitions is no number of partitions.
    #[error("{0} partitions: must be between 1 and 4096")]
    Partitions(u16),
    /// The system refused.
    #[error("data directory {0}: {1}; {mend}", mend = mend(.1))]
    Io(PathBuf, #[source] io::Error),
}

impl DirectoryError {
    /// Whether it may be gone by itself: the process that has the directory ends one day.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Locked(_) => true,
            Self::Io(_, error) => !is_of_setup(error.kind()),
            _ => false,
        }
    }
}

/// Nobody but an operator changes it.
fn is_of_setup(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as K;
    matches!(
        kind,
        K::PermissionDenied | K::ReadOnlyFilesystem | K::NotADirectory | K::NotFound
    )
}

/// What to do about what the system refused.
fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give it to the user of this process (chown, chmod 700), or choose another --data"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "mount it writable, or choose another --data (ReadWritePaths= under systemd)"
        }
        io::ErrorKind::NotADirectory => "move the file away, or choose another --data",
        io::ErrorKind::StorageFull => "make room on its disk, or choose another --data",
        _ => "choose another --data if this one cannot be used",
    }
}

impl DataDirectory {
    /// Opens the directory and locks it, or makes one with `meta`: one that is there keeps its own,
    /// and is refused unchanged if anything in it is not its own.
    pub fn open(path: &Path, meta: Meta) -> Result<Self, DirectoryError> {
        if !(1..=PARTITIONS_MAX).contains(&meta.partitions) {
            return Err(DirectoryError::Partitions(meta.partitions));
        }
        let failed = |error| DirectoryError::Io(path.to_owned(), error);
        create_folder(path).map_err(failed)?;
        let lock = lock(path)?;
        let meta = match Self::meta(path) {
            // Without its secret no stored byte validates, so logs without a meta file are not
            // taken for an empty directory.
            Err(DirectoryError::Missing(_)) if holds_logs(path).map_err(failed)? => {
                return Err(DirectoryError::Bare(path.to_owned()));
            }
            // The meta file comes last: a directory that has one is complete.
            Err(DirectoryError::Missing(_)) => {
                for partition in (0..meta.partitions).map(Partition) {
                    create_folder(&folder_path(path, partition)).map_err(failed)?;
                    write_identity(path, meta.identity(partition)).map_err(failed)?;
                }
                sync_folder(path).map_err(failed)?;
                write_meta(path, meta).map_err(failed)?;
                meta
            }
            found => found?,
        };
        let directory = Self {
            path: path.to_owned(),
            meta,
            _lock: lock,
        };
        directory.check()?;
        for partition in (0..meta.partitions).map(Partition) {
            if !matches!(directory.mark(partition), Ok(Mark::Known(_))) {
                write_identity(path, meta.identity(partition)).map_err(failed)?;
            }
        }
        Ok(directory)
    }

    /// Whether everything that stands in it is its own.
    pub(super) fn check(&self) -> Result<(), DirectoryError> {
        let partitions = self.meta.partitions;
        let failed = |error| DirectoryError::Io(self.path.clone(), error);
        for (partition, is_used) in partitions_there(&self.path).map_err(failed)? {
            if partitions <= partition.0 && is_used {
                return Err(DirectoryError::PartitionBeyond {
                    path: self.path.clone(),
                    partitions,
                    name: folder_name(partition),
                });
            }
        }
        let all = (0..partitions).map(Partition);
        let mut unmarked = Vec::new();
        for partition in all {
            if !self.folder_path(partition).is_dir() {
                return Err(DirectoryError::PartitionMissing {
                    path: self.path.clone(),
                    partitions,
                    name: folder_name(partition),
                });
            }
            if self.check_partition(partition)? == Standing::Empty {
                unmarked.push(partition);
            }
        }
        // All of them are empty where the very first start was cut short.
        match unmarked.first() {
            Some(&partition) if unmarked.len() < usize::from(partitions) => {
                Err(DirectoryError::PartitionEmpty {
                    path: self.path.clone(),
                    name: folder_name(partition),
                })
            }
            _ => Ok(()),
        }
    }

    fn check_partition(&self, partition: Partition) -> Result<Standing, DirectoryError> {
        let folder = self.folder_path(partition);
        let foreign = |source| DirectoryError::Foreign {
            folder: folder.clone(),
            source,
        };
        let mark = self.mark(partition);
        let mark = mark.map_err(|error| DirectoryError::Io(folder.clone(), error))?;
        let identity = self.meta.identity(partition);
        if let Mark::Known(found) = mark {
            super::survey::check_owner(IDENTITY_FILE, identity, (found.salt, found.partition))
                .map_err(foreign)?;
        }
        let survey = match Survey::of(&mut self.folder(partition), identity) {
            // What cannot be read costs this partition alone, which its recovery will say.
            Err(error) if error.is_damage() => return Ok(Standing::Known),
            survey => survey.map_err(foreign)?,
        };
        let is_marked = !matches!(mark, Mark::Missing);
        if survey.segments.is_empty() && survey.checkpoints.is_empty() {
            return Ok(if is_marked {
                Standing::Known
            } else {
                Standing::Empty
            });
        }
        match is_marked || survey.is_known || survey.is_blank() {
            true => Ok(Standing::Known),
            false => Err(DirectoryError::PartitionUnknown {
                path: self.path.clone(),
                name: folder_name(partition),
            }),
        }
    }

    fn mark(&self, partition: Partition) -> io::Result<Mark> {
        let path = self.folder_path(partition).join(IDENTITY_FILE);
        match std::fs::read(path) {
            Ok(bytes) => Ok(decode_identity(&bytes).map_or(Mark::Bad, Mark::Known)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Mark::Missing),
            // Nothing else says that the files are not ours.
            Err(error) if super::lack::is_damage(&error) => Ok(Mark::Bad),
            Err(error) => Err(error),
        }
    }

    /// Locks a directory that must exist: for the command line, which makes none.
    pub fn open_existing(path: &Path) -> Result<Self, DirectoryError> {
        let meta = Self::meta(path)?;
        let lock = lock(path)?;
        Ok(Self {
            path: path.to_owned(),
            meta,
            _lock: lock,
        })
    }

    /// Reads the meta file.
    pub fn meta(path: &Path) -> Result<Meta, DirectoryError> {
        let mut bytes = Vec::new();
        match File::open(path.join("meta")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DirectoryError::Missing(path.to_owned()));
            }
            file => file.and_then(|mut file| file.read_to_end(&mut bytes)),
        }
        .map_err(|error| DirectoryError::Io(path.to_owned(), error))?;
        let mut other = None;
        for copy in bytes.chunks(META_COPY_BYTES) {
            match decode_meta(copy) {
                MetaFound::Known(meta) => return Ok(meta),
                MetaFound::Damaged => {}
                found => other = Some(found),
            }
        }
        let path = path.to_owned();
        Err(match other {
            Some(MetaFound::Version(found)) => DirectoryError::Version {
                path,
                expected: META_VERSION,
                found,
            },
            Some(MetaFound::PlaceFunction(found)) => DirectoryError::PlaceFunction {
                path,
                expected: PLACE_FUNCTION,
                found,
            },
            _ => DirectoryError::Meta(path),
        })
    }

    /// What was fixed when it was made.
    pub fn fixed(&self) -> Meta {
        self.meta
    }

    /// The files of one partition.
    pub fn folder(&self, partition: Partition) -> Folder {
        assert!(
            partition.0 < self.meta.partitions,
            "a partition of this directory"
        );
        Folder::new(&self.folder_path(partition))
    }

    /// Where the files of one partition are.
    pub fn folder_path(&self, partition: Partition) -> PathBuf {
        folder_path(&self.path, partition)
    }
}

/// What the folder of a partition says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Known(Identity),
    /// Damaged, which the files beside it make good.
    Bad,
    /// Versions before wrote none, and where a disk is not mounted there is none.
    Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Known,
    /// No file and no mark: new, or a disk that is not mounted.
    Empty,
}

pub(super) fn folder_name(partition: Partition) -> String {
    format!("partition-{:04}", partition.0)
}

fn folder_path(path: &Path, partition: Partition) -> PathBuf {
    path.join(folder_name(partition))
}

/// The folders of partitions, and whether there are files of a log in them.
fn partitions_there(path: &Path) -> io::Result<Vec<(Partition, bool)>> {
    let mut there = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("partition-"));
        let Some(partition) = number.and_then(|number| number.parse().ok()).map(Partition) else {
            continue;
        };
        if entry.path().is_dir() {
            let is_log = |file: io::Result<std::fs::DirEntry>| {
                let name = file.map(|file| file.file_name());
                name.map(|name| name.to_str().and_then(FileName::parse).is_some())
            };
            let mut files = std::fs::read_dir(entry.path())?.map(is_log);
            let is_used = files.find(|is_log| !matches!(is_log, Ok(false)));
            there.push((partition, is_used.transpose()?.is_some()));
        }
    }
    there.sort_unstable();
    Ok(there)
}

fn holds_logs(path: &Path) -> io::Result<bool> {
    Ok(partitions_there(path)?.iter().any(|(_, is_used)| *is_used))
}

fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => Ok(()),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn lock(path: &Path) -> Result<File, DirectoryError> {
    let failed = |error| DirectoryError::Io(path.to_owned(), error);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path.join("lock")).map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DirectoryError::Locked(path.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

fn write_meta(path: &Path, meta: Meta) -> io::Result<()> {
    let copy = encode_meta(meta);
    write_beside(path, "meta", &[copy.clone(), copy].concat())
}

/// Written beside and renamed, so that a crash leaves no file or a whole one.
fn write_beside(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fresh = folder.join(format!("{name}.new"));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(fresh, folder.join(name))?;
    sync_folder(folder)
}

fn write_identity(path: &Path, identity: Identity) -> io::Result<()> {
    let folder = folder_path(path, identity.partition);
    write_beside(&folder, IDENTITY_FILE, &encode_identity(identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: Meta = Meta {
        partitions: 4,
        salt: 0x5a17,
    };

    #[test]
    fn a_directory_keeps_the_partitions_it_was_made_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        drop(DataDirectory::open(&path, META).unwrap());
        let again = DataDirectory::open(
            &path,
            Meta {
                partitions: 9,
                salt: 1,
            },
        )
        .unwrap();
        assert_eq!(again.fixed(), META);
        assert!(again.folder_path(Partition(3)).is_dir());
    }

    #[test]
    fn a_second_process_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(dir.path(), META).unwrap();
        let second = DataDirectory::open(dir.path(), META).unwrap_err();
        assert!(matches!(second, DirectoryError::Locked(_)), "{second}");
        drop(first);
        DataDirectory::open_existing(dir.path()).unwrap();
    }

    #[test]
    fn one_flipped_bit_does_not_cost_the_directory_two_do() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDirectory::open(dir.path(), META).unwrap());
        let meta = dir.path().join("meta");
        let mut bytes = std::fs::read(&meta).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&meta, &bytes).unwrap();
        assert_eq!(DataDirectory::meta(dir.path()).unwrap(), META);
        bytes[META_COPY_BYTES + 20] ^= 1;
        std::fs::write(&meta, &bytes).unwrap();
        assert!(matches!(
            DataDirectory::meta(dir.path()),
            Err(DirectoryError::Meta(_))
        ));
    }
}
