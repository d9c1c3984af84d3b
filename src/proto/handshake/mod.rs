//! The opening handshake of RFC 6455 section 4.2, strictly. Knows neither tokens nor origins:
//! who may connect is decided before the response is sent.

pub mod extensions;

use std::borrow::Cow;

use bytes::Bytes;
use tungstenite::handshake::derive_accept_key;

use self::extensions::{Deflate, deflate_of};
use super::http::{self, Head};

/// What a valid request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The proof that the key was read.
    pub accept_key: String,
    /// The subprotocols that are offered, the most wanted first.
    pub protocols: Vec<String>,
    /// The offer of permessage-deflate that can be kept.
    pub deflate: Option<Deflate>,
}

/// Why a request is no valid upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Another method than GET.
    #[error("an upgrade must be a GET")]
    Method,
    /// An older HTTP.
    #[error("an upgrade must be HTTP/1.1")]
    HttpVersion,
    /// No or more than one Host.
    #[error("an upgrade must have one host header")]
    Host,
    /// No `Upgrade: websocket`.
    #[error("the upgrade header must contain websocket")]
    Upgrade,
    /// No `Connection: upgrade`.
    #[error("the connection header must contain upgrade")]
    Connection,
    /// No or more than one version.
    #[error("an upgrade must have one sec-websocket-version header")]
    VersionHeader,
    /// Another version than 13.
    #[error("only sec-websocket-version 13 is spoken")]
    Version,
    /// The key is not 16 bytes in base64.
    #[error("an upgrade must have one sec-websocket-key header of 16 bytes in base64")]
    Key,
    /// A subprotocol that is no token.
    #[error("the sec-websocket-protocol header must be a list of tokens")]
    Protocol,
    /// A request with a body.
    #[error("an upgrade must not have a body")]
    Body,
}

impl HandshakeError {
    /// The status to answer with.
    pub fn status(&self) -> u16 {
        match self {
            Self::Version => 426,
            _ => 400,
        }
    }

    /// The whole answer, after which the connection is closed.
    pub fn response(&self) -> Bytes {
        let header_lines = match self {
            Self::Version => "sec-websocket-version: 13\r\nupgrade: websocket\r\n",
            _ => "",
        };
        http::problem_response(self.status(), &self.to_string(), header_lines)
    }
}

/// Checks a request that asks for an upgrade.
pub fn check(head: &Head) -> Result<Upgrade, HandshakeError> {
    check_parts(head.method(), head.is_version_11(), &|name| {
        joined(head.headers_named(name))
    })
}

/// All values of one header as one list, as RFC 9110 allows.
pub fn joined<'v>(mut values: impl Iterator<Item = &'v str>) -> Option<Cow<'v, str>> {
    let mut list = Cow::Borrowed(values.next()?);
    for value in values {
        let list = list.to_mut();
        list.push_str(", ");
        list.push_str(value);
    }
    Some(list)
}

/// The same for a request that another HTTP library has parsed. `header` gives all values of a
/// header joined by commas: that is how a doubled key, version or host is found out.
pub fn check_parts<'v>(
    method: &str,
    version_11: bool,
    header: &dyn Fn(&str) -> Option<Cow<'v, str>>,
) -> Result<Upgrade, HandshakeError> {
    let value = |name: &str| header(name).unwrap_or_default();
    let hold = |condition: bool, error| if condition { Ok(()) } else { Err(error) };
    hold(method == "GET", HandshakeError::Method)?;
    hold(version_11, HandshakeError::HttpVersion)?;
    let host = header("host").ok_or(HandshakeError::Host)?;
    hold(http::is_host(host.as_bytes()), HandshakeError::Host)?;
    hold(
        http::has_token(&value("upgrade"), "websocket"),
        HandshakeError::Upgrade,
    )?;
    hold(
        http::has_token(&value("connection"), "upgrade"),
        HandshakeError::Connection,
    )?;
    let is_empty = matches!(value("content-length").trim(), "" | "0");
    let is_chunked = header("transfer-encoding").is_some();
    hold(is_empty && !is_chunked, HandshakeError::Body)?;
    check_version(&value("sec-websocket-version"))?;
    let key = value("sec-websocket-key");
    hold(is_key(&key), HandshakeError::Key)?;
    Ok(Upgrade {
        accept_key: derive_accept_key(key.as_bytes()),
        protocols: protocols(&value("sec-websocket-protocol"))?,
        deflate: header("sec-websocket-extensions")
            .and_then(|offers| deflate_of(&offers, &value("user-agent"))),
    })
}

fn check_version(version: &str) -> Result<(), HandshakeError> {
    match version {
        "13" => Ok(()),
        "" => Err(HandshakeError::VersionHeader),
        list if list.contains(',') => Err(HandshakeError::VersionHeader),
        _ => Err(HandshakeError::Version),
    }
}

/// Sixteen bytes are 22 characters and two pads. The last character carries two bits; what its
/// other four say is no matter: the RFC's own sample sets them.
fn is_key(key: &str) -> bool {
    let Some((characters, pads)) = key.as_bytes().split_at_checked(KEY_CHARACTERS) else {
        return false;
    };
    let in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    pads == b"==" && characters.iter().all(in_alphabet)
}

fn protocols(list: &str) -> Result<Vec<String>, HandshakeError> {
    list.split(',')
        .map(str::trim)
        .filter(|element| !element.is_empty())
        .map(|element| {
            if element.bytes().all(is_token_byte) {
                Ok(element.to_owned())
            } else {
                Err(HandshakeError::Protocol)
            }
        })
        .collect()
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The answer that ends HTTP on this connection. `protocol` must be one of those offered, and
/// `deflate` what was made of an offer.
pub fn response(upgrade: &Upgrade, protocol: Option<&str>, deflate: Option<Deflate>) -> Bytes {
    let mut out = String::with_capacity(192);
    out.push_str("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n");
    out.push_str("connection: Upgrade\r\nsec-websocket-accept: ");
    out.push_str(&upgrade.accept_key);
    if let Some(protocol) = protocol {
        assert!(
            upgrade.protocols.iter().any(|offered| offered == protocol),
            "only an offered subprotocol is chosen"
        );
        out.push_str("\r\nsec-websocket-protocol: ");
        out.push_str(protocol);
    }
    if let Some(deflate) = deflate {
        out.push_str("\r\nsec-websocket-extensions: ");
        out.push_str(&deflate.answer());
    }
    out.push_str("\r\n\r\n");
    out.into()
}

const KEY_CHARACTERS: usize = 22;

#[cfg(test)]
mod tests;
