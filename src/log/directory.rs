//! The data directory: its meta file, its lock, a folder for each partition. Knows no log.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::id::{PARTITIONS_MAX, Partition};

use super::layout::{array_at, u16_at, u32_at, u64_at};
use super::storage::Folder;

/// The function that tells a topic's partition, by the name the meta file holds.
pub const PLACE_FUNCTION: &str = "xxh3-64 seed 0";

const META_MAGIC: &[u8; 8] = b"TGMETA\x00\x01";
const META_COPY_BYTES: usize = 512;
const META_VERSION: u16 = 1;
const META_FIELDS_BYTES: usize = 48;
const _: () = assert!(META_FIELDS_BYTES == 8 + 4 + 2 + 2 + 8 + 24);
const _: () = assert!(META_FIELDS_BYTES <= META_COPY_BYTES);

/// A data directory that this process has locked.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    meta: Meta,
    /// The lock lasts as long as the descriptor.
    _lock: File,
}

/// What is fixed when a data directory is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The number of partitions.
    pub partitions: u16,
    /// A secret that every stored checksum covers.
    pub salt: u64,
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
    /// Its meta file is bad, or it is written by a version that this one does not know.
    #[error("meta file of data directory {0} is missing, damaged or of an unknown version")]
    Meta(PathBuf),
    /// The number of partitions is no number of partitions.
    #[error("{0} partitions: must be between 1 and 4096")]
    Partitions(u16),
    /// The system refused.
    #[error("data directory {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

impl DataDirectory {
    /// Opens the directory and locks it, or makes one with `meta`: one that is there keeps its own.
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
            Err(DirectoryError::Missing(_)) if folder_path(path, Partition(0)).exists() => {
                return Err(DirectoryError::Meta(path.to_owned()));
            }
            Err(DirectoryError::Missing(_)) => {
                write_meta(path, meta).map_err(failed)?;
                meta
            }
            found => found?,
        };
        for partition in 0..meta.partitions {
            create_folder(&folder_path(path, Partition(partition))).map_err(failed)?;
        }
        sync_folder(path).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            meta,
            _lock: lock,
        })
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
        let meta = bytes.chunks(META_COPY_BYTES).find_map(decode_meta);
        meta.ok_or_else(|| DirectoryError::Meta(path.to_owned()))
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

fn folder_path(path: &Path, partition: Partition) -> PathBuf {
    path.join(format!("partition-{:04}", partition.0))
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

/// Written beside and renamed, so that a crash leaves no meta file or a whole one.
fn write_meta(path: &Path, meta: Meta) -> io::Result<()> {
    let fresh = path.join("meta.new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    let copy = encode_meta(meta);
    file.write_all(&copy)?;
    file.write_all(&copy)?;
    file.sync_all()?;
    std::fs::rename(fresh, path.join("meta"))?;
    sync_folder(path)
}

/// Stored twice: one flipped bit must not cost the directory.
fn encode_meta(meta: Meta) -> Vec<u8> {
    let mut name = [0; 24];
    name[..PLACE_FUNCTION.len()].copy_from_slice(PLACE_FUNCTION.as_bytes());
    let mut out = Vec::with_capacity(META_COPY_BYTES);
    out.extend_from_slice(META_MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&META_VERSION.to_le_bytes());
    out.extend_from_slice(&meta.partitions.to_le_bytes());
    out.extend_from_slice(&meta.salt.to_le_bytes());
    out.extend_from_slice(&name);
    debug_assert_eq!(out.len(), META_FIELDS_BYTES);
    let crc = crc32c::crc32c(&out);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out.resize(META_COPY_BYTES, 0);
    out
}

fn decode_meta(copy: &[u8]) -> Option<Meta> {
    let mut fields: [u8; META_FIELDS_BYTES] = array_at(copy.get(..META_FIELDS_BYTES)?, 0);
    let crc = u32_at(&fields, 8);
    fields[8..12].fill(0);
    let (version, partitions) = (u16_at(&fields, 12), u16_at(&fields, 14));
    let name = fields[24..].split(|&byte| byte == 0).next()?;
    let known = &fields[..8] == META_MAGIC
        && crc == crc32c::crc32c(&fields)
        && version == META_VERSION
        && name == PLACE_FUNCTION.as_bytes()
        && (1..=PARTITIONS_MAX).contains(&partitions);
    known.then(|| Meta {
        partitions,
        salt: u64_at(&fields, 16),
    })
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
