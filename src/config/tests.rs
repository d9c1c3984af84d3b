//! Layers, errors and relations; each shipped profile; the secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use toml::{Table, Value};

use crate::auth::Claims;

use super::layers::{Flag, PROFILES, SECTIONS, own_defaults, schema_of};
use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.toml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn of_text(text: &str) -> Result<Loaded, Error> {
    let (_folder, path) = file(text);
    Sources {
        file: Some(path),
        ..Sources::default()
    }
    .load()
}

fn config(text: &str) -> Config {
    of_text(text).unwrap().config
}

/// The message, with the folder of the file cut off.
fn message(text: &str) -> String {
    let full = of_text(text).unwrap_err().to_string();
    match full.find("tidegate.toml") {
        Some(at) => full[at..].to_owned(),
        None => full,
    }
}

fn environment(pairs: &[(&str, &str)]) -> Sources {
    let owned = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Sources {
        environment: owned.collect(),
        ..Sources::default()
    }
}

/// R-20, D-34 and section 8 of the requirements.
#[test]
fn defaults_are_the_promised_ones() {
    let config = config("[relay]");
    let limits = &config.limits;
    assert_eq!(
        (limits.message_bytes_max, limits.frame_bytes_max),
        (65_536, 65_536)
    );
    assert_eq!(
        (limits.outbox_bytes_max, limits.outbox_frames_max),
        (1 << 20, 256)
    );
    assert_eq!(
        (limits.ping_interval_ms, limits.pong_timeout_ms),
        (25_000, 10_000)
    );
    assert_eq!(limits.lifetime_ms_max, 4 * 3_600_000);
    let relay = config.relay.unwrap();
    assert_eq!(
        (relay.topic_capacity, relay.max_subscriptions_per_connection),
        (128, 50)
    );
    assert_eq!(
        (config.durable.window_messages, config.durable.window_bytes),
        (256, 256 << 10)
    );
    assert_eq!(
        config
            .mounts
            .iter()
            .map(|mount| mount.path.as_str())
            .collect::<Vec<_>>(),
        ["/ws", "/v1/ws"]
    );
}

