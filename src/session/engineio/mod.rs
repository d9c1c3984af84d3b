//! One session of Engine.IO: polling, a socket, or the way from one to the other. Decides what is
//! answered, sent and ended; `now` is an argument, sockets and requests are names. Knows no socket,
//! no clock and no meaning of a message.
//!
//! After each `handle_*` the caller carries out all effects. What waits for a poll is bounded by the
//! caller, who asks [`Engine::waiting`] before it queues.

mod steps;
#[cfg(test)]
mod tests;

use crate::proto::CloseCode;
use crate::proto::engineio::{PROBE, Packet, PayloadWriter, Sid};
use crate::proto::frame;
use crate::session::Speaker;

pub(crate) use self::steps::{Effect, Effects, EngineLimits, PollId, Reason, Up};

/// The session that a socket carries, or wants to: its place on the shard, and its life there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EngineSocket {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Speaker for EngineSocket {
    fn has_own_pings(&self) -> bool {
        true
    }
}

/// One session. `S` names a socket.
#[derive(Debug)]
pub(crate) struct Engine<S> {
    way: Way<S>,
    /// When the next ping is due.
    ping_at_ms: u64,
    /// When the answer to the last one must be there; 0 if nothing is awaited.
    pong_by_ms: u64,
}

#[derive(Debug)]
enum Way<S> {
    /// It began with a socket, and has no name that anybody could use.
    Socket(S),
    /// It began with polling and went over to a socket.
    Upgraded(S, Box<Sid>),
    Polling(Box<Polling<S>>),
    Over,
}

#[derive(Debug)]
struct Polling<S> {
    sid: Sid,
    /// The request that waits.
    poll: Option<PollId>,
    /// A body is on its way.
    is_posting: bool,
    /// Whole frames that wait for a poll.
    queue: Vec<u8>,
    frames: usize,
    probe: Option<Probe<S>>,
    /// It has ended; the next poll is told, or the socket that it is about to change to, until this time.
    closing_ms: u64,
    /// What that socket is closed with.
    closing_code: u16,
    /// When a body was whole last.
    posted_ms: u64,
    /// The client has ended it: a poll of its own that comes just behind is let go with a noop.
    is_farewell: bool,
}

#[derive(Debug)]
struct Probe<S> {
    socket: S,
    is_answered: bool,
    until_ms: u64,
}

impl<S: Copy + Eq> Engine<S> {
    /// A session that begins with a socket.
    pub(crate) fn of_socket(socket: S, now_ms: u64, limits: &EngineLimits) -> Self {
        Self::new(Way::Socket(socket), now_ms, limits)
    }

    /// A session that begins with polling.
    pub(crate) fn of_polling(sid: Sid, now_ms: u64, limits: &EngineLimits) -> Self {
        let polling = Polling {
            sid,
            poll: None,
            is_posting: false,
            queue: Vec::new(),
            frames: 0,
            probe: None,
            closing_ms: 0,
            closing_code: 0,
            posted_ms: now_ms,
            is_farewell: false,
        };
        Self::new(Way::Polling(Box::new(polling)), now_ms, limits)
    }

    fn new(way: Way<S>, now_ms: u64, limits: &EngineLimits) -> Self {
        Self {
            way,
            ping_at_ms: now_ms + limits.ping_interval_ms,
            pong_by_ms: 0,
        }
    }

    /// Its name, if it has one.
    pub(crate) fn sid(&self) -> Option<&Sid> {
        match &self.way {
            Way::Upgraded(_, sid) => Some(sid),
            Way::Polling(polling) => Some(&polling.sid),
            Way::Socket(_) | Way::Over => None,
        }
    }

    /// The socket that carries it.
    pub(crate) fn socket(&self) -> Option<S> {
        match &self.way {
            Way::Socket(socket) | Way::Upgraded(socket, _) => Some(*socket),
            Way::Polling(_) | Way::Over => None,
        }
    }

