//! Publishes, seqs, idempotency keys and what bounds them, row by row.

use super::*;

/// B-10, B-15, D-26, D-27
#[test]
fn an_ack_comes_after_the_sync_and_in_order() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.sync_at_once = false;
    for payload in ["1", "2", "3"] {
        let messages: NewMessages = [message(payload)].into_iter().collect();
        let (topic, publisher) = (TopicRef::Name(name("a")), name("svc"));
        rig.ask_as(
            "demo",
            1,
            Some(payload),
            Command::Publish {
                topic,
                publisher,
                messages,
            },
        );
    }
    assert!(rig.answers.is_empty());
    rig.sync_some(2);
    let acks: Vec<_> = rig.answers.drain(..).collect();
    let ack = |seq: Seq, reference: &'static str| {
        let published = Answer::Published {
            topic,
            first_seq: seq,
            last_seq: seq,
            duplicate: false,
        };
        (
            peer(1),
            Some(Bytes::from_static(reference.as_bytes())),
            published,
        )
    };
    assert_eq!(acks, [ack(1, "1"), ack(2, "2")]);
    rig.crash();
    rig.sync_at_once = true;
    rig.publish(1, topic, &[message("4")]);
    assert_eq!(
        rig.answer(),
        Answer::Published {
            topic,
            first_seq: 3,
            last_seq: 3,
            duplicate: false
        },
        "what was never durable has used no seq"
    );
}

/// D-27: a batch is all or nothing and contiguous
#[test]
fn a_batch_has_consecutive_seqs_or_none() {
    let limits = Limits {
        message_bytes_max: 4,
        ..Limits::default()
    };
    let mut rig = Rig::with(limits);
    let topic = rig.topic("a");
    rig.publish(1, topic, &[message("1"), message("2"), message("3")]);
    assert_eq!(
        rig.answer(),
        Answer::Published {
            topic,
            first_seq: 1,
            last_seq: 3,
            duplicate: false
        }
    );
    rig.publish(1, topic, &[message("4"), message("too long")]);
    assert_eq!(rig.refused(), "too_large");
    rig.publish(1, topic, &[message("4")]);
    assert!(matches!(
        rig.answer(),
        Answer::Published { first_seq: 4, .. }
    ));
}

/// D-27
#[test]
fn a_repeated_key_gives_the_original_seq() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.publish(1, topic, &[keyed("x", "k")]);
    rig.publish(1, topic, &[message("y")]);
    rig.answers.clear();
    rig.publish(2, topic, &[keyed("x", "k")]);
    assert_eq!(
        rig.answer(),
        Answer::Published {
            topic,
            first_seq: 1,
            last_seq: 1,
            duplicate: true
        }
    );
    rig.publish(2, topic, &[keyed("z", "k")]);
    assert_eq!(rig.refused(), "idempotency_conflict");
    rig.crash();
    rig.publish(2, topic, &[keyed("x", "k")]);
    assert!(matches!(
        rig.answer(),
        Answer::Published {
            first_seq: 1,
            duplicate: true,
            ..
        }
    ));
    rig.pass_time(600_001);
    rig.publish(2, topic, &[keyed("x", "k")]);
    assert!(matches!(
        rig.answer(),
        Answer::Published {
            first_seq: 3,
            duplicate: false,
            ..
        }
    ));
}

/// D-27: the oldest keys go first
#[test]
fn keys_are_bounded_by_number() {
    let mut rig = Rig::with(Limits {
        idempotency_keys_max: 2,
        ..Limits::default()
    });
    let topic = rig.topic("a");
    for key in ["1", "2", "3"] {
        rig.publish(1, topic, &[keyed("x", key)]);
    }
    rig.answers.clear();
    rig.publish(1, topic, &[keyed("x", "1")]);
    assert!(matches!(
        rig.answer(),
        Answer::Published {
            first_seq: 4,
            duplicate: false,
            ..
        }
    ));
    rig.publish(1, topic, &[keyed("x", "3")]);
    assert!(matches!(
        rig.answer(),
        Answer::Published {
            first_seq: 3,
            duplicate: true,
            ..
        }
    ));
}

/// D-27: a repeat waits for the original's sync and does not overtake
#[test]
fn a_repeat_waits_for_the_disk_with_what_stands_before_it() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.sync_at_once = false;
    rig.publish(1, topic, &[keyed("x", "k")]);
    rig.publish(2, topic, &[keyed("x", "k")]);
    rig.publish(2, topic, &[message("y")]);
    assert!(rig.answers.is_empty());
    rig.sync_some(1);
    let firsts: Vec<_> = rig
        .answers()
        .into_iter()
        .map(|answer| match answer {
            Answer::Published {
                first_seq,
                duplicate,
                ..
            } => (first_seq, duplicate),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(firsts, [(1, false), (1, true)]);
}

/// D-27: of a batch, all or none may be repeats
#[test]
fn a_batch_of_repeats_is_a_repeat_and_a_mixed_one_a_conflict() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    let batch = [keyed("x", "1"), keyed("y", "2")];
    rig.publish(1, topic, &batch);
    rig.answers.clear();
    rig.publish(1, topic, &batch);
    assert_eq!(
        rig.answer(),
        Answer::Published {
            topic,
            first_seq: 1,
            last_seq: 2,
            duplicate: true
        }
    );
    let wrong: [&[NewMessage]; 4] = [
        &[keyed("x", "1"), keyed("z", "3")],
        &[keyed("z", "3"), keyed("x", "1")],
        &[keyed("y", "2"), keyed("x", "1")],
        &[keyed("q", "9"), keyed("q", "9")],
    ];
    for batch in wrong {
        rig.publish(1, topic, batch);
        assert_eq!(rig.refused(), "idempotency_conflict");
    }
}

