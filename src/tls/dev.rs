//! A certificate for development: made here, for this machine only, signed by itself. Knows no file.

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A new certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct DevCertificate {
    /// In PEM; what clients are told to trust.
    pub(crate) chain: String,
    /// In PEM.
    pub(crate) key: String,
}

/// Makes a certificate for `localhost` and the loopback addresses, valid for 90 days from `now_s`.
pub(crate) fn dev_certificate(now_s: u64) -> Result<DevCertificate, String> {
    let text = |error: rcgen::Error| error.to_string();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).map_err(text)?;
    for address in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        params.subject_alt_names.push(SanType::IpAddress(address));
    }
    params
        .distinguished_name
        .push(DnType::CommonName, "Tidegate development");
    let begin = i64::try_from(now_s).unwrap_or(0) - DAY_S;
    params.not_before = date(begin);
    params.not_after = date(begin + 91 * DAY_S);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(text)?;
    let certificate = params.self_signed(&key).map_err(text)?;
    Ok(DevCertificate {
        chain: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// The day on which a second lies.
fn date(unix_s: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(unix_s).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

const DAY_S: i64 = 24 * 60 * 60;
