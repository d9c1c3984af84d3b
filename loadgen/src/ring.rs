//! An io_uring with provided receive buffers: the few operations that a load generator needs, and
//! a floor to compare servers with, behind safe functions. The only file with unsafe code. Knows
//! nothing of WebSocket.

#![expect(
    unsafe_code,
    reason = "submission entries carry raw addresses of buffers"
)]

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;

/// What an operation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A chunk of bytes, or the end of a connection.
    Receive,
    /// The end of a send that was given a name.
    Send,
    /// The end of a send of bytes that the ring keeps; shown as `Send`, or not at all.
    SendOwned,
    /// A connection is made, or is not.
    Connect,
}

/// When the kernel runs what a completion needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskWork {
    /// Only while the thread waits for completions.
    Deferred,
    /// At any change into the kernel, but without interrupting the thread.
    Cooperative,
}

/// The end of an operation, or one receive of many.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    /// What has ended.
    pub kind: Kind,
    /// What the caller named the operation.
    pub id: u32,
    /// Bytes, or the cause of failure.
    pub result: Result<u32, i32>,
    /// The receive stays armed.
    pub more: bool,
    buffer: Option<u16>,
}

/// Bytes that are sent, and what the caller named that, if it wants to know of the end.
type Owned = (Box<[u8]>, Option<u32>);

/// One thread's ring.
pub struct Ring {
    io: IoUring,
    buffers: BufferRing,
    owned: Slab<Owned>,
    spare: Vec<Completion>,
}

impl Ring {
    /// A ring for so many connections, whose receive buffers hold `buffer_bytes` each. The thread
    /// that makes it uses it.
    pub fn new(task_work: TaskWork, buffer_bytes: usize, connections: usize) -> io::Result<Self> {
        // Each has a send and a receive that may have ended, and each buffer is a completion.
        let operations = u32::try_from(2 * connections).unwrap_or(u32::MAX);
        let operations = operations.min(COMPLETIONS_MAX);
        let completions = (operations + u32::from(BUFFERS)).next_power_of_two();
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_submit_all()
            .setup_cqsize(completions.min(COMPLETIONS_MAX));
        match task_work {
            TaskWork::Deferred => builder.setup_defer_taskrun(),
            TaskWork::Cooperative => builder.setup_coop_taskrun(),
        };
        let submissions = operations.next_power_of_two();
        let io = with_patience(|| builder.build(submissions.min(SUBMISSIONS_MAX)))?;
        let buffers = with_patience(|| BufferRing::register(&io, buffer_bytes))?;
        Ok(Self {
            io,
            buffers,
            owned: Slab::new(),
            spare: Vec::new(),
        })
    }

