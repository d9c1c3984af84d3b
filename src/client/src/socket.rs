//! One WebSocket of a client: texts out, frames in. Knows no dialect but how frames name
//! themselves.

use std::io::ErrorKind;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::{HeaderValue, Request};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::dial::Patient;
use super::sealed::Stream;
use super::{Client, ClientError, dial};

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

pub(super) struct Socket {
    socket: WebSocket<Patient<Stream>>,
    /// What a read waits at most, as the stream has it.
    wait: Option<Duration>,
}

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

/// The request of an upgrade.
pub(super) fn request(
    client: &Client,
    path: &str,
    protocol: &str,
    token: &str,
) -> Result<Request<()>, ClientError> {
    let refused = |error: &dyn std::fmt::Display| ClientError::Upgrade {
        path: path.to_owned(),
        reason: error.to_string(),
        status: None,
    };
    let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
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
    Ok(request)
}

/// Why an upgrade failed.
pub(super) fn not_upgraded(path: &str, error: &Error) -> ClientError {
    let status = match error {
        Error::Http(response) => Some(response.status().as_u16()),
        _ => None,
    };
    ClientError::Upgrade {
        path: path.to_owned(),
        reason: error.to_string(),
        status,
    }
}

impl Ended {
    /// A close of the server's.
    pub(super) fn by(frame: Option<CloseFrame>) -> Self {
        // In place of a code that it does not know, such as 1014, the library puts one of its own,
        // which would say that we broke the protocol.
        let is_its_own = |frame: &CloseFrame| {
            frame.code == CloseCode::Protocol && frame.reason.as_str() == "Protocol violation"
        };
        let known = frame.as_ref().filter(|frame| !is_its_own(frame));
        let code = known.map(|frame| frame.code.into());
        let reason = frame.map(|frame| frame.to_string()).unwrap_or_default();
        Self { code, reason }
    }
}

/// Connects and upgrades, within the time that the client has; `renew` asks for another token than
/// the last.
pub(super) fn open(
    client: &Client,
    path: &str,
    protocol: &str,
    renew: bool,
) -> Result<Socket, ClientError> {
    let request = request(client, path, protocol, &client.token(renew)?)?;
    let stream = dial::connect(client)?;
    let upgraded = tungstenite::client(request, Patient(stream));
    let (socket, _) = upgraded.map_err(|error| match error {
        HandshakeError::Failure(error) => not_upgraded(path, &error),
        HandshakeError::Interrupted(_) => ClientError::Timeout {
            what: format!("answer to the upgrade at {path}"),
            limit: client.time_max,
        },
    })?;
    Ok(Socket {
        socket,
        wait: Some(client.time_max),
    })
}

impl Socket {
    pub(super) fn send(&mut self, text: String) -> Result<(), ClientError> {
        let sent = self.socket.send(Message::text(text));
        sent.map_err(|error| ClientError::Closed(error.to_string()))
    }

    /// The next text, or nothing if none comes within `wait`; pings are answered on the way.
    pub(super) fn receive(&mut self, wait: Option<Duration>) -> Result<Option<String>, Ended> {
        self.wait_at_most(wait);
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(Some(text.to_string())),
                Ok(Message::Close(frame)) => {
                    // The answer to it goes out now or never.
                    let _ = self.socket.flush();
                    return Err(Ended::by(frame));
                }
                Ok(_) => {}
                // What has come of a frame is kept.
                Err(Error::Io(error)) if is_timeout(error.kind()) => return Ok(None),
                Err(error) => {
                    let (code, reason) = (None, error.to_string());
                    return Err(Ended { code, reason });
                }
            }
        }
    }

    fn wait_at_most(&mut self, wait: Option<Duration>) {
        // A time of nothing would mean for ever.
        let wait = wait.map(|wait| wait.max(Duration::from_millis(1)));
        if self.wait != wait && self.socket.get_ref().0.tcp().set_read_timeout(wait).is_ok() {
            self.wait = wait;
        }
    }

    /// Says goodbye and waits until the server has heard it, so that nothing sent is cut off.
    pub(super) fn close(mut self) {
        self.wait_at_most(Some(GOODBYE_MAX));
        if self.socket.close(None).is_ok() {
            while self.socket.read().is_ok() {}
        }
    }
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// What goes over the wire.
pub(super) fn text_of<T: Serialize + ?Sized>(frame: &T) -> Result<String, ClientError> {
    serde_json::to_string(frame).map_err(ClientError::Payload)
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

/// How long a goodbye waits for its answer.
const GOODBYE_MAX: Duration = Duration::from_secs(10);
