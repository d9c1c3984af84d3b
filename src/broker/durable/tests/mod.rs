//! A home of durable topics on a simulated disk: appends wait until the test syncs, a crash loses
//! what was not synced, and a restart rebuilds the home from the records that are left.

mod topics;

mod publishing;

mod flow;

mod binding;

mod storage;

mod restoring;

mod model;

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;

use super::*;
use crate::log::{Class, key_fingerprint, payload_fingerprint};

pub(super) const EPOCH: u64 = 7;

/// The records of a log, of which the first `synced` survive a crash.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) records: Vec<Value>,
    synced: usize,
    ids: VecDeque<AppendId>,
    /// The log takes no publish and nothing else that needs new space.
    pub(super) full: bool,
    /// The log cannot say yet whether it has room.
    pub(super) busy: bool,
    /// Where retention has cut.
    trimmed: AHashMap<HomedId, Seq>,
    /// Through which seq the keys of a topic have ended.
    pub(super) forgotten: AHashMap<HomedId, Seq>,
    /// Messages that are read as damaged.
    pub(super) damaged: Vec<Seq>,
}

/// A home with its disk and everything that it has answered.
pub(super) struct Rig {
    pub(super) home: Durable,
    pub(super) disk: Disk,
    pub(super) limits: Limits,
    pub(super) now: Now,
    /// Sync after each request.
    pub(super) sync_at_once: bool,
    /// Answer reads at once.
    pub(super) read_at_once: bool,
    pub(super) reads: VecDeque<Effect>,
    pub(super) answers: VecDeque<(Peer, Option<Bytes>, Answer)>,
}

pub(super) fn peer(key: u64) -> Peer {
    Peer { shard: 0, key }
}

pub(super) fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

pub(super) fn message(payload: &str) -> NewMessage {
    NewMessage {
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        idempotency_key: None,
    }
}

pub(super) fn keyed(payload: &str, key: &str) -> NewMessage {
    NewMessage {
        idempotency_key: Some(key.into()),
        ..message(payload)
    }
}

