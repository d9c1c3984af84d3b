//! The one clock of a run: nanoseconds since it began. Knows nothing else.

use std::time::{Duration, Instant};

/// Nanoseconds since the program began.
pub(crate) type Nanos = u64;

/// A copyable origin from which every thread counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that stands at zero now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that reads the clock"
    )]
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// How long the clock has run.
    pub(crate) fn now(self) -> Nanos {
        nanos(self.origin.elapsed())
    }

    /// Sleeps until the clock shows `at`.
    pub(crate) fn sleep_until(self, at: Nanos) {
        std::thread::sleep(Duration::from_nanos(at.saturating_sub(self.now())));
    }
}

/// A duration in nanoseconds; what does not fit (584 years) is the largest.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds as the command line gives them.
pub(crate) fn seconds(value: f64) -> Nanos {
    nanos(Duration::try_from_secs_f64(value).unwrap_or(Duration::ZERO))
}
