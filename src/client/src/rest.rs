//! One request over HTTP at a time, each on a connection of its own. Knows routes and documents.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::fmt::Hyphenated;

use super::{Client, ClientError};

/// Somebody who is present in a relay topic.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Present {
    /// The connection.
    pub conn_id: u64,
    /// What the topic's handler said of it.
    pub meta: Value,
}

pub(super) fn connect(client: &Client) -> Result<TcpStream, ClientError> {
    let connected = TcpStream::connect(&client.host).and_then(|stream| {
        stream.set_nodelay(true)?;
        // A server whose machine has gone says nothing: the kernel asks.
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, ASKED_AFTER)?;
        sockopt::set_tcp_keepintvl(&stream, ASKED_EVERY)?;
        sockopt::set_tcp_keepcnt(&stream, ASKED_TIMES)?;
        Ok(stream)
    });
    connected.map_err(|source| ClientError::Connect(client.host.clone(), source))
}

pub(super) fn topic(client: &Client, topic: &str) -> Result<String, ClientError> {
    if topic.parse::<Hyphenated>().is_ok() {
        return Ok(topic.to_owned());
    }
    let body = json!({ "name": topic }).to_string();
    let resolved = request(client, "POST", "/v1/topics", &body)?;
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
    request(client, "POST", "/v1/relay/push", &body).map(|_| ())
}

pub(super) fn presence(client: &Client, topic: &str) -> Result<Vec<Present>, ClientError> {
    #[derive(Deserialize)]
    struct Presence {
        members: Vec<Present>,
    }
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("topic", topic)
        .finish();
    let answer = request(client, "GET", &format!("/v1/relay/presence?{query}"), "")?;
    let text = answer.to_string();
    let present: Presence =
        serde_json::from_value(answer).map_err(|_| ClientError::Strange(text))?;
    Ok(present.members)
}

fn request(client: &Client, method: &str, target: &str, body: &str) -> Result<Value, ClientError> {
    let (host, token, bytes) = (&client.host, client.token(false)?, body.len());
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {bytes}\r\n\r\n{body}"
    );
    let mut stream = connect(client)?;
    let mut answer = String::new();
    let sent = stream.write_all(request.as_bytes());
    sent.and_then(|()| stream.read_to_string(&mut answer))
        .map_err(ClientError::Broken)?;
    let strange = || ClientError::Strange(answer.clone());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
    let status = head.split(' ').nth(1);
    let status = status.and_then(|status| status.parse().ok());
    let status: u16 = status.ok_or_else(strange)?;
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let detail = body["detail"].as_str().unwrap_or("no reason given");
    let detail = detail.to_owned();
    Err(ClientError::Refused { status, detail })
}

const ASKED_AFTER: Duration = Duration::from_secs(30);
const ASKED_EVERY: Duration = Duration::from_secs(10);
const ASKED_TIMES: u32 = 3;
