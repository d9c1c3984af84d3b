//! What is on its way to other shards: the mailboxes, and behind a full one a queue of its own,
//! so that the order stays. Knows commands, not what they do.
//!
//! Bound: `mailbox_descriptors_max` commands wait behind a mailbox. Past that user code is told
//! `overloaded`; frames of relay topics are counted and their members told how many they missed;
//! what concerns one subscription (a join, a leave and their answers) is always kept: there are
//! at most as many as connections have subscriptions.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;

use crate::broker::relay::{Effect, TopicKey};

use crate::shard::post::mailbox::{Full, Mailboxes};
use crate::shard::state::command::Command;

#[derive(Debug, Default)]
struct Behind {
    waiting: VecDeque<Command>,
    missed: AHashMap<Arc<TopicKey>, u64>,
}

#[derive(Debug)]
pub(crate) struct Posts {
    mailboxes: Mailboxes<Command>,
    behind: Vec<Behind>,
    commands_max: usize,
    posted: bool,
    /// Commands that were posted and refused since the last look.
    counts: (u64, u64),
}

impl Posts {
    pub(crate) fn new(mailboxes: Mailboxes<Command>, commands_max: usize) -> Self {
        let behind = (0..mailboxes.shards()).map(|_| Behind::default()).collect();
        Self {
            mailboxes,
            behind,
            commands_max,
            posted: false,
            counts: (0, 0),
        }
    }

    /// Posts what may be refused.
    pub(crate) fn try_post(&mut self, shard: u16, command: Command) -> Result<(), Full> {
        let shard = usize::from(shard);
        if !self.behind[shard].waiting.is_empty() || self.mailboxes.is_full(shard) {
            self.counts.1 += 1;
            return Err(Full);
        }
        self.posted = true;
        self.counts.0 += 1;
        self.mailboxes.post(shard, command)
    }

    /// Posts what must arrive.
    pub(crate) fn post(&mut self, shard: u16, command: Command) {
        self.posted = true;
        self.counts.0 += 1;
        let shard = usize::from(shard);
        if !self.behind[shard].waiting.is_empty() || self.mailboxes.is_full(shard) {
            return self.queue_behind(shard, command);
        }
        let posted = self.mailboxes.post(shard, command);
        debug_assert!(posted.is_ok(), "a mailbox with room takes a command");
    }

    fn queue_behind(&mut self, shard: usize, command: Command) {
        let behind = &mut self.behind[shard];
        match command {
            Command::Relay(Effect::Deliver { topic, .. })
                if self.commands_max <= behind.waiting.len() =>
            {
                *behind.missed.entry(topic).or_default() += 1;
            }
            other => behind.waiting.push_back(other),
        }
    }

    /// Moves on what waits behind full mailboxes, and wakes those that were posted to.
    pub(crate) fn flush(&mut self) {
        for shard in 0..self.behind.len() {
            self.move_on(shard);
        }
        self.mailboxes.wake_posted();
        self.posted = false;
    }

    fn move_on(&mut self, shard: usize) {
        while !self.behind[shard].waiting.is_empty() && !self.mailboxes.is_full(shard) {
            let Some(command) = self.behind[shard].waiting.pop_front() else {
                return;
            };
            let posted = self.mailboxes.post(shard, command);
            debug_assert!(posted.is_ok(), "a mailbox with room takes a command");
        }
        if self.behind[shard].waiting.is_empty() && !self.behind[shard].missed.is_empty() {
            let to = u16::try_from(shard).unwrap_or(u16::MAX);
            let missed = std::mem::take(&mut self.behind[shard].missed);
            let told = missed.into_iter().map(|(topic, frames)| {
                Command::Relay(Effect::Missed {
                    shard: to,
                    topic,
                    frames,
                })
            });
            self.behind[shard].waiting.extend(told);
        }
    }

    /// Commands that were posted, and that were refused, since the last call.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.counts)
    }

    /// Commands that wait behind full mailboxes of others.
    pub(crate) fn waiting(&self) -> usize {
        self.behind.iter().map(|behind| behind.waiting.len()).sum()
    }

    /// Whether somebody is to be woken or something waits behind a full mailbox.
    pub(crate) fn has_posted(&self) -> bool {
        self.posted
    }

    /// Whether something waits behind a full mailbox.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
            .iter()
            .any(|behind| !behind.waiting.is_empty() || !behind.missed.is_empty())
    }

    pub(crate) fn mailboxes(&mut self) -> &mut Mailboxes<Command> {
        &mut self.mailboxes
    }
}
