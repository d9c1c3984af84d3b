//! The sections beside the limits: what is switched on, where it listens, where it keeps things.
//! Knows no file and no environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::auth::RightsMode;

use super::limits::Limits;
use super::network::Network;
use super::section::section;

section! {
    /// Section `[server]`.
    pub struct ServerSection {
        /// Shards, one pinned thread each. 0 takes one for each core.
        shards: u16 = 0, in 0..=1_024;
        /// Address and port. Port 0 lets the system choose.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4000));
        /// Where topics, cursors and logs are kept.
        data_dir: PathBuf = PathBuf::from("tidegate-data");
        /// Proxies in front: addresses, or networks such as 10.0.0.0/8. Who comes through them is counted
        /// and shown by X-Forwarded-For: its rightmost address that is no proxy. From others it is not read.
        trusted_proxies: Vec<Network> = Vec::new();
    }
}

section! {
    /// Section `[shard]`: sizes of what one core owns.
    pub struct ShardSection {
        /// Pin each shard to its core.
        pin: bool = true;
        /// Entries of the submission queue; the completion queue has eight times as many, at most
        /// 65,536.
        ring_entries: u32 = 4_096, in 64..=32_768;
        /// Receive buffers that all connections of a shard share; a power of two. They become
        /// resident as they are needed.
        receive_buffers: u16 = 4_096, in 16..=32_768;
        /// Bytes of one receive buffer.
        receive_buffer_bytes: usize = 4_096, in 1_024..=1_048_576;
        /// Time to poll before sleeping. 0 sleeps at once; more trades a core for latency.
        busy_poll_us: u64 = 0, in 0..=1_000_000;
        /// Accepted connections that the kernel holds before they are taken.
        backlog: u32 = 4_096, in 1..=65_535;
        /// Verified tokens that a shard remembers.
        token_cache_entries_max: usize = 4_096, in 2..=1_048_576;
    }
}

section! {
    /// Section `[auth]`. The secret itself is never here: it comes from a file or from
    /// `TIDEGATE_JWT_SECRET`.
    pub struct AuthSection {
        /// File with the secret (HS256, at least 32 bytes). "" takes TIDEGATE_JWT_SECRET.
        #[serde(with = "super::text_or_none")]
        jwt_secret_file: Option<PathBuf> = None;
        /// File with the secret before it, still accepted while keys rotate.
        #[serde(with = "super::text_or_none")]
        jwt_secret_previous_file: Option<PathBuf> = None;
        /// Name (`kid`) of the secret. A token that names a key must name one of these.
        #[serde(with = "super::text_or_none")]
        jwt_key_id: Option<String> = None;
        /// Name (`kid`) of the secret before it.
        #[serde(with = "super::text_or_none")]
        jwt_previous_key_id: Option<String> = None;
        /// Files with public keys, PEM or JWKS (ES256 on P-256, EdDSA on Ed25519, RS256 from 2048
        /// bits on). A key of a PEM is named by its file without the ending, a key of a JWKS by its
        /// `kid`. With one of them there need be no secret.
        public_key_files: Vec<PathBuf> = Vec::new();
        /// Issuer that a token must name. "" takes any.
        #[serde(with = "super::text_or_none")]
        issuer: Option<String> = None;
        /// Audience that a token must name. "" takes any.
        #[serde(with = "super::text_or_none")]
        audience: Option<String> = None;
        /// Seconds by which clocks may differ.
        leeway_s: u64 = 30, in 0..=300;
        /// Longest time that a token may still be valid. 0 is off.
        token_lifetime_s_max: u64 = 0, in 0..=3_153_600_000;
        /// What a token without the claims `publish` and `subscribe` may do: "open": everything in its
        /// tenant; "explicit": nothing, and what others made wants the role `manager` or `admin`.
        rights: RightsChoice = RightsChoice::Open;
        /// Origins of browsers that may connect, as scheme://host:port. Empty: not checked.
        allowed_origins: Vec<String> = Vec::new();
        /// Refuse an upgrade without an Origin.
        require_origin: bool = false;
    }
}

