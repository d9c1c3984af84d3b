//! Packets of Engine.IO 4: one text frame each over WebSocket, joined by `\x1e` over polling.
//! Knows the texts of packets, ids and errors; not which session they are for.

mod payload;
mod query;
mod sid;

#[cfg(test)]
mod tests;

pub use self::payload::{InvalidPayload, PacketsOf, Payload, PayloadWriter};
pub use self::query::{Query, Refusal, Transport};
pub use self::sid::{SID_LEN, Sid};

use super::json;

/// What one side says to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The sender ends the session.
    Close,
    /// A question whether the other side is there; `probe` over a socket that wants to take over.
    Ping(&'a str),
    /// The answer to it.
    Pong(&'a str),
    /// A text for the layer above.
    Text(&'a str),
    /// Bytes for the layer above.
    Binary(Vec<u8>),
    /// The session goes on over the socket on which this came.
    Upgrade,
    /// Nothing: it ends a waiting poll.
    Noop,
}

/// What is said over a socket that wants to take over.
pub const PROBE: &str = "probe";

/// A text that clients never send as a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an engine.io packet")]
pub struct InvalidPacket;

impl<'a> Packet<'a> {
    /// Reads the text of one packet. A client never opens a session by a packet.
    pub fn parse(text: &'a str) -> Result<Self, InvalidPacket> {
        let (kind, rest) = text.split_at_checked(1).ok_or(InvalidPacket)?;
        match (kind, rest) {
            ("1", "") => Ok(Self::Close),
            ("2", said) => Ok(Self::Ping(said)),
            ("3", said) => Ok(Self::Pong(said)),
            ("4", text) => Ok(Self::Text(text)),
            ("5", "") => Ok(Self::Upgrade),
            ("6", "") => Ok(Self::Noop),
            _ => Err(InvalidPacket),
        }
    }
}

/// What a session is opened with.
#[derive(Debug, Clone, Copy)]
pub struct Open<'a> {
    /// Its name.
    pub sid: &'a str,
    /// Whether a WebSocket may take over.
    pub may_upgrade: bool,
    /// How often the server pings.
    pub ping_interval_ms: u64,
    /// How long it waits for the answer.
    pub pong_timeout_ms: u64,
    /// How many bytes one request or message may have.
    pub payload_bytes_max: usize,
}

/// Appends the packet that opens a session.
pub fn put_open(out: &mut Vec<u8>, open: &Open<'_>) {
    out.extend_from_slice(br#"0{"sid":"#);
    json::put_string(out, open.sid);
    let upgrades: &[u8] = if open.may_upgrade {
        br#"["websocket"]"#
    } else {
        b"[]"
    };
    out.extend_from_slice(br#","upgrades":"#);
    out.extend_from_slice(upgrades);
    out.extend_from_slice(br#","pingInterval":"#);
    json::put_u64(out, open.ping_interval_ms);
    out.extend_from_slice(br#","pingTimeout":"#);
    json::put_u64(out, open.pong_timeout_ms);
    out.extend_from_slice(br#","maxPayload":"#);
    json::put_u64(out, open.payload_bytes_max as u64);
    out.push(b'}');
}
