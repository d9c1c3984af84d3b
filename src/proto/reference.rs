//! The wire reference: every frame of every dialect, written by the code that writes frames and
//! read by the code that reads them. Knows the forms, not what a server does with them.
#![doc = ""]
#![doc = include_str!("reference.md")]

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use super::durable::{self, MessageExtras, MessagePrefix, Subscribed};
use super::event::{self, ErrorData, Lagged};
use super::typed::{ErrorFrame, put_error, put_pong, put_token_expiring};
use super::{CloseCode, ErrorCode, relay};

/// A frame, and what it says.
type Row = (String, &'static str);

/// All of it as Markdown.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    section(&mut out, "Event", event::PROTOCOL, EVENT, &event_answers());
    section(&mut out, "Relay", relay::PROTOCOL, RELAY, &relay_answers());
    section(
        &mut out,
        "Durable",
        durable::PROTOCOL,
        DURABLE,
        &durable_answers(),
    );
    table(
        &mut out,
        "Codes of errors",
        "code",
        ErrorCode::ALL
            .iter()
            .map(|(code, means)| (code.as_str().to_owned(), *means)),
    );
    table(
        &mut out,
        "Close codes",
        "code",
        CloseCode::SENT
            .iter()
            .map(|(code, means)| (code.to_string(), *means))
            .chain([(
                "3000..4999".to_owned(),
                "whatever the program's handlers mean by it",
            )]),
    );
    out
}

