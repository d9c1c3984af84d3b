//! Operations on files through the data ring: what a log asks for becomes submissions, and their
//! completions become its answers. Knows names, descriptors and bytes; not what they mean.
//!
//! Invariant: whatever an operation in flight refers to (bytes, names, descriptors, maps) is
//! owned by its entry here until all its completions have come.
//!
//! Bound: a log has one commit and a few operations beside it in flight; nothing queues here.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use ahash::AHashMap;
use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use rustix::fs::OFlags;
use rustix::io::Errno;
use slab::Slab;

use crate::log::{Done, EffectId, FileName, Op, SegmentMap};

use crate::shard::kernel::clock::{now, us_since};
use crate::shard::kernel::ring::{Ring, descriptor};

/// Whose operation it is: which log of the shard, and the number that the log gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) log: usize,
    pub(crate) effect: EffectId,
}

/// An operation that has ended.
pub(crate) type Ended = (Owner, io::Result<Done>);

/// The files of a shard's logs and all operations on them.
#[derive(Debug, Default)]
pub(crate) struct Files {
    folders: Vec<Rc<OwnedFd>>,
    open: AHashMap<(usize, FileName), Rc<OwnedFd>>,
    running: Slab<Running>,
    written: Vec<Written>,
}

/// A write that has succeeded, to be counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) bytes: usize,
    /// How long it took, if its end means that it is on the disk.
    pub(crate) synced_us: Option<u64>,
}

#[derive(Debug)]
struct Running {
    owner: Owner,
    op: Op,
    /// The name that the current step refers to, and the second one of a rename.
    names: (CString, CString),
    /// The descriptor that the current step refers to.
    fd: Rc<OwnedFd>,
    step: Step,
    /// When it began, if it ends with a sync.
    began: Option<Instant>,
    /// What a load has read so far.
    loaded: Vec<u8>,
}

/// What an operation waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A descriptor for its file.
    Open,
    /// Its one completion.
    Act,
}

/// What a completion leads to.
enum Next {
    Submit,
    End(io::Result<Done>),
}

impl Files {
    /// Takes the folder of one more log; its number is its place.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn add_folder(&mut self, path: &Path) -> io::Result<()> {
        self.folders.push(Rc::new(File::open(path)?.into()));
        Ok(())
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Begins an operation; what needs no waiting has ended at once.
    pub(crate) fn start(&mut self, owner: Owner, op: Op, ring: &mut Ring) -> Option<Ended> {
        match &op {
            Op::Close { file } | Op::Remove { file } => drop(self.open.remove(&(owner.log, *file))),
            _ => {}
        }
        let is_held = |file| self.open.contains_key(&(owner.log, file));
        match op {
            Op::Close { .. } => return Some((owner, Ok(Done::Unit))),
            Op::Open { file } if is_held(file) => return Some((owner, Ok(Done::Unit))),
            _ => {}
        }
        let folder = Rc::clone(&self.folders[owner.log]);
        let held = file_of(&op).and_then(|file| self.open.get(&(owner.log, file)));
        let (fd, step) = match (&op, held) {
            (Op::Write { .. } | Op::Sync { .. }, Some(fd)) => (Rc::clone(fd), Step::Act),
            (Op::SyncDirectory | Op::Populate { .. }, _) => (folder, Step::Act),
            (Op::Rename { .. } | Op::Remove { .. }, _) => (folder, Step::Act),
            _ => (folder, Step::Open),
        };
        let names = names_of(&op);
        let began = matches!(op, Op::Write { sync: true, .. }).then(now);
        let running = Running {
            owner,
            began,
            op,
            names,
            fd,
            step,
            loaded: Vec::new(),
        };
        let key = self.running.insert(running);
        self.submit(key, ring);
        None
    }