/// a relay mount exists only when it is enabled.
#[test]
fn mounts_are_those_that_stand_in_the_file() {
    let paths = |config: &Config| {
        config
            .mounts
            .iter()
            .map(|m| m.path.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(paths(&config("")), ["/v1/ws"]);
    assert_eq!(paths(&config("[durable]\nenabled = false")), [""; 0]);
    let dev = Sources {
        dev: true,
        ..Sources::default()
    }
    .load()
    .unwrap()
    .config;
    assert_eq!(paths(&dev), ["/ws", "/v1/ws"]);
    assert_eq!(dev, Config::dev());
}

/// The line that a conformance run needs, as it stands in the contract.
#[test]
fn a_larger_message_means_larger_frames() {
    let text = "[[mount]]\npath = \"/echo\"\ndialect = \"raw\"\nhandler = \"echo\"\npublic = true\nmessage_bytes_max = 16777216\n";
    let config = config(text);
    let mount = config.mounts.last().unwrap();
    assert_eq!((mount.dialect, mount.public), (Dialect::Raw, true));
    assert_eq!(mount.handler.as_deref(), Some("echo"));
    assert_eq!(mount.limits.message_bytes_max, 16 << 20);
    assert_eq!(mount.limits.frame_bytes_max, 16 << 20);
    assert_eq!(
        config.limits.message_bytes_max, 65_536,
        "other mounts keep theirs"
    );
    assert_eq!(config.limits_of("/echo"), &mount.limits);
    assert_eq!(config.limits_of("/chat"), &config.limits);
}

#[test]
fn limits_that_nobody_chose_follow() {
    let config = config("[limits]\nhead_bytes_max = 1024\nmessage_bytes_max = 1024\n");
    let limits = config.limits;
    assert_eq!((limits.uri_bytes_max, limits.token_bytes_max), (1024, 1024));
    assert_eq!(
        (limits.frame_bytes_max, limits.event_bytes_max),
        (1024, 128)
    );
}

#[test]
fn every_mount_may_set_its_own_limits() {
    let config = config(
        "[limits]\noutbox_frames_max = 9\n[relay]\noutbox_frames_max = 7\n[durable]\nidle_ms_max = 5\n",
    );
    let frames: Vec<_> = config
        .mounts
        .iter()
        .map(|m| m.limits.outbox_frames_max)
        .collect();
    assert_eq!(frames, [7, 9]);
    assert_eq!(config.mounts[1].limits.idle_ms_max, 5);
}

/// C-22
#[test]
fn later_layers_are_stronger_and_each_value_names_its_own() {
    let (_folder, path) =
        file("[limits]\nheaders_max = 10\nhead_bytes_max = 5000\n[log]\nlevel = \"warn\"\n");
    let mut sources = environment(&[
        ("TIDEGATE_LIMITS__HEADERS_MAX", "20"),
        ("TIDEGATE_RELAY__PUBLIC", "true"),
        (
            "TIDEGATE_AUTH__ALLOWED_ORIGINS",
            "https://a.example, https://b.example",
        ),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ]);
    sources.profile = Some("edge".into());
    sources.file = Some(path);
    sources.flags = vec![Flag {
        name: "--listen",
        key: "server.listen",
        value: "127.0.0.1:0".into(),
    }];
    let loaded = sources.load().unwrap();
    assert_eq!(loaded.config.limits.headers_max, 20);
    assert_eq!(loaded.config.limits.head_bytes_max, 5000);
    assert_eq!(loaded.config.server.listen.port(), 0);
    assert!(loaded.config.relay.as_ref().unwrap().public);
    assert_eq!(loaded.config.auth.allowed_origins.len(), 2);
    let shown = text::show(&loaded);
    let line = |key: &str| {
        shown
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap()
            .to_owned()
    };
    assert!(
        line("headers_max").ends_with("# TIDEGATE_LIMITS__HEADERS_MAX"),
        "{shown}"
    );
    assert!(
        line("head_bytes_max").ends_with("tidegate.toml:3"),
        "{shown}"
    );
    assert!(line("listen").ends_with("# --listen"), "{shown}");
    assert!(
        line("messages_per_s_max").contains("# profile edge:"),
        "{shown}"
    );
    shown.parse::<Table>().unwrap();
}

/// C-22
#[test]
fn unknown_keys_name_the_line_and_the_nearest() {
    assert_eq!(
        message("[limits]\n\nmesage_bytes_max = 1\n"),
        "tidegate.toml:3: unknown key `limits.mesage_bytes_max`, did you mean `message_bytes_max`?"
    );
    assert_eq!(
        message("[limit]\na = 1\n"),
        "tidegate.toml:1: unknown key `limit`, did you mean `limits`?"
    );
    assert_eq!(
        message("[[mount]]\npath = \"/a\"\ndialekt = \"raw\"\n"),
        "tidegate.toml:3: unknown key `mount[0].dialekt`, did you mean `dialect`?"
    );
    let error = environment(&[("TIDEGATE_LIMITS__HEADRES_MAX", "1")])
        .load()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "TIDEGATE_LIMITS__HEADRES_MAX: unknown key `limits.headres_max`, did you mean `headers_max`?"
    );
    assert!(
        environment(&[("TIDEGATE_MOUNT__PATH", "/")])
            .load()
            .is_err()
    );
}

#[test]
fn wrong_values_name_what_is_allowed() {
    assert_eq!(
        message("[durable]\nfsync = \"never\"\n"),
        "tidegate.toml:2: `durable.fsync`: unknown variant `never`, expected one of `batch`, `always`, `os`"
    );
    let text = message("[limits]\nheaders_max = \"many\"\n");
    assert!(
        text.starts_with("tidegate.toml:2: `limits.headers_max`: invalid type"),
        "{text}"
    );
    assert_eq!(
        message("[limits]\nheaders_max = -1\n"),
        "tidegate.toml:2: limits.headers_max = -1 is outside 8 to 1024"
    );
    assert!(message("[limits]\nheaders_max = 1\nheaders_max = 2\n").contains("duplicate key"));
    assert!(message("[server]\nlisten = \"nowhere\"\n").contains(
        "`server.listen`: this is not an address: write IP:PORT, such as 127.0.0.1:4000"
    ));
    for wrong in [
        "limits = 3\n",
        "limits = [1, 2]\n",
        "[[limits]]\n",
        "[mount]\npath = \"/a\"\n",
        "[relay]\npublic = 1\n",
    ] {
        assert!(of_text(wrong).is_err(), "{wrong}");
    }
    let error = environment(&[("TIDEGATE_LIMITS__HEADERS_MAX", "many")])
        .load()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("TIDEGATE_LIMITS__HEADERS_MAX: "),
        "{error}"
    );
}

