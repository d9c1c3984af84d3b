//! The program in a process of its own, for what cannot be seen from inside: its memory, its
//! disk, a pause that it knows nothing of. Ended with the value; knows no test.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::SECRET;

/// A running `tidegate serve` whose tokens are those of this harness.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// What it is started with.
pub(crate) struct Start<'a> {
    pub(crate) shards: u16,
    pub(crate) data: &'a Path,
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

impl Start<'_> {
    /// Starts it and waits until it listens.
    pub(crate) fn run(&self) -> Process {
        self.run_by(&[], ANY_PORT)
    }

    /// The same at the address of one that has ended.
    pub(crate) fn run_at(&self, address: SocketAddr) -> Process {
        self.run_by(&[], &address.to_string())
    }

    /// The same with what it logs in a file.
    pub(crate) fn run_logging_to(&self, file: &Path) -> Process {
        let script = format!(r#"exec "$@" 2>'{}'"#, file.display());
        self.run_by(&["sh", "-c", &script, "sh"], ANY_PORT)
    }

    /// The same with `data` on a file system of so many bytes that only the process sees, or
    /// nothing where the machine lets nobody mount one.
    pub(crate) fn run_on_disk_of(&self, bytes: u64) -> Option<Process> {
        // Without root in a namespace where the user is root; root itself may lack the former.
        let ways: [&[&str]; 2] = [&["-Urm"], &["-m"]];
        let way = ways.into_iter().find(|way| can_mount(way))?;
        let (size, folder) = (format!("size={bytes}"), self.data.display());
        let script = format!(r#"mount -t tmpfs -o {size} tidegate {folder} && exec "$@""#);
        let mut by = vec!["unshare"];
        by.extend(way);
        by.extend(["sh", "-c", &script, "sh"]);
        Some(self.run_by(&by, ANY_PORT))
    }

    /// The same on a disk that outlives it.
    pub(crate) fn run_on(&self, disk: &SmallDisk) -> Process {
        let target = format!("--target={}", disk.holder.id());
        let mut by = vec!["nsenter", &target, "--mount"];
        if disk.is_own_user {
            by.extend(["--user", "--preserve-credentials"]);
        }
        self.run_by(&by, ANY_PORT)
    }

    fn run_by(&self, by: &[&str], listen: &str) -> Process {
        let program = env!("CARGO_BIN_EXE_tidegate");
        let mut words = by.iter().copied().chain([program]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["serve", "--listen", listen, "--data"]);
        command
            .arg(self.data)
            .args(["--shards", &self.shards.to_string()]);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("TIDEGATE_JWT_SECRET", std::str::from_utf8(SECRET).unwrap());
        command.env("TIDEGATE_SHARD__PIN", "false");
        command.envs(self.environment.iter().copied());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("tidegate listening on http://");
        let address = address.unwrap_or_else(|| panic!("the first line is `{line}`"));
        Process {
            child,
            address: address.parse().unwrap(),
        }
    }
}

/// A small file system that only those see who are put there; it is gone with this value.
pub(crate) struct SmallDisk {
    holder: Child,
    is_own_user: bool,
}

impl SmallDisk {
    /// So many bytes at `folder`, or nothing where the machine lets nobody mount them.
    pub(crate) fn mount(folder: &Path, bytes: u64) -> Option<Self> {
        let ways: [&[&str]; 2] = [&["-Urm"], &["-m"]];
        let way = ways.into_iter().find(|way| can_mount(way))?;
        let folder = folder.display();
        let script =
            format!("mount -t tmpfs -o size={bytes} tidegate {folder} && echo there && cat");
        let mut holder = Command::new("unshare")
            .args(way)
            .args(["sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line.trim(), "there");
        Some(Self {
            holder,
            is_own_user: way == ["-Urm"],
        })
    }

    /// Where what it sees at `path` is for everybody.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        Path::new(&root).join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It reads until then, and ends.
        drop(self.holder.stdin.take());
        self.holder.wait().unwrap();
    }
}

fn can_mount(way: &[&str]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command
        .args(way)
        .args(["mount", "-t", "tmpfs", "tidegate"])
        .arg(folder.path());
    let tried = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Bytes of memory that belong to it alone: mapped files can be dropped at any time.
    pub(crate) fn own_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// A path as the process sees it, mounts of its own included.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(path.strip_prefix("/").unwrap())
    }

    /// Ends it as an operator does.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, or not wanted any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ANY_PORT: &str = "127.0.0.1:0";
