//! Wrong use of the framework does not compile, and the compiler says what to do instead: each
//! program of `tests/wrong_use` says with `//~` what its line is told. Knows the compiler's
//! messages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::rustc::rustc;

/// A line of a program, and what is said there.
type Told = (u64, String);

#[test]
fn attributes_that_are_written_wrong_are_told_what_to_write() {
    check("spelling");
}

#[test]
fn types_that_do_not_fit_are_told_what_is_missing() {
    check("types");
}

#[test]
fn payloads_and_guards_are_counted() {
    check("counts");
}

#[test]
fn a_second_block_of_messages_is_told_so() {
    check("twice");
}

/// Such a number is found where code is made of its type, which is in the library: the line is not
/// told, the type is.
#[test]
fn numbers_that_cannot_be_meant_are_told_what_they_would_do() {
    let source = source_of("limits");
    let nowhere = |(_, text): Told| (NOWHERE, text);
    let expected: Vec<Told> = expectations(&source).into_iter().map(nowhere).collect();
    compare(&expected, &compiled(&source, "obj"));
}

/// Each `//~` is told to its line, and nothing else is told.
#[track_caller]
fn check(program: &str) {
    let source = source_of(program);
    compare(&expectations(&source), &compiled(&source, "metadata"));
}

fn source_of(program: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong_use");
    folder.join(program).with_extension("rs")
}

#[track_caller]
fn compare(expected: &[Told], told: &BTreeSet<Told>) {
    let mut met = BTreeSet::new();
    for (line, text) in told {
        let of_line = |expected: &&Told| expected.0 == *line && text.contains(&expected.1);
        let found = expected.iter().find(of_line);
        met.insert(found.unwrap_or_else(|| panic!("nobody expects this:\n{text}")));
    }
    let missed: Vec<_> = expected.iter().filter(|it| !met.contains(it)).collect();
    assert!(missed.is_empty(), "the compiler does not say {missed:?}");
}

fn expectations(source: &Path) -> Vec<Told> {
    let source = std::fs::read_to_string(source).unwrap();
    let lines = (1..).zip(source.lines());
    let told = lines.filter_map(|(line, code)| {
        let (_, text) = code.split_once("//~ ")?;
        Some((line, text.to_owned()))
    });
    told.collect()
}

/// What the compiler has to say until it has made `kind` of a program.
fn compiled(source: &Path, kind: &str) -> BTreeSet<Told> {
    let folder = tempfile::tempdir().unwrap();
    let mut rustc = rustc(source);
    rustc.args([
        "--emit",
        kind,
        "--error-format",
        "json",
        "--allow",
        "warnings",
    ]);
    let output = rustc.arg("--out-dir").arg(folder.path()).output();
    let output = output.expect("whoever runs tests has the compiler");
    assert!(!output.status.success(), "{} compiles", source.display());
    let lines = String::from_utf8(output.stderr).unwrap();
    let told = lines.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).unwrap();
        let spans = message["spans"]
            .as_array()
            .filter(|_| message["level"] == "error")?;
        let primary = spans.iter().find(|span| span["is_primary"] == true)?;
        let line = within(primary, source)["line_start"].as_u64();
        Some((line.unwrap_or(NOWHERE), text_of(&message)))
    });
    told.collect()
}

/// Where in the program it is, if it is there: what is in a macro of the library is where the macro
/// is used.
fn within<'a>(span: &'a Value, source: &Path) -> &'a Value {
    match span["file_name"].as_str() {
        Some(file) if Path::new(file) != source => within(&span["expansion"]["span"], source),
        _ => span,
    }
}

/// The line of what is not in the program.
const NOWHERE: u64 = 0;

/// The message with its labels and notes, without the lines of the program.
fn text_of(message: &Value) -> String {
    let labels = message["spans"].as_array().into_iter().flatten();
    let labels = labels.filter_map(|span| span["label"].as_str().map(str::to_owned));
    let notes = message["children"].as_array().into_iter().flatten();
    let own = message["message"].as_str().map(str::to_owned);
    let texts = own.into_iter().chain(labels).chain(notes.map(text_of));
    texts.collect::<Vec<_>>().join("\n")
}
