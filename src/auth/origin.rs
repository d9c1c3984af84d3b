//! Which web pages may open a connection. Compares scheme, host and port, exactly: a page on a
//! look-alike host is another page.

use std::net::IpAddr;

/// Scheme, host and port of a page. An application that shows pages of its own has a scheme of its
/// own (`capacitor://localhost`, `chrome-extension://..`), mostly without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    /// `None` where the scheme has none and none was named.
    port: Option<u16>,
}

impl Origin {
    /// Reads `scheme://host` or `scheme://host:port` and nothing else, not `null` either.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_port(authority)?;
        let port = port.or_else(|| default_port(&scheme));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
        let plain = !host.is_empty() && host.bytes().all(allowed) && is_scheme(&scheme);
        plain.then(|| Self {
            scheme,
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// A page of this machine.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost"
            || address
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_end = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    match rest.strip_prefix(':') {
        // A sign would be read as a part of the number.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((host, Some(port.parse().ok()?)))
        }
        Some(_) => None,
        None => rest.is_empty().then_some((host, None)),
    }
}

fn is_scheme(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(allowed)
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Which origins pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    /// These pass; if there is none, all do: no credential is ambient, so nothing is gained by
    /// a page that has no token.
    pub allowed: Vec<Origin>,
    /// A request without an origin, which no browser makes, does not pass.
    pub required: bool,
    /// Only pages of this machine pass, and those that `allowed` names.
    pub loopback_only: bool,
}

impl OriginPolicy {
    /// Whether a request with this `Origin` header may go on; else it is a 403.
    pub fn allows(&self, origin: Option<&str>) -> bool {
        let Some(text) = origin else {
            return !self.required;
        };
        if self.allowed.is_empty() && !self.loopback_only {
            return true;
        }
        self.reads(text)
    }

    /// Whether a page of this origin may read what a route answers: it was named, or this is
    /// development and the page is of this machine. Where nothing is configured no page may.
    pub fn reads(&self, origin: &str) -> bool {
        let named = |origin: &Origin| {
            self.allowed.contains(origin) || (self.loopback_only && origin.is_loopback())
        };
        Origin::parse(origin).as_ref().is_some_and(named)
    }
}
