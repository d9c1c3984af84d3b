//! The provided buffers of a shard: memory that the kernel fills with what connections sent.
//! Idle connections own none of it. Knows nothing of who sent what.
//!
//! The kernel fills buffers in turn, so each that it has been given becomes resident. It is given a
//! few, and twice as many each time that somebody found none, up to all.
//!
//! Invariant: a buffer is either the kernel's or, between its completion and `give_back`, ours.
#![expect(unsafe_code, reason = "the ring of buffers is shared with the kernel")]

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{Submitter, types::BufRingEntry};

/// The one group of buffers that a ring has.
pub(crate) const BUFFER_GROUP: u16 = 0;

/// Readable bytes behind each buffer, so that the JSON parser may look past a message's end.
pub(crate) const PADDING_BYTES: usize = 64;

/// Which buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BufferId(pub(crate) u16);

pub(crate) struct Buffers {
    /// The entries that the kernel reads, on pages of their own.
    entries: Entries,
    /// All buffers in one piece, each followed by its padding. The kernel writes to it, so there is
    /// never a reference to all of it.
    memory: Memory,
    buffer_bytes: usize,
    count: u16,
    /// Those that are in use, the first ones of all.
    given: u16,
    /// Those of them that the kernel does not have.
    held: u16,
    tail: u16,
    published: u16,
}

impl Buffers {
    /// Gives `count` buffers of `buffer_bytes` to the ring behind `submitter`.
    pub(crate) fn register(
        submitter: &Submitter<'_>,
        count: u16,
        buffer_bytes: usize,
    ) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel wants a power of two");
        let entries = Entries::map(count)?;
        // SAFETY: the entries are mapped for `count` of them and stay so until `self` drops,
        // which is after the ring (see the order of fields in `Ring`).
        unsafe {
            submitter.register_buf_ring_with_flags(entries.address(), count, BUFFER_GROUP, 0)?;
        }
        let memory = Memory::map(usize::from(count) * (buffer_bytes + PADDING_BYTES))?;
        let mut buffers = Self {
            entries,
            memory,
            buffer_bytes,
            count,
            given: 0,
            held: 0,
            tail: 0,
            published: 0,
        };
        buffers.give(GIVEN_MIN);
        buffers.publish();
        Ok(buffers)
    }

    /// Gives the kernel so many more, if there are.
    fn give(&mut self, more: u16) {
        let more = more.min(self.count - self.given);
        let first = self.given;
        self.given += more;
        self.held += more;
        for id in first..self.given {
            self.give_back(BufferId(id));
        }
    }

    /// Somebody found no buffer: the kernel is given twice as many.
    pub(crate) fn grow(&mut self) {
        self.give(self.given);
    }

    /// The kernel has filled a buffer, which is ours until it is given back.
    pub(crate) fn take(&mut self) {
        self.held += 1;
    }

    /// Buffers that the kernel may fill or has filled, and how many are in use.
    pub(crate) fn free(&self) -> (usize, usize) {
        (usize::from(self.given - self.held), usize::from(self.given))
    }

    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "one borrow at a time may write into the memory of the buffers"
    )]
    /// A filled buffer with its padding: the first `filled` bytes are what was received.
    pub(crate) fn filled(&mut self, id: BufferId) -> &mut [u8] {
        let stride = self.buffer_bytes + PADDING_BYTES;
        let place = self.memory.at(usize::from(id.0) * stride, stride);
        // SAFETY: the place lies within the mapping, which lives as long as `self`. The kernel has
        // filled this buffer and is not given it before this borrow has ended.
        unsafe { std::slice::from_raw_parts_mut(place, stride) }
    }

    /// The kernel may fill this buffer again, once `publish` has been called.
    pub(crate) fn give_back(&mut self, id: BufferId) {
        assert!(
            id.0 < self.count,
            "the kernel names only buffers that it was given"
        );
        let start = usize::from(id.0) * (self.buffer_bytes + PADDING_BYTES);
        let address = self.memory.at(start, self.buffer_bytes) as u64;
        let length = u32::try_from(self.buffer_bytes).unwrap_or(u32::MAX);
        self.entries
            .set(self.tail & (self.count - 1), address, length, id);
        self.tail = self.tail.wrapping_add(1);
        self.held -= 1;
    }

    /// Shows the kernel what was given back.
    pub(crate) fn publish(&mut self) {
        if self.published != self.tail {
            self.entries.publish(self.tail);
            self.published = self.tail;
        }
    }
}

/// So many buffers are in use from the start.
const GIVEN_MIN: u16 = 256;

/// A private mapping, zero and not resident until it is touched.
struct Memory {
    base: *mut u8,
    bytes: usize,
}

impl Memory {
    fn map(bytes: usize) -> io::Result<Self> {
        let protection = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        let flags = rustix::mm::MapFlags::PRIVATE;
        let anywhere = std::ptr::null_mut();
        // SAFETY: a new private mapping at an address of the kernel's choice touches nothing.
        let base = unsafe { rustix::mm::mmap_anonymous(anywhere, bytes, protection, flags)? };
        Ok(Self {
            base: base.cast(),
            bytes,
        })
    }

    /// Where `length` bytes from `start` on lie.
    fn at(&self, start: usize, length: usize) -> *mut u8 {
        assert!(start + length <= self.bytes, "a buffer lies in the mapping");
        self.base.wrapping_add(start)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length and nothing refers to it now.
        let unmapped = unsafe { rustix::mm::munmap(self.base.cast(), self.bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

/// The mapped array of entries. The kernel wants it on a page boundary.
struct Entries {
    base: *mut BufRingEntry,
    memory: Memory,
}

impl Entries {
    fn map(count: u16) -> io::Result<Self> {
        let memory = Memory::map(usize::from(count) * size_of::<BufRingEntry>())?;
        Ok(Self {
            base: memory.base.cast(),
            memory,
        })
    }

    fn address(&self) -> u64 {
        self.base as u64
    }

    fn set(&mut self, index: u16, address: u64, length: u32, id: BufferId) {
        debug_assert!(usize::from(index) * size_of::<BufRingEntry>() < self.memory.bytes);
        // SAFETY: the caller masks the index by the count that was mapped.
        let entry = unsafe { self.base.add(usize::from(index)) };
        // SAFETY: the entry lies in the mapping, and the kernel reads none behind the published
        // tail.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(length);
        entry.set_bid(id.0);
    }

    fn publish(&mut self, tail: u16) {
        // SAFETY: the base is the address of the first entry, as `tail` asks for.
        let shared = unsafe { BufRingEntry::tail(self.base) };
        // SAFETY: the tail is an aligned u16 in the mapping; the kernel reads it atomically.
        let shared = unsafe { AtomicU16::from_ptr(shared.cast_mut()) };
        shared.store(tail, Ordering::Release);
    }
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C3: a ring has few of its buffers resident until somebody finds none, and then twice as many.
    #[test]
    fn buffers_are_given_as_they_are_needed() {
        let ring = io_uring::IoUring::new(8).unwrap();
        let mut buffers = Buffers::register(&ring.submitter(), 1_024, 4_096).unwrap();
        let mut in_use = Vec::new();
        for _ in 0..4 {
            in_use.push(buffers.free());
            buffers.grow();
        }
        assert_eq!(in_use, [256, 512, 1_024, 1_024].map(|count| (count, count)));
        buffers.take();
        assert_eq!(buffers.free(), (1_023, 1_024));
        let last = buffers.filled(BufferId(1_023));
        assert_eq!(
            (last.len(), last[4_096 + PADDING_BYTES - 1]),
            (4_096 + PADDING_BYTES, 0)
        );
    }
}
