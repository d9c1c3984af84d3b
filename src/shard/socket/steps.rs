//! The words between the machine of a connection and those who drive it: where it is in its life, what
//! may happen to it, and what follows. Knows nothing but names.

/// Where a connection is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The request head is being read; what came so far.
    Head(Vec<u8>),
    /// The answer to a refused request is being sent.
    Refusing,
    /// Frames flow.
    Open,
    /// The peer closed or broke a rule while what came before it was still worked on. The answers
    /// go out, then this close frame.
    Ending { close: Box<[u8]> },
    /// Our close frame is on its way, or the peer's answer to it is awaited. When the peer has
    /// closed already, the socket goes as soon as everything is sent.
    Closing { peer_closed: bool },
    /// Nothing more is sent; what the peer still sends is dropped until it closes too.
    Lingering,
    /// Its slot is free as soon as nothing is in flight.
    Dead,
}

/// A bound that was reached; while there is one, the peer is not read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// What waits for a handler.
    Inbox,
    /// What waits for the peer, behind a send in flight.
    Outbox,
    /// Publishes wait for the disk.
    Publishes,
    /// What came and found no share of a turn yet.
    Kept,
}

/// Where the bytes of a receive go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// To the request head.
    Head,
    /// To the decoder.
    Frames,
    /// They are dropped.
    Nobody,
}

/// What is to be done about the receive of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arm {
    /// Receive one buffer.
    Once,
    /// Receive until told otherwise.
    Many,
    /// End the receive that is armed.
    Cancel,
}

/// Why a receive brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// There was no buffer.
    Starved,
    /// It was cancelled, or the kernel asks to try again.
    Interrupted,
    /// The peer has ended its side.
    End,
    /// The socket is broken.
    Broken,
}

/// What follows from a receive that brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterEnd {
    /// Nothing: something else is still armed.
    Nothing,
    /// It waits in line for a buffer.
    WaitInLine,
    /// Look at what is to be armed.
    Rearm,
    /// What is queued goes out first.
    FlushFirst,
    /// It is over.
    Abort,
}

/// What follows from a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterClose {
    /// Nothing changed.
    Nothing,
    /// The session may finish what came before (`Phase::Ending`).
    Wait,
    /// The time for that is over.
    FinishWork,
    /// The close frame is to be queued, and the session ends.
    Say,
    /// The peer has answered: the socket goes when everything is sent.
    Answered,
}

/// What there is room for in an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Enough.
    Free,
    /// It is full and nothing is in flight: it is to be offered to the peer now.
    Offer,
    /// The peer is behind: it is not read from until it has taken some.
    Pause,
    /// The peer is behind by more than it may be.
    Full,
}
