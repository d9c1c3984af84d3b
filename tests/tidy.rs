//! The rules of the code that no compiler holds: which folder may use which, how long files and
//! functions may be, which words do not belong where. Knows only text. A new dependency between
//! folders is made here, so that a reviewer sees it.

#![expect(
    clippy::unwrap_used,
    reason = "a test crate, whose functions are not all marked as tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each part of the crate may name with `crate::`. Parts that wire, `server`, `cli` and
/// `lib`, may name all.
const LAYERS: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("logging", &[]),
    ("metrics", &[]),
    ("auth", &["id"]),
    ("config", &["auth", "logging"]),
    ("proto", &["id"]),
    ("tls", &[]),
    ("log", &["id"]),
    ("broker", &["id", "auth", "proto", "log"]),
    ("gateway", &["id", "auth", "config", "proto", "broker"]),
    (
        "session",
        &["id", "auth", "config", "proto", "broker", "gateway"],
    ),
    (
        "shard",
        &[
            "id", "auth", "config", "metrics", "proto", "log", "broker", "gateway", "session",
            "tls",
        ],
    ),
    ("client", &[]),
    (
        "http",
        &[
            "id", "auth", "config", "metrics", "proto", "broker", "gateway",
        ],
    ),
];

/// The rooms of `shard`, each of which knows itself and those before it. `mod.rs` wires them.
const ROOMS: &[&str] = &[
    "kernel", "post", "socket", "commit", "state", "link", "speak", "door", "tell", "turn",
];

/// Words that do not belong into a part, and who may use them all the same.
const BANNED: &[(&str, &[&str], &str)] = &[
    ("tokio_uring", &["shard"], "only the shard knows the ring"),
    ("io_uring::", &["shard"], "only the shard knows the ring"),
    (
        "std::net::Tcp",
        &["shard", "server", "client"],
        "only the shard knows sockets, and the client",
    ),
    (
        "std::net::Udp",
        &["shard", "server"],
        "only the shard knows sockets",
    ),
    (
        "Instant::now",
        // A person who watches has the clock of the machine; interceptors of ours read what those of users can;
        // the log
        // is written to from everywhere, and nobody who does has a clock to hand in.
        &[
            "shard",
            "gateway/builtin.rs",
            "client",
            "cli/top/mod.rs",
            "logging/lines.rs",
        ],
        "`now` is an argument",
    ),
    (
        "SystemTime::now",
        &["shard", "server", "cli"],
        "`now` is an argument",
    ),
    (
        "thread::sleep",
        &["server", "client"],
        "wait for a condition",
    ),
    ("static mut", &[], "no global state"),
    (
        "Box<dyn Error",
        &["gateway"],
        "one error enum for each decision; a user's own may be boxed",
    ),
    (
        "Box<dyn std::error::Error",
        &["gateway"],
        "one error enum for each decision; a user's own may be boxed",
    ),
];

/// Pure parts: whatever they need of time, files and sockets is handed to them.
const PURE: &[&str] = &["proto", "broker", "session"];
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "tokio::net",
    "tokio::fs",
    "tokio::time",
];

const FILE_LINES_MAX: usize = 600;
const TEST_FILE_LINES_MAX: usize = 1_000;
const FUNCTION_LINES_MAX: usize = 70;

/// Old code that is longer than it may be, with its length: such a number may only go down.
const LONG: &[(&str, usize)] = &[];

struct File {
    path: PathBuf,
    text: String,
}

impl File {
    /// The folder or the file below `src`.
    fn part(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src").ok()?;
        let first = inside.components().next()?.as_os_str().to_str()?;
        Some(first.trim_end_matches(".rs"))
    }

    fn is_test(&self) -> bool {
        let name = self.path.file_stem().unwrap().to_str().unwrap();
        self.path.starts_with("tests")
            || name == "tests"
            || self
                .path
                .components()
                .any(|part| part.as_os_str() == "tests")
    }

