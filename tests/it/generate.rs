//! What `tidegate generate` writes: kept here as files, so that it is compiled, served and
//! compared byte for byte.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::rustc::{builds_of, rustc};
use crate::harness::{Client, Plan, token};

#[path = "generated/chat/mod.rs"]
mod chat;

fn generate(folder: &Path, arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    program.arg("generate").args(arguments).current_dir(folder);
    program.output().unwrap()
}

/// P-16, X-14: a folder with the gateway and the module, registered; a project that runs.
#[test]
fn a_project_comes_with_a_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let made = generate(folder.path(), &["project", "my-app"]);
    assert!(made.status.success(), "{made:?}");
    let project = folder.path().join("my-app");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/generated/chat");
    for file in ["mod.rs", "gateway.rs", "module.rs"] {
        let made = fs::read_to_string(project.join("src/chat").join(file)).unwrap();
        let kept = fs::read_to_string(kept.join(file)).unwrap();
        assert_eq!(
            made, kept,
            "tests/it/generated/chat/{file} is what is compiled"
        );
    }
    let made = generate(&project, &["gateway", "order-book"]);
    assert!(made.status.success(), "{made:?}");
    let main = fs::read_to_string(project.join("src/main.rs")).unwrap();
    for line in [
        "mod chat;",
        "mod order_book;",
        ".module::<order_book::OrderBookModule>()",
    ] {
        assert!(main.contains(line), "{line} is not in {main}");
    }
    let manifest = fs::read_to_string(project.join("Cargo.toml")).unwrap();
    assert!(manifest.contains(concat!("path = \"", env!("CARGO_MANIFEST_DIR"), "\"")));
}

/// Nothing that is there is written over.
#[test]
fn what_is_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        generate(folder.path(), &["gateway", "chat"])
            .status
            .success()
    );
    let again = generate(folder.path(), &["gateway", "chat"]);
    assert!(!again.status.success());
    let text = String::from_utf8(again.stderr).unwrap();
    assert!(
        text.contains("src/chat is there already: nothing was written"),
        "{text}"
    );
}

/// A word of the language cannot be a module: it is named, and nothing is begun.
#[test]
fn a_name_that_no_module_can_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (what, name) in [
        ("gateway", "mod"),
        ("gateway", "std"),
        ("project", "match"),
        ("project", "build"),
    ] {
        let refused = generate(folder.path(), &[what, name]);
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(text.contains(&format!("`{name}` ")), "{text}");
        assert!(!refused.status.success(), "{text}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// P-16: it answers a ping.
#[test]
fn a_generated_gateway_answers() {
    let site = Plan::new(1)
        .with(|server| server.module::<chat::ChatModule>())
        .start();
    let mut ada = Client::connect(site.address, "/chat", &token("demo", "ada"));
    ada.expect(r#"{"event":"welcome","data":{"conn_id":1}}"#);
    ada.ask(r#"{"event":"ping"}"#, r#"{"event":"pong","data":{}}"#);
    ada.ask(
        r#"{"event":"message","data":"hi"}"#,
        r#"{"event":"message","data":"hi"}"#,
    );
}

/// A program, ended with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, or not wanted any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Compiles a generated project with what is built already.
fn compile(project: &Path) {
    let program = project.join("program");
    let mut complaints = String::new();
    // Of several builds of serde_json, the one fits that the library is built with.
    for json in builds_of("serde_json") {
        let mut rustc = rustc(&project.join("src/main.rs"));
        rustc
            .arg("--extern")
            .arg(format!("serde_json={}", json.display()));
        let output = rustc.arg("-o").arg(&program).output().unwrap();
        if output.status.success() {
            return;
        }
        complaints.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    panic!("it does not compile: {complaints}");
}

/// P-16: a project and a second gateway, as written: they compile, run, and answer a ping.
#[test]
fn what_is_generated_runs() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        generate(folder.path(), &["project", "shop"])
            .status
            .success()
    );
    let project = folder.path().join("shop");
    assert!(
        generate(&project, &["gateway", "order-book"])
            .status
            .success()
    );
    compile(&project);
    let mut program = Command::new(project.join("program"));
    program.args(["--dev", "--listen", "127.0.0.1:0", "--shards", "1"]);
    program
        .current_dir(&project)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut running = Running(program.stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let address = first.strip_prefix("tidegate listening on http://");
    let address: SocketAddr = address.expect("the first line").parse().unwrap();
    let second = lines.next().unwrap().unwrap();
    let token = second.rsplit(' ').next().unwrap();
    for path in ["/chat", "/order-book"] {
        let mut client = Client::connect(address, path, token);
        let welcome = client.receive();
        assert!(
            welcome.starts_with(r#"{"event":"welcome","data":{"conn_id":"#),
            "{welcome}"
        );
        client.ask(r#"{"event":"ping"}"#, r#"{"event":"pong","data":{}}"#);
    }
}
