//! Operations of the kernel and the memory that they use: the data ring, the buffers that it fills,
//! files. Knows operations and who asked for them; not what the bytes mean.

pub(crate) mod buffers;
pub(crate) mod clock;
pub(crate) mod departed;
pub(crate) mod file;
pub(crate) mod ring;
pub(crate) mod sending;