/// D-08, section 8: names and payloads have limits, each with its code
#[test]
fn what_is_too_long_is_refused_with_its_limit() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    let retention = Retention::default();
    for (length, code) in [(0, "invalid_message"), (256, "invalid_message")] {
        rig.ask(
            1,
            Command::ResolveTopic {
                name: "n".repeat(length).into(),
                retention,
            },
        );
        assert_eq!(rig.refused(), code);
    }
    for length in [0, 129] {
        let topic = TopicRef::Id(topic);
        let (sub_name, open) = ("s".repeat(length).into(), Open::default());
        rig.ask(
            1,
            Command::Subscribe {
                topic,
                sub_name,
                maker: "".into(),
                open,
            },
        );
        assert_eq!(rig.refused(), "invalid_message");
    }
    rig.publish(1, topic, &[message(&"x".repeat(65_537))]);
    assert_eq!(rig.refused(), "too_large");
    rig.publish(1, topic, &[keyed("x", &"k".repeat(129))]);
    let Answer::Refused {
        refused,
        topic: named,
        ..
    } = rig.answer()
    else {
        panic!()
    };
    assert_eq!(
        refused.to_string(),
        "idempotency_key of 129 bytes exceeds limits.idempotency_key_bytes_max = 128"
    );
    assert_eq!(named, Some(TopicRef::Id(topic)));
}

/// RELIABILITY section 7: a tenant's topics, subscriptions and bytes, wherever they are
#[test]
fn a_tenant_has_limits_over_all_partitions() {
    let limits = Limits {
        topics_per_tenant_max: 3,
        subscriptions_per_tenant_max: 2,
        bytes_per_tenant_max: 200,
        ..Limits::default()
    };
    let mut rig = Rig::with(limits);
    let topic = rig.topic("a");
    rig.topic("b");
    rig.home.handle_usage(
        &tenant("demo"),
        Usage {
            topics: 1,
            subscriptions: 1,
            bytes: 50,
        },
    );
    let retention = Retention::default();
    rig.ask(
        1,
        Command::ResolveTopic {
            name: name("c"),
            retention,
        },
    );
    assert_eq!(rig.refused(), "topic_full");
    rig.topic_of("other", "c");
    rig.subscribed(1, topic, "A", Open::default());
    rig.subscribe(1, topic, "B", Open::default());
    assert_eq!(rig.refused(), "subscription_limit");
    rig.fill(topic, &["x"]);
    rig.answers.clear();
    rig.publish(1, topic, &[message(&"x".repeat(100))]);
    assert_eq!(rig.refused(), "topic_full");
    rig.ask(
        1,
        Command::DeleteTopic {
            topic: TopicRef::Name(name("b")),
        },
    );
    assert_eq!(rig.answer(), Answer::Deleted);
    rig.ask(
        1,
        Command::ResolveTopic {
            name: name("c"),
            retention,
        },
    );
    assert!(matches!(rig.answer(), Answer::Topic { created: true, .. }));
    assert_eq!(rig.home.usage().count(), 2);
}

/// D-40
#[test]
fn a_deleted_topic_detaches_its_subscribers_and_its_name_is_free() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill(topic, &["1"]);
    rig.subscribed(1, topic, "A", Open::default());
    rig.sync_at_once = false;
    rig.ask(
        2,
        Command::DeleteTopic {
            topic: TopicRef::Id(topic),
        },
    );
    assert!(rig.answers.is_empty());
    rig.publish(1, topic, &[message("2")]);
    assert_eq!(rig.refused(), "unknown_topic");
    rig.sync_at_once = true;
    let again = rig.topic_after(&[
        Answer::Unsubscribed {
            topic,
            sub_name: name("A"),
            reason: Ended::TopicDeleted,
        },
        Answer::Deleted,
    ]);
    assert_ne!(again, topic);
    rig.crash();
    assert_eq!(rig.topic("a"), again);
    rig.ask(
        1,
        Command::GetTopic {
            topic: TopicRef::Id(topic),
        },
    );
    assert_eq!(rig.refused(), "unknown_topic");
}

impl Rig {
    /// Resolves `a` and expects these answers before that.
    fn topic_after(&mut self, before: &[Answer]) -> HomedId {
        let retention = Retention::default();
        self.ask(
            3,
            Command::ResolveTopic {
                name: name("a"),
                retention,
            },
        );
        let mut answers = self.answers();
        let Some(Answer::Topic {
            view,
            created: true,
        }) = answers.pop()
        else {
            panic!()
        };
        assert_eq!(answers, before);
        view.id
    }
}

