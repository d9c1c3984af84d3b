//! Where values come from: defaults, `--dev`, a profile, a file, the environment, flags, each
//! stronger than the one before it; and for each value, which of them set it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::error::{Error, Source, nearest};
use super::limits::Limits;
use super::merge::Merged;
use super::section::Section;
use super::sections::MountSection;
use super::units;
use super::{
    AdminSection, AuthSection, Config, DurableSection, LogSection, RelaySection, ServerSection,
    ShardSection, SocketIoSection, TlsSection,
};

/// The profiles that the program comes with: complete files, the same as in `tuning/profiles`.
pub const PROFILES: &[(&str, &str)] = &[
    ("dev", include_str!("../../tuning/profiles/dev.toml")),
    (
        "default",
        include_str!("../../tuning/profiles/default.toml"),
    ),
    (
        "latency",
        include_str!("../../tuning/profiles/latency.toml"),
    ),
    (
        "throughput",
        include_str!("../../tuning/profiles/throughput.toml"),
    ),
    ("edge", include_str!("../../tuning/profiles/edge.toml")),
    (
        "million",
        include_str!("../../tuning/profiles/million.toml"),
    ),
    (
        "backend",
        include_str!("../../tuning/profiles/backend.toml"),
    ),
    (
        "conformance",
        include_str!("../../tuning/profiles/conformance.toml"),
    ),
];

/// What a configuration is made of.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--dev`.
    pub dev: bool,
    /// The name of a profile.
    pub profile: Option<String>,
    /// A file.
    pub file: Option<PathBuf>,
    /// The environment: all of it, variables of others are passed over.
    pub environment: Vec<(String, String)>,
    /// What the command line sets.
    pub flags: Vec<Flag>,
}

/// One value of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// How it is written there, such as `--listen`.
    pub name: &'static str,
    /// The key that it sets, such as `server.listen`.
    pub key: &'static str,
    /// The value.
    pub value: String,
}

/// A configuration, and where each of its values comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The value.
    pub config: Config,
    /// All values as they would stand in one file.
    pub table: Table,
    /// Which layer set each key, by its path such as `limits.frame_bytes_max`.
    pub sources: BTreeMap<String, Source>,
}

impl Sources {
    /// Only the environment of this process.
    pub fn of_process() -> Self {
        // A variable that is not Unicode cannot be one of ours.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            environment: std::env::vars_os().filter_map(text).collect(),
            ..Self::default()
        }
    }

    /// A variable of the environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let found = self
            .environment
            .iter()
            .rfind(|(candidate, _)| candidate == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Puts all layers on each other and checks the result.
    pub fn load(&self) -> Result<Loaded, Error> {
        let mut merged = Merged::new();
        let mut wrong: Vec<Error> = Vec::new();
        if self.dev {
            merged.put(Layer::of_value(
                "relay",
                Value::Table(Table::new()),
                Source::Dev,
            ));
        }
        if let Some(name) = &self.profile {
            merged.put(Layer::of_profile(name)?);
        }
        let file = self.file.iter().map(|path| Layer::of_file(path));
        let environment = self.environment.iter().filter_map(|(name, value)| {
            if let Some(meant) = near_miss(name) {
                let name = name.clone();
                return Some(Err(Error::NearMiss { name, meant }));
            }
            let place = Source::Environment(name.clone());
            Some(Layer::of_text(&key_of_variable(name)?, value, place))
        });
        let flags = self.flags.iter().map(|flag| {
            let source = Source::Flag(flag.name.to_owned());
            Layer::of_text(flag.key, &flag.value, source)
        });
        for layer in file.chain(environment).chain(flags) {
            match layer {
                Ok(layer) => merged.put(layer),
                Err(error) => wrong.push(error),
            }
        }
        match merged.finish(self.dev) {
            Ok(loaded) => Error::of_all(wrong).map(|()| loaded),
            Err(error) => {
                wrong.push(error);
                Err(Error::several(wrong))
            }
        }
    }
}

/// `TIDEGATE_SECTION__KEY` is `section.key`. What has no double underscore is no key: platforms
/// set variables such as `TIDEGATE_SERVICE_HOST` for a service of this name.
fn key_of_variable(name: &str) -> Option<String> {
    let (section, key) = name.strip_prefix("TIDEGATE_")?.split_once("__")?;
    Some(format!("{}.{}", section.to_lowercase(), key.to_lowercase()))
}

