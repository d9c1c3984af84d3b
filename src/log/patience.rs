//! Operations that only lacked something for the moment: descriptors, memory, a signal that came in
//! between. They are handed out again as they were, after a pause that grows. Knows times and
//! operations, not what they are for.

use super::commit_log::Owner;
use super::storage::Op;

/// The first pause; each next one is twice as long ..
const PAUSE_US_MIN: u64 = 1_000;
/// .. up to this.
const PAUSE_US_MAX: u64 = 1_000_000;

/// An operation that waits for its next try.
#[derive(Debug)]
struct Waiting {
    due_us: u64,
    again: Again,
}

/// What is handed out again, and how often it has been.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) owner: Owner,
    pub(super) op: Op,
    pub(super) tries: u32,
}

impl Again {
    pub(super) fn first(owner: Owner, op: Op) -> Self {
        Self {
            owner,
            op,
            tries: 0,
        }
    }

    /// Whoever makes a file asks for less, or later, if it cannot have one.
    pub(super) fn is_tried_again(&self) -> bool {
        !matches!(self.op, Op::Create { .. })
    }
}

/// Bound: what waits was in flight before, so there is no more of it than of operations.
#[derive(Debug, Default)]
pub(super) struct Patience {
    waiting: Vec<Waiting>,
}

impl Patience {
    pub(super) fn push(&mut self, now_us: u64, mut again: Again) {
        let pause_us = PAUSE_US_MIN.saturating_mul(1 << again.tries.min(20));
        again.tries += 1;
        let due_us = now_us + pause_us.min(PAUSE_US_MAX);
        self.waiting.push(Waiting { due_us, again });
    }

    /// The next one whose pause is over.
    pub(super) fn poll(&mut self, now_us: u64) -> Option<Again> {
        let is_due = |waiting: &Waiting| waiting.due_us <= now_us;
        let at = self.waiting.iter().position(is_due)?;
        Some(self.waiting.remove(at).again)
    }

    pub(super) fn deadline_us(&self) -> Option<u64> {
        self.waiting.iter().map(|waiting| waiting.due_us).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