pub(super) fn from(seq: Seq) -> Open {
    Open {
        from_seq: Some(seq),
        ..Open::default()
    }
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        Self {
            home: Durable::new(Partition(0), EPOCH, limits, 1),
            disk: Disk::default(),
            limits,
            now: Now {
                mono_ms: 1_000,
                unix_ms: 1_700_000_000_000,
            },
            sync_at_once: true,
            read_at_once: true,
            reads: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    pub(super) fn ask_as(&mut self, ns: &str, key: u64, reference: Option<&str>, command: Command) {
        let reference = reference.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let caller = Caller {
            tenant: tenant(ns),
            rights: crate::auth::Rights::everything(),
            peer: peer(key),
            reference,
        };
        self.home
            .handle_request(self.now, Request { caller, command });
        self.settle();
    }

    pub(super) fn ask(&mut self, key: u64, command: Command) {
        self.ask_as("demo", key, None, command);
    }

    /// Carries out all effects, and syncs and reads as long as that is done at once.
    pub(super) fn settle(&mut self) {
        loop {
            self.drain();
            if self.sync_at_once && !self.disk.ids.is_empty() {
                self.sync();
                continue;
            }
            if !self.read_at_once || self.reads.is_empty() {
                return;
            }
            self.read();
        }
    }

    /// Gives room, unless the log is too busy to say.
    fn give_room(&mut self) -> bool {
        let mut given = false;
        while let Some(need) = self.home.need()
            && !self.disk.busy
        {
            given = true;
            let is_full = self.disk.full && need.class == Class::Bulk;
            let room = if is_full {
                Err(Refused::StorageFull)
            } else {
                Ok(())
            };
            self.home.handle_room(self.now, room);
        }
        given
    }

    fn drain(&mut self) {
        while self.give_room() || self.carry_out() {}
    }

    fn carry_out(&mut self) -> bool {
        let mut carried_out = false;
        while let Some(effect) = self.home.poll_effect() {
            carried_out = true;
            match effect {
                Effect::Append { id, value } => self.append(id, value),
                Effect::Answer {
                    to,
                    reference,
                    answer,
                } => {
                    self.answers.push_back((to, reference, answer));
                }
                Effect::Read { .. } => self.reads.push_back(effect),
                Effect::ForgetKeys { topic, through } => {
                    self.disk.forgotten.insert(topic, through);
                }
            }
        }
        carried_out
    }

    fn append(&mut self, id: AppendId, value: Value) {
        self.disk.ids.push_back(id);
        self.disk.records.push(value);
    }

    /// Syncs everything that was appended.
    pub(super) fn sync(&mut self) {
        self.sync_some(usize::MAX);
    }

    /// Syncs the oldest `count` appends.
    pub(super) fn sync_some(&mut self, count: usize) {
        let count = count.min(self.disk.ids.len());
        let through = self.disk.ids.drain(..count).next_back();
        if let Some(through) = through {
            self.disk.synced += count;
            self.home.handle_durable(through);
            self.drain();
        }
    }

    /// Answers the oldest read.
    pub(super) fn read(&mut self) {
        let Some(Effect::Read {
            id,
            topic,
            from_seq,
            through_seq,
            bytes_max,
            count_max,
        }) = self.reads.pop_front()
        else {
            return;
        };
        let mut items = Vec::new();
        let mut bytes = 0;
        for message in self.disk.messages(topic) {
            let seq = message.seq;
            let enough = bytes_max <= bytes || count_max as usize <= items.len();
            if seq < from_seq || through_seq < seq || enough {
                continue;
            }
            bytes += message.cost();
            items.push(if self.disk.damaged.contains(&seq) {
                ReadItem::Damaged { from: seq, to: seq }
            } else {
                ReadItem::Message(message)
            });
        }
        self.home.handle_read(id, items);
        self.drain();
    }

    pub(super) fn pass_time(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.home.handle_time(self.now);
        self.settle();
    }

    /// Loses what was not synced, and everything in memory.
    pub(super) fn crash(&mut self) {
        let disk = &mut self.disk;
        disk.records.truncate(disk.synced);
        disk.ids.clear();
        self.reads.clear();
        self.answers.clear();
        self.home = rebuild(&self.disk, self.limits);
    }

    /// What retention does: the log forgets, then the home learns of it.
    pub(super) fn trim(&mut self, topic: HomedId, first_seq: Seq) {
        self.disk.trimmed.insert(topic, first_seq);
        let left = self.disk.messages(topic).len() as u64;
        self.home.handle_trimmed(topic, first_seq, left * 50);
        self.settle();
    }

    pub(super) fn answers(&mut self) -> Vec<Answer> {
        self.answers
            .drain(..)
            .map(|(_, _, answer)| answer)
            .collect()
    }

    pub(super) fn answers_to(&mut self, key: u64) -> Vec<Answer> {
        let told = |(to, _, answer): (Peer, _, Answer)| (to.key == key).then_some(answer);
        self.answers.drain(..).filter_map(told).collect()
    }

    /// The one answer there is.
    pub(super) fn answer(&mut self) -> Answer {
        let mut answers = self.answers();
        assert!(answers.len() == 1, "one answer, not {answers:?}");
        answers.remove(0)
    }

    pub(super) fn refused(&mut self) -> &'static str {
        match self.answer() {
            Answer::Refused { refused, .. } => refused.code().as_str(),
            other => panic!("a refusal, not {other:?}"),
        }
    }

    pub(super) fn topic_of(&mut self, ns: &str, name: &str) -> HomedId {
        let retention = Retention::default();
        self.ask_as(
            ns,
            99,
            None,
            Command::ResolveTopic {
                name: name.into(),
                retention,
            },
        );
        match self.answer() {
            Answer::Topic { view, .. } => view.id,
            other => panic!("a topic, not {other:?}"),
        }
    }

    pub(super) fn topic(&mut self, name: &str) -> HomedId {
        self.topic_of("demo", name)
    }

    pub(super) fn publish(&mut self, key: u64, topic: HomedId, messages: &[NewMessage]) {
        self.publish_to(key, TopicRef::Id(topic), messages);
    }

    pub(super) fn publish_to(&mut self, key: u64, topic: TopicRef, messages: &[NewMessage]) {
        let messages = messages.iter().cloned().collect();
        self.ask(
            key,
            Command::Publish {
                topic,
                publisher: "svc".into(),
                messages,
            },
        );
    }

    /// Publishes `payloads` one by one and drops the answers.
    pub(super) fn fill(&mut self, topic: HomedId, payloads: &[&str]) {
        for payload in payloads {
            self.publish(99, topic, &[message(payload)]);
        }
        self.answers.retain(|(to, _, _)| to.key != 99);
    }

    pub(super) fn subscribe(&mut self, key: u64, topic: HomedId, sub_name: &str, open: Open) {
        self.ask(key, Command::Credit { bytes: 1 << 18 });
        let (topic, sub_name) = (TopicRef::Id(topic), sub_name.into());
        self.ask(
            key,
            Command::Subscribe {
                topic,
                sub_name,
                maker: "".into(),
                open,
            },
        );
    }

    pub(super) fn fill_many(&mut self, topic: HomedId, count: usize) {
        let payloads: Vec<_> = (1..=count).map(|index| index.to_string()).collect();
        self.fill(
            topic,
            &payloads.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }

    /// Subscribes and gives the answer; what was delivered behind it stays.
    pub(super) fn subscribed(
        &mut self,
        key: u64,
        topic: HomedId,
        name: &str,
        open: Open,
    ) -> Subscribed {
        assert!(
            self.answers.is_empty(),
            "nothing was said before: {:?}",
            self.answers
        );
        self.subscribe(key, topic, name, open);
        let at = self
            .answers
            .iter()
            .position(|(_, _, a)| matches!(a, Answer::Subscribed(_)));
        match self.answers.remove(at.expect("it is subscribed")) {
            Some((_, _, Answer::Subscribed(subscribed))) => *subscribed,
            _ => unreachable!(),
        }
    }

    pub(super) fn ack(&mut self, key: u64, topic: HomedId, sub_name: &str, seq: Seq) {
        let (topic, sub_name) = (TopicRef::Id(topic), sub_name.into());
        self.ask(
            key,
            Command::Ack {
                topic,
                sub_name,
                seq,
            },
        );
    }

    /// The seqs that peer was delivered; everything else that was said is dropped.
    pub(super) fn seqs(&mut self, key: u64) -> Vec<Seq> {
        let seq = |answer| match answer {
            Answer::Message { message, .. } => Some(message.seq),
            _ => None,
        };
        self.answers_to(key).into_iter().filter_map(seq).collect()
    }
}

impl Disk {
    /// The records that survive.
    pub(super) fn synced(&self) -> &[Value] {
        &self.records[..self.synced]
    }

    /// What was appended is there, whatever the home was told.
    pub(super) fn sync_all(&mut self) {
        self.synced = self.records.len();
    }

    /// What the synced records hold of a topic.
    pub(super) fn messages(&self, topic: HomedId) -> Vec<Message> {
        let first = self.trimmed.get(&topic).copied().unwrap_or(0);
        let mut messages = messages_of(self.synced(), topic);
        messages.retain(|message| first <= message.seq);
        messages
    }

    pub(super) fn cursors(&self) -> AHashMap<HomedId, Seq> {
        let moved = |value: &Value| match value {
            Value::CursorsMoved { moves } => moves.clone(),
            _ => Vec::new(),
        };
        self.records[..self.synced].iter().flat_map(moved).collect()
    }
}

fn messages_of(records: &[Value], wanted: HomedId) -> Vec<Message> {
    let mut kept: Vec<Message> = Vec::new();
    for record in records {
        match record {
            Value::Publish {
                topic,
                first_seq,
                unix_ms,
                messages,
                ..
            } if *topic == wanted => {
                for (seq, new) in (*first_seq..).zip(messages) {
                    let (unix_ms, payload) = (*unix_ms, new.payload.clone());
                    kept.push(Message {
                        seq,
                        unix_ms,
                        payload,
                    });
                }
            }
            _ => {}
        }
    }
    kept
}

/// What a log's recovery does, from plain records.
fn rebuild(disk: &Disk, limits: Limits) -> Durable {
    let records = &disk.records;
    let mut found = Found::default();
    records.iter().for_each(|record| found.take(record.clone()));
    for (topic, first_seq) in &disk.trimmed {
        found.topic(*topic).first_seq = *first_seq;
    }
    let mut home = Durable::new(Partition(0), EPOCH, limits, records.len() as u64 + 77);
    found
        .topics
        .into_iter()
        .for_each(|restored| assert_eq!(home.restore_topic(restored), Restored::New));
    found
        .subscriptions
        .into_iter()
        .for_each(|restored| assert_eq!(home.restore_subscription(restored), Restored::New));
    found
        .keys
        .into_iter()
        .for_each(|restored| assert_eq!(home.restore_key(restored), Restored::New));
    home
}

#[derive(Default)]
struct Found {
    topics: Vec<RestoredTopic>,
    subscriptions: Vec<RestoredSubscription>,
    keys: Vec<RestoredKey>,
}

impl Found {
    fn take(&mut self, record: Value) {
        match record {
            Value::TopicCreated { .. } => self.topics.push(made(record)),
            Value::RetentionChanged { topic, retention } => {
                self.topic(topic).retention = retention;
            }
            Value::TopicDeleted { topic } => {
                self.topics.retain(|restored| restored.id != topic);
                self.subscriptions
                    .retain(|restored| restored.topic != topic);
            }
            Value::Publish {
                topic,
                first_seq,
                unix_ms,
                messages,
                ..
            } => {
                self.take_publish(topic, first_seq, unix_ms, &messages);
            }
            Value::SubscriptionCreated {
                subscription: id,
                topic,
                sub_name,
                maker,
                cursor,
                unix_ms,
            } => {
                let created_ms = unix_ms;
                let restored = RestoredSubscription {
                    id,
                    topic,
                    sub_name,
                    maker: (*maker).into(),
                    cursor,
                    created_ms,
                };
                self.subscriptions.push(restored);
            }
            Value::SubscriptionDeleted { subscription } => {
                self.subscriptions
                    .retain(|restored| restored.id != subscription);
            }
            Value::CursorsMoved { moves } => {
                for (id, cursor) in moves {
                    let found = self
                        .subscriptions
                        .iter_mut()
                        .find(|restored| restored.id == id);
                    found
                        .into_iter()
                        .for_each(|restored| restored.cursor = cursor);
                }
            }
        }
    }

    fn topic(&mut self, id: HomedId) -> &mut RestoredTopic {
        self.topics
            .iter_mut()
            .find(|restored| restored.id == id)
            .unwrap()
    }

    fn take_publish(&mut self, topic: HomedId, first_seq: Seq, ms: u64, messages: &NewMessages) {
        let restored = self.topic(topic);
        assert!(restored.last_seq + 1 == first_seq, "the log has no gap");
        restored.last_seq += messages.len() as u64;
        restored.bytes += messages
            .iter()
            .map(|message| crate::broker::topic::stored_bytes(message, "svc"))
            .sum::<u64>();
        for (seq, message) in (first_seq..).zip(messages) {
            let payload = payload_fingerprint(&message.payload);
            if let Some(key) = message.idempotency_key.as_deref() {
                let key = key_fingerprint(key);
                self.keys.push(RestoredKey {
                    topic,
                    key,
                    payload,
                    seq,
                    unix_ms: ms,
                });
            }
        }
    }
}

fn made(record: Value) -> RestoredTopic {
    match record {
        Value::TopicCreated {
            topic: id,
            tenant,
            name,
            unix_ms: created_ms,
            retention,
        } => {
            let (first_seq, last_seq, bytes) = (1, 0, 0);
            RestoredTopic {
                id,
                tenant,
                name,
                created_ms,
                retention,
                first_seq,
                last_seq,
                bytes,
            }
        }
        other => panic!("{other:?} makes no topic"),
    }
}

pub(super) fn name(text: &str) -> Arc<str> {
    text.into()
}
