//! From a completed receive to the session: the request head, then frames, parsed and unmasked
//! in place in the provided buffer. Knows phases and dialects by name, not what messages mean.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::broker::relay::LeaveReason;
use crate::gateway::socket::Message as RawMessage;
use crate::metrics::{Counter, Refusal as RefusedFor};
use crate::proto::ErrorCode;
use crate::proto::durable;
use crate::proto::engineio::Refusal;
use crate::proto::frame::{self, Opcode};
use crate::proto::http::{self, Head, HeadLimits};
use crate::proto::json::{JsonError, JsonParser};
use crate::proto::relay::{self as wire, About, InvalidMessage};
use crate::proto::ws::{Message, Payload};
use crate::session::Session;

use super::door::rates::{Counted, TOO_FAST, Verdict};
use super::door::tickets::{TOO_MANY_FAILURES, counted};
use super::door::upgrade::{self, Decision};
use super::kernel::ring::{Completion, SlotKey};
use super::post::command::{Accepted, Command, Moved};
use super::socket::machine::{AfterEnd, Ended, Pause, Reader};
use super::state::{State, mark_dirty};
use super::turn::{Turn, unix_s};

impl Turn {
    pub(super) fn handle_receive(&mut self, key: SlotKey, completion: Completion) {
        let Some(filled) = usize::try_from(completion.result).ok().filter(|it| 0 < *it) else {
            if let Some(buffer) = completion.buffer {
                self.ring.buffers().give_back(buffer);
            }
            return self.receive_ended(key, &completion);
        };
        let reader = self.note_receive(key, filled, completion.more);
        if let Some(buffer) = completion.buffer {
            match reader {
                Reader::Head => self.receive_head(key, buffer, filled),
                Reader::Frames => self.receive_frames(key, buffer, filled),
                Reader::Nobody => {}
            }
            self.ring.buffers().give_back(buffer);
        }
        if !completion.more && reader != Reader::Head {
            // A multishot may end at any completion.
            self.shard.state.borrow_mut().wishes.push(key);
        }
    }

    fn note_receive(&self, key: SlotKey, bytes: usize, more: bool) -> Reader {
        let mut state = self.shard.state.borrow_mut();
        let now_ms = state.peer_ms();
        state.metrics.add(Counter::BytesReceived, bytes as u64);
        let connection = state.connections.get(key);
        connection.map_or(Reader::Nobody, |connection| {
            connection.machine.handle_received(more, now_ms)
        })
    }

    /// A receive gave nothing: the peer's end, no buffer, a cancellation, or a broken socket.
    fn receive_ended(&mut self, key: SlotKey, completion: &Completion) {
        let mut state = self.shard.state.borrow_mut();
        let state = &mut *state;
        let now_ms = state.peer_ms();
        let why = ended(completion.result);
        if why == Ended::Starved {
            self.ring.buffers().grow();
            state.metrics.add(Counter::ReceiveBuffersEmpty, 1);
        }
        let Some(connection) = state.connections.get(key) else {
            return;
        };
        let machine = &mut connection.machine;
        match machine.handle_receive_end(why, completion.more, now_ms) {
            AfterEnd::Nothing => {}
            AfterEnd::WaitInLine => self.starved.push_back(key),
            AfterEnd::Rearm => state.wishes.push(key),
            AfterEnd::FlushFirst => mark_dirty(&mut state.dirty, connection, key),
            AfterEnd::Abort => state.end_of_peer(key, why),
        }
    }

    fn receive_head(
        &mut self,
        key: SlotKey,
        buffer: super::kernel::buffers::BufferId,
        count: usize,
    ) {
        let received = self.ring.buffers().filled(buffer);
        let must_wait = {
            let mut state = self.shard.state.borrow_mut();
            self.greetings.must_wait(&mut state, key)
        };
        if must_wait {
            return self.greetings.keep(key, received[..count].to_vec());
        }
        let opened = {
            let mut state = self.shard.state.borrow_mut();
            state.open_head(key, &mut received[..count], &mut self.opened)
        };
        if let Some(bytes) = opened {
            self.read_head(key, bytes);
        }
    }

    /// Works on handshakes that had to wait, as many as one turn may.
    pub(super) fn greet_next(&mut self) {
        let limits = self.shard.state.borrow().live.limits.clone();
        self.greetings
            .begin_turn(limits.tls_handshakes_per_turn_max);
        while let Some((key, mut received)) = self.greetings.next() {
            let opened = {
                let mut state = self.shard.state.borrow_mut();
                state.open_head(key, &mut received, &mut self.opened)
            };
            if let Some(bytes) = opened {
                self.read_head(key, bytes);
            }
        }
    }

