//! What the kernel says that a process has used: CPU time and memory, and what the machine did
//! beside it. Knows /proc and nothing of the load.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::clock::Nanos;

/// CPU time of a process or a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(crate) run: Nanos,
    /// It could have run and no core was free for it.
    pub(crate) wait: Nanos,
    /// The kernel's ticks in its own code, and in the kernel's for it: their ratio counts.
    user_ticks: u64,
    system_ticks: u64,
}

impl Cpu {
    /// The part of its time in its own code.
    pub(crate) fn user_share(&self) -> f64 {
        let all = self.user_ticks + self.system_ticks;
        self.user_ticks as f64 / all.max(1) as f64
    }

    fn since(self, then: Self) -> Self {
        Self {
            run: self.run.saturating_sub(then.run),
            wait: self.wait.saturating_sub(then.wait),
            user_ticks: self.user_ticks.saturating_sub(then.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(then.system_ticks),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            run: self.run + other.run,
            wait: self.wait + other.wait,
            user_ticks: self.user_ticks + other.user_ticks,
            system_ticks: self.system_ticks + other.system_ticks,
        }
    }
}

/// CPU time of every thread of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Threads(BTreeMap<String, Cpu>);

impl Threads {
    /// Reads the threads of a process, those of the kernel's io workers among them.
    pub(crate) fn of(process: &str) -> Result<Self> {
        let folder = format!("/proc/{process}/task");
        let tasks =
            fs::read_dir(&folder).with_context(|| format!("read {folder}: is --pid right?"))?;
        let mut threads = BTreeMap::new();
        for task in tasks {
            let path = task?.path();
            // A thread may end between the listing and the reading.
            let texts = ["schedstat", "stat"].map(|file| fs::read_to_string(path.join(file)));
            if let [Ok(schedstat), Ok(stat)] = texts {
                threads.insert(path.to_string_lossy().into_owned(), cpu(&schedstat, &stat));
            }
        }
        Ok(Self(threads))
    }

    /// What was run and waited since `before`. Threads that ended meanwhile are left out.
    pub(crate) fn since(&self, before: &Self) -> Cpu {
        self.0.iter().fold(Cpu::default(), |sum, (thread, now)| {
            sum.plus(now.since(before.0.get(thread).copied().unwrap_or_default()))
        })
    }
}

/// Ticks of all cores together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Machine {
    all: u64,
    stolen: u64,
}

impl Machine {
    /// Reads the machine's ticks.
    pub(crate) fn now() -> Result<Self> {
        Ok(ticks(
            &fs::read_to_string("/proc/stat").context("read /proc/stat")?,
        ))
    }

    /// Which part of the time since `before` the hypervisor gave to others.
    pub(crate) fn steal_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Memory {
    /// Resident pages of the process.
    pub(crate) resident: u64,
    /// Those that it shares with nobody.
    pub(crate) private: u64,
    /// Those that no file stands behind: what a server keeps, without the files that it maps.
    pub(crate) anonymous: u64,
    /// The kernel's slabs, of the whole machine.
    pub(crate) slab: u64,
}

impl Memory {
    /// Reads the memory of a process.
    pub(crate) fn of(process: &str) -> Result<Self> {
        let rollup = read(format!("/proc/{process}/smaps_rollup"))?;
        let private = kibibytes(&rollup, "Private_Clean:") + kibibytes(&rollup, "Private_Dirty:");
        Ok(Self {
            resident: resident_bytes(process)?,
            private: private * 1024,
            anonymous: kibibytes(&rollup, "Anonymous:") * 1024,
            slab: kibibytes(&read("/proc/meminfo".into())?, "Slab:") * 1024,
        })
    }

    /// What each of `count` connections has added since `before`.
    pub(crate) fn per_connection_since(&self, before: &Self, count: u64) -> Self {
        let share = |now: u64, then: u64| now.saturating_sub(then) / count.max(1);
        Self {
            resident: share(self.resident, before.resident),
            private: share(self.private, before.private),
            anonymous: share(self.anonymous, before.anonymous),
            slab: share(self.slab, before.slab),
        }
    }
}

/// Resident bytes of a process, from a counter: to look at its pages, as `Memory::of` does, would
/// hold it up.
pub(crate) fn resident_bytes(process: &str) -> Result<u64> {
    Ok(kibibytes(&read(format!("/proc/{process}/status"))?, "VmRSS:") * 1024)
}

fn read(path: String) -> Result<String> {
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

fn cpu(schedstat: &str, stat: &str) -> Cpu {
    let field = |text: &str, number: usize| {
        let field = text.split_whitespace().nth(number);
        field.and_then(|field| field.parse().ok()).unwrap_or(0)
    };
    // A thread's name stands in parentheses and may hold anything, so the fields behind it count.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    Cpu {
        run: field(schedstat, 0),
        wait: field(schedstat, 1),
        user_ticks: field(behind, 11),
        system_ticks: field(behind, 12),
    }
}

fn ticks(stat: &str) -> Machine {
    let line = stat.lines().next().unwrap_or_default();
    let fields = line
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0));
    // user nice system idle iowait irq softirq steal: guest time behind them is part of user.
    let fields: Vec<u64> = fields.take(8).collect();
    Machine {
        all: fields.iter().sum(),
        stolen: fields.get(7).copied().unwrap_or(0),
    }
}

fn kibibytes(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|rest| rest.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_began_meanwhile_counts_as_a_whole() {
        let threads = |of: &[(&str, u64)]| {
            let cpu = |run| Cpu {
                run,
                wait: 1,
                ..Cpu::default()
            };
            let threads = of.iter().map(|(name, run)| ((*name).to_owned(), cpu(*run)));
            Threads(threads.collect())
        };
        let before = threads(&[("1", 100), ("2", 50)]);
        let since = threads(&[("1", 170), ("3", 5)]).since(&before);
        assert_eq!((since.run, since.wait), (75, 1));
    }

    #[test]
    fn the_kernels_tables_are_read_by_name() {
        let stat = "7 (a) b) S 1 1 1 0 -1 64 9 0 0 0 30 10 0 0 20 0 1 0";
        let cpu = cpu("2310 77 5\n", stat);
        assert_eq!((cpu.run, cpu.wait), (2310, 77));
        assert!((cpu.user_share() - 0.75).abs() < 1e-9);
        let machine = ticks("cpu  10 1 2 80 1 0 1 5 3 0\ncpu0 1 1 1 1\n");
        assert_eq!((machine.all, machine.stolen), (100, 5));
        assert_eq!(
            kibibytes("VmPeak:  9 kB\nVmRSS:\t  2504 kB\n", "VmRSS:"),
            2504
        );
    }
}
