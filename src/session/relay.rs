//! What a client's frames mean on a relay mount. Decides from the connection's own subscriptions
//! and leaves topics to their home; knows no socket and no other connection.
//!
//! Invariant: what stands here is what the client has asked for last. Each request to a home has
//! a number; an answer changes what stands here only if it answers the newest request about its
//! topic. As long as a home owes an answer about a topic, everything said of that topic comes
//! from there, so that the answers of one topic come in the order of the requests.

use std::collections::BTreeMap;

use crate::auth::{Caller, Forbidden, MayPublish, MaySubscribe, Rights};
use crate::id::ConnId;
use crate::proto::ErrorCode;
use crate::proto::relay::{RelayRequest, Wishes};
use crate::session::Speaker;

/// The bounds of one connection on a relay mount.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelayLimits {
    pub(crate) subscriptions_max: usize,
    pub(crate) name_bytes_max: usize,
    pub(crate) event_bytes_max: usize,
}

/// One connection on a relay mount.
#[derive(Debug)]
pub(crate) struct RelaySession {
    pub(crate) conn_id: ConnId,
    /// It asked for `tidegate.relay.v1`, and so gets what goes beyond the seed (D-04).
    pub(crate) negotiated: bool,
    /// Topics that it has subscribed to, or whose join is being decided.
    topics: Vec<Held>,
    /// Topics that it has asked to leave and whose home has not answered yet, each with the
    /// number of the request. Past the limit of subscriptions too, for each is on its way out.
    leaving: BTreeMap<Box<str>, u32>,
    /// The number of the last request to a home.
    asked: u32,
}

#[derive(Debug)]
struct Held {
    name: Box<str>,
    /// The newest subscribe to it.
    asked: u32,
}

/// What the shard does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// The topic's home decides; the number of the request.
    Subscribe(MaySubscribe<'a>, Wishes, u32),
    /// The topic's home is told, and answers; the number of the request.
    Unsubscribe(&'a str, u32),
    /// Nothing to leave: `unsubscribed` at once.
    AnswerUnsubscribed(&'a str),
    /// The topic's home decides.
    Message {
        topic: MayPublish<'a>,
        event: &'a str,
        payload: &'a [u8],
    },
    /// `pong`.
    Pong,
    /// The token is to be renewed.
    Renew(&'a str),
    /// An error frame; the connection stays.
    Refuse {
        topic: &'a str,
        refusal: Refusal,
        /// The topic's home owes answers, and this one comes behind them.
        behind: bool,
    },
}

/// Why this connection may not do that.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("subscription limit reached (max {0})")]
    SubscriptionLimit(usize),
    #[error("not subscribed to {0}")]
    NotSubscribed(String),
    #[error("invalid message: `{field}` of {bytes} bytes exceeds limits.{key} = {max}")]
    TooLong {
        field: &'static str,
        key: &'static str,
        bytes: usize,
        max: usize,
    },
}

impl Refusal {
    /// The code for those who negotiated it.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Forbidden(_) => ErrorCode::Forbidden,
            Self::SubscriptionLimit(_) => ErrorCode::SubscriptionLimit,
            Self::NotSubscribed(_) => ErrorCode::NotSubscribed,
            Self::TooLong { .. } => ErrorCode::InvalidMessage,
        }
    }
}

impl Speaker for RelaySession {
    fn negotiated(&self) -> bool {
        self.negotiated
    }

    fn is_subscribed(&self) -> bool {
        !self.topics.is_empty()
    }

    fn conn_id(&self) -> Option<ConnId> {
        Some(self.conn_id)
    }

    fn checks_text(&self) -> bool {
        true
    }
}

impl RelaySession {
    pub(crate) fn new(conn_id: ConnId, negotiated: bool) -> Self {
        Self {
            conn_id,
            negotiated,
            topics: Vec::new(),
            leaving: BTreeMap::new(),
            asked: 0,
        }
    }

    /// The topics that the connection must leave when it ends. Those that it is leaving have been
    /// told.
    pub(crate) fn take_topics(&mut self) -> Vec<Box<str>> {
        let topics = std::mem::take(&mut self.topics);
        topics.into_iter().map(|held| held.name).collect()
    }

    /// The number of one more request.
    pub(crate) fn next_asked(&mut self) -> u32 {
        self.asked = self.asked.wrapping_add(1);
        self.asked
    }

