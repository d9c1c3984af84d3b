//! Logs of which any record may be lost or damaged, as their recovery hands them to a home: it
//! always starts, a name is one topic and a key one subscription, and what was met later wins.

use proptest::prelude::*;

use super::*;

fn id(number: u64) -> HomedId {
    HomedId::new(1_700_000_000_000 + number, Partition(0), number)
}

fn restored_topic(number: u64, name: &str) -> RestoredTopic {
    RestoredTopic {
        id: id(number),
        tenant: tenant("demo"),
        name: name.into(),
        created_ms: 1,
        retention: Retention::default(),
        first_seq: 1,
        last_seq: 5,
        bytes: 100,
    }
}

fn restored_subscription(number: u64, topic: u64, sub_name: &str) -> RestoredSubscription {
    RestoredSubscription {
        id: id(number),
        topic: id(topic),
        sub_name: sub_name.into(),
        maker: "".into(),
        cursor: 2,
        created_ms: 1,
    }
}

fn restored_key(topic: u64, key: u128, seq: Seq) -> RestoredKey {
    RestoredKey {
        topic: id(topic),
        key,
        payload: 1,
        seq,
        unix_ms: 1_700_000_000_000,
    }
}

/// L4: the record that ended the first holder of a name is lost
#[test]
fn of_two_topics_of_one_name_the_later_one_is_there_and_the_other_is_ended_again() {
    let mut rig = Rig::new();
    assert_eq!(
        rig.home.restore_topic(restored_topic(1, "a")),
        Restored::New
    );
    let sub = restored_subscription(10, 1, "A");
    assert_eq!(rig.home.restore_subscription(sub), Restored::New);
    let restored = rig.home.restore_topic(restored_topic(2, "a"));
    assert_eq!(restored, Restored::InPlaceOf(id(1)));
    rig.settle();
    assert_eq!(rig.disk.records, [Value::TopicDeleted { topic: id(1) }]);
    assert_eq!(rig.topic("a"), id(2));
    let topic = TopicRef::Id(id(1));
    rig.ask(1, Command::GetTopic { topic });
    assert_eq!(rig.refused(), "unknown_topic");
    assert_eq!(
        (rig.home.totals().topics, rig.home.totals().subscriptions),
        (1, 0)
    );
}

/// L4: alike for subscriptions
#[test]
fn of_two_subscriptions_of_one_key_the_later_one_is_there_and_the_other_is_ended_again() {
    let mut rig = Rig::new();
    rig.home.restore_topic(restored_topic(1, "a"));
    rig.home
        .restore_subscription(restored_subscription(10, 1, "A"));
    let restored = rig
        .home
        .restore_subscription(restored_subscription(11, 1, "A"));
    assert_eq!(restored, Restored::InPlaceOf(id(10)));
    rig.settle();
    let subscription = id(10);
    assert_eq!(
        rig.disk.records,
        [Value::SubscriptionDeleted { subscription }]
    );
    assert_eq!(rig.home.totals().subscriptions, 1);
}

/// A key whose message is lost would name the seq of another one
#[test]
fn a_key_without_its_message_is_forgotten() {
    let mut rig = Rig::new();
    rig.home.restore_topic(restored_topic(1, "a"));
    let key = key_fingerprint("k");
    assert_eq!(
        rig.home.restore_key(restored_key(1, key, 6)),
        Restored::Orphan
    );
    rig.publish(1, id(1), &[keyed("x", "k")]);
    let answer = rig.answer();
    assert!(
        matches!(
            answer,
            Answer::Published {
                first_seq: 6,
                duplicate: false,
                ..
            }
        ),
        "{answer:?}"
    );
}

#[derive(Debug, Clone)]
enum Fact {
    Topic(RestoredTopic),
    Subscription(RestoredSubscription),
    Key(RestoredKey),
}

fn fact() -> impl Strategy<Value = Fact> {
    let names = prop_oneof![Just("a"), Just("b"), Just("c")];
    prop_oneof![
        (1..6_u64, names.clone(), 0..9_u64, 0..9_u64).prop_map(|(number, name, first, last)| {
            let topic = restored_topic(number, name);
            Fact::Topic(RestoredTopic {
                first_seq: first,
                last_seq: last,
                ..topic
            })
        }),
        (10..16_u64, 1..6_u64, names, 0..9_u64).prop_map(|(number, topic, name, cursor)| {
            let restored = restored_subscription(number, topic, name);
            Fact::Subscription(RestoredSubscription { cursor, ..restored })
        }),
        (1..6_u64, 0..4_u128, 0..9_u64)
            .prop_map(|(topic, key, seq)| { Fact::Key(restored_key(topic, key, seq)) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: proptest::test_runner::RngSeed::Fixed(14),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// L4: whatever is left of a log, in whatever order it is met
    #[test]
    fn any_facts_in_any_order_make_a_home_that_serves(
        facts in proptest::collection::vec(fact(), 0..40)
    ) {
        let mut rig = Rig::new();
        // The disk has no messages of what was restored.
        rig.read_at_once = false;
        for fact in facts {
            match fact {
                Fact::Topic(topic) => {
                    let _ = rig.home.restore_topic(topic);
                }
                Fact::Subscription(subscription) => {
                    let _ = rig.home.restore_subscription(subscription);
                }
                Fact::Key(key) => {
                    let _ = rig.home.restore_key(key);
                }
            }
        }
        rig.settle();
        let usage: Vec<Usage> = rig.home.usage().map(|(_, usage)| usage).collect();
        let totals = rig.home.totals();
        let counted = usage.first().copied().unwrap_or_default();
        prop_assert_eq!((counted.topics, counted.subscriptions), (totals.topics, totals.subscriptions));
        for name in ["a", "b", "c"] {
            let topic = rig.topic(name);
            let messages = [keyed("x", "new")];
            rig.publish(1, topic, &messages);
            let answer = rig.answer();
            let Answer::Published { first_seq, .. } = answer else {
                panic!("{answer:?}");
            };
            for sub_name in ["a", "b"] {
                let subscribed = rig.subscribed(2, topic, sub_name, from(first_seq));
                prop_assert!(subscribed.cursor <= first_seq);
                rig.answers.clear();
            }
            let topic = TopicRef::Id(topic);
            rig.ask(1, Command::DeleteTopic { topic });
            let deleted = rig.answers_to(1);
            prop_assert!(deleted.contains(&Answer::Deleted));
        }
        prop_assert_eq!(rig.home.totals().topics, 0);
        prop_assert_eq!(rig.home.totals().subscriptions, 0);
    }
}