fn section(
    out: &mut String,
    title: &str,
    protocol: &str,
    requests: &[(&str, &'static str)],
    answers: &[Row],
) {
    // A string takes every text.
    let _ = write!(out, "\n## {title}\n\nSubprotocol `{protocol}`.\n");
    let requests = requests
        .iter()
        .map(|(text, means)| ((*text).to_owned(), *means));
    table(out, &format!("{title}: from the client"), "frame", requests);
    table(
        out,
        &format!("{title}: from the server"),
        "frame",
        answers.iter().cloned(),
    );
}

fn table(out: &mut String, title: &str, what: &str, rows: impl Iterator<Item = Row>) {
    let _ = write!(
        out,
        "\n### {title}\n\n| {what} | what it says |\n|---|---|\n"
    );
    for (text, means) in rows {
        let _ = writeln!(out, "| `{text}` | {means} |");
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>), means: &'static str) -> Row {
    let mut out = Vec::new();
    write(&mut out);
    (String::from_utf8_lossy(&out).into_owned(), means)
}

const HEAD: &str = "\
# Wire reference

Every message is one WebSocket text message with one JSON object. Unknown fields are ignored. A
message that is not UTF-8 closes the connection with 1007. A client may name the subprotocol that
stands with each dialect; it need not. Payloads go through byte for byte.
";

/// What a client of a gateway sends.
const EVENT: &[(&str, &str)] = &[
    (
        r#"{"event":"chat","data":{"text":"hi"}}"#,
        "calls the handler of `chat`; without `data` it gets null",
    ),
    (
        r#"{"event":"chat","data":"hi","id":7}"#,
        "the same; the answer carries the `id`, a number or a string of at most 128 bytes",
    ),
    (
        r#"{"event":"$ping","data":null,"id":"$ping"}"#,
        "whether the server is there; it answers under the same event, with null",
    ),
];

fn event_answers() -> Vec<Row> {
    let error = |error| ErrorData {
        error,
        errors: None,
    };
    let rules = json!({"text": [{"code": "length", "message": null, "params": {"max": 20}}]});
    let invalid = ErrorData {
        errors: Some(&rules),
        ..error("invalid payload for `chat`: validation failed")
    };
    vec![
        envelope(
            ("chat", &json!({"text": "hi"}), None),
            "a reply, or what the server sends of its own accord",
        ),
        envelope(
            ("chat", &true, Some(b"7")),
            "the reply to a message with an `id`",
        ),
        envelope(
            ("chat", &error("forbidden"), None),
            "an error, under the event that failed",
        ),
        envelope(
            ("chat", &error("internal"), None),
            "the same where only the log may know why",
        ),
        envelope(
            ("chat", &invalid, Some(b"7")),
            "data that did not validate: by field, the rules that it breaks",
        ),
        envelope(
            ("nope", &error("unknown event `nope`"), None),
            "an event that has no handler",
        ),
        envelope(
            (event::ERROR_EVENT, &error("invalid envelope"), None),
            "a frame of no known shape",
        ),
        envelope(
            (event::LAGGED_EVENT, &Lagged { missed: 12 }, None),
            "so many frames were shed, because this client reads too slowly; only where the subprotocol was named",
        ),
    ]
}

/// An envelope as the gateways write it.
fn envelope((name, data, id): (&str, &impl Serialize, Option<&[u8]>), means: &'static str) -> Row {
    written(
        |out| {
            event::begin_envelope(out, name);
            // What stands here has JSON; it is read again by a test.
            serde_json::to_writer(&mut *out, data).unwrap_or_default();
            event::end_envelope(out, id);
        },
        means,
    )
}

/// What a client of the relay sends.
const RELAY: &[(&str, &str)] = &[
    (
        r#"{"type":"subscribe","topic":"room:1"}"#,
        "to get what is pushed there",
    ),
    (
        r#"{"type":"subscribe","topic":"room:1","presence":true,"last":true}"#,
        "the same, and to be told who is there, comes and goes, and the last push of before, where relay.keep_last keeps it",
    ),
    (
        r#"{"type":"unsubscribe","topic":"room:1"}"#,
        "not to get it any more",
    ),
    (
        r#"{"type":"message","topic":"room:1","event":"said","payload":{"text":"hi"}}"#,
        "to hand something to the topic's handler, or to everybody there; null without `payload`",
    ),
    (r#"{"type":"ping"}"#, "whether the server is there"),
    (
        r#"{"type":"auth","token":"JWT"}"#,
        "to go on with another token",
    ),
];

fn relay_answers() -> Vec<Row> {
    let mut rows = vec![
        written(
            |out| relay::put_subscribed(out, "room:1"),
            "the answer to `subscribe`",
        ),
        written(
            |out| relay::put_unsubscribed(out, "room:1"),
            "the answer to `unsubscribe`",
        ),
        written(
            |out| relay::put_push(out, "room:1", "said", br#"{"text":"hi"}"#),
            "what was pushed",
        ),
        written(
            |out| {
                let ada: &[u8] = br#"{"sub":"ada"}"#;
                let joined = [(7, ada)].into_iter();
                relay::put_presence(out, "room:1", joined, std::iter::empty());
            },
            "who has come and who has gone since the last such frame; the first names all who are there; to those who asked for it",
        ),
        written(
            |out| relay::put_lagged(out, "room:1", 12),
            "so many pushes were lost, because this client reads too slowly",
        ),
    ];
    rows.extend(shared_answers());
    rows
}

/// What the dialects with a `type` share.
fn shared_answers() -> Vec<Row> {
    let refusal = ErrorFrame {
        message: "not subscribed to room:1",
        code: Some(ErrorCode::NotSubscribed),
        topic: Some("room:1"),
        ..ErrorFrame::default()
    };
    vec![
        written(put_pong, "the answer to `ping`"),
        written(
            |out| put_token_expiring(out, 60),
            "the token ends in so many seconds: send `auth` with a new one",
        ),
        written(
            |out| put_error(out, &refusal),
            "a refusal; `code`, `topic`, `sub_name` and `ref` where there is one",
        ),
    ]
}

/// What a client of durable topics sends.
const DURABLE: &[(&str, &str)] = &[
    (
        r#"{"type":"subscribe","topic":"orders","sub_name":"billing"}"#,
        "to go on behind what `billing` has acked; a new one starts with what is published next",
    ),
    (
        r#"{"type":"subscribe","topic":"orders","sub_name":"billing","from_seq":1,"seek":true,"max_in_flight":64,"epoch":3,"ref":"a"}"#,
        "all that may be said: where a new one starts (an old one too with `seek`), how many may be un-acked, the life of the log that is remembered",
    ),
    (
        r#"{"type":"unsubscribe","topic":"orders","sub_name":"billing","ref":1}"#,
        "to get no more for now; the cursor stays",
    ),
    (
        r#"{"type":"publish","topic":"orders","payload":{"id":42.50},"idempotency_key":"o-1","ref":2}"#,
        "to store a message; the same key again is the same message",
    ),
    (
        r#"{"type":"ack","topic":"orders","sub_name":"billing","seq":7}"#,
        "everything up to 7 is done; answered only with a `ref`",
    ),
    (r#"{"type":"ping"}"#, "whether the server is there"),
    (
        r#"{"type":"auth","token":"JWT"}"#,
        "to go on with another token",
    ),
];

fn durable_answers() -> Vec<Row> {
    let subscribed = Subscribed {
        topic: TOPIC,
        sub_name: "billing",
        subscription_id: "01890a5d-ac96-7001-8aab-55a3f9b1f0aa",
        cursor: 7,
        next_seq: 8,
        first_seq: 1,
        last_seq: 9,
        epoch: 3,
        resumed: true,
        reference: Some(br#""a""#),
    };
    let prefix = MessagePrefix::new(TOPIC);
    let extras = MessageExtras {
        ts: Some(1_700_000_000_000),
        redelivered: true,
    };
    let mut rows = vec![
        written(
            |out| durable::put_subscribed(out, &subscribed),
            "the answer to `subscribe`; `ref` as it was sent, if it was",
        ),
        written(
            |out| durable::put_unsubscribed(out, TOPIC, "billing", None, Some(b"1")),
            "the answer to `unsubscribe`",
        ),
        written(
            |out| durable::put_unsubscribed(out, TOPIC, "billing", Some("deleted"), None),
            "the server ended it",
        ),
        written(
            |out| {
                durable::put_message(
                    out,
                    &prefix,
                    8,
                    br#"{"id":42.50}"#,
                    MessageExtras::default(),
                )
            },
            "a message",
        ),
        written(
            |out| durable::put_message(out, &prefix, 8, b"1", extras),
            "the same where the subprotocol was named: when it was stored, and whether it may have been sent before",
        ),
        written(
            |out| durable::put_pub_ack(out, TOPIC, 8, false, Some(b"2")),
            "the message is on the disk",
        ),
        written(
            |out| durable::put_pub_ack(out, TOPIC, 8, true, Some(b"2")),
            "it was there already, by its key",
        ),
        written(
            |out| durable::put_acked(out, TOPIC, "billing", 7, Some(b"3")),
            "the answer to an ack with a `ref`",
        ),
        written(
            |out| durable::put_gap(out, TOPIC, "billing", 3..=5, "retention"),
            "messages 3 to 5 are not there any more",
        ),
    ];
    rows.extend(shared_answers());
    rows
}

const TOPIC: &str = "01890a5d-ac96-7001-8aab-55a3f9b1f0bb";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::durable::DurableRequest;
    use super::super::json::JsonParser;
    use super::super::relay::RelayRequest;
    use super::super::ws::Payload;
    use super::*;

    /// What `read` makes of a text, by the name of its variant.
    fn variant(text: &str, read: impl Fn(&mut JsonParser, &mut Payload<'_>) -> String) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let len = bytes.len();
        read(
            &mut JsonParser::default(),
            &mut Payload::new(&mut bytes, len),
        )
    }

    fn is_written_here(name: &str, variants: &[String]) {
        assert!(
            variants.iter().any(|variant| variant == name),
            "no example of `{name}`"
        );
    }

    /// X-27: a new request is not forgotten here, or this does not compile.
    #[test]
    fn every_request_of_the_relay_has_an_example() {
        let name = |request: &RelayRequest<'_>| match request {
            RelayRequest::Subscribe { .. } => "subscribe",
            RelayRequest::Unsubscribe { .. } => "unsubscribe",
            RelayRequest::Message { .. } => "message",
            RelayRequest::Ping => "ping",
            RelayRequest::Auth { .. } => "auth",
        };
        let read = |parser: &mut JsonParser, payload: &mut Payload<'_>| {
            name(&relay::parse(parser, payload).unwrap()).to_owned()
        };
        let variants: Vec<_> = RELAY.iter().map(|(text, _)| variant(text, read)).collect();
        for wanted in ["subscribe", "unsubscribe", "message", "ping", "auth"] {
            is_written_here(wanted, &variants);
        }
    }

    /// B-09 to B-14
    #[test]
    fn every_request_of_durable_topics_has_an_example() {
        let name = |request: &DurableRequest<'_>| match request {
            DurableRequest::Subscribe(_) => "subscribe",
            DurableRequest::Unsubscribe { .. } => "unsubscribe",
            DurableRequest::Publish { .. } => "publish",
            DurableRequest::Ack { .. } => "ack",
            DurableRequest::Ping => "ping",
            DurableRequest::Auth { .. } => "auth",
        };
        let read = |parser: &mut JsonParser, payload: &mut Payload<'_>| {
            name(&durable::parse(parser, payload).unwrap()).to_owned()
        };
        let variants: Vec<_> = DURABLE
            .iter()
            .map(|(text, _)| variant(text, read))
            .collect();
        for wanted in ["subscribe", "unsubscribe", "publish", "ack", "ping", "auth"] {
            is_written_here(wanted, &variants);
        }
    }

    /// A-02
    #[test]
    fn examples_of_envelopes_are_envelopes_and_answers_are_json() {
        for (text, _) in EVENT {
            variant(text, |parser, payload| {
                event::parse(parser, payload).unwrap().event.to_owned()
            });
        }
        for rows in [event_answers(), relay_answers(), durable_answers()] {
            for (text, _) in rows {
                serde_json::from_str::<serde_json::Value>(&text).unwrap();
            }
        }
    }

    /// A5: the table has the codes that the sources send, and no others
    #[test]
    fn every_close_code_is_sent_and_every_sent_one_stands_here() {
        let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
        for file in ["shard", "gateway", "session", "proto/ws"]
            .iter()
            .flat_map(|of| sources(of))
        {
            let text = std::fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for line in code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
            {
                numbers.extend(
                    line.split(|c: char| !c.is_ascii_digit())
                        .filter_map(close_code),
                );
                let after = line.split("CloseCode::").skip(1);
                let word = |text: &str| {
                    text.split(|c: char| !c.is_alphanumeric())
                        .next()
                        .map(str::to_owned)
                };
                names.extend(after.filter_map(word));
            }
        }
        for (code, _) in CloseCode::SENT {
            let is_sent = numbers.contains(&code.get()) || names.contains(&format!("{code:?}"));
            assert!(is_sent, "{code} stands in the table and is never sent");
        }
        let known = |code: &u16| {
            CloseCode::SENT
                .iter()
                .any(|(known, _)| known.get() == *code)
        };
        let unknown: Vec<_> = numbers.iter().filter(|code| !known(code)).collect();
        assert!(unknown.is_empty(), "sent and not in the table: {unknown:?}");
    }

    fn sources(folder: &str) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![std::path::Path::new("src").join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true if !path.ends_with("tests") => folders.push(path),
                    false if !path.to_string_lossy().contains("test") => found.push(path),
                    _ => {}
                }
            }
        }
        found
    }

    /// Numbers that can only be meant as close codes: four digits that RFC 6455 gives a meaning.
    fn close_code(text: &str) -> Option<u16> {
        let number = text.parse().ok().filter(|_| text.len() == 4)?;
        matches!(number, 1001..=1002 | 1007..=1013 | 4400..=4499).then_some(number)
    }

    #[test]
    fn every_code_stands_once_and_has_a_name_of_its_own() {
        let names: BTreeSet<_> = ErrorCode::ALL
            .iter()
            .map(|(code, _)| code.as_str())
            .collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert!(
            ErrorCode::ALL
                .iter()
                .zip(0..)
                .all(|((code, _), place)| *code as usize == place)
        );
    }

    /// The page beside this file is what the code says now.
    #[test]
    fn the_page_is_as_the_code_has_it() {
        let page = include_str!("reference.md");
        assert!(
            page == reference(),
            "`cargo run -- wire > src/proto/reference.md` renews it"
        );
    }
}