    /// Goes on with what has been read of a request.
    pub(super) fn read_head(&mut self, key: SlotKey, bytes: Vec<u8>) {
        let limits = self.shard.state.borrow().live.limits.clone();
        let head_limits = HeadLimits {
            head_bytes_max: limits.head_bytes_max,
            headers_max: limits.headers_max,
            uri_bytes_max: limits.uri_bytes_max,
        };
        match http::parse_head(&bytes, &head_limits) {
            Ok(Some(head)) => self.route_head(key, &head, bytes),
            Ok(None) => self.await_head(key, bytes),
            Err(error) => {
                let response = match bytes.starts_with(b"HEAD ") {
                    true => http::without_body(error.response()),
                    false => error.response(),
                };
                let mut state = self.shard.state.borrow_mut();
                state.refuse(key, &response, RefusedFor::Head);
            }
        }
    }

    fn await_head(&self, key: SlotKey, bytes: Vec<u8>) {
        let mut state = self.shard.state.borrow_mut();
        let Some(connection) = state.connections.get(key) else {
            return;
        };
        connection.machine.keep_head(bytes);
        state.wishes.push(key);
    }

    /// A mount, or else HTTP.
    fn route_head(&mut self, key: SlotKey, head: &Head, bytes: Vec<u8>) {
        let mount = upgrade::mount_of(&self.shard.shared, head.path());
        let is_for_mount = upgrade::is_for_mount(&self.shard.shared, head.method());
        let is_polling = |mount: &u16| self.shard.is_engine(*mount) && !head.is_upgrade();
        let Some(mount) = mount.filter(|mount| is_for_mount && !is_polling(mount)) else {
            let released = {
                let mut state = self.shard.state.borrow_mut();
                state.metrics.add(Counter::RequestsHandedOver, 1);
                state.release(key)
            };
            if let Some(connection) = released {
                self.http.serve(Rc::clone(&self.shard), connection, bytes);
            }
            return;
        };
        if let Some(home) = self.shard.engine_home(mount, head) {
            return self.move_to(home, key, bytes);
        }
        if self.shard.is_engine(mount)
            && let Err(refusal) = self.shard.check_engine(head)
        {
            let mut state = self.shard.state.borrow_mut();
            return state.refuse(key, &refusal.response(), RefusedFor::Head);
        }
        let admitted = {
            let mut state = self.shard.state.borrow_mut();
            match state.note_arrival(key, head) {
                Ok(()) => {
                    let peer = state.peer_of(key).map(|peer| peer.ip());
                    state.admit(head, mount, || peer)
                }
                Err((status, text)) => Err((RefusedFor::Limit, http::error_response(status, text))),
            }
        };
        match admitted {
            Ok(admitted) if self.shard.is_event(admitted.mount) => {
                let rest = bytes[head.bytes..].to_vec();
                self.shard.open_guarded(key, head, admitted, rest);
            }
            Ok(mut admitted) => {
                let keeps = self.shard.is_raw(mount) || self.shard.is_engine(mount);
                let peer = self.shard.state.borrow_mut().peer_of(key);
                if let Some(peer) = peer.filter(|_| keeps) {
                    admitted.keep(peer, head);
                }
                self.shard.open(key, admitted, true);
                self.receive_rest(key, &bytes[head.bytes..]);
            }
            Err((why, response)) => {
                let response = match (self.shard.is_engine(mount), why) {
                    (true, RefusedFor::Origin | RefusedFor::Token) => Refusal::Forbidden.response(),
                    _ if head.method() == "HEAD" => http::without_body(response),
                    _ => response,
                };
                self.shard.state.borrow_mut().refuse(key, &response, why);
            }
        }
    }

    /// A socket belongs to a session of another shard: it goes there with all that was read.
    fn move_to(&self, home: u16, key: SlotKey, read: Vec<u8>) {
        let mut state = self.shard.state.borrow_mut();
        let Some(connection) = state.release(key) else {
            return;
        };
        state.give_up_place();
        state.shared.loads[usize::from(home)].fetch_add(1, Ordering::Relaxed);
        let ticket = connection.guard.and_then(|guard| guard.address);
        let accepted = Accepted {
            fd: connection.fd,
            ticket,
            is_tls: false,
            moved: Some(Box::new(Moved {
                transport: connection.transport,
                read,
                admitted: None,
            })),
        };
        state.posts.post(home, Command::Adopt(accepted));
    }
}

