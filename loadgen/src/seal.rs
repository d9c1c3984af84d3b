//! TLS as a client speaks it, on bytes in memory: the certificate is checked, nothing is resumed, so
//! that each connection costs a server a whole handshake. Knows rustls and no socket.

use std::fmt;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// What every session of a run shares.
pub(crate) type Trust = Arc<ClientConfig>;

/// Reads the certificates that are trusted.
pub(crate) fn trust(file: &Path) -> Result<Trust> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file)
        .with_context(|| format!("--tls: read {}", file.display()))?;
    for certificate in certificates {
        roots
            .add(certificate?)
            .with_context(|| format!("--tls: trust {}", file.display()))?;
    }
    if roots.is_empty() {
        bail!("--tls: {} holds no certificate (PEM)", file.display());
    }
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config.into())
}

/// One session.
pub(crate) struct Session(ClientConnection);

impl Session {
    /// Begins one with a server of this address; its certificate must name that.
    pub(crate) fn new(trust: &Trust, server: IpAddr) -> Result<Box<Self>> {
        let mut connection =
            ClientConnection::new(Arc::clone(trust), ServerName::IpAddress(server.into()))?;
        connection.set_buffer_limit(None);
        Ok(Box::new(Self(connection)))
    }

    /// Opens what came and puts the plaintext behind `plain`.
    pub(crate) fn open(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<()> {
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes)?;
            let state = self.0.process_new_packets().context("TLS of the server")?;
            let from = plain.len();
            plain.resize(from + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut plain[from..])?;
        }
        Ok(())
    }

    /// Seals bytes. Before the handshake is done they wait, and go with its last flight.
    pub(crate) fn seal(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.0.writer().write_all(bytes)?;
        self.output()
    }

    /// What is to be sent.
    pub(crate) fn output(&mut self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut out)?;
        }
        Ok(out)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = trust(empty.path()).unwrap_err().to_string();
        assert!(error.contains("holds no certificate"), "{error}");
        let error = trust(Path::new("/nowhere.pem")).unwrap_err().to_string();
        assert!(error.contains("/nowhere.pem"), "{error}");
    }
}
