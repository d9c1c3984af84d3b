//! Packets of Socket.IO, byte by byte, and against made-up and damaged texts.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn packet(text: &str) -> Result<Packet<'_>, Malformed> {
    Packet::parse(text.as_bytes(), 10)
}

/// Kind, attachments, namespace, id and payload of a packet.
type Head = (Kind, usize, &'static str, Option<u64>, &'static str);

#[rustfmt::skip]
const HEADS: &[(&str, Head)] = &[
    ("0", (Kind::Connect, 0, "/", None, "")),
    (r#"0{"token":"t"}"#, (Kind::Connect, 0, "/", None, r#"{"token":"t"}"#)),
    ("0/admin,", (Kind::Connect, 0, "/admin", None, "")),
    ("0/admin", (Kind::Connect, 0, "/admin", None, "")),
    ("0/admin,{}", (Kind::Connect, 0, "/admin", None, "{}")),
    ("0/,{}", (Kind::Connect, 0, "/", None, "{}")),
    ("1/é", (Kind::Disconnect, 0, "/é", None, "")),
    (r#"2["a"]"#, (Kind::Event, 0, "/", None, r#"["a"]"#)),
    (r#"212["a"]"#, (Kind::Event, 0, "/", Some(12), r#"["a"]"#)),
    (r#"2/a,0["a"]"#, (Kind::Event, 0, "/a", Some(0), r#"["a"]"#)),
    ("312[]", (Kind::Ack, 0, "/", Some(12), "[]")),
    (r#"4{"message":"m"}"#, (Kind::ConnectError, 0, "/", None, r#"{"message":"m"}"#)),
    (r#"52-/a,12["x"]"#, (Kind::BinaryEvent, 2, "/a", Some(12), r#"["x"]"#)),
    ("61-9[]", (Kind::BinaryAck, 1, "/", Some(9), "[]")),
    ("29007199254740991", (Kind::Event, 0, "/", Some(9_007_199_254_740_991), "")),
];

/// S-30
#[test]
fn heads_of_packets() {
    for (text, (kind, attachments, nsp, id, json)) in HEADS.iter().copied() {
        let expected = Packet {
            kind,
            attachments,
            nsp,
            id,
            json: json.as_bytes(),
        };
        assert_eq!(packet(text), Ok(expected), "{text}");
    }
    for text in [
        "",
        "7",
        "a",
        "5",
        "5[]",
        "5-[]",
        "51[]",
        "5a-[]",
        "511-[]",
        "29007199254740992",
        "299999999999999999999999[]",
    ] {
        assert_eq!(packet(text), Err(Malformed), "{text:?}");
    }
    assert_eq!(Packet::parse(b"0/\xff,", 10), Err(Malformed));
}

/// Event, first argument, all arguments.
fn event(json: &str) -> Option<(String, String, String)> {
    let mut parser = JsonParser::default();
    let event = read_event(&mut parser, json.as_bytes()).ok()?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let Event { envelope, args } = event;
    Some((envelope.event.to_owned(), text(envelope.data), text(args)))
}

/// S-30, S-34
#[test]
fn payloads_of_events() {
    for (json, name, first, args) in [
        (r#"["ev"]"#, "ev", "null", ""),
        (r#"["ev",1]"#, "ev", "1", "1"),
        (
            r#" [ "e\"v" , {"a":[1,2]} ] "#,
            "e\"v",
            r#"{"a":[1,2]}"#,
            r#"{"a":[1,2]}"#,
        ),
        (
            r#"["ev",42.50,"2",{"3":[true]}]"#,
            "ev",
            "42.50",
            r#"42.50,"2",{"3":[true]}"#,
        ),
        (
            r#"["ev","a\\\",b",[1,"]"],null]"#,
            "ev",
            r#""a\\\",b""#,
            r#""a\\\",b",[1,"]"],null"#,
        ),
        (
            r#"["ev",[[1],{"a":","}],2]"#,
            "ev",
            r#"[[1],{"a":","}]"#,
            r#"[[1],{"a":","}],2"#,
        ),
        ("[12,3]", "12", "3", "3"),
        ("[1.50]", "1.50", "null", ""),
    ] {
        let expected = (name.to_owned(), first.to_owned(), args.to_owned());
        assert_eq!(event(json), Some(expected), "{json}");
    }
    for json in [
        "",
        "{}",
        "[]",
        "[null]",
        "[{}]",
        "[[]]",
        "[true]",
        "1",
        r#"["a""#,
        r#"["a",]"#,
        r#"["connect"]"#,
        r#"["connect_error"]"#,
        r#"["disconnect"]"#,
        r#"["disconnecting",1]"#,
        r#"["newListener"]"#,
        r#"["removeListener"]"#,
    ] {
        assert_eq!(event(json), None, "{json:?}");
    }
}

#[test]
fn payloads_of_connects_and_acks() {
    let connect = |json: &str| check_connect(&mut JsonParser::default(), json.as_bytes()).is_ok();
    assert!(connect("") && connect("{}") && connect(r#"{"token":"t"}"#));
    assert!(!connect("[]") && !connect("1") && !connect("null") && !connect("{"));
    let ack = |json: &'static str| read_ack(&mut JsonParser::default(), json.as_bytes()).ok();
    assert_eq!(ack("[]"), Some(&b""[..]));
    assert_eq!(ack(r#"[1,{"a":[2]}]"#), Some(&br#"1,{"a":[2]}"#[..]));
    assert_eq!(ack("{}"), None);
    assert_eq!(ack(""), None);
    assert_eq!(first_arg(b""), b"null");
    assert_eq!(first_arg(br#"{"a":[1,2]},3"#), br#"{"a":[1,2]}"#);
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn packets_of_the_server() {
    let root = EventParts {
        nsp: ROOT,
        id: None,
        attachments: 0,
        args: b"",
    };
    let admin = EventParts {
        nsp: "/admin",
        ..root
    };
    let event = |parts| written(|out| put_event(out, br#""ev""#, &parts));
    let ack = |parts| written(|out| put_ack(out, &parts));
    assert_eq!(event(root), r#"42["ev"]"#);
    assert_eq!(
        event(EventParts {
            args: b"1,[2]",
            ..admin
        }),
        r#"42/admin,["ev",1,[2]]"#
    );
    assert_eq!(
        event(EventParts {
            id: Some(12),
            ..admin
        }),
        r#"42/admin,12["ev"]"#
    );
    let binary = EventParts {
        attachments: 2,
        id: Some(7),
        args: b"0",
        ..admin
    };
    assert_eq!(event(binary), r#"452-/admin,7["ev",0]"#);
    assert_eq!(
        ack(EventParts {
            id: Some(12),
            ..root
        }),
        "4312[]"
    );
    assert_eq!(
        ack(EventParts {
            args: b"1",
            ..binary
        }),
        "462-/admin,7[1]"
    );
    let connect = |nsp, pid| written(|out| put_connect(out, nsp, "s", pid));
    assert_eq!(connect("/", None), r#"40{"sid":"s"}"#);
    assert_eq!(
        connect("/admin", Some("p")),
        r#"40/admin,{"sid":"s","pid":"p"}"#
    );
    let error = |nsp, data| written(|out| put_connect_error(out, nsp, "forbidden", data));
    assert_eq!(error("/", None), r#"44{"message":"forbidden"}"#);
    let data = Some(&br#"{"code":403}"#[..]);
    assert_eq!(
        error("/admin", data),
        r#"44/admin,{"message":"forbidden","data":{"code":403}}"#
    );
    assert_eq!(written(|out| put_disconnect(out, "/")), "41");
    assert_eq!(written(|out| put_disconnect(out, "/admin")), "41/admin,");
}

#[test]
fn placeholders() {
    let range = |text: &str, count| are_in_range(text.as_bytes(), count);
    let one = r#"["a",{"_placeholder":true,"num":0}]"#;
    assert!(range(one, 1) && !range(one, 0));
    assert!(!range(r#"["a",{"b":[{"_placeholder":true,"num":2}]}]"#, 2));
    assert!(!range(r#"[{"_placeholder":true}]"#, 9));
    assert!(!range(r#"[{"_placeholder":true,"num":-1}]"#, 9));
    assert!(range(r#"[{"_placeholder":false,"num":9}]"#, 1));
    let bytes = [Bytes::from_static(&[1, 2, 3, 4]), Bytes::new()];
    let with = |text: &str| String::from_utf8(with_base64(text.as_bytes(), &bytes)).unwrap();
    assert_eq!(with(one), r#"["a","AQIDBA=="]"#);
    assert_eq!(
        with(r#"{"x":{"_placeholder":true,"num":1}}"#),
        r#"{"x":""}"#
    );
    for same in [
        r#"{"_placeholder":true,"num":7}"#,
        r#""{\"_placeholder\":true,\"num\":0}""#,
        r#"{"_placeholder":true,"num":0,"x":1}"#,
    ] {
        assert_eq!(with(same), same);
    }
    let mut out = Vec::new();
    put_placeholder(&mut out, 12);
    assert_eq!(out, br#"{"_placeholder":true,"num":12}"#);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(?s).{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[a-z]{0,3}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(crate::proto::proptest_config())]

    /// What is written can be read, argument by argument.
    #[test]
    fn events_come_back(
        nsp in "/[a-z]{0,5}",
        id in proptest::option::of(0..=NUMBER_MAX),
        name in "(?s).{1,8}",
        args in proptest::collection::vec(any_json(), 0..4),
        gap in "[ \n]{0,2}",
    ) {
        prop_assume!(!RESERVED.contains(&name.as_str()));
        let texts: Vec<String> = args.iter().map(Value::to_string).collect();
        let joined = texts.join(&format!("{gap},{gap}"));
        let parts = EventParts { nsp: &nsp, id, attachments: 0, args: joined.as_bytes() };
        let text = written(|out| put_event(out, Value::from(name.clone()).to_string().as_bytes(), &parts));
        let read = packet(text.strip_prefix('4').unwrap()).unwrap();
        prop_assert_eq!((read.nsp, read.id, read.kind), (&*nsp, id, Kind::Event));
        let (event, first, rest) = event(std::str::from_utf8(read.json).unwrap()).unwrap();
        prop_assert_eq!(event, name);
        prop_assert_eq!(rest, joined);
        prop_assert_eq!(first, texts.first().map_or("null", |text| text));
    }

    /// S-91: nothing panics, and what is accepted is JSON of the right shape.
    #[test]
    fn damaged_packets_are_refused_or_sound(
        text in r#"[0-7]([0-9]{0,2}-)?(/[a-z]{0,2},?)?[0-9]{0,3}[\[\]{}",:a-c0-2\\ ]{0,16}"#,
    ) {
        if let Ok(read) = packet(&text) {
            prop_assert!(read.attachments <= 10);
            let is_json = serde_json::from_slice::<Value>(read.json).is_ok();
            let mut parser = JsonParser::default();
            if let Ok(Event { envelope, args }) = read_event(&mut parser, read.json) {
                prop_assert!(is_json);
                let all = format!("[{}]", std::str::from_utf8(args).unwrap());
                let all: Vec<Value> = serde_json::from_str(&all).unwrap();
                let first: Value = serde_json::from_slice(envelope.data).unwrap();
                prop_assert_eq!(all.first().unwrap_or(&Value::Null), &first);
                prop_assert_eq!(envelope.read::<Value>().unwrap(), first);
            }
            let args = read_ack(&mut parser, read.json);
            prop_assert!(is_json || args.is_err());
        }
    }
}
