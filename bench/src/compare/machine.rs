//! What a number depends on beside the code: printed above every table.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use anyhow::Result;
use rustix::system::uname;

/// Machine, kernel, toolchain, commit and command as Markdown.
pub(super) fn facts() -> Result<String> {
    let kernel = uname();
    let arguments: Vec<String> = std::env::args().collect();
    let cpuinfo = read("/proc/cpuinfo");
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or_default()
        .trim_start_matches(['\t', ':', ' ']);
    let mut text = String::new();
    writeln!(text, "* command: `{}`", arguments.join(" "))?;
    writeln!(
        text,
        "* commit: {}, {}",
        first_line("git", &["describe", "--always", "--dirty"]),
        first_line("rustc", &["--version"])
    )?;
    writeln!(
        text,
        "* machine: {cores} x {model}, kernel {}",
        kernel.release().to_string_lossy()
    )?;
    let clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    writeln!(
        text,
        "* clock source {}, mitigations: {}",
        clock.trim(),
        mitigations()
    )?;
    for key in [
        "net/core/somaxconn",
        "net/ipv4/tcp_rmem",
        "net/ipv4/tcp_wmem",
    ] {
        let value = read(&format!("/proc/sys/{key}"));
        writeln!(
            text,
            "* {}: {}",
            key.replace('/', "."),
            value.split_whitespace().collect::<Vec<_>>().join(" ")
        )?;
    }
    Ok(text)
}

/// The vulnerabilities that the kernel works around, each of which costs time in a system call.
fn mitigations() -> String {
    let folder = fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
    let mut active: Vec<String> = folder
        .into_iter()
        .flatten()
        .flatten()
        .filter(|file| read(&file.path().to_string_lossy()).starts_with("Mitigation"))
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    active.sort();
    if active.is_empty() {
        "none".into()
    } else {
        active.join(" ")
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|_| "unknown".into())
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".into())
}
