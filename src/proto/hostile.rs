//! All codecs against made-up and damaged bytes: nothing panics, what is accepted is sound, and
//! what is written can be read.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::json::JsonParser;
use super::ws::Payload;
use super::{ErrorCode, durable, event, handshake, http, relay};

const HEAD: &str = "GET /ws?token=a.b.c HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: bearer, a.b.c\r\n\r\n";

const REQUESTS: [&str; 9] = [
    r#"{"type":"subscribe","topic":"t","sub_name":"A","from_seq":0,"seek":true,"epoch":1}"#,
    r#"{"type":"unsubscribe","topic":"t","sub_name":"A"}"#,
    r#"{"type":"message","topic":"t","event":"e","payload":{"a":[1,2.50,"\u00e9"]}}"#,
    r#"{"type":"publish","topic":"t","payload":[null],"idempotency_key":"k","ref":"r"}"#,
    r#"{"type":"ack","topic":"t","sub_name":"A","seq":7,"ref":1}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"auth","token":"a.b.c"}"#,
    r#"{"event":"send","data":{"author":"ada","text":"\"hi\""},"id":"x"}"#,
    r#"{"event":"ping"}"#,
];

type Damage = Vec<(usize, u8, u8)>;

fn any_damage() -> impl Strategy<Value = Damage> {
    let interesting = prop_oneof![
        any::<u8>(),
        Just(b'"'),
        Just(b'\\'),
        Just(b','),
        Just(b'\n')
    ];
    proptest::collection::vec((any::<usize>(), interesting, 0_u8..4), 0..4)
}

fn damaged(text: &str, damage: &Damage) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for &(at, byte, kind) in damage {
        let at = at % (bytes.len() + 1);
        match kind {
            0 => bytes.insert(at, byte),
            1 => bytes.truncate(at.max(1)),
            _ if at < bytes.len() && kind == 2 => drop(bytes.remove(at)),
            _ if at < bytes.len() => bytes[at] = byte,
            _ => {}
        }
    }
    bytes
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok()
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut out = Vec::new();
    write(&mut out);
    serde_json::from_slice(&out).unwrap()
}

/// Reads with `parse` and gives the spans of what was read.
fn check_relay(bytes: &mut [u8]) {
    let (len, is_valid) = (bytes.len(), is_json(bytes));
    let mut parser = JsonParser::default();
    if let Ok(request) = relay::parse(&mut parser, &mut Payload::new(bytes, len)) {
        assert!(is_valid);
        if let relay::RelayRequest::Message { payload, .. } = request {
            assert!(is_json(payload));
        }
    }
}

fn check_durable(bytes: &mut [u8]) {
    use durable::DurableRequest as Request;
    let (len, is_valid) = (bytes.len(), is_json(bytes));
    let mut parser = JsonParser::default();
    if let Ok(request) = durable::parse(&mut parser, &mut Payload::new(bytes, len)) {
        assert!(is_valid);
        let (payload, reference) = match request {
            Request::Publish {
                payload, reference, ..
            } => (Some(payload), reference),
            Request::Ack { reference, .. } | Request::Unsubscribe { reference, .. } => {
                (None, reference)
            }
            Request::Subscribe(subscribe) => (None, subscribe.reference),
            Request::Ping | Request::Auth { .. } => (None, None),
        };
        assert!([payload, reference].into_iter().flatten().all(is_json));
    }
}

fn check_event(bytes: &mut [u8]) {
    let (len, is_valid) = (bytes.len(), is_json(bytes));
    let mut parser = JsonParser::default();
    if let Ok(envelope) = event::parse(&mut parser, &mut Payload::new(bytes, len)) {
        assert!(is_valid);
        assert!(is_json(envelope.data) && envelope.id.is_none_or(is_json));
        let expected: Value = serde_json::from_slice(envelope.data).unwrap();
        let read: Value = envelope.read().unwrap();
        assert_eq!(read.is_object(), expected.is_object());
    }
}

proptest! {
    #![proptest_config(super::proptest_config())]

    /// P11, P16, T-F3, T-F4
    #[test]
    fn damaged_requests_are_refused_or_sound(which in 0..REQUESTS.len(), damage in any_damage()) {
        let mut bytes = damaged(REQUESTS[which], &damage);
        check_relay(&mut bytes);
        check_durable(&mut bytes);
        check_event(&mut bytes);
    }

    /// P11, P16, T-C3, T-F1
    #[test]
    fn damaged_heads_are_refused_or_sound(damage in any_damage(), tail in any::<[u8; 8]>()) {
        let limits = http::HeadLimits::default();
        let mut bytes = damaged(HEAD, &damage);
        let head_bytes = bytes.len();
        bytes.extend_from_slice(&tail);
        if let Ok(Some(head)) = http::parse_head(&bytes, &limits) {
            prop_assert!(head.bytes <= bytes.len());
            prop_assert!(head.headers().all(|(name, _)| name == name.to_ascii_lowercase()));
            prop_assert!(head.target().starts_with(head.path()));
            let again = http::parse_head(&bytes[..head.bytes], &limits).unwrap().unwrap();
            prop_assert_eq!(again.bytes, head.bytes);
            for len in 0..head.bytes.min(head_bytes) {
                prop_assert!(http::parse_head(&bytes[..len], &limits).unwrap().is_none());
            }
            if let Ok(upgrade) = handshake::check(&head) {
                let response = handshake::response(&upgrade, upgrade.protocols.first().map(|it| &**it), upgrade.deflate);
                let lines = std::str::from_utf8(&response).unwrap().split("\r\n").count();
                prop_assert_eq!(lines, 6 + usize::from(!upgrade.protocols.is_empty()));
            }
        }
    }

    /// Names may hold anything: what is written is one JSON object with the same names.
    #[test]
    fn frames_with_any_names_can_be_read(topic in ".{0,12}", name in "(?s).{0,12}", seq: u64) {
        let push = written(|out| relay::put_push(out, &topic, &name, b"4.20"));
        prop_assert_eq!(push, json!({"type":"push","topic":topic,"event":name,"payload":4.20}));
        let lagged = written(|out| relay::put_lagged(out, &name, seq));
        prop_assert_eq!(lagged, json!({"type":"lagged","topic":name,"missed":seq}));
        let prefix = durable::MessagePrefix::new(&topic);
        let extras = durable::MessageExtras::default();
        let message = written(|out| durable::put_message(out, &prefix, seq, b"[]", extras));
        prop_assert_eq!(message, json!({"type":"message","topic":topic,"seq":seq,"payload":[]}));
        let error = relay::ErrorFrame {
            message: &name,
            code: Some(ErrorCode::Internal),
            topic: Some(&topic),
            ..relay::ErrorFrame::default()
        };
        let error = written(|out| relay::put_error(out, &error));
        prop_assert_eq!(error, json!({"type":"error","message":name,"code":"internal","topic":topic}));
        let reply = written(|out| {
            event::begin_envelope(out, &name);
            out.extend_from_slice(b"null");
            event::end_envelope(out, Some(b"1"));
        });
        prop_assert_eq!(reply, json!({"event":name,"data":null,"id":1}));
    }
}
