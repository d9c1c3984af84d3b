//! What must hold between values that are fine each by itself. Knows where a value was set only
//! through the function that it is handed.

use std::net::SocketAddr;

use toml::{Table, Value};

use super::error::{Error, Source};
use super::limits::Limits;
use super::section::{Key, Section};
use super::sections::{
    AdminSection, AuthSection, Dialect, DurableSection, LogSection, MountSection, RelaySection,
    ServerSection, ShardSection, SocketIoSection, TlsSection,
};
use super::{Config, MountConfig};
use crate::auth::Origin;

/// Tells which layer set a key.
pub(super) type SourceOf<'a> = &'a dyn Fn(&str) -> Source;

/// Each number is within the bounds that its key declares.
pub(super) fn bounds(table: &Table, source_of: SourceOf<'_>) -> Vec<Error> {
    let mut wrong = Vec::new();
    for (section, value) in table {
        match value {
            Value::Table(values) => {
                wrong.extend(section_bounds(section, section, values, source_of));
            }
            Value::Array(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    if let Value::Table(values) = entry {
                        let path = format!("{section}[{index}]");
                        wrong.extend(section_bounds(section, &path, values, source_of));
                    }
                }
            }
            _ => {}
        }
    }
    wrong
}

fn section_bounds(
    section: &str,
    path: &str,
    values: &Table,
    source_of: SourceOf<'_>,
) -> Vec<Error> {
    let mut wrong = Vec::new();
    for key in keys_of(section) {
        let (Some((least, most)), Some(Value::Integer(value))) = (key.bounds, values.get(key.name))
        else {
            continue;
        };
        let within = u64::try_from(*value).is_ok_and(|value| least <= value && value <= most);
        if !within {
            let key = format!("{path}.{}", key.name);
            wrong.push(Error::Bounds {
                place: source_of(&key),
                key,
                value: *value,
                least,
                most,
            });
        }
    }
    wrong
}

/// The declared keys of a section; those of the limits too where they may stand in it.
pub(super) fn keys_of(section: &str) -> Vec<Key> {
    let own: &[Key] = match section {
        "server" => ServerSection::KEYS,
        "tls" => TlsSection::KEYS,
        "shard" => ShardSection::KEYS,
        "auth" => AuthSection::KEYS,
        "limits" => Limits::KEYS,
        "relay" => RelaySection::KEYS,
        "durable" => DurableSection::KEYS,
        "socketio" => SocketIoSection::KEYS,
        "mount" => MountSection::KEYS,
        "admin" => AdminSection::KEYS,
        "log" => LogSection::KEYS,
        _ => &[],
    };
    let limits: &[Key] = match section {
        "relay" | "durable" | "socketio" | "mount" => Limits::KEYS,
        _ => &[],
    };
    own.iter().chain(limits).copied().collect()
}

/// Everything that two values or more must keep together.
pub(super) fn relations(config: &Config, source_of: SourceOf<'_>) -> Result<(), Error> {
    let mut held = vec![limit_relations("limits", &config.limits, source_of)];
    // A mount inherits the limits of the server, and their mistakes are told once.
    let inherits = held.iter().all(Result::is_ok);
    held.push(limit_relations(
        "socketio",
        &config.socketio_limits,
        source_of,
    ));
    for mount in named_mounts(config) {
        let limits = &mount.config.limits;
        if inherits {
            held.push(limit_relations(&mount.section, limits, source_of));
        }
        if mount.config.dialect == Dialect::Durable {
            held.push(durable_relations(
                config,
                (&mount.section, limits),
                source_of,
            ));
        }
        held.push(mount_shape(&mount, config, source_of));
    }
    held.extend([
        same_paths(config),
        powers_of_two(config, source_of),
        origins(config, source_of),
        log_level(config, source_of),
        admin_address(config, source_of),
        tls_certificates(config, source_of),
        dev_addresses(config, source_of),
    ]);
    Error::of_all(held.into_iter().filter_map(Result::err).collect())
}

/// A value that another bounds, and why.
struct Pair {
    key: &'static str,
    value: u64,
    bound_key: &'static str,
    bound: u64,
    because: &'static str,
}

impl Pair {
    fn check(&self, section: &str, source_of: SourceOf<'_>) -> Result<(), Error> {
        if self.value <= self.bound {
            return Ok(());
        }
        let full = |name: &str| match name.contains('.') {
            true => name.to_owned(),
            false => format!("{section}.{name}"),
        };
        Err(Error::Relation {
            place: self.blamed(&full, source_of),
            key: full(self.key),
            value: self.value,
            bound_key: full(self.bound_key),
            bound: self.bound,
            because: self.because,
        })
    }

    /// The one of the two that somebody set.
    fn blamed(&self, full: &dyn Fn(&str) -> String, source_of: SourceOf<'_>) -> Source {
        match source_of(&full(self.key)) {
            Source::Default => source_of(&full(self.bound_key)),
            source => source,
        }
    }
}

