//! What every shard counts for itself and what is added up when somebody reads it. A leaf: knows
//! no shard, no tenant, no topic; its labels are bounded by the program, never by a peer.

mod text;

mod sample;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

pub use sample::{Measure, Sample};

use sample::Sampler;

/// Declares a closed list of things that are measured, each with its name and explanation.
macro_rules! measures {
    ($(#[doc = $doc:literal])+ $name:ident { $( $variant:ident $text:literal $help:literal, )+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $( #[doc = $help] $variant, )+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The name without the prefix and the unit's suffix.
            pub fn name(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }

            /// What it means, without a full stop.
            pub fn help(self) -> &'static str {
                match self { $( Self::$variant => $help, )+ }
            }
        }
    };
}

measures! {
    /// What only grows.
    Counter {
        ConnectionsAccepted "connections_accepted" "Sockets accepted",
        ConnectionsUpgraded "connections_upgraded" "WebSocket handshakes answered with 101",
        RequestsHandedOver "http_requests_handed_over" "Requests given to the REST router",
        MessagesReceived "messages_received" "Messages received from clients",
        MessagesSent "messages_sent" "Messages queued for clients",
        BytesReceived "received_bytes" "Bytes received from clients",
        BytesSent "sent_bytes" "Bytes sent to clients",
        FramesLagged "frames_lagged" "Relay pushes dropped because their subscriber lagged",
        OutboxSheds "outbox_sheds" "Pushes shed because an outbox was full",
        AcceptPauses "accept_pauses" "Times that accepting paused because the process had no descriptor left",
        Turns "turns" "Turns of a shard's loop",
        Sleeps "sleeps" "Times that a shard's loop slept",
        RuntimeVisits "runtime_visits" "Times that a shard's loop gave way to its tasks, timers and HTTP without a sleep",
        TlsHandshakesFull "tls_handshakes_full" "Handshakes of TLS that were done whole",
        TlsHandshakesResumed "tls_handshakes_resumed" "Handshakes of TLS that took a session up again",
        TlsFaults "tls_faults" "Connections that TLS ended: bad records, refused handshakes, plain HTTP",
        ConnectionsCompressed "connections_compressed" "Connections that agreed on compression",
        DeflateBytesIn "deflate_in_bytes" "Bytes of messages before they were compressed",
        DeflateBytesOut "deflate_out_bytes" "Bytes of messages after they were compressed",
        InflateBytesIn "inflate_in_bytes" "Bytes of compressed messages as they came",
        InflateBytesOut "inflate_out_bytes" "Bytes of compressed messages once they were opened",
        InboxPauses "inbox_pauses" "Times that receiving paused because an inbox was full",
        InvalidFrames "invalid_frames" "Frames that were no message of their dialect",
        ReceiveBuffersEmpty "receive_buffers_empty" "Times that the ring had no receive buffer left",
        CompletionQueueOverflows "completion_queue_overflows" "Completions that the kernel had to keep back",
        MailboxPosts "mailbox_posts" "Descriptors sent to other shards",
        MailboxOverloads "mailbox_overloads" "Descriptors refused because a mailbox was full",
        HandlerCalls "handler_calls" "Calls of handlers",
        HandlerPanics "handler_panics" "Handlers that panicked",
        HandlerOverloads "handler_overloads" "Events refused because a handler had too many waiting",
        Publishes "publishes" "Durable publishes accepted into the log",
        PublishAcks "publish_acks" "Durable publishes acknowledged",
        Deliveries "deliveries" "Durable messages handed to a subscriber",
        Syncs "syncs" "Batches made durable",
        LogBytes "log_written_bytes" "Bytes written to logs: records, checkpoints, zeros ahead of them",
        StorageFull "storage_full" "Publishes refused because the disk was full",
        MemoryCloses "memory_closes" "Connections ended because user memory was short",
        Gaps "gaps" "Gaps told to durable subscribers",
        EngineIoUpgrades "engineio_upgrades" "Sessions of Engine.IO that went over from polling to a WebSocket",
        EngineIoUpgradesLate "engineio_upgrades_late" "WebSockets closed because they did not take over a session in time",
        EngineIoRefused "engineio_sessions_refused" "Sessions by polling that were refused, or ended to make room for others",
        SocketIoAsks "socketio_asks" "Events whose answer the server asked for",
        SocketIoAsksUnanswered "socketio_asks_unanswered" "Those of them that were not answered in time",
        SocketIoAcksLate "socketio_acks_late" "Answers of clients that nothing waited for any longer",
    }
}