    /// Receives from a socket until it ends: each chunk is a completion of `Kind::Receive`.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, id: u32) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), BUFFER_GROUP).build();
        self.push(&entry.user_data(pack(Kind::Receive, id)))
    }

    /// Sends bytes that live for the whole run.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &'static [u8],
        id: u32,
    ) -> io::Result<()> {
        self.push(&send_entry(socket.as_raw_fd(), bytes).user_data(pack(Kind::Send, id)))
    }

    /// Sends a rare, short frame; the ring keeps its bytes and reports nothing.
    pub fn send_owned(&mut self, socket: BorrowedFd<'_>, bytes: Vec<u8>) -> io::Result<()> {
        self.send_kept(socket, bytes, None)
    }

    /// Sends bytes that the ring keeps; their end is a completion of `Kind::Send`.
    pub fn send_made(&mut self, socket: BorrowedFd<'_>, bytes: Vec<u8>, id: u32) -> io::Result<()> {
        self.send_kept(socket, bytes, Some(id))
    }

    fn send_kept(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: Vec<u8>,
        named: Option<u32>,
    ) -> io::Result<()> {
        let key = self.owned.insert((bytes.into_boxed_slice(), named));
        let id = u32::try_from(key).map_err(io::Error::other)?;
        let entry = send_entry(socket.as_raw_fd(), &self.owned[key].0);
        self.push(&entry.user_data(pack(Kind::SendOwned, id)))
    }

    /// Connects a socket to an address that lives for the whole run.
    pub fn connect(
        &mut self,
        socket: BorrowedFd<'_>,
        address: &'static socket2::SockAddr,
        id: u32,
    ) -> io::Result<()> {
        let (name, length) = (address.as_ptr().cast(), address.len());
        let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), name, length).build();
        self.push(&entry.user_data(pack(Kind::Connect, id)))
    }

    /// Submits what is queued and waits for a completion, at most so long.
    pub fn wait(&self, at_most: Duration) -> io::Result<()> {
        self.buffers.publish();
        let timeout = Timespec::from(at_most);
        let arguments = SubmitArgs::new().timespec(&timeout);
        match self.io.submitter().submit_with_args(1, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// The completions there are. Give the vector back with `recycle`.
    pub fn completions(&mut self) -> Vec<Completion> {
        let mut found = std::mem::take(&mut self.spare);
        for entry in self.io.completion() {
            let mut completion = unpack(&entry);
            if completion.kind == Kind::SendOwned {
                let kept = self.owned.try_remove(completion.id as usize);
                let Some((_, Some(id))) = kept else {
                    continue;
                };
                (completion.kind, completion.id) = (Kind::Send, id);
            }
            found.push(completion);
        }
        found
    }

    /// Takes back a vector of completions to fill it again.
    pub fn recycle(&mut self, mut completions: Vec<Completion>) {
        completions.clear();
        self.spare = completions;
    }

    /// Shows the bytes of a receive to `read` and gives their buffer back to the kernel.
    pub fn read<T>(&mut self, completion: &Completion, read: impl FnOnce(&[u8]) -> T) -> T {
        let bytes = completion.result.unwrap_or(0) as usize;
        let Some(buffer) = completion.buffer else {
            return read(&[]);
        };
        let value = read(self.buffers.chunk(buffer, bytes));
        self.buffers.give_back(buffer);
        value
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: every address in an entry is that of a static, of a buffer kept in `owned`
            // until its completion, or of the receive buffers, which are never freed.
            let pushed = unsafe { self.io.submission().push(entry) };
            if pushed.is_ok() {
                return Ok(());
            }
            self.io.submit()?;
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

/// The kernel takes the memory of a ring from what is free at that moment, and may say no where a
/// moment later, when it has dropped some of its caches, it says yes.
fn with_patience<T>(mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES {
        match make() {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => std::thread::sleep(PAUSE),
            made => return made,
        }
    }
    let told = |error: io::Error| {
        let text = format!("the kernel has no memory for a ring, nor has `ulimit -l`: {error}");
        io::Error::new(error.kind(), text)
    };
    make().map_err(told)
}

fn send_entry(socket: RawFd, bytes: &[u8]) -> squeue::Entry {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    // MSG_WAITALL lets the kernel itself go on after a short send.
    let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
    opcode::Send::new(Fd(socket), bytes.as_ptr(), length)
        .flags(flags)
        .build()
}

fn pack(kind: Kind, id: u32) -> u64 {
    let kind = match kind {
        Kind::Receive => 0,
        Kind::Send => 1,
        Kind::SendOwned => 2,
        Kind::Connect => 3,
    };
    (kind << 32) | u64::from(id)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the id is the lower half by construction"
)]
fn unpack(entry: &cqueue::Entry) -> Completion {
    let kind = match entry.user_data() >> 32 {
        0 => Kind::Receive,
        1 => Kind::Send,
        2 => Kind::SendOwned,
        _ => Kind::Connect,
    };
    Completion {
        kind,
        id: entry.user_data() as u32,
        result: u32::try_from(entry.result()).map_err(|_| -entry.result()),
        more: cqueue::more(entry.flags()),
        buffer: cqueue::buffer_select(entry.flags()),
    }
}

/// The provided buffers of one ring. They are never freed: a ring lives as long as the process,
/// and the kernel may still write to them while it is being torn down.
struct BufferRing {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    buffer_bytes: usize,
    tail: u16,
}

impl BufferRing {
    fn register(io: &IoUring, buffer_bytes: usize) -> io::Result<Self> {
        let count = usize::from(BUFFERS);
        let entries = zeroed_pages(count * size_of::<BufRingEntry>())?.cast();
        let memory = zeroed_pages(count * buffer_bytes)?;
        let mut ring = Self {
            entries,
            memory,
            buffer_bytes,
            tail: 0,
        };
        let address = entries.as_ptr() as u64;
        // SAFETY: the memory is page-aligned, large enough for the entries and never freed.
        unsafe {
            io.submitter()
                .register_buf_ring_with_flags(address, BUFFERS, BUFFER_GROUP, 0)?
        };
        (0..BUFFERS).for_each(|buffer| ring.give_back(buffer));
        ring.publish();
        Ok(ring)
    }

    fn chunk(&self, buffer: u16, bytes: usize) -> &[u8] {
        assert!(
            buffer < BUFFERS && bytes <= self.buffer_bytes,
            "the kernel names our buffers"
        );
        // SAFETY: the buffer lies within the memory, as asserted.
        let start = unsafe { self.start_of(buffer) };
        // SAFETY: the kernel has filled these bytes and writes to the buffer again only after
        // `give_back` and `publish`, which need `&mut self`.
        unsafe { std::slice::from_raw_parts(start, bytes) }
    }

    fn give_back(&mut self, buffer: u16) {
        // SAFETY: `buffer` is below BUFFERS, the number of buffers in the memory.
        let address = unsafe { self.start_of(buffer) } as u64;
        let at = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: the index is below the number of entries.
        let slot = unsafe { self.entries.add(at) };
        // SAFETY: the kernel does not read entries behind the published tail.
        let entry = unsafe { &mut *slot.as_ptr() };
        entry.set_addr(address);
        entry.set_len(u32::try_from(self.buffer_bytes).unwrap_or(u32::MAX));
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the entries are those of a registered ring, whose first one holds the tail.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is an aligned u16 that the kernel reads and only we write.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// # Safety
    /// `buffer` must be less than `BUFFERS`.
    unsafe fn start_of(&self, buffer: u16) -> *mut u8 {
        // SAFETY: the offset is within the allocation, as the caller promises.
        unsafe {
            self.memory
                .as_ptr()
                .add(usize::from(buffer) * self.buffer_bytes)
        }
    }
}

fn zeroed_pages(bytes: usize) -> io::Result<NonNull<u8>> {
    let layout = Layout::from_size_align(bytes, PAGE_BYTES).map_err(io::Error::other)?;
    // SAFETY: the layout's size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    Ok(NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout)))
}

const SUBMISSIONS_MAX: u32 = 4096;
const COMPLETIONS_MAX: u32 = 32_768;
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);
const BUFFERS: u16 = 1024;
const BUFFER_GROUP: u16 = 0;
const PAGE_BYTES: usize = 4096;

const _: () = assert!(BUFFERS.is_power_of_two(), "the kernel asks for it");