    /// The lines of code with their numbers: no comments, and nothing from the tests at the
    /// bottom on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self
            .text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line));
        let until_tests = lines.take_while(|(_, line)| !line.starts_with("mod tests {"));
        until_tests.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn rust_files(folders: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    for folder in folders {
        collect(Path::new(folder), &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(folder: &Path, found: &mut Vec<File>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push(File { path, text });
        }
    }
}

const ALL: &[&str] = &["src", "tests", "examples", "loadgen/src", "bench/src"];

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn folders_use_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for file in rust_files(&["src"]) {
        let part = file.part().unwrap();
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == part) else {
            continue;
        };
        for (number, line) in file.code() {
            for used in line.split("crate::").skip(1) {
                let used = used
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap();
                if used != part && !used.is_empty() && !allowed.contains(&used) && is_layer(used) {
                    wrong.push(format!(
                        "{}:{number}: {part} may not use {used}",
                        file.path.display()
                    ));
                }
            }
        }
    }
    assert_none(&wrong);
}

/// A name that begins with `super` would hide which room is used.
#[test]
fn rooms_of_the_shard_use_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for file in rust_files(&["src/shard"]) {
        let inside = file.path.strip_prefix("src/shard").unwrap();
        let room = inside.components().next().unwrap().as_os_str();
        let room = room.to_str().unwrap().trim_end_matches(".rs");
        let Some(own) = ROOMS.iter().position(|name| *name == room) else {
            assert_eq!(room, "mod", "no room {room} is listed");
            continue;
        };
        for (number, line) in file.code() {
            let upward = line.split("crate::shard::").skip(1).find(|used| {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_');
                let used = used.into_iter().next().unwrap_or_default();
                !ROOMS[..=own].contains(&used)
            });
            let is_hidden = line.contains("super::super::")
                || line.contains("crate::shard;")
                || (inside.components().count() == 1 && line.contains("super::"));
            if upward.is_some() || is_hidden {
                let place = file.path.display();
                wrong.push(format!("{place}:{number}: {room} may not: {}", line.trim()));
            }
        }
    }
    assert_none(&wrong);
}

fn is_layer(name: &str) -> bool {
    LAYERS.iter().any(|(layer, _)| *layer == name) || ["server", "cli"].contains(&name)
}

