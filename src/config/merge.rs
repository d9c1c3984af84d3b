//! Layers laid on each other and read as one value. Knows no file and no environment: it is handed
//! tables and the place of each key.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::check;
use super::error::{Error, Source};
use super::layers::{Layer, Loaded, SECTIONS, own_defaults};
use super::limits::Limits;
use super::section::Section;
use super::sections::{self, MountConfig, MountSection, SocketIoSection};
use super::{
    AdminSection, AuthSection, Config, DurableSection, LogSection, RelaySection, ServerSection,
    ShardSection, TlsSection,
};

/// The layers so far.
#[derive(Debug)]
pub(super) struct Merged {
    table: Table,
    sources: BTreeMap<String, Source>,
}

impl Merged {
    pub(super) fn new() -> Self {
        let optional = |section: &&&str| **section != "relay" && **section != "mount";
        let of_default = |section: &&str| {
            let table = own_defaults(section);
            ((*section).to_owned(), Value::Table(table))
        };
        let table = SECTIONS.iter().filter(optional).map(of_default).collect();
        Self {
            table,
            sources: BTreeMap::new(),
        }
    }

    /// Keys of `layer` replace those that are there. A list is replaced as a whole.
    pub(super) fn put(&mut self, layer: Layer) {
        for (section, value) in layer.table {
            match (self.table.get_mut(&section), value) {
                (Some(Value::Table(old)), Value::Table(new)) => old.extend(new),
                (_, value) => {
                    self.sources
                        .retain(|key, _| !key.starts_with(&format!("{section}[")));
                    self.table.insert(section, value);
                }
            }
        }
        self.sources.extend(layer.places);
    }

    /// Where a key was set.
    fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default)
    }

    pub(super) fn finish(mut self, dev: bool) -> Result<Loaded, Error> {
        self.follow();
        let mut wrong = check::bounds(&self.table, &|key| self.source(key));
        // One that is told of already is not told of again.
        let mistyped = self.mistyped().into_iter();
        let told: Vec<_> = wrong.iter().map(|one| one.key().to_owned()).collect();
        wrong.extend(mistyped.filter(|one| !told.iter().any(|key| key == one.key())));
        Error::of_all(wrong)?;
        let config = self.read(dev)?;
        check::relations(&config, &|key| self.source(key))?;
        let mut table = self.table;
        complete(&mut table);
        Ok(Loaded {
            config,
            table,
            sources: self.sources,
        })
    }

    /// Lets limits that nobody chose follow those that somebody did, where one bounds the other.
    fn follow(&mut self) {
        for (follower, leader, follow) in FOLLOWERS {
            let source = self.source(&format!("limits.{leader}"));
            let follower_key = format!("limits.{follower}");
            if !source.is_chosen() || self.source(&follower_key).is_chosen() {
                continue;
            }
            if let Some(Value::Table(limits)) = self.table.get_mut("limits")
                && follow.apply(limits, follower, leader)
            {
                self.sources.insert(follower_key, source);
            }
        }
    }

    /// Every value of the wrong type: reading a section whole would tell of the first alone.
    fn mistyped(&self) -> Vec<Error> {
        let mut wrong = Vec::new();
        let mut each = |section: &str, path: &str, table: &Table| {
            for (key, value) in table {
                let alone = Value::Table(Table::from_iter([(key.clone(), value.clone())]));
                let is_limit = !own_defaults(section).contains_key(key);
                let read = match section {
                    _ if is_limit => self.value::<Limits>(path, alone).map(drop),
                    "server" => self.value::<ServerSection>(path, alone).map(drop),
                    "shard" => self.value::<ShardSection>(path, alone).map(drop),
                    "auth" => self.value::<AuthSection>(path, alone).map(drop),
                    "relay" => self.value::<RelaySection>(path, alone).map(drop),
                    "durable" => self.value::<DurableSection>(path, alone).map(drop),
                    "mount" => self.value::<MountSection>(path, alone).map(drop),
                    "socketio" => self.value::<SocketIoSection>(path, alone).map(drop),
                    "tls" => self.value::<TlsSection>(path, alone).map(drop),
                    "admin" => self.value::<AdminSection>(path, alone).map(drop),
                    "log" => self.value::<LogSection>(path, alone).map(drop),
                    _ => self.value::<Limits>(path, alone).map(drop),
                };
                wrong.extend(read.err());
            }
        };
        for (section, value) in &self.table {
            match value {
                Value::Table(table) => each(section, section, table),
                Value::Array(entries) => {
                    for (index, entry) in entries.iter().enumerate() {
                        if let Value::Table(table) = entry {
                            each(section, &format!("{section}[{index}]"), table);
                        }
                    }
                }
                _ => {}
            }
        }
        wrong
    }

    fn read(&self, dev: bool) -> Result<Config, Error> {
        let limits: Limits = self.section("limits", "limits", self.table.get("limits"))?;
        let mut mounts = Vec::new();
        let mut relay = None;
        if let Some(value) = self.table.get("relay") {
            let section = self.section("relay", "relay", Some(value))?;
            mounts.push(sections::relay_mount(
                &section,
                self.limits_in("relay", value)?,
            ));
            relay = Some(section);
        }
        let durable: DurableSection =
            self.section("durable", "durable", self.table.get("durable"))?;
        if let (true, Some(value)) = (durable.enabled, self.table.get("durable")) {
            mounts.push(sections::durable_mount(
                &durable,
                self.limits_in("durable", value)?,
            ));
        }
        mounts.extend(self.declared()?);
        let own = self.table.get("socketio");
        let mut limited = own.cloned().unwrap_or_else(|| Value::Table(Table::new()));
        if let Value::Table(table) = &mut limited {
            for (key, value) in sections::SOCKETIO_LIMITS {
                table.entry(key).or_insert(Value::Integer(value));
            }
        }
        Ok(Config {
            server: self.section("server", "server", self.table.get("server"))?,
            shard: self.section("shard", "shard", self.table.get("shard"))?,
            auth: self.section("auth", "auth", self.table.get("auth"))?,
            limits,
            relay,
            durable,
            socketio: self.section("socketio", "socketio", own)?,
            socketio_limits: self.limits_in("socketio", &limited)?,
            mounts,
            tls: self.section("tls", "tls", self.table.get("tls"))?,
            admin: self.section("admin", "admin", self.table.get("admin"))?,
            log: self.section("log", "log", self.table.get("log"))?,
            dev,
        })
    }

    /// The entries `[[mount]]`.
    fn declared(&self) -> Result<Vec<MountConfig>, Error> {
        let mount = |(index, value): (usize, &Value)| {
            let path = format!("mount[{index}]");
            let section: MountSection = self.section("mount", &path, Some(value))?;
            Ok(MountConfig::new(section, self.limits_in(&path, value)?))
        };
        match self.table.get("mount") {
            None => Ok(Vec::new()),
            Some(Value::Array(entries)) => entries.iter().enumerate().map(mount).collect(),
            Some(single) => self
                .value::<Vec<MountSection>>("mount", single.clone())
                .map(|_| Vec::new()),
        }
    }

    /// A section without the limits that may stand in it.
    fn section<S: Section + DeserializeOwned>(
        &self,
        name: &str,
        path: &str,
        value: Option<&Value>,
    ) -> Result<S, Error> {
        let own = own_defaults(name);
        let value = match value {
            Some(Value::Table(table)) => {
                let owned = table.iter().filter(|(key, _)| own.contains_key(*key));
                Value::Table(
                    owned
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect(),
                )
            }
            // A list would be taken for the fields in their order.
            Some(other) => Value::Table(self.value(path, other.clone())?),
            None => Value::Table(own),
        };
        self.value(path, value)
    }

    /// The limits of the server with those that stand in the section of a mount.
    fn limits_in(&self, path: &str, value: &Value) -> Result<Limits, Error> {
        let own = own_defaults("limits");
        let mut limits = match self.table.get("limits") {
            Some(Value::Table(limits)) => limits.clone(),
            _ => own.clone(),
        };
        if let Value::Table(table) = value {
            let overrides = table.iter().filter(|(key, _)| own.contains_key(*key));
            limits.extend(overrides.map(|(key, value)| (key.clone(), value.clone())));
            for (follower, leader, follow) in FOLLOWERS {
                if table.contains_key(*leader) && !table.contains_key(*follower) {
                    follow.apply(&mut limits, follower, leader);
                }
            }
        }
        self.value(path, Value::Table(limits))
    }

    fn value<T: DeserializeOwned>(&self, path: &str, value: Value) -> Result<T, Error> {
        serde_path_to_error::deserialize(value).map_err(|error| {
            let key = match error.path().to_string() {
                whole if whole == "." => path.to_owned(),
                inner => format!("{path}.{inner}"),
            };
            let key_of_list = key.split('[').next().unwrap_or(&key);
            let place = match self.sources.get(&key) {
                Some(place) => place.clone(),
                None => self.source(key_of_list),
            };
            Error::Value {
                place,
                key,
                fault: Box::new(error.into_inner()),
            }
        })
    }
}

