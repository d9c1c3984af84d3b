//! Sessions of Engine.IO on a shard: whatever carries them, they are reached by one key, which is no
//! slot of a connection. Carries out what they decide; knows sockets by their keys, and of messages
//! only to whom they go.

use std::rc::Rc;

use crate::broker::relay::LeaveReason;
use crate::gateway::client::Reason as LeftBy;
use crate::metrics::{Counter, Gauge, SocketIoPacket};
use crate::proto::engineio::Refusal;
use crate::session::Session;
use crate::session::engineio::{Effect, Effects, Engine, EngineLimits, Reason};

use crate::proto::CloseCode;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::state::State;
use crate::shard::state::engines::{Polled, Upper};

impl State {
    /// Remembers whether the message that is handled next came too fast.
    pub(crate) fn note_pace(&mut self, key: SlotKey, is_too_fast: bool) {
        if let Some(carried) = self.engines.alive(key) {
            carried.is_too_fast = is_too_fast;
        }
    }

    pub(crate) fn is_too_fast(&mut self, key: SlotKey) -> bool {
        self.engines
            .alive(key)
            .is_some_and(|carried| carried.is_too_fast)
    }

    /// The socket that carries a session; of a connection, its own key.
    pub(crate) fn socket_of(&mut self, key: SlotKey) -> SlotKey {
        let carried = self.engines.alive(key);
        carried
            .and_then(|carried| carried.engine.socket())
            .unwrap_or(key)
    }

    /// The bounds of the sessions of a mount.
    pub(crate) fn engine_limits(&self, mount: u16) -> EngineLimits {
        let limits = self.live.limits_of(mount);
        EngineLimits {
            ping_interval_ms: limits.ping_interval_ms,
            pong_timeout_ms: limits.pong_timeout_ms,
            upgrade_ms_max: self.live.socketio.upgrade_ms_max,
            payload_bytes_max: limits.message_bytes_max,
        }
    }

    /// Makes one step of a session and carries out what follows.
    pub(crate) fn with_engine<T>(
        &mut self,
        key: SlotKey,
        step: impl FnOnce(&mut Engine<SlotKey>, &EngineLimits, u64, &mut Effects<SlotKey>) -> T,
    ) -> Option<T> {
        let mount = self.engines.alive(key)?.mount;
        let (limits, now_ms) = (self.engine_limits(mount), self.now_ms);
        let mut effects = Effects::new();
        let carried = self.engines.alive(key)?;
        let was_over_socket = carried.engine.socket().is_some();
        let result = step(&mut carried.engine, &limits, now_ms, &mut effects);
        let is_over_socket = carried.engine.socket().is_some();
        self.count_way(was_over_socket, is_over_socket);
        for effect in effects {
            self.carry_engine(key, effect);
        }
        self.settle_engine(key);
        Some(result)
    }

    /// A session has changed what carries it.
    fn count_way(&mut self, was_over_socket: bool, is_over_socket: bool) {
        match (was_over_socket, is_over_socket) {
            (false, true) => {
                self.engines.over_sockets += 1;
                self.metrics.add(Counter::EngineIoUpgrades, 1);
            }
            (true, false) => self.engines.over_sockets -= 1,
            _ => {}
        }
    }

    /// What the sessions here are carried by, and what was asked of them.
    pub(crate) fn count_engines(&mut self) {
        let over_sockets = self.engines.over_sockets;
        let polling = self.engines.polling();
        let metrics = &self.metrics;
        metrics.set(Gauge::EngineIoUnjoined, self.engines.unjoined.len() as u64);
        metrics.set(Gauge::EngineIoWebSocket, over_sockets as u64);
        metrics.set(Gauge::EngineIoPolling, polling as u64);
        let counts = std::mem::take(&mut self.engines.asks.counts);
        metrics.add(Counter::SocketIoAsks, counts.asked);
        metrics.add(Counter::SocketIoAsksUnanswered, counts.unanswered);
        metrics.add(Counter::SocketIoAcksLate, counts.late);
    }

    fn carry_engine(&mut self, key: SlotKey, effect: Effect<SlotKey>) {
        match effect {
            Effect::Answer(poll, body) => self.engines.answer(poll, Polled::Body(body)),
            Effect::Refuse(poll) => self.engines.answer(poll, Polled::Refused(Refusal::Request)),
            Effect::Send(socket, frames) => self.send_carrier(socket, &frames),
            Effect::Close(socket, code) => self.close_carrier(socket, code),
            Effect::GiveUpgradeUp(socket) => {
                self.metrics.add(Counter::EngineIoUpgradesLate, 1);
                self.close_carrier(socket, CloseCode::Normal.get());
            }
            Effect::Ended(reason) => self.end_upper(key, left_by(reason)),
        }
    }

