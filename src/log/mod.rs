//! Records to files and back. Knows nothing of sockets, JSON or dialects.
