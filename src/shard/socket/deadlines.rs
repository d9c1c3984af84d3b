//! The deadlines of a connection: handshake, ping and pong, write stall, fragments, token,
//! lifetime. A pure decision from times and limits; the caller acts on it.

use crate::config::Limits;

use crate::shard::socket::connection::{Connection, Phase};

/// What is due for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing before this time.
    Nothing { next_ms: u64 },
    /// It is silent: ping it.
    Ping,
    /// It did not become a WebSocket in time.
    HandshakeTimeout,
    /// It did not answer a ping.
    PongTimeout,
    /// It does not read.
    WriteStall,
    /// It does not finish a message.
    MessageTimeout,
    /// Its token is about to expire.
    TokenExpiring,
    /// Its token has expired.
    TokenExpired,
    /// It has lived long enough.
    LifetimeReached,
    /// It neither sends nor has a subscription.
    Idle,
    /// It does not finish closing.
    CloseTimeout,
}

/// How long the peer's end is awaited after ours.
pub(crate) const LINGER_MS_MAX: u64 = 1_000;
/// A connection is looked at this often at least.
const LOOK_MS_MAX: u64 = 30_000;

/// Decides what is due at `now_ms`.
pub(crate) fn due(connection: &Connection, limits: &Limits, now_ms: u64, close_ms_max: u64) -> Due {
    let times = &connection.times;
    match connection.phase {
        Phase::Head(_) => {
            let end_ms = times.opened_ms + limits.handshake_ms_max;
            if now_ms < end_ms {
                Due::Nothing { next_ms: end_ms }
            } else {
                Due::HandshakeTimeout
            }
        }
        Phase::Refusing | Phase::Ending { .. } | Phase::Closing { .. } | Phase::Dead => {
            due_closing(times.closing_ms + close_ms_max, now_ms)
        }
        Phase::Lingering => due_closing(times.closing_ms + LINGER_MS_MAX, now_ms),
        Phase::Open => due_open(connection, limits, now_ms),
    }
}

fn due_closing(end_ms: u64, now_ms: u64) -> Due {
    if now_ms < end_ms {
        Due::Nothing { next_ms: end_ms }
    } else {
        Due::CloseTimeout
    }
}

fn due_open(connection: &Connection, limits: &Limits, now_ms: u64) -> Due {
    let times = &connection.times;
    // While the inbox is full the peer is not read from, so its pongs cannot be seen. Pings go on:
    // if it is gone, sending to it fails.
    let is_deaf = connection.pauses.inbox;
    let awaits_pong = !is_deaf && times.seen_ms < times.pinged_ms;
    let heard_ms = match is_deaf {
        true => times.seen_ms.max(times.pinged_ms),
        false => times.seen_ms,
    };
    let after = |since_ms: u64, wait_ms: u64| (0 < since_ms).then_some(since_ms + wait_ms);
    let lifetime = (0 < limits.lifetime_ms_max).then_some(times.opened_ms + limits.lifetime_ms_max);
    let tells = connection.negotiated() && 0 < connection.expiry_lead_tenths;
    let lead_ms = u64::from(connection.expiry_lead_tenths) * 100;
    let expiring = tells.then(|| times.expires_ms.saturating_sub(lead_ms));
    let idle_since_ms = connection
        .idle_since_ms()
        .filter(|_| 0 < limits.idle_ms_max);
    let idle = idle_since_ms.map(|since_ms| since_ms + limits.idle_ms_max);
    let deadlines = [
        (
            Due::WriteStall,
            after(times.sending_ms, limits.write_stall_ms_max),
        ),
        (
            Due::MessageTimeout,
            after(times.partial_ms, limits.message_complete_ms_max),
        ),
        (Due::TokenExpired, after(times.expires_ms, 0)),
        (Due::TokenExpiring, expiring),
        (Due::LifetimeReached, lifetime),
        (Due::Idle, idle),
        (
            Due::PongTimeout,
            awaits_pong.then_some(times.pinged_ms + limits.pong_timeout_ms),
        ),
        (
            Due::Ping,
            (!awaits_pong).then_some(heard_ms + limits.ping_interval_ms),
        ),
    ];
    let set = deadlines
        .iter()
        .filter_map(|(due, at_ms)| Some((*due, (*at_ms)?)));
    let passed = set.clone().find(|(_, at_ms)| *at_ms <= now_ms);
    let next_ms = set.map(|(_, at_ms)| at_ms).min().unwrap_or(u64::MAX);
    let next_ms = next_ms.min(now_ms + LOOK_MS_MAX);
    passed.map_or(Due::Nothing { next_ms }, |(due, _)| due)
}
