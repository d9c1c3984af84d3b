//! One relay topic and its members: where each stands, which of its events runs and which wait.
//! Knows no other topic, and what is to be done only as far as a member itself tells.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;

use crate::id::ConnId;
use crate::proto::relay::Wishes;

use super::super::pattern::HandlerIndex;
use super::super::presence::Presence;
use super::event::{HandlerEvent, Subscriber, TopicKey};
use super::held::Held;
use super::watch::Watch;

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Standing {
    /// Its join is being decided.
    Joining,
    Joined,
    /// It left; only events of it are still to be handled.
    Gone,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) subscriber: Subscriber,
    pub(super) standing: Standing,
    pub(super) running: Running,
    pub(super) waiting: VecDeque<HandlerEvent>,
    /// Pushes that its join made to this topic.
    pub(super) held: Held,
    /// Requests that the decision on its join answers.
    pub(super) joins_asked: u32,
    /// What it wants beside pushes.
    pub(super) wishes: Wishes,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Running {
    Nothing,
    Join,
    Other,
}

impl Member {
    /// It left while its join was being decided; the leave is the next to be handled.
    pub(super) fn left_meanwhile(&self) -> bool {
        let is_message = |event: &&HandlerEvent| matches!(event, HandlerEvent::Message { .. });
        let first = self.waiting.iter().find(|event| !is_message(event));
        matches!(first, Some(HandlerEvent::Leave(_)))
    }

    /// Forgets the messages in front, which wait for a join that was refused; how many.
    pub(super) fn take_messages(&mut self) -> usize {
        let is_message = |event: &HandlerEvent| matches!(event, HandlerEvent::Message { .. });
        let front = self.waiting.iter().take_while(|event| is_message(event));
        let count = front.count();
        self.waiting.drain(..count);
        count
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running == Running::Nothing && self.waiting.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) key: Arc<TopicKey>,
    pub(super) handler: Option<HandlerIndex>,
    pub(super) members: AHashMap<ConnId, Member>,
    /// How many members each shard has.
    pub(super) on_shard: Vec<u32>,
    pub(super) presence: Presence,
    /// Who wants to know of that, and what they are to be told.
    pub(super) watch: Watch,
}

impl Topic {
    /// The shards that have a member.
    pub(super) fn shards(&self) -> impl Iterator<Item = u16> {
        let shards = (0..).zip(&self.on_shard);
        shards.filter_map(|(shard, count)| (0 < *count).then_some(shard))
    }
}
