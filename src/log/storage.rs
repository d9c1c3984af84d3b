//! What the log needs of a disk: the operations that the live log asks for, the five verbs that
//! carry them out, and the file system that does. Knows names and bytes, not what is in them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;

use super::lack::is_passing;
use super::layout::to_usize;
use super::mapped::SegmentMap;

/// The files of a partition. Their numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileName {
    /// Batches.
    Segment(u64),
    /// Where the messages of a full segment stand; can be made again from the segment.
    Index(u64),
    /// The state at a position of the log; can be made again from the segments.
    Checkpoint(u64),
    /// Space kept for when the disk is full. Nothing in it is ever read.
    Ballast(u64),
}

impl FileName {
    /// The name inside the partition's folder.
    pub fn file_name(self) -> String {
        match self {
            Self::Segment(id) => format!("{id:016}.segment"),
            Self::Index(id) => format!("{id:016}.index"),
            Self::Checkpoint(id) => format!("{id:016}.checkpoint"),
            Self::Ballast(id) => format!("{id:016}.ballast"),
        }
    }

    /// The file of that name; `None` if it is none of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let (number, kind) = name.split_once('.')?;
        let id = number.parse().ok()?;
        let file = match kind {
            "segment" => Self::Segment(id),
            "index" => Self::Index(id),
            "checkpoint" => Self::Checkpoint(id),
            "ballast" => Self::Ballast(id),
            _ => return None,
        };
        (file.file_name() == name).then_some(file)
    }
}

/// One operation that the live log asks for. Operations handed out at the same time may be
/// carried out in any order and at once; the steps of one operation in the order written.
#[derive(Debug, Clone)]
pub enum Op {
    /// Open for reading and writing, made new and empty with mode 0600; then take `bytes` of
    /// space (`fallocate`), if not 0.
    Create {
        /// The file.
        file: FileName,
        /// The space to take.
        bytes: u64,
    },
    /// Take space up to `bytes` for a file that is there, without changing what is in it.
    Grow {
        /// The file.
        file: FileName,
        /// The size it is to have at least.
        bytes: u64,
    },
    /// Hold a descriptor of a file that is there, for the writes that will come.
    Open {
        /// The file.
        file: FileName,
    },
    /// Write at `offset`; if `sync`, its end means that what it wrote is on the disk.
    /// Answered by the count; a short count is continued by the log.
    Write {
        /// The file; it is opened first if no descriptor of it is held.
        file: FileName,
        /// Where.
        offset: u64,
        /// What.
        bytes: Bytes,
        /// Whether to sync behind it.
        sync: bool,
    },
    /// fdatasync of a file.
    Sync {
        /// The file.
        file: FileName,
    },
    /// fsync of the partition's folder.
    SyncDirectory,
    /// Give a file a new name. A descriptor that is held of it stays.
    Rename {
        /// The old name.
        from: FileName,
        /// The new name.
        to: FileName,
    },
    /// Remove a file; one that is not there counts as removed.
    Remove {
        /// The file.
        file: FileName,
    },
    /// Forget the descriptor: nothing more will be written to it.
    Close {
        /// The file.
        file: FileName,
    },
    /// Read a whole file. Answered by its bytes.
    Load {
        /// The file.
        file: FileName,
    },
    /// Map a whole file for reading. Answered by the map.
    Map {
        /// The file.
        file: FileName,
    },
    /// `MADV_POPULATE_READ` on a window of a map.
    Populate {
        /// The map.
        map: Arc<SegmentMap>,
        /// Start of the window, a multiple of the page.
        offset: usize,
        /// Its length.
        bytes: usize,
    },
}

/// The answer to an `Op` that did not fail.
#[derive(Debug)]
pub enum Done {
    /// Nothing to say.
    Unit,
    /// So many bytes were written.
    Count(usize),
    /// What was loaded.
    Bytes(Bytes),
    /// What was mapped.
    Map(SegmentMap),
}

