//! How far subscriptions are behind, looked at in parts: a round over all of them takes as many looks as
//! it needs, so that none costs more than what was asked for.

use crate::id::HomedId;

use super::Durable;
use crate::broker::subscription::Subscription;

/// What some subscriptions have not acked of what is durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lags {
    /// Messages of all of them.
    pub messages: u64,
    /// Messages of the one that is most behind.
    pub messages_max: u64,
    /// How many subscriptions were looked at.
    pub subscriptions: usize,
}

impl Lags {
    fn add(&mut self, messages: u64) {
        self.messages += messages;
        self.messages_max = self.messages_max.max(messages);
        self.subscriptions += 1;
    }
}

/// Where the next look begins, and what the last round found.
#[derive(Debug, Default)]
pub struct LagLook {
    piece: usize,
    round: Lags,
    found: Lags,
}

impl LagLook {
    /// What the last whole round found.
    pub fn found(&self) -> Lags {
        self.found
    }
}

impl Durable {
    /// Looks at somewhat more than `count_max` subscriptions at most, or at all that are left of a round.
    pub fn look_at_lags(&self, look: &mut LagLook, count_max: usize) {
        let before = look.round.subscriptions;
        while let Some(some) = self.subscriptions.piece_at(look.piece) {
            for (_, subscription) in some {
                look.round.add(self.lag_of(subscription));
            }
            look.piece += 1;
            if count_max <= look.round.subscriptions - before {
                return;
            }
        }
        look.found = std::mem::take(&mut look.round);
        look.piece = 0;
    }

    fn lag_of(&self, subscription: &Subscription) -> u64 {
        let topic: &HomedId = &subscription.topic;
        let durable = self.topics.get(topic).map_or(0, |topic| topic.durable);
        durable.saturating_sub(subscription.cursor)
    }
}
