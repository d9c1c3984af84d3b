//! The provided buffers of a shard: memory that the kernel fills with what connections sent.
//! Idle connections own none of it. Knows nothing of who sent what.
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
    /// All buffers in one piece, each followed by its padding.
    memory: Box<[u8]>,
    buffer_bytes: usize,
    count: u16,
    /// Those that the kernel does not have.
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
        let memory = vec![0; usize::from(count) * (buffer_bytes + PADDING_BYTES)].into();
        let mut buffers = Self {
            entries,
            memory,
            buffer_bytes,
            count,
            held: count,
            tail: 0,
            published: 0,
        };
        for id in 0..count {
            buffers.give_back(BufferId(id));
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The kernel has filled a buffer, which is ours until it is given back.
    pub(crate) fn take(&mut self) {
        self.held += 1;
    }

    /// Buffers that the kernel may fill, and how many there are.
    pub(crate) fn free(&self) -> (usize, usize) {
        (usize::from(self.count - self.held), usize::from(self.count))
    }

    /// A filled buffer with its padding: the first `filled` bytes are what was received.
    pub(crate) fn filled(&mut self, id: BufferId) -> &mut [u8] {
        let stride = self.buffer_bytes + PADDING_BYTES;
        let start = usize::from(id.0) * stride;
        &mut self.memory[start..start + stride]
    }

    /// The kernel may fill this buffer again, once `publish` has been called.
    pub(crate) fn give_back(&mut self, id: BufferId) {
        assert!(
            id.0 < self.count,
            "the kernel names only buffers that it was given"
        );
        let start = usize::from(id.0) * (self.buffer_bytes + PADDING_BYTES);
        let address = self.memory[start..].as_mut_ptr() as u64;
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

/// The mapped array of entries. The kernel wants it on a page boundary.
struct Entries {
    base: *mut BufRingEntry,
    bytes: usize,
}

impl Entries {
    fn map(count: u16) -> io::Result<Self> {
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        let protection = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches nothing.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                protection,
                rustix::mm::MapFlags::PRIVATE,
            )?
        };
        Ok(Self {
            base: base.cast(),
            bytes,
        })
    }

    fn address(&self) -> u64 {
        self.base as u64
    }

    fn set(&mut self, index: u16, address: u64, length: u32, id: BufferId) {
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

impl Drop for Entries {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length and nothing refers to it now.
        let unmapped = unsafe { rustix::mm::munmap(self.base.cast(), self.bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}
