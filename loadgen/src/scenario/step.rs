//! One step: its loads as processes of this program, beside each other, and what they print. While
//! they run, the memory of the server is looked at.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::usage::Memory;

use super::Run;
use super::file::{Load, Step};
use super::ramp::{self, Round};
use super::server::Server;

/// What a step came to.
#[derive(Debug)]
pub(crate) struct StepResult {
    pub(crate) name: String,
    pub(crate) loads: Vec<LoadResult>,
    /// Resident bytes of the server: before, and at most meanwhile.
    pub(crate) memory: Option<(u64, u64)>,
    pub(crate) connections: u64,
    /// The search for the highest rate; the loads are those of its best round.
    pub(crate) ramp: Option<(f64, Vec<Round>)>,
}

/// What a load came to.
#[derive(Debug, Clone)]
pub(crate) struct LoadResult {
    pub(crate) command: String,
    /// What it printed.
    pub(crate) report: Value,
}

impl StepResult {
    /// Nothing has to be thrown away.
    pub(crate) fn is_good(&self) -> bool {
        self.loads.iter().all(LoadResult::is_good)
    }
}

impl LoadResult {
    pub(crate) fn is_good(&self) -> bool {
        self.faults().next().is_none()
    }

    /// Why it must be thrown away.
    pub(crate) fn faults(&self) -> impl Iterator<Item = &str> {
        let faults = self.report["throw_away"].as_array();
        faults.into_iter().flatten().filter_map(Value::as_str)
    }

    /// p99 of its slowest series.
    pub(crate) fn p99_us(&self) -> f64 {
        let series = self.report["latencies"].as_array().into_iter().flatten();
        let p99 = series.filter_map(|series| series["p99_us"].as_f64());
        p99.fold(0.0, f64::max)
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.report["per_second"].as_f64().unwrap_or(0.0)
    }
}

/// Runs a step.
pub(crate) fn run(step: &Step, server: &Server, options: &Run) -> Result<StepResult> {
    let bar = progress(&step.name);
    let before = resident(server);
    let mut most = 0;
    let mut look = || most = most.max(resident(server).unwrap_or(0));
    let (loads, ramp) = match step.ramp {
        None => (together(&step.load, server, options, &mut look)?, None),
        Some(wanted) => {
            let mut at = |rate: f64| {
                bar.set_message(format!("{}: {rate:.0}/s", step.name));
                let mut loads = step.load.clone();
                loads[0] = loads[0].with("rate", rate);
                together(&loads, server, options, &mut look)
            };
            let (best, rounds) = ramp::search(wanted, &mut at)?;
            (best, Some((wanted.p99_us_max, rounds)))
        }
    };
    bar.finish_and_clear();
    Ok(StepResult {
        name: step.name.clone(),
        loads,
        memory: before.map(|before| (before, most)),
        connections: step.load.iter().map(Load::connections).sum(),
        ramp,
    })
}

fn progress(name: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    bar.enable_steady_tick(LOOKED_EVERY);
    bar.set_message(name.to_owned());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn resident(server: &Server) -> Option<u64> {
    let memory = Memory::of(&server.pid?.to_string()).ok()?;
    Some(memory.resident_bytes())
}

/// All loads at once; a load that fails ends the scenario, the others are ended with it.
fn together(
    loads: &[Load],
    server: &Server,
    options: &Run,
    look: &mut impl FnMut(),
) -> Result<Vec<LoadResult>> {
    let mut running = Vec::new();
    for load in loads {
        for number in 0..load.copies {
            running.push(Running::start(load, number, server, options)?);
        }
    }
    while running.iter_mut().any(Running::is_running) {
        look();
        std::thread::sleep(LOOKED_EVERY);
    }
    running.into_iter().map(Running::finish).collect()
}

struct Running {
    child: Option<Child>,
    command: String,
}

impl Running {
    fn start(load: &Load, number: u32, server: &Server, options: &Run) -> Result<Self> {
        let mut load = load.clone();
        if let Some(seconds) = options.seconds {
            load = load.with("seconds", seconds);
        }
        let mut words = load.arguments(number)?;
        words.extend(["--server".to_owned(), server.address.to_string()]);
        let optional = [
            ("--pid", server.pid.map(|pid| pid.to_string())),
            ("--cpu", options.cpu.map(|cpu| cpu.to_string())),
        ];
        for (flag, value) in optional {
            words.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        }
        if let (true, Some(data)) = (load.mode == "durable publish", server.data()) {
            words.extend(["--data-dir".to_owned(), data.display().to_string()]);
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&words).arg("--json").stdin(Stdio::null());
        // The token is nothing for a command line, nor for a page that shows it.
        if let Some(token) = &server.token {
            command.env("LOADGEN_TOKEN", token);
        }
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Ok(Self {
            child: Some(child.context("start a load")?),
            command: format!("loadgen {}", words.join(" ")),
        })
    }

    fn is_running(&mut self) -> bool {
        let child = self.child.as_mut().map(Child::try_wait);
        matches!(child, Some(Ok(None)))
    }

    fn finish(mut self) -> Result<LoadResult> {
        let child = self.child.take().context("a load ends once")?;
        let output = child.wait_with_output().context("wait for a load")?;
        let report = serde_json::from_slice(&output.stdout);
        match report {
            Ok(report) => Ok(LoadResult {
                command: std::mem::take(&mut self.command),
                report,
            }),
            Err(_) => bail!(
                "`{}`: {}",
                self.command,
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        }
    }
}

/// A load whose scenario fails is not left behind.
impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const LOOKED_EVERY: Duration = Duration::from_millis(100);
