//! Who takes part: a command, how to find its address, and how to end it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::scenario::Kind;

/// A server of the comparison.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contestant {
    pub(super) name: &'static str,
    binary: &'static str,
    arguments: &'static [&'static str],
    /// What the load generator must be told about it.
    pub(super) load_arguments: &'static [&'static str],
    /// It runs on both cores, its own and that of the load generator.
    is_on_both_cores: bool,
    /// It asks for a token.
    needs_token: bool,
    /// It is ours as it was built before.
    is_before: bool,
}

const OURS: Contestant = Contestant {
    name: "tidegate",
    binary: "tidegate",
    arguments: &["serve", "--listen", "127.0.0.1:0"],
    load_arguments: &[],
    is_on_both_cores: false,
    needs_token: false,
    is_before: false,
};
/// Not in Rust, so built apart: see `bench/uwebsockets/build`. It takes part where it was built.
const UWEBSOCKETS: Contestant = Contestant {
    name: "uWebSockets over libuv",
    binary: "uwebsockets-echo",
    arguments: &[],
    ..OURS
};
/// Node.js, built by `bench/ws/build`.
const WS: Contestant = Contestant {
    name: "ws on Node.js",
    binary: "ws-echo",
    arguments: &[],
    ..OURS
};
const TUNGSTENITE: Contestant = peer("tokio-tungstenite 4 KiB", &["serve", "tungstenite-echo"]);
const FASTWEBSOCKETS: Contestant = peer("fastwebsockets", &["serve", "fastwebsockets-echo"]);
const TUNGSTENITE_RELAY: Contestant = peer(
    "tokio broadcast relay 4 KiB",
    &["serve", "tungstenite-relay"],
);
const COALESCING_RELAY: Contestant = peer(
    "the same, coalescing",
    &["serve", "tungstenite-relay", "--coalesce"],
);

/// Where binaries are: of this build and its peers, and of ours as they were built before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folders<'a> {
    pub(super) now: &'a Path,
    pub(super) before: Option<&'a Path>,
}

/// Those that can do a kind of work; the first is the one that the others are compared with. Behind each of
/// ours stands the same as it was built before, where that is given.
pub(super) fn all(kind: Kind, folders: Folders<'_>) -> Vec<Contestant> {
    let built = |it: &Contestant| it.path(folders).is_some_and(|path| path.exists());
    let both = |it: Contestant| {
        let before = it.is_ours().then_some(Contestant {
            is_before: true,
            ..it
        });
        [Some(it), before].into_iter().flatten()
    };
    let all = of_kind(kind).into_iter().flat_map(both);
    all.filter(built).collect()
}

fn of_kind(kind: Kind) -> Vec<Contestant> {
    match kind {
        Kind::Typed => typed(),
        Kind::Echo => echoes(),
        Kind::Shards => shards(),
        Kind::Visits => visits(),
        Kind::Fanout | Kind::Relay => {
            vec![OURS, TUNGSTENITE_RELAY, COALESCING_RELAY, UWEBSOCKETS]
        }
        Kind::Idle => vec![at(OURS, &["--path", "/echo"]), TUNGSTENITE, UWEBSOCKETS, WS],
        Kind::IdleRelay => vec![at(OURS, &["--path", "/ws"]), TUNGSTENITE_RELAY],
        Kind::IdleSubscribed => {
            let relay = |contestant| at(contestant, &["--path", "/ws"]);
            [OURS, TUNGSTENITE_RELAY, UWEBSOCKETS].map(relay).into()
        }
        Kind::IdleEvent => vec![ours_typed("tidegate", &["--path", "/typed"]), UWEBSOCKETS],
    }
}

fn echoes() -> Vec<Contestant> {
    vec![
        OURS,
        TUNGSTENITE,
        peer(
            "tokio-tungstenite 4 KiB, forward",
            &["serve", "tungstenite-echo", "--forward"],
        ),
        peer(
            "tokio-tungstenite default",
            &["serve", "tungstenite-echo", "--default-buffers"],
        ),
        FASTWEBSOCKETS,
        at(peer("raw TCP floor", &["serve", "raw-floor"]), &["--raw"]),
        at(
            peer("raw TCP floor on epoll", &["serve", "epoll-floor"]),
            &["--raw"],
        ),
        UWEBSOCKETS,
        WS,
    ]
}