measures! {
    /// What goes up and down.
    Gauge {
        ConnectionsOpen "connections_open" "Connections that are upgraded",
        ConnectionsMax "connections_max" "Connections that the server may have, told by its first shard; more are answered with 503",
        ConnectionsHalfOpen "connections_half_open" "Sockets whose handshake is not done",
        OutboxFrames "outbox_frames" "Frames that wait for the sockets of this shard, behind the sends in flight",
        OutboxBytes "outbox_bytes" "Bytes of the frames that wait for the sockets of this shard",
        InboxMessages "inbox_messages" "Messages of clients that wait for handlers of raw mounts and gateways",
        InboxBytes "inbox_bytes" "What those messages take up",
        HandlerEventsWaiting "handler_events_waiting" "Joins, messages and leaves of relay topics that wait for a handler, at the home of their topic",
        MailboxDepth "mailbox_depth" "Descriptors waiting in the mailboxes of this shard",
        MailboxBehind "mailbox_behind" "Descriptors that this shard keeps because mailboxes of others are full",
        SubmissionsWaiting "submissions_waiting" "Operations that this shard's ring has not been handed yet",
        SubmissionsMax "submissions_max" "Operations that the queue of this shard's ring holds",
        CompletionsWaiting "completions_waiting" "Completions waiting in the queue of this shard's ring",
        CompletionsMax "completions_max" "Completions that the queue of this shard's ring holds",
        ReceiveBuffersFree "receive_buffers_free" "Receive buffers that the kernel may fill",
        ReceiveBuffersMax "receive_buffers_max" "Receive buffers of this shard's ring",
        ReceivesStarved "receives_starved" "Connections whose receive waits for a buffer",
        SendsInFlight "sends_in_flight" "Sends that the kernel has not ended",
        RelayTopics "relay_topics" "Relay topics with a subscriber, at their home",
        EngineIoPolling "engineio_sessions_polling" "Sessions of Engine.IO that poll",
        EngineIoWebSocket "engineio_sessions_websocket" "Sessions of Engine.IO over a WebSocket",
        EngineIoUnjoined "engineio_sessions_unjoined" "Sessions of Socket.IO that began by polling and have joined no namespace yet",
        Topics "topics" "Durable topics, at their home",
        Subscriptions "subscriptions" "Durable subscriptions, at their home",
        SubscriptionLag "subscription_lag" "Messages that durable subscriptions have not acked yet, all together, at their home",
        SubscriptionLagMax "subscription_lag_max" "Messages that the durable subscription which is most behind has not acked yet",
        AppendsUnsynced "appends_unsynced" "Publishes and other changes that are not on the disk yet and so not acknowledged",
        PublishesUnsynced "publishes_unsynced_bytes" "Bytes of the publishes that are not on the disk yet",
        AppendsBehind "appends_behind" "Those of them that the log is too busy to take",
        ReadsWaiting "reads_waiting" "Reads of logs whose bytes are on their way into memory",
        PartitionsFailed "partitions_failed" "Log partitions that stopped because their storage failed",
        UserMemory "user_memory_bytes" "Memory of the process that is resident and no file, at shard 0",
        UserMemoryMax "user_memory_max_bytes" "What user memory may be, at shard 0",
        SyncRelaxed "sync_relaxed" "1 when durable.fsync = os acknowledges before a sync",
    }
}

