//! A full disk and a broken one.

use super::*;

/// P5, D-26: refused before anything is written, and it goes on by itself
#[test]
fn a_full_disk_refuses_publishes_and_nothing_else() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    let spare = rig.topic("spare");
    rig.fill(topic, &["1"]);
    let id = rig.subscribed(1, topic, "A", from(0)).subscription;
    rig.answers.clear();
    rig.disk.full = true;
    rig.publish(1, topic, &[keyed("2", "k"), message("3")]);
    assert_eq!(rig.refused(), "storage_full");
    let retention = Retention::default();
    rig.ask(
        1,
        Command::ResolveTopic {
            name: name("new"),
            retention,
        },
    );
    assert_eq!(rig.refused(), "storage_full");
    rig.subscribe(1, topic, "new", from(0));
    assert_eq!(rig.refused(), "storage_full");
    rig.ask(
        1,
        Command::ReadMessages {
            topic: TopicRef::Id(topic),
            from_seq: 0,
            limit: 9,
        },
    );
    assert!(matches!(rig.answer(), Answer::Messages { messages, .. } if messages.len() == 1));
    rig.ack(1, topic, "A", 1);
    rig.pass_time(100);
    assert_eq!(rig.disk.cursors()[&id], 1, "acks still count");
    rig.ask(
        1,
        Command::DeleteTopic {
            topic: TopicRef::Id(spare),
        },
    );
    assert_eq!(rig.answer(), Answer::Deleted);
    rig.disk.full = false;
    rig.publish(1, topic, &[keyed("other", "k")]);
    let answers = rig.answers();
    assert!(
        matches!(
            answers[0],
            Answer::Published {
                first_seq: 2,
                duplicate: false,
                ..
            }
        ),
        "the refused publish has used neither a seq nor its key: {answers:?}"
    );
    assert!(matches!(&answers[1], Answer::Message { message, .. } if message.seq == 2));
    rig.topic("new");
    assert!(!rig.subscribed(1, topic, "new", from(0)).resumed);
}

/// P5: a repeat of a publish that waits is refused with it
#[test]
fn a_failed_log_refuses_everything_that_waits_and_all_that_comes() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    let doomed = rig.topic("doomed");
    rig.fill(topic, &["1", "2"]);
    let id = rig.subscribed(1, topic, "A", from(0)).subscription;
    rig.answers.clear();
    rig.sync_at_once = false;
    rig.publish(1, topic, &[keyed("3", "k")]);
    rig.publish(2, topic, &[keyed("3", "k")]);
    let retention = Retention::default();
    rig.ask(
        3,
        Command::ResolveTopic {
            name: name("new"),
            retention,
        },
    );
    rig.subscribe(4, topic, "B", from(0));
    rig.ask(
        5,
        Command::DeleteTopic {
            topic: TopicRef::Id(doomed),
        },
    );
    rig.ask(6, Command::DeleteSubscription { subscription: id });
    rig.home.handle_failed(rig.now);
    rig.settle();
    let told: Vec<_> = rig
        .answers
        .drain(..)
        .map(|(to, _, answer)| match answer {
            Answer::Refused { refused, .. } => (to.key, refused.code().as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        (1..=6)
            .map(|key| (key, "storage_failed"))
            .collect::<Vec<_>>()
    );
    rig.publish(1, topic, &[message("4")]);
    assert_eq!(rig.refused(), "storage_failed");
    rig.subscribe(4, topic, "B", from(0));
    assert_eq!(rig.refused(), "storage_failed");
    rig.subscribed(
        4,
        topic,
        "A",
        Open {
            seek: true,
            ..from(1)
        },
    );
    let answers = rig.answers_to(4);
    assert_eq!(answers.len(), 2, "what is durable is still delivered");
    rig.ack(4, topic, "A", 2);
    assert!(rig.answers.is_empty());
    assert_eq!(rig.home.poll_time_ms(), None, "no cursor can be written");
    assert!(rig.home.totals().failed);
    rig.crash();
    rig.sync_at_once = true;
    rig.publish(1, topic, &[message("3")]);
    assert!(matches!(
        rig.answer(),
        Answer::Published { first_seq: 3, .. }
    ));
}

/// L1: what the home wants appended when the log fails is never carried out
#[test]
fn a_log_that_fails_before_an_append_is_carried_out_is_given_nothing() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill(topic, &["1"]);
    rig.subscribed(1, topic, "A", from(0));
    rig.answers.clear();
    rig.sync_at_once = false;
    rig.ack(1, topic, "A", 1);
    rig.now.mono_ms += 100;
    let publish = Command::Publish {
        topic: TopicRef::Id(topic),
        publisher: "svc".into(),
        messages: [message("2")].into_iter().collect(),
    };
    for key in [2, 3] {
        let caller = Caller {
            tenant: tenant("demo"),
            rights: crate::auth::Rights::everything(),
            peer: peer(key),
            reference: None,
        };
        let command = publish.clone();
        rig.home
            .handle_request(rig.now, Request { caller, command });
        // One has its room and no disk yet, the other neither.
        if key == 2 {
            rig.home.handle_room(rig.now, Ok(()));
        }
    }
    rig.home.handle_time(rig.now);
    rig.home.handle_failed(rig.now);
    rig.settle();
    let told: Vec<_> = rig
        .answers
        .drain(..)
        .map(|(to, _, answer)| (to.key, answer))
        .collect();
    assert!(
        matches!(
            &told[..],
            [(2, Answer::Refused { .. }), (3, Answer::Refused { .. })]
        ),
        "{told:?}"
    );
    assert_eq!(rig.disk.synced().len(), rig.disk.records.len());
    assert_eq!((rig.home.in_line(), rig.home.need()), (0, None));
}