/// Inward backpressure: `publishes_in_flight_max`, `pending_bytes_max`
#[test]
fn what_waits_for_the_disk_is_bounded() {
    let limits = Limits {
        publishes_in_flight_max: 2,
        pending_bytes_max: 400,
        ..Limits::default()
    };
    let mut rig = Rig::with(limits);
    let topic = rig.topic("a");
    rig.sync_at_once = false;
    for _ in 0..2 {
        rig.publish(1, topic, &[message("x")]);
    }
    rig.publish(1, topic, &[message("x")]);
    assert!(rig.answers.is_empty(), "it stands behind those before it");
    rig.publish(2, topic, &[message(&"x".repeat(400))]);
    rig.publish(3, topic, &[message("x")]);
    assert_eq!(rig.refused(), "rate_limited");
    rig.sync();
    let told: Vec<_> = rig.answers.drain(..).collect();
    let code = |(to, _, answer): &(Peer, Option<Bytes>, Answer)| match answer {
        Answer::Published { last_seq, .. } => (to.key, last_seq.to_string()),
        Answer::Refused { refused, .. } => (to.key, refused.code().as_str().to_owned()),
        other => panic!("{other:?}"),
    };
    let told: Vec<_> = told.iter().map(code).collect();
    let expected = [(1, "1"), (1, "2"), (1, "rate_limited"), (2, "3")];
    assert_eq!(told, expected.map(|(key, text)| (key, text.to_owned())));
    rig.publish(1, topic, &[message("x")]);
    rig.sync();
    assert!(matches!(
        rig.answer(),
        Answer::Published { first_seq: 4, .. }
    ));
}

/// C-04
#[test]
fn messages_are_read_without_a_subscription() {
    let limits = Limits {
        read_bytes_max: 1,
        history_bytes_max: 600,
        ..Limits::default()
    };
    let mut rig = Rig::with(limits);
    let topic = rig.topic("a");
    rig.fill(topic, &["1", "42.50", "3", "4", "5", "6", "7", "8"]);
    rig.disk.damaged.push(3);
    rig.ask(
        1,
        Command::ReadMessages {
            topic: TopicRef::Id(topic),
            from_seq: 2,
            limit: 3,
        },
    );
    let Answer::Messages { messages, gaps, .. } = rig.answer() else {
        panic!()
    };
    let payloads: Vec<_> = messages
        .iter()
        .map(|m| (m.seq, m.payload.as_ref()))
        .collect();
    assert_eq!(payloads, [(2, b"42.50".as_ref()), (4, b"4"), (5, b"5")]);
    assert_eq!(
        gaps,
        [Gap {
            from: 3,
            to: 3,
            reason: GapReason::Damaged
        }]
    );
    rig.ask(
        1,
        Command::ReadMessages {
            topic: TopicRef::Id(topic),
            from_seq: 0,
            limit: 100,
        },
    );
    let Answer::Messages { messages, .. } = rig.answer() else {
        panic!()
    };
    assert!(messages.len() < 7, "history_bytes_max ends an answer");
    rig.ask(
        1,
        Command::ReadMessages {
            topic: TopicRef::Id(topic),
            from_seq: 9,
            limit: 100,
        },
    );
    assert!(matches!(rig.answer(), Answer::Messages { messages, .. } if messages.is_empty()));
}

/// L14: keys of a topic to which nothing is published any more end too, here and in the log
#[test]
fn keys_of_an_idle_topic_end() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.publish(1, topic, &[keyed("1", "k")]);
    rig.answers.clear();
    rig.pass_time(300_000);
    assert!(rig.disk.forgotten.is_empty());
    let due = rig.home.poll_time_ms().unwrap() - rig.now.mono_ms;
    rig.pass_time(due);
    assert_eq!(rig.disk.forgotten.get(&topic), Some(&1));
    assert_eq!(rig.home.poll_time_ms(), None, "nothing is left to look at");
    rig.publish(1, topic, &[keyed("other", "k")]);
    assert!(matches!(
        rig.answer(),
        Answer::Published {
            last_seq: 2,
            duplicate: false,
            ..
        }
    ));
    // And after a restart.
    rig.crash();
    let due = rig.home.poll_time_ms().unwrap();
    rig.pass_time(due.saturating_sub(rig.now.mono_ms) + 1_200_000);
    rig.pass_time(1_200_000);
    assert_eq!(rig.disk.forgotten.get(&topic), Some(&2));
}

/// L19: a wall clock that jumps ahead makes no key old
#[test]
fn keys_outlive_a_jump_of_the_clock() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.publish(1, topic, &[keyed("1", "k")]);
    rig.answers.clear();
    for jump_ms in [86_400_000_i64, -172_800_000] {
        rig.now.unix_ms = rig.now.unix_ms.saturating_add_signed(jump_ms);
        rig.pass_time(1_000);
        rig.publish(1, topic, &[keyed("1", "k")]);
        assert!(matches!(
            rig.answer(),
            Answer::Published {
                last_seq: 1,
                duplicate: true,
                ..
            }
        ));
    }
}
