//! The codes that error frames of the relay and the durable dialect carry. Knows only their names.

/// Why a request was refused, for programs; the `message` beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The frame is no request of the dialect.
    InvalidMessage,
    /// The connection holds no such subscription.
    NotSubscribed,
    /// The connection holds as many subscriptions as it may.
    SubscriptionLimit,
    /// The topic's handler refused the subscription.
    JoinRejected,
    /// The topic's handler failed.
    HandlerError,
    /// The tenant has no such topic.
    UnknownTopic,
    /// The token does not allow it.
    Unauthorized,
    /// The token's rights do not allow it.
    Forbidden,
    /// Another binding took the subscription over.
    Fenced,
    /// An ack beyond what was delivered.
    AckAhead,
    /// A start beyond the end of the topic.
    SeqOutOfRange,
    /// The key was used before, with another payload.
    IdempotencyConflict,
    /// The topic holds as much as it may.
    TopicFull,
    /// The disk holds as much as it may.
    StorageFull,
    /// The disk failed.
    StorageFailed,
    /// A name or a payload is longer than allowed.
    TooLarge,
    /// The connection sends faster than allowed.
    RateLimited,
    /// The server failed.
    Internal,
}

impl ErrorCode {
    /// All of them, with what they mean.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (
            Self::InvalidMessage,
            "the frame is no request of the dialect",
        ),
        (
            Self::NotSubscribed,
            "the connection holds no such subscription",
        ),
        (
            Self::SubscriptionLimit,
            "the connection holds as many subscriptions as it may",
        ),
        (
            Self::JoinRejected,
            "the topic's handler refused the subscription",
        ),
        (Self::HandlerError, "the topic's handler failed"),
        (Self::UnknownTopic, "the tenant has no such topic"),
        (Self::Unauthorized, "the token does not allow it"),
        (
            Self::Forbidden,
            "the token's rights (claims publish, subscribe, roles) do not allow it",
        ),
        (
            Self::Fenced,
            "another connection took the subscription over",
        ),
        (Self::AckAhead, "an ack beyond what was delivered"),
        (Self::SeqOutOfRange, "a start beyond the end of the topic"),
        (
            Self::IdempotencyConflict,
            "the key was used before, with another payload",
        ),
        (Self::TopicFull, "the topic holds as much as it may"),
        (Self::StorageFull, "the disk holds as much as it may"),
        (Self::StorageFailed, "the disk failed"),
        (Self::TooLarge, "a name or a payload is longer than allowed"),
        (
            Self::RateLimited,
            "the connection sends faster than allowed",
        ),
        (Self::Internal, "the server failed"),
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidMessage => "invalid_message",
            Self::NotSubscribed => "not_subscribed",
            Self::SubscriptionLimit => "subscription_limit",
            Self::JoinRejected => "join_rejected",
            Self::HandlerError => "handler_error",
            Self::UnknownTopic => "unknown_topic",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Fenced => "fenced",
            Self::AckAhead => "ack_ahead",
            Self::SeqOutOfRange => "seq_out_of_range",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::TopicFull => "topic_full",
            Self::StorageFull => "storage_full",
            Self::StorageFailed => "storage_failed",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
        }
    }
}
