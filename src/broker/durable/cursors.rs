//! Moved cursors on their way to the log: one record at a time holds many of them, and those who
//! wait for one are answered once all that had moved by then are durable. If the log has no room,
//! who waits is told, and the cursors are given to it again a little later.

use crate::id::{HomedId, Seq};
use crate::log::{CURSOR_BYTES, ENTRY_BYTES};

use super::{Appended, Durable, Now, Refused, Value};

/// Cursors in one record; what is more goes with the next.
const MOVES_MAX: usize = 1_024;

impl Durable {
    /// Notes that a cursor is to be written, within `cursor_delay_ms_max`.
    pub(super) fn cursor_moved(&mut self, now: Now, id: HomedId) {
        self.cursors.seen_ms = now.mono_ms;
        self.note_moved(id);
        if self.cursors.draining {
            self.flush_cursors();
        }
    }

    pub(super) fn note_moved(&mut self, id: HomedId) {
        let still = self.subscriptions.get_mut(&id).filter(|s| !s.dirty);
        if let Some(subscription) = still {
            subscription.dirty = true;
            self.cursors.dirty.push(id);
            self.cursors.since_ms.get_or_insert(self.cursors.seen_ms);
        }
    }

    /// Wants the moved cursors in the log as soon as it has room for them.
    pub(super) fn flush_cursors(&mut self) {
        if self.cursors.under_way || self.log.failed {
            return;
        }
        if self.cursors.dirty.is_empty() {
            // Where these cursors stand is durable already.
            let told = std::mem::take(&mut self.cursors.told);
            return self.cursors_made(told);
        }
        self.cursors.wanted = true;
    }

    pub(super) fn cursors_need(&self) -> Option<usize> {
        let count = self.cursors.dirty.len().min(MOVES_MAX);
        self.cursors
            .wanted
            .then_some(ENTRY_BYTES + count * CURSOR_BYTES)
    }

    pub(super) fn handle_room_for_cursors(&mut self, room: Result<(), Refused>) {
        self.cursors.wanted = false;
        if let Err(refused) = room {
            self.cursors.since_ms = Some(self.cursors.seen_ms);
            let told = std::mem::take(&mut self.cursors.told);
            return self.refuse_moved(told, refused);
        }
        let moves = self.take_moves();
        let is_all = self.cursors.dirty.is_empty();
        let told = match is_all {
            true => std::mem::take(&mut self.cursors.told),
            false => Vec::new(),
        };
        self.cursors.since_ms = (!is_all).then_some(0);
        if moves.is_empty() {
            return self.cursors_made(told);
        }
        self.cursors.under_way = true;
        self.append(Value::CursorsMoved { moves }, Appended::Cursors(told));
    }

    /// Cursors that have moved, but for those of subscriptions whose end is asked for.
    fn take_moves(&mut self) -> Vec<(HomedId, Seq)> {
        let count = self.cursors.dirty.len().min(MOVES_MAX);
        let mut moves = Vec::with_capacity(count);
        let taken: Vec<HomedId> = self.cursors.dirty.drain(..count).collect();
        for id in taken {
            let Some(subscription) = self.subscriptions.get_mut(&id) else {
                continue;
            };
            subscription.dirty = false;
            let topic = self.topics.get(&subscription.topic);
            if !subscription.deleting && topic.is_some_and(|topic| !topic.deleting()) {
                moves.push((id, subscription.cursor));
            }
        }
        moves
    }
}
