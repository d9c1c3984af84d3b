//! From the decisions of sessions and homes to outboxes and mailboxes. Knows where a topic's home
//! is and where its members are; decides nothing about them.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::auth::{Caller, Forbidden, MayPublish, MaySubscribe};
use crate::broker::ConnKey;
use crate::broker::relay::{
    Effect, Farewell, HandlerEvent, Home, LaneId, LeaveReason, Leaver, Refusal, Subscriber,
    TopicKey,
};
use crate::gateway::relay::{HomeJob, push_frame};
use crate::id::Tenant;
use crate::metrics::Counter;
use crate::proto::ErrorCode;
use crate::proto::relay::{self as wire, ErrorFrame};
use crate::session::Session;
use crate::session::relay::{self as session, RelayLimits, RelaySession, Step};

use crate::shard::kernel::ring::SlotKey;
use crate::shard::post::command::Command;
use crate::shard::post::mailbox::Full;
use crate::shard::socket::connection::Connection;
use crate::shard::socket::outbox::Piece;
use crate::shard::socket::who::Who;
use crate::shard::speak::call::spawn_visit;
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
    fn surely_at_home(&mut self, tenant: &Tenant, topic: &str, job: HomeJob) {
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

    fn drain_home(&mut self) {
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
        self.members.gather(topic, frame);
        self.share.add(frame.len());
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
            let Some(connection) = self.connections.get(*key) else {
                continue;
            };
            let limits = self.live.outbox_limits(connection.mount, capacity);
            let topic = (fanout.topic.tag, connection.machine.is_sending());
            let lost = connection
                .outbox
                .push_topic(&mut self.spare, &fanout.piece, topic, &limits);
            self.metrics.add(Counter::MessagesSent, frames);
            self.metrics.add(Counter::FramesLagged, lost as u64);
            mark_given(&mut self.given, connection, *key);
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
        let Some(connection) = self.connections.get(key) else {
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
        let Some(connection) = self.connections.get(key) else {
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
            && let Some(connection) = self.connections.get(key)
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
            let Some(connection) = self.connections.get(key) else {
                continue;
            };
            connection
                .outbox
                .note_lag(tag, usize::try_from(frames).unwrap_or(usize::MAX));
            self.metrics.add(Counter::FramesLagged, frames);
            mark_dirty(&mut self.dirty, connection, key);
        }
    }

    /// Does what a client on a relay mount asks for.
    pub(crate) fn handle_relay(&mut self, key: SlotKey, request: wire::RelayRequest<'_>) {
        let shared = Arc::clone(&self.shared);
        let Some(relay) = &shared.relay else { return };
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let limits = self.live.limits_of(connection.mount);
        let limits = RelayLimits {
            subscriptions_max: relay.subscriptions_max,
            name_bytes_max: limits.name_bytes_max,
            event_bytes_max: limits.event_bytes_max,
        };
        let (Session::Relay(session), Some(caller)) = (&mut connection.session, &connection.caller)
        else {
            return;
        };
        match session.handle(request, (caller, &limits)) {
            Step::Subscribe(topic, wishes, asked) => {
                self.subscribe(key, (topic, wishes), asked);
            }
            Step::Unsubscribe(topic, asked) => self.unsubscribe(key, topic, asked),
            Step::AnswerUnsubscribed(topic) => {
                self.queue_text_with(key, |out| wire::put_unsubscribed(out, topic));
            }
            Step::Message {
                topic,
                event,
                payload,
            } => self.message(key, topic, event, payload),
            Step::Pong => self.queue_text_with(key, wire::put_pong),
            Step::Renew(token) => self.renew(key, token),
            Step::Refuse {
                topic,
                refusal,
                behind: true,
            } => self.refuse_behind(key, topic, refusal),
            Step::Refuse { topic, refusal, .. } => {
                self.refuse_relay(key, topic, &refusal.to_string(), refusal.code());
            }
        }
    }

    /// Refuses something about a topic whose home owes answers: the refusal takes the way of the
    /// request, so that it does not come before them.
    fn refuse_behind(&mut self, key: SlotKey, topic: &str, refusal: session::Refusal) {
        let Some(subscriber) = self.subscriber(key, 0) else {
            return;
        };
        let (home, back) = (
            self.shared.home_of(&subscriber.caller.tenant, topic),
            self.index,
        );
        if home == back {
            return self.refuse_relay(key, topic, &refusal.to_string(), refusal.code());
        }
        let name = Box::<str>::from(topic);
        let told = move |state: &mut Self| {
            state.refuse_relay(key, &name, &refusal.to_string(), refusal.code());
        };
        let bounce = move |state: &mut Self| {
            state.posts.post(back, Command::Run(Box::new(told)));
        };
        self.posts.post(home, Command::Run(Box::new(bounce)));
    }

    /// The relay session of a connection that is open on a relay mount.
    pub(crate) fn relay_session(&mut self, key: SlotKey) -> Option<&mut RelaySession> {
        match &mut self.connections.get(key)?.session {
            Session::Relay(session) => Some(session),
            _ => None,
        }
    }

    /// An error frame on a relay mount; what goes beyond the seed only to who negotiated it.
    pub(crate) fn refuse_relay(&mut self, key: SlotKey, topic: &str, text: &str, code: ErrorCode) {
        let Some(session) = self.relay_session(key) else {
            return;
        };
        let (negotiated, conn_id) = (session.negotiated, session.conn_id);
        // What is said of an invalid message quotes it, and in it may stand anything.
        let told = match code {
            ErrorCode::InvalidMessage => code.as_str(),
            _ => text,
        };
        if tracing::enabled!(target: "tidegate::relay", tracing::Level::WARN) {
            let Who {
                tenant,
                sub,
                peer,
                conn,
            } = self.who(key);
            tracing::warn!(target: "tidegate::relay", tenant, sub, peer, conn, conn_id, topic, text = told, "refused");
        }
        let frame = ErrorFrame {
            message: text,
            code: negotiated.then_some(code),
            topic: (negotiated && !topic.is_empty()).then_some(topic),
            sub_name: None,
            reference: None,
        };
        self.queue_text_with(key, |out| wire::put_error(out, &frame));
    }

    /// Asks the home of a topic to take a subscriber.
    pub(crate) fn subscribe(
        &mut self,
        key: SlotKey,
        (topic, wishes): (MaySubscribe<'_>, wire::Wishes),
        asked: u32,
    ) {
        let topic = topic.topic();
        let Some(subscriber) = self.subscriber(key, asked) else {
            return;
        };
        let (tenant, name) = (subscriber.caller.tenant.clone(), Box::<str>::from(topic));
        let of = tenant.clone();
        let job = move |home: &mut Home| home.handle_subscribe(&of, &name, (subscriber, wishes));
        self.surely_at_home(&tenant, topic, Box::new(job));
    }

    /// Tells the home of a topic that a subscriber leaves it.
    pub(crate) fn unsubscribe(&mut self, key: SlotKey, topic: &str, asked: u32) {
        if let Some(subscriber) = self.subscriber(key, asked) {
            self.leave(&subscriber, topic, LeaveReason::Unsubscribe);
        }
    }

    /// The connection goes on with another token: it leaves the topics that this does not allow.
    pub(crate) fn leave_lost(&mut self, key: SlotKey, caller: &Caller) {
        let Some(session) = self.relay_session(key) else {
            return;
        };
        let lost: Vec<Box<str>> = session.lost(&caller.rights).map(Into::into).collect();
        for name in lost {
            self.refuse_relay(key, &name, &Forbidden.to_string(), ErrorCode::Forbidden);
            let asked = self
                .relay_session(key)
                .and_then(|session| session.leave(&name));
            if let Some(asked) = asked {
                self.unsubscribe(key, &name, asked);
            }
            // Here at once, so that nothing more is given out; at home in its turn.
            let tenant = caller.tenant.clone();
            self.give_out();
            self.members.detach(&TopicKey { tenant, name }, key);
        }
    }

    fn leave(&mut self, subscriber: &Subscriber, topic: &str, reason: LeaveReason) {
        let (tenant, name) = (subscriber.caller.tenant.clone(), Box::<str>::from(topic));
        let (of, leaver) = (
            tenant.clone(),
            Leaver {
                key: subscriber.key,
                conn_id: subscriber.conn_id,
                asked: subscriber.asked,
            },
        );
        let job = move |home: &mut Home| home.handle_leave(&of, &name, leaver, reason);
        self.surely_at_home(&tenant, topic, Box::new(job));
    }

    /// Tells the homes of all topics of a connection that has ended.
    pub(crate) fn leave_all(
        &mut self,
        key: SlotKey,
        mut session: RelaySession,
        reason: LeaveReason,
    ) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let who = (session.conn_id, session.next_asked());
        let Some(subscriber) = subscriber_of(connection, self.index, key, who) else {
            return;
        };
        self.give_out();
        for name in session.take_topics() {
            let tenant = subscriber.caller.tenant.clone();
            // Here at once; at home in its turn.
            self.members.detach(
                &TopicKey {
                    tenant,
                    name: name.clone(),
                },
                key,
            );
            self.leave(&subscriber, &name, reason);
        }
    }

    /// Hands a client's message to the home of its topic.
    pub(crate) fn message(
        &mut self,
        key: SlotKey,
        topic: MayPublish<'_>,
        event: &str,
        payload: &[u8],
    ) {
        let topic = topic.topic();
        let Some(subscriber) = self.subscriber(key, 0) else {
            return;
        };
        let tenant = &subscriber.caller.tenant;
        let who = (subscriber.key, subscriber.conn_id);
        let shard = self.shared.home_of(tenant, topic);
        if shard == self.index {
            if let Some(home) = &mut self.home {
                let frame = || push_frame(topic, event, payload);
                home.handle_message(tenant, topic, who, (event, payload), frame);
            }
            return self.drain_home();
        }
        let (of, name, event) = (
            tenant.clone(),
            Box::<str>::from(topic),
            Box::<str>::from(event),
        );
        let payload = Bytes::copy_from_slice(payload);
        let job = move |home: &mut Home| {
            let frame = || push_frame(&name, &event, &payload);
            home.handle_message(&of, &name, who, (&event, &payload), frame);
        };
        if let Err(full) = self.posts.try_post(shard, Command::Home(Box::new(job))) {
            let text = Refusal::HandlerFailed(full.to_string()).to_string();
            self.refuse_relay(key, topic, &text, ErrorCode::HandlerError);
        }
    }

    fn subscriber(&mut self, key: SlotKey, asked: u32) -> Option<Subscriber> {
        let index = self.index;
        let connection = self.connections.get(key)?;
        let Session::Relay(session) = &connection.session else {
            return None;
        };
        subscriber_of(connection, index, key, (session.conn_id, asked))
    }
}

fn subscriber_of(
    connection: &Connection,
    shard: u16,
    key: SlotKey,
    (conn_id, asked): (crate::id::ConnId, u32),
) -> Option<Subscriber> {
    let key = ConnKey {
        shard,
        lane: 0,
        slot: key.slot,
        generation: key.generation,
    };
    let caller = Arc::clone(connection.caller.as_ref()?);
    Some(Subscriber {
        key,
        conn_id,
        caller,
        asked,
    })
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
        Effect::Call(_) | Effect::Visit(_) => None,
    }
}

fn code_of(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::NotSubscribed(_) => ErrorCode::NotSubscribed,
        Refusal::JoinRejected(_) => ErrorCode::JoinRejected,
        Refusal::HandlerFailed(_) => ErrorCode::HandlerError,
    }
}