/// A change of the folder.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// As `Op::Create`.
    Create(FileName, u64),
    /// As `Op::Grow`.
    Grow(FileName, u64),
    /// As `Op::Rename`.
    Rename(FileName, FileName),
    /// As `Op::Remove`.
    Remove(FileName),
}

/// What is made durable.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// The bytes of a file.
    File(FileName),
    /// The names in the folder.
    Directory,
}

/// Five verbs, blocking: for recovery, the command line and tests. The live log never waits and
/// so never calls them.
pub trait Storage {
    /// The files there are, with their lengths.
    fn list(&mut self) -> io::Result<Vec<(FileName, u64)>>;

    /// Fills as much of `into` as the file has from `offset` on.
    fn read(&mut self, file: FileName, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes some or all of `bytes`.
    fn write(&mut self, file: FileName, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Returns when the target is durable.
    fn sync(&mut self, target: Target) -> io::Result<()>;

    /// Changes the folder.
    fn change(&mut self, change: Change) -> io::Result<()>;

    /// Where the files are: maps are made from there.
    fn folder(&self) -> &Path;

    /// Maps a whole file for reading.
    fn map(&mut self, file: FileName) -> io::Result<SegmentMap> {
        let file = File::open(self.folder().join(file.file_name()))?;
        SegmentMap::new(&file)
    }

    /// Brings a window of a map into memory.
    fn populate(&mut self, map: &SegmentMap, offset: usize, bytes: usize) -> io::Result<()> {
        map.populate(offset, bytes)
    }
}

/// Carries out one operation of the live log with the five verbs: simulation, recovery and tests
/// run the same log as the shard does.
pub fn execute(storage: &mut impl Storage, op: &Op) -> io::Result<Done> {
    match op {
        Op::Create { file, bytes } => storage.change(Change::Create(*file, *bytes))?,
        Op::Grow { file, bytes } => storage.change(Change::Grow(*file, *bytes))?,
        Op::Write {
            file,
            offset,
            bytes,
            sync,
        } => {
            let count = storage.write(*file, *offset, bytes)?;
            if *sync && count == bytes.len() {
                storage.sync(Target::File(*file))?;
            }
            return Ok(Done::Count(count));
        }
        Op::Sync { file } => storage.sync(Target::File(*file))?,
        Op::SyncDirectory => storage.sync(Target::Directory)?,
        Op::Rename { from, to } => storage.change(Change::Rename(*from, *to))?,
        Op::Remove { file } => storage.change(Change::Remove(*file))?,
        Op::Close { .. } | Op::Open { .. } => {}
        Op::Load { file } => return load(storage, *file).map(|bytes| Done::Bytes(bytes.into())),
        Op::Map { file } => return storage.map(*file).map(Done::Map),
        Op::Populate { map, offset, bytes } => storage.populate(map, *offset, *bytes)?,
    }
    Ok(Done::Unit)
}

/// Fills as much of `into` as one read gives; what passes is tried again, a bounded number of times.
pub(super) fn read_some(
    storage: &mut impl Storage,
    file: FileName,
    offset: u64,
    into: &mut [u8],
) -> io::Result<usize> {
    patiently(|| storage.read(file, offset, into))
}

/// Asks again for what only lacks something for the moment.
pub(super) fn patiently<T>(mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES_MAX {
        match ask() {
            Err(error) if is_passing(&error) => std::thread::yield_now(),
            result => return result,
        }
    }
    ask()
}

/// How often a blocking operation is tried again; the live log has time and needs no such bound.
const TRIES_MAX: usize = 64;

/// A whole file.
pub(super) fn load(storage: &mut impl Storage, file: FileName) -> io::Result<Vec<u8>> {
    let len = patiently(|| storage.list())?
        .iter()
        .find(|(name, _)| *name == file)
        .map(|(_, len)| *len);
    let len = len.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut bytes = vec![0; to_usize(len)];
    let mut filled = 0;
    while filled < bytes.len() {
        match read_some(storage, file, filled as u64, &mut bytes[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(bytes)
}

/// Writes all of `bytes`, however short each write is.
pub(super) fn write_all(
    storage: &mut impl Storage,
    file: FileName,
    offset: u64,
    bytes: &[u8],
) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match patiently(|| storage.write(file, offset + written as u64, &bytes[written..]))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => written += count,
        }
    }
    Ok(())
}

/// A folder of a real file system.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    open: AHashMap<FileName, File>,
}

/// Descriptors kept open by a `Folder`.
const OPEN_FILES_MAX: usize = 32;

impl Folder {
    /// The folder at `path`, which must exist.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            open: AHashMap::new(),
        }
    }

    fn file(&mut self, name: FileName) -> io::Result<&File> {
        if OPEN_FILES_MAX <= self.open.len() && !self.open.contains_key(&name) {
            self.open.clear();
        }
        match self.open.entry(name) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let path = self.path.join(name.file_name());
                let file = match OpenOptions::new().read(true).write(true).open(&path) {
                    // A directory that may only be read can still be inspected.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        File::open(&path)?
                    }
                    file => file?,
                };
                Ok(entry.insert(file))
            }
        }
    }

    fn create(&mut self, name: FileName, bytes: u64) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path.join(name.file_name());
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600);
        let file = options.open(path)?;
        if 0 < bytes {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        }
        self.open.insert(name, file);
        Ok(())
    }
}

