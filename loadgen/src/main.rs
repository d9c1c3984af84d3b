//! The load generator of Tidegate: many connections from few threads, on io_uring, cheaper than
//! the server that it measures. See `--help`.

mod clock;
mod connect;
mod connection;
mod drive;
mod durable;
mod echo;
mod fanout;
mod frame;
mod idle;
mod latency;
mod options;
mod report;
mod run;
mod scenario;
mod schedule;
mod seal;
mod setup;
mod socket;
mod stall;
mod stream;
mod units;
mod usage;
mod ways;

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use serde::Serialize;

use crate::options::{Mode, Options, Verb};
use crate::report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match perform(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn perform(options: &Options) -> Result<ExitCode> {
    let mode = match &options.verb {
        Verb::Load(mode) => mode,
        Verb::Run(run) => return scenario::run(run),
    };
    let common = mode.common();
    run::pin(common.cpu)?;
    let json = common.json;
    let shown = match mode {
        Mode::Echo(echo) => Shown::report(&echo::run(echo)?, json),
        Mode::Fanout(fanout) => Shown::report(&fanout::run(fanout)?, json),
        Mode::Idle(idle) => Shown::report(&idle::run(idle)?, json),
        Mode::Connect(connect) => Shown::report(&connect::run(connect)?, json),
        Mode::Stall(stall) => Shown::report(&stall::run(stall)?, json),
        Mode::Durable(mode) => durable::run(mode),
    }?;
    show(&shown.text);
    Ok(shown.code)
}

/// What a run leaves on the screen, and its exit code.
struct Shown {
    text: String,
    code: ExitCode,
}

impl Shown {
    fn report(report: &Report, json: bool) -> Result<Self> {
        let code = if report.must_be_thrown_away() {
            THROWN_AWAY.into()
        } else {
            ExitCode::SUCCESS
        };
        Ok(Self {
            code,
            ..Self::facts(report, json)?
        })
    }

    fn facts(facts: &(impl Serialize + Display), json: bool) -> Result<Self> {
        let text = if json {
            serde_json::to_string(facts)?
        } else {
            facts.to_string()
        };
        let code = ExitCode::SUCCESS;
        Ok(Self { text, code })
    }
}

#[expect(clippy::print_stderr, reason = "the end of a command line program")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn show(text: &str) {
    println!("{text}");
}

const THROWN_AWAY: u8 = 2;
