//! How much memory of its own the process holds. One shard samples once a second; all read what it
//! found. Knows the machine and its limits; no connection.
//!
//! Mapped files are not counted: the kernel takes their pages back by itself.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::config::Limits;

/// What the last sample found.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The limit where none is configured.
    default_max: u64,
    pub(crate) samples: AtomicU64,
    /// Bytes above the line from which on connections are ended.
    pub(crate) excess: AtomicU64,
    is_short: AtomicBool,
}

/// The part of the machine's or the cgroup's memory that is taken where none is configured.
const DEFAULT_PERCENT: u64 = 60;

impl Memory {
    /// For this machine, or the cgroup in it that the process lives in.
    pub(crate) fn of_this_machine() -> Self {
        let machine = read("/proc/meminfo").and_then(|text| machine_bytes(&text));
        let groups = read("/proc/self/cgroup").unwrap_or_default();
        let group = limit_files(&groups)
            .iter()
            .filter_map(|path| read(path)?.trim().parse().ok())
            .min();
        let whole = machine.unwrap_or(u64::MAX).min(group.unwrap_or(u64::MAX));
        Self {
            default_max: percent_of(DEFAULT_PERCENT, whole),
            samples: AtomicU64::new(0),
            excess: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
        }
    }

    /// Whether nobody new should be let in.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    /// The limit in force.
    pub(crate) fn max(&self, limits: &Limits) -> u64 {
        match limits.memory_bytes_max {
            0 => self.default_max,
            max => max,
        }
    }

    /// Notes what the process holds now.
    pub(crate) fn note(&self, used: u64, limits: &Limits) {
        let max = self.max(limits);
        let is_short = percent_of(limits.memory_refuse_percent, max) <= used;
        if self.is_short.swap(is_short, Ordering::Relaxed) != is_short {
            tracing::warn!(target: "tidegate::shard", used, max, is_short, "user memory");
        }
        let close_at = percent_of(limits.memory_close_percent, max);
        self.excess
            .store(used.saturating_sub(close_at), Ordering::Relaxed);
        self.samples.fetch_add(1, Ordering::Release);
    }
}

fn percent_of(percent: u64, whole: u64) -> u64 {
    whole / 100 * percent + whole % 100 * percent / 100
}

pub(crate) fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// What is resident and no file, out of `/proc/self/statm`.
pub(crate) fn own_bytes(statm: &str) -> Option<u64> {
    let mut pages = statm.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

/// The memory of the machine, out of `/proc/meminfo`.
fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Where the limits of the own cgroup and of those above it stand, for both versions. In a
/// container the path may be that of the host; then the root has what holds here.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for above in Path::new(path).ancestors() {
            let above = above.to_string_lossy();
            files.push(format!("{root}{}/{file}", above.trim_end_matches('/')));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(default_max: u64) -> Memory {
        Memory {
            default_max,
            ..Memory::of_this_machine()
        }
    }

    #[test]
    fn lines_are_drawn_at_their_percents() {
        let memory = memory(1_000);
        let limits = Limits::default();
        for (used, is_short, excess) in [
            (0, false, 0),
            (799, false, 0),
            (800, true, 0),
            (950, true, 0),
            (1_000, true, 50),
            (500, false, 0),
        ] {
            memory.note(used, &limits);
            let excess_seen = memory.excess.load(Ordering::Relaxed);
            assert_eq!(
                (memory.is_short(), excess_seen),
                (is_short, excess),
                "{used}"
            );
        }
        let limits = Limits {
            memory_bytes_max: 100,
            ..limits
        };
        memory.note(80, &limits);
        assert!(
            memory.is_short(),
            "what is configured goes before the default"
        );
    }

    #[test]
    fn what_is_resident_and_no_file_is_counted() {
        let page = rustix::param::page_size() as u64;
        assert_eq!(own_bytes("900 300 100 5 0 200 0\n"), Some(200 * page));
        assert_eq!(own_bytes(""), None);
        assert_eq!(
            machine_bytes("MemTotal:  2048 kB\nMemFree: 1 kB\n"),
            Some(2 << 20)
        );
    }

    #[test]
    fn both_versions_of_cgroups_are_looked_at() {
        assert_eq!(
            limit_files("0::/a/b\n"),
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            limit_files("5:devices:/x\n4:cpu,memory:/a\n"),
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
    }

    #[test]
    fn a_machine_has_memory() {
        let max = Memory::of_this_machine().max(&Limits::default());
        assert!(1 << 20 < max && max < 1 << 50, "{max}");
    }
}
