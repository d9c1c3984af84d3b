//! The compiler, for programs that use the library: those that must not compile, and those that
//! `tidegate generate` writes. Knows where the library lies that the tests are linked with, so
//! that nothing is built twice and nothing is fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiler, about to compile `source` with the library at hand.
pub(crate) fn rustc(source: &Path) -> Command {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-type", "bin"]);
    command
        .arg("-L")
        .arg(format!("dependency={}", folder().display()));
    // The newest build is the one that this test was built with.
    let library = builds_of("tidegate").remove(0);
    command
        .arg("--extern")
        .arg(format!("tidegate={}", library.display()));
    command.arg(source);
    command
}

/// The builds of a library that lie beside this test, the newest first.
pub(crate) fn builds_of(library: &str) -> Vec<PathBuf> {
    let start = format!("lib{library}-");
    let files = std::fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path());
    let is_build = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.starts_with(&start) && name.ends_with(".rlib")
    };
    let mut builds: Vec<PathBuf> = files.filter(is_build).collect();
    builds.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().modified().unwrap()));
    assert!(
        !builds.is_empty(),
        "{library} is built before the tests are"
    );
    builds
}

fn folder() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.parent().unwrap().to_owned()
}
