//! Benchmarks and peers.
fn main() {}
