//! A network as it stands in a file: one address, or a prefix and its length. Knows addresses; no
//! socket, and nothing of who is in it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// Some addresses that lie together. IPv4 that is mapped into IPv6 counts as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no address and no network; write 10.0.0.7 or 10.0.0.0/8 (up to /32), 2001:db8::7 or 2001:db8::/32 (up to /128)"
)]
pub struct NetworkError {
    text: String,
}

impl Network {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether every address of its family lies in it.
    pub fn is_everything(&self) -> bool {
        self.0.prefix_len() == 0
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let of_address = |text: &str| text.parse().map(|address: IpAddr| IpNet::from(address));
        let parsed = text.parse().or_else(|_| of_address(text));
        let net = parsed.map_err(|_| NetworkError {
            text: text.to_owned(),
        })?;
        Ok(Self(canonical(net).trunc()))
    }
}

/// As IPv4, if it is nothing else.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.addr().to_ipv4_mapped();
    let length = v6.prefix_len().checked_sub(MAPPED_PREFIX_LEN);
    let v4 = mapped.zip(length);
    let v4 = v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    v4.map_or(net, IpNet::V4)
}

/// The bits in front of a mapped address.
const MAPPED_PREFIX_LEN: u8 = 96;

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => self.0.addr().fmt(f),
            false => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_an_address_or_a_prefix() {
        let has = |text: &str, address: &str| network(text).contains(address.parse().unwrap());
        assert!(has("10.0.0.7", "10.0.0.7") && !has("10.0.0.7", "10.0.0.8"));
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
        assert!(
            has("10.1.2.3/8", "10.9.9.9"),
            "bits behind the prefix do not matter"
        );
        assert!(has("2001:db8::/32", "2001:db8:1::1") && !has("2001:db8::/32", "2001:db9::1"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(has("::ffff:10.0.0.0/104", "10.1.1.1") && has("::ffff:10.0.0.7", "10.0.0.7"));
        assert!(!has("::/0", "10.0.0.1") && network("::/0").is_everything());
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in [
            "10.0.0.7",
            "10.0.0.0/8",
            "2001:db8::/32",
            "::1",
            "0.0.0.0/0",
        ] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(network("10.1.2.3/8").to_string(), "10.0.0.0/8");
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_form() {
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0",
            "proxy",
            "10.0.0.1:80",
            "::1%eth0",
            " ::1",
        ] {
            let error = wrong.parse::<Network>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{wrong}` is no address")),
                "{error}"
            );
            assert!(error.contains("10.0.0.0/8"), "{error}");
        }
    }
}
