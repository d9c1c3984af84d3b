//! Clients of a partition that go on through its lives: what they ask, what they are answered as a
//! history of calls, and what each must see: messages in their order, a seq with one payload for ever.
//! Knows no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tidegate::auth::Rights;
use tidegate::broker::durable::{Caller, Command, NewMessage, Open, Peer, Request, TopicRef};
use tidegate::id::{HomedId, Seq, Tenant};
use tidegate::log::Retention;

use super::Random;
use super::linearizable::Call;
use super::topic_model::{Op, Published};

/// Topics by number; the last ones are bounded.
pub(crate) const TOPICS: usize = 4;
/// The topic that keeps so many messages.
pub(crate) const KEPT_MESSAGES: u64 = 12;
const BY_COUNT: usize = 2;
const BY_AGE: usize = 3;
const SUBS: u64 = 2;
const CLIENTS: usize = 3;
/// Calls of one client under way.
const CALLS_MAX: usize = 2;

/// What the clients must put up with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Stored bytes may be unreadable, so that gaps come.
    pub(crate) is_damaging: bool,
    /// Clocks jump, so that keys and ages end early.
    pub(crate) is_jumping: bool,
    /// Appends may fail.
    pub(crate) is_failing: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) connection: u64,
    pub(crate) calls: usize,
    pub(crate) bindings: BTreeMap<(HomedId, u32), Binding>,
    /// Publishes that nobody answered: a client that comes back sends them again.
    pub(crate) again: Vec<(usize, u32, u32)>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding {
    pub(crate) topic: usize,
    pub(crate) subscription: HomedId,
    pub(crate) next: Seq,
    /// Nothing has come yet.
    pub(crate) is_new: bool,
}

/// A call under way or over.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) topic: usize,
    pub(crate) client: usize,
    pub(crate) connection: u64,
    pub(crate) op: Op,
    pub(crate) from: u64,
    pub(crate) to: Option<u64>,
    pub(crate) is_answered: bool,
    /// What was answered says nothing of the topic.
    pub(crate) is_void: bool,
}

/// All clients, and what they know together.
pub(crate) struct Clients {
    pub(crate) clients: Vec<Client>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) weather: Weather,
    pub(crate) moment: u64,
    pub(crate) connections: u64,
    pub(crate) payloads: u32,
    pub(crate) keys: u32,
    /// What was acknowledged, delivered or read.
    pub(crate) truth: BTreeMap<(HomedId, Seq), u32>,
    /// How far acks and gaps have asked a cursor to move.
    pub(crate) moved: BTreeMap<(HomedId, u32), Seq>,
    /// The newest id of each topic, and its subscriptions.
    pub(crate) ids: [Option<HomedId>; TOPICS],
    /// All ids that each topic has had.
    pub(crate) made: [BTreeSet<HomedId>; TOPICS],
    pub(crate) subscriptions: BTreeMap<(usize, u32), HomedId>,
    /// Topics whose messages may go: they are bounded, or their end was asked for.
    pub(crate) passing: BTreeSet<HomedId>,
    pub(crate) delivered: u64,
}

fn name(topic: usize) -> Arc<str> {
    format!("topic {topic}").into()
}

fn sub_name(sub: u32) -> Arc<str> {
    format!("sub {sub}").into()
}

pub(crate) fn retention(topic: usize) -> Retention {
    match topic {
        BY_COUNT => Retention {
            messages_max: Some(KEPT_MESSAGES),
            ..Retention::default()
        },
        BY_AGE => Retention {
            age_ms_max: Some(60_000),
            ..Retention::default()
        },
        _ => Retention::default(),
    }
}

impl Clients {
    pub(crate) fn new(weather: Weather) -> Self {
        let mut clients = Self {
            clients: Vec::new(),
            asked: Vec::new(),
            weather,
            moment: 0,
            connections: 0,
            payloads: 0,
            keys: 0,
            truth: BTreeMap::new(),
            moved: BTreeMap::new(),
            ids: [None; TOPICS],
            made: Default::default(),
            subscriptions: BTreeMap::new(),
            passing: BTreeSet::new(),
            delivered: 0,
        };
        clients.clients.resize_with(CLIENTS, Client::default);
        clients
    }