    /// What waited for a poll goes out as it is: some of it may be what must not be compressed.
    fn send_carrier(&mut self, socket: SlotKey, frames: &[u8]) {
        let packing_of = |state: &mut Self, packing| {
            let connection = state.connections.alive(socket);
            connection.map(|it| std::mem::replace(&mut it.outbox.packing, packing))
        };
        let packing = packing_of(self, 0);
        self.queue_with(socket, |out| out.extend_from_slice(frames));
        if let Some(packing) = packing {
            packing_of(self, packing);
        }
    }

    fn close_carrier(&mut self, socket: SlotKey, code: u16) {
        if let Some(connection) = self.connections.alive(socket) {
            connection.session = Session::default();
        }
        self.close(socket, code, "", LeaveReason::Closed);
    }

    /// Whoever takes the messages is told that no more come.
    fn end_upper(&mut self, key: SlotKey, reason: LeftBy) {
        let Some(carried) = self.engines.alive(key) else {
            return;
        };
        match std::mem::replace(&mut carried.upper, Upper::None) {
            Upper::None => {}
            Upper::Raw(session) => session.inbox.close(),
            Upper::SocketIo(socketio) => {
                for session in socketio.sessions() {
                    session.client.note_reason(reason);
                    self.ended.push_back(Rc::clone(session));
                }
            }
        }
    }

    /// Frees a session that is over, else asks for the next look at it.
    fn settle_engine(&mut self, key: SlotKey) {
        let Some(carried) = self.engines.alive(key) else {
            return;
        };
        if carried.engine.is_over() {
            return self.engines.remove(key);
        }
        let mut at_ms = carried.engine.deadline_ms();
        for deadline_ms in [
            carried.connect_by_ms,
            carried.complete_by_ms,
            carried.expires_ms,
        ] {
            if 0 < deadline_ms {
                at_ms = at_ms.min(deadline_ms);
            }
        }
        self.look_at_engine(key, at_ms);
    }

    fn look_at_engine(&mut self, key: SlotKey, at_ms: u64) {
        let Some(carried) = self.engines.alive(key) else {
            return;
        };
        let tick = carried.tick;
        let is_soon_enough =
            self.wheel.awaits(tick) && tick * crate::shard::socket::timer::TICK_MS <= at_ms;
        if !is_soon_enough {
            let tick = self.wheel.schedule(key, at_ms);
            if let Some(carried) = self.engines.alive(key) {
                carried.tick = tick;
            }
        }
    }

    /// Begins or ends the time in which the bytes of a packet must come.
    pub(crate) fn await_attachments(&mut self, key: SlotKey) {
        let Some(carried) = self.engines.alive(key) else {
            return;
        };
        let is_partial =
            matches!(&carried.upper, Upper::SocketIo(socketio) if socketio.is_partial());
        if is_partial == (0 < carried.complete_by_ms) {
            return;
        }
        let (mount, now_ms) = (carried.mount, self.now_ms);
        let complete_ms_max = self.live.limits_of(mount).message_complete_ms_max;
        if let Some(carried) = self.engines.alive(key) {
            carried.complete_by_ms = if is_partial {
                now_ms + complete_ms_max
            } else {
                0
            };
        }
        // The next look is asked for by a step that does nothing.
        self.with_engine(key, |_, _, _, _| ());
    }

    /// A session is due for a look.
    pub(crate) fn meet_engine_deadline(&mut self, key: SlotKey, tick: u64) {
        let now_ms = self.now_ms;
        let Some(carried) = self.engines.alive(key) else {
            return;
        };
        if carried.tick != tick {
            return;
        }
        carried.tick = 0;
        // What is due is due once: a session that nobody polls any more ends by its time.
        let take_due = |at_ms: &mut u64| {
            let is_due = 0 < *at_ms && *at_ms <= now_ms;
            is_due && std::mem::take(at_ms) != 0
        };
        if take_due(&mut carried.connect_by_ms) || take_due(&mut carried.complete_by_ms) {
            return self.close_engine(key, CloseCode::Policy, Reason::Forced);
        }
        if take_due(&mut carried.expires_ms) {
            return self.close_engine_by(key, CloseCode::TokenExpired, LeftBy::TokenExpired);
        }
        self.with_engine(key, |engine, limits, now_ms, effects| {
            engine.handle_time(now_ms, limits, effects);
        });
    }

