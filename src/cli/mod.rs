//! The verbs of the `tidegate` program, one file each. Knows how a person asks and is answered;
//! what is asked for is done elsewhere.

pub mod options;

mod serve;

mod config;

mod token;

mod dev_token;

mod doctor;

mod generate;

mod types;

#[cfg(feature = "client")]
mod client;

#[cfg(feature = "client")]
mod publish;

#[cfg(feature = "client")]
mod subscribe;

#[cfg(feature = "client")]
mod operate;

#[cfg(feature = "top")]
mod top;

mod log;

mod wire;

mod shell;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::server::RunError;

pub use options::ServeOptions;

/// The command line of the program.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    about = "An io_uring WebSocket edge server for Linux",
    long_about = LONG_ABOUT,
    after_help = AFTER_HELP,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve
    Serve(ServeOptions),
    /// Make and check tokens
    #[command(subcommand)]
    Token(token::TokenVerb),
    /// Write, check and explain configurations
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Look at this machine: kernel, io_uring, limits, settings, each with the line that mends it
    Doctor(ServeOptions),
    /// Publish to a durable topic
    #[cfg(feature = "client")]
    Pub(publish::PubOptions),
    /// Print the messages of a durable topic as they come
    #[cfg(feature = "client")]
    Sub(subscribe::SubOptions),
    /// Push to a relay topic
    #[cfg(feature = "client")]
    Push(operate::PushOptions),
    /// Print the durable topics of a server, one JSON object a line
    #[cfg(feature = "client")]
    Topics(operate::ListOptions),
    /// Print the durable subscriptions of a server, one JSON object a line
    #[cfg(feature = "client")]
    Subs(operate::SubsOptions),
    /// Print who is present in a relay topic, one JSON object a line
    #[cfg(feature = "client")]
    Presence(operate::PresenceOptions),
    /// Print the connections of a server, one JSON object a line
    #[cfg(feature = "client")]
    Connections(operate::ListOptions),
    /// Watch what a server does, in the terminal
    #[cfg(feature = "top")]
    Top(top::TopOptions),
    /// Look at a data directory that no server uses
    #[command(subcommand)]
    Log(log::LogVerb),
    /// Write the beginning of a gateway or of a project
    #[command(subcommand)]
    Generate(generate::GenerateVerb),
    /// Print the wire reference: every frame of every dialect, with the codes of errors
    Wire,
    /// Print completions for shells, write pages for man
    #[command(subcommand)]
    Shell(shell::ShellVerb),
}

/// The command line of a program that is built with the framework: the flags of `serve`, or one of
/// the verbs that look after its tokens, its configuration and its machine.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub struct OwnArguments {
    #[command(subcommand)]
    verb: Option<OwnVerb>,
    #[command(flatten)]
    serve: ServeOptions,
}

#[derive(Debug, Subcommand)]
enum OwnVerb {
    /// Make and check tokens
    #[command(subcommand)]
    Token(token::TokenVerb),
    /// Write, check and explain configurations
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Look at this machine: kernel, io_uring, limits, settings, each with the line that mends it
    Doctor(ServeOptions),
}

impl OwnArguments {
    /// How to serve, or the code with which the process ends because a verb has.
    pub fn serve_or_done(self) -> Result<ServeOptions, u8> {
        let done = match &self.verb {
            None => return Ok(self.serve),
            Some(OwnVerb::Token(verb)) => token::run(verb),
            Some(OwnVerb::Config(verb)) => config::run(verb),
            Some(OwnVerb::Doctor(options)) => doctor::run(options),
        };
        let code = done.unwrap_or_else(|failure| failure.report());
        let known = [0, EXIT_CONFIG].into_iter();
        let mut known = known.filter(|known| ExitCode::from(*known) == code);
        Err(known.next().unwrap_or(1))
    }
}

/// Does what the command line asks for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let done = match arguments.verb {
        Verb::Serve(options) => serve::run(&options),
        Verb::Token(verb) => token::run(&verb),
        Verb::Config(verb) => config::run(&verb),
        Verb::Doctor(options) => doctor::run(&options),
        #[cfg(feature = "client")]
        Verb::Pub(options) => publish::run(&options),
        #[cfg(feature = "client")]
        Verb::Sub(options) => subscribe::run(&options),
        #[cfg(feature = "client")]
        Verb::Push(options) => operate::push(&options),
        #[cfg(feature = "client")]
        Verb::Topics(options) => operate::topics(&options),
        #[cfg(feature = "client")]
        Verb::Subs(options) => operate::subs(&options),
        #[cfg(feature = "client")]
        Verb::Presence(options) => operate::presence(&options),
        #[cfg(feature = "client")]
        Verb::Connections(options) => operate::connections(&options),
        #[cfg(feature = "top")]
        Verb::Top(options) => top::top(&options),
        Verb::Log(verb) => log::run(&verb),
        Verb::Generate(verb) => generate::run(&verb),
        Verb::Wire => wire::run(),
        Verb::Shell(verb) => shell::run(&verb),
    };
    done.unwrap_or_else(|failure| failure.report())
}

