//! The comparison: servers on one core, the load generator on another, contestants in turn and in
//! reverse turn, medians as Markdown. Knows its contestants as commands to start.

mod contestant;
mod machine;
mod scenario;
mod table;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use contestant::{Contestant, Folders, Running};
use scenario::Scenario;

/// Options of the comparison.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Binaries of server and load generator, built with the profile `dist`.
    #[arg(long, default_value = "target/dist")]
    binaries: PathBuf,
    /// Binaries of our own server that were built before, which take their turn beside those of now.
    #[arg(long)]
    before: Option<PathBuf>,
    /// Passes over all contestants of a scenario; every second one goes in reverse order.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds of load before each measurement.
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// Only scenarios whose name holds one of these texts, separated by commas, such as `echo`,
    /// `fanout 1 to 1000`, `idle`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only contestants whose name holds one of these texts, separated by commas.
    #[arg(long, value_delimiter = ',')]
    contestants: Vec<String>,
    /// Connections of the idle scenarios: two numbers show what one more costs.
    #[arg(long, value_delimiter = ',', default_values_t = [4_000, 15_000])]
    idle_connections: Vec<u32>,
    /// Core of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// Core of the load generator.
    #[arg(long, default_value_t = 1)]
    load_cpu: usize,
    /// Start no further run after so many seconds.
    #[arg(long, default_value_t = 900)]
    stop_after: u64,
    /// Where every run's report is kept, one JSON object a line.
    #[arg(long, default_value = "target/compare.jsonl")]
    raw: PathBuf,
}

/// What one run of one contestant showed.
#[derive(Debug)]
pub(crate) struct Outcome {
    contestant: usize,
    round: usize,
    report: Value,
}

/// Runs the comparison and prints its tables.
#[expect(
    clippy::disallowed_methods,
    reason = "a time limit of the whole needs a clock"
)]
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(0 < options.rounds, "--rounds must be at least 1");
    let began = Instant::now();
    let mut raw =
        File::create(&options.raw).with_context(|| format!("create {}", options.raw.display()))?;
    let mut stdout = std::io::stdout();
    stdout.write_all(machine::facts()?.as_bytes())?;
    for scenario in scenario::all(&options.idle_connections) {
        if !options.only.is_empty() && !options.only.iter().any(|it| scenario.name.contains(it)) {
            continue;
        }
        let contestants = contestants(options, &scenario);
        let mut outcomes = Vec::new();
        for round in 0..options.rounds {
            if options.stop_after <= began.elapsed().as_secs() {
                break;
            }
            outcomes.extend(run_round(options, &scenario, &contestants, round)?);
        }
        for outcome in &outcomes {
            writeln!(raw, "{}", outcome.report)?;
        }
        let table = table::markdown(&scenario, &contestants, &outcomes);
        stdout.write_all(table.as_bytes())?;
    }
    Ok(())
}

fn contestants(options: &Options, scenario: &Scenario) -> Vec<Contestant> {
    let named = |name: &str| options.contestants.iter().any(|it| name.contains(it));
    let wanted = |it: &Contestant| options.contestants.is_empty() || named(it.name);
    let all = contestant::all(scenario.kind, options.folders());
    all.into_iter().filter(wanted).collect()
}

impl Options {
    fn folders(&self) -> Folders<'_> {
        Folders {
            now: &self.binaries,
            before: self.before.as_deref(),
        }
    }
}

/// Every contestant once, each as a fresh process, so that none profits from what the last left.
fn run_round(
    options: &Options,
    scenario: &Scenario,
    contestants: &[Contestant],
    round: usize,
) -> Result<Vec<Outcome>> {
    let mut order: Vec<usize> = (0..contestants.len()).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    let mut outcomes = Vec::new();
    for contestant in order {
        let running = contestants[contestant]
            .start(options.folders(), (options.server_cpu, options.load_cpu))?;
        // A run that failed is shown as one, and the others go on.
        let report = load(options, scenario, &contestants[contestant], &running);
        let mut report =
            report.unwrap_or_else(|error| json!({"throw_away": [format!("{error:#}")]}));
        report["contestant"] = contestants[contestant].title().into();
        report["scenario"] = scenario.name.clone().into();
        report["round"] = round.into();
        outcomes.push(Outcome {
            contestant,
            round,
            report,
        });
    }
    Ok(outcomes)
}

fn load(
    options: &Options,
    scenario: &Scenario,
    contestant: &Contestant,
    running: &Running,
) -> Result<Value> {
    let mut command = std::process::Command::new(options.binaries.join("loadgen"));
    command
        .args(scenario.arguments.iter())
        .args(contestant.load_arguments);
    command.args([
        "--json",
        "--server",
        &running.address,
        "--pid",
        &running.pid().to_string(),
    ]);
    command.args(["--cpu", &options.load_cpu.to_string()]);
    command.args(["--seconds", &options.seconds.to_string()]);
    command.args(["--warmup", &options.warmup.to_string()]);
    if let Some(token) = &running.token {
        command.env("LOADGEN_TOKEN", token);
    }
    let output = command
        .output()
        .context("start loadgen: build it with --release first")?;
    if output.stdout.is_empty() {
        bail!(
            "loadgen: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
