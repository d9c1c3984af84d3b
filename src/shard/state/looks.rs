//! What is done when something is due for a connection. Knows close codes and texts; `deadlines.rs`
//! decides what is due.

use crate::broker::relay::LeaveReason;
use crate::proto::frame::Opcode;

use crate::metrics::Refusal as RefusedFor;
use crate::proto::CloseCode;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::connection::Connection;
use crate::shard::socket::deadlines::{Due, Facts, due, is_slow};
use crate::shard::state::State;
use crate::shard::state::engines::is_engine;

impl State {
    /// A look at a connection that was asked for; `tick` says which.
    pub(crate) fn meet_deadline(&mut self, key: SlotKey, tick: u64) {
        if is_engine(key) {
            return self.meet_engine_deadline(key, tick);
        }
        let now_ms = self.peer_ms();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        if u64::from(connection.tick) != tick {
            return;
        }
        if connection.machine.asks_departed()
            && let Some(departed) = connection.departed()
        {
            connection.machine.handle_departed(departed, now_ms);
        }
        let due = self.due(key);
        self.carry_out_due(key, due);
        self.look_at_next(key);
    }

    fn due(&mut self, key: SlotKey) -> Due {
        let (now_ms, lost_ms) = (self.peer_ms(), self.lost_ms);
        let Some(connection) = self.connections.alive(key) else {
            return Due::Nothing { next_ms: u64::MAX };
        };
        let limits = self.live.limits_of(connection.mount);
        due(
            &connection.machine,
            facts(connection, lost_ms),
            limits,
            now_ms,
        )
    }

    fn carry_out_due(&mut self, key: SlotKey, due: Due) {
        match due {
            Due::Nothing { .. } => {}
            Due::Ping => self.ping(key),
            Due::WorkTimeout => self.finish_ending(key),
            Due::HandshakeTimeout => self.give_up(key, RefusedFor::Timeout),
            Due::CloseTimeout => self.abort(key, LeaveReason::Closed),
            Due::Idle => self.close(
                key,
                CloseCode::Normal,
                "idle for too long",
                LeaveReason::Timeout,
            ),
            Due::PongTimeout => self.abort(key, LeaveReason::Timeout),
            Due::WriteStall => self.abort(key, LeaveReason::Slow),
            Due::MessageTimeout => {
                let text = "a fragmented message was not complete in time";
                self.close(key, CloseCode::Policy, text, LeaveReason::Timeout);
            }
            Due::TokenExpiring => self.tell_expiry(key),
            Due::TokenExpired => self.close(
                key,
                CloseCode::TokenExpired,
                "token expired",
                LeaveReason::Closed,
            ),
            Due::LifetimeReached => {
                let text = "connection lifetime reached, re-upgrade to continue";
                self.close(key, CloseCode::GoingAway, text, LeaveReason::Closed);
            }
        }
    }

    /// Asks the peer whether it is there. An answer can be awaited only when the question has left.
    fn ping(&mut self, key: SlotKey) {
        let now_ms = self.peer_ms();
        let connection = self.connections.must(key);
        let departed = connection.departed();
        connection.machine.handle_ping(departed, now_ms);
        self.queue_frame(key, Opcode::Ping, b"");
    }

    /// Asks for the next look at a connection.
    pub(crate) fn look_at_next(&mut self, key: SlotKey) {
        let next_ms = match self.due(key) {
            Due::Nothing { next_ms } => next_ms.saturating_add(self.lost_ms),
            _ => self.now_ms,
        };
        self.look_at(key, next_ms);
    }
}

/// What is due depends on this beside the machine, in the time in which the shard ran.
fn facts(connection: &Connection, lost_ms: u64) -> Facts {
    // Where time was lost before a token was seen nothing may become "never".
    let of_peers = |at_ms: u64| match at_ms {
        0 => 0,
        at_ms => at_ms.saturating_sub(lost_ms).max(1),
    };
    let (expires_ms, speaker) = (connection.expires_ms, connection.session.speaker());
    let lead_ms = u64::from(connection.expiry_lead_tenths) * 100;
    let expiring_ms = match speaker.negotiated() && 0 < lead_ms {
        true => expires_ms.saturating_sub(lead_ms).max(1),
        false => 0,
    };
    Facts {
        expires_ms: of_peers(expires_ms),
        expiring_ms: of_peers(expiring_ms),
        idle_since_ms: connection.idle_since_ms().unwrap_or(0),
        is_slow: is_slow(connection.leave_reason),
        has_own_pings: speaker.has_own_pings(),
    }
}
