//! From the decisions of the homes of topics to outboxes and mailboxes. Knows where a topic's home
//! is and where its members are; decides nothing about them.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::broker::ConnKey;
use crate::broker::relay::{
    Effect, Farewell, HandlerEvent, Home, LaneId, Refusal, Subscriber, TopicKey,
};
use crate::gateway::relay::HomeJob;
use crate::id::Tenant;
use crate::metrics::Counter;
use crate::proto::ErrorCode;
use crate::proto::relay as wire;

use crate::shard::kernel::ring::SlotKey;
use crate::shard::post::mailbox::Full;
use crate::shard::socket::outbox::Piece;
use crate::shard::speak::call::spawn_visit;
use crate::shard::state::command::Command;
use crate::shard::state::{State, mark_dirty, mark_given};

impl State {
    /// Runs a job at the home of a topic: now if that is here.
    pub(crate) fn at_home(
        &mut self,
        tenant: &Tenant,
        topic: &str,
        job: HomeJob,
    ) -> Result<(), Full> {
        let shard = self.shared.home_of(tenant, topic);
        if shard == self.index {
            self.run_home(job);
            return Ok(());
        }
        self.posts.try_post(shard, Command::Home(job))
    }

    /// Like [`State::at_home`], for what must arrive.
    pub(crate) fn surely_at_home(&mut self, tenant: &Tenant, topic: &str, job: HomeJob) {
        let shard = self.shared.home_of(tenant, topic);
        if shard == self.index {
            self.run_home(job);
        } else {
            self.posts.post(shard, Command::Home(job));
        }
    }

    /// Runs a job at the home that this shard is, and carries out what follows.
    pub(crate) fn run_home(&mut self, job: HomeJob) {
        if let Some(home) = &mut self.home {
            job(home);
        }
        self.drain_home();
    }

    pub(crate) fn drain_home(&mut self) {
        while let Some(effect) = self.home.as_mut().and_then(Home::poll_effect) {
            match shard_of(&effect) {
                Some(shard) if shard != self.index => {
                    self.posts.post(shard, Command::Relay(effect))
                }
                _ => self.carry_out(effect),
            }
        }
    }

    /// A handler has ended.
    pub(crate) fn handle_called(
        &mut self,
        lane: LaneId,
        event: &HandlerEvent,
        result: Result<(), String>,
    ) {
        if let Some(home) = &mut self.home {
            home.handle_called(lane, event, result);
        }
        self.drain_home();
    }