    /// Ends a session from this side.
    pub(crate) fn close_engine(&mut self, key: SlotKey, code: impl Into<u16>, reason: Reason) {
        let code = code.into();
        self.with_engine(key, |engine, limits, now_ms, effects| {
            engine.handle_close(reason, code, now_ms, limits, effects);
        });
    }

    /// The same with a reason that the machine does not know.
    pub(crate) fn close_engine_by(&mut self, key: SlotKey, code: impl Into<u16>, reason: LeftBy) {
        self.end_upper(key, reason);
        self.close_engine(key, code, Reason::Forced);
    }

    /// What came was no packet of the layer above: the transport is closed.
    pub(crate) fn refuse_engine(&mut self, key: SlotKey) {
        self.metrics.packet(SocketIoPacket::Malformed);
        self.with_engine(key, |engine, _, _, effects| {
            let socket = engine.socket();
            engine.handle_invalid(socket, effects);
        });
    }

    /// The socket that carries a session has ended.
    pub(crate) fn engine_socket_gone(&mut self, key: SlotKey, socket: SlotKey, leave: LeaveReason) {
        let reason = match leave {
            LeaveReason::Timeout => Reason::PingTimeout,
            _ => Reason::TransportClose,
        };
        let carries = self
            .engines
            .alive(key)
            .is_some_and(|carried| carried.engine.socket() == Some(socket));
        if carries {
            match leave {
                LeaveReason::Slow => self.end_upper(key, LeftBy::Slow),
                LeaveReason::Shutdown => self.end_upper(key, LeftBy::Shutdown),
                LeaveReason::Kicked => self.end_upper(key, LeftBy::Forced),
                _ => {}
            }
        }
        self.with_engine(key, |engine, limits, _, effects| {
            engine.handle_socket_gone(socket, reason, limits, effects);
        });
    }

    /// Puts whole frames into what waits for a session, even if that is full: answers are bounded by
    /// what may be asked. `count` frames.
    pub(crate) fn queue_engine(&mut self, key: SlotKey, frames: &[u8], count: usize) {
        let Some(carried) = self.engines.alive(key) else {
            return;
        };
        if let Some(socket) = carried.engine.socket() {
            return self.queue_with(socket, |out| out.extend_from_slice(frames));
        }
        carried.engine.queue(frames, count);
        let (waiting, mount) = (carried.engine.waiting().1, carried.mount);
        if !std::mem::replace(&mut carried.is_dirty, true) {
            self.engines.dirty.push(key);
        }
        self.metrics.add(Counter::MessagesSent, 1);
        let limits = self.live.outbox_limits(mount, usize::MAX);
        if limits.bytes_max < waiting {
            self.close_engine_by(key, CloseCode::Policy, LeftBy::Slow);
        }
    }

    /// Whether what waits for a poll is full for a push.
    pub(crate) fn is_engine_full(&mut self, key: SlotKey, bytes: usize) -> bool {
        let Some(carried) = self.engines.alive(key) else {
            return true;
        };
        let (frames, waiting) = carried.engine.waiting();
        let limits = self.live.outbox_limits(carried.mount, usize::MAX);
        0 < frames && (limits.frames_max <= frames || limits.bytes_max < waiting + bytes)
    }

    /// Answers requests for whom something was queued in this turn.
    pub(crate) fn flush_engines(&mut self) -> bool {
        let dirty = std::mem::take(&mut self.engines.dirty);
        for key in &dirty {
            if let Some(carried) = self.engines.alive(*key) {
                carried.is_dirty = false;
            }
            self.with_engine(*key, |engine, limits, _, effects| {
                engine.flush(limits, effects);
            });
        }
        !dirty.is_empty()
    }

    /// The server stops: whoever polls is told to come back. Sockets are told by themselves.
    pub(crate) fn drain_engines(&mut self) {
        for key in self.engines.keys() {
            let Some(carried) = self.engines.alive(key) else {
                continue;
            };
            if carried.engine.socket().is_none() {
                self.close_engine_by(key, CloseCode::Restart, LeftBy::Shutdown);
            }
        }
    }
}

fn left_by(reason: Reason) -> LeftBy {
    match reason {
        Reason::TransportClose => LeftBy::TransportClose,
        Reason::TransportError => LeftBy::TransportError,
        Reason::PingTimeout => LeftBy::PingTimeout,
        Reason::Forced => LeftBy::Forced,
        Reason::ParseError => LeftBy::ParseError,
    }
}
