//! Heads, whole and in pieces, and what is refused by its size.

use super::*;

fn parse(text: &str) -> Result<Option<Head>, HeadError> {
    parse_head(text.as_bytes(), &HeadLimits::default())
}

fn status(text: &str) -> Option<u16> {
    parse(text).err().map(|error| error.status())
}

const REQUEST: &str = "GET /chat/x?token=a%2Eb+c&n=1&token=2 HTTP/1.1\r\nHost: h\r\n\
    X-Two:  one \r\nx-two: two\r\nUPGRADE: foo, WebSocket\r\n\r\nrest";

#[test]
fn a_head_is_read_with_its_fields() {
    let head = parse(REQUEST).unwrap().unwrap();
    assert_eq!(head.method(), "GET");
    assert_eq!(head.path(), "/chat/x");
    assert_eq!(head.query(), Some("token=a%2Eb+c&n=1&token=2"));
    assert_eq!(head.query_param("token").as_deref(), Some("a.b c"));
    assert_eq!(head.query_param("none"), None);
    assert!(head.is_version_11() && head.wants_upgrade());
    assert_eq!(head.header("x-TWO"), Some("one"));
    assert_eq!(
        head.headers_named("x-two").collect::<Vec<_>>(),
        ["one", "two"]
    );
    assert_eq!(head.headers().next(), Some(("host", "h")));
    assert_eq!(&REQUEST[head.bytes..], "rest");
}

/// T-A3: a program that logs a request logs no token
#[test]
fn a_printed_head_tells_no_token() {
    let text = "GET /ws?token=hidden HTTP/1.1\r\nAuthorization: Bearer hidden\r\n\r\n";
    let shown = format!("{:?}", parse(text).unwrap().unwrap());
    assert!(
        shown.contains("/ws") && !shown.contains("hidden"),
        "{shown}"
    );
}

#[test]
fn every_beginning_of_a_head_is_incomplete() {
    let end = REQUEST.len() - "rest".len();
    for len in 0..end {
        assert!(parse(&REQUEST[..len]).unwrap().is_none(), "{len}");
    }
    assert!(parse(&REQUEST[..end]).unwrap().is_some());
}

#[test]
fn sizes_are_limited_before_and_after_the_end() {
    let uri = "x".repeat(4096);
    assert_eq!(status(&format!("GET /{uri}")), Some(414));
    assert_eq!(status(&format!("GET /{uri} HTTP/1.1\r\n\r\n")), Some(414));
    let line = format!("a: {}\r\n", "x".repeat(1000));
    let long = format!("GET / HTTP/1.1\r\n{}", line.repeat(8));
    assert_eq!(status(&long), None);
    let long = format!("{long}{line}");
    assert_eq!(status(&long), Some(431));
    assert_eq!(status(&format!("{long}\r\n")), Some(431));
    let lines = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n));
    assert_eq!(status(&lines(64)), None);
    assert_eq!(status(&lines(65)), Some(431));
}

#[test]
fn what_is_no_request_is_refused() {
    for text in [
        "\u{16}\u{3}\u{1}",
        "GET / HTTP/2.0\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\na: b\0c\r\n\r\n",
        "G\u{1}T / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(status(text), Some(400), "{text:?}");
    }
}

#[test]
fn an_answer_is_complete() {
    let response = error_response(401, "a \"token\" is required");
    let text = std::str::from_utf8(&response).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 401 Unauthorized\r\n"));
    assert!(head.contains("\r\nconnection: close"));
    assert!(head.contains("\r\nwww-authenticate: Bearer\r\n"));
    assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())));
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["status"], 401);
    assert_eq!(body["detail"], "a \"token\" is required");
}
