//! From a completed receive to the session: the request head, then frames, parsed and unmasked
//! in place in the provided buffer. Knows phases and dialects by name, not what messages mean.

use std::net::IpAddr;
use std::rc::Rc;

use crate::broker::relay::LeaveReason;
use crate::gateway::socket::Message as RawMessage;
use crate::metrics::{Counter, Refusal as RefusedFor};
use crate::proto::ErrorCode;
use crate::proto::durable;
use crate::proto::frame::{self, Opcode};
use crate::proto::http::{self, Head, HeadLimits};
use crate::proto::json::{JsonError, JsonParser};
use crate::proto::relay::{self as wire, InvalidMessage};
use crate::proto::ws::{FrameLimits, Input, Message, Payload, ProtocolError};
use crate::session::Session;

use super::door::rates::Verdict;
use super::door::tickets::{TOO_MANY_FAILURES, counted};
use super::door::upgrade::{self, Decision};
use super::kernel::ring::{Completion, SlotKey};
use super::socket::connection::{Phase, Receiving};
use super::state::{State, Wish};
use super::turn::{Turn, unix_s};

/// Where the bytes of a receive go.
enum Reader {
    Head,
    Frames,
    Nobody,
}

impl Turn {
    pub(super) fn handle_receive(&mut self, key: SlotKey, completion: Completion) {
        let reader = self.note_receive(key, &completion);
        if let Some(buffer) = completion.buffer {
            let count = usize::try_from(completion.result).unwrap_or(0);
            match reader {
                Reader::Head if 0 < count => self.receive_head(key, buffer, count),
                Reader::Frames if 0 < count => self.receive_frames(key, buffer, count),
                _ => {}
            }
            self.ring.buffers().give_back(buffer);
        }
        if completion.result <= 0 {
            self.receive_ended(key, completion.result);
        } else if !completion.more && matches!(reader, Reader::Frames | Reader::Nobody) {
            // A multishot may end at any completion.
            self.shard
                .state
                .borrow_mut()
                .wishes
                .push((key, Wish::Receive));
        }
    }

    fn note_receive(&self, key: SlotKey, completion: &Completion) -> Reader {
        let mut state = self.shard.state.borrow_mut();
        let now_ms = state.now_ms;
        let bytes = u64::try_from(completion.result).unwrap_or(0);
        state.metrics.add(Counter::BytesReceived, bytes);
        let Some(connection) = state.connections.get(key) else {
            return Reader::Nobody;
        };
        if !completion.more {
            connection.receiving = Receiving::Off;
        }
        connection.times.seen_ms = now_ms;
        match connection.phase {
            Phase::Head(_) => Reader::Head,
            Phase::Open | Phase::Closing { peer_closed: false } => Reader::Frames,
            Phase::Refusing
            | Phase::Ending { .. }
            | Phase::Closing { peer_closed: true }
            | Phase::Lingering
            | Phase::Dead => Reader::Nobody,
        }
    }

    /// A receive gave nothing: the peer's end, no buffer, a cancellation, or a broken socket.
    fn receive_ended(&mut self, key: SlotKey, result: i32) {
        use rustix::io::Errno;
        let mut state = self.shard.state.borrow_mut();
        let Some(connection) = state.connections.get(key) else {
            return;
        };
        if connection.receiving != Receiving::Off {
            return;
        }
        let errno = (result < 0).then(|| Errno::from_raw_os_error(-result));
        match errno {
            Some(Errno::NOBUFS) => {
                state.metrics.add(Counter::ReceiveBuffersEmpty, 1);
                self.starved.push_back(key);
            }
            Some(Errno::CANCELED | Errno::INTR | Errno::AGAIN)
                if !matches!(connection.phase, Phase::Dead) =>
            {
                state.wishes.push((key, Wish::Receive));
            }
            // It has ended its side and still reads: what is queued goes out first.
            None if connection.is_ending() => state.note_end(key),
            _ => state.abort(key, LeaveReason::Closed),
        }
    }

