//! Every value of a configuration with the layer that set it, for those who ask the running server.
//! Knows keys and values; nothing of who asks. What looks like a secret is never in it.

use serde::Serialize;
use toml::{Table, Value};
use utoipa::ToSchema;

use super::check::keys_of;
use super::error::Source;
use super::layers::{Loaded, SECTIONS, schema_of};
use super::section::Section;

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Setting {
    /// Its key, such as `limits.body_bytes_max`.
    pub key: String,
    /// Its value as it would stand in a file.
    pub value: String,
    /// Which layer set it: `default`, a file and its line, a variable, a flag.
    pub source: String,
    /// Somebody who runs this server chose it.
    pub chosen: bool,
    /// What it means.
    pub meaning: String,
}

impl Loaded {
    /// All values in the order in which a file would have them.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        for section in SECTIONS {
            match self.table.get(*section) {
                Some(Value::Table(table)) => self.add(section, section, table, &mut settings),
                Some(Value::Array(entries)) => {
                    for (index, entry) in entries.iter().enumerate() {
                        if let Value::Table(table) = entry {
                            self.add(
                                &format!("{section}[{index}]"),
                                section,
                                table,
                                &mut settings,
                            );
                        }
                    }
                }
                _ => {}
            }
        }
        settings
    }

    fn add(&self, path: &str, section: &str, table: &Table, settings: &mut Vec<Setting>) {
        for key in keys_of(section) {
            let Some(value) = table.get(key.name) else {
                continue;
            };
            let path = format!("{path}.{}", key.name);
            let source = self.sources.get(&path).unwrap_or(&Source::Default);
            settings.push(Setting {
                value: shown(key.name, value),
                source: source.to_string(),
                chosen: source.is_chosen(),
                meaning: key.doc.join("").trim().to_owned(),
                key: path,
            });
        }
    }
}

impl Setting {
    /// Puts a section that the program itself chose in the place of what was loaded.
    pub fn put<S: Section + Serialize>(settings: &mut Vec<Self>, section: &str, chosen: &S) {
        let prefix = format!("{section}.");
        let own = |setting: &Self| {
            let name = setting.key.strip_prefix(&prefix);
            name.is_some_and(|name| S::KEYS.iter().any(|key| key.name == name))
        };
        // A section that is declared can be written: a test parses all of them.
        let table = Table::try_from(chosen).unwrap_or_default();
        let at = settings.iter().position(own).unwrap_or(settings.len());
        settings.retain(|setting| !own(setting));
        let added = S::KEYS.iter().filter_map(|key| {
            Some(Self {
                key: format!("{prefix}{}", key.name),
                value: shown(key.name, table.get(key.name)?),
                source: PROGRAM.to_owned(),
                chosen: true,
                meaning: key.doc.join("").trim().to_owned(),
            })
        });
        settings.splice(at..at, added.collect::<Vec<_>>());
    }

    /// The settings that hold after a reload: of the new ones only those that a reload puts in
    /// force, of the old ones the others.
    pub fn reloaded(old: &[Self], new: &[Self]) -> Vec<Self> {
        let newer = |setting: &Self| new.iter().find(|new| new.key == setting.key);
        old.iter()
            .map(|setting| match newer(setting) {
                Some(new) if setting.is_reloaded() => new.clone(),
                _ => setting.clone(),
            })
            .collect()
    }

    /// Keys that differ and that a reload does not put in force. What the program chose is none of
    /// the file's.
    pub fn waiting_for_a_restart(old: &[Self], new: &[Self]) -> Vec<String> {
        let differs = |old: &&Self| {
            let same = new.iter().find(|new| new.key == old.key);
            let chosen = old.source == PROGRAM;
            !old.is_reloaded() && !chosen && same.is_none_or(|new| new.value != old.value)
        };
        let is_new = |new: &&Self| old.iter().all(|old| old.key != new.key);
        let changed = old.iter().filter(differs);
        let all = changed.chain(new.iter().filter(is_new));
        all.map(|setting| setting.key.clone()).collect()
    }

    fn is_reloaded(&self) -> bool {
        let (section, name) = self.key.split_once('.').unwrap_or((&self.key, ""));
        matches!(section, "limits" | "auth")
            || matches!(self.key.as_str(), "log.level" | "server.trusted_proxies")
            || schema_of("limits").contains_key(name)
    }
}

