//! What the kernel says of the bytes that a socket was given: how many the peer has acknowledged,
//! and how many still wait. Knows one socket and two calls; nothing of who judges by them.
#![expect(
    unsafe_code,
    reason = "two calls for which no published crate has a safe form"
)]

use std::os::fd::{AsRawFd, OwnedFd};

/// What the kernel says of the bytes that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Departed {
    /// Bytes that the peer has acknowledged since it connected.
    pub(crate) acked: u64,
    /// Bytes that wait for that.
    pub(crate) waiting: u64,
}

/// Asks; `None` for what is no TCP socket, or an older kernel.
pub(crate) fn departed(fd: &OwnedFd) -> Option<Departed> {
    Some(Departed {
        acked: acked(fd)?,
        waiting: waiting(fd)?,
    })
}

/// `tcp_info` of linux/tcp.h up to `tcpi_bytes_acked` (Linux 4.1), which stands at this place.
const ACKED_AT: usize = 120;
const INFO_BYTES: usize = ACKED_AT + size_of::<u64>();

fn acked(fd: &OwnedFd) -> Option<u64> {
    let mut info = [0_u8; INFO_BYTES];
    let mut length = libc::socklen_t::try_from(INFO_BYTES).ok()?;
    // SAFETY: the kernel writes at most `length` bytes, which is what `info` holds, and the new
    // length; both live through the call.
    let failed = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let is_whole = failed == 0 && length as usize == INFO_BYTES;
    let bytes = info[ACKED_AT..].first_chunk()?;
    let native = |bytes: &[u8; 8]| match cfg!(target_endian = "little") {
        true => u64::from_le_bytes(*bytes),
        false => u64::from_be_bytes(*bytes),
    };
    is_whole.then(|| native(bytes))
}

fn waiting(fd: &OwnedFd) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `TIOCOUTQ` (SIOCOUTQ of a socket) writes one int, which lives through the call.
    let failed = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    (failed == 0).then(|| u64::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// What the peer has taken counts up, what it has not waits.
    #[test]
    fn bytes_leave_as_the_peer_takes_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut own, _) = listener.accept().unwrap();
        own.set_nonblocking(true).unwrap();
        let fd = OwnedFd::from(own.try_clone().unwrap());
        let mut written = 0;
        while let Ok(count) = own.write(&[7; 4_096]) {
            written += count as u64;
        }
        let full = departed(&fd).unwrap();
        assert!(0 < full.waiting, "the peer reads nothing: {full:?}");
        assert!(
            full.acked + full.waiting <= written + 1,
            "{full:?} of {written}"
        );
        let mut taken = vec![0; usize::try_from(written).unwrap()];
        peer.read_exact(&mut taken).unwrap();
        let (mut left, mut looks) = (full, 0);
        while left.waiting != 0 && looks < 1_000 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            left = departed(&fd).unwrap();
            looks += 1;
        }
        assert_eq!((left.acked, left.waiting), (written, 0));
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(departed(&udp.into()), None);
    }
}
