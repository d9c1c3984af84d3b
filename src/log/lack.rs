//! What a failed operation says of the disk: that there is no space, that something is lacking for
//! the moment, or that stored bytes are gone. Knows error numbers, not who asked.
//!
//! Only damage is final. What is lacking (descriptors, memory, a moment of patience) says nothing of
//! the bytes on the disk, so the same operation is asked for again.

use std::io;

const EINTR: i32 = 4;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EFAULT: i32 = 14;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENODATA: i32 = 61;
const EBADMSG: i32 = 74;
const EUCLEAN: i32 = 117;
const EHWPOISON: i32 = 133;

/// Nothing was done and nothing is lost: the same operation may succeed in a moment.
pub(super) fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, OutOfMemory, WouldBlock};
    matches!(error.kind(), Interrupted | OutOfMemory | WouldBlock)
        || matches!(
            error.raw_os_error(),
            Some(EINTR | EAGAIN | ENOMEM | ENFILE | EMFILE)
        )
}

/// Errors that say "not now" to whoever makes a file: no space, or no descriptor for it.
pub(super) fn is_lack(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded) || is_passing(error)
}

/// A read that fails so will always: the medium or the file system says that the bytes are bad,
/// the file is gone, or it ends before them (EFAULT, where it is mapped).
pub(super) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof)
        || matches!(
            error.raw_os_error(),
            Some(EIO | EFAULT | ENODATA | EBADMSG | EUCLEAN | EHWPOISON)
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_lack_or_damage_and_never_both() {
        let errno = io::Error::from_raw_os_error;
        for number in [EINTR, EAGAIN, ENOMEM, ENFILE, EMFILE] {
            let error = errno(number);
            assert!(is_passing(&error) && is_lack(&error), "{number}");
            assert!(!is_damage(&error), "{number}");
        }
        for number in [EIO, EFAULT, ENODATA, EBADMSG, EUCLEAN, EHWPOISON] {
            let error = errno(number);
            assert!(is_damage(&error) && !is_lack(&error), "{number}");
        }
        let full = errno(28);
        assert!(is_lack(&full) && !is_passing(&full) && !is_damage(&full));
    }
}
