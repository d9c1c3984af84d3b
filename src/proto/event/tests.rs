//! Envelopes of the seed, byte by byte, and what is no envelope.

use serde_json::Value;

use super::*;

fn with<T>(text: &[u8], f: impl FnOnce(Result<Envelope<'_>, InvalidEnvelope>) -> T) -> T {
    let mut bytes = text.to_vec();
    let len = bytes.len();
    f(parse(
        &mut JsonParser::default(),
        &mut Payload::new(&mut bytes, len),
    ))
}

fn assert_parts(text: &str, event: &str, data: &str, id: Option<&str>) {
    with(text.as_bytes(), |envelope| {
        let envelope = envelope.unwrap();
        assert_eq!(envelope.event, event);
        assert_eq!(envelope.data, data.as_bytes());
        assert_eq!(envelope.id, id.map(str::as_bytes));
    });
}

/// M-01, M-06, D-13
#[test]
fn envelopes_are_read() {
    assert_parts(
        r#"{"event":"presence","data":null}"#,
        "presence",
        "null",
        None,
    );
    assert_parts(r#"{"event":"ping"}"#, "ping", "null", None);
    assert_parts(
        r#"{"event":"presence","id":7}"#,
        "presence",
        "null",
        Some("7"),
    );
    assert_parts(
        r#" {"id" : "a\"b","x":1, "data":{ "total": 42.50 },"event":"caf\u00e9"} "#,
        "café",
        r#"{ "total": 42.50 }"#,
        Some(r#""a\"b""#),
    );
    for id in ["null", "true", "[1]", "{}"] {
        assert_parts(&format!(r#"{{"event":"e","id":{id}}}"#), "e", "null", None);
    }
    let long = format!(r#"{{"event":"e","id":"{}"}}"#, "x".repeat(127));
    assert_parts(&long, "e", "null", None);
}

/// M-03, M-06, X-07
#[test]
fn data_is_read_as_a_type() {
    let read = |text: &str| with(text.as_bytes(), |it| it.unwrap().read::<Value>()).unwrap();
    assert_eq!(
        read(r#"{"data":{"a":[1,"\n"]},"event":"e"}"#),
        serde_json::json!({"a":[1,"\n"]})
    );
    assert_eq!(read(r#"{"event":"e"}"#), Value::Null);
    let text = r#"{"event":"e","data":5}"#;
    let error = with(text.as_bytes(), |it| it.unwrap().read::<String>()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid type: integer `5`, expected a string"
    );
}

/// X-07, D-07
#[test]
fn what_is_no_envelope() {
    for text in [
        "hello",
        "[]",
        "5",
        r#"{"data":1}"#,
        r#"{"event":1}"#,
        r#"{"event":null}"#,
        "{",
        "",
    ] {
        let error = with(text.as_bytes(), |it| it.map(|_| ())).unwrap_err();
        assert_eq!(error, InvalidEnvelope::Shape, "{text}");
        assert_eq!(error.to_string(), "invalid envelope");
    }
    let error = with(b"{\"event\":\"\xff\"}", |it| it.map(|_| ())).unwrap_err();
    assert_eq!(error, InvalidEnvelope::Utf8);
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

fn envelope(event: &str, data: &impl Serialize, id: Option<&[u8]>) -> String {
    written(|out| {
        begin_envelope(out, event);
        serde_json::to_writer(&mut *out, data).unwrap();
        end_envelope(out, id);
    })
}

/// M-11, M-14, D-13
#[test]
fn replies_of_the_seed() {
    assert_eq!(
        envelope("presence", &1, None),
        r#"{"event":"presence","data":1}"#
    );
    assert_eq!(
        envelope("presence", &1, Some(b"7")),
        r#"{"event":"presence","data":1,"id":7}"#
    );
    let mut reply = ErrorData {
        error: "text must not be empty",
        errors: None,
    };
    assert_eq!(
        envelope("send", &reply, None),
        r#"{"event":"send","data":{"error":"text must not be empty"}}"#
    );
    let errors = serde_json::json!({});
    reply.errors = Some(&errors);
    assert_eq!(
        envelope("send", &reply, Some(br#""x""#)),
        r#"{"event":"send","data":{"error":"text must not be empty","errors":{}},"id":"x"}"#
    );
}
