//! Certificates from their files: read and checked at the start and on SIGHUP, made for development.
//! Knows files; what a certificate must be is checked in `tls`.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::{Config, TlsVersion, UnknownName};
use crate::tls::{Acceptor, CertificateError, PemPair, Rules, dev_certificate};

use super::StartError;
use super::run::unix_s;

/// Where TLS is listened for, if it is.
pub(super) fn address(config: &Config) -> Option<SocketAddr> {
    let port = match config.server.listen.port() {
        0 => 0,
        _ => DEV_PORT,
    };
    let dev = config
        .tls
        .dev
        .then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    config.tls.listen.or(dev)
}

/// What sessions are made with; tickets of `before` stay valid. All files are read anew, and one that
/// is wrong refuses all of them.
pub(super) fn acceptor(
    config: &Config,
    before: Option<&Acceptor>,
) -> Result<Option<Acceptor>, StartError> {
    if address(config).is_none() {
        return Ok(None);
    }
    let tls = &config.tls;
    let now_s = unix_s();
    let mut pairs = Vec::new();
    for files in &tls.certificate {
        warn_if_open(&files.key_file);
        pairs.push(read_pair(&files.cert_file, &files.key_file)?);
    }
    if tls.dev {
        pairs.push(dev_pair(&config.server.data_dir, now_s)?);
    }
    let rules = Rules {
        only_13: tls.min_version == TlsVersion::V13,
        refuse_unknown: tls.unknown_name == UnknownName::Refuse,
    };
    let acceptor = Acceptor::new(&pairs, rules, now_s, before)?;
    for shown in acceptor.shown() {
        let left_days = shown.expires_s.saturating_sub(now_s) / DAY_S;
        let (name, hosts) = (&shown.name, shown.hosts.join(", "));
        if left_days < WARN_DAYS {
            tracing::warn!(
                "{name} ({hosts}) expires in {left_days} days: renew it, then send SIGHUP"
            );
        } else {
            tracing::info!("{name} is shown for {hosts}, valid for {left_days} days");
        }
    }
    Ok(Some(acceptor))
}

fn read_pair(chain: &Path, key: &Path) -> Result<PemPair, StartError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| StartError::CertificateFile {
            path: path.to_owned(),
            source,
        })
    };
    Ok(PemPair {
        name: chain.display().to_string(),
        chain: read(chain)?,
        key: read(key)?,
    })
}

/// A key that others can read is still used: it may be mounted so by a platform.
fn warn_if_open(key: &Path) {
    let mode = fs::metadata(key).map(|data| data.permissions().mode());
    if mode.is_ok_and(|mode| mode & OTHERS != 0) {
        let path = key.display();
        tracing::warn!("{path} can be read by others: chmod 600 {path}");
    }
}

/// Files of the certificate that development makes for itself.
fn dev_files(data_dir: &Path) -> (PathBuf, PathBuf) {
    let folder = data_dir.join("dev-tls");
    (folder.join("cert.pem"), folder.join("key.pem"))
}

/// The certificate of an earlier start while it is valid, else a new one.
fn dev_pair(data_dir: &Path, now_s: u64) -> Result<PemPair, StartError> {
    let (chain, key) = dev_files(data_dir);
    let kept = read_pair(&chain, &key).ok().filter(|pair| {
        Acceptor::new(
            std::slice::from_ref(pair),
            Rules::default(),
            now_s + DAY_S,
            None,
        )
        .is_ok()
    });
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let made = dev_certificate(now_s).map_err(|cause| CertificateError::Unreadable {
        name: "--dev-tls".to_owned(),
        cause,
    })?;
    let folder = chain.parent().unwrap_or(data_dir);
    fs::create_dir_all(folder).map_err(|source| StartError::CertificateFile {
        path: folder.to_owned(),
        source,
    })?;
    write_secret(&key, made.key.as_bytes())?;
    write_secret(&chain, made.chain.as_bytes())?;
    read_pair(&chain, &key)
}

fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), StartError> {
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes));
    written.map_err(|source| StartError::CertificateFile {
        path: path.to_owned(),
        source,
    })
}

const DAY_S: u64 = 24 * 60 * 60;
const WARN_DAYS: u64 = 14;
const OTHERS: u32 = 0o077;
/// Where `--dev-tls` listens unless `tls.listen` says more.
const DEV_PORT: u16 = 4443;