/// N7: once, on one line, in words of the configuration, with what to write
#[test]
fn a_mistake_is_told_once_on_one_line() {
    for (text, expected) in [
        (
            "[limits]\nheaders_max = \"many\"\n",
            "tidegate.toml:2: `limits.headers_max`: invalid type: string \"many\", expected a number, such as 10",
        ),
        (
            "[limits]\nframe_bytes_max = true\n",
            "tidegate.toml:2: `limits.frame_bytes_max`: invalid type: boolean `true`, expected a size, \
             such as 65536 or \"64KiB\"",
        ),
        (
            "[limits]\nping_interval_ms = \"30 parsecs\"\n",
            "tidegate.toml:2: `limits.ping_interval_ms`: invalid type: string \"30 parsecs\", expected \
             milliseconds, or a time such as \"500ms\" or \"30s\"",
        ),
        (
            "[durable]\nenabled = 1\n",
            "tidegate.toml:2: `durable.enabled`: invalid type: integer `1`, expected true or false",
        ),
    ] {
        let error = of_text(text).unwrap_err();
        let told = error.to_string();
        assert!(std::error::Error::source(&error).is_none(), "{told}");
        assert!(told.ends_with(expected), "{told}");
        assert!(!told.contains('\n'), "{told}");
    }
    let broken = of_text("[limits\nx = = 1\n").unwrap_err().to_string();
    assert!(
        !broken.contains('\n') && broken.contains("tidegate.toml:1: "),
        "{broken}"
    );
}

/// N7: whoever mends one wants to know of the others
#[test]
fn all_mistakes_are_told() {
    let count = |text: &str| of_text(text).unwrap_err().all().len();
    assert_eq!(
        count("[limit]\na = 1\n[limits]\nheadres_max = 1\n[serve]\n"),
        3
    );
    assert_eq!(
        count("[limits]\nheaders_max = 1\nframe_bytes_max = \"x\"\n[log]\nlevel = 3\n"),
        3
    );
    assert_eq!(count("[limits]\nheaders_max = -1\n"), 1);
    let relations = "[limits]\nmessage_bytes_max = 1000\nframe_bytes_max = 2000\n[shard]\nreceive_buffers = 1000\n\
                     [[mount]]\npath = \"/a\"\ndialect = \"raw\"\n";
    assert_eq!(count(relations), 3);
    let sources = Sources {
        environment: vec![("TIDEGATE_LIMIT__X".into(), "1".into())],
        flags: vec![Flag {
            name: "--listen",
            key: "server.listen",
            value: "localhost:4000".into(),
        }],
        ..Sources::default()
    };
    let error = sources.load().unwrap_err();
    let told: Vec<_> = error.all().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "TIDEGATE_LIMIT__X: unknown key `limit`, did you mean `limits`?",
            "--listen: `server.listen`: this is not an address: write IP:PORT, such as 127.0.0.1:4000; \
             names are not looked up",
        ]
    );
}

/// K6: a variable that nearly sets something is not passed over; those of platforms are
#[test]
fn variables_that_nearly_set_something_are_named() {
    for (name, meant) in [
        ("TIDEGATE_LISTEN", "TIDEGATE_SERVER__LISTEN"),
        ("TIDEGATE_SERVER_LISTEN", "TIDEGATE_SERVER__LISTEN"),
        (
            "TIDEGATE_LIMITS_HEADERS_MAX",
            "TIDEGATE_LIMITS__HEADERS_MAX",
        ),
        ("TIDEGATE_DATA_DIR", "TIDEGATE_SERVER__DATA_DIR"),
    ] {
        let error = environment(&[(name, "1")]).load().unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with(&format!("{name}: sets nothing; write {meant}, ")),
            "{told}"
        );
    }
    for of_platform in [
        "TIDEGATE_SERVICE_HOST",
        "TIDEGATE_PORT",
        "TIDEGATE_PORT_4000_TCP_ADDR",
        "TIDEGATE_SERVER_SERVICE_PORT",
        "TIDEGATE_URL",
        "TIDEGATE_TOKEN",
        "TIDEGATE_JWT_SECRET",
    ] {
        environment(&[(of_platform, "1")]).load().unwrap();
    }
}

