//! The command line as a person types it.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split(' '))
}

#[test]
fn the_command_line_is_sound() {
    Arguments::command().debug_assert();
}

/// C-24
#[test]
fn verbs_and_their_flags() {
    for good in [
        "tidegate token new --ns demo --sub svc",
        "tidegate token new --ns demo --sub svc --role admin --role ops --ttl 7d --claim a=[1]",
        "tidegate token check abc.def.ghi",
        "tidegate token check -",
        "tidegate pub topic-1 42.50 --key k --url http://127.0.0.1:4000",
        "tidegate pub topic-1 --text",
        "tidegate sub topic-1 --sub-name A --from 0 --seek --count 3 --no-ack",
        "tidegate sub topic-1 --no-reconnect",
        "tidegate sub topic-1 --reconnect-wait-max 5 --reconnect-attempts-max 3",
        "tidegate push room said {\"a\":1}",
        "tidegate topics --url http://127.0.0.1:4000",
        "tidegate subs --topic t --sub-name A",
        "tidegate presence room",
        "tidegate connections",
        "tidegate top --every 0.5",
        "tidegate shell completions bash",
        "tidegate shell man --dir man",
        "tidegate log verify data",
        "tidegate log inspect data",
        "tidegate log repair data",
        "tidegate log repair data --yes",
        "tidegate config init",
        "tidegate doctor --dev",
        "tidegate config init tidegate.toml --profile edge",
        "tidegate config check tidegate.toml --dev",
        "tidegate config show --profile edge --listen 127.0.0.1:0 --data /tmp/x --shards 2",
    ] {
        assert!(parse(good).is_ok(), "{good}: {}", parse(good).unwrap_err());
    }
    for bad in [
        "tidegate token new --ns a/b --sub svc",
        "tidegate token new --sub svc",
        "tidegate token new --ns demo --sub svc --ttl 0",
        "tidegate token new --ns demo --sub svc --ttl 1y",
        "tidegate token new --ns demo --sub svc --claim ns=other",
        "tidegate pub",
        "tidegate pub topic-1 --key k",
        "tidegate sub topic-1 --seek",
        "tidegate sub topic-1 --no-reconnect --reconnect-wait-max 5",
        "tidegate sub topic-1 --from -1",
        "tidegate log",
        "tidegate config show --profile egde",
        "tidegate config show --listen nowhere",
        "tidegate",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn causes_are_told_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);
    assert_eq!(
        with_causes(&Outer(std::io::Error::other("inner"))),
        "outer: inner"
    );
    assert_eq!(with_causes(&std::io::Error::other("inner")), "inner");
}
