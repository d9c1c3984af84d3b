//! What a server says: the texts of packets, each behind the `4` of an Engine.IO message. They only
//! append.

use super::super::json;
use super::ROOT;

/// What all events and answers have in common.
#[derive(Debug, Clone, Copy)]
pub struct EventParts<'a> {
    /// The namespace.
    pub nsp: &'a str,
    /// The number of the answer that is wanted, or that this is.
    pub id: Option<u64>,
    /// How many binary messages follow.
    pub attachments: usize,
    /// The arguments as JSON, with the commas between them.
    pub args: &'a [u8],
}

/// Appends the answer to a connect.
pub fn put_connect(out: &mut Vec<u8>, nsp: &str, sid: &str, pid: Option<&str>) {
    out.extend_from_slice(b"40");
    put_nsp(out, nsp);
    out.extend_from_slice(br#"{"sid":"#);
    json::put_string(out, sid);
    if let Some(pid) = pid {
        out.extend_from_slice(br#","pid":"#);
        json::put_string(out, pid);
    }
    out.push(b'}');
}

/// Appends the refusal of a connect; `data` is JSON.
pub fn put_connect_error(out: &mut Vec<u8>, nsp: &str, message: &str, data: Option<&[u8]>) {
    out.extend_from_slice(b"44");
    put_nsp(out, nsp);
    out.extend_from_slice(br#"{"message":"#);
    json::put_string(out, message);
    if let Some(data) = data {
        out.extend_from_slice(br#","data":"#);
        out.extend_from_slice(data);
    }
    out.push(b'}');
}

/// Appends the end of a namespace.
pub fn put_disconnect(out: &mut Vec<u8>, nsp: &str) {
    out.extend_from_slice(b"41");
    put_nsp(out, nsp);
}

/// Appends an event; `event` is its name as JSON.
pub fn put_event(out: &mut Vec<u8>, event: &[u8], parts: &EventParts<'_>) {
    out.reserve(OVERHEAD + parts.nsp.len() + event.len() + parts.args.len());
    put_head(out, b"42", b"45", parts);
    out.push(b'[');
    out.extend_from_slice(event);
    if !parts.args.is_empty() {
        out.push(b',');
        out.extend_from_slice(parts.args);
    }
    out.push(b']');
}

/// Appends the answer to an event.
pub fn put_ack(out: &mut Vec<u8>, parts: &EventParts<'_>) {
    out.reserve(OVERHEAD + parts.nsp.len() + parts.args.len());
    put_head(out, b"43", b"46", parts);
    out.push(b'[');
    out.extend_from_slice(parts.args);
    out.push(b']');
}

fn put_head(out: &mut Vec<u8>, plain: &[u8; 2], binary: &[u8; 2], parts: &EventParts<'_>) {
    if parts.attachments == 0 {
        out.extend_from_slice(plain);
    } else {
        out.extend_from_slice(binary);
        json::put_u64(out, parts.attachments as u64);
        out.push(b'-');
    }
    put_nsp(out, parts.nsp);
    if let Some(id) = parts.id {
        json::put_u64(out, id);
    }
}

fn put_nsp(out: &mut Vec<u8>, nsp: &str) {
    if nsp != ROOT {
        out.extend_from_slice(nsp.as_bytes());
        out.push(b',');
    }
}

const OVERHEAD: usize = 48;
