//! Why a connection has ended, in the words of Socket.IO where it has words for it. Knows no
//! connection.

use std::fmt;

use crate::gateway::call::{Call, CallKind, FromCall};
use crate::gateway::client::WsClient;
use crate::gateway::reply::Exception;

/// Why a connection has ended: an argument of `#[on_disconnect]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Reason {
    /// The other side closed it, or its line broke.
    TransportClose,
    /// A request broke the rules or was given up.
    TransportError,
    /// It did not answer a ping.
    PingTimeout,
    /// It left its namespace.
    ClientLeft,
    /// The server ended its namespace.
    ServerLeft,
    /// The server closed it.
    Forced,
    /// The server stops.
    Shutdown,
    /// It sent what cannot be read.
    ParseError,
    /// It sent too much at once.
    TooLarge,
    /// It did not read.
    Slow,
    /// Its token has expired.
    TokenExpired,
}

impl Reason {
    pub(crate) fn of(number: u8) -> Self {
        let all = [
            Self::TransportClose,
            Self::TransportError,
            Self::PingTimeout,
            Self::ClientLeft,
            Self::ServerLeft,
            Self::Forced,
            Self::Shutdown,
            Self::ParseError,
            Self::TooLarge,
            Self::Slow,
            Self::TokenExpired,
        ];
        let found = all.into_iter().find(|reason| *reason as u8 == number);
        found.unwrap_or(Self::TransportClose)
    }

    /// The text of the reference, where it has one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportClose => "transport close",
            Self::TransportError => "transport error",
            Self::PingTimeout => "ping timeout",
            Self::ClientLeft => "client namespace disconnect",
            Self::ServerLeft => "server namespace disconnect",
            Self::Forced => "forced close",
            Self::Shutdown => "server shutting down",
            Self::ParseError => "parse error",
            Self::TooLarge => "message too large",
            Self::Slow => "slow",
            Self::TokenExpired => "token expired",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromCall for Reason {
    const ONLY_FOR: Option<CallKind> = Some(CallKind::Event);

    fn from_call(call: &Call) -> Result<Self, Exception> {
        Ok(call.client().map_or(Self::TransportClose, WsClient::reason))
    }
}