/// L1, L17: what comes while the log cannot say whether it has room is served in its order, and
/// refused in its order if it has none. A peer that is gone by then is bound to nothing.
#[test]
fn requests_stand_in_line_until_there_is_room() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill(topic, &["1"]);
    rig.disk.busy = true;
    rig.publish(1, topic, &[message("2")]);
    rig.publish(1, topic, &[message(&"x".repeat(1 << 20))]);
    rig.publish(1, topic, &[message("3")]);
    rig.subscribe(2, topic, "A", from(0));
    rig.ask(2, Command::Disconnect);
    assert!(rig.answers.is_empty());
    assert_eq!(rig.home.in_line(), 5);
    rig.disk.busy = false;
    rig.settle();
    let seqs = |answers: Vec<Answer>| -> Vec<_> {
        let seq = |answer| match answer {
            Answer::Published { last_seq, .. } => last_seq.to_string(),
            Answer::Refused { refused, .. } => refused.code().as_str().to_owned(),
            other => panic!("{other:?}"),
        };
        answers.into_iter().map(seq).collect()
    };
    assert_eq!(seqs(rig.answers_to(1)), ["2", "too_large", "3"]);
    assert_eq!(rig.home.in_line(), 0);
    rig.fill(topic, &["4"]);
    assert!(rig.seqs(2).is_empty(), "it is gone");
    rig.sync_at_once = false;
    rig.publish(1, topic, &[message("5")]);
    rig.disk.full = true;
    rig.publish(1, topic, &[message("6")]);
    rig.publish_to(1, TopicRef::Name(name("nowhere")), &[message("6")]);
    assert!(
        rig.answers.is_empty(),
        "they stand behind the one that waits"
    );
    rig.publish(3, topic, &[message("6")]);
    assert_eq!(
        seqs(rig.answers_to(3)),
        ["storage_full"],
        "nothing of it waits"
    );
    rig.publish(1, topic, &[message("6")]);
    rig.sync();
    assert_eq!(
        seqs(rig.answers_to(1)),
        ["5", "storage_full", "unknown_topic", "storage_full"]
    );
}

/// L19: what the log can never have room for is refused with its own error, and what stands behind it
/// in line has its own answer: other publishes, of the same peer and of others, topics, acks, ends
#[test]
fn a_record_that_is_too_large_refuses_nobody_else() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    let spare = rig.topic("spare");
    rig.disk.busy = true;
    rig.publish(1, topic, &[message("1")]);
    let many: Vec<NewMessage> = (0..40).map(|_| message(&"x".repeat(60_000))).collect();
    rig.publish(1, topic, &many);
    rig.publish(1, topic, &[message("2")]);
    rig.publish(2, topic, &many);
    rig.publish(3, topic, &[message("3")]);
    let (name, retention) = (name("new"), Retention::default());
    rig.ask(4, Command::ResolveTopic { name, retention });
    let topic_end = TopicRef::Id(spare);
    rig.ask(5, Command::DeleteTopic { topic: topic_end });
    let bytes_max = 1 << 20;
    while let Some(need) = rig.home.need() {
        let room = match need.bytes <= bytes_max {
            true => Ok(()),
            false => Err(Refused::TooLarge {
                bytes: need.bytes,
                bytes_max,
            }),
        };
        rig.home.handle_room(rig.now, room);
        rig.carry_out();
    }
    rig.sync();
    let told: Vec<(u64, String)> = rig
        .answers
        .drain(..)
        .map(|(to, _, answer)| {
            let text = match answer {
                Answer::Published { last_seq, .. } => last_seq.to_string(),
                Answer::Refused { refused, .. } => refused.code().as_str().to_owned(),
                Answer::Topic { .. } => "topic".to_owned(),
                Answer::Deleted => "deleted".to_owned(),
                other => panic!("{other:?}"),
            };
            (to.key, text)
        })
        .collect();
    let of = |key: u64| -> Vec<&str> {
        let own = told.iter().filter(|(to, _)| *to == key);
        own.map(|(_, text)| text.as_str()).collect()
    };
    assert_eq!(of(1), ["1", "too_large", "2"]);
    assert_eq!(of(2), ["too_large"]);
    assert_eq!(of(3), ["3"]);
    assert_eq!((of(4), of(5)), (vec!["topic"], vec!["deleted"]));
}