fn limit_relations(section: &str, limits: &Limits, source_of: SourceOf<'_>) -> Result<(), Error> {
    let pair = |key, value, bound_key, bound, because| Pair {
        key,
        value,
        bound_key,
        bound,
        because,
    };
    let message = limits.message_bytes_max as u64;
    let pairs = [
        pair(
            "frame_bytes_max",
            limits.frame_bytes_max as u64,
            "message_bytes_max",
            message,
            "a frame is a part of a message",
        ),
        pair(
            "token_bytes_max",
            limits.token_bytes_max as u64,
            "uri_bytes_max",
            limits.uri_bytes_max as u64,
            "a token may come as ?token=",
        ),
        pair(
            "uri_bytes_max",
            limits.uri_bytes_max as u64,
            "head_bytes_max",
            limits.head_bytes_max as u64,
            "the request target stands in the head",
        ),
        pair(
            "event_bytes_max",
            limits.event_bytes_max as u64,
            "message_bytes_max",
            message,
            "the name of an event stands in the message",
        ),
        pair(
            "drain_spread_ms",
            limits.drain_spread_ms,
            "drain_ms_max",
            limits.drain_ms_max,
            "who is told last must have the time to leave",
        ),
        pair(
            "memory_refuse_percent",
            limits.memory_refuse_percent,
            "memory_close_percent",
            limits.memory_close_percent,
            "who is new is refused before who is here is ended",
        ),
    ];
    let wrong = pairs.iter().map(|pair| pair.check(section, source_of));
    Error::of_all(wrong.filter_map(Result::err).collect())
}

fn durable_relations(
    config: &Config,
    (section, limits): (&str, &Limits),
    source_of: SourceOf<'_>,
) -> Result<(), Error> {
    let durable = &config.durable;
    let own = source_of(&format!("{section}.message_bytes_max"));
    let message_key = match own {
        Source::Default => "limits.message_bytes_max",
        _ => "message_bytes_max",
    };
    let message = limits.message_bytes_max as u64;
    let beside = durable.reserve_bytes.saturating_add(SEGMENT_OWN_BYTES);
    let both = Pair {
        key: message_key,
        value: message,
        bound_key: "what durable.reserve_bytes and 16384 bytes leave of durable.segment_bytes_max",
        bound: durable.segment_bytes_max.saturating_sub(beside),
        because: "a larger message would always be refused",
    };
    let pairs = [
        Pair {
            key: message_key,
            value: message,
            bound_key: "half of durable.segment_bytes_max",
            bound: durable.segment_bytes_max / 2,
            because: "twice the largest message must fit into a segment",
        },
        Pair {
            key: "durable.reserve_bytes",
            value: durable.reserve_bytes,
            bound_key: "half of durable.segment_bytes_max",
            bound: durable.segment_bytes_max / 2,
            because: "what the reserve leaves of a segment is all that a message may take",
        },
        Pair {
            key: "durable.sync_bytes_max",
            value: durable.sync_bytes_max as u64,
            bound_key: "durable.segment_bytes_max",
            bound: durable.segment_bytes_max,
            because: "a batch lies in one segment",
        },
    ];
    let wrong = pairs.iter().map(|pair| pair.check(section, source_of));
    Error::of_all(wrong.filter_map(Result::err).collect())?;
    both.check(section, source_of)
}

/// What a segment and a record have beside the payload: heads, a name, an idempotency key.
const SEGMENT_OWN_BYTES: u64 = 16_384;

/// A mount with the words by which a message can name it.
struct NamedMount<'a> {
    config: &'a MountConfig,
    section: String,
    name: String,
}

fn named_mounts(config: &Config) -> Vec<NamedMount<'_>> {
    let built_in = usize::from(config.relay.is_some()) + usize::from(config.durable.enabled);
    let name = |(index, mount)| match (index < built_in, index == 0 && config.relay.is_some()) {
        (true, true) => NamedMount {
            config: mount,
            section: "relay".into(),
            name: "[relay]".into(),
        },
        (true, false) => NamedMount {
            config: mount,
            section: "durable".into(),
            name: "[durable]".into(),
        },
        (false, _) => {
            let number = index - built_in;
            let name = format!("[[mount]] number {}", number + 1);
            NamedMount {
                config: mount,
                section: format!("mount[{number}]"),
                name,
            }
        }
    };
    config.mounts.iter().enumerate().map(name).collect()
}

fn same_paths(config: &Config) -> Result<(), Error> {
    let mounts = named_mounts(config);
    for (index, second) in mounts.iter().enumerate() {
        let first = mounts
            .iter()
            .take(index)
            .find(|first| first.config.path == second.config.path);
        if let Some(first) = first {
            return Err(Error::SamePath {
                path: second.config.path.clone(),
                first: first.name.clone(),
                second: second.name.clone(),
            });
        }
    }
    Ok(())
}

