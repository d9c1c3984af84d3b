//! The server of a scenario: one that runs, or one that is started for it and ended with it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::file::Scenario;

/// Where the load goes.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) pid: Option<u32>,
    pub(crate) token: Option<String>,
    child: Option<Child>,
    folder: Option<tempfile::TempDir>,
}

impl Server {
    pub(crate) fn running(address: SocketAddr, pid: Option<u32>, token: Option<String>) -> Self {
        Self {
            address,
            pid,
            token,
            child: None,
            folder: None,
        }
    }

    /// Starts `program serve --dev` on a port of its own, and reads address and token from it.
    pub(crate) fn start(program: &Path, cpus: &str, scenario: &Scenario) -> Result<Self> {
        let program = std::path::absolute(program)?;
        let folder = tempfile::tempdir().context("make a folder for the server")?;
        let config = folder.path().join("scenario.toml");
        std::fs::write(&config, toml::to_string(&scenario.server)?)?;
        let mut child = Command::new("taskset")
            .args(["-c", cpus])
            .arg(&program)
            .args([
                "serve",
                "--dev",
                "--listen",
                "127.0.0.1:0",
                "--log-level",
                "error",
            ])
            .args(["--data", "data", "--config"])
            .arg(&config)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {} by taskset", program.display()))?;
        let stdout = child.stdout.take().context("the server's output")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut next = || -> Result<String> {
            Ok(lines
                .next()
                .context("the server ended before it listened")??)
        };
        let address = next()?;
        let address = address.rsplit('/').next().unwrap_or_default().parse();
        let token = next()?.rsplit(' ').next().map(str::to_owned);
        // A pipe that nobody reads would one day block the server.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self {
            address: address.context("the server's first line names no address")?,
            // taskset becomes the program that it starts.
            pid: Some(child.id()),
            token,
            child: Some(child),
            folder: Some(folder),
        })
    }

    /// Its data directory, if it was started here.
    pub(crate) fn data(&self) -> Option<std::path::PathBuf> {
        self.folder
            .as_ref()
            .map(|folder| folder.path().join("data"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        // It may have ended by itself, which the load has told.
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
        let _ = child.wait();
    }
}