/// K6: sizes and times with units, in a file, a variable and a flag
#[test]
fn values_may_have_units() {
    let limits =
        config("[limits]\nmessage_bytes_max = \"128KiB\"\nping_interval_ms = \"40s\"\n").limits;
    assert_eq!(
        (limits.message_bytes_max, limits.ping_interval_ms),
        (131_072, 40_000)
    );
    let variable = ("TIDEGATE_LIMITS__PING_INTERVAL_MS", "1m");
    let loaded = environment(&[variable]).load().unwrap();
    assert_eq!(loaded.config.limits.ping_interval_ms, 60_000);
    let mount = "[[mount]]\npath = \"/a\"\ndialect = \"raw\"\nhandler = \"echo\"\nmessage_bytes_max = \"1MiB\"\n";
    let mounts = config(mount).mounts;
    let limits = mounts.iter().map(|mount| mount.limits.message_bytes_max);
    assert!(limits.max() == Some(1 << 20));
}

#[test]
fn a_proxy_is_an_address_or_a_network() {
    let text = "[server]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n";
    let proxies = config(text).server.trusted_proxies;
    assert_eq!(proxies.len(), 2);
    assert!(proxies[1].contains("10.9.9.9".parse().unwrap()));
    let wrong = text.replace("10.0.0.0/8", "10.0.0.0/80");
    assert_eq!(
        message(&wrong),
        "tidegate.toml:2: `server.trusted_proxies[1]`: `10.0.0.0/80` is no address and no network; \
         write 10.0.0.7 or 10.0.0.0/8 (up to /32), 2001:db8::7 or 2001:db8::/32 (up to /128)"
    );
    let variable = ("TIDEGATE_SERVER__TRUSTED_PROXIES", "10.0.0.7, ::1");
    let loaded = environment(&[variable, ("TIDEGATE_JWT_SECRET", "x")]).load();
    assert_eq!(loaded.unwrap().config.server.trusted_proxies.len(), 2);
}

#[test]
fn relations_between_values_are_explained() {
    assert_eq!(
        message("[limits]\nmessage_bytes_max = 1000\nframe_bytes_max = 2000\n"),
        "tidegate.toml:3: limits.frame_bytes_max = 2000 must not be above limits.message_bytes_max = 1000: a frame is a part of a message"
    );
    // L19
    assert_eq!(
        message(
            "[durable]\nenabled = true\nsegment_bytes_max = 1048576\nreserve_bytes = 1048576\n"
        ),
        "tidegate.toml:4: durable.reserve_bytes = 1048576 must not be above half of durable.segment_bytes_max = 524288: what the reserve leaves of a segment is all that a message may take"
    );
    // L19: each half fits alone, and no largest message would ever have been taken.
    assert_eq!(
        message(
            "[durable]\nenabled = true\nsegment_bytes_max = 1048576\nreserve_bytes = 524288\nmessage_bytes_max = 524288\n"
        ),
        "tidegate.toml:5: durable.message_bytes_max = 524288 must not be above what durable.reserve_bytes and 16384 bytes leave of durable.segment_bytes_max = 507904: a larger message would always be refused"
    );
    assert_eq!(
        message(
            "[limits]\nmessage_bytes_max = 1048576\n[durable]\nenabled = true\nsegment_bytes_max = 1048576\n"
        ),
        "tidegate.toml:2: limits.message_bytes_max = 1048576 must not be above half of durable.segment_bytes_max = 524288: twice the largest message must fit into a segment"
    );
    assert_eq!(
        message("[shard]\nreceive_buffers = 1000\n"),
        "tidegate.toml:2: shard.receive_buffers = 1000 is no power of two; write 1024"
    );
    assert!(message("[[mount]]\npath = \"/a\"\n").contains("write handler = \"echo\""));
    assert!(message("[[mount]]\npath = \"a/\"\nhandler = \"echo\"\n").contains("write `/a`"));
    assert!(message("[auth]\nallowed_origins = [\"app.example\"]\n").contains("`app.example`"));
}

/// A misspelt level alone would otherwise be the name of a part of the program.
#[test]
fn a_level_of_the_log_is_checked() {
    let text = message("[log]\nlevel = \"inof\"\n");
    assert!(
        text.starts_with("tidegate.toml:2: log.level = inof: not one of error"),
        "{text}"
    );
}

/// D-02
#[test]
fn two_mounts_on_one_path_are_both_named() {
    let text = message("[relay]\npath = \"/x\"\n[[mount]]\npath = \"/x\"\nhandler = \"echo\"\n");
    assert_eq!(
        text,
        "two mounts on `/x`: [relay] and [[mount]] number 1; give one of them another path"
    );
}

