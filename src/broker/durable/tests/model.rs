//! Random histories of publishes, acks, takeovers, crashes and full disks, against a plain list:
//! what was acked is there with the same payload, what is delivered is durable and follows what
//! was delivered before, and a cursor is never ahead of the acks nor forgets one that was synced.

use proptest::prelude::*;

use super::*;

const PEERS: u64 = 3;
const SUBS: [&str; 2] = ["A", "B"];

#[derive(Debug, Clone)]
enum Action {
    Publish {
        peer: u64,
        count: usize,
        key: Option<u8>,
    },
    Subscribe {
        peer: u64,
        sub: usize,
        from_seq: Seq,
        seek: bool,
        in_flight: u32,
    },
    Unsubscribe {
        peer: u64,
        sub: usize,
    },
    Ack {
        peer: u64,
        sub: usize,
        back: Seq,
    },
    Credit {
        peer: u64,
    },
    Disconnect {
        peer: u64,
    },
    Delete {
        sub: usize,
    },
    Sync {
        count: usize,
    },
    Read,
    Time {
        ms: u64,
    },
    Full {
        full: bool,
    },
    Busy {
        busy: bool,
    },
    Fail,
    Crash,
}

fn action() -> impl Strategy<Value = Action> {
    let peer = 1..=PEERS;
    let sub = 0..SUBS.len();
    prop_oneof![
        8 => (peer.clone(), 1..4_usize, proptest::option::of(0..6_u8))
            .prop_map(|(peer, count, key)| Action::Publish { peer, count, key }),
        6 => (peer.clone(), sub.clone(), 0..12_u64, any::<bool>(), 1..5_u32).prop_map(
            |(peer, sub, from_seq, seek, in_flight)| {
                Action::Subscribe { peer, sub, from_seq, seek, in_flight }
            }
        ),
        1 => (peer.clone(), sub.clone()).prop_map(|(peer, sub)| Action::Unsubscribe { peer, sub }),
        8 => (peer.clone(), sub.clone(), 0..3_u64)
            .prop_map(|(peer, sub, back)| Action::Ack { peer, sub, back }),
        4 => peer.clone().prop_map(|peer| Action::Credit { peer }),
        1 => peer.prop_map(|peer| Action::Disconnect { peer }),
        1 => sub.prop_map(|sub| Action::Delete { sub }),
        8 => (1..4_usize).prop_map(|count| Action::Sync { count }),
        8 => Just(Action::Read),
        3 => (1..120_u64).prop_map(|ms| Action::Time { ms }),
        1 => any::<bool>().prop_map(|full| Action::Full { full }),
        3 => any::<bool>().prop_map(|busy| Action::Busy { busy }),
        1 => Just(Action::Fail),
        1 => Just(Action::Crash),
    ]
}

/// What an observer outside knows.
#[derive(Default)]
struct Model {
    /// Payloads that were acknowledged or delivered, by seq: they never change.
    seen: Vec<Option<Bytes>>,
    /// What each publish under way has sent, oldest first.
    sent: AHashMap<u64, VecDeque<Vec<Bytes>>>,
    /// The next seq that each bound subscription must get.
    next: AHashMap<usize, (u64, Seq)>,
    /// How far the cursor of each subscription may stand: acks, starts and seeks.
    allowed: AHashMap<usize, Seq>,
    /// Subscriptions whose end was asked for, so that an ack may find them gone.
    ending: ahash::AHashSet<usize>,
    payloads: u64,
}

impl Model {
    fn allow(&mut self, sub: usize, cursor: Seq) {
        let allowed = self.allowed.entry(sub).or_default();
        *allowed = (*allowed).max(cursor);
    }

    fn see(&mut self, seq: Seq, payload: &Bytes) {
        let index = usize::try_from(seq).unwrap();
        if self.seen.len() <= index {
            self.seen.resize(index + 1, None);
        }
        let known = self.seen[index].get_or_insert_with(|| payload.clone());
        assert_eq!(known, payload, "seq {seq} has one payload for ever");
    }
}

