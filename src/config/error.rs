//! What can be wrong with a configuration: each error names the place, the value, what is
//! allowed, and where there is one the line that mends it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Which layer set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody: it is what the program comes with.
    Default,
    /// `--dev`.
    Dev,
    /// A profile that the program comes with, and the line.
    Profile(String, usize),
    /// A file, and the line.
    File(PathBuf, usize),
    /// A variable of the environment.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl Source {
    /// Somebody who runs this server chose the value; it is none that the program comes with.
    pub fn is_chosen(&self) -> bool {
        matches!(self, Self::File(..) | Self::Environment(_) | Self::Flag(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Dev => f.write_str("--dev"),
            Self::Profile(name, line) => write!(f, "profile {name}:{line}"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    clippy::error_impl_error,
    reason = "its module names it at each use: config::Error"
)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}; name another with --config or leave the flag out", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such profile.
    #[error("there is no profile `{name}`{}; there are: {}", Hint(nearest.as_deref()), super::layers::profile_names())]
    Profile {
        /// What was asked for.
        name: String,
        /// What it resembles.
        nearest: Option<String>,
    },
    /// A file is no TOML.
    #[error("{place}: {}", one_line(fault.message()))]
    Syntax {
        /// Where.
        place: Source,
        /// Why.
        fault: Box<toml::de::Error>,
    },
    /// A key that nothing reads.
    #[error("{place}: unknown key `{key}`{}", Hint(nearest.as_deref()))]
    UnknownKey {
        /// Where.
        place: Source,
        /// The key with its section.
        key: String,
        /// What it resembles.
        nearest: Option<String>,
    },
    /// A variable that sets nothing, but looks as if it should.
    #[error("{name}: sets nothing; write {meant}, or take the variable away")]
    NearMiss {
        /// As it is.
        name: String,
        /// As it should be.
        meant: String,
    },
    /// Several mistakes.
    #[error("{}", several.iter().map(Self::to_string).collect::<Vec<_>>().join("; "))]
    Several {
        /// Each of them, in the order of the layers.
        several: Vec<Self>,
    },
    /// A list of mounts can only be written in a file.
    #[error("{place}: `mount` is a list of tables, which only a file can hold")]
    MountOutsideFile {
        /// Where.
        place: Source,
    },
    /// A value of the wrong type, or one that is not among the choices.
    #[error("{place}: `{key}`: {}", plain(key, fault.message()))]
    Value {
        /// Where.
        place: Source,
        /// The key with its section.
        key: String,
        /// Why, with what is allowed.
        fault: Box<toml::de::Error>,
    },
    /// A number outside its bounds.
    #[error("{place}: {key} = {value} is outside {least} to {most}")]
    Bounds {
        /// Where.
        place: Source,
        /// The key with its section.
        key: String,
        /// What was given.
        value: i64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// Two values that do not go together.
    #[error("{place}: {key} = {value} must not be above {bound_key} = {bound}: {because}")]
    Relation {
        /// Where the smaller should be.
        place: Source,
        /// The one that is too large.
        key: String,
        /// Its value.
        value: u64,
        /// The one that bounds it.
        bound_key: String,
        /// Its value.
        bound: u64,
        /// Why they hang together.
        because: &'static str,
    },
    /// A size that has to be a power of two.
    #[error("{place}: {key} = {value} is no power of two; write {next}")]
    PowerOfTwo {
        /// Where.
        place: Source,
        /// The key with its section.
        key: String,
        /// What was given.
        value: u64,
        /// The next power of two.
        next: u64,
    },
    /// Two mounts on one path.
    #[error("two mounts on `{path}`: {first} and {second}; give one of them another path")]
    SamePath {
        /// The path.
        path: String,
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// A path that no request can have.
    #[error(
        "{place}: path `{path}` of {mount} must begin with `/` and have no `/` at its end, no `?`, `#` or white space; write `{better}`"
    )]
    Path {
        /// Where.
        place: Source,
        /// Which mount.
        mount: String,
        /// What was given.
        path: String,
        /// What may be meant.
        better: String,
    },
    /// A raw mount whose handler is missing, or a handler where none is asked for.
    #[error("{place}: {mount}: {reason}")]
    Handler {
        /// Where.
        place: Source,
        /// Which mount.
        mount: String,
        /// What is wrong, with what to write.
        reason: &'static str,
    },
    /// An origin that no browser sends.
    #[error(
        "{place}: auth.allowed_origins has `{origin}`, which is not of the form scheme://host or scheme://host:port"
    )]
    Origin {
        /// Where.
        place: Source,
        /// What was given.
        origin: String,
    },
    /// A level of the log that is none.
    #[error("{place}: {source}")]
    Log {
        /// Where.
        place: Source,
        /// Why, with what is allowed.
        source: crate::logging::LogError,
    },
    /// Development mode is for this machine alone.
    #[error(
        "{place}: --dev serves loopback addresses only, {key} = {address} is none; listen on 127.0.0.1 or leave --dev out"
    )]
    DevAddress {
        /// Where.
        place: Source,
        /// The key with its section.
        key: &'static str,
        /// What was given.
        address: std::net::SocketAddr,
    },
    /// The listener for operators asks for no token, so others must not reach it by mistake.
    #[error(
        "{place}: admin.listen = {address} is reached by other machines and asks for no token; listen on 127.0.0.1, or write admin.allow_remote = true"
    )]
    AdminAddress {
        /// Where.
        place: Source,
        /// What was given.
        address: std::net::SocketAddr,
    },
    /// Keys of `[tls]` that do not go together.
    #[error("{place}: {reason}")]
    Tls {
        /// Where.
        place: Source,
        /// Why not, and what to write.
        reason: &'static str,
    },
    /// No secret is given.
    #[error(
        "no secret to verify tokens with: set TIDEGATE_JWT_SECRET or auth.jwt_secret_file (head -c 32 /dev/urandom | base64) or auth.public_key_files, or try --dev"
    )]
    SecretMissing,
    /// A secret that could be guessed.
    #[error(
        "the secret of {from} has {bytes} bytes, at least {} are needed",
        crate::auth::SECRET_BYTES_MIN
    )]
    SecretShort {
        /// The variable or the file.
        from: String,
        /// Its length.
        bytes: usize,
    },
    /// A secret that everybody on the machine can read.
    #[error("{} is readable by everybody (mode {mode:o}): chmod 600 {}", path.display(), path.display())]
    SecretReadable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A key that anybody could replace by their own.
    #[error("{} is writable by everybody (mode {mode:o}): chmod 644 {}", path.display(), path.display())]
    KeyWritable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file of auth.public_key_files without a key that can be used.
    #[error("auth.public_key_files: {} cannot be used", path.display())]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: crate::auth::PublicKeyError,
    },
    /// The keys were not accepted.
    #[error("the keys of [auth] cannot be used")]
    Keys {
        /// Why.
        #[from]
        source: crate::auth::KeyError,
    },
}

