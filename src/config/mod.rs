//! The configuration: one valid value, or an error that says where and what to write instead.
//! Parsing is checking. Reads files and an environment that it is handed; knows no clock, no
//! socket and nothing of what the values are for.

pub mod limits;

pub mod network;

pub mod sections;

pub mod section;

pub mod layers;

pub mod error;

pub mod secret;

pub mod text;

pub mod setting;

mod merge;

mod units;

mod check;

#[cfg(test)]
mod tests;

pub use error::{Error, Source};
pub use layers::{Loaded, Sources};
pub use limits::Limits;
pub use network::Network;
pub use sections::{
    AdminSection, AuthSection, BindSubNames, Carrier, CertificateFiles, Dialect, DurableSection,
    Fsync, LogFormat, LogSection, MountConfig, OnDuplicate, RelaySection, RestPush, RightsChoice,
    ServerSection, ShardSection, SocketIoSection, Tenants, TlsSection, TlsVersion, Transport,
    Unhandled, UnknownName,
};

/// Everything that a server is told at its start. No global: whoever needs a part is given it.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Section `[server]`.
    pub server: ServerSection,
    /// Section `[shard]`.
    pub shard: ShardSection,
    /// Section `[auth]`.
    pub auth: AuthSection,
    /// Section `[limits]`: for mounts that the file does not name, and for what is no mount.
    pub limits: Limits,
    /// Section `[relay]`, if it stands in the file.
    pub relay: Option<RelaySection>,
    /// Section `[durable]`.
    pub durable: DurableSection,
    /// Section `[socketio]`.
    pub socketio: SocketIoSection,
    /// The limits of its mounts.
    pub socketio_limits: Limits,
    /// All mounts that the configuration makes: the relay, the durable one, each `[[mount]]`.
    /// An entry of dialect "event" makes none, it sets limits for the gateway on its path.
    pub mounts: Vec<MountConfig>,
    /// Section `[tls]`.
    pub tls: TlsSection,
    /// Section `[admin]`.
    pub admin: AdminSection,
    /// Section `[log]`.
    pub log: LogSection,
    /// Development: loopback only, an ephemeral secret, no role asked for.
    pub dev: bool,
}

impl Config {
    /// The configuration of all sources.
    pub fn load(sources: &Sources) -> Result<Self, Error> {
        sources.load().map(|loaded| loaded.config)
    }

    /// What `--dev` gives where nothing else is said.
    pub fn dev() -> Self {
        let limits = Limits::default();
        let relay = RelaySection::default();
        let durable = DurableSection::default();
        Self {
            mounts: vec![
                sections::relay_mount(&relay, limits.clone()),
                sections::durable_mount(&durable, limits.clone()),
            ],
            server: ServerSection::default(),
            shard: ShardSection::default(),
            auth: AuthSection::default(),
            socketio: SocketIoSection::default(),
            socketio_limits: sections::socketio_limits(&limits),
            limits,
            relay: Some(relay),
            durable,
            tls: TlsSection::default(),
            admin: AdminSection::default(),
            log: LogSection::default(),
            dev: true,
        }
    }

    /// Mounts the relay as `relay` says, in place of what was said before.
    pub fn set_relay(&mut self, relay: RelaySection) {
        self.mounts.retain(|mount| mount.dialect != Dialect::Relay);
        let mount = sections::relay_mount(&relay, self.limits.clone());
        self.mounts.push(mount);
        self.relay = Some(relay);
    }

    /// The limits that hold on `path`: those of its mount, else those of the server.
    pub fn limits_of(&self, path: &str) -> &Limits {
        let mount = self.mounts.iter().find(|mount| mount.path == path);
        mount.map_or(&self.limits, |mount| &mount.limits)
    }
}

/// A key that may be absent is written as "", so that a complete file can show it.
mod text_or_none {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T, S>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize,
        S: Serializer,
    {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(D::Error::custom)
    }
}
