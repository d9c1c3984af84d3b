//! How fast one connection may send. Knows numbers and a clock that it is told; the caller
//! refuses and closes.

use crate::config::Limits;

/// A bucket that fills at a rate: what flows in at once is its burst.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    /// Thousandths of what was used and has not flowed off yet.
    used_milli: u64,
    at_ms: u64,
}

impl Bucket {
    /// Takes `count`; `false` when that is more than `burst` above the rate. A rate of 0 is off.
    pub(crate) fn take(&mut self, count: u64, per_s: u64, burst: u64, now_ms: u64) -> bool {
        if per_s == 0 {
            return true;
        }
        let burst = if burst == 0 { per_s } else { burst };
        // Shards that share a bucket do not have quite the same clock.
        let flowed = now_ms.saturating_sub(self.at_ms).saturating_mul(per_s);
        self.used_milli = self.used_milli.saturating_sub(flowed);
        self.at_ms = self.at_ms.max(now_ms);
        let used = self.used_milli.saturating_add(count.saturating_mul(1_000));
        let fits = used <= burst.saturating_mul(1_000);
        if fits {
            self.used_milli = used;
        }
        fits
    }
}

/// What is measured of one connection, where its mount has rates.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    messages: Bucket,
    bytes: Bucket,
    control_frames: Bucket,
    /// Since when it is too fast.
    over_since_ms: Option<u64>,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// Refused, the connection stays.
    Refuse,
    /// It has been too fast for too long.
    Close,
}

/// Too fast for so long is the end.
const OVER_MS_MAX: u64 = 5_000;

impl Meter {
    /// A meter, if the limits have any rate.
    pub(crate) fn for_limits(limits: &Limits) -> Option<Box<Self>> {
        let any = 0 < limits.messages_per_s_max
            || 0 < limits.bytes_per_s_max
            || 0 < limits.control_frames_per_s_max;
        any.then(Box::default)
    }

    /// Judges a message or control frame of `bytes`.
    pub(crate) fn judge(
        &mut self,
        limits: &Limits,
        bytes: u64,
        is_control: bool,
        now_ms: u64,
    ) -> Verdict {
        let pass = if is_control {
            self.control_frames
                .take(1, limits.control_frames_per_s_max.into(), 0, now_ms)
        } else {
            let burst = limits.messages_burst_max.into();
            self.messages
                .take(1, limits.messages_per_s_max.into(), burst, now_ms)
                && self.bytes.take(bytes, limits.bytes_per_s_max, 0, now_ms)
        };
        if pass {
            self.over_since_ms = None;
            return Verdict::Pass;
        }
        let since_ms = *self.over_since_ms.get_or_insert(now_ms);
        if since_ms + OVER_MS_MAX <= now_ms {
            Verdict::Close
        } else {
            Verdict::Refuse
        }
    }
}

/// What became of a message when it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// It is done.
    Within,
    /// It is refused, and the connection stays.
    TooFast,
    /// The connection is closed.
    Closed,
}

/// What whoever is too fast is told.
pub(crate) const TOO_FAST: &str = "rate limited: slow down (limits.messages_per_s_max, \
     limits.bytes_per_s_max, limits.control_frames_per_s_max)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let mut taken = |now_ms| (0..100).filter(|_| bucket.take(1, 10, 20, now_ms)).count();
        assert_eq!(
            [taken(1_000), taken(1_000), taken(2_000), taken(9_000)],
            [20, 0, 10, 20]
        );
    }

    #[test]
    fn a_clock_that_is_behind_gives_nothing() {
        let mut bucket = Bucket::default();
        let mut taken = |now_ms| (0..100).filter(|_| bucket.take(1, 10, 20, now_ms)).count();
        assert_eq!(
            [taken(1_000), taken(900), taken(1_000), taken(1_100)],
            [20, 0, 0, 1]
        );
    }

    #[test]
    fn a_rate_of_zero_is_off() {
        assert!(Bucket::default().take(u64::MAX, 0, 0, 1));
    }

    #[test]
    fn too_fast_is_refused_and_after_five_seconds_closed() {
        let limits = Limits {
            messages_per_s_max: 1,
            ..Limits::default()
        };
        let mut meter = Meter::for_limits(&limits).unwrap();
        let mut judge = |now_ms| meter.judge(&limits, 10, false, now_ms);
        assert_eq!(judge(1_000), Verdict::Pass);
        assert_eq!(judge(1_001), Verdict::Refuse);
        assert_eq!(judge(1_900), Verdict::Refuse);
        assert_eq!(judge(2_100), Verdict::Pass);
        assert_eq!(judge(2_101), Verdict::Refuse);
        let mut last = Verdict::Pass;
        for step in 0..70 {
            // Twice a tenth of a second it takes what has flowed off, and more.
            last = judge(2_200 + step * 100);
            judge(2_200 + step * 100);
        }
        assert_ne!(last, Verdict::Close, "a message that passes begins anew");
        assert!(Meter::for_limits(&Limits::default()).is_none());
    }
}
