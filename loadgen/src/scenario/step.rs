//! One step: its loads as processes of this program, beside each other, and what they print. While
//! they run, the memory of the server is looked at.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::usage::resident_bytes;

use super::Run;
use super::file::{Load, Step};
use super::ramp::{self, Search};
use super::server::Server;

/// What a step came to.
#[derive(Debug, Default)]
pub(crate) struct StepResult {
    pub(crate) name: String,
    pub(crate) loads: Vec<LoadResult>,
    /// Resident bytes of the server: before, and at most meanwhile.
    pub(crate) memory: Option<(u64, u64)>,
    /// The search for the highest rate; the loads are those of its best round.
    pub(crate) ramp: Option<Search>,
    /// Why there is nothing to show.
    pub(crate) failure: Option<String>,
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

    /// Connections of all loads, those that a load comes and goes with left out.
    pub(crate) fn connections(&self) -> u64 {
        let of = |load: &LoadResult| load.report["connections"].as_u64();
        self.loads.iter().filter_map(of).sum()
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

/// Runs a step, which has a place in its scenario.
pub(crate) fn run(step: &Step, place: &str, server: &Server, options: &Run) -> StepResult {
    let bar = progress(&format!("{place}: {}", step.name));
    let before = resident(server);
    let mut most = 0;
    let mut look = || most = most.max(resident(server).unwrap_or(0));
    let (loads, ramp) = match step.ramp {
        None => (together(&step.load, server, options, &mut look), None),
        Some(wanted) => {
            let mut round = 0;
            let mut at = |rate: f64| {
                round += 1;
                bar.set_message(format!("{place}: {}, run {round}: {rate:.0}/s", step.name));
                let mut loads = step.load.clone();
                loads[0] = loads[0].with("rate", rate);
                together(&loads, server, options, &mut look)
            };
            let (best, search) = ramp::search(wanted, &mut at);
            (Ok(best), Some(search))
        }
    };
    bar.finish_and_clear();
    let nothing_held = ramp.as_ref().filter(|search| search.found().is_none());
    let failure = match &loads {
        Ok(_) => nothing_held.map(Search::told),
        Err(error) => Some(format!("{error:#}")),
    };
    StepResult {
        name: step.name.clone(),
        loads: loads.unwrap_or_default(),
        memory: before.map(|before| (before, most)),
        ramp,
        failure,
    }
}

fn progress(message: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    bar.enable_steady_tick(LOOKED_EVERY);
    bar.set_message(message.to_owned());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn resident(server: &Server) -> Option<u64> {
    resident_bytes(&server.pid?.to_string()).ok()
}

/// All loads at once; one that fails is told at once, and the others are ended.
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
    loop {
        let mut all_ended = true;
        for one in &mut running {
            match one.child.try_wait().context("wait for a load")? {
                None => all_ended = false,
                Some(status) if has_failed(status) => bail!(one.complaint()?),
                Some(_) => {}
            }
        }
        if all_ended {
            return running.iter_mut().map(Running::result).collect();
        }
        look();
        std::thread::sleep(LOOKED_EVERY);
    }
}

/// One whose numbers must be thrown away has told them.
fn has_failed(status: ExitStatus) -> bool {
    !status.success() && status.code() != Some(i32::from(crate::THROWN_AWAY))
}

struct Running {
    child: Child,
    command: String,
    /// Files and no pipes: what nobody reads yet stops nobody.
    printed: File,
    complained: File,
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
        let file = || tempfile::tempfile().context("make a file for what a load prints");
        let (printed, complained) = (file()?, file()?);
        let child = command
            .stdout(printed.try_clone()?)
            .stderr(complained.try_clone()?)
            .spawn();
        Ok(Self {
            child: child.context("start a load")?,
            command: format!("loadgen {}", words.join(" ")),
            printed,
            complained,
        })
    }

    fn result(&mut self) -> Result<LoadResult> {
        match serde_json::from_str(&text_of(&mut self.printed)?) {
            Ok(report) => Ok(LoadResult {
                command: std::mem::take(&mut self.command),
                report,
            }),
            Err(_) => bail!(self.complaint()?),
        }
    }

    fn complaint(&mut self) -> Result<String> {
        let text = text_of(&mut self.complained)?;
        let text = text.trim().trim_start_matches("error: ");
        Ok(format!("{text} (`{}`)", self.command))
    }
}

fn text_of(file: &mut File) -> Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// A load whose scenario fails is not left behind.
impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LOOKED_EVERY: Duration = Duration::from_millis(100);
