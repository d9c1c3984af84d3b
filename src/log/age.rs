//! The time by which ages are judged: the wall clock as far as it can be believed. A wall clock
//! that jumps ahead would make everything old at once, so it is followed at twice the speed of the
//! monotonic clock; one that is set back is followed at once, since its stamps are compared with it.

/// Ages by this clock are never larger than the wall clock says, and grow by twice the time that
/// passes at most.
#[derive(Debug, Clone, Copy, Default)]
pub struct AgeClock {
    /// What it said, and the monotonic clock then.
    last: Option<(u64, u64)>,
}

impl AgeClock {
    /// Unix time in milliseconds for judging ages, from both clocks in milliseconds.
    pub fn look(&mut self, monotonic_ms: u64, unix_ms: u64) -> u64 {
        let told_ms = match self.last {
            Some((told_ms, seen_ms)) => {
                let passed_ms = monotonic_ms.saturating_sub(seen_ms);
                unix_ms.min(told_ms.saturating_add(passed_ms.saturating_mul(2)))
            }
            None => unix_ms,
        };
        self.last = Some((told_ms, monotonic_ms));
        told_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn a_clock_that_jumps_ahead_makes_nothing_old() {
        let mut clock = AgeClock::default();
        assert_eq!(clock.look(5, 1_000_000), 1_000_000);
        assert_eq!(clock.look(105, 1_000_100), 1_000_100);
        assert_eq!(clock.look(205, 1_000_200 + DAY_MS), 1_000_300);
        assert_eq!(clock.look(1_205, 1_001_200 + DAY_MS), 1_002_300);
        // It is set right again, and later it is a day later.
        assert_eq!(clock.look(1_305, 1_001_300), 1_001_300);
        assert_eq!(
            clock.look(1_305 + DAY_MS, 1_001_300 + DAY_MS),
            1_001_300 + DAY_MS
        );
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed_at_once() {
        let mut clock = AgeClock::default();
        clock.look(0, 2 * DAY_MS);
        assert_eq!(clock.look(100, DAY_MS), DAY_MS);
        assert_eq!(clock.look(200, DAY_MS + 100), DAY_MS + 100);
    }
}
