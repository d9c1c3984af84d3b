//! Files that come from the binary, with a tag by which a browser asks whether its copy is still the
//! one: it asks each time, and gets the file again only after the server has become another. Knows
//! texts and headers, not what is in them.

use axum::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

/// Answers with `text` and `more` headers, or with 304 where the asker has it.
pub(super) fn answer<const N: usize>(
    asked: &HeaderMap,
    text: &'static str,
    more: [(HeaderName, &'static str); N],
) -> Response {
    let tag = format!("\"{:016x}\"", xxh3_64(text.as_bytes()));
    let has_it = asked
        .get_all(IF_NONE_MATCH)
        .iter()
        .any(|value| names(value, &tag));
    let mut response = match has_it {
        true => (StatusCode::NOT_MODIFIED, more).into_response(),
        false => (more, text).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    response
}

/// Whether a list of tags has this one; weak tags compare as strong ones do (RFC 9110 13.1.2).
fn names(list: &HeaderValue, tag: &str) -> bool {
    let list = list.to_str().unwrap_or_default();
    list.split(',')
        .map(|one| one.trim())
        .any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(asked: &str) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, HeaderValue::from_str(asked).unwrap());
        answer(&headers, "text", []).status().as_u16()
    }

    /// K3
    #[test]
    fn a_copy_is_asked_about_and_not_sent_again() {
        let first = answer(&HeaderMap::new(), "text", []);
        let tag = first.headers()[ETAG].to_str().unwrap();
        assert_eq!(first.status(), 200);
        assert_eq!(first.headers()[CACHE_CONTROL], "no-cache");
        for same in [tag, "*", &format!("W/{tag}"), &format!("\"x\" ,{tag}")] {
            assert_eq!(status(same), 304, "{same}");
        }
        for other in ["\"x\"", "", tag.trim_matches('"')] {
            assert_eq!(status(other), 200, "{other}");
        }
        let other = answer(&HeaderMap::new(), "text of the next version", []);
        assert_ne!(other.headers()[ETAG], tag);
    }
}
