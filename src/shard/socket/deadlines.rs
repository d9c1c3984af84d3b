//! The deadlines of a connection: handshake, ping and pong, write stall, fragments, token,
//! lifetime. A pure decision from the machine and the limits; the caller acts on it.
//!
//! All times are those in which the shard ran (`State::peer_ms`).

use crate::broker::relay::LeaveReason;
use crate::config::Limits;

use crate::shard::socket::machine::{Machine, Phase};

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
    /// What came before the peer's close is not answered in time.
    WorkTimeout,
    /// It does not finish closing.
    CloseTimeout,
}

/// What is due depends on this beside the machine; 0 is never.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Facts {
    /// When the token has expired.
    pub(crate) expires_ms: u64,
    /// When that is to be told.
    pub(crate) expiring_ms: u64,
    /// Since when it has done nothing, where that matters.
    pub(crate) idle_since_ms: u64,
    /// It is closed because it does not read.
    pub(crate) is_slow: bool,
    /// It carries Engine.IO, which has pings of its own.
    pub(crate) has_own_pings: bool,
}

/// How long the peer's end is awaited after ours.
const LINGER_MS_MAX: u64 = 1_000;
/// How long the peer's close frame is awaited, or an answer to what came before it.
pub(crate) const CLOSE_MS_MAX: u64 = 2_000;
/// A connection is looked at this often at least.
const LOOK_MS_MAX: u64 = 30_000;
/// Whoever is sent to is looked at so often in the time in which something must have left.
const LOOKS: u64 = 4;

/// Whether a connection that ends for this reason is given no more time to read.
pub(crate) fn is_slow(reason: LeaveReason) -> bool {
    matches!(reason, LeaveReason::Slow)
}

/// Decides what is due at `now_ms`.
pub(crate) fn due(machine: &Machine, facts: Facts, limits: &Limits, now_ms: u64) -> Due {
    let times = &machine.times;
    match machine.phase {
        Phase::Head(_) => {
            let end_ms = times.opened_ms + limits.handshake_ms_max;
            unless(now_ms < end_ms, end_ms, Due::HandshakeTimeout)
        }
        Phase::Ending { .. } => {
            let end_ms = times.since_ms + CLOSE_MS_MAX;
            unless(now_ms < end_ms, end_ms, Due::WorkTimeout)
        }
        Phase::Refusing | Phase::Closing { .. } | Phase::Dead => {
            due_closing(machine, facts, limits, (CLOSE_MS_MAX, now_ms))
        }
        Phase::Lingering => due_closing(machine, facts, limits, (LINGER_MS_MAX, now_ms)),
        Phase::Open => due_open(machine, facts, limits, now_ms),
    }
}

fn unless(is_early: bool, end_ms: u64, due: Due) -> Due {
    match is_early {
        true => Due::Nothing { next_ms: end_ms },
        false => due,
    }
}

/// A close is not cut while what was queued before it leaves: the peer answers it when it has read
/// all of that.
fn due_closing(
    machine: &Machine,
    facts: Facts,
    limits: &Limits,
    (ms_max, now_ms): (u64, u64),
) -> Due {
    let times = &machine.times;
    let end_ms = times.since_ms + ms_max;
    let leaves = machine.waits() && !facts.is_slow && !matches!(machine.phase, Phase::Dead);
    if now_ms < end_ms || !leaves {
        return unless(now_ms < end_ms, end_ms, Due::CloseTimeout);
    }
    let stall_ms = times.left_ms + limits.write_stall_ms_max;
    let next_ms = stall_ms.min(now_ms + look_ms(limits));
    unless(now_ms < stall_ms, next_ms, Due::CloseTimeout)
}

/// How often somebody to whom a send is in flight is looked at.
pub(crate) fn look_ms(limits: &Limits) -> u64 {
    (limits.write_stall_ms_max / LOOKS).max(1)
}

fn due_open(machine: &Machine, facts: Facts, limits: &Limits, now_ms: u64) -> Due {
    let times = &machine.times;
    // While the peer is not read from its pongs cannot be seen, nor the rest of a message. Pings go
    // on: if it is gone, sending to it fails.
    let is_deaf = machine.is_deaf();
    let awaits_pong = !is_deaf && machine.pinged;
    let heard_ms = match machine.pinged {
        true => times.seen_ms.max(times.pong_from_ms),
        false => times.seen_ms,
    };
    let after = |since_ms: u64, wait_ms: u64| (0 < since_ms).then_some(since_ms + wait_ms);
    let lifetime = (0 < limits.lifetime_ms_max).then_some(times.opened_ms + limits.lifetime_ms_max);
    let idle = after(facts.idle_since_ms, limits.idle_ms_max);
    let sending = machine.is_sending();
    let deadlines = [
        (
            Due::WriteStall,
            sending.then_some(times.left_ms + limits.write_stall_ms_max),
        ),
        (
            Due::MessageTimeout,
            after(times.since_ms, limits.message_complete_ms_max).filter(|_| !is_deaf),
        ),
        (Due::TokenExpired, after(facts.expires_ms, 0)),
        (Due::TokenExpiring, after(facts.expiring_ms, 0)),
        (Due::LifetimeReached, lifetime),
        (
            Due::Idle,
            idle.filter(|_| 0 < limits.idle_ms_max && !is_deaf),
        ),
        (
            Due::PongTimeout,
            (awaits_pong && !facts.has_own_pings)
                .then_some(times.pong_from_ms + limits.pong_timeout_ms),
        ),
        (
            Due::Ping,
            (!awaits_pong && !facts.has_own_pings).then_some(heard_ms + limits.ping_interval_ms),
        ),
    ];
    let set = deadlines
        .iter()
        .filter_map(|(due, at_ms)| Some((*due, (*at_ms)?)));
    let passed = set.clone().find(|(_, at_ms)| *at_ms <= now_ms);
    let look_ms = match sending {
        true => look_ms(limits).min(LOOK_MS_MAX),
        false => LOOK_MS_MAX,
    };
    let next_ms = set.map(|(_, at_ms)| at_ms).min().unwrap_or(u64::MAX);
    let next_ms = next_ms.min(now_ms + look_ms);
    passed.map_or(Due::Nothing { next_ms }, |(due, _)| due)
}
