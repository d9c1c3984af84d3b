//! Where a scenario ran: a number without its machine says nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Names and values in the order in which they are shown.
#[derive(Debug)]
pub(crate) struct Environment(pub(crate) Vec<(&'static str, String)>);

impl Environment {
    pub(crate) fn look(program: Option<&Path>) -> Self {
        let mut rows = vec![
            (
                "date",
                printed(Command::new("date").args(["-u", "+%F %T UTC"])),
            ),
            ("kernel", read("/proc/sys/kernel/osrelease")),
            ("processor", field("/proc/cpuinfo", "model name")),
            (
                "cores",
                std::thread::available_parallelism()
                    .map_or(0, usize::from)
                    .to_string(),
            ),
            ("memory", field("/proc/meminfo", "MemTotal")),
            ("load before", read("/proc/loadavg")),
            ("loadgen", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let version = program.map(|program| printed(Command::new(program).arg("--version")));
        rows.extend(version.map(|version| ("server", version)));
        rows.push(("command", command()));
        Self(rows)
    }
}

/// Nothing, where that program is not there.
fn printed(program: &mut Command) -> String {
    let output = program.output().map(|output| output.stdout);
    String::from_utf8_lossy(&output.unwrap_or_default())
        .trim()
        .to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// As it was typed, but for a token.
fn command() -> String {
    let mut hidden = false;
    let words = std::env::args().map(|word| {
        let shown = match (hidden, word.starts_with("--token=")) {
            (true, _) => "***".to_owned(),
            (_, true) => "--token=***".to_owned(),
            _ => word.clone(),
        };
        hidden = word == "--token";
        shown
    });
    words.collect::<Vec<_>>().join(" ")
}
