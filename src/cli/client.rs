//! What `pub` and `sub` have in common: where the server is, who asks, one request over REST and
//! one WebSocket. Blocking, for a person or a script; knows no topics.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

/// Where the server is and who asks.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The server, as http://HOST:PORT; TLS ends in front of it
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEGATE_URL",
        default_value = "http://127.0.0.1:4000"
    )]
    url: String,
    /// File with the token; without it, the token is taken from TIDEGATE_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The path of the durable mount
    #[arg(long, value_name = "PATH", default_value = "/v1/ws")]
    path: String,
}

/// Why the server cannot be asked, or says no.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error(
        "no token: set TIDEGATE_TOKEN or --token-file; `tidegate token new --ns NS --sub SUB` makes \
         one, and `serve --dev` prints one"
    )]
    NoToken,
    #[error("the token is no line of visible characters")]
    BadToken,
    #[error("cannot read the token from {path}", path = path.display())]
    TokenFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("`{0}` is no http://HOST:PORT: mend --url or TIDEGATE_URL")]
    Url(String),
    #[error("cannot reach {0}: is it the server's --listen? --url or TIDEGATE_URL names another")]
    Connect(String, #[source] std::io::Error),
    #[error("the connection broke")]
    Broken(#[source] std::io::Error),
    #[error("no durable mount answers at {path}: {reason}; --path is the server's durable.path")]
    Upgrade { path: String, reason: String },
    #[error("the server closed the connection: {0}")]
    Closed(String),
    #[error("the server refused with {status}: {detail}{}", hint(*status))]
    Refused { status: u16, detail: String },
    #[error("the server answered what is not understood: {0}")]
    Strange(String),
    #[error("cannot write the standard output")]
    Output(#[source] std::io::Error),
}

impl ClientError {
    /// A reader that has seen enough, as `head` has, is no failure.
    pub(super) fn unless_unread(self) -> Result<ExitCode, Self> {
        match self {
            Self::Output(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            other => Err(other),
        }
    }
}

fn hint(status: u16) -> &'static str {
    match status {
        401 => " (`tidegate token check -` tells what is wrong with one)",
        404 => " (is durable.enabled = false there?)",
        _ => "",
    }
}

/// One line for whoever reads: it is written when this returns.
pub(super) fn print_line(line: &str) -> Result<(), ClientError> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(ClientError::Output)
}

/// An error frame as a person reads it.
pub(super) fn refusal(frame: &Value) -> String {
    let (message, code) = (frame["message"].as_str(), frame["code"].as_str());
    match (message, code) {
        (Some(message), Some(code)) => format!("{message} ({code})"),
        _ => frame.to_string(),
    }
}

impl Target {
    fn host(&self) -> Result<&str, ClientError> {
        let rest = self
            .url
            .strip_prefix("http://")
            .or_else(|| self.url.strip_prefix("ws://"));
        let host = rest.map(|rest| rest.trim_end_matches('/'));
        let host = host.filter(|host| host.contains(':') && !host.contains('/'));
        host.ok_or_else(|| ClientError::Url(self.url.clone()))
    }

    fn token(&self) -> Result<String, ClientError> {
        if let Some(path) = &self.token_file {
            let read = std::fs::read_to_string(path);
            let read = read.map(|token| token.trim().to_owned());
            let path = path.clone();
            return read.map_err(|source| ClientError::TokenFile { path, source });
        }
        let token = std::env::var("TIDEGATE_TOKEN").ok();
        token
            .filter(|token| !token.is_empty())
            .ok_or(ClientError::NoToken)
    }

    fn stream(&self) -> Result<TcpStream, ClientError> {
        let host = self.host()?;
        let connected = TcpStream::connect(host).and_then(|stream| {
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        connected.map_err(|source| ClientError::Connect(host.to_owned(), source))
    }

    /// The id of a topic: a name is registered or resolved.
    pub(super) fn topic(&self, topic: &str) -> Result<String, ClientError> {
        if topic.parse::<crate::id::HomedId>().is_ok() {
            return Ok(topic.to_owned());
        }
        let body = serde_json::json!({ "name": topic }).to_string();
        let resolved = self.post("/v1/topics", &body)?;
        let id = resolved["id"].as_str().map(str::to_owned);
        id.ok_or_else(|| ClientError::Strange(resolved.to_string()))
    }

    fn post(&self, target: &str, body: &str) -> Result<Value, ClientError> {
        let (host, token, bytes) = (self.host()?, self.token()?, body.len());
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             Connection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {bytes}\r\n\r\n{body}"
        );
        let mut stream = self.stream()?;
        let mut answer = String::new();
        let sent = stream.write_all(request.as_bytes());
        sent.and_then(|()| stream.read_to_string(&mut answer))
            .map_err(ClientError::Broken)?;
        let strange = || ClientError::Strange(answer.clone());
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status: u16 = status.ok_or_else(strange)?;
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let detail = body["detail"]
            .as_str()
            .unwrap_or("no reason given")
            .to_owned();
        Err(ClientError::Refused { status, detail })
    }

    /// A connection to the durable mount.
    pub(super) fn connect(&self) -> Result<Connection, ClientError> {
        let (host, token) = (self.host()?, self.token()?);
        let refused = |error: &dyn std::fmt::Display| ClientError::Upgrade {
            path: self.path.clone(),
            reason: error.to_string(),
        };
        let request = format!("ws://{host}{}", self.path).into_client_request();
        let mut request = request.map_err(|error| refused(&error))?;
        let bearer = format!("Bearer {token}")
            .parse()
            .map_err(|_| ClientError::BadToken)?;
        request.headers_mut().insert("authorization", bearer);
        let upgraded = tungstenite::client(request, self.stream()?);
        let (socket, _) = upgraded.map_err(|error| refused(&error))?;
        Ok(Connection(socket))
    }
}

/// A WebSocket on the durable mount.
pub(super) struct Connection(WebSocket<TcpStream>);

impl Connection {
    pub(super) fn send(&mut self, frame: &Value) -> Result<(), ClientError> {
        self.send_text(&frame.to_string())
    }

    pub(super) fn send_text(&mut self, frame: &str) -> Result<(), ClientError> {
        let sent = self.0.send(Message::text(frame));
        sent.map_err(|error| ClientError::Closed(error.to_string()))
    }

    /// The next text; pings are answered on the way.
    pub(super) fn receive(&mut self) -> Result<String, ClientError> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Ok(text.to_string()),
                Ok(Message::Close(frame)) => {
                    let reason = frame.map(|frame| frame.to_string());
                    return Err(ClientError::Closed(reason.unwrap_or_default()));
                }
                Ok(_) => {}
                Err(error) => return Err(ClientError::Closed(error.to_string())),
            }
        }
    }

    /// Says goodbye and waits until the server has heard it, so that nothing sent is cut off.
    pub(super) fn close(mut self) {
        if self.0.close(None).is_ok() {
            while self.0.read().is_ok() {}
        }
    }
}
