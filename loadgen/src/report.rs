//! What a run shows: text for people, JSON for scripts, and the reasons for which it must be
//! thrown away.

use std::fmt;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::latency::{Latencies, Summary};
use crate::options::Common;
use crate::run::Measured;
use crate::units::{percent, plural};
use crate::usage::{Cpu, Memory};

/// What was asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) mode: &'static str,
    /// What is counted.
    pub(crate) unit: &'static str,
    pub(crate) path: String,
    pub(crate) connections: usize,
    /// Messages sent at once: the depth of an echo, the burst of a fan-out.
    pub(crate) at_once: u64,
    pub(crate) message_bytes: usize,
    /// Open loop only.
    pub(crate) offered_per_second: Option<f64>,
}

impl Load {
    /// Connections that are held and say nothing.
    pub(crate) fn held(mode: &'static str, path: &str, connections: usize) -> Self {
        Self {
            mode,
            unit: "message",
            path: path.to_owned(),
            connections,
            at_once: 0,
            message_bytes: 0,
            offered_per_second: None,
        }
    }
}

/// What it came to.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: &'static str,
    server_address: String,
    #[serde(flatten)]
    load: Load,
    warmup_seconds: f64,
    seconds: f64,
    count: u64,
    per_second: f64,
    latencies: Vec<Summary>,
    server: Option<Process>,
    own: Process,
    steal_share: f64,
    wrong: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_per_connection: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<DiskShare>,
    notes: Vec<String>,
    throw_away: Vec<String>,
}

/// How the load compares with the syncs of the disk alone.
#[derive(Debug, Serialize)]
struct DiskShare {
    fdatasync: Summary,
    /// Acks in the time of one sync for each publish in flight: 1 is all that one commit at a
    /// time can give.
    rate_share: f64,
    /// p99 of the ack over p99 of the sync.
    ack_share: f64,
}

/// CPU time of a process in the measured window.
#[derive(Debug, Serialize)]
struct Process {
    pid: u32,
    cpu_ns_per_unit: f64,
    /// Of these, in its own code; the rest is the kernel's.
    user_ns_per_unit: f64,
    /// Of one core.
    cpu_share: f64,
    /// Time during which it could have run and no core was free for it.
    wait_share: f64,
}

impl Process {
    fn new(pid: u32, cpu: Cpu, measured: &Measured) -> Self {
        let window = measured.seconds * 1e9;
        let cpu_ns_per_unit = cpu.run as f64 / measured.tally.messages.max(1) as f64;
        Self {
            pid,
            cpu_ns_per_unit,
            user_ns_per_unit: cpu_ns_per_unit * cpu.user_share(),
            cpu_share: cpu.run as f64 / window,
            wait_share: cpu.wait as f64 / window,
        }
    }
}

impl Report {
    /// Puts together what was asked and what was measured.
    pub(crate) fn new(common: &Common, load: Load, measured: &Measured) -> Self {
        let server = measured.server.zip(common.pid);
        let mut report = Self {
            version: env!("CARGO_PKG_VERSION"),
            server_address: common.server.to_string(),
            load,
            warmup_seconds: common.warmup,
            seconds: measured.seconds,
            count: measured.tally.messages,
            per_second: measured.tally.messages as f64 / measured.seconds,
            latencies: measured
                .tally
                .latencies
                .iter()
                .map(|series| series.summary())
                .collect(),
            server: server.map(|(usage, pid)| Process::new(pid, usage, measured)),
            own: Process::new(std::process::id(), measured.own, measured),
            steal_share: measured.steal,
            wrong: measured.tally.wrong,
            memory_per_connection: None,
            disk: None,
            notes: Vec::new(),
            throw_away: Vec::new(),
        };
        report.throw_away = report.faults();
        report.notes.extend(report.shared_core());
        report
    }

    /// Adds what each connection that was held has cost in memory.
    pub(crate) fn with_memory_since(
        mut self,
        before: &Memory,
        measured: &Measured,
    ) -> Result<Self> {
        let after = measured.tally.memory;
        let after = after.context("the connections were not held to the end")?;
        let connections = self.load.connections as u64;
        self.memory_per_connection = Some(after.per_connection_since(before, connections));
        Ok(self)
    }

    /// Adds what a sync cost just before and after.
    pub(crate) fn with_disk(mut self, latencies: &Latencies) -> Self {
        let fdatasync = latencies.summary();
        let ack_p99_us = self.latencies.first().map_or(0.0, |ack| ack.p99_us);
        self.disk = Some(DiskShare {
            rate_share: self.per_second * fdatasync.p50_us / 1e6 / self.load.at_once as f64,
            ack_share: ack_p99_us / fdatasync.p99_us,
            fdatasync,
        });
        self
    }

