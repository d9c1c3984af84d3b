//! TLS to a server: whose certificates are trusted, and a stream that is sealed or is not. Knows
//! certificates; no protocol above.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::dial::Patient;
use super::{Client, ClientError};

/// Whom a client trusts.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    provider: Arc<CryptoProvider>,
    roots: Arc<[CertificateDer<'static>]>,
}

impl Tls {
    /// Trusts the certificates of this machine; without any, no server.
    pub(super) fn of_system() -> Result<Self, ClientError> {
        let found = rustls_native_certs::load_native_certs();
        Self::of(found.certs)
    }

    /// These certificates and no others.
    pub(super) fn of_pem(pem: &[u8]) -> Result<Self, ClientError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|error| ClientError::Certificates(error.to_string()))?;
        if found.is_empty() {
            return Err(ClientError::Certificates("there is none in it".to_owned()));
        }
        Self::of(found)
    }

    fn of(roots: Vec<CertificateDer<'static>>) -> Result<Self, ClientError> {
        let unusable = |error: rustls::Error| ClientError::Certificates(error.to_string());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut store = RootCertStore::empty();
        // Systems have some that are too old to be read.
        store.add_parsable_certificates(roots.iter().cloned());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
            provider,
            roots: roots.into(),
        })
    }

    /// The same for requests over HTTP.
    pub(super) fn for_requests(&self) -> TlsConfig {
        let roots = self.roots.iter();
        let roots: Vec<_> = roots
            .map(|root| Certificate::from_der(root).to_owned())
            .collect();
        TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(Arc::clone(&self.provider))
            .build()
    }

    /// Shakes hands over a stream that has time-outs.
    pub(super) fn seal(&self, client: &Client, stream: TcpStream) -> Result<Stream, ClientError> {
        let refused = |error: rustls::Error| not_sealed(client, &error);
        let name = server_name(client)?;
        let mut connection =
            ClientConnection::new(Arc::clone(&self.config), name).map_err(refused)?;
        let mut stream = Patient(stream);
        while connection.is_handshaking() {
            connection
                .complete_io(&mut stream)
                .map_err(|error| not_shaken(client, error))?;
        }
        let sealed = StreamOwned::new(connection, stream.0);
        Ok(Stream::Sealed(Box::new(sealed)))
    }

    #[cfg(feature = "async")]
    pub(super) fn connector(&self) -> tokio_rustls::TlsConnector {
        Arc::clone(&self.config).into()
    }
}

pub(super) fn server_name(client: &Client) -> Result<ServerName<'static>, ClientError> {
    let name = client
        .host
        .rsplit_once(':')
        .map_or(&*client.host, |(name, _)| name);
    let name = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    ServerName::try_from(name).map_err(|_| ClientError::Url(format!("https://{}", client.host)))
}

fn not_sealed(client: &Client, error: &rustls::Error) -> ClientError {
    ClientError::Tls {
        host: client.host.clone(),
        reason: error.to_string(),
    }
}

/// Why hands could not be shaken, from what a stream said.
pub(super) fn not_shaken(client: &Client, error: io::Error) -> ClientError {
    let refused = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(refused) = refused {
        return not_sealed(client, refused);
    }
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Timeout {
            what: "TLS handshake".to_owned(),
            limit: client.time_max,
        },
        io::ErrorKind::UnexpectedEof => ClientError::Tls {
            host: client.host.clone(),
            reason: "it ended the connection; does that port speak TLS?".to_owned(),
        },
        _ => ClientError::Connect(client.host.clone(), error),
    }
}

/// A stream to a server.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Sealed(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// The socket below.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Sealed(sealed) => sealed.get_ref(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Sealed(sealed) => sealed.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(from),
            Self::Sealed(sealed) => sealed.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Sealed(sealed) => sealed.flush(),
        }
    }
}
