//! The parser against serde_json, and spans against the bytes that they were cut from.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::*;

fn accepts(text: &[u8]) -> bool {
    JsonParser::default().parse(text).is_ok()
}

/// Texts where parsers are known to differ.
#[rustfmt::skip]
const DISPUTED: &[&str] = &[
    "", " ", "{}", "[]", "null", "nul", "nullx", "true", "truex", "\"a\"", "\"a", "1", "01",
    "-", "-0", "-01", "1.", ".5", "1.5", "1e", "1e5", "1E+5", "1e-400", "1e400", "-1e400",
    "0e99999999999", "18446744073709551615", "18446744073709551616", "-9223372036854775808",
    "-9223372036854775809", "123456789012345678901234567890", "1.7976931348623157e308",
    "1.7976931348623159e308", "{\"a\":1}", "{\"a\":1,}", "{\"a\" 1}", "{a:1}", "{\"a\":1}x",
    "{\"a\":1} ", "\t\n\r{}\r\n", "[1,]", "[1 2]", "[,]", "{\"a\":1\0}", "[1\0]", "[\0]",
    "null\0", "{}\0", "\"\\u0000\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud83d\\ude00\"",
    "\"\\ud83d\\u0041\"", "\"\\ud83dx\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\x\"", "\"\\\"",
    "\"\\\\\"", "\"\u{1f}\"", "\"\u{7f}\"", "\"\n\"", "\u{feff}{}", "{\"a\":1,\"a\":2}",
    "{\"\":{}}", "1\u{b}", "\u{c}1", "[1,\u{a0}2]", "NaN", "Infinity", "+1", "0x1", "'a'",
    "[\"a\"b]", "[\"a\"\"b\"]", "[1\"a\"]", "{\"a\":\"b\"c}", "[true1]", "[truefalse]", "//",
];

/// T-P5
#[test]
fn texts_are_accepted_exactly_as_by_serde_json() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let deep_objects = |n: usize| format!("{}1{}", r#"{"a":"#.repeat(n), "}".repeat(n));
    let mut texts: Vec<Vec<u8>> = DISPUTED
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
    texts.extend([deep(127), deep(128), deep(100_000)].map(String::into_bytes));
    texts.extend([deep_objects(127), deep_objects(128)].map(String::into_bytes));
    texts.extend(["[", "{", "{\"a\":"].map(|text| text.repeat(100_000).into_bytes()));
    texts.push(format!("1{}", "0".repeat(400)).into_bytes());
    texts.push(format!("{{\"{}\":1}}", "k".repeat(1 << 20)).into_bytes());
    texts.extend([&b"\"\xff\""[..], b"\"\xed\xa0\x80\"", b"{\"a\":\"\xc3\"}"].map(<[u8]>::to_vec));
    // Numbers that round to the largest one, and those that round beyond it.
    texts.extend((0..1000).map(|i| format!("1.797693134862315{:03}e308", i).into_bytes()));
    let mut parser = JsonParser::default();
    for text in &texts {
        let expected = serde_json::from_slice::<Value>(text).is_ok();
        let shown = String::from_utf8_lossy(&text[..text.len().min(40)]);
        assert_eq!(parser.parse(text).is_ok(), expected, "{shown}");
    }
}

#[test]
fn an_error_tells_bad_utf8_and_depth_from_bad_syntax() {
    let mut parser = JsonParser::default();
    let mut error = |text: &[u8]| parser.parse(text).err();
    assert_eq!(error(b"{\"a\":\"\xff\"}"), Some(JsonError::Utf8));
    assert_eq!(error(b"{\"a\xff"), Some(JsonError::Utf8));
    assert_eq!(error(b"{\"a"), Some(JsonError::Syntax));
    assert_eq!(error("[".repeat(128).as_bytes()), Some(JsonError::TooDeep));
}

