//! A scenario: steps of load on one server, each a process of this program, and a page that shows
//! what they came to. Knows steps by their command lines and by the JSON that they print.

mod chart;
mod environment;
mod file;
mod page;
mod ramp;
mod server;
mod step;
mod tables;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use environment::Environment;
use file::Scenario;
use page::Page;
use server::Server;
use step::StepResult;

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = EXPLAINED)]
pub(crate) struct Run {
    /// The scenario; those that are shipped lie in loadgen/scenarios.
    pub(crate) scenario: PathBuf,
    /// Where to write the page: one file that needs no other.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Start this server for the scenario, in development on a port of its own.
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["server", "pid", "token"])]
    pub(crate) start: Option<PathBuf>,
    /// Address of a server that runs.
    #[arg(long, required_unless_present = "start")]
    pub(crate) server: Option<SocketAddr>,
    /// Its process id, to read its CPU time and memory.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Sent as `Authorization: Bearer`.
    #[arg(long, env = "LOADGEN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Cores of a server that is started here, as taskset has them.
    #[arg(long, default_value = "0")]
    pub(crate) server_cpus: String,
    /// Core of the first load; loads that run together share it.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Measured seconds of each step, in place of its own.
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
}

/// Runs the scenario and writes the page.
pub(crate) fn run(options: &Run) -> Result<ExitCode> {
    let text = std::fs::read_to_string(&options.scenario);
    let text = text.with_context(|| format!("read {}", options.scenario.display()))?;
    let scenario = Scenario::parse(&text)
        .with_context(|| format!("scenario {}", options.scenario.display()))?;
    let server = match (&options.start, options.server) {
        (Some(program), _) => Server::start(program, &options.server_cpus, &scenario)?,
        (None, Some(address)) => Server::running(address, options.pid, options.token.clone()),
        (None, None) => bail!("name a server: --server ADDRESS or --start PROGRAM"),
    };
    let environment = Environment::look(options.start.as_deref());
    crate::show(&scenario.title);
    let mut results = Vec::new();
    for (step, number) in scenario.step.iter().zip(1..) {
        let place = format!("{number} of {}", scenario.step.len());
        let result = step::run(step, &place, &server, options);
        crate::show(&tables::summary(&result));
        results.push(result);
    }
    drop(server);
    let page = Page {
        scenario: &scenario,
        environment: &environment,
        results: &results,
    };
    if let Some(path) = &options.report {
        std::fs::write(path, page.html()?).with_context(|| format!("write {}", path.display()))?;
        crate::show(&format!("report: {}", path.display()));
    }
    Ok(exit_code(&results))
}

fn exit_code(results: &[StepResult]) -> ExitCode {
    match results {
        steps if steps.iter().any(|step| step.failure.is_some()) => ExitCode::FAILURE,
        steps if steps.iter().all(StepResult::is_good) => ExitCode::SUCCESS,
        _ => crate::THROWN_AWAY.into(),
    }
}

const EXPLAINED: &str = "\
Each step is told when it has ended; one that fails does not keep the others from running, and the
page is written all the same. Exit codes: 0 all good, 1 a step failed, 2 something must be thrown away
(each such line says why).

All that are shipped, on the two cores of a quiet machine, in some six minutes:
  for s in loadgen/scenarios/*.toml; do
    loadgen run $s --start target/dist/tidegate --cpu 1 --report $(basename $s .toml).html
  done";
