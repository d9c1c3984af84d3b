//! Durable requests of one connection that come in one segment, with the homes of their topics here
//! and elsewhere: each is answered once, under its `ref`, the answers about a topic come in the
//! order of the requests, and the last one holds. Knows a model of what the answers mean; nothing
//! of shards.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::durable::{Durable, serve};
use crate::harness::wire::{frame, upgrade_request};
use crate::harness::{Opcode, Site, Wire, on_shards, token};

/// One request about a topic, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Subscribe(usize),
    Unsubscribe(usize),
    Ack(usize),
    Publish(usize),
}

const KINDS: [fn(usize) -> Ask; 4] = [Ask::Subscribe, Ask::Unsubscribe, Ask::Ack, Ask::Publish];

impl Ask {
    fn topic(self) -> usize {
        match self {
            Self::Subscribe(topic) | Self::Unsubscribe(topic) => topic,
            Self::Ack(topic) | Self::Publish(topic) => topic,
        }
    }

    fn text(self, ids: &[String], sub_name: &str, reference: usize) -> String {
        let id = &ids[self.topic()];
        let (kind, more) = match self {
            Self::Subscribe(_) => ("subscribe", format!(r#","sub_name":"{sub_name}""#)),
            Self::Unsubscribe(_) => ("unsubscribe", format!(r#","sub_name":"{sub_name}""#)),
            Self::Ack(_) => ("ack", format!(r#","sub_name":"{sub_name}","seq":0"#)),
            Self::Publish(_) => ("publish", r#","payload":1"#.to_owned()),
        };
        format!(r#"{{"type":"{kind}","topic":"{id}"{more},"ref":{reference}}}"#)
    }
}

/// What the answer to a request is called, given what is held.
fn answer(held: &mut BTreeSet<usize>, ask: Ask) -> &'static str {
    match ask {
        Ask::Subscribe(topic) => {
            held.insert(topic);
            "subscribed"
        }
        Ask::Unsubscribe(topic) if held.remove(&topic) => "unsubscribed",
        Ask::Ack(topic) if held.contains(&topic) => "acked",
        Ask::Unsubscribe(_) | Ask::Ack(_) => "not_subscribed",
        Ask::Publish(_) => "pub_ack",
    }
}

fn connect(site: &Site) -> Wire {
    let mut wire = Wire::connect(site.address);
    let protocol = "Sec-WebSocket-Protocol: tidegate.durable.v1";
    let target = format!("/v1/ws?token={}", token("demo", "svc"));
    wire.write(upgrade_request(&target, &[protocol]));
    let head = wire.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    wire
}

fn next(wire: &mut Wire) -> Value {
    let (opcode, payload) = wire.read_frame();
    assert_eq!(opcode, Opcode::TEXT);
    serde_json::from_slice(&payload).unwrap()
}

/// Sends all of `asks` in one segment, and a ping behind them once all are answered. Returns the
/// names of the answers by `ref`, and the `ref`s in the order in which they came.
fn exchange(
    wire: &mut Wire,
    (ids, sub_name): (&[String], &str),
    asks: &[Ask],
    what: &str,
) -> (BTreeMap<usize, Vec<String>>, Vec<usize>) {
    let texts = asks.iter().enumerate();
    let texts = texts.map(|(reference, ask)| ask.text(ids, sub_name, reference));
    let frames = texts.flat_map(|text| frame(true, Opcode::TEXT, text.as_bytes()));
    wire.write(frames.collect::<Vec<_>>());
    let (mut found, mut order) = (BTreeMap::<usize, Vec<String>>::new(), Vec::new());
    while order.len() < asks.len() {
        let told = next(wire);
        if told["type"] == "message" {
            continue;
        }
        let kind = match told["type"].as_str() {
            Some("error") => &told["code"],
            _ => &told["type"],
        };
        let reference = told["ref"].as_u64();
        let reference = reference.unwrap_or_else(|| panic!("{what}: no ref in {told}"));
        let reference = usize::try_from(reference).unwrap();
        found
            .entry(reference)
            .or_default()
            .push(kind.as_str().unwrap().to_owned());
        order.push(reference);
    }
    (found, order)
}

/// Runs `first`, then `then` in one segment, and compares with the model.
fn run(site: &Site, ids: &[String], sub_name: &str, first: &[Ask], then: &[Ask]) {
    let what = format!("{sub_name}: {first:?} then {then:?}");
    let mut wire = connect(site);
    let mut held = BTreeSet::new();
    for asks in [first, then] {
        let expected = asks.iter().enumerate();
        let expected: BTreeMap<_, _> = expected
            .map(|(at, ask)| (at, vec![answer(&mut held, *ask).to_owned()]))
            .collect();
        let (found, order) = exchange(&mut wire, (ids, sub_name), asks, &what);
        assert_eq!(found, expected, "{what}");
        for topic in 0..ids.len() {
            let binds = |at: &&usize| {
                let ask = asks[**at];
                ask.topic() == topic && matches!(ask, Ask::Subscribe(_) | Ask::Unsubscribe(_))
            };
            let order: Vec<_> = order.iter().filter(binds).collect();
            assert!(order.is_sorted(), "{what}: {order:?}");
        }
    }
    // An ack of nothing new says who is bound.
    for topic in 0..ids.len() {
        let look = Ask::Ack(topic);
        let (found, _) = exchange(&mut wire, (ids, sub_name), &[look], &what);
        assert_eq!(found[&0], [answer(&mut held, look)], "{what}: {topic}");
    }
}

fn topics(site: &Site) -> Vec<String> {
    (0..4)
        .map(|topic| site.topic("demo", &format!("t{topic}")))
        .collect()
}

on_shards! {
    /// S9, D-37: every pair, about one topic and about two, subscribed, known or new
    fn each_pair_is_answered(shards) {
        let (_data, site) = serve(shards);
        let ids = topics(&site);
        let mut count = 0;
        let mut name = || {
            count += 1;
            format!("s{count}")
        };
        for topic in 0..ids.len() {
            let pairs = KINDS.iter().flat_map(|one| KINDS.iter().map(move |two| (one, two)));
            for (one, two) in pairs {
                for other in [topic, (topic + 1) % ids.len()] {
                    let pair = [one(topic), two(other)];
                    run(&site, &ids, &name(), &[], &pair);
                    run(&site, &ids, &name(), &[Ask::Subscribe(topic)], &pair);
                    let known = name();
                    run(&site, &ids, &known, &[Ask::Subscribe(topic)], &[Ask::Unsubscribe(topic)]);
                    run(&site, &ids, &known, &[], &pair);
                }
            }
        }
    }

    /// S9, D-37: every row of four about one topic that is new
    fn each_row_of_four_is_answered(shards) {
        let (_data, site) = serve(shards);
        let ids = topics(&site);
        for number in 0..KINDS.len().pow(4) {
            let topic = number % ids.len();
            let kind = |at: u32| KINDS[number / KINDS.len().pow(at) % KINDS.len()](topic);
            let row = [0, 1, 2, 3].map(kind);
            run(&site, &ids, &format!("r{number}"), &[], &row);
        }
    }
}
