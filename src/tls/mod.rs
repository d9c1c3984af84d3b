//! TLS in the process (RFC 8446, RFC 5246): sessions that turn bytes of a socket into plain ones and
//! back, and the certificates that they show. A leaf: bytes and files' contents go in, bytes come
//! out. Knows no socket and no file; its library reads the clock.
//!
//! Without the feature `tls` there are the same names, and no session can be made.

#[cfg(feature = "tls")]
mod certificates;
#[cfg(feature = "tls")]
mod dev;
#[cfg(feature = "tls")]
mod session;

#[cfg(not(feature = "tls"))]
mod absent;

#[cfg(all(test, feature = "tls"))]
mod tests;

#[cfg(feature = "tls")]
pub(crate) use self::{
    certificates::{Acceptor, Rules},
    dev::dev_certificate,
    session::Tls,
};

#[cfg(not(feature = "tls"))]
pub(crate) use self::absent::{Acceptor, Rules, Tls, dev_certificate};

/// What a certificate and its key are read from.
#[derive(Debug, Clone)]
pub(crate) struct PemPair {
    /// What errors name it by: the file of the certificate.
    pub(crate) name: String,
    /// The chain in PEM, the server's own certificate first.
    pub(crate) chain: Vec<u8>,
    /// The key in PEM: PKCS#8, SEC1 or PKCS#1.
    pub(crate) key: Vec<u8>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file without one.
    #[error("{0} holds no certificate in PEM: it begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate(String),
    /// A file without a key.
    #[error("the key of {0} is no private key in PEM (PKCS#8, SEC1 or PKCS#1)")]
    NoKey(String),
    /// Bytes that do not follow the form.
    #[error("{name} cannot be read as a certificate: {cause}")]
    Unreadable {
        /// The file.
        name: String,
        /// Why.
        cause: String,
    },
    /// A key of a kind that TLS does not use.
    #[error("the key of {name} cannot be used: {cause}")]
    Key {
        /// The file of the certificate.
        name: String,
        /// Why.
        cause: String,
    },
    /// Two files that do not go together.
    #[error("the key of {0} does not belong to its certificate")]
    Mismatch(String),
    /// Too old.
    #[error("{name} has expired {days} days ago: renew it")]
    Expired {
        /// The file.
        name: String,
        /// For how long.
        days: u64,
    },
    /// No host that a client could compare.
    #[error("{0} names no host: it needs a subject alternative name")]
    NoName(String),
    /// A key that could be broken.
    #[error("the key of {name} has {bits} bits: RSA keys need at least 2048")]
    KeyTooShort {
        /// The file of the certificate.
        name: String,
        /// How long it is.
        bits: usize,
    },
    /// Nothing to show.
    #[error("[tls] has no certificate: add [[tls.certificate]] with cert_file and key_file")]
    None,
    /// No TLS in this program.
    #[cfg(not(feature = "tls"))]
    #[error("this program was built without the feature `tls`")]
    NotBuilt,
}

/// Why a session ended before its time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The first bytes are a request in plain HTTP.
    #[error("plain HTTP where TLS is spoken")]
    PlainHttp,
    /// More was sent before the handshake than any handshake needs.
    #[error("more than {0} bytes before the handshake was done")]
    TooLong(usize),
    /// A record or a message that the protocol does not allow; an alert says so.
    #[error("{0}")]
    Protocol(String),
}

/// What became of received bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The handshake has just ended: whether an earlier session was taken up again.
    pub(crate) greeted: Option<Greeting>,
    /// The peer said that nothing more comes.
    pub(crate) is_ended: bool,
}

/// How a handshake ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    Full,
    Resumed,
}
