//! The end of a token and a new one on an open connection: when the peer is told, when it ends,
//! and whose tokens may take its place. Knows tokens and times; no frame but the ones it sends.
//!
//! Bound: a connection may offer `invalid_frames_max` tokens that are refused before it is closed,
//! and each counts against its address (`auth_failures_per_address_per_min_max`).

use std::sync::Arc;

use crate::auth::Caller;
use crate::broker::durable::Command;
use crate::broker::relay::LeaveReason;
use crate::metrics::Counter;
use crate::proto::ErrorCode;
use crate::proto::relay::{About, put_token_expiring};

use crate::proto::CloseCode;
use crate::shard::kernel::clock::unix_s;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::connection::Connection;
use crate::shard::socket::tickets::TOO_MANY_FAILURES;
use crate::shard::state::State;
use crate::shard::state::admitted::caller_on;

/// The longest time before the end of a token that its connection is told.
const EXPIRING_MS_MAX: u64 = 60_000;

/// What a token that does not fit is answered with.
const REFUSED: &str = "the token is not valid for this connection";

/// Notes when a token ends: what let it in late lets it stay as late, so the leeway of clocks
/// counts at its end too. Its connection is told once, at the lesser of a minute before that and
/// half of what is left. Tokens that name a year past 9999 were refused, so nothing overflows.
pub(crate) fn note_end(connection: &mut Connection, caller: &Caller, leeway_s: u64, now_ms: u64) {
    let Some(expires_at) = caller.expires_at else {
        (connection.expires_ms, connection.expiry_lead_tenths) = (0, 0);
        return;
    };
    let unix_s = unix_s();
    let left_ms = |until_s: u64| until_s.saturating_sub(unix_s) * 1_000;
    let (own_ms, all_ms) = (left_ms(expires_at), left_ms(expires_at + leeway_s));
    let lead_ms = all_ms - own_ms + EXPIRING_MS_MAX.min(own_ms / 2);
    connection.expires_ms = now_ms + all_ms;
    let tenths = u16::try_from(lead_ms / 100).unwrap_or(u16::MAX);
    connection.expiry_lead_tenths = tenths.max(1);
}

/// Whether a token of `other` may take the place of `own`: the same tenant, as the tokens have it,
/// and the same subject. Somebody without a token has nothing to renew.
fn is_same(own: &Caller, other: &Caller) -> bool {
    own.expires_at.is_some()
        && own.token_tenant() == other.token_tenant()
        && own.subject == other.subject
}

impl State {
    /// A new token for the same tenant and subject moves the end of the connection (D-09).
    pub(crate) fn renew(&mut self, key: SlotKey, token: &str) {
        match self.renewed(key, token) {
            Some(caller) => self.take_token(key, caller),
            None => self.refuse_token(key),
        }
    }

    /// The caller that a token makes of this connection. What cannot match is not verified, for a
    /// signature costs more than the frame that brings it.
    fn renewed(&mut self, key: SlotKey, token: &str) -> Option<Arc<Caller>> {
        let connection = self.connections.alive(key)?;
        let own = Arc::clone(connection.caller.as_ref()?);
        let mount = connection.mount;
        let limits = self.live.limits_of(mount);
        if limits.token_bytes_max < token.len() {
            return None;
        }
        let authenticator = &self.live.authenticator;
        let claimed = authenticator.claimed(token)?;
        if !is_same(&own, &claimed) {
            return None;
        }
        let verified = self.tokens.verify(authenticator, token, unix_s()).ok()?;
        let mount = &self.shared.mounts[usize::from(mount)];
        caller_on(mount, verified).filter(|caller| is_same(&own, caller))
    }

    fn take_token(&mut self, key: SlotKey, caller: Arc<Caller>) {
        let now_ms = self.now_ms;
        let leeway_s = self.live.authenticator.leeway_s();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        connection.refused_tokens = 0;
        let before = connection.caller.replace(Arc::clone(&caller));
        // The same token once more is told of no second time.
        if before.is_none_or(|before| before.claims != caller.claims) {
            note_end(connection, &caller, leeway_s, now_ms);
        }
        self.look_at_next(key);
        // What the new token does not allow ends with the old one.
        self.leave_lost(key, &caller);
        self.renew_at_homes(key, &caller);
    }

    /// The connection goes on with another token: its homes end what that does not allow.
    fn renew_at_homes(&mut self, key: SlotKey, caller: &Caller) {
        let Some(session) = self.durable_session(key) else {
            return;
        };
        if !session.renew(caller) {
            return;
        }
        let (who, homes) = (session.who.clone(), session.homes().collect::<Vec<_>>());
        for partition in homes {
            self.ask_as(key, (partition, who.clone()), Command::Renew, None);
        }
    }

    fn refuse_token(&mut self, key: SlotKey) {
        self.metrics.add(Counter::InvalidFrames, 1);
        self.on_refusal(key, About::default(), REFUSED, ErrorCode::Unauthorized);
        let within = 0 == self.live.limits.auth_failures_per_address_per_min_max
            || self
                .peer_of(key)
                .is_none_or(|peer| self.note_auth_failure(peer.ip()));
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        connection.refused_tokens = connection.refused_tokens.saturating_add(1);
        let max = self.live.limits_of(connection.mount).invalid_frames_max;
        if !within {
            self.close(
                key,
                CloseCode::Policy,
                TOO_MANY_FAILURES,
                LeaveReason::Kicked,
            );
        } else if max.min(255) <= usize::from(connection.refused_tokens) {
            self.close(
                key,
                CloseCode::Policy,
                "too many refused tokens",
                LeaveReason::Kicked,
            );
        }
    }

    /// Tells a peer that its token is about to end.
    pub(crate) fn tell_expiry(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        connection.expiry_lead_tenths = 0;
        let expires_at = connection.caller.as_ref().and_then(|own| own.expires_at);
        let left_s = expires_at.unwrap_or_default().saturating_sub(unix_s());
        self.queue_text_with(key, |out| put_token_expiring(out, left_s));
    }
}
