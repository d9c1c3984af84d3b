//! Requests over HTTP, one on a connection of its own or many on one. Knows routes and documents.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
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
    id_in(&request(client, "POST", "/v1/topics", &named(topic))?)
}

pub(super) fn topics(client: &Client, names: &[String]) -> Result<Vec<String>, ClientError> {
    let mut line = Line::open(client)?;
    let mut ids = Vec::with_capacity(names.len());
    for some in names.chunks(ASKED_TOGETHER) {
        let request = |name: &String| line.request("POST", "/v1/topics", "", &named(name));
        let requests: String = some.iter().map(request).collect();
        line.send(&requests)?;
        for _ in some {
            ids.push(id_in(&line.answer()?)?);
        }
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

/// One request on a connection of its own.
fn request(client: &Client, method: &str, target: &str, body: &str) -> Result<Value, ClientError> {
    let mut line = Line::open(client)?;
    line.send(&line.request(method, target, "Connection: close\r\n", body))?;
    line.answer()
}

/// A connection that is kept for several requests.
struct Line<'a> {
    host: &'a str,
    token: String,
    stream: BufReader<TcpStream>,
}

impl<'a> Line<'a> {
    fn open(client: &'a Client) -> Result<Self, ClientError> {
        Ok(Self {
            host: &client.host,
            token: client.token(false)?,
            stream: BufReader::new(connect(client)?),
        })
    }

    fn request(&self, method: &str, target: &str, more: &str, body: &str) -> String {
        let Self { host, token, .. } = self;
        format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             {more}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn send(&mut self, requests: &str) -> Result<(), ClientError> {
        let sent = self.stream.get_mut().write_all(requests.as_bytes());
        sent.map_err(ClientError::Broken)
    }

    /// The next answer, in the order of the requests.
    fn answer(&mut self) -> Result<Value, ClientError> {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let from = head.len();
            let read = self.stream.read_line(&mut head);
            let line = match read.map_err(ClientError::Broken)? {
                0 => return Err(ClientError::Strange(head)),
                _ => head[from..].trim_end(),
            };
            if line.is_empty() {
                break;
            }
            let field = line.split_once(':');
            let value = field.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            length = value.map_or(length, |(_, value)| value.trim().parse().unwrap_or(0));
        }
        let mut body = vec![0; length];
        let read = self.stream.read_exact(&mut body);
        read.map_err(ClientError::Broken)?;
        let status = head.split(' ').nth(1);
        let status = status.and_then(|status| status.parse().ok());
        let status: u16 = status.ok_or_else(|| ClientError::Strange(head.clone()))?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let detail = body["detail"].as_str().unwrap_or("no reason given");
        let detail = detail.to_owned();
        Err(ClientError::Refused { status, detail })
    }
}

/// Requests on their way at once.
const ASKED_TOGETHER: usize = 64;
const ASKED_AFTER: Duration = Duration::from_secs(30);
const ASKED_EVERY: Duration = Duration::from_secs(10);
const ASKED_TIMES: u32 = 3;
