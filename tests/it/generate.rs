//! What `tidegate generate` writes: kept here as files, so that it is compiled, served and
//! compared byte for byte.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

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