struct World {
    rig: Rig,
    topic: HomedId,
    model: Model,
}

impl World {
    fn new() -> Self {
        let limits = Limits {
            tail_bytes_max: 500,
            read_bytes_max: 300,
            ..Limits::default()
        };
        let mut rig = Rig::with(limits);
        let topic = rig.topic("a");
        (rig.sync_at_once, rig.read_at_once) = (false, false);
        Self {
            rig,
            topic,
            model: Model::default(),
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Publish { peer, count, key } => self.publish(peer, count, key),
            Action::Subscribe {
                peer,
                sub,
                from_seq,
                seek,
                in_flight,
            } => {
                if seek || !self.made(sub) || self.model.ending.contains(&sub) {
                    self.model.allow(sub, from_seq.saturating_sub(1));
                }
                let in_flight_max = Some(in_flight);
                let open = Open {
                    from_seq: Some(from_seq),
                    seek,
                    in_flight_max,
                    epoch: None,
                    ..Open::default()
                };
                let (topic, sub_name) = (TopicRef::Id(self.topic), name(SUBS[sub]));
                self.rig.ask(
                    peer,
                    Command::Subscribe {
                        topic,
                        sub_name,
                        maker: "".into(),
                        open,
                    },
                );
            }
            Action::Unsubscribe { peer, sub } => {
                let (topic, sub_name) = (TopicRef::Id(self.topic), name(SUBS[sub]));
                self.rig.ask(peer, Command::Unsubscribe { topic, sub_name });
            }
            Action::Ack { peer, sub, back } => self.ack(peer, sub, back),
            Action::Credit { peer } => self.rig.ask(peer, Command::Credit { bytes: 200 }),
            Action::Disconnect { peer } => {
                // A peer that is gone never comes back under its key, as it does here.
                self.rig.disk.busy = false;
                self.rig.settle();
                self.check();
                self.rig.ask(peer, Command::Disconnect);
                self.model.next.retain(|_, (bound, _)| *bound != peer);
            }
            Action::Delete { sub } => self.delete(sub),
            Action::Sync { count } => self.rig.sync_some(count),
            Action::Read => self.rig.read(),
            Action::Time { ms } => self.rig.pass_time(ms),
            Action::Full { full } => self.rig.disk.full = full,
            Action::Busy { busy } => {
                self.rig.disk.busy = busy;
                self.rig.settle();
            }
            Action::Fail => {
                self.rig.home.handle_failed(self.rig.now);
                self.rig.settle();
                self.check();
                self.crash();
            }
            Action::Crash => self.crash(),
        }
        self.check();
    }

    fn publish(&mut self, peer: u64, count: usize, key: Option<u8>) {
        let mut messages = Vec::new();
        for index in 0..count {
            self.model.payloads += 1;
            let text = match key {
                // Half of the repeats carry the payload of the original.
                Some(key) if key % 2 == 0 => format!("k{key}-{index}"),
                _ => self.model.payloads.to_string(),
            };
            let key = key.map(|key| format!("k{key}-{index}"));
            messages.push(key.map_or_else(|| message(&text), |key| keyed(&text, &key)));
        }
        let payloads = messages
            .iter()
            .map(|message| message.payload.clone())
            .collect();
        self.model.sent.entry(peer).or_default().push_back(payloads);
        self.rig.publish(peer, self.topic, &messages);
    }

