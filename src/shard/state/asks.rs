//! Asks of the server that clients have not answered. Knows numbers and who was asked; no wire.
//!
//! Bound: `acks_pending_max` for each connection.

use ahash::AHashMap;
use tokio::sync::oneshot;

use crate::broker::ConnKey;
use crate::gateway::ask::{AskedOf, RoomAnswers};

use crate::shard::kernel::ring::SlotKey;

/// Who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    next: u64,
    pending: AHashMap<u64, Pending>,
    count_of: AHashMap<SlotKey, usize>,
    /// What has happened since it was last looked at.
    pub(crate) counts: AskCounts,
}

/// How asks went.
#[derive(Debug, Default)]
pub(crate) struct AskCounts {
    pub(crate) asked: u64,
    /// Not answered in time.
    pub(crate) unanswered: u64,
    /// Answered when nobody waited any longer.
    pub(crate) late: u64,
}

#[derive(Debug)]
enum Pending {
    One(ConnKey, oneshot::Sender<AskedOf>),
    Room {
        waiting: Vec<(ConnKey, crate::id::ConnId)>,
        answers: RoomAnswers,
        done: Option<oneshot::Sender<RoomAnswers>>,
    },
}

impl Asks {
    /// Asks one connection; the number of the question, unless it owes too many answers already.
    pub(crate) fn ask(
        &mut self,
        whom: ConnKey,
        max: usize,
        answer: oneshot::Sender<AskedOf>,
    ) -> Option<u64> {
        let count = self.count_of.entry(slot(whom)).or_insert(0);
        if max <= *count {
            return None;
        }
        *count += 1;
        self.counts.asked += 1;
        Some(self.put(Pending::One(whom, answer)))
    }

    /// Asks many with one number.
    pub(crate) fn ask_all(
        &mut self,
        waiting: Vec<(ConnKey, crate::id::ConnId)>,
        done: oneshot::Sender<RoomAnswers>,
    ) -> u64 {
        self.counts.asked += waiting.len() as u64;
        self.put(Pending::Room {
            waiting,
            answers: RoomAnswers::default(),
            done: Some(done),
        })
    }

    fn put(&mut self, pending: Pending) -> u64 {
        let number = self.next;
        self.next += 1;
        self.pending.insert(number, pending);
        number
    }

    /// A connection has answered; whether somebody had waited for it.
    pub(crate) fn handle_answer(&mut self, number: u64, whom: ConnKey, answer: AskedOf) -> bool {
        let is_awaited = self.give_answer(number, whom, answer);
        self.counts.late += u64::from(!is_awaited);
        is_awaited
    }

    fn give_answer(&mut self, number: u64, whom: ConnKey, answer: AskedOf) -> bool {
        match self.pending.get_mut(&number) {
            Some(Pending::One(asked, _)) if *asked == whom => {
                if let Some(Pending::One(_, sender)) = self.pending.remove(&number) {
                    self.settle(whom);
                    sender.send(answer).ok();
                }
                true
            }
            Some(Pending::Room {
                waiting,
                answers,
                done,
            }) => {
                let Some(place) = waiting.iter().position(|(key, _)| *key == whom) else {
                    return false;
                };
                let (_, id) = waiting.swap_remove(place);
                answers.replies.push((id, answer));
                if waiting.is_empty() {
                    let (answers, done) = (std::mem::take(answers), done.take());
                    self.pending.remove(&number);
                    done.and_then(|done| done.send(answers).ok());
                }
                true
            }
            _ => false,
        }
    }

    /// Whoever asked one has stopped waiting.
    pub(crate) fn give_up(&mut self, number: u64) {
        let is_of_one = matches!(self.pending.get(&number), Some(Pending::One(..)));
        if is_of_one && let Some(Pending::One(whom, _)) = self.pending.remove(&number) {
            self.counts.unanswered += 1;
            self.settle(whom);
        }
    }

    /// The time of a room is over: who has not answered is named.
    pub(crate) fn finish(&mut self, number: u64) {
        if let Some(Pending::Room {
            waiting,
            mut answers,
            done: Some(done),
        }) = self.pending.remove(&number)
        {
            self.counts.unanswered += waiting.len() as u64;
            answers
                .missing
                .extend(waiting.into_iter().map(|(_, id)| id));
            done.send(answers).ok();
        }
    }

    fn settle(&mut self, whom: ConnKey) {
        if let Some(count) = self.count_of.get_mut(&slot(whom)) {
            *count -= 1;
            if *count == 0 {
                self.count_of.remove(&slot(whom));
            }
        }
    }

    /// A connection has ended: who waits for it alone is told so.
    pub(crate) fn forget(&mut self, key: SlotKey) {
        if self.count_of.remove(&key).is_some() {
            self.pending.retain(
                |_, pending| !matches!(pending, Pending::One(whom, _) if slot(*whom) == key),
            );
        }
    }
}

fn slot(key: ConnKey) -> SlotKey {
    SlotKey {
        slot: key.slot,
        generation: key.generation,
    }
}
