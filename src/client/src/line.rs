//! One connection after the other to the same mount: what is heard on it, that it was lost, that it
//! is back. Knows no dialect; what has to be said again is the matter of who uses it.

use std::time::{Duration, Instant};

use super::reconnect::{Pace, Reconnect};
use super::socket::{self, Ended, Socket};
use super::{Client, ClientError};

/// A connection that comes back, if its client says so.
pub(super) struct Line {
    client: Client,
    path: String,
    protocol: &'static str,
    /// Nothing while it is lost.
    socket: Option<Socket>,
    opened_at: Instant,
    /// When the next attempt is due.
    try_at: Option<Instant>,
    renewed_at: Option<Instant>,
    pace: Pace,
}

/// What is heard.
#[derive(Debug)]
pub(super) enum Heard {
    Text(String),
    /// Not in the time that there was.
    Nothing,
    /// The connection is lost, and why.
    Lost(String),
    /// There is one again, on which nothing has been said.
    Back,
}

/// Until when something is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deadline {
    Never,
    At(Instant),
}

impl Deadline {
    pub(super) fn after(time: Duration) -> Self {
        now().checked_add(time).map_or(Self::Never, Self::At)
    }

    fn left(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::At(at) => Some(at.saturating_duration_since(now())),
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("path", &self.path)
            .field("is_up", &self.socket.is_some())
            .finish_non_exhaustive()
    }
}

impl Line {
    /// The first connection: what goes wrong here is the caller's matter.
    pub(super) fn open(
        client: &Client,
        path: &str,
        protocol: &'static str,
    ) -> Result<Self, ClientError> {
        let socket = socket::open(client, path, protocol, false)?;
        Ok(Self {
            client: client.clone(),
            path: path.to_owned(),
            protocol,
            socket: Some(socket),
            opened_at: now(),
            try_at: None,
            renewed_at: None,
            pace: Pace::default(),
        })
    }

    /// It comes back when it is lost.
    pub(super) fn is_lasting(&self) -> bool {
        self.client.reconnect.is_some()
    }

    /// Whether that has gone out. On a lasting line a failure is told by `receive`, which also
    /// reads what the server said before.
    pub(super) fn send(&mut self, text: String) -> Result<bool, ClientError> {
        let is_lasting = self.is_lasting();
        let Some(socket) = &mut self.socket else {
            return Ok(false);
        };
        match socket.send(text) {
            Err(ClientError::Closed(_)) if is_lasting => Ok(false),
            sent => sent.map(|()| true),
        }
    }

    pub(super) fn receive(&mut self, until: Deadline) -> Result<Heard, ClientError> {
        let Some(socket) = &mut self.socket else {
            return self.come_back(until);
        };
        match socket.receive(until.left()) {
            Ok(Some(text)) => Ok(Heard::Text(text)),
            Ok(None) => Ok(Heard::Nothing),
            Err(ended) => self.lose(ended).map(Heard::Lost),
        }
    }

    /// The loss is told, or is final.
    fn lose(&mut self, ended: Ended) -> Result<String, ClientError> {
        let Ended { code, reason } = ended;
        if !self.is_lasting() {
            return Err(ClientError::Closed(reason));
        }
        self.socket = None;
        let can_renew = self.client.can_renew();
        match self.pace.lost(code, self.opened_at.elapsed(), can_renew) {
            true => Ok(reason),
            false => Err(ClientError::Closed(reason)),
        }
    }

    /// Waits and tries until it is back, does not heal, or the time is over.
    fn come_back(&mut self, until: Deadline) -> Result<Heard, ClientError> {
        let how = self.client.reconnect.unwrap_or_default();
        loop {
            if !self.wait(how, until) {
                return Ok(Heard::Nothing);
            }
            let renew = self.pace.renew;
            match socket::open(&self.client, &self.path, self.protocol, renew) {
                Ok(socket) => {
                    self.socket = Some(socket);
                    self.opened_at = now();
                    self.pace.renew = false;
                    return Ok(Heard::Back);
                }
                Err(error) if self.pace.failed(how, &error, self.client.can_renew()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the next attempt is due before the time is over.
    fn wait(&mut self, how: Reconnect, until: Deadline) -> bool {
        let try_at = match self.try_at {
            Some(at) => at,
            None => now() + self.pace.wait(how),
        };
        let wait = try_at.saturating_duration_since(now());
        let left = until.left().filter(|left| *left < wait);
        std::thread::sleep(left.unwrap_or(wait));
        self.try_at = left.map(|_| try_at);
        left.is_none()
    }

    /// The token soon ends: another one, if there is somebody to ask, who is not asked too often.
    pub(super) fn renew(&mut self) -> Result<(), ClientError> {
        let is_soon = |at: Instant| at.elapsed() < RENEWED_EVERY;
        if !self.client.can_renew() || self.renewed_at.is_some_and(is_soon) {
            return Ok(());
        }
        self.renewed_at = Some(now());
        // Whoever gives tokens may have one later; the connection still has its old one.
        let Ok(token) = self.client.token(true) else {
            return Ok(());
        };
        let frame = serde_json::json!({ "type": "auth", "token": token });
        self.send(frame.to_string()).map(|_| ())
    }

    pub(super) fn close(self) {
        if let Some(socket) = self.socket {
            socket.close();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client waits, and there is nobody to tell it the time"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// From one renewal of a token to the next.
pub(super) const RENEWED_EVERY: Duration = Duration::from_secs(5);