/// Prints help to stdout and complaints to stderr.
fn usage(error: &clap::Error) -> ExitCode {
    match (error.use_stderr(), error.print()) {
        (true, _) => ExitCode::from(EXIT_USAGE),
        (false, Ok(())) => ExitCode::SUCCESS,
        (false, Err(error)) => Failure::Output(error).report(),
    }
}

/// Why a verb ended early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// The server does not start, or ends early.
    #[error(transparent)]
    Serve(#[from] RunError),
    /// A token cannot be made.
    #[error("the token cannot be made")]
    Key(#[from] crate::auth::KeyError),
    /// A running server of development gives no token.
    #[error(transparent)]
    DevToken(#[from] dev_token::DevTokenError),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    /// A document that is not JSON.
    #[error("{} is not JSON", path.display())]
    Document {
        path: std::path::PathBuf,
        source: serde_json::Error,
    },
    /// JSON that describes no channels.
    #[error("{} has no `channels`: give the server's /asyncapi.json", .0.display())]
    NoDocument(std::path::PathBuf),
    /// Nothing, or not all, was generated.
    #[error(transparent)]
    Generate(#[from] generate::GenerateError),
    /// The server cannot be asked, or says no.
    #[cfg(feature = "client")]
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// A data directory cannot be looked at.
    #[error(transparent)]
    Verify(#[from] crate::log::VerifyError),
    /// What begins like JSON is none.
    #[cfg(feature = "client")]
    #[error("the payload begins like JSON and is none; --text publishes it as text")]
    Payload(#[source] serde_json::Error),
    /// What was asked for cannot be written.
    #[error("cannot write the standard output")]
    Output(#[source] std::io::Error),
    /// Nothing can be read from the standard input.
    #[error("cannot read the standard input")]
    Input(#[source] std::io::Error),
}

impl Failure {
    /// Prints the error with its causes, and tells how the process ends.
    fn report(&self) -> ExitCode {
        // A reader that has seen enough, as `head` has, is no failure.
        if matches!(self, Self::Output(error) if error.kind() == ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        match self {
            // Whoever mends one mistake wants to know of the others.
            Self::Config(wrong) | Self::Serve(RunError::Config(wrong)) => {
                for one in wrong.all() {
                    complain(format_args!("tidegate: {}", with_causes(one)));
                }
            }
            other => complain(format_args!("tidegate: {}", with_causes(other))),
        }
        match self {
            Self::Config(_) => ExitCode::from(EXIT_CONFIG),
            Self::Serve(error) => ExitCode::from(error.exit_code()),
            _ => ExitCode::FAILURE,
        }
    }
}

/// An error and what caused it, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let more = source.to_string();
        // Some errors repeat their source in their own text.
        if !text.contains(more.trim()) {
            text = format!("{text}: {}", more.trim());
        }
        cause = source.source();
    }
    // Some write several lines.
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

/// Prints a line for whoever reads: it is written when this returns.
fn answer(text: impl Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(Failure::Output)
}

/// Prints a line for whoever looks on; where nobody can, nobody is told.
fn complain(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "tokens made by hand live by the wall clock"
)]
fn unix_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Wrong usage, as clap has it.
const EXIT_USAGE: u8 = 2;

/// `EX_CONFIG`: the program is told something that cannot be, or the machine refuses io_uring.
pub const EXIT_CONFIG: u8 = 78;

const LONG_ABOUT: &str = "\
An io_uring WebSocket edge server for Linux.

One process holds very many WebSocket connections, routes what they send to typed handlers,
fans messages out to rooms and topics, and keeps durable topics on disk with a cursor for each
subscriber.";

const AFTER_HELP: &str = "\
Values come from, each stronger than the one before it:
  --profile NAME    a complete configuration that the program comes with
  --config FILE     a file; `tidegate config init` writes one that explains every key
  environment       every key as TIDEGATE_SECTION__KEY, such as TIDEGATE_LIMITS__HEADERS_MAX=32
  flags             --listen, --data, ..
`tidegate config show` tells where each value comes from.

The secret that tokens are verified with comes from TIDEGATE_JWT_SECRET or auth.jwt_secret_file:
  export TIDEGATE_JWT_SECRET=$(head -c 32 /dev/urandom | base64)
  tidegate token new --ns demo --sub ada --ttl 1h";

#[cfg(test)]
mod tests;