/// C-20
#[test]
fn development_is_for_this_machine() {
    let (_folder, path) = file("[server]\nlisten = \"0.0.0.0:4000\"\n");
    let sources = Sources {
        dev: true,
        file: Some(path),
        ..Sources::default()
    };
    assert!(
        sources
            .load()
            .unwrap_err()
            .to_string()
            .contains("--dev serves loopback addresses only")
    );
}

/// The listener for operators asks for no token.
#[test]
fn operators_are_reached_by_others_only_on_purpose() {
    let refused = message("[admin]\nlisten = \"0.0.0.0:4001\"\n");
    assert!(
        refused.contains("write admin.allow_remote = true"),
        "{refused}"
    );
    let (_folder, path) = file("[admin]\nlisten = \"0.0.0.0:4001\"\nallow_remote = true\n");
    let sources = Sources {
        file: Some(path),
        ..Sources::default()
    };
    sources.load().unwrap();
}

#[test]
fn an_unknown_profile_names_those_that_exist() {
    let sources = Sources {
        profile: Some("egde".into()),
        ..Sources::default()
    };
    let text = sources.load().unwrap_err().to_string();
    assert!(
        text.starts_with("there is no profile `egde`, did you mean `edge`?"),
        "{text}"
    );
}

/// C-27: no default is hidden in a profile.
#[test]
fn profiles_are_complete() {
    for (name, text) in PROFILES {
        let sources = Sources {
            profile: Some((*name).to_owned()),
            ..Sources::default()
        };
        sources
            .load()
            .unwrap_or_else(|error| panic!("profile {name}: {error}"));
        let profile: Table = text.parse().unwrap();
        for section in SECTIONS {
            let optional = ["relay", "mount"].contains(section);
            let Some(Value::Table(table)) = profile.get(*section) else {
                assert!(optional, "profile {name} lacks [{section}]");
                continue;
            };
            for (key, default) in own_defaults(section) {
                assert!(
                    table.contains_key(&key),
                    "profile {name} lacks in [{section}]: {key} = {default}"
                );
            }
        }
        let on_disk = fs::read_to_string(format!("tuning/profiles/{name}.toml")).unwrap();
        assert_eq!(on_disk, *text);
    }
    assert_eq!(
        fs::read_dir("tuning/profiles").unwrap().count(),
        PROFILES.len()
    );
}

/// What a profile changes has an effect that was measured, or a reason why none was.
#[test]
fn every_knob_of_a_profile_is_accounted_for() {
    let effects = fs::read_to_string("tuning/effects.py").unwrap();
    let measured_elsewhere = "conformance";
    for (name, text) in PROFILES
        .iter()
        .filter(|(name, _)| *name != measured_elsewhere)
    {
        let profile: Table = text.parse().unwrap();
        for section in SECTIONS {
            let Some(Value::Table(table)) = profile.get(*section) else {
                continue;
            };
            let defaults = own_defaults(section);
            let is_turned = |(key, value): &(&String, &Value)| {
                defaults
                    .iter()
                    .any(|(own, default)| own == *key && default != *value)
            };
            for (key, _) in table.iter().filter(is_turned) {
                let named = format!("\"{section}.{key}\"");
                assert!(effects.contains(&named), "profile {name} turns {named}");
            }
        }
    }
}

/// The file to start from says the same as no file, also with every mark taken away.
#[test]
fn the_template_holds_every_default() {
    let template = text::template();
    assert_eq!(of_text(&template).unwrap().config, config(""));
    let mark = |line: &str| {
        let pair = line
            .strip_prefix("# ")
            .filter(|rest| rest.contains(" = ") || rest.starts_with('['));
        pair.filter(|rest| {
            rest.starts_with('[') || !rest.split(" = ").next().unwrap().contains(' ')
        })
        .map_or(line, |_| &line[2..])
        .to_owned()
    };
    let open: String = template.lines().map(|line| mark(line) + "\n").collect();
    let open: Table = open
        .parse()
        .unwrap_or_else(|error| panic!("{error}\n{open}"));
    for section in SECTIONS {
        let table = match &open[*section] {
            Value::Array(entries) => entries[0].as_table().unwrap().clone(),
            value => value.as_table().unwrap().clone(),
        };
        assert_eq!(table, own_defaults(section), "{section}");
        assert!(!schema_of(section).is_empty());
    }
}