impl Error {
    /// Nothing, one mistake, or several.
    pub(super) fn of_all(wrong: Vec<Self>) -> Result<(), Self> {
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Self::several(wrong)),
        }
    }

    /// One or several.
    pub(super) fn several(wrong: Vec<Self>) -> Self {
        let mut all: Vec<Self> = wrong.into_iter().flat_map(Self::each).collect();
        match all.len() {
            1 => all.remove(0),
            _ => Self::Several { several: all },
        }
    }

    /// The key of a value that is wrong by itself.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Value { key, .. } | Self::Bounds { key, .. } => key,
            _ => "",
        }
    }

    fn each(self) -> Vec<Self> {
        match self {
            Self::Several { several } => several,
            one => vec![one],
        }
    }

    /// Each mistake by itself.
    pub fn all(&self) -> &[Self] {
        match self {
            Self::Several { several } => several,
            one => std::slice::from_ref(one),
        }
    }

    /// There is no profile of this name.
    pub fn no_profile(name: &str) -> Self {
        let names = super::layers::PROFILES
            .iter()
            .map(|(candidate, _)| *candidate);
        Self::Profile {
            name: name.to_owned(),
            nearest: nearest(name, names),
        }
    }
}

/// What the parser says, on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the parser says of a value, in words of the configuration and not of the language that it
/// is read by.
fn plain(key: &str, text: &str) -> String {
    let text = one_line(text);
    if text.contains("invalid socket address") {
        return "this is not an address: write IP:PORT, such as 127.0.0.1:4000; names are not looked up"
            .to_owned();
    }
    let Some((found, wanted)) = text.rsplit_once(", expected ") else {
        return text;
    };
    let of_rust = ["usize", "u8", "u16", "u32", "u64", "i64", "f64"];
    let wanted = match wanted {
        "a boolean" => "true or false",
        "a sequence" => "a list, such as [\"a\", \"b\"]",
        number if of_rust.contains(&number) => super::units::example(key),
        other => other,
    };
    format!("{found}, expected {wanted}")
}

/// What a misspelt name resembles, as an addition to a message.
struct Hint<'a>(Option<&'a str>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, ", did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

/// The candidate that `name` most resembles, if it does so at all.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| LIKENESS_MIN <= *likeness)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

/// Below this a hint would mislead more often than help.
const LIKENESS_MIN: f64 = 0.7;