#[test]
fn fields_are_found_with_their_spans() {
    let text = br#" { "type" : "x\"y" , "n": 42.50 ,"skip":[{"n":1},{}], "o": { "n" : [ ] } ,
        "whole":7,"esc\u0061ped": -1e2 ,"b":true,"z":null } "#;
    let mut parser = JsonParser::default();
    let document = parser.parse(text).unwrap();
    let names = ["type", "n", "o", "whole", "escaped", "b", "z", "none"];
    let fields = document.fields(names).unwrap();
    let expected: [Option<(&[u8], Scalar<'_>)>; 8] = [
        Some((br#""x\"y""#, Scalar::Text("x\"y"))),
        Some((b"42.50", Scalar::Number)),
        Some((br#"{ "n" : [ ] }"#, Scalar::Object)),
        Some((b"7", Scalar::Whole(7))),
        Some((b"-1e2", Scalar::Number)),
        Some((b"true", Scalar::Bool(true))),
        Some((b"null", Scalar::Null)),
        None,
    ];
    assert_eq!(
        fields.map(|field| field.map(|f| (f.span, f.value))),
        expected
    );
}

#[test]
fn the_last_of_equal_keys_counts() {
    let mut parser = JsonParser::default();
    let text = br#"{"a":1,"b":0,"a":{"a":2}}"#;
    let [a] = parser.parse(text).unwrap().fields(["a"]).unwrap();
    assert_eq!(a.unwrap().span, br#"{"a":2}"#);
}

#[test]
fn a_key_may_be_escaped_and_hold_quotes() {
    let mut parser = JsonParser::default();
    let text = br#"{"q\\\"\u0071":1,"":2}"#;
    let names = [r#"q\"q"#, ""];
    let fields = parser.parse(text).unwrap().fields(names).unwrap();
    let spans = fields.map(|field| field.unwrap().span);
    assert_eq!(spans, [b"1", b"2"]);
}

#[test]
fn only_objects_have_fields() {
    let mut parser = JsonParser::default();
    for text in [&b"[]"[..], b"1", b"\"a\"", b"null"] {
        let fields = parser.parse(text).unwrap().fields(["a"]).map(|_| ());
        assert_eq!(fields, Err(JsonError::NotAnObject));
    }
}

#[derive(Debug, PartialEq, Deserialize)]
struct Order {
    item: String,
    #[serde(default)]
    total: Option<f64>,
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut parser = JsonParser::default();
    let document = parser.parse(text.as_bytes()).unwrap();
    let [data] = document.fields(["data"]).unwrap();
    document
        .read(&data.unwrap())
        .map_err(|error| error.to_string())
}

#[test]
fn typed_values_are_read_from_the_tape_or_from_their_span() {
    let order = Order {
        item: "t\"ea".to_owned(),
        total: Some(42.5),
    };
    let text = r#"{"event":"x","data":{"item":"t\"ea","total":42.50,"extra":[1]},"id":1}"#;
    assert_eq!(read(text), Ok(order));
    assert_eq!(read::<Vec<u8>>(r#"{"data":[1,2]}"#), Ok(vec![1, 2]));
    assert_eq!(read::<()>(r#"{"data":null}"#), Ok(()));
    // Only the slow way knows these.
    let big = "123456789012345678901234567890";
    assert_eq!(
        read(&format!(r#"{{"data":{big}}}"#)),
        Ok(123_456_789_012_345_678_901_234_567_890_u128)
    );
    let raw: Box<serde_json::value::RawValue> = read(r#"{"data": 1.50e1 }"#).unwrap();
    assert_eq!(raw.get(), "1.50e1");
}

/// The texts are serde's, without a place.
#[test]
fn a_value_of_another_type_is_named() {
    let error = read::<Order>(r#"{"data":{"total":1}}"#).unwrap_err();
    assert_eq!(error, "missing field `item`");
    let error = read::<Order>(r#"{"data":5}"#).unwrap_err();
    assert_eq!(error, "invalid type: integer `5`, expected struct Order");
    assert_eq!(
        from_span::<u8>(b"-1").unwrap_err().to_string(),
        "invalid value: integer `-1`, expected u8"
    );
}

#[test]
fn a_large_text_leaves_no_large_memory() {
    let mut parser = JsonParser::default();
    assert!(parser.parse(&vec![b'['; 1 << 20]).is_err());
    assert!(parser.parse(b"{}").is_ok());
    assert!(parser.copy.capacity() < 1024 && parser.tape.0.capacity() < 1024);
}

#[test]
fn memory_is_kept_from_text_to_text() {
    let mut parser = JsonParser::default();
    parser
        .parse(br#"{"type":"subscribe","topic":"a"}"#)
        .unwrap();
    let before = (parser.tape.0.as_ptr(), parser.copy.as_ptr());
    parser
        .parse(br#"{"type":"subscribe","topic":"b"}"#)
        .unwrap();
    assert_eq!((parser.tape.0.as_ptr(), parser.copy.as_ptr()), before);
    assert!(0 < parser.tape.0.capacity());
}

#[test]
fn written_pieces_equal_those_of_serde_json() {
    for text in [
        "",
        "plain",
        "é€😀",
        "\"\\/",
        "\u{0}\u{1f}\u{7f}\n\t",
        "</script>",
    ] {
        let mut out = Vec::new();
        put_string(&mut out, text);
        assert_eq!(out, serde_json::to_vec(text).unwrap());
    }
    for number in [0, 9, 10, 42, u64::MAX] {
        let mut out = Vec::new();
        put_u64(&mut out, number);
        assert_eq!(out, number.to_string().into_bytes());
    }
}

fn any_json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        "-?[0-9]{1,25}",
        "-?[0-9]{1,4}\\.[0-9]{1,9}",
        "[0-9]{1,3}e-?[0-9]{1,3}"
    ];
    let escape = r#"(\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}|[a-z é😀:,{}\[\]]){0,8}"#;
    let string = escape.prop_map(|inner| format!("\"{inner}\""));
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        number,
        string
    ];
    let space = "[ \t\n\r]{0,2}";
    leaf.prop_recursive(4, 24, 5, move |inner| {
        let items = proptest::collection::vec((space, inner.clone(), space), 0..4);
        let pairs = proptest::collection::vec((r#""[a-c\\"]{0,3}""#, space, inner, space), 0..4);
        prop_oneof![
            items.prop_map(|all| {
                let all: Vec<_> = all.iter().map(|(a, b, c)| format!("{a}{b}{c}")).collect();
                format!("[{}]", all.join(","))
            }),
            pairs.prop_map(|all| {
                let all: Vec<_> = all
                    .iter()
                    .map(|(k, a, v, b)| format!("{a}{k}{b}:{a}{v}{b}"))
                    .collect();
                format!("{{{}}}", all.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(crate::proto::proptest_config())]

    /// T-P5: made-up texts, mostly valid.
    #[test]
    fn grammatical_texts_are_accepted_as_by_serde_json(text in any_json()) {
        let expected = serde_json::from_str::<Value>(&text).is_ok();
        prop_assert_eq!(accepts(text.as_bytes()), expected, "{}", text);
    }

    /// T-P5: texts with some bytes replaced, mostly invalid.
    #[test]
    fn damaged_texts_are_accepted_as_by_serde_json(
        text in any_json(),
        damage in proptest::collection::vec((any::<usize>(), any::<u8>(), any::<bool>()), 1..4),
    ) {
        let mut text = text.into_bytes();
        for (at, byte, is_inserted) in damage {
            let at = at % (text.len() + 1);
            if is_inserted || at == text.len() {
                text.insert(at, byte);
            } else {
                text[at] = byte;
            }
        }
        let expected = serde_json::from_slice::<Value>(&text).is_ok();
        prop_assert_eq!(accepts(&text), expected, "{:?}", String::from_utf8_lossy(&text));
    }

    /// T-P5, D-41: the span of a field is what was written, wherever it stands.
    #[test]
    fn spans_are_byte_identical(
        values in proptest::collection::vec(any_json(), 1..4),
        wanted in any::<usize>(),
        space in "[ \t\n\r]{0,2}",
    ) {
        let is_valid = |value: &String| serde_json::from_str::<Value>(value).is_ok();
        let values: Vec<String> = values
            .into_iter()
            .map(|value| if is_valid(&value) { value } else { "[4.20,{}]".to_owned() })
            .collect();
        let wanted = wanted % values.len();
        let fields: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(i, value)| format!("{space}\"k{i}\"{space}:{space}{value}{space}"))
            .collect();
        let text = format!("{{{}}}", fields.join(","));
        let mut parser = JsonParser::default();
        let name = format!("k{wanted}");
        let [field] = parser.parse(text.as_bytes()).unwrap().fields([&name]).unwrap();
        prop_assert_eq!(field.unwrap().span, values[wanted].as_bytes());
    }

    /// The fast way to a typed value gives what serde_json gives.
    #[test]
    fn trees_equal_those_of_serde_json(text in any_json()) {
        if let Ok(expected) = serde_json::from_str::<Value>(&text) {
            let text = format!("{{\"data\":{text}}}");
            let value: Value = read(&text).unwrap();
            prop_assert_eq!(without_signs_of_zero(value), without_signs_of_zero(expected));
        }
    }
}

/// `-0` is a whole number to one parser and a number with a fraction to the other.
fn without_signs_of_zero(value: Value) -> Value {
    match value {
        Value::Number(number) if number.as_f64() == Some(0.0) => Value::from(0),
        Value::Array(items) => items.into_iter().map(without_signs_of_zero).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, without_signs_of_zero(value)))
            .collect(),
        other => other,
    }
}
