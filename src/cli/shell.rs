//! `tidegate shell`: completions for shells and pages for `man`, as packages install them. Knows the
//! command line alone.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Command, CommandFactory as _, Subcommand};
use clap_complete::Shell;

use super::{Arguments, Failure, answer};

#[derive(Debug, Subcommand)]
pub(super) enum ShellVerb {
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write a page for man of the program and of each verb
    Man {
        /// The folder, made if it is not there
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
}

pub(super) fn run(verb: &ShellVerb) -> Result<ExitCode, Failure> {
    match verb {
        ShellVerb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "tidegate", &mut text);
            answer(String::from_utf8_lossy(&text).trim_end())?;
        }
        ShellVerb::Man { dir } => {
            let written = |source| Failure::Write {
                path: dir.clone(),
                source,
            };
            fs::create_dir_all(dir).map_err(written)?;
            let mut command = Arguments::command();
            command.build();
            let mut pages = Vec::new();
            collect(&command, "tidegate", &mut pages);
            for (name, page) in pages {
                let path = dir.join(format!("{name}.1"));
                fs::write(&path, page).map_err(|source| Failure::Write { path, source })?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn collect(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) {
    let mut page = Vec::new();
    let named = command.clone().name(name.to_owned());
    // A vector takes every page.
    let _ = clap_mangen::Man::new(named).render(&mut page);
    pages.push((name.to_owned(), page));
    for verb in command.get_subcommands() {
        if verb.get_name() != "help" {
            collect(verb, &format!("{name}-{}", verb.get_name()), pages);
        }
    }
}
