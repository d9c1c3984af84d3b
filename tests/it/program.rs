//! The program as an operator runs it: first line, exit codes, signals, keys that rotate. Knows
//! the contract of the command line; every process is ended by the test that started it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use tidegate::auth::{AuthConfig, Claims};

use crate::harness::{Client, eventually, http, tenant, unix_s};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    program(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A running `tidegate serve`, killed if the test does not end it.
pub(crate) struct Served {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    lines: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Served {
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_by(program(&[]), arguments, environment, Stdio::null())
    }

    /// Starts it with its log in a file.
    pub(crate) fn start_logged(
        log: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let log = fs::File::create(log).unwrap();
        Self::start_by(program(&[]), arguments, environment, log.into())
    }

    /// Starts it where it may open so many files.
    pub(crate) fn start_bounded(
        files: u64,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -Sn {files}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_tidegate")]);
        shell.env_clear().stdin(Stdio::null());
        Self::start_by(shell, arguments, environment, Stdio::null())
    }

    fn start_by(
        mut command: Command,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: Stdio,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut all = vec!["serve", "--listen", "127.0.0.1:0"];
        all.extend(arguments);
        if !arguments.contains(&"--shards") {
            all.extend(["--shards", "1"]);
        }
        command
            .args(all)
            .envs(environment.iter().copied())
            .current_dir(folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        let address = first.trim().strip_prefix("tidegate listening on http://");
        let address = address
            .expect("the first line tells the address")
            .parse()
            .unwrap();
        Self {
            child,
            address,
            lines,
            _folder: folder,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// The token that development prints behind the first line.
    pub(crate) fn dev_token(&mut self) -> String {
        let line = self.line();
        line.rsplit(' ').next().unwrap().trim().to_owned()
    }

    /// How many descriptors it has open.
    pub(crate) fn open_files(&self) -> u64 {
        let folder = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(folder).unwrap().count() as u64
    }

    /// How long it has been running on a core, in milliseconds.
    pub(crate) fn cpu_ms(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let ns = tasks.map(|task| {
            let path = task.unwrap().path().join("schedstat");
            // A thread may end between the two looks.
            let text = fs::read_to_string(path).unwrap_or_default();
            text.split(' ')
                .next()
                .and_then(|ns| ns.parse().ok())
                .unwrap_or(0)
        });
        ns.sum::<u64>() / 1_000_000
    }

    /// What is answered to a GET.
    pub(crate) fn body(&self, target: &str, token: &str) -> String {
        http::ask(self.address, &http::request("GET", target, Some(token), "")).body
    }

    pub(crate) fn status(&self, target: &str, token: &str) -> u16 {
        http::ask(self.address, &http::request("GET", target, Some(token), "")).status
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Ended already, or not wanted any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn token(secret: &str) -> String {
    let claims = Claims::new(tenant("demo"), "ada");
    AuthConfig::new(secret, 60)
        .unwrap()
        .issue(&claims, unix_s())
        .unwrap()
}

/// C-20, C-21, C-23: one command, a line to read, a token that works, and a clean end
#[test]
fn development_is_one_command() {
    let mut served = Served::start(&["--dev"], &[]);
    let token = served.dev_token();
    assert_eq!(served.status("/v1/connections", &token), 200);
    assert_eq!(served.status("/v1/connections", "bad"), 401);
    let mut client = Client::connect(served.address, "/ws", &token);
    client.expect_nothing();
    served.signal(Signal::TERM);
    match client.receive_message() {
        tungstenite::Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1012),
        other => panic!("no close but {other:?}"),
    }
    drop(client);
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}

/// C6: what a peer can make the server log is bounded in lines and in length, counted, and told
#[test]
fn a_peer_cannot_fill_the_log() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["text", "json"] {
        let log = folder.path().join(format);
        let environment = [
            ("TIDEGATE_LOG__LINES_PER_S_MAX", "10"),
            ("TIDEGATE_LOG__LINE_BYTES_MAX", "512"),
            ("TIDEGATE_LOG__FORMAT", format),
        ];
        let mut served = Served::start_logged(&log, &["--dev"], &environment);
        let token = served.dev_token();
        let mut peer = Client::connect(served.address, "/ws", &token);
        let long = "n".repeat(20_000);
        let started = std::time::Instant::now();
        for round in 0..2 {
            for _ in 0..500 {
                let to = if round == 0 { "elsewhere" } else { &long };
                peer.send(&format!(
                    r#"{{"type":"message","topic":"{to}","event":"e"}}"#
                ));
                assert!(peer.receive().contains("error"));
            }
            std::thread::sleep(std::time::Duration::from_millis(1_100));
        }
        peer.send(r#"{"type":"message","topic":"last","event":"e"}"#);
        peer.receive();
        let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 2;
        let metrics = served.body("/metrics", &token);
        served.signal(Signal::TERM);
        drop(peer);
        assert_eq!(served.child.wait().unwrap().code(), Some(0));
        let text = fs::read_to_string(&log).unwrap();
        let refused = text
            .lines()
            .filter(|line| line.contains("tidegate::relay"))
            .count();
        assert!(refused <= 12 * seconds, "{refused} lines in {seconds} s");
        assert!(text.lines().all(|line| line.len() < 600), "{text}");
        assert!(text.contains("like the next one were left out"), "{text}");
        assert!(text.contains("stopped"), "the end is written too: {text}");
        let total = metrics
            .lines()
            .find_map(|line| line.strip_prefix("tidegate_log_lines_left_out_total{} "));
        assert!(500.0 < total.unwrap().parse::<f64>().unwrap(), "{metrics}");
    }
}

/// N11: a balancer that asks is told to look elsewhere while everything is served as before, for
/// `limits.drain_delay_ms` or until a second signal
#[test]
fn a_stop_is_announced_before_it_begins() {
    let delay = ("TIDEGATE_LIMITS__DRAIN_DELAY_MS", "60s");
    let mut served = Served::start(&["--dev"], &[delay]);
    let token = served.dev_token();
    assert_eq!(served.status("/readyz", &token), 200);
    let mut client = Client::connect(served.address, "/ws", &token);
    served.signal(Signal::TERM);
    eventually("it is not ready", || {
        served.status("/readyz", &token) == 503
    });
    client.subscribe("t");
    assert_eq!(served.status("/v1/connections", &token), 200);
    served.signal(Signal::TERM);
    client.expect_close(1012, "the server restarts");
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}

/// C-20, C-22: what is missing or misspelt is told before anything is served, with exit code 78
#[test]
fn a_configuration_that_cannot_be_ends_with_78() {
    let secret = ("TIDEGATE_JWT_SECRET", SECRET);
    for (arguments, environment, text) in [
        (vec!["serve"], vec![], "no secret to verify tokens with"),
        (
            vec!["serve"],
            vec![("TIDEGATE_JWT_SECRET", "short")],
            "has 5 bytes, at least 32 are needed",
        ),
        (
            vec!["serve"],
            vec![secret, ("TIDEGATE_LIMITS__HEADRES_MAX", "1")],
            "did you mean `headers_max`?",
        ),
        (
            vec!["serve", "--dev", "--listen", "0.0.0.0:0"],
            vec![],
            "--dev serves loopback addresses only",
        ),
        (
            vec!["serve", "--config", "/nowhere.toml"],
            vec![secret],
            "/nowhere.toml",
        ),
    ] {
        let output = run(&arguments, &environment);
        assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

/// The secret is never printed: not by `config show`, not by an error (T-A3)
#[test]
fn no_verb_tells_the_secret() {
    let environment = [("TIDEGATE_JWT_SECRET", SECRET)];
    for arguments in [
        vec!["config", "show"],
        vec!["config", "check"],
        vec!["doctor"],
        vec!["config", "init"],
    ] {
        let output = run(&arguments, &environment);
        assert!(!stdout(&output).contains(SECRET) && !stderr(&output).contains(SECRET));
    }
}

/// C-24, B-20
#[test]
fn tokens_are_made_and_checked() {
    let environment = [("TIDEGATE_JWT_SECRET", SECRET)];
    let made = run(
        &[
            "token", "new", "--ns", "demo", "--sub", "svc", "--role", "admin",
        ],
        &environment,
    );
    let token = stdout(&made).trim().to_owned();
    let checked = run(&["token", "check", &token], &environment);
    assert_eq!(checked.status.code(), Some(0));
    assert!(
        stdout(&checked).contains("\"ns\": \"demo\"") && stdout(&checked).contains("valid for 3")
    );
    let other = [("TIDEGATE_JWT_SECRET", "fedcba9876543210fedcba9876543210")];
    let refused = run(&["token", "check", &token], &other);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("not valid: it is not signed with a configured key"));
}

/// C-24: the file that `init` writes is right as it is, and is never written over
#[test]
fn a_file_to_start_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    let path = file.to_str().unwrap();
    assert_eq!(
        run(&["config", "init", path, "--profile", "edge"], &[])
            .status
            .code(),
        Some(0)
    );
    assert_eq!(run(&["config", "check", path], &[]).status.code(), Some(0));
    let shown = stdout(&run(&["config", "show", "--config", path], &[]));
    assert!(shown.contains("messages_per_s_max = 200") && shown.contains("tidegate.toml:"));
    let again = run(&["config", "init", path], &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .contains("messages_per_s_max = 200")
    );
}

fn write_secret(path: &Path, secret: &str) {
    fs::write(path, secret).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// C-23: SIGHUP takes new keys from the file; one that is wrong changes nothing
#[test]
fn keys_rotate_by_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    write_secret(&file, SECRET);
    let served = Served::start(
        &[],
        &[("TIDEGATE_AUTH__JWT_SECRET_FILE", file.to_str().unwrap())],
    );
    let (old, new) = (token(SECRET), token("fedcba9876543210fedcba9876543210"));
    assert_eq!(served.status("/v1/connections", &old), 200);
    write_secret(&file, "fedcba9876543210fedcba9876543210\n");
    served.signal(Signal::HUP);
    eventually("the new key", || {
        served.status("/v1/connections", &new) == 200
    });
    assert_eq!(served.status("/v1/connections", &old), 401);
    write_secret(&file, "short");
    served.signal(Signal::HUP);
    assert_eq!(served.status("/v1/connections", &new), 200);
    write_secret(&file, SECRET);
    served.signal(Signal::HUP);
    eventually("the first key again", || {
        served.status("/v1/connections", &old) == 200
    });
}

/// C-24, C-23: the server says which layer set what holds, after a reload too, and no secret
#[test]
fn the_configuration_in_force_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    fs::write(&file, "[limits]\nbody_bytes_max = 70000\n").unwrap();
    let path = file.to_str().unwrap();
    let environment = [
        ("TIDEGATE_JWT_SECRET", SECRET),
        ("TIDEGATE_LIMITS__EVENT_BYTES_MAX", "99"),
    ];
    let served = Served::start(&["--config", path], &environment);
    let claims = Claims::new(tenant("demo"), "ops").role("admin");
    let admin = AuthConfig::new(SECRET, 60).unwrap();
    let admin = admin.issue(&claims, unix_s()).unwrap();
    let shown = || {
        let request = http::request("GET", "/v1/admin/config", Some(&admin), "");
        let answer = http::ask(served.address, &request);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(!answer.body.contains(SECRET));
        let shown: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        shown["settings"].as_array().unwrap().clone()
    };
    let of = |key: &str| {
        let all = shown();
        let one = all.iter().find(|one| one["key"] == key).unwrap();
        let text = |name: &str| one[name].as_str().unwrap().to_owned();
        (text("value"), text("source"))
    };
    let pair = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(
        of("limits.body_bytes_max"),
        pair("70000", &format!("{path}:2"))
    );
    let variable = "TIDEGATE_LIMITS__EVENT_BYTES_MAX";
    assert_eq!(of("limits.event_bytes_max"), pair("99", variable));
    assert_eq!(of("server.shards"), pair("1", "--shards"));
    assert_eq!(of("limits.frame_bytes_max").1, "default");
    fs::write(&file, "[limits]\nbody_bytes_max = 80000\n").unwrap();
    served.signal(Signal::HUP);
    eventually("the new limit", || of("limits.body_bytes_max").0 == "80000");
}

/// A second server on the port says so in place of sharing it
#[test]
fn a_port_has_one_server() {
    let served = Served::start(&["--dev"], &[]);
    let folder = tempfile::tempdir().unwrap();
    let mut second = program(&["serve", "--dev", "--listen", &served.address.to_string()]);
    let output = second.current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("another program has this port"), "{text}");
}

/// C-27: every profile starts on an ordinary machine, that for a million connections too.
#[test]
fn every_profile_starts() {
    for file in fs::read_dir("tuning/profiles").unwrap() {
        let path = file.unwrap().path();
        let profile = path.file_stem().unwrap().to_str().unwrap();
        let arguments = ["--profile", profile, "--data", "data", "--shards", "2"];
        let served = Served::start(&arguments, &[("TIDEGATE_JWT_SECRET", SECRET)]);
        let answer = http::ask(served.address, &http::request("GET", "/readyz", None, ""));
        assert_eq!(answer.status, 200, "profile {profile}");
    }
}

/// Runs the program where `io_uring_setup` fails with this error, as under a seccomp profile.
fn run_without_ring(errno: rustix::io::Errno, arguments: &[&str]) -> Output {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
    let denied = SeccompAction::Errno(errno.raw_os_error().unsigned_abs());
    let rules = [(IO_URING_SETUP, vec![])].into_iter().collect();
    let target = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, target).unwrap();
    let filter = BpfProgram::try_from(filter).unwrap();
    // A filter is a thread's and its children's, so this thread ends with them.
    std::thread::scope(|scope| {
        let filtered = scope.spawn(|| {
            seccompiler::apply_filter(&filter).unwrap();
            run(arguments, &[])
        });
        filtered.join().unwrap()
    })
}

/// The same number on every architecture.
const IO_URING_SETUP: i64 = 425;

/// RELIABILITY section 3, T-O4: where io_uring is refused the program says why, with exit code 78
#[test]
fn a_refused_ring_ends_with_78() {
    use rustix::io::Errno;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for (errno, hint) in [
        (Errno::PERM, "a seccomp profile forbids it"),
        (Errno::NOSYS, "built without CONFIG_IO_URING"),
    ] {
        let data = data.to_str().unwrap();
        let serve = ["serve", "--dev", "--listen", "127.0.0.1:0", "--data", data];
        let output = run_without_ring(errno, &serve);
        assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
        let text = stderr(&output);
        assert!(
            text.contains(hint) && text.contains("io_uring_setup"),
            "{text}"
        );
        assert!(!text.contains("panicked"), "{text}");
        assert_eq!(stdout(&output), "");
        assert!(!Path::new(data).exists(), "nothing was begun");
        let output = run_without_ring(errno, &["doctor"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains(hint), "{}", stdout(&output));
    }
}