/// Why a receive brought nothing, by what the kernel returned.
fn ended(result: i32) -> Ended {
    use rustix::io::Errno;
    match (result < 0).then(|| Errno::from_raw_os_error(-result)) {
        None => Ended::End,
        Some(Errno::NOBUFS) => Ended::Starved,
        Some(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => Ended::Interrupted,
        Some(_) => Ended::Broken,
    }
}

impl State {
    /// All that has come of a request head, with what came now.
    fn open_head(
        &mut self,
        key: SlotKey,
        received: &mut [u8],
        scratch: &mut Vec<u8>,
    ) -> Option<Vec<u8>> {
        let count = received.len();
        let (received, count) = self.open(key, received, count, scratch)?;
        let so_far = self.connections.get(key)?.machine.take_head()?;
        Some([&so_far, &received[..count]].concat())
    }

    /// Decides about an upgrade to a mount; `peer` is asked only where addresses are limited.
    pub(super) fn admit(
        &mut self,
        head: &Head,
        mount: u16,
        peer: impl FnOnce() -> Option<IpAddr>,
    ) -> Decision {
        if self.shared.memory.is_short() {
            let text = "the server is short of memory (limits.memory_bytes_max)";
            return Err((RefusedFor::Memory, http::error_response(503, text)));
        }
        let known = (&*self.shared, &*self.live);
        let mut decision = upgrade::admit(head, mount, known, &mut self.tokens, unix_s());
        let limits = self.live.limits_of(mount);
        match &mut decision {
            Ok(admitted) if 0 < limits.connections_per_tenant_max => {
                let tenant = admitted.caller.tenant.clone();
                let max = limits.connections_per_tenant_max;
                admitted.ticket = self.shared.gate.tenants.take(tenant, max);
                if admitted.ticket.is_none() {
                    let text = "the tenant has all the connections it may have \
                                (limits.connections_per_tenant_max)";
                    return Err((RefusedFor::Limit, http::error_response(503, text)));
                }
            }
            Err((RefusedFor::Token, _)) if 0 < limits.auth_failures_per_address_per_min_max => {
                let within = peer().is_none_or(|peer| self.note_auth_failure(peer));
                if !within {
                    let response = http::error_response(429, TOO_MANY_FAILURES);
                    return Err((RefusedFor::Limit, response));
                }
            }
            _ => {}
        }
        decision
    }

    /// A token from `peer` was refused; whether that is still within its limit.
    pub(super) fn note_auth_failure(&self, peer: IpAddr) -> bool {
        let gate = &self.shared.gate;
        gate.note_auth_failure(counted(peer), &self.live.limits, self.now_ms)
    }

    /// Counts a message, and measures it by the rates of its mount. Who is too fast for too long is
    /// closed here; a raw mount has no error frames, so it closes at once.
    pub(crate) fn note_message(&mut self, key: SlotKey, message: &Message<'_>) -> Counted {
        self.metrics.add(Counter::MessagesReceived, 1);
        let (verdict, is_raw) = self.judge(key, message);
        match verdict {
            Verdict::Pass => Counted::Within,
            Verdict::Refuse if !is_raw => Counted::TooFast,
            Verdict::Refuse | Verdict::Close => {
                self.close(key, 1008, "rate limited", LeaveReason::Kicked);
                Counted::Closed
            }
        }
    }

    pub(super) fn handle_message(
        &mut self,
        key: SlotKey,
        message: Message<'_>,
        json: &mut JsonParser,
    ) {
        match self.note_message(key, &message) {
            Counted::Within => {}
            Counted::TooFast => return self.refuse_too_fast(key, &message, json),
            Counted::Closed => return,
        }
        match message {
            Message::Ping(payload) => self.queue_frame(key, Opcode::Pong, payload),
            Message::Pong(payload) => self.handle_pong(key, payload),
            Message::Close(frame) => self.handle_close(key, frame),
            Message::Text(payload) => self.handle_text(key, payload, json),
            Message::Binary(payload) => self.handle_binary(key, &payload),
        }
    }

    /// A message that came too fast is not done, and its sender is told which one that was.
    fn refuse_too_fast(&mut self, key: SlotKey, message: &Message<'_>, json: &mut JsonParser) {
        match message {
            Message::Text(payload) => {
                let about = wire::about(json, payload);
                self.refuse_text(key, about, TOO_FAST, ErrorCode::RateLimited);
            }
            _ => self.refuse_text(key, About::default(), TOO_FAST, ErrorCode::RateLimited),
        }
    }

    /// What the rates of its mount say of a message, and whether that mount is a raw one.
    fn judge(&mut self, key: SlotKey, message: &Message<'_>) -> (Verdict, bool) {
        let Some(connection) = self.connections.get(key) else {
            return (Verdict::Pass, false);
        };
        let Some(guard) = &mut connection.guard else {
            return (Verdict::Pass, false);
        };
        let (bytes, is_control) = match message {
            Message::Text(payload) | Message::Binary(payload) => (payload.len(), false),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => (0, true),
        };
        if !is_control {
            guard.active_ms = self.now_ms - self.lost_ms;
        }
        let Some(meter) = &mut guard.meter else {
            return (Verdict::Pass, false);
        };
        let limits = self.live.limits_of(connection.mount);
        let is_raw = matches!(connection.session, Session::Raw(_));
        let verdict = meter.judge(limits, bytes as u64, is_control, self.now_ms);
        (verdict, is_raw)
    }

    fn handle_close(&mut self, key: SlotKey, close: Option<(u16, &str)>) {
        let answer = match close {
            Some((code, _)) => frame::close(code, ""),
            None => frame::close_without_code(),
        };
        self.close_with_frame(key, &answer, true, LeaveReason::Closed);
    }

    fn handle_pong(&mut self, key: SlotKey, payload: &[u8]) {
        // The empty ones answer our own pings.
        if !payload.is_empty() {
            self.hand_to_raw(key, || RawMessage::Pong(payload.to_vec()));
        }
    }

    fn handle_text(&mut self, key: SlotKey, mut payload: Payload<'_>, json: &mut JsonParser) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        match &connection.session {
            Session::Raw(_) => {
                // The decoder has checked the text.
                let text = String::from_utf8_lossy(&payload).into_owned();
                self.hand_to_raw(key, || RawMessage::Text(text));
            }
            Session::Relay(_) => match wire::parse(json, &mut payload) {
                Ok(request) => {
                    connection.invalid_frames = 0;
                    self.handle_relay(key, request);
                }
                Err(error) => self.handle_invalid(key, &payload, json, &error),
            },
            Session::Durable(_) => match durable::parse(json, &mut payload) {
                Ok(request) => {
                    connection.invalid_frames = 0;
                    self.handle_durable(key, request);
                }
                Err(error) => self.handle_invalid(key, &payload, json, &error),
            },
            Session::Event(_) | Session::Engine(..) | Session::None => {}
        }
    }

    fn handle_binary(&mut self, key: SlotKey, payload: &[u8]) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        match &connection.session {
            Session::Raw(_) => self.hand_to_raw(key, || RawMessage::Binary(payload.to_vec())),
            Session::Relay(_) | Session::Durable(_) => {
                let text = "invalid message: binary frames are not supported";
                self.count_invalid(key, About::default(), text);
            }
            Session::Event(_) | Session::Engine(..) | Session::None => {}
        }
    }

    fn hand_to_raw(&mut self, key: SlotKey, message: impl FnOnce() -> RawMessage) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let Session::Raw(session) = &connection.session else {
            return;
        };
        if !session.handle(message()) && self.pause(key, Pause::Inbox) {
            self.metrics.add(Counter::InboxPauses, 1);
        }
    }

    fn handle_invalid(
        &mut self,
        key: SlotKey,
        payload: &[u8],
        json: &mut JsonParser,
        error: &InvalidMessage,
    ) {
        if matches!(error, InvalidMessage::Json(JsonError::Utf8)) {
            self.metrics.closed(1007);
            let close = frame::close(1007, "the text is not UTF-8");
            return self.close_with_frame(key, &close, true, LeaveReason::Closed);
        }
        let about = wire::about(json, payload);
        self.count_invalid(key, about, &format!("invalid message: {error}"));
    }

    /// An error frame for an invalid frame; too many in a row end the connection (D-07).
    fn count_invalid(&mut self, key: SlotKey, about: About<'_>, text: &str) {
        self.refuse_text(key, about, text, ErrorCode::InvalidMessage);
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        connection.invalid_frames += 1;
        self.metrics.add(Counter::InvalidFrames, 1);
        let max = self.live.limits_of(connection.mount).invalid_frames_max;
        if max <= usize::from(connection.invalid_frames) {
            self.close(
                key,
                1008,
                "too many invalid frames in a row",
                LeaveReason::Closed,
            );
        }
    }

    /// An error frame of the relay or of durable topics.
    pub(super) fn refuse_text(
        &mut self,
        key: SlotKey,
        about: About<'_>,
        text: &str,
        code: ErrorCode,
    ) {
        match self.durable_session(key).is_some() {
            true => self.refuse_durable(key, about, text, code),
            false => self.refuse_relay(key, about.topic.unwrap_or(""), text, code),
        }
    }
}
