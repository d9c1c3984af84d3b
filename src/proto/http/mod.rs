//! Heads of HTTP/1.1 requests, parsed by httparse, and tiny answers. Knows no routes and no
//! bodies: what is more than a head is served by an HTTP library elsewhere.

use std::fmt;

use bytes::Bytes;
use http::StatusCode;

use super::json;

/// How long a head may be.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// The whole head, with the empty line.
    pub head_bytes_max: usize,
    /// The number of header lines.
    pub headers_max: usize,
    /// The target: path and query.
    pub uri_bytes_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 8 << 10,
            headers_max: 64,
            uri_bytes_max: 4 << 10,
        }
    }
}

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The bytes cannot be read as a request.
    #[error("the request head is malformed")]
    Malformed,
    /// The target is too long.
    #[error("target of {bytes} bytes or more exceeds uri_bytes_max = {max}")]
    UriTooLong {
        /// Its length, as far as it has arrived.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The head is too long.
    #[error("head of {bytes} bytes or more exceeds head_bytes_max = {max}")]
    HeadTooLong {
        /// Its length, as far as it has arrived.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The Host header that HTTP/1.1 asks for is missing, stands twice, or names no host.
    #[error("a request must have one valid host header")]
    Host,
    /// The head has too many lines.
    #[error("the head has more headers than headers_max = {max}")]
    TooManyHeaders {
        /// The limit.
        max: usize,
    },
}

impl HeadError {
    /// The status to answer with.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed | Self::Host => 400,
            Self::UriTooLong { .. } => 414,
            Self::HeadTooLong { .. } | Self::TooManyHeaders { .. } => 431,
        }
    }

    /// The whole answer, after which the connection is closed.
    pub fn response(&self) -> Bytes {
        error_response(self.status(), &self.to_string())
    }
}

/// The head of a request. Its text lies in one piece: heads are kept as long as connections.
#[derive(Clone)]
pub struct Head {
    text: Box<str>,
    method: Span,
    target: Span,
    headers: Box<[HeaderLine]>,
    is_version_11: bool,
    /// How many bytes of the input the head takes.
    pub bytes: usize,
}

/// Without query and headers: tokens stand there, and whoever prints a request means no harm.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("method", &self.method())
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

/// Where something stands in the text of a head.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of(self, text: &str) -> &str {
        &text[self.start as usize..self.end as usize]
    }
}

#[derive(Debug, Clone)]
struct HeaderLine {
    name: Span,
    value: Span,
}

// One for each header of each connection whose handler may ask for it.
const _: () = assert!(size_of::<HeaderLine>() <= 16);

impl Head {
    /// The head of a request that another HTTP library has parsed, as it would have been read here.
    pub fn of_parts<'v>(
        method: &str,
        target: &str,
        is_version_11: bool,
        lines: impl Iterator<Item = (&'v str, &'v [u8])>,
    ) -> Self {
        own(method, target, lines, is_version_11, 0)
    }

    /// The method, as it was written.
    pub fn method(&self) -> &str {
        self.method.of(&self.text)
    }

    /// Path and query, as they were written; of an absolute target what stands behind the host.
    pub fn target(&self) -> &str {
        self.target.of(&self.text)
    }

    /// The target up to its question mark.
    pub fn path(&self) -> &str {
        self.target()
            .split_once('?')
            .map_or_else(|| self.target(), |(path, _)| path)
    }

    /// The target behind its question mark.
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// The decoded value of the first parameter of this name in the query.
    pub fn query_param(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.query()?.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// Whether it asks for another protocol.
    pub fn is_upgrade(&self) -> bool {
        self.header("upgrade").is_some()
    }

    /// Is it HTTP/1.1? Else it is 1.0.
    pub fn is_version_11(&self) -> bool {
        self.is_version_11
    }

    /// The value of the first header of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers_named(name).next()
    }

    /// The values of all headers of this name.
    pub fn headers_named(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        self.headers()
            .filter(move |(key, _)| *key == name || key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All headers in their order: names in lower case, and values.
    pub fn headers(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        let lines = self.headers.iter();
        lines.map(|line| (line.name.of(&self.text), line.value.of(&self.text)))
    }

    /// Does it ask for a WebSocket? Whether rightly, the handshake tells.
    pub fn wants_upgrade(&self) -> bool {
        self.headers_named("upgrade")
            .any(|value| has_token(value, "websocket"))
    }
}

/// Checks the Host header by RFC 9112, 3.2: one line in HTTP/1.1, at most one in HTTP/1.0, that
/// names a host. The same for every request, whoever has parsed it.
pub fn check_host<'v>(
    mut lines: impl Iterator<Item = &'v [u8]>,
    is_version_11: bool,
) -> Result<(), HeadError> {
    match (lines.next(), lines.next()) {
        (None, _) if !is_version_11 => Ok(()),
        (Some(host), None) if is_host(host) => Ok(()),
        _ => Err(HeadError::Host),
    }
}