    fn ack(&mut self, peer: u64, sub: usize, back: Seq) {
        let Some(&(bound, next)) = self.model.next.get(&sub) else {
            return;
        };
        let seq = (next - 1).saturating_sub(back);
        let before = self.rig.answers.len();
        self.rig.ack(peer, self.topic, SUBS[sub], seq);
        let said = self
            .rig
            .answers
            .iter()
            .skip(before)
            .find_map(|(_, _, answer)| match answer {
                Answer::Refused {
                    refused,
                    publish: false,
                    ..
                } => Some(refused.code().as_str()),
                _ => None,
            });
        if self.model.ending.contains(&sub) {
            // It may be there still, or gone.
            self.model.allow(sub, seq);
        } else if self.rig.disk.busy && said.is_none() {
            // It may stand in line.
            if bound == peer {
                self.model.allow(sub, seq);
            }
        } else if bound == peer {
            assert_eq!(said, None, "an ack of what was delivered is taken");
            self.model.allow(sub, seq);
        } else {
            assert!(
                matches!(said, Some("fenced" | "not_subscribed")),
                "{said:?}"
            );
        }
        self.rig
            .answers
            .retain(|(_, _, answer)| !matches!(answer, Answer::Refused { publish: false, .. }));
    }

    fn delete(&mut self, sub: usize) {
        let (topic, sub_name) = (Some(TopicRef::Id(self.topic)), Some(name(SUBS[sub])));
        self.check();
        self.rig.ask(
            78,
            Command::ListSubscriptions {
                topic,
                sub_name,
                after: None,
                limit: 1,
            },
        );
        let views = self.rig.answers.pop_back();
        if let Some((_, _, Answer::Subscriptions(views))) = views {
            for view in views {
                self.model.ending.insert(sub);
                self.rig.ask(
                    77,
                    Command::DeleteSubscription {
                        subscription: view.id,
                    },
                );
            }
        }
    }

    /// Whether the disk has a subscription of this name that is not deleted.
    fn made(&self, sub: usize) -> bool {
        let mut made = None;
        for record in self.rig.disk.synced() {
            match record {
                Value::SubscriptionCreated {
                    subscription,
                    sub_name,
                    ..
                } if sub_name.as_ref() == SUBS[sub] => {
                    made = Some(*subscription);
                }
                Value::SubscriptionDeleted { subscription } if made == Some(*subscription) => {
                    made = None;
                }
                _ => {}
            }
        }
        made.is_some()
    }

    fn crash(&mut self) {
        self.rig.crash();
        self.model.next.clear();
        self.model.ending.clear();
        self.model.sent.clear();
        let messages = self.rig.disk.messages(self.topic);
        for (index, seen) in self.model.seen.iter().enumerate().skip(1) {
            let stored = messages.get(index - 1).map(|message| &message.payload);
            assert!(
                seen.is_none() || stored == seen.as_ref(),
                "seq {index} survives"
            );
        }
    }

