//! The frames of the seed, byte by byte, and what is no frame.

use super::*;
use crate::proto::ErrorCode;

fn parsed(text: &str) -> Result<String, String> {
    let mut bytes = text.as_bytes().to_vec();
    let len = bytes.len();
    let mut parser = JsonParser::default();
    let mut payload = Payload::new(&mut bytes, len);
    parse(&mut parser, &mut payload)
        .map(|request| format!("{request:?}"))
        .map_err(|error| error.to_string())
}

fn request(text: &str, expected: &RelayRequest<'_>) {
    assert_eq!(parsed(text), Ok(format!("{expected:?}")));
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

/// R-08
#[test]
fn requests_of_the_seed() {
    request(
        r#"{"type": "subscribe", "topic": "orders:new"}"#,
        &RelayRequest::Subscribe {
            topic: "orders:new",
            wishes: Wishes::default(),
        },
    );
    request(
        r#"{"type":"subscribe","topic":"t","presence":true,"last":true}"#,
        &RelayRequest::Subscribe {
            topic: "t",
            wishes: Wishes {
                presence: true,
                last: true,
            },
        },
    );
    request(
        r#"{"type": "unsubscribe", "topic": "orders:new"}"#,
        &RelayRequest::Unsubscribe {
            topic: "orders:new",
        },
    );
    request(
        r#"{"type": "message", "topic": "chat:lobby", "event": "say", "payload": {"text": "hello"}}"#,
        &RelayRequest::Message {
            topic: "chat:lobby",
            event: "say",
            payload: br#"{"text": "hello"}"#,
        },
    );
    request(r#"{"type": "ping"}"#, &RelayRequest::Ping);
    request(
        r#"{"type":"auth","token":"a.b.c"}"#,
        &RelayRequest::Auth { token: "a.b.c" },
    );
}

/// D-04, D-41: any order of keys, any white space, more fields, and payloads as they were written.
#[test]
fn requests_in_any_order_with_more_fields() {
    request(
        " {\"payload\" : 42.50 , \"x\":[1,{}],\n\"event\":\"e\",\"topic\":\"caf\\u00e9 \\\"q\\\"\",\"type\":\"message\"} ",
        &RelayRequest::Message {
            topic: "café \"q\"",
            event: "e",
            payload: b"42.50",
        },
    );
    request(
        r#"{"type":"message","topic":"t","event":"e"}"#,
        &RelayRequest::Message {
            topic: "t",
            event: "e",
            payload: b"null",
        },
    );
}

/// X-20: the text behind `invalid message: `.
#[test]
fn what_is_no_request() {
    for (text, expected) in [
        ("hello", "not valid json"),
        ("[]", "not a json object"),
        ("{}", "missing field `type`"),
        (r#"{"type":1}"#, "field `type` must be a string"),
        (r#"{"type":"nope"}"#, "unknown type `nope`"),
        (r#"{"type":"subscribe"}"#, "missing field `topic`"),
        (
            r#"{"type":"subscribe","topic":null}"#,
            "missing field `topic`",
        ),
        (r#"{"type":"message","topic":"t"}"#, "missing field `event`"),
        (r#"{"type":"auth"}"#, "missing field `token`"),
    ] {
        assert_eq!(parsed(text), Err(expected.to_owned()), "{text}");
    }
    let long = format!(r#"{{"type":"{}"}}"#, "é".repeat(1000));
    assert_eq!(
        parsed(&long).unwrap_err().len(),
        "unknown type ``".len() + 32
    );
}

/// R-09, D-20
#[test]
fn answers_of_the_seed() {
    assert_eq!(
        written(|out| put_subscribed(out, "orders:new")),
        r#"{"type":"subscribed","topic":"orders:new"}"#
    );
    assert_eq!(
        written(|out| put_unsubscribed(out, "orders:new")),
        r#"{"type":"unsubscribed","topic":"orders:new"}"#
    );
    assert_eq!(
        written(|out| put_push(out, "orders:new", "created", br#"{"id":1,"total":42.50}"#)),
        r#"{"type":"push","topic":"orders:new","event":"created","payload":{"id":1,"total":42.50}}"#
    );
    assert_eq!(written(put_pong), r#"{"type":"pong"}"#);
    assert_eq!(
        written(|out| put_lagged(out, "a\"b", 7)),
        r#"{"type":"lagged","topic":"a\"b","missed":7}"#
    );
    assert_eq!(
        written(|out| put_token_expiring(out, 60)),
        r#"{"type":"token_expiring","seconds":60}"#
    );
}

/// R-09, D-08
#[test]
fn errors_with_and_without_more_fields() {
    let mut error = ErrorFrame {
        message: "not subscribed to chat:lobby",
        ..ErrorFrame::default()
    };
    assert_eq!(
        written(|out| put_error(out, &error)),
        r#"{"type":"error","message":"not subscribed to chat:lobby"}"#
    );
    error.code = Some(ErrorCode::NotSubscribed);
    error.topic = Some("chat:lobby");
    error.sub_name = Some("A");
    error.reference = Some(b"7");
    assert_eq!(
        written(|out| put_error(out, &error)),
        r#"{"type":"error","message":"not subscribed to chat:lobby","code":"not_subscribed","topic":"chat:lobby","sub_name":"A","ref":7}"#
    );
}