/// The variable that somebody means by one that sets nothing: `TIDEGATE_LISTEN`,
/// `TIDEGATE_SERVER_LISTEN`. What platforms set for a service of this name is not among them.
fn near_miss(name: &str) -> Option<String> {
    let rest = name.strip_prefix("TIDEGATE_")?;
    if rest.contains("__") || OTHER_VARIABLES.contains(&rest) {
        return None;
    }
    let rest = rest.to_lowercase();
    let keys = SECTIONS.iter().filter(|section| **section != "mount");
    let keys = keys.flat_map(|section| {
        let own = own_defaults(section).into_iter();
        own.map(move |(key, _)| (*section, key))
    });
    let is_it = |(section, key): &(&str, String)| {
        rest == *key
            || rest
                .strip_prefix(section)
                .and_then(|rest| rest.strip_prefix('_'))
                == Some(key)
    };
    let (section, key) = keys.into_iter().find(is_it)?;
    let variable = format!("TIDEGATE_{section}__{key}");
    Some(variable.to_uppercase())
}

/// What the program reads beside keys, without its prefix.
const OTHER_VARIABLES: &[&str] = &["CONFIG", "PROFILE", "JWT_SECRET", "URL", "TOKEN"];

/// The names of all profiles, for a message.
pub(super) fn profile_names() -> String {
    PROFILES
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The values of one layer and the place of each.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) table: Table,
    pub(super) places: BTreeMap<String, Source>,
}

impl Layer {
    fn of_profile(name: &str) -> Result<Self, Error> {
        let found = PROFILES.iter().find(|(candidate, _)| *candidate == name);
        let (_, text) = found.ok_or_else(|| Error::no_profile(name))?;
        Self::of_toml(text, &|line| Source::Profile(name.to_owned(), line))
    }

    fn of_file(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::of_toml(&text, &|line| Source::File(path.to_owned(), line))
    }

    fn of_toml(text: &str, source_at: &dyn Fn(usize) -> Source) -> Result<Self, Error> {
        let syntax = |source: toml::de::Error| {
            let at = source.span().map_or(0, |span| span.start);
            Error::Syntax {
                place: source_at(line_of(text, at)),
                fault: Box::new(source),
            }
        };
        let tree = DeTable::parse(text).map_err(syntax)?;
        let table = text.parse::<Table>().map_err(syntax)?;
        let mut places = BTreeMap::new();
        collect_places(
            tree.get_ref(),
            "",
            &|at| source_at(line_of(text, at)),
            &mut places,
        );
        let mut layer = Self { table, places };
        layer.read_units();
        layer.check_keys()?;
        Ok(layer)
    }

    /// One value of the environment or of a flag, read as the type of its key.
    fn of_text(key: &str, text: &str, place: Source) -> Result<Self, Error> {
        let (section, name) = key.split_once('.').unwrap_or((key, ""));
        if section == "mount" {
            return Err(Error::MountOutsideFile { place });
        }
        let value = typed(name, text, schema_of(section).get(name));
        let layer = Self::of_value(key, value, place);
        layer.check_keys()?;
        Ok(layer)
    }

    /// Texts where numbers belong are numbers with a unit.
    fn read_units(&mut self) {
        for (section, value) in &mut self.table {
            let schema = schema_of(section);
            let tables: Vec<&mut Table> = match value {
                Value::Table(table) => vec![table],
                Value::Array(entries) => {
                    entries.iter_mut().filter_map(Value::as_table_mut).collect()
                }
                _ => Vec::new(),
            };
            for (key, value) in tables.into_iter().flatten() {
                if let (Value::String(text), Some(Value::Integer(_))) = (&*value, schema.get(key))
                    && let Some(number) = units::parse(key, text)
                {
                    *value = Value::Integer(number);
                }
            }
        }
    }

    fn of_value(key: &str, value: Value, place: Source) -> Self {
        let table = match key.split_once('.') {
            Some((section, name)) => {
                let inner = Table::from_iter([(name.to_owned(), value)]);
                Table::from_iter([(section.to_owned(), Value::Table(inner))])
            }
            None => Table::from_iter([(key.to_owned(), value)]),
        };
        Self {
            table,
            places: BTreeMap::from([(key.to_owned(), place)]),
        }
    }

