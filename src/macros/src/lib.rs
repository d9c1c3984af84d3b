//! The attribute macros of Tidegate: each emits only calls that a user could have written.
