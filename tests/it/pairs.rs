//! Requests of one connection that come in one segment, with the homes of their topics here and
//! elsewhere: each is answered, the answers about a topic come in the order of the requests, and
//! the last one holds. Knows a model of what the answers mean; nothing of shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tidegate::{CurrentUser, Error, Relay, RelayEvent, Result, State};

use crate::harness::wire::{frame, upgrade_request};
use crate::harness::{Opcode, Plan, Site, Wire, eventually, on_shards, token, wait};

/// One request to a topic, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Subscribe(usize),
    Unsubscribe(usize),
    Message(usize),
    /// A message whose event is too long.
    Long(usize),
}

impl Ask {
    fn topic(self) -> usize {
        match self {
            Self::Subscribe(topic) | Self::Unsubscribe(topic) => topic,
            Self::Message(topic) | Self::Long(topic) => topic,
        }
    }

    fn text(self, prefix: &str) -> String {
        let (kind, more) = match self {
            Self::Subscribe(_) => ("subscribe", String::new()),
            Self::Unsubscribe(_) => ("unsubscribe", String::new()),
            Self::Message(_) => ("message", r#","event":"e","payload":1"#.to_owned()),
            Self::Long(_) => {
                let event = "e".repeat(300);
                ("message", format!(r#","event":"{event}","payload":1"#))
            }
        };
        let topic = self.topic();
        format!(r#"{{"type":"{kind}","topic":"{prefix}{topic}"{more}}}"#)
    }
}

/// What each answer means for one connection.
struct Model {
    held: BTreeSet<usize>,
    limit: usize,
}

impl Model {
    /// What the answer to a request is called.
    fn answer(&mut self, ask: Ask) -> &'static str {
        match ask {
            Ask::Subscribe(topic) if self.held.contains(&topic) => "subscribed",
            Ask::Subscribe(_) if self.limit <= self.held.len() => "subscription_limit",
            Ask::Subscribe(topic) => {
                self.held.insert(topic);
                "subscribed"
            }
            Ask::Unsubscribe(topic) => {
                self.held.remove(&topic);
                "unsubscribed"
            }
            Ask::Message(topic) | Ask::Long(topic) if !self.held.contains(&topic) => {
                "not_subscribed"
            }
            Ask::Message(_) => "push",
            Ask::Long(_) => "invalid_message",
        }
    }
}

fn connect(site: &Site, sub: &str) -> Wire {
    let mut wire = Wire::connect(site.address);
    let protocol = "Sec-WebSocket-Protocol: tidegate.relay.v1";
    let target = format!("/ws?token={}", token("demo", sub));
    wire.write(upgrade_request(&target, &[protocol]));
    let head = wire.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    wire
}

fn send_all(wire: &mut Wire, texts: impl Iterator<Item = String>) {
    let frames = texts.flat_map(|text| frame(true, Opcode::TEXT, text.as_bytes()));
    wire.write(frames.collect::<Vec<_>>());
}

fn next(wire: &mut Wire) -> Value {
    let (opcode, payload) = wire.read_frame();
    assert_eq!(opcode, Opcode::TEXT);
    serde_json::from_slice(&payload).unwrap()
}

/// What an answer is called: its type, or the code of an error.
fn name_of(answer: &Value) -> String {
    let kind = match answer["type"].as_str() {
        Some("error") => &answer["code"],
        _ => &answer["type"],
    };
    kind.as_str().unwrap().to_owned()
}

const TOPICS: usize = 6;

/// Sends `first`, waits for its answers, then sends `then` in one segment, and compares all answers
/// and what is left with the model.
fn run(site: &Site, limit: usize, first: &[Ask], then: &[Ask]) {
    let what = format!("{first:?} then {then:?} with a limit of {limit}");
    let mut wire = connect(site, "ada");
    let mut model = Model {
        held: BTreeSet::new(),
        limit,
    };
    for asks in [first, then] {
        let mut expected = BTreeMap::<usize, Vec<&str>>::new();
        for ask in asks {
            let answer = model.answer(*ask);
            expected.entry(ask.topic()).or_default().push(answer);
        }
        send_all(&mut wire, asks.iter().map(|ask| ask.text("t")));
        let mut found = BTreeMap::<usize, Vec<String>>::new();
        for _ in asks {
            let answer = next(&mut wire);
            let topic = answer["topic"]
                .as_str()
                .unwrap_or_else(|| panic!("{what}: {answer}"));
            let topic = topic.strip_prefix('t').unwrap().parse().unwrap();
            found.entry(topic).or_default().push(name_of(&answer));
        }
        let found = found
            .iter()
            .map(|(topic, names)| (*topic, names.iter().map(String::as_str).collect()))
            .collect::<BTreeMap<_, Vec<_>>>();
        assert_eq!(found, expected, "{what}");
    }
    look(site, &mut wire, &mut model, &what);
    drop(wire);
    for topic in 0..TOPICS {
        site.await_presence("demo", &format!("t{topic}"), 0);
    }
}

/// What the model says is so: who is present, what is pushed, and how many subscriptions fit.
fn look(site: &Site, wire: &mut Wire, model: &mut Model, what: &str) {
    let relay = site.relay("demo");
    for topic in 0..TOPICS {
        let name = format!("t{topic}");
        let present = wait(relay.presence_count(&name)).unwrap();
        assert_eq!(
            present,
            usize::from(model.held.contains(&topic)),
            "{what}: {name}"
        );
        wait(relay.push(&name, "mark", &topic)).unwrap();
        // The home answers behind the push.
        wait(relay.presence_count(&name)).unwrap();
    }
    let mut marks = BTreeSet::new();
    while marks.len() < model.held.len() {
        let push = next(wire);
        assert_eq!(push["event"], "mark", "{what}: {push}");
        marks.insert(usize::try_from(push["payload"].as_u64().unwrap()).unwrap());
    }
    assert_eq!(marks, model.held, "{what}");
    // What is left of the limit can be taken, and nothing else was pushed before.
    let others = (0..TOPICS).filter(|topic| !marks.contains(topic));
    for ask in others.map(Ask::Subscribe).collect::<Vec<_>>() {
        let answer = model.answer(ask);
        send_all(wire, [ask.text("t")].into_iter());
        assert_eq!(name_of(&next(wire)), answer, "{what}: {ask:?}");
    }
}

const KINDS: [fn(usize) -> Ask; 4] = [Ask::Subscribe, Ask::Unsubscribe, Ask::Message, Ask::Long];

/// Numbers that look like chance, from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

on_shards! {
    /// S1: every pair, about one topic and about two, subscribed or not
    fn each_pair_means_what_it_says(shards) {
        for limit in [1, 50] {
            let site = Plan::new(shards)
                .config(move |config| {
                    config.relay.as_mut().unwrap().max_subscriptions_per_connection = limit;
                })
                .start();
            for topic in 0..5 {
                for (one, two) in KINDS.iter().flat_map(|one| KINDS.iter().map(move |two| (one, two))) {
                    for other in [topic, topic + 1] {
                        run(&site, limit, &[], &[one(topic), two(other)]);
                        run(&site, limit, &[Ask::Subscribe(topic)], &[one(topic), two(other)]);
                    }
                }
            }
        }
    }

    /// S1: long rows of requests in one segment
    fn each_row_means_what_it_says(shards) {
        let site = Plan::new(shards)
            .config(|config| config.relay.as_mut().unwrap().max_subscriptions_per_connection = 3)
            .start();
        for seed in 0..40 {
            let mut dice = Dice(seed);
            let mut row = || {
                let length = 2 + dice.roll(40);
                (0..length).map(|_| KINDS[dice.roll(4)](dice.roll(TOPICS))).collect::<Vec<_>>()
            };
            let (first, then) = (row(), row());
            run(&site, 3, &first, &then);
        }
    }

    /// S1: thousands of topics come and go within the limit, and none is left
    fn topics_that_come_and_go_leave_nothing(shards) {
        let site = Plan::new(shards).start();
        let mut wire = connect(&site, "ada");
        for batch in 0..10 {
            let asks = (0..200).flat_map(|number| {
                let topic = batch * 200 + number;
                [Ask::Subscribe(topic), Ask::Unsubscribe(topic)]
            });
            let asks = asks.collect::<Vec<_>>();
            send_all(&mut wire, asks.iter().map(|ask| ask.text("t")));
            let mut last = BTreeMap::new();
            for _ in &asks {
                let answer = next(&mut wire);
                last.insert(answer["topic"].as_str().unwrap().to_owned(), name_of(&answer));
            }
            assert_eq!(last.len(), 200);
            assert!(last.values().all(|name| name == "unsubscribed"), "{last:?}");
        }
        eventually("no topic is left", || {
            site.server().metrics().sum(tidegate::metrics::Gauge::RelayTopics) == 0
        });
    }

    /// S1, D-17, D-18: with handlers that take their time, every join that was let in has its leave
    fn handlers_see_each_join_and_leave(shards) {
        let (joins, leaves) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let site = Plan::new(shards)
            .provide(Counts { joins: Arc::clone(&joins), leaves: Arc::clone(&leaves) })
            .relay("slow:*", slow)
            .relay("no:*", refuse)
            .start();
        for seed in 0..40 {
            let mut dice = Dice(seed);
            let length = 2 + dice.roll(12);
            let asks = (0..length).map(|_| KINDS[dice.roll(2)](dice.roll(2))).collect::<Vec<_>>();
            for prefix in ["slow:", "no:"] {
                run_handled(&site, prefix, &asks);
            }
        }
        eventually("every join has its leave", || {
            joins.load(Ordering::SeqCst) == leaves.load(Ordering::SeqCst)
        });
        assert!(0 < joins.load(Ordering::SeqCst));
        eventually("no topic is left", || {
            site.server().metrics().sum(tidegate::metrics::Gauge::RelayTopics) == 0
        });
    }
}

#[derive(Clone)]
struct Counts {
    joins: Arc<AtomicUsize>,
    leaves: Arc<AtomicUsize>,
}

async fn slow(
    event: RelayEvent,
    relay: Relay,
    user: CurrentUser,
    State(counts): State<Counts>,
) -> Result<()> {
    tokio::task::yield_now().await;
    match &event {
        RelayEvent::Join { topic, conn_id } => {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            relay
                .track(topic, *conn_id, json!({ "user": user.id }))
                .await?;
            counts.joins.fetch_add(1, Ordering::SeqCst);
        }
        RelayEvent::Leave { .. } => {
            counts.leaves.fetch_add(1, Ordering::SeqCst);
        }
        RelayEvent::Message {
            topic,
            event,
            payload,
            ..
        } => relay.push(topic, event, payload).await?,
    }
    Ok(())
}

async fn refuse(event: RelayEvent) -> Result<()> {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    match event {
        RelayEvent::Join { .. } => Err(Error::msg("members only")),
        _ => panic!("who was refused has neither messages nor a leave"),
    }
}

/// Where a handler decides, a subscribe that is taken back before that has no answer of its own;
/// but the last answer about a topic holds.
fn run_handled(site: &Site, prefix: &str, asks: &[Ask]) {
    let what = format!("{prefix} {asks:?}");
    let mut wire = connect(site, "ada");
    let mut wanted = BTreeMap::new();
    for ask in asks {
        let answer = match ask {
            Ask::Subscribe(_) if prefix == "no:" => ("join_rejected", "not_subscribed"),
            Ask::Subscribe(_) => ("subscribed", "push"),
            _ => ("unsubscribed", "not_subscribed"),
        };
        wanted.insert(ask.topic(), answer);
    }
    // A message is answered behind everything that was asked before, so it shows what holds.
    let looks = wanted.keys().map(|topic| Ask::Message(*topic));
    let all = asks.iter().copied().chain(looks);
    send_all(&mut wire, all.map(|ask| ask.text(prefix)));
    let (mut last, mut seen) = (BTreeMap::new(), BTreeMap::new());
    while seen.len() < wanted.len() {
        let answer = next(&mut wire);
        let topic = answer["topic"]
            .as_str()
            .unwrap_or_else(|| panic!("{what}: {answer}"));
        let topic = topic
            .strip_prefix(prefix)
            .unwrap()
            .parse::<usize>()
            .unwrap();
        let name = name_of(&answer);
        match name.as_str() {
            "push" | "not_subscribed" => seen.insert(topic, name),
            _ => last.insert(topic, name),
        };
    }
    for (topic, (answer, look)) in &wanted {
        assert_eq!(
            (last[topic].as_str(), seen[topic].as_str()),
            (*answer, *look),
            "{what}"
        );
        let count = usize::from(*answer == "subscribed");
        site.await_presence("demo", &format!("{prefix}{topic}"), count);
    }
}
