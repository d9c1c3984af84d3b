//! What is measured: the arguments for the load generator and what to read from its report.

/// What a contestant must be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Echo,
    Fanout,
    Idle,
    IdleRelay,
}

/// One load.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) arguments: Vec<String>,
}

/// All scenarios in the order of the report.
pub(super) fn all(idle_connections: u32) -> Vec<Scenario> {
    let echoes = [(10, 1), (100, 1), (100, 16), (1000, 1)].map(|(connections, depth)| Scenario {
        name: format!("echo 64 B, {connections} connections x depth {depth}"),
        kind: Kind::Echo,
        arguments: words(&format!(
            "echo --bytes 64 --connections {connections} --depth {depth}"
        )),
    });
    let fanouts = [1, 8, 32].map(|burst| Scenario {
        name: format!("fanout 1 to 1000 of 128 B, bursts of {burst}"),
        kind: Kind::Fanout,
        arguments: words(&format!(
            "fanout --bytes 128 --connections 1000 --burst {burst}"
        )),
    });
    let idles = [
        (Kind::Idle, "echo", "/echo"),
        (Kind::IdleRelay, "relay", "/ws"),
    ]
    .map(|(kind, mount, path)| Scenario {
        name: format!("idle, {idle_connections} connections, {mount} mount"),
        kind,
        arguments: words(&format!(
            "idle --connections {idle_connections} --path {path}"
        )),
    });
    echoes.into_iter().chain(fanouts).chain(idles).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
