//! Placeholders: where in a JSON the bytes stand that follow it as messages of their own. Knows
//! their one form, `{"_placeholder":true,"num":0}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::super::json;

/// Appends the placeholder of the attachment `number`.
pub fn put_placeholder(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(PREFIX);
    json::put_u64(out, number as u64);
    out.push(b'}');
}

/// Whether each placeholder of a valid text names one of `count` attachments.
pub fn are_in_range(text: &[u8], count: usize) -> bool {
    let value: serde_json::Result<Value> = serde_json::from_slice(text);
    value.is_ok_and(|value| all_in_range(&value, count))
}

fn all_in_range(value: &Value, count: usize) -> bool {
    match value {
        Value::Array(items) => items.iter().all(|item| all_in_range(item, count)),
        Value::Object(fields) if fields.get("_placeholder") == Some(&Value::Bool(true)) => {
            let number = fields.get("num").and_then(Value::as_u64);
            number.is_some_and(|number| number < count as u64)
        }
        Value::Object(fields) => fields.values().all(|value| all_in_range(value, count)),
        _ => true,
    }
}

/// The same JSON with bytes as base64 in place of their placeholders, for where no binary message
/// can follow. Inside of a string the quotes of a placeholder would be escaped, so only
/// placeholders are found.
pub fn with_base64(text: &[u8], attachments: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = find(rest, PREFIX) {
        let behind = &rest[at + PREFIX.len()..];
        let digits = behind
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let number = std::str::from_utf8(&behind[..digits]).ok();
        let number = number.and_then(|digits| digits.parse::<usize>().ok());
        let bytes = number.and_then(|number| attachments.get(number));
        match bytes.filter(|_| behind.get(digits) == Some(&b'}')) {
            Some(bytes) => {
                out.extend_from_slice(&rest[..at]);
                json::put_string(&mut out, &STANDARD.encode(bytes));
                rest = &behind[digits + 1..];
            }
            None => {
                out.extend_from_slice(&rest[..at + PREFIX.len()]);
                rest = behind;
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

const PREFIX: &[u8] = br#"{"_placeholder":true,"num":"#;
