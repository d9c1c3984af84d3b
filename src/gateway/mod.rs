//! The API that a user writes to.