measures! {
    /// How long something takes.
    Timing {
        Handler "handler_duration" "Time of a handler from its call to its end",
        Turn "turn_duration" "Time of one turn of a shard",
        FanOut "fan_out_duration" "Time from the start of a turn that gave out relay pushes to the sends of all their receivers on the shard",
        Sync "sync_duration" "Time of a write and its sync",
        PublishAck "publish_ack_duration" "Time from a durable publish to its acknowledgement",
    }
}

measures! {
    /// Why a connection was not upgraded.
    Refusal {
        Head "head" "The request was none that can be upgraded",
        Token "token" "The token was missing or not accepted",
        Origin "origin" "The origin was not allowed",
        Guard "guard" "A guard refused",
        Limit "limit" "A limit on connections was reached",
        Memory "memory" "User memory was short",
        Timeout "timeout" "The handshake took too long",
        Draining "draining" "The server was stopping",
    }
}

measures! {
    /// Packets of Socket.IO that came.
    SocketIoPacket {
        Connect "connect" "A namespace was to be joined",
        Disconnect "disconnect" "A namespace was left",
        Event "event" "An event",
        BinaryEvent "binary_event" "An event with attachments",
        Ack "ack" "An answer",
        BinaryAck "binary_ack" "An answer with attachments",
        Malformed "malformed" "No packet at all, which ends the session",
    }
}

measures! {
    /// Why a namespace of Socket.IO was not joined.
    SocketIoRefusal {
        Namespace "namespace" "There is no such namespace, or no room for one more",
        Token "token" "The token was missing or not accepted",
        Guard "guard" "A guard refused",
    }
}

/// The close codes that are counted by name; all others share one place.
const CLOSE_CODES: [u16; 13] = [
    1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 4401, 4409,
];

/// The numbers of one shard. Only that shard writes them, anybody may read.
#[derive(Debug)]
// Two cache lines: the neighbour's line is fetched along on common processors.
#[repr(align(128))]
pub struct ShardMetrics {
    counters: [AtomicU64; Counter::ALL.len()],
    gauges: [AtomicU64; Gauge::ALL.len()],
    refusals: [AtomicU64; Refusal::ALL.len()],
    closes: [AtomicU64; CLOSE_CODES.len() + 1],
    packets: [AtomicU64; SocketIoPacket::ALL.len()],
    joins_refused: [AtomicU64; SocketIoRefusal::ALL.len()],
    /// Off every message's path: locked to take over what a recorder has gathered, and to read.
    timings: Mutex<[Durations; Timing::ALL.len()]>,
}

impl ShardMetrics {
    fn new() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self {
            counters: std::array::from_fn(zero),
            gauges: std::array::from_fn(zero),
            refusals: std::array::from_fn(zero),
            closes: std::array::from_fn(zero),
            packets: std::array::from_fn(zero),
            joins_refused: std::array::from_fn(zero),
            timings: Mutex::new(std::array::from_fn(|_| Durations::new())),
        }
    }

    /// Counts `number` of them.
    pub fn add(&self, counter: Counter, number: u64) {
        grow(&self.counters[counter as usize], number);
    }

    /// Sets how many there are.
    pub fn set(&self, gauge: Gauge, number: u64) {
        self.gauges[gauge as usize].store(number, Ordering::Relaxed);
    }

    /// Counts a connection that was not upgraded.
    pub fn refused(&self, refusal: Refusal) {
        grow(&self.refusals[refusal as usize], 1);
    }

    /// Counts a connection that ended with this close code.
    pub fn closed(&self, code: u16) {
        let known = CLOSE_CODES.iter().position(|known| *known == code);
        grow(&self.closes[known.unwrap_or(CLOSE_CODES.len())], 1);
    }

    /// Counts a packet of Socket.IO that came.
    pub fn packet(&self, packet: SocketIoPacket) {
        grow(&self.packets[packet as usize], 1);
    }

    /// Counts a namespace of Socket.IO that was not joined.
    pub fn join_refused(&self, refusal: SocketIoRefusal) {
        grow(&self.joins_refused[refusal as usize], 1);
    }

    /// What a counter stands at.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// What a gauge stands at.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize].load(Ordering::Relaxed)
    }
}

