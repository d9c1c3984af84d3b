//! Whose request a proxy hands on: the list X-Forwarded-For, read from its right end. Knows texts
//! and addresses; who is a proxy it is told.
//!
//! Each proxy adds the address that it saw at the right end, so only what stands to the right of
//! the first stranger was written by somebody who is believed. What is left of it is never read.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// The header that is read.
pub(crate) const HEADER: &str = "x-forwarded-for";

/// An element of the list cannot be read as an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{element}` in X-Forwarded-For cannot be read as an address")]
pub(crate) struct NotAnAddress {
    element: String,
}

/// Where the request comes from that a trusted peer handed on: the rightmost address that is not
/// trusted, else the leftmost. `None` without any. Several `lines` are one list. A port that was
/// not told is 0.
pub(crate) fn client_of<'a>(
    lines: impl DoubleEndedIterator<Item = &'a str>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Result<Option<SocketAddr>, NotAnAddress> {
    let elements = lines.rev().flat_map(|line| line.rsplit(','));
    let elements = elements.map(str::trim).filter(|one| !one.is_empty());
    let mut client = None;
    for element in elements {
        let address = parse(element).ok_or_else(|| NotAnAddress {
            element: shown(element),
        })?;
        client = Some(address);
        if !is_trusted(address.ip()) {
            break;
        }
    }
    Ok(client)
}

/// As it may stand in a log.
fn shown(element: &str) -> String {
    let shown = element.chars().take(SHOWN_CHARS_MAX);
    shown.flat_map(char::escape_debug).collect()
}

/// The longest address with a port has fewer.
const SHOWN_CHARS_MAX: usize = 64;

/// An address with or without brackets and port; IPv4 that is mapped into IPv6 is IPv4.
fn parse(element: &str) -> Option<SocketAddr> {
    let bare = element.strip_prefix('[').and_then(|e| e.strip_suffix(']'));
    let address = bare.unwrap_or(element).parse::<IpAddr>();
    let parsed = match address {
        Ok(address) => SocketAddr::new(address, 0),
        Err(_) => element.parse().ok()?,
    };
    Some(canonical(parsed))
}

/// The same place, as IPv4 if it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) => SocketAddrV6::new(ip, address.port(), 0, 0).into(),
        ip => SocketAddr::new(ip, address.port()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Addresses of 10.0.0.0/8 are proxies.
    fn is_trusted(address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10)
    }

    fn client(lines: &[&str]) -> Option<String> {
        let found = client_of(lines.iter().copied(), is_trusted);
        found.unwrap().map(|address| address.to_string())
    }

    #[test]
    fn the_rightmost_stranger_is_the_client() {
        let is = |lines: &[&str], expected: &str| {
            assert_eq!(client(lines).as_deref(), Some(expected), "{lines:?}");
        };
        is(&["203.0.113.7"], "203.0.113.7:0");
        is(&["1.1.1.1, 203.0.113.7"], "203.0.113.7:0");
        is(
            &["1.1.1.1,203.0.113.7 ,10.0.0.1,\t10.0.0.2"],
            "203.0.113.7:0",
        );
        is(
            &["1.1.1.1", "203.0.113.7, 10.0.0.1", "10.0.0.2"],
            "203.0.113.7:0",
        );
        is(&["not read, 203.0.113.7"], "203.0.113.7:0");
        is(&["10.0.0.9, 10.0.0.1"], "10.0.0.9:0");
        is(&["203.0.113.7:5000"], "203.0.113.7:5000");
        is(&["2001:db8::1"], "[2001:db8::1]:0");
        is(&["[2001:db8::1]"], "[2001:db8::1]:0");
        is(&["[2001:db8::1]:443"], "[2001:db8::1]:443");
        is(&["::ffff:203.0.113.7"], "203.0.113.7:0");
        is(&["203.0.113.7, ::ffff:10.0.0.1, ,"], "203.0.113.7:0");
        assert_eq!(client(&[]), None);
        assert_eq!(client(&["", " , "]), None);
    }

    #[test]
    fn what_is_no_address_is_named() {
        for wrong in [
            "unknown",
            "203.0.113.7x",
            "1.2.3",
            "[::1",
            "fe80::1%eth0",
            "::1:70000:1:1:1:1:1:1",
        ] {
            let error = client_of([wrong].into_iter(), is_trusted).unwrap_err();
            assert_eq!(error.element, wrong);
            // It is not stepped over: who stands left of it may be anybody.
            let list = format!("203.0.113.7, {wrong}, 10.0.0.1");
            assert!(
                client_of([list.as_str()].into_iter(), is_trusted).is_err(),
                "{list}"
            );
        }
        let long = "x".repeat(5_000);
        let error = client_of([long.as_str()].into_iter(), is_trusted).unwrap_err();
        assert_eq!(error.element.len(), SHOWN_CHARS_MAX);
    }

    fn element() -> impl Strategy<Value = String> {
        prop_oneof![
            "10\\.0\\.0\\.[0-9]",
            "203\\.0\\.113\\.[0-9](:[0-9]{1,5})?",
            "2001:db8::[0-9a-f]{1,4}",
            "[ -~]{0,12}",
        ]
    }

    proptest! {
        /// Whatever stands left of the first stranger changes nothing.
        #[test]
        fn nothing_left_of_the_first_stranger_is_read(
            left in proptest::collection::vec("\\PC{0,40}", 0..4),
            stranger in 0_u8..255,
            proxies in proptest::collection::vec(0_u8..255, 0..4),
        ) {
            let mut list = vec![format!("203.0.113.{stranger}")];
            list.extend(proxies.iter().map(|last| format!("10.0.0.{last}")));
            let honest = list.join(",");
            let mut lines: Vec<&str> = left.iter().map(String::as_str).collect();
            lines.push(&honest);
            let joined = lines.join(",");
            let expected = SocketAddr::from(([203, 0, 113, stranger], 0));
            for lines in [lines, vec![joined.as_str()]] {
                let found = client_of(lines.into_iter(), is_trusted);
                prop_assert_eq!(found, Ok(Some(expected)));
            }
        }

        /// Any list: no panic, and an answer that stands in it with none but proxies to its right.
        #[test]
        fn an_answer_has_only_proxies_to_its_right(
            elements in proptest::collection::vec(element(), 0..8),
        ) {
            let list = elements.join(",");
            if let Ok(Some(found)) = client_of([list.as_str()].into_iter(), is_trusted) {
                let parts: Vec<&str> = list.split(',').map(str::trim).collect();
                let at = parts.iter().rposition(|part| parse(part) == Some(found));
                let right = &parts[at.unwrap() + 1..];
                let mut right = right.iter().filter(|part| !part.is_empty());
                prop_assert!(right.all(|part| parse(part).is_some_and(|one| is_trusted(one.ip()))));
            }
        }
    }
}