    /// Looks at everything that was said.
    fn check(&mut self) {
        for (to, _, answer) in std::mem::take(&mut self.rig.answers) {
            match answer {
                Answer::Published {
                    first_seq,
                    last_seq,
                    ..
                } => {
                    self.published(to.key, first_seq, last_seq);
                }
                Answer::Subscribed(subscribed) => self.subscribed(to.key, &subscribed),
                Answer::Message {
                    subscription,
                    message,
                    ..
                } => {
                    self.delivered(to.key, subscription, &message);
                }
                Answer::Unsubscribed { sub_name, .. } => {
                    let sub = SUBS
                        .iter()
                        .position(|sub| *sub == sub_name.as_ref())
                        .unwrap();
                    if self
                        .model
                        .next
                        .get(&sub)
                        .is_some_and(|(bound, _)| *bound == to.key)
                    {
                        self.model.next.remove(&sub);
                    }
                }
                Answer::Refused { publish: true, .. } => {
                    let sent = self.model.sent.get_mut(&to.key);
                    let refused = sent.and_then(VecDeque::pop_front);
                    assert!(refused.is_some(), "an error answers a publish, in order");
                }
                Answer::Refused { .. } | Answer::Deleted => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn published(&mut self, peer: u64, first: Seq, last: Seq) {
        let sent = self.model.sent.get_mut(&peer).and_then(VecDeque::pop_front);
        let sent = sent.expect("an ack answers a publish, in order");
        assert_eq!(sent.len() as u64, last - first + 1);
        let stored = self.rig.disk.messages(self.topic);
        for (seq, payload) in (first..).zip(&sent) {
            let at = usize::try_from(seq - 1).unwrap();
            assert_eq!(
                &stored[at].payload, payload,
                "acked: durable, with these bytes"
            );
            self.model.see(seq, payload);
        }
    }

    fn subscribed(&mut self, peer: u64, subscribed: &Subscribed) {
        let sub = SUBS
            .iter()
            .position(|sub| *sub == subscribed.sub_name.as_ref())
            .unwrap();
        let cursor = subscribed.cursor;
        assert!(
            cursor <= subscribed.last_seq,
            "a cursor stands at a durable message"
        );
        if let Some((bound, _)) = self.model.next.get(&sub) {
            assert!(*bound == peer, "the other was told first");
        }
        self.model.next.insert(sub, (peer, subscribed.next_seq));
        self.model.ending.remove(&sub);
        if !subscribed.resumed {
            self.model.allow(sub, cursor);
        }
        assert!(
            cursor <= self.model.allowed[&sub],
            "no cursor passes what was acked"
        );
    }

    fn delivered(&mut self, peer: u64, subscription: HomedId, message: &Message) {
        let sub = self.sub_of(subscription);
        let stored = self.rig.disk.messages(self.topic);
        let at = usize::try_from(message.seq - 1).unwrap();
        assert_eq!(&stored[at], message, "delivered: durable, with these bytes");
        self.model.see(message.seq, &message.payload);
        let (bound, next) = self.model.next.get_mut(&sub).expect("it is bound");
        assert_eq!((*bound, *next), (peer, message.seq), "one behind the last");
        *next += 1;
    }

    fn sub_of(&self, id: HomedId) -> usize {
        let name = self
            .rig
            .disk
            .records
            .iter()
            .rev()
            .find_map(|record| match record {
                Value::SubscriptionCreated {
                    subscription,
                    sub_name,
                    ..
                } if *subscription == id => Some(sub_name.clone()),
                _ => None,
            });
        SUBS.iter()
            .position(|sub| Some(*sub) == name.as_deref())
            .unwrap()
    }

    /// With everything synced and credit for all, every subscription gets all the rest.
    fn finish(&mut self) {
        (self.rig.disk.full, self.rig.disk.busy) = (false, false);
        (self.rig.sync_at_once, self.rig.read_at_once) = (true, true);
        self.rig.settle();
        self.check();
        self.crash();
        let last = self.rig.disk.messages(self.topic).len() as u64;
        for (sub, sub_name) in SUBS.iter().enumerate() {
            let open = Open {
                in_flight_max: Some(4096),
                ..from(0)
            };
            let topic = TopicRef::Id(self.topic);
            self.rig.ask(9, Command::Credit { bytes: 1 << 30 });
            self.rig.ask(
                9,
                Command::Subscribe {
                    topic,
                    sub_name: name(sub_name),
                    maker: "".into(),
                    open,
                },
            );
            self.check();
            assert_eq!(
                self.model.next[&sub],
                (9, last + 1),
                "all of it is delivered"
            );
            self.rig.ack(9, self.topic, sub_name, last);
        }
        self.rig.home.handle_drain();
        self.rig.settle();
        self.check();
        self.rig.crash();
        for sub_name in SUBS {
            let subscribed = self.rig.subscribed(9, self.topic, sub_name, from(0));
            assert_eq!(subscribed.cursor, last, "acked and flushed: never again");
        }
    }
}

proptest! {
    // The same histories each time; PROPTEST_CASES asks for more of them.
    #![proptest_config(ProptestConfig {
        rng_seed: proptest::test_runner::RngSeed::Fixed(4),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// P1-P4, D-26, D-27, D-28, D-33, D-35, D-36, D-38, T-P4
    #[test]
    fn any_history_keeps_the_promises(actions in proptest::collection::vec(action(), 1..120)) {
        let mut world = World::new();
        for action in &actions {
            world.act(action);
        }
        world.finish();
    }
}
