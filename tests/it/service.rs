//! The program as a service: sockets that a manager bound for it, what it tells the manager, and
//! keys that are public. Every process is ended by the test that started it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::harness::{Client, eventually, http, unix_s};
use crate::program::Served;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A started program, killed if the test does not end it.
struct Program(Child);

impl Program {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn first_line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.0.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Ended already, or not wanted any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program with `listener` as its third descriptor, as systemd does. A shell moves it
/// there, and is replaced by the program, so that LISTEN_PID is right.
fn activated(listener: &TcpListener, manager: &Path, folder: &Path) -> Program {
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_tidegate")])
        .args(["serve", "--shards", "1", "--data"])
        .arg(folder.join("data"))
        .env_clear()
        .env("TIDEGATE_JWT_SECRET", SECRET)
        .env("TIDEGATE_RELAY__PATH", "/ws")
        .env("NOTIFY_SOCKET", manager)
        .current_dir(folder)
        .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Program(command.spawn().unwrap())
}

/// Waits until the manager has been told `wanted`.
fn told(manager: &UnixDatagram, wanted: &str) {
    let mut buffer = [0; 512];
    loop {
        let length = manager
            .recv(&mut buffer)
            .expect("the manager is told in time");
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        if text.lines().any(|line| line == wanted) {
            return;
        }
    }
}

fn token() -> String {
    let claims = tidegate::auth::Claims::new(crate::harness::tenant("demo"), "ada");
    tidegate::auth::AuthConfig::new(SECRET, 60)
        .unwrap()
        .issue(&claims, unix_s())
        .unwrap()
}

/// C-23: the manager hears when the server is ready and when it stops, and nobody who connects
/// between two servers is refused.
#[test]
fn a_restart_keeps_an_inherited_port_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();

    let mut first = activated(&listener, &path, folder.path());
    told(&manager, "READY=1");
    assert_eq!(
        first.first_line(),
        format!("tidegate listening on http://{address}")
    );
    let mut client = Client::connect(address, "/ws", &token());
    first.signal(Signal::HUP);
    told(&manager, "STATUS=reloading");
    told(&manager, "READY=1");
    first.signal(Signal::TERM);
    told(&manager, "STOPPING=1");
    match client.receive_message() {
        tungstenite::Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1012),
        other => panic!("no close but {other:?}"),
    }
    drop(client);
    assert_eq!(first.0.wait().unwrap().code(), Some(0));

    // Nobody serves now; the queue of the socket takes whoever comes.
    let mut early = TcpStream::connect(address).unwrap();
    early
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let _second = activated(&listener, &path, folder.path());
    told(&manager, "READY=1");
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Development makes a secret up, so a socket for everybody is refused there too.
#[test]
fn development_takes_no_socket_that_others_reach() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve --dev";
    let output = Command::new("/bin/sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_tidegate")])
        .env_clear()
        .current_dir(folder.path())
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("--dev serves loopback addresses only"),
        "{text}"
    );
}

fn signed(name: &str, algorithm: Algorithm) -> String {
    let pem = fs::read(format!("tests/fixtures/keys/{name}_private.pem")).unwrap();
    let key = match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(&pem).unwrap(),
        _ => EncodingKey::from_ed_pem(&pem).unwrap(),
    };
    let claims = json!({"ns": "demo", "sub": "ada", "exp": unix_s() + 60});
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap()
}

