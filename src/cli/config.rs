//! `tidegate config`: a file to start from, whether it is right, and who set what.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Failure, ServeOptions, answer};
use crate::config::{Error, Loaded, layers::PROFILES, text};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Write a file in which every key stands with its default and its meaning
    Init(InitOptions),
    /// Read a configuration as `serve` would, and say whether it is right
    Check(ReadOptions),
    /// Print every value with the layer that set it
    Show(ReadOptions),
}

#[derive(Debug, Args)]
pub(super) struct InitOptions {
    /// Where to write; to the standard output if left out. A file that is there stays as it is
    file: Option<PathBuf>,
    /// Write this profile in place of the defaults
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ReadOptions {
    /// Configuration file, in place of --config
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeOptions,
}

pub(super) fn run(verb: &ConfigVerb) -> Result<ExitCode, Failure> {
    match verb {
        ConfigVerb::Init(options) => init(options)?,
        ConfigVerb::Check(options) => check(options)?,
        ConfigVerb::Show(options) => answer(text::show(&options.load()?).trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

impl ReadOptions {
    fn options(&self) -> ServeOptions {
        let mut serve = self.serve.clone();
        serve.config = self.file.clone().or(serve.config);
        serve
    }

    fn load(&self) -> Result<Loaded, Error> {
        self.options().sources().load()
    }
}

fn init(options: &InitOptions) -> Result<(), Failure> {
    let text = match &options.profile {
        Some(name) => profile(name)?.to_owned(),
        None => text::template(),
    };
    match &options.file {
        Some(path) => {
            write_new(path, &text)?;
            answer(format_args!("wrote {}", path.display()))?;
        }
        None => answer(text.trim_end())?,
    }
    Ok(())
}

fn profile(name: &str) -> Result<&'static str, Error> {
    let found = PROFILES.iter().find(|(candidate, _)| *candidate == name);
    found
        .map(|(_, text)| *text)
        .ok_or_else(|| Error::no_profile(name))
}

/// What somebody wrote by hand is never written over.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let failure = |source| Failure::Write {
        path: path.to_owned(),
        source,
    };
    let mut file = fs::File::create_new(path).map_err(failure)?;
    file.write_all(text.as_bytes()).map_err(failure)
}

fn check(options: &ReadOptions) -> Result<(), Failure> {
    let sources = options.options().sources();
    let config = sources.load()?.config;
    let secret = match config.identity(&sources) {
        Ok(identity) if identity.made_up.is_some() => "made up at each start (--dev)",
        Ok(_) => "found",
        Err(Error::SecretMissing) => {
            "missing here; `serve` needs TIDEGATE_JWT_SECRET or auth.jwt_secret_file"
        }
        Err(error) => return Err(error.into()),
    };
    for mount in &config.mounts {
        let who = if mount.public {
            "public"
        } else {
            "with a token"
        };
        answer(format_args!(
            "GET {} -> {:?}, {who}",
            mount.path, mount.dialect
        ))?;
    }
    answer(format_args!("secret: {secret}"))?;
    answer("the configuration is right")
}