/// Who set what no layer did.
const PROGRAM: &str = "the program";

/// A value as it may be shown: of a secret only that there is one, of an address with a password
/// only the address.
fn shown(name: &str, value: &Value) -> String {
    let secret = SECRET_ENDS.iter().any(|end| name.ends_with(end));
    match value {
        Value::String(text) if secret && !text.is_empty() => "\"***\"".to_owned(),
        Value::String(text) => Value::String(without_password(text)).to_string(),
        other => other.to_string(),
    }
}

fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    match rest.rsplit_once('@') {
        Some((_, place)) => format!("{scheme}://***@{place}"),
        None => text.to_owned(),
    }
}

/// How the names of keys end that hold a secret themselves.
const SECRET_ENDS: [&str; 4] = ["_secret", "_password", "_token", "_key"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::config::layers::Flag;

    fn loaded(body_bytes_max: &str) -> Vec<Setting> {
        let flag = |name, key, value: &str| Flag {
            name,
            key,
            value: value.to_owned(),
        };
        let sources = Sources {
            dev: true,
            flags: vec![
                flag("--listen", "server.listen", "127.0.0.1:1"),
                flag("--body", "limits.body_bytes_max", body_bytes_max),
            ],
            ..Sources::default()
        };
        sources.load().unwrap().settings()
    }

    fn of<'a>(settings: &'a [Setting], key: &str) -> &'a Setting {
        settings.iter().find(|one| one.key == key).unwrap()
    }

    /// C-18
    #[test]
    fn each_value_says_who_set_it_and_what_it_means() {
        let settings = loaded("70000");
        let body = of(&settings, "limits.body_bytes_max");
        assert_eq!(
            (body.value.as_str(), body.source.as_str()),
            ("70000", "--body")
        );
        assert!(body.chosen && !body.meaning.is_empty());
        let path = of(&settings, "relay.path");
        assert_eq!(
            (path.value.as_str(), path.source.as_str()),
            ("\"/ws\"", "default")
        );
        assert!(!path.chosen);
    }

    /// C-23: what a reload cannot change is not said to have changed
    #[test]
    fn a_reload_changes_limits_and_proxies_and_no_address() {
        let mut new = loaded("80000");
        for setting in &mut new {
            match setting.key.as_str() {
                "server.listen" => setting.value = "\"127.0.0.1:2\"".into(),
                "server.trusted_proxies" => setting.value = "[\"::1\"]".into(),
                _ => {}
            }
        }
        let old = loaded("70000");
        assert_eq!(
            Setting::waiting_for_a_restart(&old, &new),
            ["server.listen"]
        );
        new.push(Setting {
            key: "mount[0].path".into(),
            ..new[0].clone()
        });
        let waiting = Setting::waiting_for_a_restart(&old, &new);
        assert_eq!(waiting, ["server.listen", "mount[0].path"]);
        let now = Setting::reloaded(&old, &new);
        assert_eq!(of(&now, "limits.body_bytes_max").value, "80000");
        assert_eq!(of(&now, "server.listen").value, "\"127.0.0.1:1\"");
        assert_eq!(of(&now, "server.trusted_proxies").value, "[\"::1\"]");
    }

    ///
    #[test]
    fn what_the_program_chose_is_said_to_be_its_own() {
        let mut settings = loaded("70000");
        let relay = crate::config::RelaySection {
            path: "/live".into(),
            ..Default::default()
        };
        let count = settings.len();
        Setting::put(&mut settings, "relay", &relay);
        let path = of(&settings, "relay.path");
        assert_eq!(
            (path.value.as_str(), path.source.as_str()),
            ("\"/live\"", "the program")
        );
        assert_eq!(settings.len(), count);
    }

    #[test]
    fn no_secret_is_shown() {
        let text = |text: &str| Value::String(text.into());
        assert_eq!(shown("jwt_secret", &text("hunter2")), "\"***\"");
        assert_eq!(shown("jwt_secret", &text("")), "\"\"");
        assert_eq!(shown("jwt_secret_file", &text("/run/key")), "\"/run/key\"");
        let url = shown("url", &text("nats://ada:hunter2@host:4222"));
        assert_eq!(url, "\"nats://***@host:4222\"");
    }
}