section! {
    /// Section `[relay]`: it stands in the file, so the relay mount exists. A limit may be set
    /// here for this mount alone.
    pub struct RelaySection {
        /// Where it is mounted.
        path: String = "/ws".to_owned();
        /// Let everybody in, without a token.
        public: bool = false;
        /// Pushes that wait for one subscriber of one topic. Full: the oldest goes, `lagged` tells.
        topic_capacity: usize = 128, in 1..=1_048_576;
        /// Topics of one connection. More: the error `subscription limit reached`.
        max_subscriptions_per_connection: usize = 50, in 1..=1_048_576;
        /// What a message does on a topic without a handler: "broadcast" or "reject".
        unhandled: Unhandled = Unhandled::Broadcast;
        /// Keep the last push of each topic, for who subscribes later with "last": true.
        keep_last: bool = false;
        /// Bytes of last pushes that are kept, shared by all shards. Full: the oldest go.
        last_bytes_max: usize = 16_777_216, in 4_096..=1_099_511_627_776;
        /// A push by REST to a topic with a handler: "handlers": the handler takes it as a message of
        /// the pushing user. "direct": it goes to the subscribers. "off": there are no pushes by REST.
        rest_push: RestPush = RestPush::Handlers;
        /// "isolated": a tenant sees itself only. "shared": everybody is in `default`.
        tenants: Tenants = Tenants::Isolated;
    }
}

section! {
    /// Section `[durable]`: topics on disk. A limit may be set here for this mount alone.
    pub struct DurableSection {
        /// Switches the durable mount and its REST routes.
        enabled: bool = true;
        /// Where it is mounted.
        path: String = "/v1/ws".to_owned();
        /// Let everybody in, without a token.
        public: bool = false;
        /// "batch": acknowledge after a shared sync. "always": a sync each. "os": before any sync.
        fsync: Fsync = Fsync::Batch;
        /// Un-acked messages of one subscription.
        window_messages: usize = 256, in 1..=1_048_576;
        /// Un-acked bytes of one subscription; one message always fits.
        window_bytes: usize = 262_144, in 1..=1_073_741_824;
        /// Largest segment file.
        segment_bytes_max: u64 = 67_108_864, in 1_048_576..=1_073_741_824;
        /// Space of each partition that publishes may not use, for cursors and cleaning.
        reserve_bytes: u64 = 262_144, in 65_536..=1_099_511_627_776;
        /// Longest time that a record waits for company before its sync.
        sync_delay_us_max: u64 = 0, in 0..=1_000_000;
        /// Bytes that end this waiting.
        sync_bytes_max: usize = 1_048_576, in 4_096..=67_108_864;
        /// Log partitions of a new data directory. 0 takes the larger of 4 and the cores.
        partitions: u16 = 0, in 0..=4_096;
        /// Longest time that a cursor waits for its record.
        cursor_delay_ms_max: u64 = 100, in 1..=100;
        /// Age after which messages go. 0 is off.
        retention_age_s_max: u64 = 0, in 0..=3_153_600_000;
        /// Bytes of a topic above which its oldest messages go. 0 is off.
        retention_bytes_max: u64 = 0, in 0..=1_125_899_906_842_624;
        /// Messages of a topic above which the oldest go. 0 is off.
        retention_messages_max: u64 = 0, in 0..=9_007_199_254_740_991;
        /// "any": whoever is in the tenant may use any sub_name. "sub": the token's sub stands before it.
        bind_sub_names: BindSubNames = BindSubNames::Any;
        /// What a sub_name on a second connection does: "takeover" or "reject".
        on_duplicate: OnDuplicate = OnDuplicate::Takeover;
    }
}

section! {
    /// Section `[socketio]`: how gateways with `adapter = SocketIo` are reached, and mounts with
    /// `transport = "engineio"`. A limit may be set here for these mounts alone.
    pub struct SocketIoSection {
        /// Let everybody in, without a token.
        public: bool = false;
        /// "isolated": a tenant sees itself only. "shared": everybody is in `default`.
        tenants: Tenants = Tenants::Isolated;
        /// Ways in: "polling", "websocket". Others: `Transport unknown`.
        transports: Vec<Transport> = vec![Transport::Polling, Transport::WebSocket];
        /// Offer a WebSocket to those who came by polling.
        allow_upgrades: bool = true;
        /// Time for a WebSocket to take over. Longer: it is closed, polling goes on.
        upgrade_ms_max: u64 = 10_000, in 10..=600_000;
        /// Time to join a first namespace. Longer: closed.
        connect_ms_max: u64 = 10_000, in 10..=600_000;
        /// Binary attachments of one packet. More: closed.
        attachments_max: usize = 10, in 0..=1_024;
        /// Packets of one POST. More: 400, the session ends.
        packets_per_post_max: usize = 256, in 1..=65_536;
        /// Namespaces that one connection may join. More: refused.
        namespaces_per_connection_max: usize = 16, in 1..=255;
        /// Asks of the server that one connection has not answered. More: `AskError::Full`.
        acks_pending_max: usize = 1_024, in 1..=1_048_576;
        /// Time for an answer where an ask names none.
        ack_ms_default: u64 = 10_000, in 1..=86_400_000;
        /// Cookie with the session's name, for balancers in front. "" is off.
        cookie: String = String::new();
    }
}

