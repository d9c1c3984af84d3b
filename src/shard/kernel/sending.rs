//! Bytes on their way to a socket, which belong to the ring for as long as the kernel reads them. Knows whose
//! memory that is; not what it says.

use std::fmt;
use std::rc::Rc;

/// Bytes on their way to a socket.
pub(crate) struct Sending {
    held: Held,
    /// How much has gone, or belongs to an earlier frame.
    at: usize,
}

enum Held {
    /// For this socket alone.
    Own(Vec<u8>),
    /// Others get them too.
    Shared(Rc<dyn AsRef<[u8]>>),
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("rest", &self.rest().len())
            .finish_non_exhaustive()
    }
}

impl Sending {
    /// Bytes for one socket.
    pub(crate) fn own(bytes: Vec<u8>) -> Self {
        let held = Held::Own(bytes);
        Self { held, at: 0 }
    }

    /// What stands from `at` on in bytes that others get too.
    pub(crate) fn shared(bytes: Rc<dyn AsRef<[u8]>>, at: usize) -> Self {
        let held = Held::Shared(bytes);
        Self { held, at }
    }

    fn all(&self) -> &[u8] {
        match &self.held {
            Held::Own(bytes) => bytes,
            Held::Shared(bytes) => (**bytes).as_ref(),
        }
    }

    /// What has not gone yet.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.all()[self.at..]
    }

    /// `bytes` more have gone.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        assert!(self.at <= self.all().len(), "no more goes than there is");
    }

    /// The buffer, if it was this socket's own.
    pub(crate) fn into_own(self) -> Option<Vec<u8>> {
        match self.held {
            Held::Own(bytes) => Some(bytes),
            Held::Shared(_) => None,
        }
    }
}
