//! `tidegate generate types`: what gateways speak as types in TypeScript, of the document that their
//! server serves as `/asyncapi.json`. Knows files; the types are made elsewhere.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Failure, answer};
use crate::gateway::typescript;

/// Where the document is, and where the types go.
#[derive(Debug, Args)]
pub(super) struct TypesOptions {
    /// The server's /asyncapi.json as a file; - reads it from the standard input:
    /// curl -s http://127.0.0.1:4000/asyncapi.json | tidegate generate types -
    #[arg(value_name = "FILE")]
    document: PathBuf,
    /// The file to write, in place of the standard output
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(options: &TypesOptions) -> Result<ExitCode, Failure> {
    let path = &options.document;
    let text = match path.as_os_str() == "-" {
        true => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map(|_| text).map_err(Failure::Input)?
        }
        false => std::fs::read_to_string(path).map_err(|source| Failure::Read {
            path: path.clone(),
            source,
        })?,
    };
    let document: serde_json::Value =
        serde_json::from_str(&text).map_err(|source| Failure::Document {
            path: path.clone(),
            source,
        })?;
    if !document["channels"].is_object() {
        return Err(Failure::NoDocument(path.clone()));
    }
    let types = typescript::of_asyncapi(&document);
    match &options.out {
        Some(out) => std::fs::write(out, types).map_err(|source| Failure::Write {
            path: out.clone(),
            source,
        })?,
        None => answer(types.trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}
