//! What is counted of every message, and how one is refused that came too fast or is none of its dialect.
//! Knows counts and codes; not what a message means.

use crate::broker::relay::LeaveReason;
use crate::metrics::Counter;
use crate::proto::ErrorCode;
use crate::proto::frame;
use crate::proto::json::{JsonError, JsonParser};
use crate::proto::relay::{self as wire, About, InvalidMessage};
use crate::proto::ws::Message;

use crate::proto::CloseCode;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::rates::{Counted, TOO_FAST, Verdict};
use crate::shard::state::State;

impl State {
    /// Counts a message, and if its connection is measured does so by the rates of its mount. Who is too
    /// fast for too long is closed here; a raw mount has no error frames, so it closes at once.
    pub(crate) fn note_message(
        &mut self,
        key: SlotKey,
        message: &Message<'_>,
        is_measured: bool,
    ) -> Counted {
        self.metrics.add(Counter::MessagesReceived, 1);
        if !is_measured {
            return Counted::Within;
        }
        let (verdict, may_refuse) = self.judge(key, message);
        match verdict {
            Verdict::Pass => Counted::Within,
            Verdict::Refuse if may_refuse => Counted::TooFast,
            Verdict::Refuse | Verdict::Close => {
                self.close(key, CloseCode::Policy, "rate limited", LeaveReason::Kicked);
                Counted::Closed
            }
        }
    }

    /// What the rates of its mount say of a message, and whether its sender can be told.
    fn judge(&mut self, key: SlotKey, message: &Message<'_>) -> (Verdict, bool) {
        let Some(connection) = self.connections.alive(key) else {
            return (Verdict::Pass, true);
        };
        let Some(guard) = &mut connection.guard else {
            return (Verdict::Pass, true);
        };
        let (bytes, is_control) = match message {
            Message::Text(payload) | Message::Binary(payload) => (payload.len(), false),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => (0, true),
        };
        if !is_control {
            guard.active_ms = self.now_ms - self.lost_ms;
        }
        let Some(meter) = &mut guard.meter else {
            return (Verdict::Pass, true);
        };
        let limits = self.live.limits_of(connection.mount);
        let may_refuse = connection.session.speaker().has_error_frames();
        let verdict = meter.judge(limits, bytes as u64, is_control, self.now_ms);
        (verdict, may_refuse)
    }

    /// A message that came too fast is not done, and its sender is told which one that was.
    pub(crate) fn refuse_too_fast(
        &mut self,
        key: SlotKey,
        message: &Message<'_>,
        json: &mut JsonParser,
    ) {
        match message {
            Message::Text(payload) => {
                let about = wire::about(json, payload);
                self.on_refusal(key, about, TOO_FAST, ErrorCode::RateLimited);
            }
            _ => self.on_refusal(key, About::default(), TOO_FAST, ErrorCode::RateLimited),
        }
    }

    pub(crate) fn handle_invalid(
        &mut self,
        key: SlotKey,
        payload: &[u8],
        json: &mut JsonParser,
        error: &InvalidMessage,
    ) {
        if matches!(error, InvalidMessage::Json(JsonError::Utf8)) {
            self.metrics.closed(CloseCode::InvalidData.get());
            let close = frame::close(CloseCode::InvalidData.get(), "the text is not UTF-8");
            return self.close_with_frame(key, &close, true, LeaveReason::Closed);
        }
        let about = wire::about(json, payload);
        self.count_invalid(key, about, &format!("invalid message: {error}"));
    }

    /// An error frame for an invalid frame; too many in a row end the connection (D-07).
    pub(crate) fn count_invalid(&mut self, key: SlotKey, about: About<'_>, text: &str) {
        self.on_refusal(key, about, text, ErrorCode::InvalidMessage);
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        connection.invalid_frames += 1;
        self.metrics.add(Counter::InvalidFrames, 1);
        let max = self.live.limits_of(connection.mount).invalid_frames_max;
        if max <= usize::from(connection.invalid_frames) {
            self.close(
                key,
                CloseCode::Policy,
                "too many invalid frames in a row",
                LeaveReason::Closed,
            );
        }
    }
}
