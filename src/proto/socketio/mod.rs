//! Packets of Socket.IO 5, each the text of an Engine.IO message: `<type>[<n>-][/nsp,][<id>]<json>`.
//! Knows the grammar; borrows all that it reads, and parses the JSON once.

mod attachments;
mod write;

#[cfg(test)]
mod tests;

pub use self::attachments::{are_in_range, put_placeholder, with_base64};
pub use self::write::{
    EventParts, put_ack, put_connect, put_connect_error, put_disconnect, put_event,
};

use super::event::Envelope;
use super::json::{Elements, Field, JsonError, JsonParser, Scalar};

/// The namespace that is always there.
pub const ROOT: &str = "/";

/// What a packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wants to join a namespace.
    Connect,
    /// Leaves one.
    Disconnect,
    /// Something for its handlers.
    Event,
    /// The answer to an event.
    Ack,
    /// Refuses a connect; only servers say it.
    ConnectError,
    /// An event whose bytes follow.
    BinaryEvent,
    /// An answer whose bytes follow.
    BinaryAck,
}

/// One packet, its payload still to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it says.
    pub kind: Kind,
    /// How many binary messages follow.
    pub attachments: usize,
    /// Its namespace.
    pub nsp: &'a str,
    /// The number of the answer that it wants, or is.
    pub id: Option<u64>,
    /// The payload, empty where there is none.
    pub json: &'a [u8],
}

/// A text that cannot be read as a packet: the transport is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a socket.io packet")]
pub struct Malformed;

impl<'a> Packet<'a> {
    /// Reads everything up to the payload.
    pub fn parse(text: &'a [u8], attachments_max: usize) -> Result<Self, Malformed> {
        let (kind, mut rest) = text.split_first().ok_or(Malformed)?;
        let kind = kind_of(*kind).ok_or(Malformed)?;
        let mut attachments = 0;
        if matches!(kind, Kind::BinaryEvent | Kind::BinaryAck) {
            let (count, behind) = number(rest).ok_or(Malformed)?;
            rest = behind.strip_prefix(b"-").ok_or(Malformed)?;
            attachments = usize::try_from(count).map_err(|_| Malformed)?;
            if attachments_max < attachments {
                return Err(Malformed);
            }
        }
        let mut nsp = ROOT;
        if rest.first() == Some(&b'/') {
            let end = rest.iter().position(|byte| *byte == b',');
            let name = &rest[..end.unwrap_or(rest.len())];
            nsp = simdutf8::basic::from_utf8(name).map_err(|_| Malformed)?;
            rest = end.map_or(&[], |end| &rest[end + 1..]);
        }
        let mut id = None;
        if rest.first().is_some_and(u8::is_ascii_digit) {
            let (number, behind) = number(rest).ok_or(Malformed)?;
            (id, rest) = (Some(number), behind);
        }
        Ok(Self {
            kind,
            attachments,
            nsp,
            id,
            json: rest,
        })
    }
}

fn kind_of(byte: u8) -> Option<Kind> {
    Some(match byte {
        b'0' => Kind::Connect,
        b'1' => Kind::Disconnect,
        b'2' => Kind::Event,
        b'3' => Kind::Ack,
        b'4' => Kind::ConnectError,
        b'5' => Kind::BinaryEvent,
        b'6' => Kind::BinaryAck,
        _ => return None,
    })
}

/// The digits in front as a number below 2^53, and what follows them.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut number: u64 = 0;
    for digit in &text[..digits] {
        number = number * 10 + u64::from(digit - b'0');
        if NUMBER_MAX < number {
            return None;
        }
    }
    (0 < digits).then_some((number, &text[digits..]))
}

/// What a JavaScript number holds exactly.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// The payload of a connect.
pub fn check_connect(parser: &mut JsonParser, json: &[u8]) -> Result<(), Malformed> {
    if json.is_empty() {
        return Ok(());
    }
    let document = parser.parse(json).map_err(|_| Malformed)?;
    document.fields::<0>([]).map(|_| ()).map_err(|_| Malformed)
}

/// An event with its arguments.
#[derive(Debug)]
pub struct Event<'a> {
    /// The event, its first argument as data.
    pub envelope: Envelope<'a>,
    /// All arguments as they were written, with the commas between them.
    pub args: &'a [u8],
}

/// The payload of an event.
pub fn read_event<'a>(parser: &'a mut JsonParser, json: &'a [u8]) -> Result<Event<'a>, Malformed> {
    let document = parser.parse(json).map_err(|_| Malformed)?;
    let Elements {
        first,
        second,
        behind_first,
        ..
    } = document.elements().map_err(|_: JsonError| Malformed)?;
    let event = event_name(first.as_ref().ok_or(Malformed)?)?;
    let envelope = Envelope::of(event, document, second);
    Ok(Event {
        envelope,
        args: behind_first,
    })
}

fn event_name<'a>(first: &Field<'a>) -> Result<&'a str, Malformed> {
    match first.value {
        Scalar::Text(name) if RESERVED.contains(&name) => Err(Malformed),
        Scalar::Text(name) => Ok(name),
        Scalar::Whole(_) | Scalar::Number => std::str::from_utf8(first.span).map_err(|_| Malformed),
        _ => Err(Malformed),
    }
}

/// Names that mean something else on the other side.
const RESERVED: [&str; 6] = [
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// The arguments of an answer, with the commas between them.
pub fn read_ack<'a>(parser: &mut JsonParser, json: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let document = parser.parse(json).map_err(|_| Malformed)?;
    document.elements().map_err(|_| Malformed)?;
    let text = json.trim_ascii();
    Ok(text[1..text.len() - 1].trim_ascii())
}

/// The first of the arguments that [`read_ack`] gave, or `null`.
pub fn first_arg(args: &[u8]) -> &[u8] {
    match super::json::first_value(args) {
        [] => b"null",
        first => first,
    }
}
