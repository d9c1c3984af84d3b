//! A configuration as text: a file to start from, and the table that says who set what.
//! Writes nothing itself.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::check::keys_of;
use super::error::Source;
use super::layers::{Loaded, SECTIONS};
use super::section::Key;

/// A complete file with every key, its default and its meaning. Each value stands behind a `#`,
/// so that a later release may choose better defaults for those who chose none.
pub fn template() -> String {
    let mut text = String::from(TEMPLATE_HEAD);
    for section in SECTIONS {
        let defaults = super::layers::own_defaults(section);
        let title = match *section {
            "relay" => {
                "# [relay]              # take the # away, and the relay mount exists\n".into()
            }
            "mount" => "# [[mount]]            # as often as you like\n".into(),
            other => format!("[{other}]\n"),
        };
        text.push_str(&title);
        for key in own_keys(section, &defaults) {
            write_doc(&mut text, &key);
            write_pair(&mut text, "# ", key.name, defaults.get(key.name), "");
        }
        text.push('\n');
    }
    text
}

/// All values in the form of a file, each with the layer that set it.
pub fn show(loaded: &Loaded) -> String {
    let source_of = |key: &str| loaded.sources.get(key).cloned().unwrap_or(Source::Default);
    let mut text = String::new();
    for section in SECTIONS {
        match loaded.table.get(*section) {
            Some(Value::Table(table)) => {
                show_section(
                    &mut text,
                    &format!("[{section}]"),
                    section,
                    table,
                    &source_of,
                );
            }
            Some(Value::Array(entries)) => {
                for (index, entry) in entries.iter().enumerate() {
                    if let Value::Table(table) = entry {
                        let path = format!("{section}[{index}]");
                        show_section(
                            &mut text,
                            &format!("[[{section}]]"),
                            &path,
                            table,
                            &source_of,
                        );
                    }
                }
            }
            _ => {}
        }
    }
    text
}

fn show_section(
    text: &mut String,
    title: &str,
    path: &str,
    table: &Table,
    source_of: &dyn Fn(&str) -> Source,
) {
    let section = path.split('[').next().unwrap_or(path);
    text.push_str(title);
    text.push('\n');
    for key in keys_of(section) {
        if let Some(value) = table.get(key.name) {
            let source = source_of(&format!("{path}.{}", key.name));
            write_pair(text, "", key.name, Some(value), &source.to_string());
        }
    }
    text.push('\n');
}

/// The keys of a section without the limits that may stand in it too.
fn own_keys(section: &str, defaults: &Table) -> Vec<Key> {
    let keys = keys_of(section).into_iter();
    keys.filter(|key| defaults.contains_key(key.name)).collect()
}

fn write_doc(text: &mut String, key: &Key) {
    for line in key.doc {
        text.push('#');
        text.push_str(line);
        text.push('\n');
    }
}

fn write_pair(text: &mut String, mark: &str, name: &str, value: Option<&Value>, source: &str) {
    let Some(value) = value else { return };
    let pair = format!("{mark}{name} = {value}");
    let written = match source.is_empty() {
        true => writeln!(text, "{pair}"),
        false => writeln!(text, "{pair:<56} # {source}"),
    };
    debug_assert!(written.is_ok(), "a string takes every text");
}

const TEMPLATE_HEAD: &str = "\
# Tidegate. Every key stands here with its default and its meaning; take the # in front of a
# value away to set it. The environment (TIDEGATE_SECTION__KEY) and flags are stronger than this file.
# `tidegate config check FILE` reads it, `tidegate config show` tells who set what.

";
