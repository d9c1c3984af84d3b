//! Room for a record, told before anything is given a seq for it, and what records take of it.
//! Whoever was told that there is room may append as much before anything else happens.

use crate::id::{HomedId, Seq};

use super::commit::AppendError;
use super::commit_log::CommitLog;

/// Who may use the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Publishes and what is new: never.
    Bulk,
    /// Cursors: half of it.
    Cursors,
    /// Changes and ends, which give space back: more.
    Control,
    /// What is copied so that a segment may go: all.
    Copies,
}

impl Class {
    /// How much of the reserve is kept from it.
    pub(super) fn kept_back(self, reserve_bytes: usize) -> usize {
        match self {
            Self::Bulk => reserve_bytes,
            Self::Cursors => reserve_bytes / 2,
            Self::Control => reserve_bytes / 4,
            Self::Copies => 0,
        }
    }
}

/// What an entry takes at most beyond the texts in it; publishes say it by `stored_bytes`.
pub const ENTRY_BYTES: usize = 128;

impl CommitLog {
    /// Whether a record of so many bytes can be appended now. [`AppendError::Busy`] asks for another
    /// try when an effect has ended; everything else is final for this record.
    ///
    /// # Errors
    /// As an append of such a record would.
    pub fn room(&mut self, class: Class, bytes: usize) -> Result<(), AppendError> {
        self.check_room(class, bytes)
    }

    /// The idempotency keys of a topic's messages up to `through` have ended.
    pub fn forget_keys(&mut self, topic: HomedId, through: Seq) {
        if let Some(topic) = self.state.topics.get_mut(&topic) {
            while topic.keys.pop_front_if(|key| key.seq <= through).is_some() {}
            if topic.keys.is_empty() {
                topic.keys.shrink_to_fit();
            }
        }
    }
}
