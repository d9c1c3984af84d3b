//! What `tidegate generate` writes: kept here as files, so that it is compiled, served and
//! compared byte for byte.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::rustc::{builds_of, rustc};
use crate::harness::{Client, Plan, http, token};

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

/// N8: outside of a project nothing is written, and the error says where to go.
#[test]
fn a_gateway_needs_a_project() {
    let folder = tempfile::tempdir().unwrap();
    let workspace = folder.path().join("workspace");
    fs::create_dir_all(workspace.join("src")).unwrap();
    fs::write(workspace.join("Cargo.toml"), "[workspace]\nmembers = []\n").unwrap();
    for arguments in [
        &["gateway", "chat"][..],
        &["gateway", "chat", "--project", "nowhere"],
        &["gateway", "chat", "--project", "workspace"],
    ] {
        let refused = generate(folder.path(), arguments);
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(
            text.contains("Cargo.toml is not the manifest of a program"),
            "{text}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(workspace.join("src")).unwrap().count(), 0);
}

/// N8: a project has a test and a page; N5: nothing in it names somebody else's place.
#[test]
fn a_project_has_a_test_and_a_page() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        generate(folder.path(), &["project", "shop"])
            .status
            .success()
    );
    let project = folder.path().join("shop");
    let read = |file: &str| fs::read_to_string(project.join(file)).unwrap();
    assert!(read("src/chat/gateway.rs").contains("#[test]"));
    assert!(read("src/index.html").contains("new EventClient("));
    assert!(!read("Cargo.toml").contains("git"));
}

/// What is written is written, whether or not anybody reads what is said of it.
#[test]
fn what_is_said_is_no_condition_of_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    program
        .args(["generate", "project", "shop"])
        .current_dir(folder.path());
    program.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let made = program.output().unwrap();
    assert_eq!(made.status.code(), Some(1), "{made:?}");
    assert!(folder.path().join("shop/src/chat/module.rs").exists());
    assert!(folder.path().join("shop/src/main.rs").exists());
}

/// Nothing that is there is written over.
#[test]
fn what_is_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("Cargo.toml"), "[package]\n").unwrap();
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
    let jsons = builds_of("serde_json").into_iter();
    let pairs = jsons.flat_map(|json| {
        builds_of("axum")
            .into_iter()
            .map(move |axum| (json.clone(), axum))
    });
    for (json, axum) in pairs {
        let mut rustc = rustc(&project.join("src/main.rs"));
        for (name, library) in [("serde_json", json), ("axum", axum)] {
            let library = format!("{name}={}", library.display());
            rustc.arg("--extern").arg(library);
        }
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
    let page = http::ask(address, &http::request("GET", "/", None, ""));
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
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