    /// Takes a completion; tells if an operation has ended with it.
    pub(crate) fn complete(&mut self, index: u32, result: i32, ring: &mut Ring) -> Option<Ended> {
        let key = index as usize;
        let running = self.running.get_mut(key)?;
        let next = running.step_on(result);
        if let (Some(file), true) = (running.keeps(), running.step == Step::Act) {
            let fd = Rc::clone(&running.fd);
            self.open.entry((running.owner.log, file)).or_insert(fd);
        }
        match next {
            Next::Submit => {
                self.submit(key, ring);
                None
            }
            Next::End(result) => {
                let ended = self.running.remove(key);
                // The descriptor is the same file's under whichever name.
                if let (Op::Rename { from, to }, Ok(_)) = (&ended.op, &result)
                    && let Some(fd) = self.open.remove(&(ended.owner.log, *from))
                {
                    self.open.insert((ended.owner.log, *to), fd);
                }
                if let (Op::Write { .. }, Ok(Done::Count(bytes))) = (&ended.op, &result) {
                    let (bytes, synced_us) = (*bytes, ended.began.map(us_since));
                    self.written.push(Written { bytes, synced_us });
                }
                Some((ended.owner, result))
            }
        }
    }

    /// The writes that have succeeded since the last call.
    pub(crate) fn take_written(&mut self) -> Vec<Written> {
        std::mem::take(&mut self.written)
    }

    fn submit(&mut self, key: usize, ring: &mut Ring) {
        let index = u32::try_from(key).unwrap_or(u32::MAX);
        let Some(running) = self.running.get_mut(key) else {
            return;
        };
        let fd = types::Fd(running.fd.as_raw_fd());
        let entry = match running.step {
            Step::Open => running.open(fd),
            Step::Act => running.act(fd),
        };
        ring.push_file(entry, index);
    }
}

impl Running {
    /// The file whose descriptor stays open for the operations behind this one.
    fn keeps(&self) -> Option<FileName> {
        match &self.op {
            Op::Create { file, .. }
            | Op::Open { file }
            | Op::Write { file, .. }
            | Op::Sync { file } => Some(*file),
            _ => None,
        }
    }

    fn open(&self, folder: types::Fd) -> Entry {
        let (flags, mode) = match &self.op {
            Op::Create { .. } => (OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC, 0o600),
            Op::Load { .. } | Op::Map { .. } => (OFlags::RDONLY, 0),
            _ => (OFlags::RDWR, 0),
        };
        let flags = (flags | OFlags::CLOEXEC).bits().cast_signed();
        opcode::OpenAt::new(folder, self.names.0.as_ptr())
            .flags(flags)
            .mode(mode)
            .build()
    }

    fn act(&mut self, fd: types::Fd) -> Entry {
        match &self.op {
            Op::Create { bytes, .. } | Op::Grow { bytes, .. } => {
                opcode::Fallocate::new(fd, *bytes).build()
            }
            Op::Write {
                offset,
                bytes,
                sync,
                ..
            } => {
                let count = u32::try_from(bytes.len()).unwrap_or(WRITE_BYTES_MAX);
                let write = opcode::Write::new(fd, bytes.as_ptr(), count).offset(*offset);
                if *sync {
                    // It would wait for the disk in any case: not tried here first.
                    write.rw_flags(RWF_DSYNC).build().flags(Flags::ASYNC)
                } else {
                    write.build()
                }
            }
            Op::Sync { .. } => data_sync(fd),
            Op::SyncDirectory | Op::Close { .. } | Op::Open { .. } => {
                opcode::Fsync::new(fd).build()
            }
            Op::Rename { .. } => {
                let (from, to) = (self.names.0.as_ptr(), self.names.1.as_ptr());
                opcode::RenameAt::new(fd, from, fd, to).build()
            }
            Op::Remove { .. } => opcode::UnlinkAt::new(fd, self.names.0.as_ptr()).build(),
            Op::Load { .. } | Op::Map { .. } => {
                let at = self.loaded.len() - LOAD_BYTES;
                let into = self.loaded[at..].as_mut_ptr();
                let count = u32::try_from(LOAD_BYTES).unwrap_or(u32::MAX);
                opcode::Read::new(fd, into, count).offset(at as u64).build()
            }
            Op::Populate { map, offset, bytes } => {
                let length = map.bytes().len().saturating_sub(*offset).min(*bytes);
                let address = std::ptr::with_exposed_provenance(map.address() + offset);
                opcode::Madvise::new(
                    address,
                    i64::try_from(length).unwrap_or(i64::MAX),
                    MADV_POPULATE_READ,
                )
                .build()
            }
        }
    }

