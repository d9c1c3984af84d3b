//! The data ring: one io_uring a shard, through which its sockets and files go. Knows kernel
//! operations and who asked for them; not what the bytes mean.
//!
//! Invariants: the memory of an operation in flight is owned by this file until its completion
//! has been reaped, so no caller can free it early; a token carries the generation of its slot,
//! so a late completion never reaches a new connection.
#![expect(unsafe_code, reason = "kernel memory: each block says why it is sound")]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, cqueue, opcode, types};
use slab::Slab;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::shard::kernel::buffers::{BUFFER_GROUP, BufferId, Buffers};
use crate::shard::kernel::sending::Sending;

/// Which slot of which generation an operation belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SlotKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Generations are kept in this many bits of a token.
pub(crate) const GENERATION_BITS: u32 = 24;

/// What an operation is, and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Accept {
        listener: u32,
    },
    Receive(SlotKey),
    Send {
        index: u32,
    },
    Cancel,
    File {
        index: u32,
    },
    /// It is time to look around.
    Wake,
}

const KIND_SHIFT: u32 = 56;

impl Token {
    fn pack(self) -> u64 {
        let (kind, generation, index) = match self {
            Self::Accept { listener } => (1, 0, listener),
            Self::Receive(key) => (2, key.generation, key.slot),
            Self::Send { index } => (3, 0, index),
            Self::Cancel => (4, 0, 0),
            Self::File { index } => (5, 0, index),
            Self::Wake => (6, 0, 0),
        };
        debug_assert!(generation < 1 << GENERATION_BITS);
        (kind << KIND_SHIFT) | (u64::from(generation) << 32) | u64::from(index)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the fields are cut out by masks"
    )]
    fn unpack(bits: u64) -> Self {
        let index = bits as u32;
        let generation = (bits >> 32) as u32 & ((1 << GENERATION_BITS) - 1);
        match bits >> KIND_SHIFT {
            1 => Self::Accept { listener: index },
            2 => Self::Receive(SlotKey {
                slot: index,
                generation,
            }),
            3 => Self::Send { index },
            4 => Self::Cancel,
            5 => Self::File { index },
            6 => Self::Wake,
            kind => unreachable!("kind {kind} was never submitted"),
        }
    }
}

/// One reaped completion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) token: Token,
    /// What the operation returned: a count, a descriptor, or a negated error number.
    pub(crate) result: i32,
    /// The operation goes on and will complete again.
    pub(crate) more: bool,
    /// The provided buffer that holds what was received.
    pub(crate) buffer: Option<BufferId>,
}