    /// The topic's home let go of the connection, or refused it, by request `asked`. If the client
    /// has asked for something else since, that is answered later and holds.
    pub(crate) fn handle_detached(&mut self, topic: &str, asked: u32) {
        self.topics
            .retain(|held| *held.name != *topic || held.asked != asked);
        if self.leaving.get(topic) == Some(&asked) {
            self.leaving.remove(topic);
        }
    }

    /// Topics that the rights of another token do not allow: it is to leave them.
    pub(crate) fn lost<'s>(&'s self, rights: &'s Rights) -> impl Iterator<Item = &'s str> {
        let topics = self.topics.iter().map(|held| &*held.name);
        topics.filter(|topic| !rights.may_subscribe(topic))
    }

    /// Leaves a topic: the number of the request.
    pub(crate) fn leave(&mut self, topic: &str) -> Option<u32> {
        match self.unsubscribe(topic) {
            Step::Unsubscribe(_, asked) => Some(asked),
            _ => None,
        }
    }

    /// Decides what `request` means here, for `caller`.
    pub(crate) fn handle<'a>(
        &mut self,
        request: RelayRequest<'a>,
        (caller, limits): (&Caller, &RelayLimits),
    ) -> Step<'a> {
        match request {
            RelayRequest::Subscribe { topic, wishes } => {
                self.subscribe((topic, wishes), (caller, limits))
            }
            RelayRequest::Unsubscribe { topic } => self.unsubscribe(topic),
            RelayRequest::Message {
                topic,
                event,
                payload,
            } => self.message((topic, event, payload), (caller, limits)),
            RelayRequest::Ping => Step::Pong,
            RelayRequest::Auth { token } => Step::Renew(token),
        }
    }

    fn holds(&self, topic: &str) -> bool {
        self.topics.iter().any(|held| *held.name == *topic)
    }

    fn refuse<'a>(&self, topic: &'a str, refusal: Refusal) -> Step<'a> {
        Step::Refuse {
            topic,
            refusal,
            behind: self.holds(topic) || self.leaving.contains_key(topic),
        }
    }

    fn subscribe<'a>(
        &mut self,
        (topic, wishes): (&'a str, Wishes),
        (caller, limits): (&Caller, &RelayLimits),
    ) -> Step<'a> {
        if limits.name_bytes_max < topic.len() {
            let (bytes, max) = (topic.len(), limits.name_bytes_max);
            let refusal = Refusal::TooLong {
                field: "topic",
                key: "name_bytes_max",
                bytes,
                max,
            };
            return self.refuse(topic, refusal);
        }
        let allowed = match caller.to_subscribe(topic) {
            Ok(allowed) => allowed,
            Err(forbidden) => return self.refuse(topic, forbidden.into()),
        };
        let asked = self.asked.wrapping_add(1);
        let count = self.topics.len();
        let held = self.topics.iter_mut().find(|held| *held.name == *topic);
        match held {
            Some(held) => held.asked = asked,
            None if limits.subscriptions_max <= count => {
                let refusal = Refusal::SubscriptionLimit(limits.subscriptions_max);
                return self.refuse(topic, refusal);
            }
            None => {
                self.leaving.remove(topic);
                self.topics.push(Held {
                    name: topic.into(),
                    asked,
                });
            }
        }
        self.asked = asked;
        Step::Subscribe(allowed, wishes, asked)
    }

    /// From here on the topic counts as left, whatever its home is still to answer.
    fn unsubscribe<'a>(&mut self, topic: &'a str) -> Step<'a> {
        let held = self.topics.iter().position(|held| *held.name == *topic);
        if held.is_none() && !self.leaving.contains_key(topic) {
            return Step::AnswerUnsubscribed(topic);
        }
        if let Some(index) = held {
            self.topics.swap_remove(index);
        }
        let asked = self.next_asked();
        self.leaving.insert(topic.into(), asked);
        Step::Unsubscribe(topic, asked)
    }

    fn message<'a>(
        &self,
        (topic, event, payload): (&'a str, &'a str, &'a [u8]),
        (caller, limits): (&Caller, &RelayLimits),
    ) -> Step<'a> {
        let allowed = match caller.to_publish(topic) {
            Ok(allowed) => allowed,
            Err(forbidden) => return self.refuse(topic, forbidden.into()),
        };
        if !self.holds(topic) {
            return self.refuse(topic, Refusal::NotSubscribed(topic.to_owned()));
        }
        if limits.event_bytes_max < event.len() {
            let (bytes, max) = (event.len(), limits.event_bytes_max);
            let refusal = Refusal::TooLong {
                field: "event",
                key: "event_bytes_max",
                bytes,
                max,
            };
            return self.refuse(topic, refusal);
        }
        Step::Message {
            topic: allowed,
            event,
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISHES: Wishes = Wishes {
        presence: false,
        last: false,
    };

    const LIMITS: RelayLimits = RelayLimits {
        subscriptions_max: 2,
        name_bytes_max: 8,
        event_bytes_max: 4,
    };

    fn handle<'a>(session: &mut RelaySession, request: RelayRequest<'a>) -> Step<'a> {
        session.handle(request, (&Caller::anonymous(), &LIMITS))
    }

    fn subscribe<'a>(session: &mut RelaySession, topic: &'a str) -> Step<'a> {
        handle(
            session,
            RelayRequest::Subscribe {
                topic,
                wishes: WISHES,
            },
        )
    }

    ///
    #[test]
    fn the_limit_counts_topics_and_not_requests() {
        let caller = Caller::anonymous();
        let to = |topic, asked| Step::Subscribe(caller.to_subscribe(topic).unwrap(), WISHES, asked);
        let mut session = RelaySession::new(1, false);
        assert_eq!(subscribe(&mut session, "a"), to("a", 1));
        assert_eq!(subscribe(&mut session, "a"), to("a", 2));
        assert_eq!(subscribe(&mut session, "b"), to("b", 3));
        let refusal = Refusal::SubscriptionLimit(2);
        assert_eq!(refusal.to_string(), "subscription limit reached (max 2)");
        assert_eq!(
            subscribe(&mut session, "c"),
            Step::Refuse {
                topic: "c",
                refusal,
                behind: false,
            }
        );
        session.handle_detached("a", 1);
        assert!(session.holds("a"), "a newer request is under way");
        session.handle_detached("a", 2);
        assert_eq!(subscribe(&mut session, "c"), to("c", 4));
    }

    /// S1: what was asked for last holds, whenever the answers come.
    #[test]
    fn an_answer_that_comes_late_undoes_nothing() {
        let caller = Caller::anonymous();
        let to = |topic, asked| Step::Subscribe(caller.to_subscribe(topic).unwrap(), WISHES, asked);
        let mut session = RelaySession::new(1, false);
        let leave = RelayRequest::Unsubscribe { topic: "a" };
        assert_eq!(subscribe(&mut session, "a"), to("a", 1));
        assert_eq!(handle(&mut session, leave), Step::Unsubscribe("a", 2));
        // It does not count any more, and what is said of it comes from its home.
        assert!(!session.is_subscribed());
        assert_eq!(handle(&mut session, leave), Step::Unsubscribe("a", 3));
        let message = RelayRequest::Message {
            topic: "a",
            event: "e",
            payload: b"1",
        };
        assert!(matches!(
            handle(&mut session, message),
            Step::Refuse { behind: true, .. }
        ));
        assert_eq!(subscribe(&mut session, "a"), to("a", 4));
        session.handle_detached("a", 2);
        session.handle_detached("a", 3);
        assert!(session.holds("a") && session.leaving.is_empty());
        assert_eq!(handle(&mut session, leave), Step::Unsubscribe("a", 5));
        session.handle_detached("a", 5);
        let left = handle(&mut session, leave);
        assert_eq!(left, Step::AnswerUnsubscribed("a"));
    }

    ///
    #[test]
    fn strangers_are_told() {
        let mut session = RelaySession::new(1, false);
        let message = RelayRequest::Message {
            topic: "chat:lobby",
            event: "e",
            payload: b"1",
        };
        let Step::Refuse { refusal, .. } = handle(&mut session, message) else {
            panic!("a stranger may not send");
        };
        assert_eq!(refusal.to_string(), "not subscribed to chat:lobby");
        let leave = RelayRequest::Unsubscribe { topic: "x" };
        assert_eq!(handle(&mut session, leave), Step::AnswerUnsubscribed("x"));
    }

    #[test]
    fn long_names_name_their_limit() {
        let mut session = RelaySession::new(1, false);
        let Step::Refuse { refusal, .. } = subscribe(&mut session, "123456789") else {
            panic!("the name is too long");
        };
        let text = "invalid message: `topic` of 9 bytes exceeds limits.name_bytes_max = 8";
        assert_eq!(refusal.to_string(), text);
    }
}