/// A repeat needs no room, and a full disk has none
#[test]
fn a_repeat_is_answered_on_a_full_disk() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.publish(1, topic, &[keyed("1", "k")]);
    rig.answers.clear();
    rig.disk.full = true;
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

/// Nobody knows what became of what waits: it is neither acknowledged nor taken back, and the
/// home that is built from what is there then decides
#[test]
fn an_unknown_outcome_is_said_to_be_one() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill(topic, &["1"]);
    rig.subscribed(2, topic, "A", from(0));
    rig.answers.clear();
    rig.sync_at_once = false;
    rig.publish(1, topic, &[keyed("2", "k")]);
    rig.disk.busy = true;
    rig.publish(1, topic, &[message("3")]);
    rig.home.handle_unknown(rig.now);
    rig.settle();
    let told = rig.answers_to(1);
    let refused = |answer: &Answer| match answer {
        Answer::Refused { refused, .. } => *refused,
        other => panic!("{other:?}"),
    };
    let told: Vec<Refused> = told.iter().map(refused).collect();
    assert_eq!(told, [Refused::OutcomeUnknown, Refused::StorageFailed]);
    rig.disk.busy = false;
    // It was stored after all.
    rig.disk.sync_all();
    rig.crash();
    rig.sync_at_once = true;
    rig.publish(1, topic, &[keyed("2", "k")]);
    assert!(matches!(
        rig.answer(),
        Answer::Published {
            last_seq: 2,
            duplicate: true,
            ..
        }
    ));
}

/// A disk that cannot be read ends the binding, and says why
#[test]
fn an_unreadable_log_detaches() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill(topic, &["1"]);
    rig.read_at_once = false;
    rig.subscribed(1, topic, "A", from(0));
    rig.ask(
        2,
        Command::ReadMessages {
            topic: TopicRef::Id(topic),
            from_seq: 0,
            limit: 9,
        },
    );
    for read in std::mem::take(&mut rig.reads) {
        let Effect::Read { id, .. } = read else {
            panic!()
        };
        rig.home.handle_read_failed(id);
    }
    rig.settle();
    let answers = rig.answers();
    let reason = Ended::StorageFailed;
    assert_eq!(
        answers[0],
        Answer::Unsubscribed {
            topic,
            sub_name: name("A"),
            reason
        }
    );
    assert!(
        matches!(&answers[1], Answer::Refused { refused, .. } if refused.code().as_str() == "storage_failed")
    );
}

/// A read that comes back to another binding is dropped, and its credit with it
#[test]
fn a_late_read_is_not_delivered_to_another_binding() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill(topic, &["1", "2"]);
    rig.read_at_once = false;
    rig.subscribed(1, topic, "A", from(0));
    rig.subscribe(2, topic, "A", from(0));
    rig.answers.clear();
    rig.read();
    assert!(rig.answers.is_empty());
    rig.read();
    assert_eq!(rig.seqs(2), [1, 2]);
    rig.ask(2, Command::Disconnect);
    rig.read_at_once = true;
    rig.subscribed(1, topic, "A", from(0));
    assert_eq!(rig.seqs(1), [1, 2]);
}

/// P5: a topic whose end could not be stored is kept, and cannot be read in this life: readers are told
/// so in place of an empty page, or of asking again for ever.
#[test]
fn a_topic_whose_end_has_failed_is_said_to_be_unreadable() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill(topic, &["1", "2"]);
    rig.crash();
    (rig.read_at_once, rig.sync_at_once) = (false, false);
    let page = || Command::ReadMessages {
        topic: TopicRef::Id(topic),
        from_seq: 0,
        limit: 9,
    };
    let fail_reads = |rig: &mut Rig| {
        while let Some(Effect::Read { id, .. }) = rig.reads.pop_front() {
            rig.home.handle_read_failed(id);
            rig.settle();
        }
    };
    rig.subscribe(1, topic, "A", from(0));
    rig.sync();
    rig.ask(2, page());
    rig.answers.clear();
    rig.ask(
        3,
        Command::DeleteTopic {
            topic: TopicRef::Id(topic),
        },
    );
    // The log has let go of it.
    fail_reads(&mut rig);
    assert!(rig.reads.is_empty(), "nobody asks again");
    assert_eq!(rig.refused(), "unknown_topic", "the page, and nothing else");
    rig.home.handle_failed(rig.now);
    rig.settle();
    assert_eq!(rig.refused(), "storage_failed", "the end");
    rig.ask(2, page());
    fail_reads(&mut rig);
    let told = rig.answers();
    let is_ended = |answer: &Answer| {
        let reason = Ended::StorageFailed;
        matches!(answer, Answer::Unsubscribed { reason: told, .. } if *told == reason)
    };
    assert!(told.iter().any(is_ended), "{told:?}");
    let refused = told.iter().filter(|answer| {
        let refused = Refused::StorageFailed;
        matches!(answer, Answer::Refused { refused: told, .. } if *told == refused)
    });
    assert_eq!(refused.count(), 1, "{told:?}");
}