    /// What follows from a completion of the current step.
    fn step_on(&mut self, result: i32) -> Next {
        match self.step {
            Step::Open => self.opened(result),
            Step::Act => self.acted(result),
        }
    }

    fn opened(&mut self, result: i32) -> Next {
        let Ok(_) = count(result) else {
            return Next::End(count(result).map(|_| Done::Unit));
        };
        self.fd = Rc::new(descriptor(result));
        self.step = Step::Act;
        match &self.op {
            Op::Create { bytes: 0, .. } | Op::Open { .. } => Next::End(Ok(Done::Unit)),
            Op::Map { .. } => Next::End(map(&self.fd).map(Done::Map)),
            Op::Load { .. } => {
                self.loaded.resize(LOAD_BYTES, 0);
                Next::Submit
            }
            _ => Next::Submit,
        }
    }

    fn acted(&mut self, result: i32) -> Next {
        let count = match count(result) {
            Ok(count) => count,
            Err(error) => return Next::End(self.forgiven(error)),
        };
        match &self.op {
            Op::Write { .. } => Next::End(Ok(Done::Count(count))),
            Op::Load { .. } if 0 < count => {
                let read = self.loaded.len() - LOAD_BYTES + count;
                self.loaded.resize(read + LOAD_BYTES, 0);
                Next::Submit
            }
            Op::Load { .. } => {
                self.loaded.truncate(self.loaded.len() - LOAD_BYTES);
                Next::End(Ok(Done::Bytes(std::mem::take(&mut self.loaded).into())))
            }
            _ => Next::End(Ok(Done::Unit)),
        }
    }

    /// What is no failure: a file that is gone already, an advice that the kernel does not know.
    fn forgiven(&self, error: io::Error) -> io::Result<Done> {
        let errno = Errno::from_io_error(&error);
        match (&self.op, errno) {
            (Op::Remove { .. }, Some(Errno::NOENT)) => Ok(Done::Unit),
            (Op::Populate { .. }, Some(Errno::INVAL)) => Ok(Done::Unit),
            _ => Err(error),
        }
    }
}

fn count(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

fn map(fd: &OwnedFd) -> io::Result<SegmentMap> {
    SegmentMap::new(&File::from(fd.try_clone()?))
}

fn data_sync(fd: types::Fd) -> Entry {
    opcode::Fsync::new(fd)
        .flags(types::FsyncFlags::DATASYNC)
        .build()
}

fn file_of(op: &Op) -> Option<FileName> {
    match op {
        Op::Create { file, .. }
        | Op::Grow { file, .. }
        | Op::Open { file }
        | Op::Write { file, .. }
        | Op::Sync { file }
        | Op::Remove { file }
        | Op::Close { file }
        | Op::Load { file }
        | Op::Map { file } => Some(*file),
        Op::Rename { from, .. } => Some(*from),
        Op::SyncDirectory | Op::Populate { .. } => None,
    }
}

fn names_of(op: &Op) -> (CString, CString) {
    let second = match op {
        Op::Rename { to, .. } => Some(*to),
        _ => None,
    };
    (name(file_of(op)), name(second))
}

/// The log's names have no zero byte in them.
fn name(file: Option<FileName>) -> CString {
    let text = file.map(FileName::file_name).unwrap_or_default();
    CString::new(text).unwrap_or_default()
}

/// A load grows by this much at a time.
const LOAD_BYTES: usize = 256 * 1024;
/// What one write takes at most; the log goes on behind a short one.
const WRITE_BYTES_MAX: u32 = 1 << 30;
/// Not in rustix: the write ends when what it has written is on the disk, as after an fdatasync,
/// and fails if that does. A short one has synced what it wrote.
const RWF_DSYNC: i32 = 2;
/// Not in rustix: brings pages into memory, and fails where the file has none.
const MADV_POPULATE_READ: i32 = 22;
