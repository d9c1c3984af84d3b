//! When messages are due in an open loop: a fixed plan that no slow answer can stretch.

use crate::clock::Nanos;

/// Message 0, 1, 2, .. at even distances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    first: Nanos,
    gap: f64,
    number: u64,
}

impl Schedule {
    /// `per_second` messages a second from `first` on.
    pub(crate) fn new(first: Nanos, per_second: f64) -> Self {
        Self {
            first,
            gap: 1e9 / per_second,
            number: 0,
        }
    }

    /// When message `number` is due.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of nanoseconds, far below 2^53 in any run"
    )]
    pub(crate) fn due(&self, number: u64) -> Nanos {
        self.first + (number as f64 * self.gap) as Nanos
    }

    /// When the next message is due.
    pub(crate) fn next(&self) -> Nanos {
        self.due(self.number)
    }

    /// Takes the next message: its number.
    pub(crate) fn advance(&mut self) -> u64 {
        self.number += 1;
        self.number - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_even_distances_whatever_happens() {
        let mut schedule = Schedule::new(1_000, 3.0e6);
        assert_eq!((schedule.next(), schedule.advance()), (1_000, 0));
        assert_eq!((schedule.next(), schedule.advance()), (1_333, 1));
        assert_eq!(schedule.due(3_000_000), 1_000_001_000);
    }
}
