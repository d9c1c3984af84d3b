//! Simulation: the code that serves, on a disk and a clock that the test owns, with crashes at random
//! operations. Each failure names its seed; `TIDEGATE_SIM_SEEDS` sets how many are tried.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test ends at the first thing that is not as it should be"
)]

#[path = "sim/commit_log.rs"]
mod commit_log;

#[path = "sim/log_model.rs"]
mod log_model;

#[path = "sim/faults.rs"]
mod faults;

#[path = "sim/forgetting.rs"]
mod forgetting;

#[path = "sim/foreign.rs"]
mod foreign;

#[path = "sim/resting.rs"]
mod resting;

#[path = "sim/full.rs"]
mod full;

#[path = "sim/repairing.rs"]
mod repairing;

#[path = "sim/reopening.rs"]
mod reopening;

#[path = "sim/linearizable.rs"]
mod linearizable;

#[path = "sim/topic_model.rs"]
mod topic_model;

#[path = "sim/node.rs"]
mod node;

#[path = "sim/clients.rs"]
mod clients;

#[path = "sim/told.rs"]
mod told;

#[path = "sim/living.rs"]
mod living;

#[path = "sim/spoiling.rs"]
mod spoiling;

/// How many seeds a simulation tries.
fn seeds(default: u64) -> u64 {
    let set = std::env::var("TIDEGATE_SIM_SEEDS").ok();
    set.and_then(|seeds| seeds.parse().ok()).unwrap_or(default)
}

/// A folder in memory where there is one: the tests own their crashes and need no disk.
fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory));
    made.and_then(Result::ok)
        .unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// A small random generator: the same seed gives the same run.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}