    fn receive_head(
        &mut self,
        key: SlotKey,
        buffer: super::kernel::buffers::BufferId,
        count: usize,
    ) {
        let received = &self.ring.buffers().filled(buffer)[..count];
        let mut bytes = {
            let mut state = self.shard.state.borrow_mut();
            let Some(connection) = state.connections.get(key) else {
                return;
            };
            let Phase::Head(so_far) = &mut connection.phase else {
                return;
            };
            std::mem::take(so_far)
        };
        bytes.extend_from_slice(received);
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
                let mut state = self.shard.state.borrow_mut();
                state.refuse(key, &error.response(), RefusedFor::Head);
            }
        }
    }

    fn await_head(&mut self, key: SlotKey, bytes: Vec<u8>) {
        let mut state = self.shard.state.borrow_mut();
        let Some(connection) = state.connections.get(key) else {
            return;
        };
        connection.phase = Phase::Head(bytes);
        connection.receiving = Receiving::Armed;
        let fd = connection.raw_fd();
        self.ring.receive_once(fd, key);
    }

    /// A mount, or else HTTP.
    fn route_head(&mut self, key: SlotKey, head: &Head, bytes: Vec<u8>) {
        let mount = upgrade::mount_of(&self.shard.shared, head.path());
        let Some(mount) = mount else {
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
                let peer = self.shard.state.borrow_mut().peer_of(key);
                if let Some(peer) = peer.filter(|_| self.shard.is_raw(admitted.mount)) {
                    admitted.keep(peer, head);
                }
                self.shard.open(key, admitted, true);
                self.receive_rest(key, &bytes[head.bytes..]);
            }
            Err((why, response)) => self.shard.state.borrow_mut().refuse(key, &response, why),
        }
    }

    /// Frames that came right behind the head.
    fn receive_rest(&mut self, key: SlotKey, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let mut bytes = rest.to_vec();
        let count = bytes.len();
        bytes.resize(count + super::kernel::buffers::PADDING_BYTES, 0);
        let shard = Rc::clone(&self.shard);
        shard.decode(key, &mut Input::new(&mut bytes, count), &mut self.json);
    }

    /// Connections whose upgrade came through HTTP.
    pub(super) fn take_returned(&mut self) {
        let returned = std::mem::take(&mut self.shard.state.borrow_mut().returned);
        for (key, read) in returned {
            self.receive_rest(key, &read);
        }
    }

    fn receive_frames(
        &mut self,
        key: SlotKey,
        buffer: super::kernel::buffers::BufferId,
        count: usize,
    ) {
        let shard = Rc::clone(&self.shard);
        let mut input = Input::new(self.ring.buffers().filled(buffer), count);
        shard.decode(key, &mut input, &mut self.json);
    }
}