    /// Does on this shard what a home decided.
    pub(crate) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Gather { topic, frame } => self.gather(topic, &frame),
            Effect::Deliver { topic, frame, .. } => self.deliver(&topic, &frame),
            Effect::Missed { topic, frames, .. } => self.handle_missed(&topic, frames),
            Effect::Attach { subscriber, topic } => self.attach(&subscriber, &topic),
            Effect::Joined { key, topic } => self.confirm(slot_key(key), &topic),
            Effect::Detach {
                key,
                topic,
                asked,
                answer,
            } => self.detach(slot_key(key), &topic, (asked, &answer)),
            Effect::Refuse {
                key,
                topic,
                refusal,
            } => self.refuse_topic(slot_key(key), &topic, &refusal),
            Effect::Give { key, topic, frame } => self.give(slot_key(key), &topic, &frame),
            Effect::Call(call) => self.calls.push_back(call),
            Effect::Visit(visit) => spawn_visit(&self.shared, visit),
        }
    }

    /// Gathers a push for the members here.
    fn deliver(&mut self, topic: &Arc<TopicKey>, frame: &Bytes) {
        if !self.members.is_open_for(topic) {
            self.give_out();
        }
        let frames = self.members.gather(topic, frame, self.share.turn());
        self.share.note_topic(frames);
    }

    /// The same, for a topic of the home here: nothing that shards count together is touched.
    fn gather(&mut self, place: usize, frame: &Bytes) {
        let topic = self.home.as_ref().and_then(|home| home.topic_at(place));
        let is_open = topic.is_some_and(|topic| self.members.is_open_for(topic));
        if !is_open {
            self.give_out();
        }
        let home = self.home.as_ref();
        if let Some(topic) = home.and_then(|home| home.topic_at(place)) {
            let frames = self.members.gather(topic, frame, self.share.turn());
            self.share.note_topic(frames);
        }
    }

    /// Gives the open piece to every member of its topic.
    pub(crate) fn give_out(&mut self) {
        let Some(fanout) = self.members.take_open() else {
            return;
        };
        let capacity = self.shared.topic_capacity();
        let frames = fanout.piece.frames() as u64;
        fanout.piece.note_receivers(fanout.topic.members.len());
        let mut full = Vec::new();
        for (key, held) in &mut fanout.topic.members {
            if let Some(held) = held {
                held.push(&fanout.piece, capacity);
                continue;
            }
            let Some(connection) = self.connections.alive(*key) else {
                continue;
            };
            let limits = self.live.outbox_limits(connection.mount, capacity);
            let topic = (fanout.topic.tag, connection.machine.is_sending());
            let lost = connection
                .outbox
                .push_topic(&mut self.spare, &fanout.piece, topic, &limits);
            self.metrics.add(Counter::MessagesSent, frames);
            self.metrics.add(Counter::FramesLagged, lost as u64);
            mark_given(&mut self.given, &mut self.share, connection, *key);
            if connection.outbox.is_over(&limits) {
                full.push(*key);
            }
        }
        // Whoever was offered nothing yet is offered all of it before more comes.
        for key in full {
            self.offer(key);
        }
    }

    fn attach(&mut self, subscriber: &Subscriber, topic: &Arc<TopicKey>) {
        self.give_out();
        let key = slot_key(subscriber.key);
        // The connection may have ended while the home was asked; its leave is on the way.
        if self.relay_session(key).is_some() {
            self.members.attach(topic, key);
        }
    }

    fn confirm(&mut self, key: SlotKey, topic: &Arc<TopicKey>) {
        self.queue_text_with(key, |out| wire::put_subscribed(out, &topic.name));
        self.give_out();
        let Some((tag, held)) = self.members.confirm(topic, key) else {
            return;
        };
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        let limits = self
            .live
            .outbox_limits(connection.mount, self.shared.topic_capacity());
        let mut lost = held.lost;
        if 0 < lost {
            connection.outbox.note_lag(tag, lost);
        }
        for piece in &held.pieces {
            let topic = (tag, connection.machine.is_sending());
            lost += connection
                .outbox
                .push_topic(&mut self.spare, piece, topic, &limits);
            self.metrics
                .add(Counter::MessagesSent, piece.frames() as u64);
        }
        self.metrics.add(Counter::FramesLagged, lost as u64);
    }

    /// A frame of a topic for one member; it counts against the member's backlog of that topic.
    fn give(&mut self, key: SlotKey, topic: &Arc<TopicKey>, frame: &Bytes) {
        self.give_out();
        let Some(tag) = self.members.tag_of(topic) else {
            return;
        };
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        let limits = self
            .live
            .outbox_limits(connection.mount, self.shared.topic_capacity());
        let piece = Rc::new(Piece::of_frame(frame.clone()));
        let topic = (tag, connection.machine.is_sending());
        let lost = connection
            .outbox
            .push_topic(&mut self.spare, &piece, topic, &limits);
        self.metrics.add(Counter::MessagesSent, 1);
        self.metrics.add(Counter::FramesLagged, lost as u64);
        mark_dirty(&mut self.dirty, connection, key);
    }

    /// What has changed at the homes in this turn goes to who wants to know, as one frame each.
    pub(crate) fn tell_presence(&mut self) {
        if let Some(home) = &mut self.home {
            home.tell_presence();
        }
        self.drain_home();
    }

    fn detach(&mut self, key: SlotKey, topic: &Arc<TopicKey>, (asked, answer): (u32, &Farewell)) {
        self.give_out();
        if let Some(tag) = self.members.detach(topic, key)
            && let Some(connection) = self.connections.alive(key)
        {
            connection.outbox.forget_lag(tag);
        }
        if let Some(session) = self.relay_session(key) {
            session.handle_detached(&topic.name, asked);
        }
        match answer {
            Farewell::Nothing => {}
            Farewell::Unsubscribed => {
                self.queue_text_with(key, |out| wire::put_unsubscribed(out, &topic.name));
            }
            Farewell::Refused(refusal) => self.refuse_topic(key, topic, refusal),
        }
    }

    fn refuse_topic(&mut self, key: SlotKey, topic: &TopicKey, refusal: &Refusal) {
        self.refuse_relay(key, &topic.name, &refusal.to_string(), code_of(refusal));
    }

    /// Frames for a topic found no room in a mailbox: its members here are told.
    pub(crate) fn handle_missed(&mut self, topic: &Arc<TopicKey>, frames: u64) {
        self.give_out();
        let Some((tag, keys)) = self.members.members_of(topic) else {
            return;
        };
        for key in keys {
            let Some(connection) = self.connections.alive(key) else {
                continue;
            };
            connection
                .outbox
                .note_lag(tag, usize::try_from(frames).unwrap_or(usize::MAX));
            self.metrics.add(Counter::FramesLagged, frames);
            mark_dirty(&mut self.dirty, connection, key);
        }
    }
}

pub(crate) fn slot_key(key: ConnKey) -> SlotKey {
    SlotKey {
        slot: key.slot,
        generation: key.generation,
    }
}

/// The shard that must carry out an effect; a handler runs at home.
fn shard_of(effect: &Effect) -> Option<u16> {
    match effect {
        Effect::Deliver { shard, .. } | Effect::Missed { shard, .. } => Some(*shard),
        Effect::Attach { subscriber, .. } => Some(subscriber.key.shard),
        Effect::Give { key, .. }
        | Effect::Joined { key, .. }
        | Effect::Detach { key, .. }
        | Effect::Refuse { key, .. } => Some(key.shard),
        Effect::Gather { .. } | Effect::Call(_) | Effect::Visit(_) => None,
    }
}

fn code_of(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::NotSubscribed(_) => ErrorCode::NotSubscribed,
        Refusal::JoinRejected(_) => ErrorCode::JoinRejected,
        Refusal::HandlerFailed(_) => ErrorCode::HandlerError,
    }
}