fn mount_shape(
    mount: &NamedMount<'_>,
    config: &Config,
    source_of: SourceOf<'_>,
) -> Result<(), Error> {
    let path = &mount.config.path;
    let better = normal_path(path);
    if *path != better {
        let place = source_of(&format!("{}.path", mount.section));
        return Err(Error::Path {
            place,
            mount: mount.name.clone(),
            path: path.clone(),
            better,
        });
    }
    let reason = match (mount.config.dialect, mount.config.handler.as_deref()) {
        (Dialect::Raw, None) => "a raw mount needs a handler, write handler = \"echo\"",
        (Dialect::Durable, None) if !config.durable.enabled => {
            "durable topics are off, write durable.enabled = true or leave the mount out"
        }
        (Dialect::Raw, Some(_)) | (_, None) => return Ok(()),
        (_, Some(_)) => "only a raw mount has a handler, leave the key out",
    };
    let place = source_of(&mount.section);
    Err(Error::Handler {
        place,
        mount: mount.name.clone(),
        reason,
    })
}

/// The form of a path in which two spellings of one place are equal: a `/` in front, none at
/// the end, nothing that ends a path in a request.
pub(crate) fn normal_path(path: &str) -> String {
    let ends_path = |c: char| c == '?' || c == '#' || c.is_whitespace() || c.is_control();
    let kept: String = path.chars().take_while(|c| !ends_path(*c)).collect();
    format!("/{}", kept.trim_matches('/'))
}

fn powers_of_two(config: &Config, source_of: SourceOf<'_>) -> Result<(), Error> {
    let sizes = [
        ("shard.ring_entries", u64::from(config.shard.ring_entries)),
        (
            "shard.receive_buffers",
            u64::from(config.shard.receive_buffers),
        ),
    ];
    match sizes.iter().find(|(_, value)| !value.is_power_of_two()) {
        None => Ok(()),
        Some((key, value)) => Err(Error::PowerOfTwo {
            place: source_of(key),
            key: (*key).to_owned(),
            value: *value,
            next: value.next_power_of_two(),
        }),
    }
}

fn origins(config: &Config, source_of: SourceOf<'_>) -> Result<(), Error> {
    let wrong = |origin: &&String| Origin::parse(origin).is_none();
    match config.auth.allowed_origins.iter().find(wrong) {
        None => Ok(()),
        Some(origin) => {
            let place = source_of("auth.allowed_origins");
            Err(Error::Origin {
                place,
                origin: origin.clone(),
            })
        }
    }
}

fn log_level(config: &Config, source_of: SourceOf<'_>) -> Result<(), Error> {
    let checked = crate::logging::parse_level(&config.log.level);
    let place = || source_of("log.level");
    checked.map(drop).map_err(|source| Error::Log {
        place: place(),
        source,
    })
}

/// Whoever reaches the listener for operators sees the inside of the server.
fn admin_address(config: &Config, source_of: SourceOf<'_>) -> Result<(), Error> {
    match config.admin.exposed() {
        Some(address) => Err(Error::AdminAddress {
            place: source_of("admin.listen"),
            address,
        }),
        None => Ok(()),
    }
}

/// A listener for TLS has something to show, and what is made up stays on this machine.
fn tls_certificates(config: &Config, source_of: SourceOf<'_>) -> Result<(), Error> {
    let tls = &config.tls;
    let error = |key: &str, reason| {
        Err(Error::Tls {
            place: source_of(key),
            reason,
        })
    };
    if tls.dev && !config.dev {
        return error("tls.dev", "tls.dev (--dev-tls) is for --dev only");
    }
    match (tls.listen.is_some(), tls.certificate.is_empty()) {
        (true, true) if !tls.dev => error(
            "tls.listen",
            "tls.listen needs a certificate: add [[tls.certificate]] with cert_file and key_file",
        ),
        (false, false) => error(
            "tls.certificate",
            "[[tls.certificate]] is used by nothing: set tls.listen, such as \"0.0.0.0:4443\"",
        ),
        _ => Ok(()),
    }
}

/// The secret of development is made up and printed, so nobody else may reach the server.
fn dev_addresses(config: &Config, source_of: SourceOf<'_>) -> Result<(), Error> {
    let listeners: [(&str, Option<SocketAddr>); 3] = [
        ("server.listen", Some(config.server.listen)),
        ("tls.listen", config.tls.listen),
        ("admin.listen", config.admin.listen),
    ];
    for (key, address) in listeners {
        match address {
            Some(address) if config.dev && !address.ip().is_loopback() => {
                return Err(Error::DevAddress {
                    place: source_of(key),
                    key,
                    address,
                });
            }
            _ => {}
        }
    }
    Ok(())
}