/// Is this a host with or without a port? An address of IPv6 stands in brackets. A comma, which a
/// name may have by the letter of RFC 3986, is how some join two headers, so it is refused.
pub(super) fn is_host(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    let (host, port) = match text.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else {
                return false;
            };
            let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
            if address.parse::<core::net::Ipv6Addr>().is_err() {
                return false;
            }
            (&rest[..end], &rest[end + 1..])
        }
        None => {
            let end = text.iter().position(|byte| *byte == b':');
            let (host, port) = text.split_at(end.unwrap_or(text.len()));
            if !is_name(host) {
                return false;
            }
            (host, port)
        }
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit) && digits.len() <= 5,
        _ => false,
    };
    !host.is_empty() && is_port
}

/// A registered name or an address of IPv4: unreserved characters, escapes, and some others.
fn is_name(host: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte);
    let mut rest = host;
    loop {
        rest = match rest {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [first, rest @ ..] if plain(*first) => rest,
            _ => return false,
        };
    }
}

/// An answer to HEAD: the same head, and no body (RFC 9110, 9.3.2).
pub fn without_body(response: Bytes) -> Bytes {
    let end = response.windows(4).position(|four| four == b"\r\n\r\n");
    match end {
        Some(end) => response.slice(..end + 4),
        None => response,
    }
}

/// Is `token` an element of the comma-separated `list`, in whatever case?
pub(super) fn has_token(list: &str, token: &str) -> bool {
    list.split(',')
        .any(|element| element.trim().eq_ignore_ascii_case(token))
}

/// The head at the start of `input`, or `None` if there is not all of it yet.
///
/// Only a whole head is parsed, so a peer that sends it byte by byte costs a search for its end
/// each time and no more.
pub fn parse_head(input: &[u8], limits: &HeadLimits) -> Result<Option<Head>, HeadError> {
    if !input.first().is_none_or(|first| may_begin(*first)) {
        return Err(HeadError::Malformed);
    }
    let is_whole = has_end(input);
    let parsed = if is_whole {
        parse_whole(input, limits)?
    } else {
        None
    };
    match &parsed {
        Some(head) => check_sizes(head.bytes, head.target().len(), limits)?,
        None => check_sizes(input.len(), target_so_far(input), limits)?,
    }
    Ok(parsed)
}

fn parse_whole(input: &[u8], limits: &HeadLimits) -> Result<Option<Head>, HeadError> {
    let mut lines = vec![httparse::EMPTY_HEADER; limits.headers_max];
    let mut request = httparse::Request::new(&mut lines);
    let status = request.parse(input).map_err(|error| match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders {
            max: limits.headers_max,
        },
        _ => HeadError::Malformed,
    })?;
    match (status, request.method, request.path) {
        (httparse::Status::Complete(bytes), Some(method), Some(target)) => {
            let is_version_11 = request.version == Some(1);
            let lines = request.headers.iter().map(|line| (line.name, line.value));
            Ok(Some(own(method, target, lines, is_version_11, bytes)))
        }
        _ => Ok(None),
    }
}

