//! Certificates and their keys: checked when they are read, chosen by the name that a client asks
//! for. Knows contents of files; reads none.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::{CertificateError, PemPair, Tls};

/// What sessions are made with. Cloning shares everything.
#[derive(Clone)]
pub(crate) struct Acceptor {
    config: Arc<ServerConfig>,
    shown: Arc<[Shown]>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

/// What operators see of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The file that it came from.
    pub(crate) name: String,
    /// The hosts that it is for, in lower case.
    pub(crate) hosts: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub(crate) expires_s: u64,
    /// SHA-256 over it, in hexadecimal digits.
    pub(crate) fingerprint: String,
}

/// How clients are let in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// TLS 1.2 is refused.
    pub(crate) only_13: bool,
    /// A name that no certificate has is refused; else it is shown the first one.
    pub(crate) refuse_unknown: bool,
}

impl Acceptor {
    /// Checks all pairs at the time `now_s`. Tickets of `before` stay valid.
    pub(crate) fn new(
        pairs: &[PemPair],
        rules: Rules,
        now_s: u64,
        before: Option<&Self>,
    ) -> Result<Self, CertificateError> {
        let identities: Vec<_> = pairs
            .iter()
            .map(|pair| Identity::new(pair, now_s))
            .collect::<Result<_, _>>()?;
        if identities.is_empty() {
            return Err(CertificateError::None);
        }
        let shown = identities.iter().map(|it| it.shown.clone()).collect();
        let resolver = Identities {
            identities,
            refuse_unknown: rules.refuse_unknown,
        };
        let versions: &[_] = if rules.only_13 {
            &[&TLS13]
        } else {
            &[&TLS13, &TLS12]
        };
        let crypto = Arc::new(provider::default_provider());
        let builder = ServerConfig::builder_with_provider(crypto)
            .with_protocol_versions(versions)
            .map_err(|error| CertificateError::Unreadable {
                name: "[tls]".to_owned(),
                cause: error.to_string(),
            })?;
        let mut config = builder
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        config.ticketer = match before {
            Some(before) => Arc::clone(&before.config.ticketer),
            None => ticketer(&config),
        };
        Ok(Self {
            config: Arc::new(config),
            shown,
        })
    }

    /// A session for a new socket.
    pub(crate) fn accept(&self) -> Option<Tls> {
        Tls::new(&self.config)
    }

    /// The certificates in the order in which they are looked through.
    pub(crate) fn shown(&self) -> &[Shown] {
        &self.shown
    }
}

/// Keys that change every six hours; without randomness sessions are just not taken up again.
fn ticketer(config: &ServerConfig) -> Arc<dyn ProducesTickets> {
    provider::Ticketer::new().unwrap_or_else(|_| Arc::clone(&config.ticketer))
}

/// One certificate with its key.
#[derive(Debug)]
struct Identity {
    key: Arc<CertifiedKey>,
    shown: Shown,
}

impl Identity {
    fn new(pair: &PemPair, now_s: u64) -> Result<Self, CertificateError> {
        let name = &pair.name;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pair.chain)
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Unreadable {
                name: name.clone(),
                cause: error.to_string(),
            })?;
        let Some(own) = chain.first() else {
            return Err(CertificateError::NoCertificate(name.clone()));
        };
        let shown = look_at(own, name, now_s)?;
        let key = PrivateKeyDer::from_pem_slice(&pair.key)
            .map_err(|_| CertificateError::NoKey(name.clone()))?;
        let key =
            provider::sign::any_supported_type(&key).map_err(|error| CertificateError::Key {
                name: name.clone(),
                cause: error.to_string(),
            })?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match()
            .map_err(|_| CertificateError::Mismatch(name.clone()))?;
        Ok(Self {
            key: Arc::new(key),
            shown,
        })
    }
}

/// Reads what the certificate says of itself, and refuses what no client would accept.
fn look_at(
    certificate: &CertificateDer<'_>,
    name: &str,
    now_s: u64,
) -> Result<Shown, CertificateError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| CertificateError::Unreadable {
            name: name.to_owned(),
            cause: error.to_string(),
        })?;
    let expires_s = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    if expires_s < now_s {
        return Err(CertificateError::Expired {
            name: name.to_owned(),
            days: (now_s - expires_s) / DAY_S,
        });
    }
    if let Ok(PublicKey::RSA(key)) = parsed.public_key().parsed()
        && key.key_size() < RSA_BITS_MIN
    {
        return Err(CertificateError::KeyTooShort {
            name: name.to_owned(),
            bits: key.key_size(),
        });
    }
    let names = parsed.subject_alternative_name().ok().flatten();
    let hosts: Vec<_> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(host) => Some(host.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect();
    if hosts.is_empty() {
        return Err(CertificateError::NoName(name.to_owned()));
    }
    Ok(Shown {
        name: name.to_owned(),
        hosts,
        expires_s,
        fingerprint: hex(digest(&SHA256, certificate).as_ref()),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(sixteen).to_string())
}

/// All certificates of a server.
#[derive(Debug)]
struct Identities {
    identities: Vec<Identity>,
    refuse_unknown: bool,
}

impl ResolvesServerCert for Identities {
    /// The one of exactly this name, else the one of all names beside it, else the first.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.identities.first();
        let Some(name) = hello.server_name() else {
            return first.map(|it| Arc::clone(&it.key));
        };
        let name = name.to_ascii_lowercase();
        let any = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let of = |host: &str| {
            let has = |it: &&Identity| it.shown.hosts.iter().any(|found| found == host);
            self.identities.iter().find(has)
        };
        let found = of(&name).or_else(|| of(any.as_deref()?));
        let found = match found {
            None if !self.refuse_unknown => first,
            found => found,
        };
        found.map(|it| Arc::clone(&it.key))
    }
}

const DAY_S: u64 = 24 * 60 * 60;
const RSA_BITS_MIN: usize = 2048;
