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
    rig.home.handle_failed();
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