    pub(crate) fn now(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// All connections are new: after a start.
    pub(crate) fn connect_all(&mut self) -> Vec<Request> {
        (0..CLIENTS).map(|client| self.connect(client)).collect()
    }

    fn connect(&mut self, client: usize) -> Request {
        self.connections += 1;
        let client = &mut self.clients[client];
        client.connection = self.connections;
        client.bindings.clear();
        client.calls = 0;
        let bytes = 1 << 40;
        request(client.connection, None, Command::Credit { bytes })
    }

    /// The partition is gone: what was not answered has happened by now or never will have.
    pub(crate) fn lose_all(&mut self) {
        let now = self.now();
        for asked in self.asked.iter_mut().filter(|asked| asked.to.is_none()) {
            asked.to = Some(now);
            if let Op::Publish {
                payloads,
                key: Some(key),
                ..
            } = &asked.op
            {
                let again = (asked.topic, payloads[0], *key);
                self.clients[asked.client].again.push(again);
            }
        }
        for client in &mut self.clients {
            client.bindings.clear();
        }
    }

    /// What some client asks for now, if one is not busy.
    pub(crate) fn ask(&mut self, random: &mut Random) -> Vec<Request> {
        let client = random.index(CLIENTS);
        if CALLS_MAX <= self.clients[client].calls {
            return Vec::new();
        }
        let topic = random.index(TOPICS);
        let sub = u32::try_from(random.below(SUBS)).unwrap();
        match random.below(40) {
            0..=4 => self.resolve(client, topic),
            5 if random.one_in(3) => self.delete(client, topic),
            6 => self.delete_subscription(client, (topic, sub)),
            7 if random.one_in(4) => self.reconnect(client),
            8..=12 => self.subscribe(client, (topic, sub), random.one_in(2)),
            13..=19 => self.ack(client, random),
            20..=22 => self.read(client, topic),
            _ => self.publish(client, topic, random),
        }
    }

    fn call(&mut self, client: usize, topic: usize, op: Op, command: Command) -> Vec<Request> {
        let from = self.now();
        let connection = self.clients[client].connection;
        self.clients[client].calls += 1;
        let reference = self.asked.len();
        self.asked.push(Asked {
            topic,
            client,
            connection,
            op,
            from,
            to: None,
            is_answered: false,
            is_void: false,
        });
        vec![request(connection, Some(reference), command)]
    }

    fn reconnect(&mut self, client: usize) -> Vec<Request> {
        let gone = request(self.clients[client].connection, None, Command::Disconnect);
        vec![gone, self.connect(client)]
    }

    fn resolve(&mut self, client: usize, topic: usize) -> Vec<Request> {
        let (name, retention) = (name(topic), retention(topic));
        let command = Command::ResolveTopic { name, retention };
        self.call(client, topic, Op::Resolve(None), command)
    }

    fn delete(&mut self, client: usize, topic: usize) -> Vec<Request> {
        self.passing.extend(self.made[topic].iter());
        let command = Command::DeleteTopic {
            topic: TopicRef::Name(name(topic)),
        };
        self.call(client, topic, Op::Delete, command)
    }

    fn delete_subscription(&mut self, client: usize, at: (usize, u32)) -> Vec<Request> {
        let Some(&subscription) = self.subscriptions.get(&at) else {
            return Vec::new();
        };
        let (topic, sub) = at;
        let op = Op::DeleteSubscription {
            sub,
            id: subscription,
        };
        self.call(
            client,
            topic,
            op,
            Command::DeleteSubscription { subscription },
        )
    }

    fn subscribe(
        &mut self,
        client: usize,
        (topic, sub): (usize, u32),
        is_from_start: bool,
    ) -> Vec<Request> {
        let connection = self.clients[client].connection;
        let op = Op::Subscribe {
            sub,
            connection,
            is_from_start,
            is_passing: retention(topic).is_bounded(),
            told: None,
            asked: 0,
        };
        let open = Open {
            from_seq: is_from_start.then_some(0),
            ..Open::default()
        };
        let command = Command::Subscribe {
            topic: TopicRef::Name(name(topic)),
            sub_name: sub_name(sub),
            maker: "svc".into(),
            open,
        };
        self.call(client, topic, op, command)
    }

    fn ack(&mut self, client: usize, random: &mut Random) -> Vec<Request> {
        let bindings = &self.clients[client].bindings;
        if bindings.is_empty() {
            return Vec::new();
        }
        let at = random.index(bindings.len());
        let (&(topic, sub), binding) = bindings.iter().nth(at).unwrap();
        let (number, seq) = (binding.topic, binding.next - 1);
        if seq == 0 {
            return Vec::new();
        }
        let moved = self.moved.entry((topic, sub)).or_default();
        *moved = seq.max(*moved);
        let connection = self.clients[client].connection;
        let command = Command::Ack {
            topic: TopicRef::Id(topic),
            sub_name: sub_name(sub),
            seq,
        };
        if random.one_in(3) {
            // Nobody waits for it.
            return vec![request(connection, None, command)];
        }
        let op = Op::Ack {
            sub,
            connection,
            seq,
            told: None,
        };
        self.call(client, number, op, command)
    }

    /// All that a topic keeps; a page is as large as its limit says.
    pub(crate) fn read(&mut self, client: usize, topic: usize) -> Vec<Request> {
        let Some(id) = self.ids[topic] else {
            return Vec::new();
        };
        let op = Op::Read {
            id,
            messages: Vec::new(),
            gaps: Vec::new(),
            last: 0,
            kept_min: kept_min(topic),
        };
        let command = Command::ReadMessages {
            topic: TopicRef::Name(name(topic)),
            from_seq: 0,
            limit: 1_000_000,
        };
        self.call(client, topic, op, command)
    }

    fn publish(&mut self, client: usize, topic: usize, random: &mut Random) -> Vec<Request> {
        if let Some((topic, payload, key)) = self.clients[client].again.pop() {
            return self.send(client, topic, (vec![payload], Some(key)));
        }
        if random.one_in(8)
            && let Some((topic, payload, key)) = self.sent_before(random)
        {
            return self.send(client, topic, (vec![payload], Some(key)));
        }
        let count = if random.one_in(6) { 3 } else { 1 };
        let key = match (count, random.below(6)) {
            (1, 0..=2) => {
                self.keys += 1;
                Some(self.keys)
            }
            // Again a key that was used, mostly for another payload.
            (1, 3) if 0 < self.keys => {
                Some(1 + u32::try_from(random.index(self.keys as usize)).unwrap())
            }
            _ => None,
        };
        let payloads = (0..count)
            .map(|_| {
                self.payloads += 1;
                self.payloads
            })
            .collect();
        self.send(client, topic, (payloads, key))
    }

    /// One of the last publishes with a key, which a client may send again although it was answered.
    fn sent_before(&self, random: &mut Random) -> Option<(usize, u32, u32)> {
        let keyed = self.asked.iter().rev().filter_map(|asked| match &asked.op {
            Op::Publish {
                payloads,
                key: Some(key),
                ..
            } => Some((asked.topic, payloads[0], *key)),
            _ => None,
        });
        keyed.take(8).nth(random.index(8))
    }

    fn send(
        &mut self,
        client: usize,
        topic: usize,
        (payloads, key): (Vec<u32>, Option<u32>),
    ) -> Vec<Request> {
        let messages = payloads.iter().map(|payload| NewMessage {
            payload: payload_of(*payload),
            idempotency_key: key.map(|key| format!("key {key}").into()),
        });
        let command = Command::Publish {
            topic: TopicRef::Name(name(topic)),
            publisher: "svc".into(),
            messages: messages.collect(),
        };
        let may_forget = self.weather.is_jumping || retention(topic).is_bounded();
        let op = Op::Publish {
            payloads,
            key,
            told: None,
            may_forget,
        };
        self.call(client, topic, op, command)
    }

    /// The history of each topic, when nothing is under way any more.
    pub(crate) fn histories(&mut self) -> Vec<Vec<Call<Op>>> {
        let now = self.now();
        let mut histories = vec![Vec::new(); TOPICS];
        let mut seen: BTreeMap<u32, (HomedId, Seq)> = BTreeMap::new();
        for (at, payload) in &self.truth {
            seen.insert(*payload, *at);
        }
        let mut sent: BTreeMap<u32, u32> = BTreeMap::new();
        for asked in &self.asked {
            if let Op::Publish { payloads, .. } = &asked.op {
                *sent.entry(payloads[0]).or_default() += 1;
            }
        }
        // Who sent something twice does not know which of the two is there.
        seen.retain(|payload, _| sent.get(payload).is_none_or(|count| *count == 1));
        for asked in self.asked.iter().filter(|asked| !asked.is_void) {
            let op = asked.op.clone();
            let found = found_out(&op, &seen).filter(|_| !asked.is_answered);
            histories[asked.topic].push(Call {
                is_answered: asked.is_answered || found.is_some(),
                op: found.unwrap_or(op),
                from: asked.from,
                to: asked.to.unwrap_or(now),
            });
        }
        histories
    }

    /// What was acknowledged or delivered of topics that keep everything and whose end nobody asked for.
    pub(crate) fn kept(&self) -> BTreeMap<HomedId, BTreeMap<Seq, u32>> {
        let mut kept: BTreeMap<HomedId, BTreeMap<Seq, u32>> = BTreeMap::new();
        for ((topic, seq), payload) in &self.truth {
            if !self.passing.contains(topic) {
                kept.entry(*topic).or_default().insert(*seq, *payload);
            }
        }
        kept
    }

    /// Of topics that nobody looks after nobody knows how far they go after a loss.
    pub(crate) fn forget_passing(&mut self) {
        let passing = &self.passing;
        self.truth.retain(|(known, _), _| !passing.contains(known));
    }

    /// The log has told by its epoch that it does not know whose records were lost.
    pub(crate) fn forget_behind(&mut self, topic: HomedId, last: Seq) {
        self.truth
            .retain(|(known, seq), _| *known != topic || *seq <= last);
    }

    /// Calls that are not answered yet.
    pub(crate) fn waiting(&self) -> usize {
        let waits = |asked: &&Asked| asked.to.is_none();
        self.asked.iter().filter(waits).count()
    }
}

/// A publish that nobody answered and of which a message was seen later: it has happened.
fn found_out(op: &Op, seen: &BTreeMap<u32, (HomedId, Seq)>) -> Option<Op> {
    let Op::Publish {
        payloads,
        key,
        may_forget,
        ..
    } = op
    else {
        return None;
    };
    let mut found = (0..).zip(payloads).filter_map(|(at, payload)| {
        let (id, seq) = seen.get(payload)?;
        Some((*id, seq - at))
    });
    let (id, first) = found.next()?;
    Some(Op::Publish {
        payloads: payloads.clone(),
        key: *key,
        told: Some(Published {
            id,
            first,
            is_repeat: false,
        }),
        may_forget: *may_forget,
    })
}

/// As many messages as the topic keeps at least, if it is bounded.
fn kept_min(topic: usize) -> Option<Seq> {
    match topic {
        BY_COUNT => Some(KEPT_MESSAGES),
        BY_AGE => Some(0),
        _ => None,
    }
}

fn request(connection: u64, reference: Option<usize>, command: Command) -> Request {
    let caller = Caller {
        tenant: Tenant::default(),
        rights: Rights::everything(),
        peer: Peer {
            shard: 0,
            key: connection,
        },
        reference: reference.map(|reference| reference.to_string().into()),
    };
    Request { caller, command }
}

/// The same for ever, of a length of its own.
fn payload_of(payload: u32) -> Bytes {
    let mut random = Random::new(u64::from(payload));
    let bytes = match random.below(20) {
        0 => random.index(5_000),
        _ => random.index(300),
    };
    let mut text = format!("{payload}:");
    text.extend(std::iter::repeat_n('x', bytes));
    text.into()
}
