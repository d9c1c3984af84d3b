//! What a request to a mount of Engine.IO asks for, and how it is refused. Knows the query and the
//! texts of the protocol; no session.

use super::super::json;

/// How packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Requests and answers.
    Polling,
    /// One socket.
    WebSocket,
}

/// The query of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The way that it wants.
    pub transport: Transport,
    /// The session that it is for, if there is one already.
    pub sid: Option<Box<str>>,
}

/// Why a request is refused: codes and texts are those of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `transport` is no transport, or one that is switched off.
    #[error("Transport unknown")]
    Transport,
    /// The sid is unknown.
    #[error("Session ID unknown")]
    Sid,
    /// A session begins with GET.
    #[error("Bad handshake method")]
    Method,
    /// It does not fit the session.
    #[error("Bad request")]
    Request,
    /// Origin, token or guard said no.
    #[error("Forbidden")]
    Forbidden,
    /// Another version than 4.
    #[error("Unsupported protocol version")]
    Version,
}

impl Refusal {
    /// The number of the protocol.
    pub fn code(self) -> u8 {
        match self {
            Self::Transport => 0,
            Self::Sid => 1,
            Self::Method => 2,
            Self::Request => 3,
            Self::Forbidden => 4,
            Self::Version => 5,
        }
    }

    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Forbidden => 403,
            _ => 400,
        }
    }

    /// The body of the answer.
    pub fn body(self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(br#"{"code":"#);
        json::put_u64(&mut body, self.code().into());
        body.extend_from_slice(br#","message":"#);
        json::put_string(&mut body, &self.to_string());
        body.push(b'}');
        body
    }

    /// The whole answer, after which the connection closes.
    pub fn response(self) -> bytes::Bytes {
        let (body, status) = (self.body(), self.status());
        let title = if status == 403 {
            "Forbidden"
        } else {
            "Bad Request"
        };
        let mut out = format!(
            "HTTP/1.1 {status} {title}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        )
        .into_bytes();
        out.extend_from_slice(&body);
        out.into()
    }
}

impl Query {
    /// Reads a query. The version is looked at last, as the reference does.
    pub fn parse(query: &str) -> Result<Self, Refusal> {
        let (mut transport, mut sid, mut version) = (None, None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*key {
                "transport" => &mut transport,
                "sid" => &mut sid,
                "EIO" => &mut version,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        let transport = match transport.as_deref() {
            Some("polling") => Transport::Polling,
            Some("websocket") => Transport::WebSocket,
            _ => return Err(Refusal::Transport),
        };
        if version.as_deref() != Some("4") {
            return Err(Refusal::Version);
        }
        let sid = sid
            .filter(|sid| !sid.is_empty())
            .map(|sid| sid.as_ref().into());
        Ok(Self { transport, sid })
    }
}