/// A grouped import would hide which layer is used.
#[test]
fn one_import_names_one_layer() {
    let mut wrong = Vec::new();
    for file in rust_files(&["src"]) {
        for (number, line) in file.code() {
            if line.trim_start().starts_with("use crate::{") || line.contains("pub use crate::{") {
                wrong.push(format!("{}:{number}: {line}", file.path.display()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn words_stay_in_their_layers() {
    let mut wrong = Vec::new();
    for file in rust_files(&["src"]) {
        let part = file.part().unwrap();
        if part == "macros" || file.is_test() {
            continue;
        }
        for (number, line) in file.code() {
            for (word, allowed, reason) in BANNED {
                let may = |place: &&str| *place == part || file.path.ends_with(place);
                if line.contains(word) && !allowed.iter().any(may) {
                    wrong.push(format!(
                        "{}:{number}: {word}: {reason}",
                        file.path.display()
                    ));
                }
            }
            let impure = IMPURE
                .iter()
                .find(|word| PURE.contains(&part) && line.contains(*word));
            if let Some(word) = impure {
                wrong.push(format!(
                    "{}:{number}: {word}: {part} is pure",
                    file.path.display()
                ));
            }
        }
    }
    assert_none(&wrong);
}

/// Which dialect a connection speaks is asked in one place of the shard, so that a new one has an arm there
/// and files of its own.
#[test]
fn dialects_are_told_apart_in_one_place() {
    let mut wrong = Vec::new();
    for file in rust_files(&["src/shard"]) {
        if file.path.ends_with("speak/dialect.rs") {
            continue;
        }
        for (number, line) in file.code() {
            let mut named = line.split("Session::").skip(1);
            // A word that ends so is another type, and `Session::default()` asks nothing.
            let is_variant = |rest: &str| rest.starts_with(|c: char| c.is_ascii_uppercase());
            if named.any(is_variant) && !line.trim_start().starts_with("use ") {
                wrong.push(format!("{}:{number}: {line}", file.path.display()));
            }
        }
    }
    assert_none(&wrong);
}

/// C12: the count of what all shards hold is a cache line that they would take from each other, so none of
/// them touches it for a message.
#[test]
fn messages_count_nothing_that_all_shards_hold() {
    let mut wrong = Vec::new();
    for file in rust_files(&["src/shard/speak", "src/shard/turn"]) {
        let counts = |line: &str| line.contains("Arc::clone(&self.shared)");
        let found = file.code().filter(|(_, line)| counts(line));
        wrong.extend(
            found.map(|(number, line)| format!("{}:{number}: {line}", file.path.display())),
        );
    }
    assert_none(&wrong);
}

/// What a shard closes with stands by its name, and each of those names in the table that
/// `tidegate wire` prints.
#[test]
fn close_codes_stand_in_their_table() {
    let text = fs::read_to_string("src/proto/close_code.rs").unwrap();
    let table = &text[text.find("pub const SENT").unwrap()..];
    let table = &table[..table.find("];").unwrap()];
    let numbers = [
        "1001", "1002", "1007", "1008", "1009", "1011", "1012", "1013", "4401",
    ];
    let mut wrong = Vec::new();
    for file in rust_files(&["src/shard", "src/session"]) {
        for (number, line) in file.code() {
            let is_number = numbers.iter().any(|code| has_word(line, code));
            let named = line.split("CloseCode::").skip(1).any(|rest| {
                let name = rest
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next();
                let name = name.unwrap();
                name.starts_with(|c: char| c.is_ascii_uppercase()) && !has_word(table, name)
            });
            if !file.is_test() && (is_number || named) {
                wrong.push(format!("{}:{number}: {}", file.path.display(), line.trim()));
            }
        }
    }
    assert_none(&wrong);
}

/// The first lines say what a file is and what it may not know.
#[test]
fn every_file_says_what_it_is() {
    let mut wrong = Vec::new();
    for file in rust_files(ALL) {
        let head: Vec<_> = file
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        let words: usize = head
            .iter()
            .map(|line| line.split_whitespace().count() - 1)
            .sum();
        if words < HEAD_WORDS_MIN {
            wrong.push(format!(
                "{}: its head has {words} words",
                file.path.display()
            ));
        }
    }
    assert_none(&wrong);
}

/// Fewer cannot say anything that the name of the file does not.
const HEAD_WORDS_MIN: usize = 3;

#[test]
fn files_and_functions_are_short() {
    let mut wrong = Vec::new();
    for file in rust_files(ALL) {
        let path = file.path.to_str().unwrap();
        let lines = file.text.lines().count() - tests_at_the_bottom(&file.text);
        let bound = if file.is_test() {
            TEST_FILE_LINES_MAX
        } else {
            FILE_LINES_MAX
        };
        let granted = LONG
            .iter()
            .find(|(long, _)| *long == path)
            .map_or(bound, |(_, lines)| *lines);
        if granted < lines {
            wrong.push(format!("{path}: {lines} lines, {granted} at most"));
        }
        for (name, number, length) in functions(&file.text) {
            if FUNCTION_LINES_MAX < length {
                wrong.push(format!("{path}:{number}: {name} has {length} lines"));
            }
        }
    }
    assert_none(&wrong);
}

fn tests_at_the_bottom(text: &str) -> usize {
    match text.find("#[cfg(test)]\nmod tests {") {
        Some(at) => text[at..].lines().count(),
        None => 0,
    }
}

/// Name, line and length of each function. The code is formatted, so a body ends at the first
/// brace that stands as far to the left as its `fn`.
fn functions(text: &str) -> Vec<(&str, usize, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let ends = |candidate: &&str| {
            let trimmed = candidate.trim_start();
            candidate.len() - trimmed.len() == indent
                && (trimmed.starts_with('}') || trimmed.ends_with(';'))
        };
        let one_line = line.ends_with('}') || line.ends_with(';');
        let body = lines.iter().skip(index + 1).position(ends);
        let length = if one_line {
            1
        } else {
            body.map_or(1, |length| length + 2)
        };
        found.push((name, index + 1, length));
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let code = line.trim_start();
    let (before, after) = code.split_once("fn ")?;
    let qualifiers = before.split_whitespace().all(|word| {
        ["pub", "async", "const", "unsafe", "extern", "\"C\""].contains(&word)
            || word.starts_with("pub(")
            || word == "super)"
            || word == "crate)"
    });
    let name = after.split(['(', '<']).next()?;
    (qualifiers && !name.is_empty()).then_some(name)
}

#[test]
fn no_file_is_named_after_nothing() {
    let bad: BTreeSet<_> = [
        "util", "utils", "common", "manager", "helper", "helpers", "misc", "core",
    ]
    .into();
    let named = |file: &File| {
        let mut parts = file
            .path
            .components()
            .map(|part| part.as_os_str().to_str().unwrap().to_owned());
        parts.any(|part| bad.contains(part.trim_end_matches(".rs")))
    };
    let wrong: Vec<_> = rust_files(ALL)
        .iter()
        .filter(|file| named(file))
        .map(|file| file.path.display().to_string())
        .collect();
    assert_none(&wrong);
}

#[test]
fn nothing_is_left_unfinished() {
    // Written in halves, so that this file does not find itself.
    let markers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
    ];
    let mut wrong = Vec::new();
    for file in rust_files(ALL) {
        for (index, line) in file.text.lines().enumerate() {
            if markers.iter().any(|marker| has_word(line, marker)) {
                wrong.push(format!(
                    "{}:{}: {}",
                    file.path.display(),
                    index + 1,
                    line.trim()
                ));
            }
        }
    }
    assert_none(&wrong);
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let part_of_a_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part_of_a_name(before) && (word.ends_with('(') || !part_of_a_name(after))
    })
}

/// Comparisons read in one direction, from small to large.
#[test]
fn only_less_than() {
    let mut wrong = Vec::new();
    for file in rust_files(&["src"]) {
        // The macros write code as text, where `>` may end a generic argument.
        if file.is_test() || file.part() == Some("macros") {
            continue;
        }
        for (number, line) in file.code() {
            let turned = line.contains(" > ") || line.contains(" >= ");
            if turned && !line.contains('"') {
                wrong.push(format!("{}:{number}: {}", file.path.display(), line.trim()));
            }
        }
    }
    assert_none(&wrong);
}

/// Ways of saying what something is not, where a reader wants to know what it is or does.
const NOT_SAID: &[&str] = &[
    "is no ",
    "are no ",
    "is none",
    "are none",
    "no more",
    "nobody",
    "any more",
    "no longer",
];

/// Old texts of each part that say it all the same: such a number may only go down, and parts that
/// are not here have none.
const STILL_SAID: &[(&str, usize)] = &[
    ("auth", 20),
    ("broker", 40),
    ("cli", 6),
    ("client", 21),
    ("config", 28),
    ("http", 15),
    ("log", 34),
    ("logging", 2),
    ("proto", 23),
    ("server", 10),
    ("session", 6),
    ("shard", 38),
    ("tls", 4),
];

/// The docs and error texts of a file, each line with its number.
fn told_to_users(file: &File) -> Vec<(usize, &str)> {
    let mut is_error = false;
    let mut told = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        is_error |= line.contains("#[error(");
        if is_error || line.trim_start().starts_with("///") {
            told.push((number, line));
        }
        is_error &= !line.contains(")]");
    }
    told
}

#[test]
fn docs_and_errors_say_what_is() {
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in rust_files(&["src"]) {
        for (number, line) in told_to_users(&file) {
            let text = line.to_lowercase();
            if NOT_SAID.iter().any(|words| text.contains(words)) {
                let place = format!("{}:{number}: {}", file.path.display(), line.trim());
                said.entry(file.part().unwrap().to_owned())
                    .or_default()
                    .push(place);
            }
        }
    }
    let granted = |part: &str| {
        STILL_SAID
            .iter()
            .find(|(of, _)| *of == part)
            .map_or(0, |it| it.1)
    };
    let wrong: Vec<_> = said
        .iter()
        .filter(|(part, places)| granted(part) < places.len())
        .map(|(part, places)| format!("{part}: {} at most\n{}", granted(part), places.join("\n")))
        .collect();
    assert_none(&wrong);
}

/// What the architecture names is there: files, and functions of those files.
#[test]
fn the_architecture_names_what_exists() {
    let Ok(text) = fs::read_to_string("ARCHITECTURE.md") else {
        return;
    };
    let sources: Vec<_> = rust_files(ALL);
    let mut wrong = Vec::new();
    for name in text.split('`').skip(1).step_by(2) {
        if let Some(function) = name.strip_suffix("()") {
            let function = function.rsplit("::").next().unwrap();
            let declared = |file: &File| {
                functions(&file.text)
                    .iter()
                    .any(|(found, _, _)| *found == function)
            };
            if !sources.iter().any(declared) {
                wrong.push(format!("ARCHITECTURE.md: no function {name}"));
            }
        } else if is_path(name) && !is_there(name, &sources) {
            wrong.push(format!("ARCHITECTURE.md: no file {name}"));
        } else if let Some((of, item)) = name.rsplit_once("::")
            && !sources.iter().any(|file| has_item(&file.text, of, item))
        {
            wrong.push(format!("ARCHITECTURE.md: no {name}"));
        }
    }
    assert_none(&wrong);
}

/// Whether a file has a function or a variant `item`, and somewhere `of`: its type, or its module.
fn has_item(text: &str, of: &str, item: &str) -> bool {
    let of = of.rsplit("::").next().unwrap();
    let starts = |line: &str| {
        let rest = line.trim_start().strip_prefix(item);
        rest.is_some_and(|rest| rest.starts_with([',', '(', ' ']) || rest.is_empty())
    };
    let is_there =
        functions(text).iter().any(|(found, _, _)| *found == item) || text.lines().any(starts);
    is_there && has_word(text, of)
}

/// The map has every folder, and of the folder that everything goes through every file.
#[test]
fn the_architecture_names_all_there_is() {
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let names = |folder: &str| {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    let mut wrong: Vec<_> = names("src");
    for entry in names("src/shard") {
        let room = format!("src/shard/{entry}");
        if Path::new(&room).is_dir() {
            wrong.extend(names(&room));
        }
        wrong.push(entry);
    }
    wrong.retain(|name| name != "mod.rs" && !has_word(&text, name));
    assert_none(&wrong);
}

/// A path from the top or from `src`, or the bare name of a source.
fn is_there(name: &str, sources: &[File]) -> bool {
    let bare = || {
        sources
            .iter()
            .any(|file| file.path.file_name().is_some_and(|found| found == name))
    };
    Path::new(name).exists() || Path::new("src").join(name).exists() || bare()
}

fn is_path(name: &str) -> bool {
    let plain = name
        .chars()
        .all(|c| c.is_alphanumeric() || "._/-".contains(c));
    let extension = [".rs", ".toml", ".md", ".ts", ".html", ".service", ".conf"];
    plain
        && (extension.iter().any(|end| name.ends_with(end))
            || (name.ends_with('/') && name.len() != 1))
}

/// What the server promises, and the tests that must show it, each by its id.
const PROMISES: &[(&str, &str)] = &[
    ("P1", "what was acknowledged is never lost"),
    ("P2", "a seq has one payload for ever, and no gap before it"),
    ("P3", "what is found after a crash was sent"),
    (
        "P4",
        "what was not acked comes again, and no cursor passes its acks",
    ),
    ("P5", "a failed write is final, and a full disk is not that"),
    ("P6", "damage is told and never delivered"),
    ("P7", "a long log is ready soon"),
    ("P8", "a publish is acknowledged soon"),
    ("P9", "a slow reader loses nothing and holds up nobody"),
    ("P10", "nobody is told of another tenant"),
    ("P11", "a bad connection costs itself at most"),
    ("P12", "a peer that is gone is noticed"),
    ("P13", "a stop is quick and loses nothing"),
    ("P14", "connections that come and go leave nothing"),
    ("P15", "the protocol is the one of the standard"),
    ("P16", "no panic and no unsafe code outside of named files"),
    ("T-C1", "Autobahn without compression"),
    ("T-C2", "Autobahn with compression"),
    ("T-C3", "handshakes"),
    ("T-P1", "any split of the bytes gives the same events"),
    ("T-P2", "UTF-8 as the standard library has it"),
    ("T-P3", "a log is a list"),
    ("T-P4", "cursors against a model"),
    ("T-P5", "JSON as serde_json has it"),
    ("T-S1", "a crash at any operation"),
    ("T-S2", "a failure of any operation"),
    ("T-S3", "log, home and clients together"),
    ("T-L1", "the mailbox under every schedule"),
    ("T-L2", "mailbox and wake-up"),
    ("T-F1", "made-up heads of HTTP"),
    ("T-F2", "made-up frames"),
    ("T-F3", "made-up messages of relay"),
    ("T-F4", "made-up messages of durable topics and gateways"),
    ("T-F5", "made-up tokens"),
    ("T-F6", "made-up logs"),
    ("T-F7", "made-up bodies of REST"),
    ("T-D1", "kill -9 under load"),
    ("T-D2", "power cuts"),
    ("T-D3", "an end between any two operations"),
    ("T-D4", "every cut of the tail"),
    ("T-D5", "flipped bits"),
    ("T-D6", "full disks and failing syncs"),
    (
        "T-N1",
        "slow handshakes, peers that are gone, no files, no memory",
    ),
    ("T-N2", "many readers of which some are stuck"),
    ("T-N3", "all come back at once, and ask for too much"),
    ("T-A1", "tokens of every kind"),
    ("T-A2", "every operation on what is another's"),
    ("T-A3", "no secret in a log, a page or a metric"),
    ("T-O1", "a drain, and a second process"),
    ("T-O2", "clocks that jump"),
    ("T-O3", "an hour of coming and going"),
    ("T-O4", "a user without rights, and a kernel that refuses"),
];

/// The ids in the comments above tests, or at the head of a script that is one. `P1 to P4` is four.
fn ids_named(file: &File, found: &mut BTreeSet<String>) {
    let is_script = file.path.extension().is_some_and(|kind| kind != "rs");
    let is_doc = |line: &&str| line.trim_start().starts_with("//");
    for line in file.text.lines().filter(|line| is_script || is_doc(line)) {
        let words: Vec<&str> = line
            .split([' ', ',', '.', ':', ';', '(', ')', '"'])
            .collect();
        for (at, word) in words.iter().enumerate() {
            found.insert((*word).to_owned());
            let number = |word: &str| word.strip_prefix('P')?.parse::<u32>().ok();
            let to = words
                .get(at + 2)
                .filter(|_| words.get(at + 1) == Some(&"to"));
            if let (Some(from), Some(to)) = (number(word), to.and_then(|to| number(to))) {
                found.extend((from..=to).map(|n| format!("P{n}")));
            }
        }
    }
}

/// Scripts that are tests or measure what is promised.
fn scripts(folder: &Path, found: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_script = path
            .extension()
            .is_some_and(|kind| kind == "py" || kind == "sh");
        if path.is_dir() && !path.ends_with("build") && !path.ends_with("node_modules") {
            scripts(&path, found);
        } else if is_script {
            let text = fs::read_to_string(&path).unwrap();
            found.push(File { path, text });
        }
    }
}

#[test]
fn every_promise_is_named_by_a_test() {
    let mut named = BTreeSet::new();
    let mut files = rust_files(&["src", "tests"]);
    files.retain(|file| file.is_test() || file.text.contains("#[test]"));
    files.retain(|file| !file.path.ends_with("tidy.rs") || file.path.starts_with("src"));
    scripts(Path::new("tests"), &mut files);
    scripts(Path::new("bench"), &mut files);
    files.iter().for_each(|file| ids_named(file, &mut named));
    let missing = PROMISES.iter().filter(|(id, _)| !named.contains(*id));
    let missing: Vec<String> = missing.map(|(id, what)| format!("{id}: {what}")).collect();
    assert_none(&missing);
}

#[test]
fn these_rules_find_what_they_look_for() {
    let text = "fn a() {\n    b();\n}\n\n    pub(super) async fn c<T>(\n        x: T,\n    ) -> u8 {\n        1\n    }\n";
    assert_eq!(functions(text), [("a", 1, 3), ("c", 5, 5)]);
    assert!(has_word(concat!("// TO", "DO: x"), concat!("TO", "DO")));
    assert!(!has_word("METHODOLOGY", concat!("TO", "DO")));
    assert!(is_path("src/shard/mod.rs") && is_path("tuning/") && !is_path("a > b"));
    let file = File {
        path: "src/log/record.rs".into(),
        text: "// x\nlet a = 1;\nmod tests {\n1 > 2\n".into(),
    };
    let named = |text: &str| {
        let (mut named, text) = (BTreeSet::new(), text.into());
        let path = "tests/x.rs".into();
        ids_named(&File { path, text }, &mut named);
        named
    };
    let found = named("/// T-S1, P1 to P3: x");
    assert!(
        ["T-S1", "P1", "P2", "P3"]
            .iter()
            .all(|id| found.contains(*id))
    );
    assert!(!named("/// P1 to P3").contains("P4") && !named("let P5 = 1;").contains("P5"));
    assert_eq!(file.part(), Some("log"));
    assert_eq!(file.code().count(), 1);
}
