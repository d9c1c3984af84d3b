//! Who takes part: a command, how to find its address, and how to end it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::scenario::Kind;

/// A server of the comparison.
#[derive(Debug)]
pub(super) struct Contestant {
    pub(super) name: &'static str,
    pub(super) binary: &'static str,
    arguments: &'static [&'static str],
    /// What the load generator must be told about it.
    pub(super) load_arguments: &'static [&'static str],
}

/// Not in Rust, so built apart: see `bench/uwebsockets/build`. It takes part where it was built.
const UWEBSOCKETS: Contestant = Contestant {
    name: "uWebSockets over libuv",
    binary: "uwebsockets-echo",
    arguments: &[],
    load_arguments: &[],
};

/// Those that can do a kind of work; the first is the one that the others are compared with.
pub(super) fn all(kind: Kind) -> Vec<Contestant> {
    let ours = Contestant {
        name: "tidegate",
        binary: "tidegate",
        arguments: &["serve", "--listen", "127.0.0.1:0"],
        load_arguments: &[],
    };
    let mut all = vec![ours];
    all.extend(match kind {
        Kind::Typed => return typed(),
        Kind::Echo => vec![
            peer("tokio-tungstenite 4 KiB", &["serve", "tungstenite-echo"]),
            peer(
                "tokio-tungstenite 4 KiB, forward",
                &["serve", "tungstenite-echo", "--forward"],
            ),
            peer(
                "tokio-tungstenite default",
                &["serve", "tungstenite-echo", "--default-buffers"],
            ),
            peer("fastwebsockets", &["serve", "fastwebsockets-echo"]),
            Contestant {
                load_arguments: &["--raw"],
                ..peer("raw TCP floor", &["serve", "raw-floor"])
            },
            UWEBSOCKETS,
        ],
        Kind::Fanout => vec![
            peer(
                "tokio broadcast relay 4 KiB",
                &["serve", "tungstenite-relay"],
            ),
            peer(
                "the same, coalescing",
                &["serve", "tungstenite-relay", "--coalesce"],
            ),
        ],
        Kind::Idle => vec![
            peer("tokio-tungstenite 4 KiB", &["serve", "tungstenite-echo"]),
            UWEBSOCKETS,
        ],
        Kind::IdleRelay => {
            vec![peer(
                "tokio broadcast relay 4 KiB",
                &["serve", "tungstenite-relay"],
            )]
        }
    });
    all
}

/// A typed handler beside what it may not cost much more than.
fn typed() -> Vec<Contestant> {
    let ours = |name, load_arguments| Contestant {
        name,
        binary: "typed",
        arguments: &["--listen", "127.0.0.1:0"],
        load_arguments,
    };
    vec![
        ours("typed handler", &["--path", "/typed"]),
        ours("raw echo of the same bytes", &["--path", "/echo"]),
        peer(
            "tokio-tungstenite 4 KiB and serde_json",
            &["serve", "tungstenite-echo", "--typed"],
        ),
    ]
}

fn peer(name: &'static str, arguments: &'static [&'static str]) -> Contestant {
    Contestant {
        name,
        binary: "bench",
        arguments,
        load_arguments: &[],
    }
}

/// A started server; it is ended when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pub(super) address: String,
    pub(super) token: Option<String>,
    /// Both are held so that nothing breaks under the server while it runs.
    _stdout: BufReader<ChildStdout>,
    _folder: TempDir,
}

impl Contestant {
    /// Starts the server on its core and waits for the line that says where it listens.
    pub(super) fn start(&self, binaries: &Path, cpu: usize) -> Result<Running> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("taskset");
        command
            .args(["--cpu-list", &cpu.to_string()])
            .arg(binaries.join(self.binary));
        command
            .args(self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if self.binary != "bench" {
            configure(&mut command, folder.path())?;
        }
        let mut child = command
            .spawn()
            .context("start a server with taskset (util-linux)")?;
        let Some(stdout) = child.stdout.take() else {
            bail!("a server without stdout")
        };
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line
            .trim()
            .rsplit("http://")
            .next()
            .unwrap_or_default()
            .to_owned();
        let running = Running {
            child,
            address,
            token: None,
            _stdout: stdout,
            _folder: folder,
        };
        if !line.contains("listening on http://") {
            bail!(
                "{} did not say where it listens: `{}`",
                self.name,
                line.trim()
            );
        }
        Ok(running)
    }
}

impl Running {
    /// The server's process: taskset turns into it.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; what matters is that it is gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One shard, an open echo mount and an open relay, so that no token is part of the measurement.
fn configure(command: &mut Command, folder: &Path) -> Result<()> {
    let config = folder.join("bench.toml");
    std::fs::File::create(&config)?.write_all(CONFIG.as_bytes())?;
    command
        .arg("--config")
        .arg(config)
        .arg("--data")
        .arg(folder.join("data"));
    command.env(
        "TIDEGATE_JWT_SECRET",
        "a secret of no value, for measurements only",
    );
    command.stderr(Stdio::null());
    Ok(())
}

const CONFIG: &str = r#"
[server]
shards = 1

[relay]
path = "/ws"
public = true
unhandled = "broadcast"

[[mount]]
path = "/echo"
dialect = "raw"
handler = "echo"
public = true
message_bytes_max = 16777216
frame_bytes_max = 16777216
"#;
