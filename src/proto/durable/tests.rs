//! The frames of the seed, byte by byte, those that were added, and what is no frame.

use super::*;

fn parsed(text: &str) -> Result<String, String> {
    let mut bytes = text.as_bytes().to_vec();
    let len = bytes.len();
    let mut parser = JsonParser::default();
    parse(&mut parser, &mut Payload::new(&mut bytes, len))
        .map(|request| format!("{request:?}"))
        .map_err(|error| error.to_string())
}

fn request(text: &str, expected: &DurableRequest<'_>) {
    assert_eq!(parsed(text), Ok(format!("{expected:?}")));
}

const SUBSCRIBE: Subscribe<'_> = Subscribe {
    topic: "8f3a",
    sub_name: "A",
    from_seq: None,
    seek: false,
    max_in_flight: None,
    epoch: None,
    reference: None,
};

/// B-09, B-10, B-12
#[test]
fn requests_of_the_seed() {
    request(
        r#"{"type":"subscribe","topic":"8f3a","sub_name":"A","from_seq":0}"#,
        &DurableRequest::Subscribe(Subscribe {
            from_seq: Some(0),
            ..SUBSCRIBE
        }),
    );
    request(
        r#"{"type":"publish","topic":"8f3a","payload":"hello"}"#,
        &DurableRequest::Publish {
            topic: "8f3a",
            payload: br#""hello""#,
            idempotency_key: None,
            reference: None,
        },
    );
    request(
        r#"{"type":"ack","topic":"8f3a","sub_name":"A","seq":7}"#,
        &DurableRequest::Ack {
            topic: "8f3a",
            sub_name: "A",
            seq: 7,
            reference: None,
        },
    );
    request(r#"{"type":"ping"}"#, &DurableRequest::Ping);
}

/// D-27, D-30, D-32, D-33, D-34, D-37, D-41
#[test]
fn requests_with_everything() {
    request(
        r#"{"epoch":3,"max_in_flight":10,"seek":true,"from_seq":5,"ref":"r","sub_name":"A","topic":"8f3a","type":"subscribe"}"#,
        &DurableRequest::Subscribe(Subscribe {
            from_seq: Some(5),
            seek: true,
            max_in_flight: Some(10),
            epoch: Some(3),
            reference: Some(br#""r""#),
            ..SUBSCRIBE
        }),
    );
    request(
        r#"{"type":"subscribe","topic":"8f3a","sub_name":"A","from_seq":null,"seek":null,"ref":null,"epoch":null}"#,
        &DurableRequest::Subscribe(SUBSCRIBE),
    );
    request(
        r#"{"type":"publish","topic":"t","payload": 123456789012345678901234567890.50 ,"idempotency_key":"k","ref":1.0}"#,
        &DurableRequest::Publish {
            topic: "t",
            payload: b"123456789012345678901234567890.50",
            idempotency_key: Some("k"),
            reference: Some(b"1.0"),
        },
    );
    request(
        r#"{"type":"unsubscribe","topic":"t","sub_name":"A"}"#,
        &DurableRequest::Unsubscribe {
            topic: "t",
            sub_name: "A",
            reference: None,
        },
    );
    request(
        r#"{"type":"ack","topic":"t","sub_name":"A","seq":18446744073709551615,"ref":2}"#,
        &DurableRequest::Ack {
            topic: "t",
            sub_name: "A",
            seq: u64::MAX,
            reference: Some(b"2"),
        },
    );
    request(
        r#"{"type":"auth","token":"a.b.c"}"#,
        &DurableRequest::Auth { token: "a.b.c" },
    );
}

#[test]
fn what_is_no_request() {
    let long_ref = format!(
        r#"{{"type":"publish","topic":"t","ref":"{}"}}"#,
        "r".repeat(127)
    );
    for (text, expected) in [
        ("nope", "not valid json"),
        (
            r#"{"type":"subscribe","topic":"t"}"#,
            "missing field `sub_name`",
        ),
        (r#"{"type":"publish"}"#, "missing field `topic`"),
        (
            r#"{"type":"ack","topic":"t","sub_name":"A"}"#,
            "missing field `seq`",
        ),
        (
            r#"{"type":"ack","topic":"t","sub_name":"A","seq":-1}"#,
            "field `seq` must be a whole number",
        ),
        (
            r#"{"type":"ack","topic":"t","sub_name":"A","seq":1.5}"#,
            "field `seq` must be a whole number",
        ),
        (
            r#"{"type":"subscribe","topic":"t","sub_name":"A","from_seq":"latest"}"#,
            "field `from_seq` must be a whole number",
        ),
        (
            r#"{"type":"subscribe","topic":"t","sub_name":"A","seek":1}"#,
            "field `seek` must be true or false",
        ),
        (
            r#"{"type":"publish","topic":"t","idempotency_key":1}"#,
            "field `idempotency_key` must be a string",
        ),
        (
            r#"{"type":"publish","topic":"t","ref":{}}"#,
            "field `ref` must be a string or a number of at most 128 bytes",
        ),
        (
            &long_ref,
            "field `ref` must be a string or a number of at most 128 bytes",
        ),
        (r#"{"type":"message"}"#, "unknown type `message`"),
    ] {
        assert_eq!(parsed(text), Err(expected.to_owned()), "{text}");
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

/// B-10, B-11, D-27, D-35, D-41
#[test]
fn messages_and_their_acks() {
    let prefix = MessagePrefix::new("8f3a");
    let message = |extras| written(|out| put_message(out, &prefix, 42, b"42.50", extras));
    assert_eq!(
        message(MessageExtras::default()),
        r#"{"type":"message","topic":"8f3a","seq":42,"payload":42.50}"#
    );
    assert_eq!(
        message(MessageExtras {
            ts: Some(1_800_000_000_000),
            redelivered: true
        }),
        r#"{"type":"message","topic":"8f3a","seq":42,"payload":42.50,"ts":1800000000000,"redelivered":true}"#
    );
    assert_eq!(
        written(|out| put_pub_ack(out, "8f3a", 42, false, None)),
        r#"{"type":"pub_ack","topic":"8f3a","seq":42}"#
    );
    assert_eq!(
        written(|out| put_pub_ack(out, "8f3a", 42, true, Some(b"1"))),
        r#"{"type":"pub_ack","topic":"8f3a","seq":42,"duplicate":true,"ref":1}"#
    );
    assert_eq!(
        written(|out| put_acked(out, "8f3a", "A", 42, Some(br#""r""#))),
        r#"{"type":"acked","topic":"8f3a","sub_name":"A","seq":42,"ref":"r"}"#
    );
}

/// D-29, D-31, D-36, D-37
#[test]
fn answers_about_a_subscription() {
    let answer = Subscribed {
        topic: "8f3a",
        sub_name: "A \"1\"",
        subscription_id: "9c",
        cursor: 4,
        next_seq: 5,
        first_seq: 1,
        last_seq: 42,
        epoch: 1,
        resumed: true,
        reference: None,
    };
    assert_eq!(
        written(|out| put_subscribed(out, &answer)),
        r#"{"type":"subscribed","topic":"8f3a","sub_name":"A \"1\"","subscription_id":"9c","cursor":4,"next_seq":5,"first_seq":1,"last_seq":42,"epoch":1,"resumed":true}"#
    );
    assert_eq!(
        written(|out| put_unsubscribed(out, "8f3a", "A", None, Some(b"3"))),
        r#"{"type":"unsubscribed","topic":"8f3a","sub_name":"A","ref":3}"#
    );
    assert_eq!(
        written(|out| put_unsubscribed(out, "8f3a", "A", Some("taken_over"), None)),
        r#"{"type":"unsubscribed","topic":"8f3a","sub_name":"A","reason":"taken_over"}"#
    );
    assert_eq!(
        written(|out| put_gap(out, "8f3a", "A", 3..=9, "retention")),
        r#"{"type":"gap","topic":"8f3a","sub_name":"A","from":3,"to":9,"reason":"retention"}"#
    );
}