/// Why there is no ring: with the likely cause and the line that mends it.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The administrator has switched io_uring off.
    #[error(
        "io_uring is refused ({source}): kernel.io_uring_disabled = {value} switches it off; \
         allow it with `sysctl -w kernel.io_uring_disabled=0`"
    )]
    Disabled {
        /// 1 is for processes without privileges, 2 for all.
        value: u8,
        /// What the kernel said.
        source: io::Error,
    },
    /// A filter of system calls forbids io_uring to this process.
    #[error(
        "io_uring is refused ({0}): a seccomp profile forbids it, as those of Docker and \
         containerd do by default; start the container with a profile that permits \
         io_uring_setup, io_uring_enter and io_uring_register \
         (`docker run --security-opt seccomp=PROFILE.json`, or seccomp=unconfined to try)"
    )]
    Filtered(#[source] io::Error),
    /// There is no such call.
    #[error(
        "there is no io_uring here ({0}): the kernel was built without CONFIG_IO_URING, or a \
         sandbox such as gVisor or a seccomp profile answers in its place; run it on Linux 6.1 \
         or newer, in a container with `--runtime runc` and a profile that permits io_uring_setup"
    )]
    Missing(#[source] io::Error),
    /// The kernel is too old for what the shard needs.
    #[error("the kernel lacks an io_uring feature that is needed ({0}): Linux 6.1 or newer is")]
    Unsupported(#[source] io::Error),
    /// Not enough memory may be locked.
    #[error("io_uring got no memory ({0}): raise the limit with `ulimit -l unlimited`")]
    Memory(#[source] io::Error),
    /// The process may open no more files.
    #[error("io_uring got no descriptor ({0}): raise the limit with `ulimit -n 1048576`")]
    Files(#[source] io::Error),
    /// Something else.
    #[error("io_uring could not be set up: {0}")]
    Other(#[source] io::Error),
}

impl From<io::Error> for RingError {
    fn from(error: io::Error) -> Self {
        Self::of(error, switched_off())
    }
}

impl RingError {
    /// The cause of an error, where the kernel's switch for io_uring stands at `switch`.
    fn of(source: io::Error, switch: Option<u8>) -> Self {
        use rustix::io::Errno;
        let errno = source.raw_os_error().map(Errno::from_raw_os_error);
        match (errno, switch) {
            (Some(Errno::PERM), Some(value @ 1..)) => Self::Disabled { value, source },
            (Some(Errno::PERM | Errno::ACCESS), _) => Self::Filtered(source),
            (Some(Errno::NOSYS), _) => Self::Missing(source),
            (Some(Errno::INVAL | Errno::OPNOTSUPP), _) => Self::Unsupported(source),
            (Some(Errno::NOMEM), _) => Self::Memory(source),
            (Some(Errno::MFILE | Errno::NFILE), _) => Self::Files(source),
            _ => Self::Other(source),
        }
    }
}

/// What `kernel.io_uring_disabled` says; older kernels have no such switch.
fn switched_off() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

/// Sizes of a ring; all powers of two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RingSizes {
    pub(crate) submissions: u32,
    pub(crate) buffers: u16,
    pub(crate) buffer_bytes: usize,
}

/// A send in flight: its bytes and the connection that waits for it.
#[derive(Debug)]
struct InFlight {
    key: SlotKey,
    sending: Sending,
}

pub(crate) struct Ring {
    ring: IoUring,
    // What operations in flight refer to. Closing a ring does not end them: another descriptor of it
    // may live on, and the kernel ends them later. So they are ended and reaped before this memory is
    // freed, or it is not freed at all (`Ring::end`).
    sends: Slab<InFlight>,
    buffers: ManuallyDrop<Buffers>,
    /// The kernel reads it when it takes the submission.
    wake: Box<types::Timespec>,
    /// Operations that have not completed for the last time.
    in_flight: usize,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("sends", &self.sends.len())
            .finish_non_exhaustive()
    }
}

/// At most this many bytes go out in one operation, so that progress can be seen.
const SEND_BYTES_MAX: usize = 256 * 1024;
/// The kernel makes no longer completion queue (`IORING_MAX_CQ_ENTRIES`). What does not fit waits
/// inside of it until there is room.
const COMPLETIONS_MAX: u32 = 65_536;

impl Ring {
    pub(crate) fn new(sizes: RingSizes) -> Result<Self, RingError> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS_MAX.min(sizes.submissions * 8));
        let ring: IoUring = builder.build(sizes.submissions)?;
        let buffers = Buffers::register(&ring.submitter(), sizes.buffers, sizes.buffer_bytes)?;
        Ok(Self {
            ring,
            sends: Slab::new(),
            buffers: ManuallyDrop::new(buffers),
            wake: Box::default(),
            in_flight: 0,
        })
    }

    /// Accepts connections until told otherwise; each completion carries a descriptor.
    pub(crate) fn accept(&mut self, listener: RawFd, index: u32) {
        let flags = rustix::net::SocketFlags::CLOEXEC.bits().cast_signed();
        let entry = opcode::AcceptMulti::new(types::Fd(listener))
            .flags(flags)
            .build();
        self.push(entry, Token::Accept { listener: index });
    }

    /// Receives once into a provided buffer.
    pub(crate) fn receive_once(&mut self, fd: RawFd, key: SlotKey) {
        let entry = opcode::Recv::new(types::Fd(fd), std::ptr::null_mut(), 0)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(Flags::BUFFER_SELECT);
        self.push(entry, Token::Receive(key));
    }

    /// Receives into provided buffers until it is cancelled or ends.
    pub(crate) fn receive(&mut self, fd: RawFd, key: SlotKey) {
        let entry = opcode::RecvMulti::new(types::Fd(fd), BUFFER_GROUP).build();
        self.push(entry, Token::Receive(key));
    }

    /// Ends the receive of a connection; its last completion says so.
    pub(crate) fn cancel_receive(&mut self, key: SlotKey) {
        let entry = opcode::AsyncCancel::new(Token::Receive(key).pack()).build();
        self.push(entry, Token::Cancel);
    }

    /// Ends an accept; its last completion says so.
    pub(crate) fn cancel_accept(&mut self, index: u32) {
        let entry = opcode::AsyncCancel::new(Token::Accept { listener: index }.pack()).build();
        self.push(entry, Token::Cancel);
    }

    /// Sends what is left of `sending`, which belongs to the ring until [`Ring::sent`].
    pub(crate) fn send(&mut self, fd: RawFd, key: SlotKey, sending: Sending) {
        let vacant = self.sends.vacant_entry();
        let index = u32::try_from(vacant.key()).unwrap_or(u32::MAX);
        let in_flight = vacant.insert(InFlight { key, sending });
        let rest = in_flight.sending.rest();
        let count = rest.len().min(SEND_BYTES_MAX);
        let flags = (rustix::net::SendFlags::NOSIGNAL.bits() | MSG_WAITALL).cast_signed();
        // The bytes are on the heap behind `sending`, which stays in `sends` until `sent`.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fd(fd), rest.as_ptr(), count)
            .flags(flags)
            .build();
        self.push(entry, Token::Send { index });
    }

    /// Ends a sleep after so long, submitting it at once.
    pub(crate) fn wake_in(&mut self, us: u64) {
        *self.wake = Duration::from_micros(us).into();
        let entry = opcode::Timeout::new(&raw const *self.wake).build();
        self.push(entry, Token::Wake);
        self.submit();
    }

    /// Takes back the bytes of a completed send, and whose they are.
    pub(crate) fn sent(&mut self, index: u32) -> (SlotKey, Sending) {
        let in_flight = self.sends.remove(index as usize);
        (in_flight.key, in_flight.sending)
    }

    /// Submits a prepared operation on files; `entry` must only refer to memory that lives until
    /// its completion, which the caller keeps (see `file.rs`).
    pub(crate) fn push_file(&mut self, entry: Entry, index: u32) {
        self.push(entry, Token::File { index });
    }

    fn push(&mut self, entry: Entry, token: Token) {
        let entry = entry.user_data(token.pack());
        loop {
            // SAFETY: buffers and sends are owned by `self` until they complete, provided
            // buffers are registered for as long as the ring lives, and other operations refer
            // to no memory or, for files, to memory that `file.rs` keeps until completion.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_ok() {
                self.in_flight += 1;
                return;
            }
            // The queue is full: handing it to the kernel empties it.
            self.enter();
        }
    }

    /// Hands everything queued to the kernel, and returned buffers too.
    pub(crate) fn submit(&mut self) {
        self.buffers.publish();
        let queue = self.ring.submission();
        let wanted = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if !wanted {
            return;
        }
        self.enter();
    }

    /// Hands the queue to the kernel, which may take a part of it only.
    fn enter(&self) {
        use rustix::io::Errno;
        let Err(error) = self.ring.submit() else {
            return;
        };
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        // Busy: the completion queue overflowed, reaping makes room. Again: the kernel has no
        // memory for requests right now. Whatever was not taken stays in the queue.
        let passes = matches!(errno, Some(Errno::BUSY | Errno::AGAIN | Errno::INTR));
        assert!(passes, "io_uring takes no submissions: {error}");
    }

    /// Appends up to `count_max` completions to `out`.
    pub(crate) fn reap(&mut self, count_max: usize, out: &mut Vec<Completion>) {
        let (buffers, in_flight) = (&mut self.buffers, &mut self.in_flight);
        let completions = self.ring.completion().take(count_max).map(|entry| {
            let buffer = cqueue::buffer_select(entry.flags()).map(BufferId);
            if buffer.is_some() {
                buffers.take();
            }
            if !cqueue::more(entry.flags()) {
                *in_flight -= 1;
            }
            Completion {
                token: Token::unpack(entry.user_data()),
                result: entry.result(),
                more: cqueue::more(entry.flags()),
                buffer,
            }
        });
        out.extend(completions);
    }

    /// Ends all operations and reaps them; whether none is left. Waits a second at most.
    pub(crate) fn end(&mut self) -> bool {
        self.enter();
        let mut reaped = Vec::new();
        for _ in 0..ENDS_MAX {
            if self.in_flight == 0 {
                return true;
            }
            let wait = types::Timespec::from(Duration::from_millis(END_MS));
            // Whatever it could not cancel in this time ends by itself or is waited for again.
            let _ = self
                .ring
                .submitter()
                .register_sync_cancel(Some(wait), types::CancelBuilder::any());
            self.reap(usize::MAX, &mut reaped);
            reaped.clear();
        }
        self.in_flight == 0
    }

    /// Buffers that a receive may still find: what waits to be reaped may have taken one each.
    pub(crate) fn buffers_left(&mut self) -> usize {
        let taken = self.ring.completion().len();
        self.buffers.free().0.saturating_sub(taken)
    }

    /// Whether a completion waits or the kernel has work to run for us.
    pub(crate) fn is_ready(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    /// Another descriptor of the same ring, watched by the runtime for completions.
    pub(crate) fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: the ring is open for as long as `self` lives, and so during this call.
        let own = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        let second = own.try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` names the same open file until it is dropped, with the watch.
        let watch = unsafe { AsyncFd::register_with_interest(second, Interest::READABLE) };
        watch.map_err(io::Error::from)
    }

    /// How many completions found no room in the queue since the start.
    pub(crate) fn overflows(&mut self) -> u32 {
        self.ring.completion().overflow()
    }

    /// Completions that wait, and how many the queue holds.
    pub(crate) fn waiting(&mut self) -> (usize, usize) {
        let completions = self.ring.completion();
        (completions.len(), completions.capacity())
    }

    /// Operations that the kernel has not been handed yet, and how many the queue holds.
    pub(crate) fn unsubmitted(&mut self) -> (usize, usize) {
        let queue = self.ring.submission();
        (queue.len(), queue.capacity())
    }

    /// Sends that the kernel has not ended.
    pub(crate) fn sends_in_flight(&self) -> usize {
        self.sends.len()
    }

    /// The provided buffers.
    pub(crate) fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.end() {
            // SAFETY: nothing is in flight that refers to it, and nobody uses it after this.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        } else {
            // The kernel may still read or write this memory: it stays.
            std::mem::forget(std::mem::take(&mut self.sends));
            Box::leak(std::mem::take(&mut self.wake));
        }
    }
}

/// How often, and for how long each time, it is waited for operations to end.
const ENDS_MAX: usize = 20;
const END_MS: u64 = 50;

/// A descriptor that a completion has just brought.
pub(crate) fn descriptor(result: i32) -> OwnedFd {
    use std::os::fd::FromRawFd;
    assert!(
        0 <= result,
        "an operation that opens something has a descriptor"
    );
    // SAFETY: the kernel made this descriptor for the operation that has just completed, so
    // nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(result) }
}

/// Not in rustix: the kernel itself finishes a short send.
const MSG_WAITALL: u32 = 0x100;

/// Finds out whether this process may use io_uring as a shard does.
///
/// # Errors
/// Says the likely cause and the line that mends it.
pub fn probe() -> Result<(), RingError> {
    let sizes = RingSizes {
        submissions: 8,
        buffers: 8,
        buffer_bytes: 512,
    };
    Ring::new(sizes).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn tokens_survive_packing() {
        let key = SlotKey {
            slot: u32::MAX,
            generation: (1 << GENERATION_BITS) - 1,
        };
        let tokens = [
            Token::Accept { listener: 3 },
            Token::Receive(key),
            Token::Send { index: 7 },
            Token::Cancel,
            Token::File { index: u32::MAX },
            Token::Wake,
        ];
        for token in tokens {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }

    /// Each cause has its own line that mends it
    #[test]
    fn a_refusal_names_its_cause() {
        use rustix::io::Errno;
        let text = |errno: Errno, switch| {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            RingError::of(error, switch).to_string()
        };
        for (errno, switch, hint) in [
            (Errno::PERM, Some(2), "kernel.io_uring_disabled = 2"),
            (
                Errno::PERM,
                Some(1),
                "`sysctl -w kernel.io_uring_disabled=0`",
            ),
            (Errno::PERM, Some(0), "a seccomp profile forbids it"),
            (Errno::PERM, None, "a seccomp profile forbids it"),
            (Errno::ACCESS, Some(2), "a seccomp profile forbids it"),
            (Errno::NOSYS, Some(0), "CONFIG_IO_URING"),
            (Errno::INVAL, Some(0), "Linux 6.1"),
            (Errno::NOMEM, Some(0), "ulimit -l"),
            (Errno::MFILE, Some(0), "ulimit -n"),
            (Errno::IO, Some(0), "could not be set up"),
        ] {
            let text = text(errno, switch);
            assert!(text.contains(hint), "{errno:?} {switch:?}: {text}");
        }
    }

    /// C10: what is in flight has ended before its memory is freed, though another descriptor of the
    /// ring lives on.
    #[test]
    fn a_ring_ends_what_is_in_flight() {
        let sizes = RingSizes {
            submissions: 8,
            buffers: 8,
            buffer_bytes: 512,
        };
        let mut ring = Ring::new(sizes).unwrap();
        // SAFETY: the ring is open during this call.
        let fd = unsafe { BorrowedFd::borrow_raw(ring.ring.as_raw_fd()) };
        let second = fd.try_clone_to_owned().unwrap();
        let (own, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let key = SlotKey {
            slot: 1,
            generation: 1,
        };
        ring.receive(own.as_raw_fd(), key);
        ring.wake_in(60_000_000);
        assert_eq!(ring.in_flight, 2);
        assert!(ring.end(), "{} are left", ring.in_flight);
        drop(ring);
        // Nobody takes what comes now.
        (&peer).write_all(b"late").unwrap();
        drop(second);
        let mut late = [0; 4];
        (&own).read_exact(&mut late).unwrap();
        assert_eq!(&late, b"late");
    }

    #[test]
    fn this_machine_has_io_uring() {
        probe().unwrap();
    }
}