fn own<'v>(
    method: &str,
    target: &str,
    lines: impl Iterator<Item = (&'v str, &'v [u8])>,
    is_version_11: bool,
    bytes: usize,
) -> Head {
    let mut text = String::with_capacity(bytes);
    let method = append(&mut text, method);
    let target = append(&mut text, origin_form(target));
    let headers = lines
        .map(|(name, value)| HeaderLine {
            name: append_lower(&mut text, name),
            value: append(&mut text, String::from_utf8_lossy(value).trim()),
        })
        .collect();
    Head {
        text: text.into(),
        method,
        target,
        headers,
        is_version_11,
        bytes,
    }
}

/// A target without the scheme and the host that proxies put in front of it (RFC 9112, 3.2.2).
fn origin_form(target: &str) -> &str {
    let Some((scheme, rest)) = target.split_once("://") else {
        return target;
    };
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return target;
    }
    rest.find('/').map_or("/", |at| &rest[at..])
}

fn append(text: &mut String, piece: &str) -> Span {
    let start = end_of(text);
    text.push_str(piece);
    let end = end_of(text);
    Span { start, end }
}

fn append_lower(text: &mut String, piece: &str) -> Span {
    let span = append(text, piece);
    text[span.start as usize..].make_ascii_lowercase();
    span
}

/// A head ends far below what this can count: `head_bytes_max` is at most a mebibyte.
fn end_of(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

fn check_sizes(bytes: usize, target_bytes: usize, limits: &HeadLimits) -> Result<(), HeadError> {
    if limits.uri_bytes_max < target_bytes {
        return Err(HeadError::UriTooLong {
            bytes: target_bytes,
            max: limits.uri_bytes_max,
        });
    }
    if limits.head_bytes_max < bytes {
        return Err(HeadError::HeadTooLong {
            bytes,
            max: limits.head_bytes_max,
        });
    }
    Ok(())
}

/// The length of the target in a head that is not whole: what stands behind the first space.
fn target_so_far(input: &[u8]) -> usize {
    let line = input
        .split(|byte| *byte == b'\n')
        .find(|line| !line.trim_ascii().is_empty())
        .unwrap_or_default();
    line.split(|byte| *byte == b' ')
        .nth(1)
        .map_or(0, <[u8]>::len)
}

/// Requests begin with a method, or with empty lines that are skipped; a TLS greeting does not.
fn may_begin(first: u8) -> bool {
    first.is_ascii_alphabetic() || first == b'\r' || first == b'\n'
}

/// Is there an empty line behind a line?
fn has_end(input: &[u8]) -> bool {
    let is_end = |at: usize| matches!(input[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]);
    (0..input.len()).any(|at| input[at] == b'\n' && is_end(at))
}

/// A complete response that says why the request was refused, as an RFC 9457 problem document,
/// and closes the connection.
pub fn error_response(status: u16, reason: &str) -> Bytes {
    problem_response(status, reason, advice(status))
}

/// The same with more header lines, each ended by CR LF.
pub(super) fn problem_response(status: u16, reason: &str, header_lines: &str) -> Bytes {
    let title = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error");
    let mut body = Vec::new();
    body.extend_from_slice(br#"{"type":"about:blank","title":"#);
    json::put_string(&mut body, title);
    body.extend_from_slice(br#","status":"#);
    json::put_u64(&mut body, status.into());
    body.extend_from_slice(br#","detail":"#);
    json::put_string(&mut body, reason);
    body.push(b'}');
    let mut out = format!(
        "HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n\
         content-length: {}\r\n{header_lines}connection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(&body);
    out.into()
}

/// What the peer may do about it.
fn advice(status: u16) -> &'static str {
    match status {
        401 => "www-authenticate: Bearer\r\n",
        429 | 503 => "retry-after: 1\r\n",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
