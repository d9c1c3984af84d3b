//! What is measured: the arguments for the load generator and what to read from its report.

/// What a contestant must be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Echo,
    Typed,
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
    let typed = [(100, 1), (100, 16)].map(|(connections, depth)| Scenario {
        name: format!("typed handler, 120 B, {connections} connections x depth {depth}"),
        kind: Kind::Typed,
        arguments: typed(connections, depth),
    });
    let echoes = echoes.into_iter().chain(typed);
    echoes.chain(fanouts).chain(idles).collect()
}

/// An event of 120 bytes whose typed reply has the same bytes.
fn typed(connections: u32, depth: u32) -> Vec<String> {
    let mut arguments = words(&format!(
        "echo --connections {connections} --depth {depth} --message"
    ));
    arguments.push(TYPED_MESSAGE.to_owned());
    arguments
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

const TYPED_MESSAGE: &str = concat!(
    r#"{"event":"message","data":{"author":"ada lovelace","text":"#,
    r#""good morning to everybody in the engine room, ada is here."}}"#
);

const _: () = assert!(TYPED_MESSAGE.len() == 120, "the event has 120 bytes");