/// How a limit that nobody chose keeps to the one that bounds it.
#[derive(Debug, Clone, Copy)]
enum Follow {
    /// It is the same.
    Equal,
    /// It is not above it.
    AtMost,
}

impl Follow {
    /// Tells whether the follower changed.
    fn apply(self, limits: &mut Table, follower: &str, leader: &str) -> bool {
        let (Some(Value::Integer(old)), Some(Value::Integer(bound))) =
            (limits.get(follower), limits.get(leader))
        else {
            return false;
        };
        let new = match self {
            Self::Equal => *bound,
            Self::AtMost => *old.min(bound),
        };
        let changed = new != *old;
        limits.insert(follower.to_owned(), Value::Integer(new));
        changed
    }
}

/// Follower and leader: who raises `message_bytes_max` means frames of that size too, and who
/// lowers `head_bytes_max` need not know what stands in a head.
const FOLLOWERS: &[(&str, &str, Follow)] = &[
    ("frame_bytes_max", "message_bytes_max", Follow::Equal),
    ("event_bytes_max", "message_bytes_max", Follow::AtMost),
    ("uri_bytes_max", "head_bytes_max", Follow::AtMost),
    ("token_bytes_max", "uri_bytes_max", Follow::AtMost),
];

/// Puts the defaults into sections that exist only when they are named.
fn complete(table: &mut Table) {
    let fill = |value: &mut Value, section: &str| {
        if let Value::Table(table) = value {
            for (key, default) in own_defaults(section) {
                table.entry(key).or_insert(default);
            }
        }
    };
    if let Some(relay) = table.get_mut("relay") {
        fill(relay, "relay");
    }
    if let Some(Value::Array(entries)) = table.get_mut("mount") {
        entries.iter_mut().for_each(|entry| fill(entry, "mount"));
    }
}