    /// Whether it can be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.way, Way::Over)
    }

    /// Whether it still speaks.
    pub(crate) fn is_open(&self) -> bool {
        match &self.way {
            Way::Polling(polling) => polling.closing_ms == 0,
            Way::Socket(_) | Way::Upgraded(..) => true,
            Way::Over => false,
        }
    }

    /// Frames and bytes that wait for a poll.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        match &self.way {
            Way::Polling(polling) => (polling.frames, polling.queue.len()),
            _ => (0, 0),
        }
    }

    /// A request asks for packets.
    pub(crate) fn handle_poll(
        &mut self,
        poll: PollId,
        now_ms: u64,
        limits: &EngineLimits,
        effects: &mut Effects<S>,
    ) {
        if self.expire(now_ms, limits, effects) {
            return effects.push(Effect::Refuse(poll));
        }
        let Way::Polling(polling) = &mut self.way else {
            return effects.push(Effect::Refuse(poll));
        };
        if let Some(first) = polling.poll.take() {
            effects.push(Effect::Answer(first, CLOSE.to_vec()));
            effects.push(Effect::Refuse(poll));
            return self.end(Reason::TransportError, effects);
        }
        polling.poll = Some(poll);
        self.flush(limits, effects);
    }

    /// Whoever asked for packets has gone.
    pub(crate) fn handle_poll_gone(&mut self, poll: PollId, effects: &mut Effects<S>) {
        if let Way::Polling(polling) = &mut self.way
            && polling.poll == Some(poll)
        {
            polling.poll = None;
            self.end(Reason::TransportError, effects);
        }
    }

    /// A request begins to bring packets; a second one meanwhile ends the session.
    pub(crate) fn handle_post_begin(
        &mut self,
        now_ms: u64,
        limits: &EngineLimits,
        effects: &mut Effects<S>,
    ) {
        if self.expire(now_ms, limits, effects) {
            return;
        }
        if let Way::Polling(polling) = &mut self.way {
            match polling.is_posting {
                true => self.end(Reason::TransportError, effects),
                false => polling.is_posting = true,
            }
        }
    }

    /// Its body is whole, or will not come; whether packets may be taken from it.
    pub(crate) fn handle_post_end(
        &mut self,
        now_ms: u64,
        limits: &EngineLimits,
        effects: &mut Effects<S>,
    ) -> bool {
        if self.expire(now_ms, limits, effects) {
            return false;
        }
        match &mut self.way {
            Way::Polling(polling) if polling.closing_ms == 0 => {
                polling.posted_ms = now_ms;
                std::mem::take(&mut polling.is_posting)
            }
            _ => false,
        }
    }

    /// The client ends the session. Its poll may be behind its close, for they come by two connections and
    /// a poll may have to be brought to this shard first.
    fn close_of_peer(&mut self, effects: &mut Effects<S>) {
        if let Way::Polling(polling) = &mut self.way {
            if polling.closing_ms == 0 && polling.poll.is_none() && polling.probe.is_none() {
                polling.closing_ms = polling.posted_ms + FAREWELL_MS;
                polling.is_farewell = true;
                return effects.push(Effect::Ended(Reason::TransportClose));
            }
            if let Some(poll) = polling.poll.take() {
                effects.push(Effect::Answer(poll, NOOP.to_vec()));
            }
        }
        self.end_with(Reason::TransportClose, 1000, effects);
    }

    /// Something has come over its socket: the other side is there.
    pub(crate) fn note_heard(&mut self) {
        self.pong_by_ms = 0;
    }

    /// A packet has come, over a socket or in a body.
    pub(crate) fn handle_packet<'a>(
        &mut self,
        from: Option<S>,
        packet: Packet<'a>,
        limits: &EngineLimits,
        effects: &mut Effects<S>,
    ) -> Up<'a> {
        if let Some(socket) = from
            && self.socket() != from
        {
            self.handle_probe(socket, &packet, limits, effects);
            return Up::Nothing;
        }
        if !self.is_open() {
            return Up::Nothing;
        }
        self.pong_by_ms = 0;
        match packet {
            Packet::Text(text) => return Up::Text(text),
            Packet::Binary(bytes) => return Up::Binary(bytes),
            Packet::Pong(_) | Packet::Noop | Packet::Upgrade => {}
            Packet::Close => self.close_of_peer(effects),
            // Only the server asks.
            Packet::Ping(_) => {
                self.end_with(Reason::TransportError, CloseCode::Protocol.get(), effects)
            }
        }
        Up::Nothing
    }

    /// What came was no packet.
    pub(crate) fn handle_invalid(&mut self, from: Option<S>, effects: &mut Effects<S>) {
        match (from, &mut self.way) {
            (Some(socket), Way::Polling(polling)) => {
                polling.probe.take_if(|probe| probe.socket == socket);
                effects.push(Effect::Close(socket, CloseCode::Protocol.get()));
            }
            _ => self.end_with(Reason::ParseError, CloseCode::Protocol.get(), effects),
        }
    }

    /// It makes room for another: nothing waits for it any more.
    pub(crate) fn handle_evicted(&mut self, effects: &mut Effects<S>) {
        self.end_with(Reason::Forced, CloseCode::Policy.get(), effects);
    }

    /// A socket has come that wants to take over.
    pub(crate) fn handle_socket(
        &mut self,
        socket: S,
        now_ms: u64,
        limits: &EngineLimits,
        effects: &mut Effects<S>,
    ) {
        self.expire(now_ms, limits, effects);
        match &mut self.way {
            Way::Polling(polling) if polling.probe.is_none() && polling.closing_ms == 0 => {
                polling.probe = Some(Probe {
                    socket,
                    is_answered: false,
                    until_ms: now_ms + limits.upgrade_ms_max,
                });
            }
            _ => effects.push(Effect::Close(socket, 1000)),
        }
    }

    /// A socket has gone.
    pub(crate) fn handle_socket_gone(
        &mut self,
        socket: S,
        reason: Reason,
        limits: &EngineLimits,
        effects: &mut Effects<S>,
    ) {
        if self.socket() == Some(socket) {
            self.way = Way::Over;
            return effects.push(Effect::Ended(reason));
        }
        if let Way::Polling(polling) = &mut self.way {
            polling.probe.take_if(|probe| probe.socket == socket);
            self.flush(limits, effects);
        }
    }

    fn handle_probe(
        &mut self,
        socket: S,
        packet: &Packet<'_>,
        limits: &EngineLimits,
        effects: &mut Effects<S>,
    ) {
        let Way::Polling(polling) = &mut self.way else {
            return effects.push(Effect::Close(socket, 1000));
        };
        let probe = polling
            .probe
            .as_mut()
            .filter(|probe| probe.socket == socket);
        match (probe, packet) {
            (Some(probe), Packet::Ping(PROBE)) => {
                probe.is_answered = true;
                effects.push(Effect::Send(socket, frame::text(b"3probe").to_vec()));
                self.flush(limits, effects);
            }
            (Some(probe), Packet::Upgrade) if probe.is_answered => {
                if let Some(poll) = polling.poll.take() {
                    effects.push(Effect::Answer(poll, NOOP.to_vec()));
                }
                let queue = std::mem::take(&mut polling.queue);
                let closing_code = (0 < polling.closing_ms).then_some(polling.closing_code);
                self.way = Way::Upgraded(socket, Box::new(polling.sid));
                self.pong_by_ms = 0;
                if !queue.is_empty() {
                    effects.push(Effect::Send(socket, queue));
                }
                if let Some(code) = closing_code {
                    self.way = Way::Over;
                    effects.push(Effect::Close(socket, code));
                }
            }
            _ => {
                polling.probe.take_if(|probe| probe.socket == socket);
                effects.push(Effect::Close(socket, CloseCode::Protocol.get()));
            }
        }
    }

    /// Keeps whole frames for the next poll. Only where no socket carries the session.
    pub(crate) fn queue(&mut self, frames: &[u8], count: usize) {
        if let Way::Polling(polling) = &mut self.way
            && polling.closing_ms == 0
        {
            polling.queue.extend_from_slice(frames);
            polling.frames += count;
        }
    }

    /// Answers the request that waits, if there is something to say.
    pub(crate) fn flush(&mut self, limits: &EngineLimits, effects: &mut Effects<S>) {
        let Way::Polling(polling) = &mut self.way else {
            return;
        };
        let is_probed = polling
            .probe
            .as_ref()
            .is_some_and(|probe| probe.is_answered);
        let is_closing = 0 < polling.closing_ms;
        if polling.queue.is_empty() && !is_probed && !is_closing {
            return;
        }
        let Some(poll) = polling.poll.take() else {
            return;
        };
        if polling.is_farewell {
            self.way = Way::Over;
            return effects.push(Effect::Answer(poll, NOOP.to_vec()));
        }
        if is_probed && !is_closing {
            return effects.push(Effect::Answer(poll, NOOP.to_vec()));
        }
        let mut writer = PayloadWriter::new(limits.payload_bytes_max);
        let (bytes, frames) = writer.take(&polling.queue);
        polling.queue.drain(..bytes);
        polling.frames -= frames.min(polling.frames);
        if polling.queue.is_empty() {
            polling.queue = Vec::new();
            polling.frames = 0;
        }
        if is_closing && polling.queue.is_empty() {
            writer.take(&frame::text(CLOSE));
            if let Some(probe) = polling.probe.take() {
                effects.push(Effect::Close(probe.socket, polling.closing_code));
            }
            self.way = Way::Over;
        }
        effects.push(Effect::Answer(poll, writer.into_body()));
    }

    /// This side ends the session: what is queued goes out first. `code` is for a socket.
    pub(crate) fn handle_close(
        &mut self,
        reason: Reason,
        code: u16,
        now_ms: u64,
        limits: &EngineLimits,
        effects: &mut Effects<S>,
    ) {
        let Way::Polling(polling) = &mut self.way else {
            return self.end_with(reason, code, effects);
        };
        if 0 < polling.closing_ms {
            return;
        }
        polling.closing_ms = now_ms + limits.pong_timeout_ms;
        polling.closing_code = code;
        // Once a probe is answered a client polls no more, and would hear of the end by nothing else.
        if let Some(probe) = polling.probe.take_if(|probe| !probe.is_answered) {
            effects.push(Effect::Close(probe.socket, code));
        }
        effects.push(Effect::Ended(reason));
        self.flush(limits, effects);
    }

    /// Does what is due.
    pub(crate) fn handle_time(
        &mut self,
        now_ms: u64,
        limits: &EngineLimits,
        effects: &mut Effects<S>,
    ) {
        if self.expire(now_ms, limits, effects) || !self.is_open() {
            return;
        }
        if let Way::Polling(polling) = &mut self.way
            && let Some(probe) = polling.probe.take_if(|probe| probe.until_ms <= now_ms)
        {
            effects.push(Effect::GiveUpgradeUp(probe.socket));
            self.flush(limits, effects);
        }
        if now_ms < self.ping_at_ms {
            return;
        }
        if self.pong_by_ms == 0 {
            let late_ms = now_ms.saturating_sub(self.ping_at_ms);
            let own_ms = late_ms.saturating_sub(LATE_MS_MAX);
            self.pong_by_ms = self.ping_at_ms + own_ms + limits.pong_timeout_ms;
        }
        let next_ms = self.ping_at_ms + limits.ping_interval_ms;
        self.ping_at_ms = match now_ms < next_ms {
            true => next_ms,
            false => now_ms + limits.ping_interval_ms,
        };
        let ping = frame::text(b"2");
        match self.socket() {
            Some(socket) => effects.push(Effect::Send(socket, ping.to_vec())),
            None => {
                self.queue(&ping, 1);
                self.flush(limits, effects);
            }
        }
    }

    /// When [`handle_time`](Self::handle_time) has something to do next.
    pub(crate) fn deadline_ms(&self) -> u64 {
        let awaited_ms = match self.pong_by_ms {
            0 => u64::MAX,
            pong_by_ms => pong_by_ms,
        };
        let (probe_ms, closing_ms) = match &self.way {
            Way::Polling(polling) => (
                polling
                    .probe
                    .as_ref()
                    .map_or(u64::MAX, |probe| probe.until_ms),
                polling.closing_ms,
            ),
            _ => (u64::MAX, 0),
        };
        match closing_ms {
            0 => self.ping_at_ms.min(awaited_ms).min(probe_ms),
            closing_ms => closing_ms,
        }
    }

    /// Ends what is past its time, even if nobody has looked since; whether it was.
    fn expire(&mut self, now_ms: u64, limits: &EngineLimits, effects: &mut Effects<S>) -> bool {
        match &mut self.way {
            Way::Over => return true,
            Way::Polling(polling) if 0 < polling.closing_ms => {
                if polling.closing_ms <= now_ms {
                    if let Some(probe) = polling.probe.take() {
                        effects.push(Effect::Close(probe.socket, polling.closing_code));
                    }
                    self.way = Way::Over;
                }
                return self.is_over();
            }
            _ => {}
        }
        let unanswered = 0 < self.pong_by_ms && self.pong_by_ms <= now_ms;
        // By now a ping would have been asked and not answered.
        let unasked = self.pong_by_ms == 0
            && self.socket().is_none()
            && self.ping_at_ms + limits.pong_timeout_ms <= now_ms;
        if unanswered || unasked {
            self.end_with(Reason::PingTimeout, 1000, effects);
        }
        unanswered || unasked
    }

    fn end(&mut self, reason: Reason, effects: &mut Effects<S>) {
        self.end_with(reason, 1000, effects);
    }

    /// Ends it at once: only the end of a socket tells of it.
    fn end_with(&mut self, reason: Reason, code: u16, effects: &mut Effects<S>) {
        let was_open = self.is_open();
        match std::mem::replace(&mut self.way, Way::Over) {
            Way::Socket(socket) | Way::Upgraded(socket, _) => {
                effects.push(Effect::Close(socket, code));
            }
            Way::Polling(polling) => {
                if let Some(poll) = polling.poll {
                    effects.push(Effect::Refuse(poll));
                }
                if let Some(probe) = polling.probe {
                    effects.push(Effect::Close(probe.socket, code));
                }
            }
            Way::Over => {}
        }
        if was_open {
            effects.push(Effect::Ended(reason));
        }
    }
}

const CLOSE: &[u8] = b"1";
const NOOP: &[u8] = b"6";

/// A poll may come this much later than the close that it was sent before.
const FAREWELL_MS: u64 = 50;
/// A ping may go out this much after it was due at the cost of the other side; what is later than
/// that is not its fault.
const LATE_MS_MAX: u64 = 50;