impl Storage for Folder {
    fn list(&mut self) -> io::Result<Vec<(FileName, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().and_then(FileName::parse) {
                files.push((name, entry.metadata()?.len()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn read(&mut self, file: FileName, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file(file)?.read_at(into, offset)
    }

    fn write(&mut self, file: FileName, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.file(file)?.write_at(bytes, offset)
    }

    fn sync(&mut self, target: Target) -> io::Result<()> {
        match target {
            Target::File(file) => self.file(file)?.sync_data(),
            Target::Directory => File::open(&self.path)?.sync_all(),
        }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        match change {
            Change::Create(file, bytes) => self.create(file, bytes),
            Change::Grow(name, bytes) => {
                let file = self.file(name)?;
                let none = rustix::fs::FallocateFlags::empty();
                Ok(rustix::fs::fallocate(file, none, 0, bytes)?)
            }
            Change::Rename(from, to) => {
                self.open.remove(&from);
                self.open.remove(&to);
                std::fs::rename(
                    self.path.join(from.file_name()),
                    self.path.join(to.file_name()),
                )
            }
            Change::Remove(file) => {
                self.open.remove(&file);
                match std::fs::remove_file(self.path.join(file.file_name())) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    result => result,
                }
            }
        }
    }

    fn folder(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_come_back() {
        for file in [
            FileName::Segment(1),
            FileName::Index(20),
            FileName::Checkpoint(u64::MAX),
            FileName::Ballast(3),
        ] {
            assert_eq!(FileName::parse(&file.file_name()), Some(file));
        }
        for other in [
            "1.segment",
            "lock",
            "0000000000000001.segment.bak",
            "x.index",
        ] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_folder_keeps_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path());
        let file = FileName::Segment(1);
        folder.change(Change::Create(file, 8192)).unwrap();
        write_all(&mut folder, file, 5, b"hello").unwrap();
        folder.sync(Target::File(file)).unwrap();
        folder.sync(Target::Directory).unwrap();
        folder
            .change(Change::Rename(file, FileName::Segment(2)))
            .unwrap();
        assert_eq!(folder.list().unwrap(), [(FileName::Segment(2), 8192)]);
        let bytes = load(&mut folder, FileName::Segment(2)).unwrap();
        assert_eq!((&bytes[..5], &bytes[5..10]), (&[0; 5][..], &b"hello"[..]));
        for _ in 0..2 {
            folder.change(Change::Remove(FileName::Segment(2))).unwrap();
        }
        assert!(load(&mut folder, FileName::Segment(2)).is_err());
    }
}
