//! A stream that goes on when a call is interrupted: the rings of a server in the same process do
//! that to threads which have nothing to do with them. The tests of this crate have the same file.

use std::io::{self, Read, Write};

/// Reads and writes until the kernel has done it or has failed.
pub(crate) struct Patient<S>(pub(crate) S);

impl<S: Read> Read for Patient<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.read(out))
    }
}

impl<S: Write> Write for Patient<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn uninterrupted(mut operate: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match operate() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
