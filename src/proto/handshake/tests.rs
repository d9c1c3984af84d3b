//! T-C3: a table of requests, each a change to a valid one, with the status that it must get.

use super::*;
use crate::proto::http::{HeadLimits, parse_head};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A valid request in which the line that begins with `name` is replaced by `lines`.
fn with(name: &str, lines: &str) -> String {
    let key = format!("Sec-WebSocket-Key: {KEY}");
    let valid = [
        "GET /chat HTTP/1.1",
        "Host: server.example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        &key,
        "Sec-WebSocket-Version: 13",
    ];
    let mut text = String::new();
    for line in valid.into_iter().filter(|line| !line.starts_with(name)) {
        text.push_str(line);
        text.push_str("\r\n");
    }
    if name == "GET" {
        text.insert_str(0, "\r\n");
        text.insert_str(0, lines);
    } else if !lines.is_empty() {
        text.push_str(lines);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text
}

fn plus(line: &str) -> String {
    with("no such line", line)
}

/// 101, or the status of the refusal; 0 if more is waited for.
fn status(request: &str) -> u16 {
    match parse_head(request.as_bytes(), &HeadLimits::default()) {
        Ok(Some(head)) => check(&head).map_or_else(|error| error.status(), |_| 101),
        Ok(None) => 0,
        Err(error) => error.status(),
    }
}

#[test]
fn valid_requests_are_upgraded() {
    for request in [
        plus(""),
        plus("Origin: http://example.com"),
        plus("X-Pipelined: no\r\n\r\n\u{1}\u{2}frames behind the head"),
        plus("Content-Length: 0"),
        plus("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        plus("Sec-WebSocket-Protocol: a, b"),
        plus("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b"),
        plus("Sec-WebSocket-Protocol:"),
        with("GET", "GET / HTTP/1.1"),
        with("GET", "GET /chat?token=x HTTP/1.1"),
        with("GET", "GET http://server.example.com/chat HTTP/1.1"),
        with("Host", "host: server.example.com"),
        with("Host", "HOST: [::1]:4000"),
        with("Upgrade", "UPGRADE: WebSocket"),
        with("Upgrade", "Upgrade: h2c, websocket"),
        with("Upgrade", "Upgrade: h2c\r\nUpgrade: websocket"),
        with("Connection", "connection:upgrade"),
        with("Connection", "Connection: keep-alive, Upgrade"),
        with("Connection", "Connection: keep-alive,UPGRADE ,x"),
        with(
            "Connection",
            "Connection: keep-alive\r\nConnection: Upgrade",
        ),
        with(
            "Sec-WebSocket-Key",
            "sec-websocket-key:AAAAAAAAAAAAAAAAAAAAAA==",
        ),
        with(
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Key:   ++//++//++//++//++//+w==  ",
        ),
        with("Sec-WebSocket-Version", "Sec-WebSocket-Version:13"),
        with("Sec-WebSocket-Version", "sec-websocket-version: 13"),
    ] {
        assert_eq!(status(&request), 101, "{request}");
    }
}

#[test]
fn invalid_requests_are_refused() {
    for request in [
        with("GET", "POST /chat HTTP/1.1"),
        with("GET", "get /chat HTTP/1.1"),
        with("GET", "HEAD /chat HTTP/1.1"),
        with("GET", "GET /chat HTTP/1.0"),
        with("GET", "GET /chat"),
        with("GET", "GET /a b HTTP/1.1"),
        with("Host", ""),
        with("Host", "Host: a\r\nHost: b"),
        with("Host", "Host: a, b"),
        with("Upgrade", ""),
        with("Upgrade", "Upgrade: h2c"),
        with("Upgrade", "Upgrade: websockets"),
        with("Upgrade", "Upgrade:"),
        with("Connection", ""),
        with("Connection", "Connection: keep-alive"),
        with("Connection", "Connection: not-upgrade"),
        with("Connection", "Connection: upgrade me"),
        with("Sec-WebSocket-Key", ""),
        with("Sec-WebSocket-Key", "Sec-WebSocket-Key:"),
        with("Sec-WebSocket-Key", "Sec-WebSocket-Key: short"),
        with(
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA",
        ),
        with(
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=",
        ),
        with(
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAA-==",
        ),
        with(
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Key: AAAAAAAAAA-_AAAAAAAAAA==",
        ),
        with(
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==x",
        ),
        with("Sec-WebSocket-Key", "Sec-WebSocket-Key: ééééééééééé=="),
        plus(&format!("Sec-WebSocket-Key: {KEY}")),
        with("Sec-WebSocket-Version", ""),
        with("Sec-WebSocket-Version", "Sec-WebSocket-Version:"),
        with("Sec-WebSocket-Version", "Sec-WebSocket-Version: 13, 8"),
        plus("Sec-WebSocket-Version: 13"),
        plus("Sec-WebSocket-Version: 8"),
        plus("Sec-WebSocket-Protocol: a b"),
        plus("Sec-WebSocket-Protocol: \"a\""),
        plus("Content-Length: 5"),
        plus("Content-Length: 00"),
        plus("Content-Length: 0\r\nContent-Length: 0"),
        plus("Content-Length: -1"),
        plus("Transfer-Encoding: chunked"),
        plus("Transfer-Encoding: identity"),
        plus("Content-Length: 0\r\nTransfer-Encoding: chunked"),
        plus("X-Folded: a\r\n b"),
        plus("X-Space : a"),
        plus("X Space: a"),
        plus(": a"),
        plus("X-Nul: a\0b"),
        plus("X-Return: a\rb"),
    ] {
        assert_eq!(status(&request), 400, "{request}");
    }
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    for version in ["8", "0", "14", "-13", "013", "x", "13;"] {
        let line = format!("Sec-WebSocket-Version: {version}");
        let request = with("Sec-WebSocket-Version", &line);
        assert_eq!(status(&request), 426, "{version}");
    }
    let response = HandshakeError::Version.response();
    let text = std::str::from_utf8(&response).unwrap();
    assert!(text.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
    assert!(text.contains("\r\nsec-websocket-version: 13\r\n"));
}

/// The example of RFC 6455 section 1.3.
#[test]
fn the_answer_proves_that_the_key_was_read() {
    let request = plus("Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Protocol: x");
    let head = parse_head(request.as_bytes(), &HeadLimits::default());
    let upgrade = check(&head.unwrap().unwrap()).unwrap();
    assert_eq!(upgrade.accept_key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(upgrade.protocols, ["chat", "superchat", "x"]);
    assert_eq!(
        &response(&upgrade, Some("chat"), None)[..],
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: chat\r\n\r\n"
    );
    let text = response(&upgrade, None, upgrade.deflate);
    assert!(!text.windows(8).any(|window| window == b"protocol"));
}

/// What another library has parsed is checked by the same rules.
#[test]
fn parts_are_checked_like_heads() {
    let header = |name: &str| match name {
        "host" => Some("h".into()),
        "upgrade" => Some("websocket".into()),
        "connection" => Some("upgrade".into()),
        "sec-websocket-key" => Some(KEY.into()),
        "sec-websocket-version" => Some("13".into()),
        _ => None,
    };
    assert!(check_parts("GET", true, &header).is_ok());
    assert_eq!(
        check_parts("GET", false, &header),
        Err(HandshakeError::HttpVersion)
    );
    assert_eq!(joined(["a", "b"].into_iter()).as_deref(), Some("a, b"));
    assert_eq!(joined([].into_iter()), None);
}