/// The limits of Socket.IO where `[socketio]` sets none: clients rely on them.
pub(super) const SOCKETIO_LIMITS: [(&str, i64); 3] = [
    ("message_bytes_max", 1_000_000),
    ("frame_bytes_max", 1_000_000),
    ("pong_timeout_ms", 20_000),
];

/// The limits of mounts of Socket.IO where nothing is configured.
pub(super) fn socketio_limits(limits: &Limits) -> Limits {
    Limits {
        message_bytes_max: 1_000_000,
        frame_bytes_max: 1_000_000,
        pong_timeout_ms: 20_000,
        ..limits.clone()
    }
}

section! {
    /// An entry `[[mount]]`: a path and what is spoken there. A limit may be set here for this
    /// mount alone.
    pub struct MountSection {
        /// Where it is mounted.
        path: String = String::new();
        /// "event", "relay", "durable" or "raw".
        dialect: Dialect = Dialect::Raw;
        /// Who takes its messages, for a raw mount: "echo" is built in.
        #[serde(with = "super::text_or_none")]
        handler: Option<String> = None;
        /// "websocket", or for a raw mount "engineio": messages over Engine.IO, by `[socketio]`.
        transport: Carrier = Carrier::WebSocket;
        /// Let everybody in, without a token.
        public: bool = false;
        /// "isolated": a tenant sees itself only. "shared": everybody is in `default`.
        tenants: Tenants = Tenants::Isolated;
    }
}

section! {
    /// Section `[admin]`.
    pub struct AdminSection {
        /// Address to which /metrics and the console move, without a token. "" is off.
        #[serde(with = "super::text_or_none")]
        listen: Option<SocketAddr> = None;
        /// Let it listen on an address that other machines reach, where everybody who reaches it
        /// sees the inside of the server.
        allow_remote: bool = false;
    }
}

impl AdminSection {
    /// Where others reach the listener, if nobody said that they may.
    pub fn exposed(&self) -> Option<SocketAddr> {
        let listen = self.listen.filter(|_| !self.allow_remote);
        listen.filter(|address| !address.ip().is_loopback())
    }
}

section! {
    /// Section `[tls]`: a second listener, on which everything is served through TLS.
    pub struct TlsSection {
        /// Address and port. Port 0 lets the system choose. "" is off.
        #[serde(with = "super::text_or_none")]
        listen: Option<SocketAddr> = None;
        /// Chains and keys in PEM: [[tls.certificate]] with cert_file and key_file, as often as you
        /// like. The name that a client asks for chooses, exact before *; else the first is shown.
        /// SIGHUP reads the files anew.
        certificate: Vec<CertificateFiles> = Vec::new();
        /// "1.2" or "1.3".
        min_version: TlsVersion = TlsVersion::V12;
        /// What a client that asks for another name gets: "first", the first certificate, or "refuse".
        unknown_name: UnknownName = UnknownName::First;
        /// Development: make a certificate for localhost and keep it in data_dir/dev-tls.
        dev: bool = false;
    }
}

/// An entry `[[tls.certificate]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The chain in PEM, the server's own certificate first.
    pub cert_file: PathBuf,
    /// Its key in PEM: PKCS#8, SEC1 or PKCS#1.
    pub key_file: PathBuf,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2 and 1.3.
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 only.
    #[serde(rename = "1.3")]
    V13,
}

section! {
    /// Section `[log]`: what the program says of itself.
    pub struct LogSection {
        /// "error", "warn", "info", "debug", "trace", or a filter such as "info,tidegate::ws=debug".
        level: String = "info".to_owned();
        /// "text" or "json".
        format: LogFormat = LogFormat::Text;
        /// Lines a second of one kind, such as "refused". More are left out, counted and told of.
        lines_per_s_max: u32 = 100, in 1..=1_000_000;
        /// Bytes of a line. More are cut.
        line_bytes_max: usize = 4_096, in 256..=1_048_576;
    }
}

/// Declares a closed choice that is written in lower case.
macro_rules! choice {
    ($(#[doc = $doc:literal])+ $name:ident { $( $(#[doc = $variant_doc:literal])+ $variant:ident, )+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            $( $(#[doc = $variant_doc])+ $variant, )+
        }
    };
}

