//! Bodies of requests: one rule for all JSON that comes in, the same as on sockets. Knows how a
//! body is read and how a bad one is refused; nothing of what it is for.
//!
//! A body is an object whose fields are all known; a payload in it stays as it was written.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::proto::json::{JsonError, JsonParser};

use super::problem::Problem;

/// Reads a body, which must be one JSON object, whatever its content type says.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    check(&mut JsonParser::default(), body)?;
    object(body)
}

/// Reads a body that is an object, an array of objects, or a line for each; whether it is neither
/// an array nor more than one.
pub(super) fn read_many<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<(Vec<T>, bool), Problem> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_array = first == Some(&b'[');
    let items: Vec<&RawValue> = if is_array {
        serde_json::from_slice(body).map_err(|_| not_json(JsonError::Syntax))?
    } else {
        let lines = serde_json::Deserializer::from_slice(body).into_iter();
        let lines: Result<_, _> = lines.collect();
        lines.map_err(|_| not_json(JsonError::Syntax))?
    };
    let mut parser = JsonParser::default();
    let item = |item: &&'a RawValue| {
        let text = item.get().as_bytes();
        check(&mut parser, text)?;
        object(text)
    };
    let read: Vec<T> = items.iter().map(item).collect::<Result<_, Problem>>()?;
    let is_one = !is_array && read.len() == 1;
    Ok((read, is_one))
}

/// What the parser of sockets takes.
fn check(parser: &mut JsonParser, text: &[u8]) -> Result<(), Problem> {
    parser.parse(text).map(drop).map_err(not_json)
}

/// What a type reads of a list, it reads of an object only.
fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Problem> {
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') {
        return Err(misfit(JsonError::NotAnObject));
    }
    serde_json::from_slice(text).map_err(misfit)
}

fn not_json(error: JsonError) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("the body is {error}"))
}

fn misfit(error: impl std::fmt::Display) -> Problem {
    Problem::unprocessable(format!("the body is not as expected: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Named {
        name: String,
        #[serde(default)]
        #[expect(dead_code, reason = "only read")]
        count: Option<u64>,
    }

    fn status(body: &str) -> u16 {
        match read::<Named>(body.as_bytes()) {
            Ok(named) => u16::try_from(named.name.len()).unwrap(),
            Err(problem) => problem.status(),
        }
    }

    /// H7: objects only, every field known, one rule for what JSON is.
    #[test]
    fn a_body_is_an_object_whose_fields_are_known() {
        assert_eq!(status(r#" {"name":"abc"} "#), 3);
        for other in [r#"["abc"]"#, r#"["abc",1]"#, r#""abc""#, "5", "null", "[]"] {
            assert_eq!(status(other), 422, "{other}");
        }
        for misfit in [
            r#"{"name":"a","nmae":1}"#,
            r#"{"name":1}"#,
            "{}",
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a","count":-1}"#,
        ] {
            assert_eq!(status(misfit), 422, "{misfit}");
        }
        let unlike_sockets = [r#"{"name":"\ud800"}"#, r#"{"name":"a","count":1e999}"#];
        for bad in ["", "{", r#"{"name":"a"}x"#, r#"{"name":"a",}"#]
            .iter()
            .chain(&unlike_sockets)
        {
            assert_eq!(status(bad), 400, "{bad}");
        }
    }

    #[test]
    fn an_unknown_field_is_named() {
        let problem = read::<Named>(br#"{"name":"a","nmae":1}"#).unwrap_err();
        assert!(problem.detail().contains("`nmae`"), "{}", problem.detail());
    }
}
