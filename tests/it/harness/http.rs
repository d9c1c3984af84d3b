//! Requests without an HTTP library, so that a test sees what is on the wire. Knows heads and
//! bodies with a length; nothing of routes.

use std::net::SocketAddr;

use super::wire::Wire;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.trim())
    }
}

impl Wire {
    /// The next answer, with its body.
    #[track_caller]
    pub(crate) fn read_answer(&mut self) -> Answer {
        let head = self.read_head();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: String::new(),
        };
        let length = answer.header("content-length");
        let length = length.map_or(0, |text| text.parse().unwrap());
        answer.body = String::from_utf8(self.read_bytes(length)).unwrap();
        answer
    }
}

/// Sends one request on a connection of its own and returns the answer to it.
#[track_caller]
pub(crate) fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut wire = Wire::connect(address);
    wire.write(request);
    wire.read_answer()
}

/// A request with a body, and a token where one is given.
pub(crate) fn request(method: &str, target: &str, token: Option<&str>, body: &str) -> String {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        authorization.unwrap_or_default(),
        body.len(),
    )
}
