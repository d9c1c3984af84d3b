//! The clocks, read here for the whole shard. Knows no deadline.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since `began`.
pub(crate) fn us_since(began: Instant) -> u64 {
    us_between(began, now())
}

/// Microseconds from one instant to a later one.
pub(crate) fn us_between(from: Instant, to: Instant) -> u64 {
    let elapsed = to.saturating_duration_since(from);
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// Seconds since 1970, for tokens.
pub(crate) fn unix_s() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "clocks are read here")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Milliseconds since 1970, for what is written down.
pub(crate) fn unix_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "clocks are read here")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "clocks are read here")]
    Instant::now()
}
