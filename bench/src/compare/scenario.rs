//! What is measured: the arguments for the load generator and what to read from its report.

/// What a contestant must be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Echo,
    Typed,
    /// The relay's JSON: every connection publishes to itself.
    Relay,
    Fanout,
    /// One shard against two.
    Shards,
    /// Connections that come and go.
    Visits,
    Idle,
    IdleRelay,
    IdleSubscribed,
    IdleEvent,
}

impl Kind {
    /// What it costs is memory.
    pub(super) fn is_idle(self) -> bool {
        matches!(
            self,
            Self::Idle | Self::IdleRelay | Self::IdleSubscribed | Self::IdleEvent
        )
    }
}

/// One load.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) arguments: Vec<String>,
}

impl Scenario {
    fn new(kind: Kind, name: impl Into<String>, arguments: &str) -> Self {
        Self {
            name: name.into(),
            kind,
            arguments: arguments.split(' ').map(str::to_owned).collect(),
        }
    }
}

/// All scenarios in the order of the report.
pub(super) fn all(idle_connections: &[u32]) -> Vec<Scenario> {
    let mut all = echoes();
    all.extend(typed());
    all.extend(fanouts());
    all.extend(shards());
    all.extend(visits());
    all.extend(idle_connections.iter().flat_map(|count| idles(*count)));
    all
}

fn echoes() -> Vec<Scenario> {
    let loads = [
        (10, 1),
        (100, 1),
        (100, 16),
        (512, 16),
        (1000, 1),
        (4000, 1),
    ];
    let echo = |(connections, depth)| {
        Scenario::new(
            Kind::Echo,
            format!("echo 64 B, {connections} connections x depth {depth}"),
            &format!("echo --bytes 64 --connections {connections} --depth {depth}"),
        )
    };
    loads.map(echo).into()
}

/// An event of 120 bytes whose typed reply has the same bytes.
fn typed() -> Vec<Scenario> {
    let typed = |(connections, depth)| {
        let mut scenario = Scenario::new(
            Kind::Typed,
            format!("typed handler, 120 B, {connections} connections x depth {depth}"),
            &format!("echo --connections {connections} --depth {depth} --message"),
        );
        scenario.arguments.push(TYPED_MESSAGE.to_owned());
        scenario
    };
    [(100, 1), (100, 16)].map(typed).into()
}

fn fanouts() -> Vec<Scenario> {
    let bursts = [1, 8, 32].map(|burst| {
        Scenario::new(
            Kind::Fanout,
            format!("fanout 1 to 1000 of 128 B, bursts of {burst}"),
            &format!("fanout --bytes 128 --connections 1000 --burst {burst}"),
        )
    });
    let others = [
        (
            Kind::Fanout,
            "fanout 1 to 1000 of 128 B, 64 on their way",
            "fanout --bytes 128 --connections 1000 --window 64",
        ),
        (
            Kind::Fanout,
            "fanout in 1000 rooms of 10, 128 B",
            "fanout --bytes 128 --connections 10000 --topics 1000",
        ),
        (
            Kind::Fanout,
            "fanout 1 to 1000 of 128 B, 150 a second (about half load)",
            "fanout --bytes 128 --connections 1000 --rate 150",
        ),
        (
            Kind::Relay,
            "relay to oneself, 128 B, 100 connections x depth 16",
            "fanout --bytes 128 --connections 100 --topics 100 --burst 16",
        ),
    ];
    let others = others.map(|(kind, name, arguments)| Scenario::new(kind, name, arguments));
    bursts.into_iter().chain(others).collect()
}

/// The shards and the load share two cores, so only CPU time counts.
fn shards() -> Vec<Scenario> {
    [
        (
            "one shard or two: echo 64 B, 100 connections x depth 1",
            "echo --bytes 64 --connections 100",
        ),
        (
            "one shard or two: fanout 1 to 1000 of 128 B",
            "fanout --bytes 128 --connections 1000",
        ),
    ]
    .map(|(name, arguments)| Scenario::new(Kind::Shards, name, arguments))
    .into()
}

fn visits() -> Vec<Scenario> {
    [
        (
            "storm: 5,000 connections a second that upgrade and go",
            "connect --rate 5000 --topic=",
        ),
        (
            "limited: 2,000 connections a second, each with 10 echoes of 64 B",
            "connect --rate 2000 --echoes 10",
        ),
    ]
    .map(|(name, arguments)| Scenario::new(Kind::Visits, name, arguments))
    .into()
}

fn idles(connections: u32) -> Vec<Scenario> {
    [
        (Kind::Idle, "echo mount", ""),
        (Kind::IdleRelay, "relay mount", ""),
        (
            Kind::IdleSubscribed,
            "relay mount, subscribed",
            " --topic idle",
        ),
        (Kind::IdleEvent, "event mount", ""),
    ]
    .map(|(kind, mount, more)| {
        Scenario::new(
            kind,
            format!("idle, {connections} connections, {mount}"),
            &format!("idle --connections {connections}{more}"),
        )
    })
    .into()
}

const TYPED_MESSAGE: &str = concat!(
    r#"{"event":"message","data":{"author":"ada lovelace","text":"#,
    r#""good morning to everybody in the engine room, ada is here."}}"#
);

const _: () = assert!(TYPED_MESSAGE.len() == 120, "the event has 120 bytes");