choice! {
    /// What a token may do that does not say it.
    RightsChoice {
        /// Everything in its tenant.
        Open,
        /// Nothing.
        Explicit,
    }
}

impl RightsChoice {
    /// As tokens are verified.
    pub fn mode(self) -> RightsMode {
        match self {
            Self::Open => RightsMode::Open,
            Self::Explicit => RightsMode::Explicit,
        }
    }
}

choice! {
    /// Who takes a push by REST.
    RestPush {
        /// The handler of the topic, if it has one.
        Handlers,
        /// The subscribers, past any handler.
        Direct,
        /// Nobody: it is refused.
        Off,
    }
}

choice! {
    /// What is spoken on a mount.
    Dialect {
        /// `{"event","data"}` envelopes for the handlers of a gateway.
        Event,
        /// Topics by name that are not kept.
        Relay,
        /// Topics on disk with cursors.
        Durable,
        /// A socket for one handler.
        Raw,
    }
}

choice! {
    /// What carries the messages of a mount.
    Carrier {
        /// The frames of WebSocket.
        WebSocket,
        /// The packets of Engine.IO, over polling or WebSocket.
        EngineIo,
    }
}

choice! {
    /// A way in for the packets of Engine.IO.
    Transport {
        /// Requests and answers.
        Polling,
        /// One socket.
        WebSocket,
    }
}

choice! {
    /// Whether the clients of a mount see each other across tenants.
    Tenants {
        /// A tenant sees only itself.
        Isolated,
        /// All clients are in the tenant `default`.
        Shared,
    }
}

choice! {
    /// What a relay message does on a topic that no handler takes.
    Unhandled {
        /// It goes to all subscribers, the sender included.
        Broadcast,
        /// It is refused.
        Reject,
    }
}

choice! {
    /// When a publish is acknowledged.
    Fsync {
        /// After the sync of its batch.
        Batch,
        /// After a sync of its own.
        Always,
        /// After the write: a power cut may take what was acknowledged.
        Os,
    }
}

choice! {
    /// Who may use which `sub_name`.
    BindSubNames {
        /// Everybody in the tenant any name.
        Any,
        /// The token's `sub` is put before the name.
        Sub,
    }
}

choice! {
    /// What happens when a `sub_name` is bound a second time.
    OnDuplicate {
        /// The new connection wins.
        Takeover,
        /// The old connection stays.
        Reject,
    }
}

choice! {
    /// What a client gets that asks for a name of no certificate.
    UnknownName {
        /// The first certificate.
        First,
        /// The alert `unrecognized_name`.
        Refuse,
    }
}

choice! {
    /// How log lines are written.
    LogFormat {
        /// For people.
        Text,
        /// One object a line.
        Json,
    }
}

/// A declared mount with the limits that hold on it.
#[derive(Debug, Clone, PartialEq)]
pub struct MountConfig {
    /// Where it is mounted.
    pub path: String,
    /// What is spoken there.
    pub dialect: Dialect,
    /// Who takes its messages, for a raw mount.
    pub handler: Option<String>,
    /// What carries its messages.
    pub transport: Carrier,
    /// No token is asked for.
    pub public: bool,
    /// Whether tenants see each other.
    pub tenants: Tenants,
    /// The limits of the server, with those that this mount sets.
    pub limits: Limits,
}

impl MountConfig {
    /// The mount of an entry of the file.
    pub(super) fn new(section: MountSection, limits: Limits) -> Self {
        Self {
            path: section.path,
            dialect: section.dialect,
            handler: section.handler,
            transport: section.transport,
            public: section.public,
            tenants: section.tenants,
            limits,
        }
    }
}

/// The mount of `[relay]`.
pub(super) fn relay_mount(relay: &RelaySection, limits: Limits) -> MountConfig {
    MountConfig {
        path: relay.path.clone(),
        dialect: Dialect::Relay,
        handler: None,
        transport: Carrier::WebSocket,
        public: relay.public,
        tenants: relay.tenants,
        limits,
    }
}

/// The mount of `[durable]`. Its tenants are always apart.
pub(super) fn durable_mount(durable: &DurableSection, limits: Limits) -> MountConfig {
    MountConfig {
        path: durable.path.clone(),
        dialect: Dialect::Durable,
        handler: None,
        transport: Carrier::WebSocket,
        public: durable.public,
        tenants: Tenants::Isolated,
        limits,
    }
}