impl super::Shard {
    /// Takes every complete message out of `input`.
    fn decode(self: &Rc<Self>, key: SlotKey, input: &mut Input<'_>, json: &mut JsonParser) {
        let Some((mut decoder, limits)) = self.state.borrow_mut().begin_decode(key) else {
            return;
        };
        let mut is_whole = false;
        let outcome = loop {
            match decoder.next(input, &limits) {
                Ok(Some(message)) => {
                    is_whole |= matches!(message, Message::Text(_) | Message::Binary(_));
                    self.handle_any(key, message, json);
                    self.run_calls();
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let mut state = self.state.borrow_mut();
        state.note_partial(key, decoder.has_partial(), is_whole);
        state.end_decode(key, decoder, outcome);
    }
}

impl State {
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

    fn begin_decode(&mut self, key: SlotKey) -> Option<(crate::proto::ws::Decoder, FrameLimits)> {
        let connection = self.connections.get(key)?;
        let decoder = std::mem::take(&mut connection.decoder);
        let limits = self.live.limits_of(connection.mount);
        // On a JSON mount the parser validates the text anyway.
        let skip_utf8 = matches!(
            connection.session,
            Session::Relay(_) | Session::Event(_) | Session::Durable(_)
        );
        let limits = FrameLimits {
            frame_bytes_max: limits.frame_bytes_max as u64,
            message_bytes_max: limits.message_bytes_max as u64,
            fragments_base_max: u32::try_from(limits.fragments_base_max).unwrap_or(u32::MAX),
            skip_utf8,
        };
        Some((decoder, limits))
    }

    /// Measures how long a message is unfinished: from its first byte, so anew when the one
    /// before it has become whole.
    fn note_partial(&mut self, key: SlotKey, is_partial: bool, is_whole: bool) {
        let now_ms = self.now_ms;
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if !is_partial {
            connection.times.partial_ms = 0;
        } else if is_whole || connection.times.partial_ms == 0 {
            connection.times.partial_ms = now_ms;
            let limits = self.live.limits_of(connection.mount);
            let end_ms = now_ms + limits.message_complete_ms_max;
            self.look_at(key, end_ms);
        }
    }

    fn end_decode(
        &mut self,
        key: SlotKey,
        decoder: crate::proto::ws::Decoder,
        outcome: Result<(), ProtocolError>,
    ) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        connection.decoder = decoder;
        if let Err(error) = outcome {
            let code = error.close_code();
            tracing::warn!(target: "tidegate::ws", code, %error, "protocol error");
            self.metrics.closed(code);
            let close = frame::close(code, &error.to_string());
            // What follows cannot be read any more, the peer's close least of all.
            self.close_with_frame(key, &close, true, LeaveReason::Closed);
        }
    }

    /// Counts a message; whether it is within the rates of its mount.
    pub(super) fn note_message(&mut self, key: SlotKey, message: &Message<'_>) -> bool {
        self.metrics.add(Counter::MessagesReceived, 1);
        self.is_within_rates(key, message)
    }

    pub(super) fn handle_message(
        &mut self,
        key: SlotKey,
        message: Message<'_>,
        json: &mut JsonParser,
    ) {
        if !self.note_message(key, &message) {
            return;
        }
        match message {
            Message::Ping(payload) => self.queue_frame(key, Opcode::Pong, payload),
            Message::Pong(payload) => self.handle_pong(key, payload),
            Message::Close(frame) => self.handle_close(key, frame),
            Message::Text(payload) => self.handle_text(key, payload, json),
            Message::Binary(payload) => self.handle_binary(key, &payload),
        }
    }

    /// Whether a message is within the rates of its mount; else it is refused here, and who is
    /// too fast for too long is closed. A raw mount has no error frames, so it closes at once.
    fn is_within_rates(&mut self, key: SlotKey, message: &Message<'_>) -> bool {
        let Some(connection) = self.connections.get(key) else {
            return false;
        };
        let Some(guard) = &mut connection.guard else {
            return true;
        };
        let (bytes, is_control) = match message {
            Message::Text(payload) | Message::Binary(payload) => (payload.len(), false),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => (0, true),
        };
        if !is_control {
            guard.active_ms = self.now_ms;
        }
        let Some(meter) = &mut guard.meter else {
            return true;
        };
        let limits = self.live.limits_of(connection.mount);
        let is_raw = matches!(connection.session, Session::Raw(_));
        match meter.judge(limits, bytes as u64, is_control, self.now_ms) {
            Verdict::Pass => return true,
            Verdict::Refuse if !is_raw => {
                let text = "rate limited: slow down (limits.messages_per_s_max, \
                            limits.bytes_per_s_max, limits.control_frames_per_s_max)";
                self.refuse_text(key, text, ErrorCode::RateLimited);
                self.refuse_event(key, text);
            }
            Verdict::Refuse | Verdict::Close => {
                self.close(key, 1008, "rate limited", LeaveReason::Kicked);
            }
        }
        false
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
                Err(error) => self.handle_invalid(key, &error),
            },
            Session::Durable(_) => match durable::parse(json, &mut payload) {
                Ok(request) => {
                    connection.invalid_frames = 0;
                    self.handle_durable(key, request);
                }
                Err(error) => self.handle_invalid(key, &error),
            },
            Session::Event(_) | Session::None => {}
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
                self.count_invalid(key, text);
            }
            Session::Event(_) | Session::None => {}
        }
    }

    fn hand_to_raw(&mut self, key: SlotKey, message: impl FnOnce() -> RawMessage) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let Session::Raw(session) = &connection.session else {
            return;
        };
        if !session.handle(message()) && !connection.pauses.inbox {
            connection.pauses.inbox = true;
            self.metrics.add(Counter::InboxPauses, 1);
            self.wishes.push((key, Wish::CancelReceive));
        }
    }

    fn handle_invalid(&mut self, key: SlotKey, error: &InvalidMessage) {
        if matches!(error, InvalidMessage::Json(JsonError::Utf8)) {
            self.metrics.closed(1007);
            let close = frame::close(1007, "the text is not UTF-8");
            return self.close_with_frame(key, &close, true, LeaveReason::Closed);
        }
        self.count_invalid(key, &format!("invalid message: {error}"));
    }

    /// An error frame for an invalid frame; too many in a row end the connection (D-07).
    fn count_invalid(&mut self, key: SlotKey, text: &str) {
        self.refuse_text(key, text, ErrorCode::InvalidMessage);
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

    /// An error frame that is about no topic.
    pub(super) fn refuse_text(&mut self, key: SlotKey, text: &str, code: ErrorCode) {
        match self.durable_session(key).is_some() {
            true => self.refuse_durable(key, text, code),
            false => self.refuse_relay(key, "", text, code),
        }
    }
}
