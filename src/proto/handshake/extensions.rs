//! The header `Sec-WebSocket-Extensions`: which offer of permessage-deflate is taken, and how it is
//! answered (RFC 7692 section 7). Knows texts; not whether a mount compresses.
//!
//! No window is ever kept between messages, on either side: a connection then owns no state, and
//! the compressed bytes of one message serve all its receivers.

/// The windows that messages to a client are compressed with: two classes of bytes at most, so that
/// receivers can share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// 32 KiB, what a client takes that names no limit.
    Bits15,
    /// 512 B, what every client takes that names a smaller limit.
    Bits9,
}

/// An accepted offer of permessage-deflate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// What messages to this client are compressed with.
    pub window: Window,
    /// `server_max_window_bits` as the client wrote it: it is answered with the same number.
    bits: Option<u8>,
}

impl Deflate {
    /// The value of the header of the answer.
    pub fn answer(&self) -> String {
        let mut answer = ANSWER.to_owned();
        if let Some(bits) = self.bits {
            answer.push_str("; server_max_window_bits=");
            answer.push_str(&bits.to_string());
        }
        answer
    }
}

const NAME: &str = "permessage-deflate";
const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The first acceptable offer of `offers`, all values of the header as one list. A list that does
/// not follow the grammar offers nothing: an extension is never a reason to refuse an upgrade.
pub fn deflate_of(offers: &str, user_agent: &str) -> Option<Deflate> {
    if is_deaf_safari(user_agent) {
        return None;
    }
    split(offers, ',').find_map(|offer| accepted(offer?))
}

/// Safari 15.0 to 15.3 accept `client_no_context_takeover` and then keep their window all the same.
fn is_deaf_safari(user_agent: &str) -> bool {
    let version = user_agent.split(" Version/15.").nth(1);
    let minor = version.and_then(|rest| rest.bytes().next());
    let is_single = version
        .and_then(|rest| rest.as_bytes().get(1))
        .is_none_or(|next| !next.is_ascii_digit());
    user_agent.contains(" Safari/") && is_single && minor.is_some_and(|it| b"0123".contains(&it))
}

/// One offer with its parameters, if it is one that can be kept.
fn accepted(offer: &str) -> Option<Deflate> {
    let mut parts = split(offer, ';');
    if !parts.next()??.trim().eq_ignore_ascii_case(NAME) {
        return None;
    }
    let mut seen = Parameters::default();
    for parameter in parts {
        seen.take(parameter?)?;
    }
    let window = match seen.server_bits {
        Some(9..15) => Window::Bits9,
        _ => Window::Bits15,
    };
    Some(Deflate {
        window,
        bits: seen.server_bits,
    })
}

/// The parameters of one offer; each may stand once.
#[derive(Default)]
struct Parameters {
    server_takeover: bool,
    client_takeover: bool,
    client_bits: bool,
    server_bits: Option<u8>,
}

impl Parameters {
    /// Takes one parameter, or declines the offer.
    fn take(&mut self, parameter: &str) -> Option<()> {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim())?)),
            None => (parameter.trim(), None),
        };
        let once = |flag: &mut bool| (!std::mem::replace(flag, true)).then_some(());
        match (name.to_ascii_lowercase().as_str(), value) {
            ("server_no_context_takeover", None) => once(&mut self.server_takeover),
            ("client_no_context_takeover", None) => once(&mut self.client_takeover),
            ("client_max_window_bits", None) => once(&mut self.client_bits),
            ("client_max_window_bits", Some(value)) => {
                bits(value, 8)?;
                once(&mut self.client_bits)
            }
            // 8 is declined: the library makes a window of 9 of it.
            ("server_max_window_bits", Some(value)) if self.server_bits.is_none() => {
                self.server_bits = Some(bits(value, 9)?);
                Some(())
            }
            _ => None,
        }
    }
}

/// A number of bits without leading zeros, from `min` to 15.
fn bits(value: &str, min: u8) -> Option<u8> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    let number = value.parse().ok().filter(|_| is_plain)?;
    (min..=15).contains(&number).then_some(number)
}

/// A value without its quotes, if it has some and they are whole.
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest
            .strip_suffix('"')
            .filter(|inner| !inner.contains(['"', '\\'])),
        None => Some(value).filter(|value| !value.is_empty()),
    }
}

