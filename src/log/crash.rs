//! A folder whose power can be cut: the fake of `Storage`. It wraps a real folder, which plays the
//! page cache, and remembers what a disk would hold. Knows nothing of the log.
//!
//! Until a file is synced, each of its sectors may be on the disk in any version it had since the
//! last sync, in any order; until the folder is synced, each change of a name may have happened or
//! not. A failed sync leaves pages that look clean and were never written, as Linux does.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::layout::to_usize;
use super::mapped::SegmentMap;
use super::storage::{Change, FileName, Folder, Storage, Target, load, write_all};

const SECTOR_BYTES: usize = 512;
const PAGE_SECTORS: usize = 8;

/// What goes wrong at one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails and so do all after it: the process is gone. A write may have been
    /// done in part.
    Crash,
    /// The operation fails with EIO; later ones succeed.
    Io,
    /// The operation fails with ENOSPC; later ones succeed.
    Full,
    /// A write is done in part and says so. Other operations succeed.
    Short,
    /// The operation fails with this error, having done nothing: descriptors or memory are lacking,
    /// a signal came in between.
    Lack(i32),
}

/// The fake.
#[derive(Debug)]
pub struct CrashFolder {
    cache: Folder,
    random: u64,
    /// What is on the disk.
    durable: BTreeMap<FileName, usize>,
    files: Vec<Contents>,
    /// The names as the cache has them.
    names: BTreeMap<FileName, usize>,
    changes: Vec<Change>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    is_gone: bool,
    /// Bytes that may be taken by `Create`; `None` is no limit.
    space: Option<u64>,
    /// One in so many operations that change something goes wrong in one of these ways.
    often: Option<(u64, &'static [Fault])>,
    /// One in so many reads fails with one of these errors, or is short.
    reads: Option<(u64, &'static [i32])>,
}

/// One file on the disk: its bytes, and what may have come in any order since.
#[derive(Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
    bytes_len: usize,
}

impl CrashFolder {
    /// A fake over the empty or used folder at `path`; what is there counts as durable.
    pub fn new(path: &Path, seed: u64) -> io::Result<Self> {
        let mut folder = Self {
            cache: Folder::new(path),
            random: seed ^ 0x9e37_79b9_7f4a_7c15,
            durable: BTreeMap::new(),
            files: Vec::new(),
            names: BTreeMap::new(),
            changes: Vec::new(),
            operations: 0,
            fault: None,
            is_gone: false,
            space: None,
            often: None,
            reads: None,
        };
        for (name, _) in folder.cache.list()? {
            let bytes = load(&mut folder.cache, name)?;
            let bytes_len = bytes.len();
            folder.durable.insert(name, folder.files.len());
            folder.files.push(Contents {
                bytes,
                dirty: BTreeMap::new(),
                bytes_len,
            });
        }
        folder.names = folder.durable.clone();
        Ok(folder)
    }

    /// Lets the `n`th operation from now on go wrong; the first is 0.
    pub fn fail_at(&mut self, n: u64, fault: Fault) {
        self.fault = Some((self.operations + n, fault));
    }

    /// Limits the bytes that can still be taken; removing a file gives its bytes back.
    pub fn limit_space(&mut self, bytes: Option<u64>) {
        self.space = bytes;
    }

    /// Lets one in `of` reads, maps and populated windows fail with one of the errors, and one in
    /// `of` reads give less than there is; all succeed if there are no errors.
    pub fn fail_reads(&mut self, of: u64, errors: &'static [i32]) {
        self.reads = (!errors.is_empty()).then_some((of, errors));
    }

    /// Lets one in `of` operations that change something go wrong in one of these ways, again and
    /// again; none if there are no ways.
    pub fn fail_often(&mut self, of: u64, faults: &'static [Fault]) {
        self.often = (!faults.is_empty()).then_some((of, faults));
    }

    /// The operations there have been.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Whether the crash that was asked for has come.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// The process was killed: a new one finds what the page cache holds.
    pub fn restart(&mut self) {
        self.is_gone = false;
        self.fault = None;
        self.space = None;
        self.often = None;
    }