/// One thread writes, so a load and a store do and nothing has to be locked on the bus.
fn grow(number: &AtomicU64, by: u64) {
    let sum = number.load(Ordering::Relaxed).wrapping_add(by);
    number.store(sum, Ordering::Relaxed);
}

/// The numbers of all shards.
#[derive(Debug, Clone)]
pub struct Metrics {
    shards: Arc<[Arc<ShardMetrics>]>,
    sampler: Arc<OnceLock<Sampler>>,
}

impl Metrics {
    /// Zeros for so many shards.
    pub fn new(shards: u16) -> Self {
        Self {
            shards: (0..shards).map(|_| Arc::new(ShardMetrics::new())).collect(),
            sampler: Arc::default(),
        }
    }

    /// Has these numbers looked up each time that somebody asks for all of them. The first to
    /// say so decides.
    pub fn look_up(&self, samples: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        // Whoever comes second is a test that shares what it should not.
        let _ = self.sampler.set(Sampler(Arc::new(samples)));
    }

    /// The numbers of one shard, if there is such a shard.
    pub fn shard(&self, index: u16) -> Option<&Arc<ShardMetrics>> {
        self.shards.get(usize::from(index))
    }

    /// A counter over all shards.
    pub fn total(&self, counter: Counter) -> u64 {
        self.shards.iter().map(|shard| shard.counter(counter)).sum()
    }

    /// A gauge over all shards.
    pub fn sum(&self, gauge: Gauge) -> u64 {
        self.shards.iter().map(|shard| shard.gauge(gauge)).sum()
    }

    /// All numbers in the OpenMetrics text format.
    pub fn to_text(&self) -> String {
        text::encode(self, None)
    }

    /// Some of them, by their families as the `TYPE` lines name them. Nothing is looked up if it is
    /// for none of these.
    pub fn to_text_of(&self, families: &[&str]) -> String {
        text::encode(self, Some(families))
    }
}

/// The content type of [`Metrics::to_text`].
pub const TEXT_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Gathers durations on the shard's own thread, without a lock, until they are handed over.
#[derive(Debug)]
pub struct Recorder {
    shard: Arc<ShardMetrics>,
    gathered: RefCell<[Durations; Timing::ALL.len()]>,
}

impl Recorder {
    /// Gathers for `shard`.
    pub fn new(shard: Arc<ShardMetrics>) -> Self {
        Self {
            shard,
            gathered: RefCell::new(std::array::from_fn(|_| Durations::new())),
        }
    }

    /// Takes note of one duration.
    pub fn record(&self, timing: Timing, us: u64) {
        self.gathered.borrow_mut()[timing as usize].record(us);
    }

    /// Hands over what was gathered: to be called about once a second.
    pub fn flush(&self) {
        let mut totals = self.shard.timings.lock();
        for (total, gathered) in totals.iter_mut().zip(self.gathered.borrow_mut().iter_mut()) {
            total.take_over(gathered);
        }
    }
}

/// Durations in microseconds, to a tenth of each value, from 1 us to a minute and a bit.
#[derive(Debug, Clone)]
struct Durations {
    histogram: Histogram<u64>,
    sum_us: u64,
}

impl Durations {
    fn new() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "the bounds are constants, and a test makes one"
        )]
        let histogram = Histogram::new_with_bounds(1, DURATION_US_MAX, 1).expect("valid bounds");
        Self {
            histogram,
            sum_us: 0,
        }
    }

    fn record(&mut self, us: u64) {
        self.histogram.saturating_record(us.max(1));
        self.sum_us = self.sum_us.saturating_add(us);
    }

    fn take_over(&mut self, other: &mut Self) {
        if other.histogram.is_empty() {
            return;
        }
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok(), "both have the same bounds");
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        other.histogram.reset();
        other.sum_us = 0;
    }
}

/// What takes longer is counted as this.
const DURATION_US_MAX: u64 = 67_000_000;