fn identity(sources: &Sources) -> Result<secret::Identity, Error> {
    sources.load().unwrap().config.identity(sources)
}

/// C-20, C-22
#[test]
fn a_secret_is_required_unless_developing() {
    assert!(matches!(
        identity(&Sources::default()),
        Err(Error::SecretMissing)
    ));
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let dev = || Sources {
        dev: true,
        ..environment(&[("TIDEGATE_SERVER__DATA_DIR", data.to_str().unwrap())])
    };
    let token = |identity: &secret::Identity| {
        let claims = Claims::default();
        let issuer = identity.issuer.as_ref().unwrap();
        issuer.issue(&claims, 1_000).unwrap()
    };
    let first = identity(&dev()).unwrap();
    assert!(first.made_up.is_some() && !data.exists());
    first.unkept.as_ref().unwrap().keep().unwrap();
    // It is kept for its owner alone, and is that of the next run.
    let kept = data.join("dev-secret");
    let mode = fs::metadata(&kept).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = identity(&dev()).unwrap();
    assert!(again.unkept.is_none());
    assert!(again.authenticator.verify(&token(&first), 1_000).is_ok());
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(
        identity(&dev()),
        Err(Error::SecretReadable { .. })
    ));
    let short = environment(&[("TIDEGATE_JWT_SECRET", "short")]);
    let text = identity(&short).unwrap_err().to_string();
    assert_eq!(
        text,
        "the secret of TIDEGATE_JWT_SECRET has 5 bytes, at least 32 are needed"
    );
    let good = environment(&[("TIDEGATE_JWT_SECRET", "0123456789abcdef0123456789abcdef")]);
    assert!(identity(&good).unwrap().made_up.is_none());
}

/// C-22: what the program signs is what it accepts; the line feed of an editor is no part of it.
#[test]
fn a_secret_file_is_private_and_rotates() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
    let text = path.display().to_string();
    let sources = environment(&[
        ("TIDEGATE_AUTH__JWT_SECRET_FILE", &text),
        (
            "TIDEGATE_JWT_SECRET_PREVIOUS",
            "fedcba9876543210fedcba9876543210",
        ),
    ]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = identity(&sources).unwrap_err().to_string();
    assert!(
        refused.contains("readable by everybody (mode 644): chmod 600"),
        "{refused}"
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let identity = identity(&sources).unwrap();
    let claims = Claims::default();
    for secret in [
        "0123456789abcdef0123456789abcdef",
        "fedcba9876543210fedcba9876543210",
    ] {
        let token = crate::auth::AuthConfig::new(secret, 60)
            .unwrap()
            .issue(&claims, 1000)
            .unwrap();
        assert!(identity.authenticator.verify(&token, 1000).is_ok());
    }
    let own = identity.issuer.unwrap().issue(&claims, 1000).unwrap();
    assert!(identity.authenticator.verify(&own, 1000).is_ok());
}

/// T-A1: a key that anybody may replace is nobody's key
#[test]
fn a_public_key_file_is_written_by_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("issuer.pem");
    fs::copy("tests/fixtures/keys/ed.pem", &path).unwrap();
    let text = format!(
        "[auth]\npublic_key_files = [{:?}]\n",
        path.to_str().unwrap()
    );
    let (_folder, config) = file(&text);
    let sources = Sources {
        file: Some(config),
        ..Sources::default()
    };
    let found = identity(&sources).unwrap();
    assert!(found.issuer.is_none() && found.made_up.is_none());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let refused = identity(&sources).unwrap_err().to_string();
    assert!(
        refused.contains("writable by everybody (mode 666)"),
        "{refused}"
    );
    fs::write(&path, "nothing").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = identity(&sources).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("issuer.pem cannot be used"), "{text}");
}

#[test]
fn a_missing_file_is_named() {
    let sources = Sources {
        file: Some("/nowhere/tidegate.toml".into()),
        ..Sources::default()
    };
    let text = sources.load().unwrap_err().to_string();
    assert!(text.contains("/nowhere/tidegate.toml"), "{text}");
}

/// The budget grows with what has arrived: 65,536 fragments of 64 bytes are no attack.
#[test]
fn fragment_budget() {
    let limits = Limits::default();
    assert_eq!(
        (limits.fragments_max(0), limits.fragments_max(64 * 65_536)),
        (1024, 132_096)
    );
}
