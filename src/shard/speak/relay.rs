//! The relay dialect on a shard: what a client asks of topics by name, and how it is refused. Knows where
//! the home of a topic is; `route.rs` brings back what that decides.

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::{Caller, Forbidden, MayPublish, MaySubscribe};
use crate::broker::ConnKey;
use crate::broker::relay::{Home, LeaveReason, Leaver, Refusal, Subscriber, TopicKey};
use crate::gateway::relay::push_frame;
use crate::proto::ErrorCode;
use crate::proto::json::JsonParser;
use crate::proto::relay::{self as wire, ErrorFrame};
use crate::proto::ws::Payload;
use crate::session::Session;
use crate::session::relay::{self as session, RelayLimits, RelaySession, Step};

use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::connection::Connection;
use crate::shard::state::State;
use crate::shard::state::admitted::Admitted;
use crate::shard::state::command::Command;
use crate::shard::state::who::Who;

impl State {
    /// A request was admitted on a relay mount.
    pub(crate) fn open_relay(&self, admitted: &Admitted) -> Option<Session> {
        let conn_id = self.shared.relay.as_ref()?.next_conn_id();
        Some(RelaySession::new(conn_id, admitted.negotiated).into())
    }

    /// A text has come on a relay mount.
    pub(crate) fn relay_text(
        &mut self,
        key: SlotKey,
        mut payload: Payload<'_>,
        json: &mut JsonParser,
    ) {
        match wire::parse(json, &mut payload) {
            Ok(request) => self.handle_relay(key, request),
            Err(error) => self.handle_invalid(key, &payload, json, &error),
        }
    }

    /// Does what a client on a relay mount asks for.
    fn handle_relay(&mut self, key: SlotKey, request: wire::RelayRequest<'_>) {
        let Some(relay) = &self.shared.relay else {
            return;
        };
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        connection.invalid_frames = 0;
        let limits = self.live.limits_of(connection.mount);
        let limits = RelayLimits {
            subscriptions_max: relay.subscriptions_max,
            name_bytes_max: limits.name_bytes_max,
            event_bytes_max: limits.event_bytes_max,
        };
        let (Some(session), Some(caller)) = (connection.session.relay(), &connection.caller) else {
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
        self.connections.alive(key)?.session.relay()
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
    fn subscribe(
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
    fn unsubscribe(&mut self, key: SlotKey, topic: &str, asked: u32) {
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
        let Some(connection) = self.connections.alive(key) else {
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
    fn message(&mut self, key: SlotKey, topic: MayPublish<'_>, event: &str, payload: &[u8]) {
        let topic = topic.topic();
        // Nothing that shards count together is touched for a message, its caller neither.
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        let (Some(session), Some(caller)) = (connection.session.relay(), &connection.caller) else {
            return;
        };
        let tenant = &caller.tenant;
        let who = (conn_key(self.index, key), session.conn_id);
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
        let connection = self.connections.alive(key)?;
        let conn_id = connection.session.relay()?.conn_id;
        subscriber_of(connection, index, key, (conn_id, asked))
    }
}

fn subscriber_of(
    connection: &Connection,
    shard: u16,
    key: SlotKey,
    (conn_id, asked): (crate::id::ConnId, u32),
) -> Option<Subscriber> {
    let caller = Arc::clone(connection.caller.as_ref()?);
    Some(Subscriber {
        key: conn_key(shard, key),
        conn_id,
        caller,
        asked,
    })
}

/// A slot of a shard as homes know it.
fn conn_key(shard: u16, SlotKey { slot, generation }: SlotKey) -> ConnKey {
    ConnKey {
        shard,
        lane: 0,
        slot,
        generation,
    }
}