    /// Each key must be one that something reads.
    fn check_keys(&self) -> Result<(), Error> {
        let mut wrong = Vec::new();
        for (section, value) in &self.table {
            if !SECTIONS.contains(&section.as_str()) {
                wrong.push(self.unknown(section, section, SECTIONS.iter().copied()));
                continue;
            }
            match value {
                Value::Table(table) => self.check_section(section, section, table, &mut wrong),
                Value::Array(entries) => {
                    for (index, entry) in entries.iter().enumerate() {
                        if let Value::Table(table) = entry {
                            let path = format!("{section}[{index}]");
                            self.check_section(section, &path, table, &mut wrong);
                        }
                    }
                }
                // A plain value where a section belongs: its type is refused when it is read.
                _ => {}
            }
        }
        Error::of_all(wrong)
    }

    fn check_section(&self, section: &str, path: &str, table: &Table, wrong: &mut Vec<Error>) {
        let schema = schema_of(section);
        for name in table.keys().filter(|name| !schema.contains_key(*name)) {
            let candidates = schema.keys().map(String::as_str);
            wrong.push(self.unknown(&format!("{path}.{name}"), name, candidates));
        }
    }

    fn unknown<'a>(
        &self,
        path: &str,
        name: &str,
        candidates: impl Iterator<Item = &'a str>,
    ) -> Error {
        // A variable or a flag names a key, of which a section that there is not is only a part.
        let inside = |key: &str| {
            key.strip_prefix(path)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        let place = self.places.get(path).or_else(|| {
            let of_key = self.places.iter().find(|(key, _)| inside(key));
            of_key.map(|(_, place)| place)
        });
        let place = place.cloned().unwrap_or(Source::Default);
        Error::UnknownKey {
            place,
            key: path.to_owned(),
            nearest: nearest(name, candidates),
        }
    }
}

/// The sections in the order in which they are written.
pub(super) const SECTIONS: &[&str] = &[
    "server", "tls", "shard", "auth", "limits", "relay", "durable", "socketio", "mount", "admin",
    "log",
];

/// All keys that may stand in a section, with their defaults. A section that makes a mount may
/// hold any limit too.
pub(super) fn schema_of(section: &str) -> Table {
    let with_limits = |own: Table| {
        let mut table = defaults::<Limits>();
        table.extend(own);
        table
    };
    match section {
        "relay" => with_limits(defaults::<RelaySection>()),
        "durable" => with_limits(defaults::<DurableSection>()),
        "socketio" => with_limits(defaults::<SocketIoSection>()),
        "mount" => with_limits(defaults::<MountSection>()),
        _ => own_defaults(section),
    }
}

/// The keys of a section itself, with their defaults.
pub(super) fn own_defaults(section: &str) -> Table {
    match section {
        "server" => defaults::<ServerSection>(),
        "tls" => defaults::<TlsSection>(),
        "shard" => defaults::<ShardSection>(),
        "auth" => defaults::<AuthSection>(),
        "limits" => defaults::<Limits>(),
        "relay" => defaults::<RelaySection>(),
        "durable" => defaults::<DurableSection>(),
        "socketio" => defaults::<SocketIoSection>(),
        "mount" => defaults::<MountSection>(),
        "admin" => defaults::<AdminSection>(),
        "log" => defaults::<LogSection>(),
        _ => Table::new(),
    }
}

fn defaults<S: Section + Default + Serialize>() -> Table {
    // The defaults are constants: a test parses all of them.
    Table::try_from(S::default()).unwrap_or_default()
}

/// A text as the type that the default of its key has. What does not fit stays a text, and is
/// refused with the expected type when it is read.
fn typed(name: &str, text: &str, default: Option<&Value>) -> Value {
    let parsed = match default {
        Some(Value::Integer(_)) => units::parse(name, text).map(Value::Integer),
        Some(Value::Boolean(_)) => text.parse().ok().map(Value::Boolean),
        Some(Value::Array(_)) => Some(list_of(text)),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn list_of(text: &str) -> Value {
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    1 + before.filter(|byte| **byte == b'\n').count()
}

fn collect_places(
    table: &DeTable<'_>,
    prefix: &str,
    source_at: &dyn Fn(usize) -> Source,
    places: &mut BTreeMap<String, Source>,
) {
    for (name, value) in table.iter() {
        let path = match prefix {
            "" => name.get_ref().to_string(),
            _ => format!("{prefix}.{}", name.get_ref()),
        };
        places.insert(path.clone(), source_at(name.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => collect_places(inner, &path, source_at, places),
            DeValue::Array(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    if let DeValue::Table(inner) = Spanned::get_ref(entry) {
                        collect_places(inner, &format!("{path}[{index}]"), source_at, places);
                    }
                }
            }
            _ => {}
        }
    }
}