/// The elements of a list, separated where no quotes are open; `None` for one whose quotes are not
/// closed.
fn split(list: &str, separator: char) -> impl Iterator<Item = Option<&str>> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let list = rest.take()?;
        let mut is_quoted = false;
        let mut is_escaped = false;
        for (at, character) in list.char_indices() {
            match character {
                _ if is_escaped => is_escaped = false,
                '\\' if is_quoted => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                _ if character == separator && !is_quoted => {
                    rest = Some(&list[at + separator.len_utf8()..]);
                    return Some(Some(&list[..at]));
                }
                _ => {}
            }
        }
        Some((!is_quoted).then_some(list))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(offers: &str) -> Option<String> {
        deflate_of(offers, "").map(|deflate| deflate.answer())
    }

    /// Z-02, Z-03, Z-04: each form of an offer and its answer.
    #[test]
    fn offers_are_answered_as_the_table_says() {
        let plain = Some(ANSWER.to_owned());
        let with = |bits: u8| Some(format!("{ANSWER}; server_max_window_bits={bits}"));
        for (offers, expected) in [
            ("", None),
            ("x-webkit-deflate-frame", None),
            ("permessage-bzip2; a=1", None),
            ("permessage-deflate", plain.clone()),
            ("Permessage-Deflate", plain.clone()),
            ("permessage-deflate; client_max_window_bits", plain.clone()),
            (
                "permessage-deflate; client_max_window_bits=8",
                plain.clone(),
            ),
            (
                "permessage-deflate;client_max_window_bits=15",
                plain.clone(),
            ),
            ("permessage-deflate; client_max_window_bits=16", None),
            ("permessage-deflate; client_max_window_bits=7", None),
            (
                "permessage-deflate; server_no_context_takeover",
                plain.clone(),
            ),
            (
                "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
                plain.clone(),
            ),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; client_no_context_takeover=\"\"", None),
            ("permessage-deflate; server_max_window_bits=9", with(9)),
            ("permessage-deflate; server_max_window_bits=12", with(12)),
            ("permessage-deflate; server_max_window_bits=15", with(15)),
            (
                "permessage-deflate; server_max_window_bits=\"10\"",
                with(10),
            ),
            ("permessage-deflate; server_max_window_bits=8", None),
            ("permessage-deflate; server_max_window_bits=7", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=09", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=", None),
            ("permessage-deflate; server_max_window_bits=+9", None),
            (
                "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
                None,
            ),
            (
                "permessage-deflate; client_max_window_bits; client_max_window_bits",
                None,
            ),
            (
                "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
                None,
            ),
            ("permessage-deflate; unknown, permessage-deflate", plain),
            ("permessage-deflate;", None),
            (
                "foo; a=\"x, permessage-deflate\", permessage-deflate; server_max_window_bits=9",
                with(9),
            ),
            ("foo; a=\"unclosed, permessage-deflate", None),
        ] {
            assert_eq!(answer(offers), expected, "{offers}");
        }
    }

    #[test]
    fn smaller_windows_are_of_one_class() {
        let window = |bits: u8| {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            deflate_of(&offer, "").map(|deflate| deflate.window)
        };
        assert_eq!(window(15), Some(Window::Bits15));
        for bits in 9..15 {
            assert_eq!(window(bits), Some(Window::Bits9));
        }
    }

    /// Z-05
    #[test]
    fn safari_that_keeps_its_window_gets_no_extension() {
        let agent = |version: &str| {
            format!(
                "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 Version/{version} Safari/605.1.15"
            )
        };
        for (version, takes) in [
            ("15.0", false),
            ("15.3", false),
            ("15.3.1", false),
            ("15.4", true),
            ("15.10", true),
            ("14.1", true),
            ("16.0", true),
        ] {
            let found = deflate_of("permessage-deflate", &agent(version));
            assert_eq!(found.is_some(), takes, "{version}");
        }
        assert!(deflate_of("permessage-deflate", "Version/15.1 Chrome/1").is_some());
    }

    proptest! {
        #[test]
        fn any_list_is_answered_or_left(offers in "[a-z_=;,\"\\\\ 0-9-]{0,80}") {
            let _ = deflate_of(&offers, "");
            let _ = deflate_of(&format!("permessage-deflate; {offers}"), "");
        }
    }
}
