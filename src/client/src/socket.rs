//! One WebSocket of a client: texts out, frames in. Knows no dialect but how frames name
//! themselves.

use std::net::TcpStream;

use serde::{Deserialize, Serialize};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::{Client, ClientError, rest};

/// A frame and the text that it came as.
#[derive(Debug, Clone)]
pub struct Received<F> {
    /// Every byte of it; nothing where the connection itself is what is told.
    pub text: String,
    /// What it says.
    pub frame: F,
}

impl<F> Received<F> {
    /// What no server said.
    pub(super) fn untold(frame: F) -> Self {
        let text = String::new();
        Self { text, frame }
    }
}

/// Something that the server would not do; the connection goes on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// Why, for people.
    pub message: String,
    /// Why, for programs; only where a subprotocol was agreed on.
    pub code: Option<String>,
    /// The topic that it is about.
    pub topic: Option<String>,
    /// The subscription that it is about.
    pub sub_name: Option<String>,
    /// The mark of the request.
    #[serde(rename = "ref")]
    pub reference: Option<serde_json::Value>,
}

pub(super) struct Socket(WebSocket<TcpStream>);

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Socket")
    }
}

/// Why there are no more texts.
pub(super) struct Ended {
    /// Of the server's close; nothing where it said none.
    pub(super) code: Option<u16>,
    pub(super) reason: String,
}

/// Connects and upgrades; `renew` asks for another token than the last.
pub(super) fn open(
    client: &Client,
    path: &str,
    protocol: &str,
    renew: bool,
) -> Result<Socket, ClientError> {
    let refused = |error: &dyn std::fmt::Display| ClientError::Upgrade {
        path: path.to_owned(),
        reason: error.to_string(),
        status: None,
    };
    let bearer = HeaderValue::from_str(&format!("Bearer {}", client.token(renew)?));
    let bearer = bearer.map_err(|_| ClientError::BadToken)?;
    let request = format!("ws://{}{path}", client.host).into_client_request();
    let mut request = request.map_err(|error| refused(&error))?;
    request.headers_mut().insert("authorization", bearer);
    if !client.plain {
        let protocol = HeaderValue::from_str(protocol).map_err(|error| refused(&error))?;
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
    }
    let upgraded = tungstenite::client(request, rest::connect(client)?);
    let (socket, _) = upgraded.map_err(|error| match &error {
        HandshakeError::Failure(Error::Http(response)) => ClientError::Upgrade {
            path: path.to_owned(),
            reason: error.to_string(),
            status: Some(response.status().as_u16()),
        },
        _ => refused(&error),
    })?;
    Ok(Socket(socket))
}

impl Socket {
    pub(super) fn send(&mut self, frame: &impl Serialize) -> Result<(), ClientError> {
        let text = serde_json::to_string(frame).map_err(ClientError::Payload)?;
        let sent = self.0.send(Message::text(text));
        sent.map_err(|error| ClientError::Closed(error.to_string()))
    }

    /// The next text; pings are answered on the way.
    pub(super) fn receive(&mut self) -> Result<String, Ended> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Ok(text.to_string()),
                Ok(Message::Close(frame)) => {
                    // The answer to it goes out now or never.
                    let _ = self.0.flush();
                    let code = frame.as_ref().map(|frame| frame.code.into());
                    let reason = frame.map(|frame| frame.to_string()).unwrap_or_default();
                    return Err(Ended { code, reason });
                }
                Ok(_) => {}
                Err(error) => {
                    let (code, reason) = (None, error.to_string());
                    return Err(Ended { code, reason });
                }
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

/// The name that a frame gives itself.
pub(super) fn kind_of(text: &str) -> Result<String, ClientError> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    let kind = serde_json::from_str::<Kind>(text);
    kind.map(|kind| kind.kind).map_err(|_| strange(text))
}

pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ClientError> {
    serde_json::from_str(text).map_err(|_| strange(text))
}

fn strange(text: &str) -> ClientError {
    ClientError::Strange(text.to_owned())
}
