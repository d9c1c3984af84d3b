//! Every bound of the server under its own name. A number here is a promise of what happens when
//! it is reached; the file that enforces it says what. Knows nothing but numbers.

use super::section::section;

section! {
    /// Section `[limits]`: bounds of every mount that does not set its own. For a rate, 0 is off.
    pub struct Limits {
        /// Largest message in bytes, all its fragments together. More: close 1009.
        message_bytes_max: usize = 65_536, in 125..=1_073_741_824;
        /// Largest frame in bytes. More: close 1009.
        frame_bytes_max: usize = 65_536, in 125..=1_073_741_824;
        /// Fragments of a message that are always allowed; one more for each 32 bytes. More: close 1008.
        fragments_base_max: usize = 1_024, in 1..=1_048_576;
        /// Time for a fragmented message to become complete. Longer: close 1008.
        message_complete_ms_max: u64 = 30_000, in 1..=86_400_000;
        /// Bytes waiting for one socket; one frame always fits. Full: pushes are shed and told, a reply closes with 1008.
        outbox_bytes_max: usize = 1_048_576, in 4_096..=1_073_741_824;
        /// Frames waiting for one socket. Full: as `outbox_bytes_max`.
        outbox_frames_max: usize = 256, in 1..=1_048_576;
        /// Received bytes waiting for a handler or a sync; one message always fits. Full: receiving pauses until half is gone.
        inbox_bytes_max: usize = 262_144, in 125..=1_073_741_824;
        /// Received messages waiting for a handler. Full: receiving pauses until half are gone.
        inbox_messages_max: usize = 1_024, in 1..=1_048_576;
        /// Publishes of one connection that wait for their sync. Full: receiving pauses.
        publishes_in_flight_max: usize = 1_024, in 1..=1_048_576;
        /// Time for the request head to arrive. Longer: closed.
        handshake_ms_max: u64 = 10_000, in 1..=600_000;
        /// Quiet time after which the server sends a ping.
        ping_interval_ms: u64 = 25_000, in 10..=86_400_000;
        /// Time for anything to arrive after that ping. Longer: closed.
        pong_timeout_ms: u64 = 10_000, in 10..=86_400_000;
        /// Time without progress in writing, answers of REST too. Longer: closed, durable cursors stay.
        write_stall_ms_max: u64 = 30_000, in 10..=86_400_000;
        /// Time without a subscription and without a message. Longer: close 1000. 0 is off.
        idle_ms_max: u64 = 0, in 0..=604_800_000;
        /// Age of a connection. Older: close 1001, to be opened again with a new token. 0 is off.
        lifetime_ms_max: u64 = 14_400_000, in 0..=604_800_000;
        /// Handshakes of TLS that one turn of a shard works on; the others wait in line.
        tls_handshakes_per_turn_max: u32 = 4, in 1..=65_536;
        /// Handshakes of TLS that one shard begins in a second. More: closed. 0 is off.
        tls_handshakes_per_s_max: u32 = 0, in 0..=16_777_216;
        /// Compress messages (permessage-deflate) for clients that offer it.
        compression: bool = false;
        /// Bytes of the shortest message that is compressed.
        deflate_threshold_bytes: usize = 512, in 0..=1_073_741_824;
        /// Level of compression of what one client is sent: 1 is fast, 9 is small.
        deflate_level: u32 = 1, in 1..=9;
        /// Level of compression of what 16 clients or more of a shard are sent.
        deflate_level_shared: u32 = 6, in 1..=9;
        /// Compress binary messages too.
        deflate_binary: bool = false;
        /// Bytes of a request head. More: 431.
        head_bytes_max: usize = 8_192, in 256..=1_048_576;
        /// Headers of a request. More: 431.
        headers_max: usize = 64, in 8..=1_024;
        /// Bytes of a request target. More: 414.
        uri_bytes_max: usize = 4_096, in 64..=1_048_576;
        /// Bytes of a token. More: 401.
        token_bytes_max: usize = 3_072, in 64..=1_048_576;
        /// Bytes of a REST body. More: 413.
        body_bytes_max: usize = 1_048_576, in 1_024..=1_073_741_824;
        /// Time for a REST body to arrive, from its head on. Longer: 408.
        body_ms_max: u64 = 30_000, in 1..=86_400_000;
        /// All connections. More: 503. 0 takes the open files of the process less an eighth, at most 512.
        connections_max: usize = 0, in 0..=16_777_216;
        /// Connections whose handshake is not done. More: the one that has been silent for longest ends.
        half_open_max: usize = 4_096, in 1..=1_048_576;
        /// Those of one address (of IPv6 a /64). More: its own that has been silent for longest ends. 0 is
        /// no bound.
        half_open_per_address_max: usize = 1_024, in 0..=1_048_576;
        /// User memory of the process, mapped files not counted. 0 takes 60 % of the cgroup's or the machine's.
        memory_bytes_max: u64 = 0, in 0..=1_125_899_906_842_624;
        /// Percent of `memory_bytes_max`. From here on: no new upgrades (503), not ready.
        memory_refuse_percent: u64 = 80, in 1..=100;
        /// Percent of `memory_bytes_max`. From here on: the connections with most waiting are ended.
        memory_close_percent: u64 = 95, in 1..=100;
        /// Rooms of one connection. More: the join is refused.
        rooms_per_connection_max: usize = 256, in 1..=65_536;
        /// Bytes of the name of a topic or a room. More: refused.
        name_bytes_max: usize = 255, in 1..=255;
        /// Bytes of a `sub_name`. More: refused.
        sub_name_bytes_max: usize = 128, in 1..=255;
        /// Bytes of an `idempotency_key`. More: refused.
        idempotency_key_bytes_max: usize = 128, in 1..=255;
        /// Bytes of the name of an event. More: refused.
        event_bytes_max: usize = 128, in 1..=65_536;
        /// Nesting of JSON. Fixed: it is that of serde_json, so that both refuse the same frames.
        json_depth_max: usize = 128, in 128..=128;
        /// Events that wait for one relay handler. Full: the error `overloaded`.
        handler_queue_max: usize = 64, in 1..=65_536;
        /// Invalid frames in a row. More: close 1008.
        invalid_frames_max: usize = 10, in 1..=65_536;
        /// Descriptors in the mailbox between two shards. Full: the sender is told `overloaded`.
        mailbox_descriptors_max: usize = 4_096, in 2..=1_048_576;
        /// Descriptors from threads that are no shards. Full: the sender is told `overloaded`.
        outside_queue_max: usize = 1_024, in 2..=1_048_576;
        /// Completions that one turn of a shard takes.
        turn_completions_max: usize = 128, in 1..=65_536;
        /// Time after which a turn of a shard yields to handlers and timers.
        turn_us_max: u64 = 2_000, in 10..=1_000_000;
        /// Time of a graceful stop. Longer: what is left is closed at once.
        drain_ms_max: u64 = 9_000, in 100..=600_000;
        /// Time after SIGTERM in which `/readyz` says no and everything else goes on, for balancers to
        /// notice. A second signal ends it.
        drain_delay_ms: u64 = 0, in 0..=600_000;
        /// Part of `drain_ms_max` over which connections are told to come back. 0 tells all at once.
        drain_spread_ms: u64 = 0, in 0..=600_000;
        /// Topics of one tenant. More: refused.
        topics_per_tenant_max: usize = 100_000, in 1..=1_073_741_824;
        /// Durable subscriptions of one tenant. More: refused.
        subscriptions_per_tenant_max: usize = 100_000, in 1..=1_073_741_824;
        /// Bytes that one tenant keeps in the log. More: `storage_full`.
        bytes_per_tenant_max: u64 = 10_737_418_240, in 1_048_576..=1_125_899_906_842_624;
        /// Messages a second from one connection. More: `rate_limited`, close 1008 after 5 s of it.
        messages_per_s_max: u32 = 0, in 0..=100_000_000;
        /// Messages that may come at once. 0 takes the rate itself.
        messages_burst_max: u32 = 0, in 0..=100_000_000;
        /// Bytes a second from one connection. More: as `messages_per_s_max`.
        bytes_per_s_max: u64 = 0, in 0..=1_000_000_000_000;
        /// Pings, pongs and closes a second from one connection. More: as `messages_per_s_max`.
        control_frames_per_s_max: u32 = 0, in 0..=100_000_000;
        /// Connections from one address, a /64 counting as one; through a trusted proxy requests too. More: 503.
        connections_per_address_max: u32 = 0, in 0..=16_777_216;
        /// New connections a second from one address; through a trusted proxy requests. More: 429.
        connects_per_address_per_s_max: u32 = 0, in 0..=16_777_216;
        /// Connections of one tenant. More: 503.
        connections_per_tenant_max: u32 = 0, in 0..=16_777_216;
        /// Refused tokens a minute from one address. More: 429.
        auth_failures_per_address_per_min_max: u32 = 0, in 0..=16_777_216;
    }
}

impl Limits {
    /// Whether connections are counted or metered by the address that they come from.
    pub fn counts_addresses(&self) -> bool {
        0 < self.connections_per_address_max || 0 < self.connects_per_address_per_s_max
    }

    /// The fragments that a message of `bytes` may have so far: small fragments are no fault of
    /// a long message, so the budget grows with what has arrived.
    pub fn fragments_max(&self, bytes: usize) -> usize {
        self.fragments_base_max.saturating_add(bytes / 32)
    }
}
