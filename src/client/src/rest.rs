//! Requests over HTTP. Knows routes and documents; connections, answers and their limits are those
//! of `ureq`.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Request;
use uuid::fmt::Hyphenated;

use super::sealed::{Tls, not_shaken};
use super::{Client, ClientError};

/// Somebody who is present in a relay topic.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Present {
    /// The connection.
    pub conn_id: u64,
    /// What the topic's handler said of it.
    pub meta: Value,
}

/// Keeps connections for those who ask again, and gives up after `time_max`.
pub(super) fn agent(time_max: Duration, tls: Option<&Tls>) -> Agent {
    let config = Agent::config_builder()
        .tls_config(tls.map(Tls::for_requests).unwrap_or_default())
        .timeout_global(Some(time_max))
        // What is refused says why in its body.
        .http_status_as_error(false)
        .max_redirects(0)
        // The WebSockets of this client go straight to the server too.
        .proxy(None)
        .max_idle_connections_per_host(ASKERS_MAX)
        .build();
    Agent::new_with_config(config)
}

pub(super) fn topic(client: &Client, topic: &str) -> Result<String, ClientError> {
    if topic.parse::<Hyphenated>().is_ok() {
        return Ok(topic.to_owned());
    }
    id_in(&request(client, "POST", "/v1/topics", named(topic))?)
}

/// Several at once, for each waits for a disk.
pub(super) fn topics(client: &Client, names: &[String]) -> Result<Vec<String>, ClientError> {
    let each = names.len().div_ceil(ASKERS_MAX).max(1);
    let some = |names: &[String]| -> Result<Vec<String>, ClientError> {
        let ask = |name: &String| id_in(&request(client, "POST", "/v1/topics", named(name))?);
        names.iter().map(ask).collect()
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = names
            .chunks(each)
            .map(|names| scope.spawn(move || some(names)))
            .collect();
        asked.into_iter().map(|asked| asked.join()).collect()
    });
    let mut ids = Vec::with_capacity(names.len());
    for part in parts {
        ids.extend(part.map_err(|_| ClientError::Strange("a thread panicked".to_owned()))??);
    }
    Ok(ids)
}

fn named(topic: &str) -> String {
    json!({ "name": topic }).to_string()
}

fn id_in(resolved: &Value) -> Result<String, ClientError> {
    let id = resolved["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| ClientError::Strange(resolved.to_string()))
}

#[derive(Serialize)]
struct PushBody<'a, T: ?Sized> {
    topic: &'a str,
    event: &'a str,
    payload: &'a T,
}

pub(super) fn push<T: Serialize + ?Sized>(
    client: &Client,
    (topic, event): (&str, &str),
    payload: &T,
) -> Result<(), ClientError> {
    let body = PushBody {
        topic,
        event,
        payload,
    };
    let body = serde_json::to_string(&body).map_err(ClientError::Payload)?;
    request(client, "POST", "/v1/relay/push", body).map(|_| ())
}

pub(super) fn presence(client: &Client, topic: &str) -> Result<Vec<Present>, ClientError> {
    #[derive(Deserialize)]
    struct Presence {
        members: Vec<Present>,
    }
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("topic", topic)
        .finish();
    let answer = request(
        client,
        "GET",
        &format!("/v1/relay/presence?{query}"),
        String::new(),
    )?;
    let text = answer.to_string();
    let present: Presence =
        serde_json::from_value(answer).map_err(|_| ClientError::Strange(text))?;
    Ok(present.members)
}

/// One request for a document.
pub(super) fn request(
    client: &Client,
    method: &str,
    target: &str,
    body: String,
) -> Result<Value, ClientError> {
    let answer = asked(client, (method, target), &body)?;
    Ok(serde_json::from_slice(&answer).unwrap_or_default())
}

/// One request for a text.
pub(super) fn text(client: &Client, target: &str) -> Result<String, ClientError> {
    let answer = asked(client, ("GET", target), "")?;
    String::from_utf8(answer).map_err(|_| ClientError::Strange(format!("{target} is no text")))
}

/// A token that is refused is asked for once more, if there is somebody to ask.
fn asked(client: &Client, route: (&str, &str), body: &str) -> Result<Vec<u8>, ClientError> {
    match ask(client, route, body, &client.token(false)?) {
        Err(ClientError::Refused { status: 401, .. }) if client.can_renew() => {
            ask(client, route, body, &client.token(true)?)
        }
        answer => answer,
    }
}

fn ask(
    client: &Client,
    (method, target): (&str, &str),
    body: &str,
    token: &str,
) -> Result<Vec<u8>, ClientError> {
    let scheme = if client.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("{scheme}://{}{target}", client.host))
        .header("Authorization", format!("Bearer {token}"))
        .header("Content-Type", "application/json")
        .body(body.as_bytes())
        .map_err(|error| ClientError::Url(error.to_string()))?;
    let failed = |error| failure(client, target, error);
    let mut answer = client.agent.run(request).map_err(failed)?;
    let status = answer.status().as_u16();
    let body = answer
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_vec()
        .map_err(failed)?;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let detail = body["detail"].as_str().unwrap_or("no reason given");
    let detail = detail.to_owned();
    Err(ClientError::Refused { status, detail })
}

fn failure(client: &Client, target: &str, error: ureq::Error) -> ClientError {
    let unreached = |source| ClientError::Connect(client.host.clone(), source);
    match error {
        ureq::Error::Timeout(_) => ClientError::Timeout {
            what: format!("answer to {target}"),
            limit: client.time_max,
        },
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => unreached(error),
            io::ErrorKind::InvalidData if client.tls.is_some() => not_shaken(client, error),
            _ => ClientError::Broken(error),
        },
        error @ (ureq::Error::HostNotFound | ureq::Error::ConnectionFailed) => {
            unreached(io::Error::other(error))
        }
        ureq::Error::BodyExceedsLimit(limit) => {
            ClientError::Strange(format!("an answer of more than {limit} bytes"))
        }
        error => ClientError::Strange(error.to_string()),
    }
}

/// Requests on their way at once.
const ASKERS_MAX: usize = 32;
/// What an answer may have; a page of messages has at most a few.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