fn shards() -> Vec<Contestant> {
    let two = Contestant {
        name: "tidegate, two shards",
        arguments: &["serve", "--listen", "127.0.0.1:0", "--shards", "2"],
        is_on_both_cores: true,
        ..OURS
    };
    vec![two, OURS]
}

fn visits() -> Vec<Contestant> {
    let private = Contestant {
        name: "tidegate, a token each",
        needs_token: true,
        ..at(OURS, &["--path", "/private"])
    };
    let echo = |contestant| at(contestant, &["--path", "/echo"]);
    let mut all = vec![echo(OURS), private];
    all.extend([TUNGSTENITE, FASTWEBSOCKETS, UWEBSOCKETS, WS].map(echo));
    all
}

/// A typed handler beside what it may not cost much more than.
fn typed() -> Vec<Contestant> {
    vec![
        ours_typed("typed handler", &["--path", "/typed"]),
        ours_typed("raw echo of the same bytes", &["--path", "/echo"]),
        peer(
            "tokio-tungstenite 4 KiB and serde_json",
            &["serve", "tungstenite-echo", "--typed"],
        ),
    ]
}

const fn ours_typed(name: &'static str, load_arguments: &'static [&'static str]) -> Contestant {
    Contestant {
        name,
        binary: "typed",
        arguments: &["--listen", "127.0.0.1:0"],
        load_arguments,
        ..OURS
    }
}

const fn at(contestant: Contestant, load_arguments: &'static [&'static str]) -> Contestant {
    Contestant {
        load_arguments,
        ..contestant
    }
}

const fn peer(name: &'static str, arguments: &'static [&'static str]) -> Contestant {
    Contestant {
        name,
        binary: "bench",
        arguments,
        ..OURS
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
    /// What it is called in tables.
    pub(super) fn title(&self) -> String {
        match self.is_before {
            true => format!("{}, before", self.name),
            false => self.name.to_owned(),
        }
    }

    fn is_ours(&self) -> bool {
        matches!(self.binary, "tidegate" | "typed")
    }

    fn path(&self, folders: Folders<'_>) -> Option<PathBuf> {
        let folder = match self.is_before {
            true => folders.before?,
            false => folders.now,
        };
        Some(folder.join(self.binary))
    }

    /// Starts the server on its core and waits for the line that says where it listens.
    pub(super) fn start(&self, folders: Folders<'_>, cores: (usize, usize)) -> Result<Running> {
        let folder = tempfile::tempdir()?;
        let cpus = match self.is_on_both_cores {
            true => format!("{},{}", cores.0, cores.1),
            false => cores.0.to_string(),
        };
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &cpus]).args(self.path(folders));
        command
            .args(self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if self.is_ours() {
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
            token: self.needs_token.then(|| token(folders.now)).transpose()?,
            _stdout: stdout,
            _folder: folder,
        };
        if !line.contains("listening on http://") {
            bail!(
                "{} did not say where it listens: `{}`",
                self.title(),
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
    command.env("TIDEGATE_JWT_SECRET", SECRET);
    command.stderr(Stdio::null());
    Ok(())
}

/// A token that the server of a comparison accepts.
fn token(binaries: &Path) -> Result<String> {
    let mut command = Command::new(binaries.join("tidegate"));
    command
        .args(["token", "new", "--ns", "bench", "--sub", "load"])
        .env("TIDEGATE_JWT_SECRET", SECRET);
    let output = command.output().context("make a token")?;
    ensure!(
        output.status.success(),
        "make a token: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

const SECRET: &str = "a secret of no value, for measurements only";

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

[[mount]]
path = "/private"
dialect = "raw"
handler = "echo"
"#;