    /// The power was cut: a new process finds what the disk holds, which is written into the
    /// folder.
    pub fn cut_power(mut self) -> io::Result<Self> {
        let mut names = self.durable.clone();
        for change in std::mem::take(&mut self.changes) {
            if self.chance(2) {
                apply(&mut names, change, &self.names);
            }
        }
        let kept: BTreeMap<FileName, Vec<u8>> = names
            .iter()
            .map(|(name, file)| (*name, self.image(*file)))
            .collect();
        for (name, _) in self.cache.list()? {
            self.cache.change(Change::Remove(name))?;
        }
        for (name, bytes) in &kept {
            self.cache.change(Change::Create(*name, 0))?;
            write_all(&mut self.cache, *name, 0, bytes)?;
        }
        let path = self.cache.folder().to_owned();
        let mut folder = Self::new(&path, self.random)?;
        folder.reads = self.reads;
        Ok(folder)
    }

    /// What one file holds when the power is cut.
    fn image(&mut self, file: usize) -> Vec<u8> {
        let contents = std::mem::take(&mut self.files[file]);
        let mut bytes = contents.bytes;
        let mut pages: BTreeMap<usize, u64> = BTreeMap::new();
        for (sector, versions) in contents.dirty {
            let page = sector / PAGE_SECTORS;
            let mut luck = *pages.entry(page).or_insert_with(|| self.next());
            // A page mostly goes out whole; sometimes it is torn.
            if luck.is_multiple_of(5) {
                luck = self.next();
            }
            let count = versions.len() as u64;
            let chosen = to_usize((luck / 5) % (count + 1));
            if let Some(version) = chosen.checked_sub(1).and_then(|at| versions.get(at)) {
                let from = sector * SECTOR_BYTES;
                if bytes.len() < from + version.len() {
                    bytes.resize(from + version.len(), 0);
                }
                bytes[from..from + version.len()].copy_from_slice(version);
            }
        }
        // Space that was taken is there whole or not at all.
        if bytes.len() < contents.bytes_len && self.chance(2) {
            bytes.resize(contents.bytes_len, 0);
        }
        bytes
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn chance(&mut self, of: u64) -> bool {
        !self.next().is_multiple_of(of)
    }

    /// Counts an operation and tells what goes wrong at it.
    fn operation(&mut self) -> io::Result<Option<Fault>> {
        if self.is_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let fault = self
            .fault
            .filter(|(at, _)| *at == self.operations)
            .map(|(_, fault)| fault);
        let fault = fault.or_else(|| self.frequent_fault());
        self.operations += 1;
        self.is_gone |= fault == Some(Fault::Crash);
        Ok(fault)
    }

    fn frequent_fault(&mut self) -> Option<Fault> {
        let (of, faults) = self.often?;
        let at = self.next();
        at.is_multiple_of(of)
            .then(|| faults[to_usize((at / of) % faults.len() as u64)])
    }

    /// What goes wrong at a read.
    fn read_fault(&mut self) -> io::Result<bool> {
        let Some((of, errors)) = self.reads else {
            return Ok(false);
        };
        if self.next().is_multiple_of(of) {
            let at = to_usize(self.next() % errors.len() as u64);
            return Err(io::Error::from_raw_os_error(errors[at]));
        }
        Ok(self.next().is_multiple_of(of))
    }

    fn dirty(&mut self, name: FileName, offset: u64, len: usize) -> io::Result<()> {
        let file = *self.names.get(&name).ok_or(io::ErrorKind::NotFound)?;
        let first = to_usize(offset) / SECTOR_BYTES;
        let last = (to_usize(offset) + len).div_ceil(SECTOR_BYTES);
        let mut bytes = vec![0; (last - first) * SECTOR_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            let at = (first * SECTOR_BYTES + filled) as u64;
            match self.cache.read(name, at, &mut bytes[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        for (at, sector) in bytes[..filled].chunks(SECTOR_BYTES).enumerate() {
            self.files[file]
                .dirty
                .entry(first + at)
                .or_default()
                .push(sector.to_vec());
        }
        let end = to_usize(offset) + len;
        let contents = &mut self.files[file];
        contents.bytes_len = contents.bytes_len.max(end);
        Ok(())
    }

    fn sync_file(&mut self, name: FileName, is_lost: bool) -> io::Result<()> {
        let file = *self.names.get(&name).ok_or(io::ErrorKind::NotFound)?;
        let contents = &mut self.files[file];
        let dirty = std::mem::take(&mut contents.dirty);
        if is_lost {
            return Ok(());
        }
        let len = contents.bytes_len.max(contents.bytes.len());
        contents.bytes.resize(len, 0);
        for (sector, mut versions) in dirty {
            let from = sector * SECTOR_BYTES;
            if let Some(newest) = versions.pop() {
                contents.bytes[from..from + newest.len()].copy_from_slice(&newest);
            }
        }
        Ok(())
    }

    /// What a write takes beyond the space that its file has.
    fn growth(&self, file: FileName, offset: u64, len: usize) -> u64 {
        let has = self
            .names
            .get(&file)
            .map_or(0, |file| self.files[*file].bytes_len as u64);
        (offset + len as u64).saturating_sub(has)
    }

    /// What comes back when a file is removed.
    fn give_space(&mut self, file: FileName) {
        let has = self
            .names
            .get(&file)
            .map_or(0, |file| self.files[*file].bytes_len as u64);
        self.space = self.space.map(|left| left + has);
    }

    fn take_space(&mut self, bytes: u64) -> io::Result<()> {
        match &mut self.space {
            Some(left) if *left < bytes => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= bytes;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Changes names as the disk would; a file is made at its number in the cache.
fn apply(names: &mut BTreeMap<FileName, usize>, change: Change, cache: &BTreeMap<FileName, usize>) {
    match change {
        Change::Create(name, file) => drop(names.insert(name, to_usize(file))),
        Change::Rename(from, to) => {
            if let Some(file) = names.remove(&from).or_else(|| cache.get(&to).copied()) {
                names.insert(to, file);
            }
        }
        Change::Remove(name) => drop(names.remove(&name)),
        Change::Grow(..) => {}
    }
}

impl Storage for CrashFolder {
    fn list(&mut self) -> io::Result<Vec<(FileName, u64)>> {
        self.cache.list()
    }

    fn read(&mut self, file: FileName, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let is_short = self.read_fault()?;
        let len = if is_short {
            into.len().div_ceil(2)
        } else {
            into.len()
        };
        self.cache.read(file, offset, &mut into[..len])
    }

    fn write(&mut self, file: FileName, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let fault = self.operation()?;
        let part = to_usize(self.next() % bytes.len().max(1) as u64);
        let count = match fault {
            Some(Fault::Io) => return Err(io::Error::from_raw_os_error(5)),
            Some(Fault::Lack(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Full) => return Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Crash) => part,
            Some(Fault::Short) => part.max(1),
            None => bytes.len(),
        };
        self.take_space(self.growth(file, offset, count))?;
        write_all(&mut self.cache, file, offset, &bytes[..count])?;
        self.dirty(file, offset, count)?;
        if fault == Some(Fault::Crash) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(count)
    }

    fn sync(&mut self, target: Target) -> io::Result<()> {
        let fault = self.operation()?;
        if let Some(Fault::Lack(errno)) = fault {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let error = match fault {
            Some(Fault::Crash) => Some(io::ErrorKind::BrokenPipe.into()),
            Some(Fault::Io) => Some(io::Error::from_raw_os_error(5)),
            Some(Fault::Full) => Some(io::ErrorKind::StorageFull.into()),
            Some(Fault::Short | Fault::Lack(_)) | None => None,
        };
        match target {
            Target::File(file) if fault != Some(Fault::Crash) => {
                self.sync_file(file, error.is_some())?;
            }
            Target::Directory if error.is_none() => {
                self.changes.clear();
                self.durable = self.names.clone();
            }
            Target::File(_) | Target::Directory => {}
        }
        error.map_or(Ok(()), Err)
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        match self.operation()? {
            Some(Fault::Crash) => return Err(io::ErrorKind::BrokenPipe.into()),
            Some(Fault::Io) => return Err(io::Error::from_raw_os_error(5)),
            Some(Fault::Lack(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Full) => return Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Short) | None => {}
        }
        let change = match change {
            Change::Create(name, bytes) => {
                self.take_space(bytes)?;
                self.cache.change(change)?;
                let file = self.files.len();
                let bytes_len = to_usize(bytes);
                self.files.push(Contents {
                    bytes_len,
                    ..Contents::default()
                });
                Change::Create(name, file as u64)
            }
            Change::Grow(name, bytes) => {
                let file = *self.names.get(&name).ok_or(io::ErrorKind::NotFound)?;
                let has = self.files[file].bytes_len as u64;
                self.take_space(bytes.saturating_sub(has))?;
                self.files[file].bytes_len = to_usize(bytes.max(has));
                return self.cache.change(change);
            }
            Change::Rename(..) | Change::Remove(_) => {
                if let Change::Remove(file) = change {
                    self.give_space(file);
                }
                self.cache.change(change)?;
                change
            }
        };
        let cache = self.names.clone();
        apply(&mut self.names, change, &cache);
        self.changes.push(change);
        Ok(())
    }

    fn folder(&self) -> &Path {
        self.cache.folder()
    }

    fn map(&mut self, file: FileName) -> io::Result<SegmentMap> {
        self.read_fault()?;
        self.cache.map(file)
    }

    fn populate(&mut self, map: &SegmentMap, offset: usize, bytes: usize) -> io::Result<()> {
        self.read_fault()?;
        self.cache.populate(map, offset, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FILE: FileName = FileName::Segment(1);

    /// What a disk may hold after a power cut, over many seeds.
    fn cut(make: impl Fn(&mut CrashFolder)) -> BTreeSet<Option<Vec<u8>>> {
        let mut images = BTreeSet::new();
        for seed in 0..60 {
            let dir = tempfile::tempdir().unwrap();
            let mut folder = CrashFolder::new(dir.path(), seed).unwrap();
            make(&mut folder);
            let mut folder = folder.cut_power().unwrap();
            images.insert(load(&mut folder, FILE).ok());
        }
        images
    }

    #[test]
    fn what_is_synced_stays_and_what_is_not_may_go() {
        let made = |folder: &mut CrashFolder| {
            folder.change(Change::Create(FILE, 0)).unwrap();
            folder.write(FILE, 0, b"aa").unwrap();
        };
        let images = cut(made);
        assert!(
            images.contains(&None) && images.contains(&Some(b"aa".to_vec())),
            "{images:?}"
        );
        let images = cut(|folder| {
            made(folder);
            folder.sync(Target::File(FILE)).unwrap();
            folder.sync(Target::Directory).unwrap();
            folder.write(FILE, 0, b"bb").unwrap();
            folder.write(FILE, 0, b"cc").unwrap();
        });
        let all = [b"aa", b"bb", b"cc"].map(|bytes| Some(bytes.to_vec()));
        assert_eq!(images, all.into_iter().collect());
    }

    #[test]
    fn a_failed_sync_leaves_pages_that_never_reach_the_disk() {
        let images = cut(|folder| {
            folder.change(Change::Create(FILE, 0)).unwrap();
            folder.sync(Target::Directory).unwrap();
            folder.write(FILE, 0, b"aa").unwrap();
            folder.fail_at(0, Fault::Io);
            folder.sync(Target::File(FILE)).unwrap_err();
            folder.sync(Target::File(FILE)).unwrap();
        });
        assert!(!images.contains(&Some(b"aa".to_vec())), "{images:?}");
    }
}
