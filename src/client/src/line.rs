//! One connection after the other to the same mount: what is heard on it, that it was lost, that it
//! is back. Knows no dialect; what has to be said again is the matter of who uses it.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::reconnect::{Cure, Reconnect, after_close, after_error};
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
    /// Failed attempts, and losses soon after a success.
    attempt: u32,
    /// The next wait is at least that of this attempt.
    attempt_min: u32,
    refusals: u32,
    /// The next token must be another one.
    renew: bool,
}

/// What is heard.
#[derive(Debug)]
pub(super) enum Heard {
    Text(String),
    /// The connection is lost, and why.
    Lost(String),
    /// There is one again, on which nothing has been said.
    Back,
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
            attempt: 0,
            attempt_min: 0,
            refusals: 0,
            renew: false,
        })
    }

    /// It comes back when it is lost.
    pub(super) fn is_lasting(&self) -> bool {
        self.client.reconnect.is_some()
    }

    /// Whether that has gone out. On a lasting line a failure is told by `receive`, which also
    /// reads what the server said before.
    pub(super) fn send(&mut self, frame: &impl Serialize) -> Result<bool, ClientError> {
        let is_lasting = self.is_lasting();
        let Some(socket) = &mut self.socket else {
            return Ok(false);
        };
        match socket.send(frame) {
            Err(ClientError::Closed(_)) if is_lasting => Ok(false),
            sent => sent.map(|()| true),
        }
    }

    pub(super) fn receive(&mut self) -> Result<Heard, ClientError> {
        let Some(socket) = &mut self.socket else {
            return self.come_back();
        };
        match socket.receive() {
            Ok(text) => Ok(Heard::Text(text)),
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
        if STABLE_AFTER <= self.opened_at.elapsed() {
            (self.attempt, self.refusals) = (0, 0);
        }
        match self.heals(after_close(code)) {
            true => Ok(reason),
            false => Err(ClientError::Closed(reason)),
        }
    }

    /// Waits and tries until it is back or does not heal.
    fn come_back(&mut self) -> Result<Heard, ClientError> {
        let how = self.client.reconnect.unwrap_or_default();
        loop {
            self.wait(how);
            match socket::open(&self.client, &self.path, self.protocol, self.renew) {
                Ok(socket) => {
                    self.socket = Some(socket);
                    self.opened_at = now();
                    self.renew = false;
                    return Ok(Heard::Back);
                }
                Err(error) if how.attempts_max <= self.attempt => return Err(error),
                Err(error) if self.heals(after_error(&error)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&mut self, how: Reconnect) {
        // Without a random number the longest wait does as well.
        let random = getrandom::u64().unwrap_or(u64::MAX);
        std::thread::sleep(how.wait(self.attempt.max(self.attempt_min), random));
        self.attempt = self.attempt.saturating_add(1);
    }

    /// Whether it is worth another attempt, and which one.
    fn heals(&mut self, cure: Cure) -> bool {
        match cure {
            Cure::Wait(attempt) => self.attempt_min = attempt,
            Cure::Policy(attempt) => {
                self.attempt_min = attempt;
                self.refusals += 1;
                return self.refusals < REFUSALS_MAX;
            }
            Cure::Token => {
                // One that was just asked for is refused too, or there is nobody to ask.
                if self.renew || !self.client.can_renew() {
                    return false;
                }
                self.renew = true;
            }
            Cure::Nothing => return false,
        }
        true
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
fn now() -> Instant {
    Instant::now()
}

/// A connection that lasted so long was a good one: the next wait is a first one again.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// Refusals by policy in a row until they are believed.
const REFUSALS_MAX: u32 = 3;