    /// The run does not say what it seems to say.
    pub(crate) fn must_be_thrown_away(&self) -> bool {
        !self.throw_away.is_empty()
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(offered) = self.load.offered_per_second
            && self.per_second < offered * ACHIEVED_MIN
        {
            let share = percent(self.per_second / offered);
            faults.push(format!(
                "achieved {share} of the offered {offered:.0}/s (< 99 %)"
            ));
        }
        if OWN_BUSY_MAX < self.own.cpu_share {
            faults.push(format!(
                "own core {} busy (> 90 %)",
                percent(self.own.cpu_share)
            ));
        }
        if STEAL_MAX < self.steal_share {
            faults.push(format!("steal {} (> 1 %)", percent(self.steal_share)));
        }

        if self.count == 0 && !SILENT.contains(&self.load.mode) {
            faults.push("nothing came back".into());
        }
        if 0 < self.wrong {
            faults.push(format!(
                "{} answers were not what was asked for",
                self.wrong
            ));
        }
        faults
    }

    /// CPU time counts only what ran, so such a run keeps its cost per message.
    fn shared_core(&self) -> Option<String> {
        let server = self.server.as_ref().filter(|it| WAIT_MAX < it.wait_share)?;
        let share = percent(server.wait_share);
        Some(format!(
            "the server waited {share} of the time for a core: its rate and latencies are not its own"
        ))
    }

    fn write_load(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Load {
            mode,
            path,
            connections,
            at_once,
            message_bytes,
            ..
        } = &self.load;
        write!(
            f,
            "{mode}  {} {path}, {connections} connections",
            self.server_address
        )?;
        match self.load.offered_per_second {
            _ if SILENT.contains(mode) => {}
            Some(rate) => write!(
                f,
                ", {at_once} x {message_bytes} B, open loop, {rate:.0}/s offered"
            )?,
            None => write!(f, ", {at_once} x {message_bytes} B at once, closed loop")?,
        }
        writeln!(
            f,
            ", {:.1} s after {:.1} s",
            self.seconds, self.warmup_seconds
        )
    }

    fn write_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Memory {
            resident,
            private,
            slab,
            ..
        }) = self.memory_per_connection
        else {
            return Ok(());
        };
        let connections = self.load.connections as f64;
        let busy_us = self
            .server
            .as_ref()
            .map_or(0.0, |it| it.cpu_share * 1e6 / connections);
        writeln!(
            f,
            "memory   {resident} B resident, {private} B private per connection"
        )?;
        writeln!(
            f,
            "         {slab} B of kernel slab per connection, both ends together"
        )?;
        writeln!(f, "server   {busy_us:.2} us CPU per second and connection")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_load(f)?;
        self.write_memory(f)?;
        let unit = self.load.unit;
        if 0 < self.count {
            writeln!(
                f,
                "rate     {:.0} {}/s, {} in all",
                self.per_second,
                plural(unit),
                self.count
            )?;
        }
        for series in self.latencies.iter().filter(|series| 0 < series.count) {
            let Summary {
                name,
                p50_us,
                p90_us,
                p99_us,
                p99_9_us,
                p99_99_us,
                max_us,
                ..
            } = series;
            write!(
                f,
                "latency  {name}: p50 {p50_us} us, p90 {p90_us}, p99 {p99_us}, "
            )?;
            writeln!(f, "p99.9 {p99_9_us}, p99.99 {p99_99_us}, max {max_us}")?;
        }
        let server = self.server.iter().map(|process| ("server", process));
        for (name, process) in server
            .chain([("own", &self.own)])
            .filter(|_| 0 < self.count)
        {
            let (cost, busy) = (process.cpu_ns_per_unit, percent(process.cpu_share));
            let (user, waited) = (process.user_ns_per_unit, percent(process.wait_share));
            writeln!(
                f,
                "{name:8} {cost:.0} ns CPU per {unit} ({user:.0} in its own code), \
                 {busy} of a core, waited {waited}"
            )?;
        }
        if let Some(disk) = &self.disk {
            let Summary { p50_us, p99_us, .. } = disk.fdatasync;
            writeln!(
                f,
                "disk     fdatasync p50 {p50_us} us, p99 {p99_us}; rate x p50 / in flight {:.2}, \
                 ack p99 / its p99 {:.2}",
                disk.rate_share, disk.ack_share
            )?;
        }
        write!(f, "steal    {}", percent(self.steal_share))?;
        self.notes
            .iter()
            .try_for_each(|note| write!(f, "\nnote     {note}"))?;
        self.throw_away
            .iter()
            .try_for_each(|fault| write!(f, "\nTHROW AWAY: {fault}"))
    }
}

/// Loads that are no messages.
const SILENT: [&str; 2] = ["idle", "stall"];
const ACHIEVED_MIN: f64 = 0.99;
const OWN_BUSY_MAX: f64 = 0.90;
const STEAL_MAX: f64 = 0.01;
/// Above it a rate or a latency is that of the machine rather than of the server.
const WAIT_MAX: f64 = 0.05;
