//! A segment mapped for reading. The one file of the log with `unsafe`: mapping a file is unsafe
//! because others may change it, and no safe way of reading without a copy exists.
#![expect(unsafe_code, reason = "a mapping of a file cannot be made safely")]

use std::fs::File;
use std::io;

use memmap2::{Advice, Mmap};

/// The bytes of one segment file, read-only. Nothing is ever stored through the mapping.
#[derive(Debug)]
pub struct SegmentMap {
    map: Mmap,
}

impl SegmentMap {
    /// Maps the whole file.
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the data directory is locked, so only this process changes the file, and the
        // log hands out slices of durable batches only: these are never written again before
        // the file is recycled, and then every map of it has been dropped. The file is never
        // made shorter.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self { map })
    }

    /// All bytes, those not yet written too: callers read what is durable.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Where the mapping starts, for a shard that populates it through its ring.
    pub fn address(&self) -> usize {
        self.map.as_ptr().addr()
    }

    /// Brings a window into memory and tells if the file has no such bytes, so that a later read
    /// neither waits for the disk nor dies.
    pub fn populate(&self, offset: usize, bytes: usize) -> io::Result<()> {
        let len = bytes.min(self.map.len().saturating_sub(offset));
        match self.map.advise_range(Advice::PopulateRead, offset, len) {
            // A kernel before 5.14 does not know the advice; the read itself will do it.
            Err(error) if error.raw_os_error() == Some(22) => Ok(()),
            result => result,
        }
    }
}