/// T-A1, C-23: a public key is enough; SIGHUP takes another one, and `token check` names it.
#[test]
fn public_keys_let_in_and_rotate() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("issuer.pem");
    fs::copy("tests/fixtures/keys/ec.pem", &file).unwrap();
    let config = folder.path().join("tidegate.toml");
    let text = format!("[auth]\npublic_key_files = [\"{}\"]\n", file.display());
    fs::write(&config, text).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(arguments)
            .arg("--config")
            .arg(&config)
            .env_clear();
        command.current_dir(folder.path()).stdin(Stdio::null());
        command
    };
    let mut serve = run(&["serve", "--listen", "127.0.0.1:0", "--shards", "1"]);
    let child = serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut program = Program(child.unwrap());
    let line = program.first_line();
    let address = line.rsplit('/').next().unwrap().parse().unwrap();
    let status = |token: &str| {
        http::ask(
            address,
            &http::request("GET", "/v1/connections", Some(token), ""),
        )
        .status
    };
    let (old, new) = (
        signed("ec", Algorithm::ES256),
        signed("ed", Algorithm::EdDSA),
    );
    assert_eq!((status(&old), status(&new)), (200, 401));
    let checked = run(&["token", "check", &old]).output().unwrap();
    let shown = String::from_utf8(checked.stdout).unwrap();
    assert!(
        shown.contains("signed with the key `issuer` (ES256, "),
        "{shown}"
    );
    let none = run(&["token", "new", "--ns", "demo", "--sub", "ada"])
        .output()
        .unwrap();
    assert_eq!(none.status.code(), Some(78));
    fs::copy("tests/fixtures/keys/ed.pem", &file).unwrap();
    program.signal(Signal::HUP);
    eventually("the other key", || status(&new) == 200);
    assert_eq!(status(&old), 401);
}

/// C-23: under `--dev` SIGHUP takes public keys too, and the secret that was made up stays.
#[test]
fn development_takes_public_keys_by_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidegate.toml");
    fs::write(&config, "[auth]\npublic_key_files = []\n").unwrap();
    let mut served = Served::start(&["--dev", "--config", config.to_str().unwrap()], &[]);
    let own = served.dev_token();
    let other = signed("ec", Algorithm::ES256);
    let status = |token: &str| served.status("/v1/connections", token);
    assert_eq!((status(&own), status(&other)), (200, 401));
    let key = fs::canonicalize("tests/fixtures/keys/ec.pem").unwrap();
    let text = format!("[auth]\npublic_key_files = [\"{}\"]\n", key.display());
    fs::write(&config, text).unwrap();
    served.signal(Signal::HUP);
    eventually("the public key", || status(&other) == 200);
    assert_eq!(status(&own), 200);
}

/// The names of all samples that a server shows, without the labels.
fn shown_metrics(text: &str) -> std::collections::BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let name = |line: &str| line.split(['{', ' ']).next().unwrap().to_owned();
    samples.map(name).collect()
}

/// C-10: every metric says what it is, and the dashboard that is shipped asks for none that is
/// not there, and leaves none out.
#[test]
fn the_dashboard_and_the_metrics_are_of_one_mind() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--shards", "2"]);
    command
        .env_clear()
        .current_dir(folder.path())
        .stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut program = Program(child.unwrap());
    let line = program.first_line();
    let address = line.rsplit('/').next().unwrap().parse().unwrap();
    let text = http::ask(address, &http::request("GET", "/metrics", None, "")).body;
    let shown = shown_metrics(&text);
    assert!(60 < shown.len(), "{shown:?}");
    for name in &shown {
        let family = ["_total", "_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        let helped = text.contains(&format!("# HELP {family} "));
        assert!(helped, "{family} has no HELP");
    }
    let dashboard = fs::read_to_string("tuning/grafana.json").unwrap();
    serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
    let asked: std::collections::BTreeSet<String> = dashboard
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("tidegate_"))
        .map(str::to_owned)
        .collect();
    for name in &asked {
        assert!(shown.contains(name), "{name} is asked for and not there");
    }
    let drawn = |name: &String| {
        let whole = name
            .strip_suffix("_sum")
            .or_else(|| name.strip_suffix("_count"));
        asked.contains(name) || whole.is_some_and(|name| asked.contains(&format!("{name}_bucket")))
    };
    for name in shown {
        assert!(drawn(&name), "{name} is on no panel");
    }
}
