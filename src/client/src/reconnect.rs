//! How a lost connection comes back: after which closes and errors, and how long it waits before
//! each attempt. Decides and does nothing else.

use std::time::Duration;

use super::ClientError;

/// How a lost connection comes back. Before each attempt it waits any time up to a bound that
/// doubles with each failure, so that those who were lost together do not return together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    /// The bound of the first wait.
    pub wait_min: Duration,
    /// The bound of every wait.
    pub wait_max: Duration,
    /// Failed attempts in a row before the error is final.
    pub attempts_max: u32,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            wait_min: Duration::from_millis(500),
            wait_max: Duration::from_secs(30),
            attempts_max: u32::MAX,
        }
    }
}

/// What is done about a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cure {
    /// Waiting, as after so many failed attempts at least.
    Wait(u32),
    /// The same, but the server has refused by policy: not again and again.
    Policy(u32),
    /// Another token.
    Token,
    /// None.
    Nothing,
}

/// The same decisions as those of the client for browsers.
pub(super) fn after_close(code: Option<u16>) -> Cure {
    match code {
        // The server is done with us, or we broke the protocol and would again.
        Some(1000 | 1002 | 1003 | 1007 | 1009) => Cure::Nothing,
        // Revoked, or taken over: coming back would begin a fight.
        Some(4403 | 4409) => Cure::Nothing,
        Some(4401) => Cure::Token,
        Some(1008) => Cure::Policy(3),
        // Who was told together is not to come back together.
        Some(1001 | 1012) => Cure::Wait(2),
        Some(1013) => Cure::Wait(4),
        _ => Cure::Wait(0),
    }
}

/// After a failed attempt: what the server refuses, it will refuse again.
pub(super) fn after_error(error: &ClientError) -> Cure {
    match error {
        ClientError::Connect(..)
        | ClientError::Broken(_)
        | ClientError::Timeout { .. }
        | ClientError::Token(_) => Cure::Wait(0),
        ClientError::Upgrade { status, .. } => match status {
            Some(401) => Cure::Token,
            Some(status) if *status < 500 && ![408, 429].contains(status) => Cure::Nothing,
            _ => Cure::Wait(0),
        },
        _ => Cure::Nothing,
    }
}

impl Reconnect {
    /// How long to wait before this attempt; `random` chooses.
    pub(super) fn wait(&self, attempt: u32, random: u64) -> Duration {
        let doubled = self.wait_min.saturating_mul(1 << attempt.min(30));
        let bound = doubled.min(self.wait_max);
        bound.mul_f64(random as f64 / u64::MAX as f64)
    }
}

/// Where a connection is in its attempts to come back.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Failed attempts, and losses soon after a success.
    attempt: u32,
    /// The next wait is at least that of this attempt.
    attempt_min: u32,
    refusals: u32,
    /// The next token must be another one.
    pub(super) renew: bool,
}

impl Pace {
    /// A connection that was open for so long is lost: whether it may come back.
    pub(super) fn lost(&mut self, code: Option<u16>, open: Duration, can_renew: bool) -> bool {
        if STABLE_AFTER <= open {
            (self.attempt, self.refusals) = (0, 0);
        }
        self.heals(after_close(code), can_renew)
    }

    /// An attempt has failed: whether there is another one.
    pub(super) fn failed(&mut self, how: Reconnect, error: &ClientError, can_renew: bool) -> bool {
        self.attempt < how.attempts_max && self.heals(after_error(error), can_renew)
    }

    /// How long to wait before the next attempt.
    pub(super) fn wait(&mut self, how: Reconnect) -> Duration {
        // Without a random number the longest wait does as well.
        let random = getrandom::u64().unwrap_or(u64::MAX);
        let wait = how.wait(self.attempt.max(self.attempt_min), random);
        self.attempt = self.attempt.saturating_add(1);
        wait
    }

    /// Whether it is worth another attempt, and which one.
    fn heals(&mut self, cure: Cure, can_renew: bool) -> bool {
        match cure {
            Cure::Wait(attempt) => self.attempt_min = attempt,
            Cure::Policy(attempt) => {
                self.attempt_min = attempt;
                self.refusals += 1;
                return self.refusals < REFUSALS_MAX;
            }
            Cure::Token => {
                // One that was just asked for is refused too, or there is nobody to ask.
                if self.renew || !can_renew {
                    return false;
                }
                self.renew = true;
            }
            Cure::Nothing => return false,
        }
        true
    }
}

/// A connection that lasted so long was a good one: the next wait is a first one again.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// Refusals by policy in a row until they are believed.
const REFUSALS_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_anything_up_to_a_bound_that_doubles() {
        let how = Reconnect::default();
        let longest = |attempt| how.wait(attempt, u64::MAX).as_millis();
        assert_eq!(
            [0, 1, 2, 5, 6, 99].map(longest),
            [500, 1_000, 2_000, 16_000, 30_000, 30_000]
        );
        assert_eq!(how.wait(3, 0), Duration::ZERO);
        assert_eq!(how.wait(0, u64::MAX / 2).as_millis(), 250);
    }

    #[test]
    fn what_does_not_heal_is_not_tried_again() {
        let upgrade = |status| ClientError::Upgrade {
            path: "/ws".into(),
            reason: String::new(),
            status,
        };
        for status in [400, 403, 404, 426] {
            assert_eq!(
                after_error(&upgrade(Some(status))),
                Cure::Nothing,
                "{status}"
            );
        }
        assert_eq!(after_error(&upgrade(Some(401))), Cure::Token);
        for status in [None, Some(429), Some(502), Some(503)] {
            assert_eq!(after_error(&upgrade(status)), Cure::Wait(0), "{status:?}");
        }
        for code in [1000, 1002, 1003, 1007, 1009, 4403, 4409] {
            assert_eq!(after_close(Some(code)), Cure::Nothing, "{code}");
        }
        assert_eq!(after_close(Some(4401)), Cure::Token);
        assert_eq!(after_close(None), Cure::Wait(0));
        assert_eq!(
            [1001, 1012].map(|code| after_close(Some(code))),
            [Cure::Wait(2); 2]
        );
    }
}
