//! What a client's frames mean on a relay mount. Decides from the connection's own subscriptions
//! and leaves topics to their home; knows no socket and no other connection.

use crate::id::ConnId;

use crate::proto::ErrorCode;
use crate::proto::relay::RelayRequest;

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
    topics: Vec<Box<str>>,
}

/// What the shard does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// The topic's home decides.
    Subscribe(&'a str),
    /// The topic's home is told, and answers.
    Unsubscribe(&'a str),
    /// Nothing to leave: `unsubscribed` at once.
    AnswerUnsubscribed(&'a str),
    /// The topic's home decides.
    Message {
        topic: &'a str,
        event: &'a str,
        payload: &'a [u8],
    },
    /// `pong`.
    Pong,
    /// The token is to be renewed.
    Renew(&'a str),
    /// An error frame; the connection stays.
    Refuse { topic: &'a str, refusal: Refusal },
}

/// Why this connection may not do that.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
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
            Self::SubscriptionLimit(_) => ErrorCode::SubscriptionLimit,
            Self::NotSubscribed(_) => ErrorCode::NotSubscribed,
            Self::TooLong { .. } => ErrorCode::InvalidMessage,
        }
    }
}

impl RelaySession {
    pub(crate) fn new(conn_id: ConnId, negotiated: bool) -> Self {
        Self {
            conn_id,
            negotiated,
            topics: Vec::new(),
        }
    }

    /// Whether it has any topic.
    pub(crate) fn is_subscribed(&self) -> bool {
        !self.topics.is_empty()
    }

    /// The topics that the connection must leave when it ends.
    pub(crate) fn take_topics(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.topics)
    }

    /// The topic's home let go of the connection, or refused it.
    pub(crate) fn handle_detached(&mut self, topic: &str) {
        self.topics.retain(|known| **known != *topic);
    }

    /// Decides what `request` means here.
    pub(crate) fn handle<'a>(
        &mut self,
        request: RelayRequest<'a>,
        limits: &RelayLimits,
    ) -> Step<'a> {
        match request {
            RelayRequest::Subscribe { topic } => self.subscribe(topic, limits),
            RelayRequest::Unsubscribe { topic } if self.knows(topic) => Step::Unsubscribe(topic),
            RelayRequest::Unsubscribe { topic } => Step::AnswerUnsubscribed(topic),
            RelayRequest::Message {
                topic,
                event,
                payload,
            } => self.message((topic, event, payload), limits),
            RelayRequest::Ping => Step::Pong,
            RelayRequest::Auth { token } => Step::Renew(token),
        }
    }

    fn knows(&self, topic: &str) -> bool {
        self.topics.iter().any(|known| **known == *topic)
    }

    fn subscribe<'a>(&mut self, topic: &'a str, limits: &RelayLimits) -> Step<'a> {
        if limits.name_bytes_max < topic.len() {
            let (bytes, max) = (topic.len(), limits.name_bytes_max);
            let refusal = Refusal::TooLong {
                field: "topic",
                key: "name_bytes_max",
                bytes,
                max,
            };
            return Step::Refuse { topic: "", refusal };
        }
        if !self.knows(topic) {
            if limits.subscriptions_max <= self.topics.len() {
                let refusal = Refusal::SubscriptionLimit(limits.subscriptions_max);
                return Step::Refuse { topic, refusal };
            }
            self.topics.push(topic.into());
        }
        Step::Subscribe(topic)
    }

    fn message<'a>(
        &self,
        (topic, event, payload): (&'a str, &'a str, &'a [u8]),
        limits: &RelayLimits,
    ) -> Step<'a> {
        if !self.knows(topic) {
            let refusal = Refusal::NotSubscribed(topic.to_owned());
            return Step::Refuse { topic, refusal };
        }
        if limits.event_bytes_max < event.len() {
            let (bytes, max) = (event.len(), limits.event_bytes_max);
            let refusal = Refusal::TooLong {
                field: "event",
                key: "event_bytes_max",
                bytes,
                max,
            };
            return Step::Refuse { topic, refusal };
        }
        Step::Message {
            topic,
            event,
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RelayLimits = RelayLimits {
        subscriptions_max: 2,
        name_bytes_max: 8,
        event_bytes_max: 4,
    };

    fn subscribe<'a>(session: &mut RelaySession, topic: &'a str) -> Step<'a> {
        session.handle(RelayRequest::Subscribe { topic }, &LIMITS)
    }

    ///
    #[test]
    fn the_limit_counts_topics_and_not_requests() {
        let mut session = RelaySession::new(1, false);
        assert_eq!(subscribe(&mut session, "a"), Step::Subscribe("a"));
        assert_eq!(subscribe(&mut session, "a"), Step::Subscribe("a"));
        assert_eq!(subscribe(&mut session, "b"), Step::Subscribe("b"));
        let refusal = Refusal::SubscriptionLimit(2);
        assert_eq!(refusal.to_string(), "subscription limit reached (max 2)");
        assert_eq!(
            subscribe(&mut session, "c"),
            Step::Refuse {
                topic: "c",
                refusal
            }
        );
        session.handle_detached("a");
        assert_eq!(subscribe(&mut session, "c"), Step::Subscribe("c"));
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
        let Step::Refuse { refusal, .. } = session.handle(message, &LIMITS) else {
            panic!("a stranger may not send");
        };
        assert_eq!(refusal.to_string(), "not subscribed to chat:lobby");
        let leave = RelayRequest::Unsubscribe { topic: "x" };
        assert_eq!(
            session.handle(leave, &LIMITS),
            Step::AnswerUnsubscribed("x")
        );
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
