//! What the machine of Engine.IO says: what is to be done, why a session ended, and its limits. Words
//! alone; what they follow from is in `mod.rs`.

use smallvec::SmallVec;

/// A request that waits for packets.
pub(crate) type PollId = u64;

/// What the caller must do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect<S> {
    /// A waiting request is answered with this body.
    Answer(PollId, Vec<u8>),
    /// A request does not fit the session.
    Refuse(PollId),
    /// Whole frames go out over a socket.
    Send(S, Vec<u8>),
    /// A socket is closed with this code.
    Close(S, u16),
    /// A socket did not take over in time and is closed.
    GiveUpgradeUp(S),
    /// The layer above is told that the session has ended.
    Ended(Reason),
}

/// The effects of one step.
pub(crate) type Effects<S> = SmallVec<[Effect<S>; 3]>;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The other side closed it, or its socket is gone.
    TransportClose,
    /// A request broke the rules or was given up.
    TransportError,
    /// A ping was not answered in time.
    PingTimeout,
    /// This side closed it.
    Forced,
    /// What came was no packet.
    ParseError,
}

/// How long things may take, and how large an answer may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineLimits {
    pub(crate) ping_interval_ms: u64,
    pub(crate) pong_timeout_ms: u64,
    pub(crate) upgrade_ms_max: u64,
    pub(crate) payload_bytes_max: usize,
}

/// What a packet means for the layer above.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Up<'a> {
    /// Nothing.
    Nothing,
    /// A text.
    Text(&'a str),
    /// Bytes.
    Binary(Vec<u8>),
}
