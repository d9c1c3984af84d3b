//! Who is bound: disconnect, takeover, fences, deletion, moves, row by row.

use super::*;

/// B-02, B-16, B-17, D-35, P4
#[test]
fn what_is_not_acked_is_sent_again_in_order() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 3);
    rig.subscribed(1, topic, "A", from(0));
    rig.answers.clear();
    rig.ack(1, topic, "A", 1);
    rig.ask(1, Command::Disconnect);
    rig.fill_many(topic, 1);
    let subscribed = rig.subscribed(2, topic, "A", from(0));
    assert_eq!(
        (subscribed.cursor, subscribed.next_seq, subscribed.resumed),
        (1, 2, true)
    );
    let again: Vec<_> = rig
        .answers()
        .into_iter()
        .map(|answer| match answer {
            Answer::Message {
                message,
                redelivered,
                ..
            } => (message.seq, redelivered),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(again, [(2, true), (3, true), (4, false)]);
    rig.pass_time(100);
    rig.crash();
    rig.subscribed(1, topic, "A", from(0));
    assert_eq!(rig.seqs(1), [2, 3, 4]);
}

/// D-36, D-33
#[test]
fn a_second_connection_takes_over_and_fences_the_first() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 3);
    rig.subscribed(1, topic, "A", from(0));
    rig.answers.clear();
    rig.subscribed(1, topic, "B", from(0));
    rig.answers.clear();
    rig.subscribe(2, topic, "A", from(0));
    let answers: Vec<_> = rig.answers.drain(..).collect();
    let taken = Answer::Unsubscribed {
        topic,
        sub_name: name("A"),
        reason: Ended::TakenOver,
    };
    assert_eq!((answers[0].0, &answers[0].2), (peer(1), &taken));
    assert!(answers[1..].iter().all(|(to, ..)| *to == peer(2)));
    rig.ack(1, topic, "A", 3);
    assert_eq!(rig.refused(), "fenced");
    rig.ack(1, topic, "B", 3);
    assert!(rig.answers.is_empty(), "its other subscription goes on");
    rig.fill_many(topic, 1);
    assert_eq!(rig.seqs(1), [4]);
    rig.subscribe(1, topic, "A", from(0));
    rig.answers.clear();
    rig.ack(1, topic, "A", 1);
    assert!(rig.answers.is_empty(), "it has taken it back");
    rig.ack(2, topic, "A", 1);
    assert_eq!(rig.refused(), "fenced");
}

/// D-36
#[test]
fn the_same_connection_again_is_idempotent() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 3);
    rig.subscribed(1, topic, "A", from(0));
    rig.answers.clear();
    let again = rig.subscribed(1, topic, "A", from(0));
    assert_eq!((again.cursor, again.next_seq, again.resumed), (0, 4, true));
    assert!(rig.answers.is_empty(), "nothing is sent twice");
}

/// D-36: taken over before its own record is durable
#[test]
fn a_takeover_may_come_before_the_first_answer() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.sync_at_once = false;
    rig.subscribe(1, topic, "A", from(0));
    rig.subscribe(2, topic, "A", from(0));
    rig.sync();
    let answers: Vec<_> = rig
        .answers
        .drain(..)
        .map(|(to, _, answer)| (to.key, answer))
        .collect();
    assert!(matches!(
        answers[0],
        (
            1,
            Answer::Unsubscribed {
                reason: Ended::TakenOver,
                ..
            }
        )
    ));
    assert!(matches!(answers[1], (2, Answer::Subscribed(_))));
    assert_eq!(answers.len(), 2);
}

/// D-37
#[test]
fn unsubscribe_keeps_the_cursor() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 3);
    rig.subscribed(1, topic, "A", from(0));
    rig.answers.clear();
    rig.ack(1, topic, "A", 2);
    let unsubscribe = || Command::Unsubscribe {
        topic: TopicRef::Id(topic),
        sub_name: name("A"),
    };
    rig.ask(1, unsubscribe());
    let reason = Ended::Requested;
    assert_eq!(
        rig.answer(),
        Answer::Unsubscribed {
            topic,
            sub_name: name("A"),
            reason
        }
    );
    rig.fill_many(topic, 1);
    assert!(rig.answers.is_empty());
    rig.ask(1, unsubscribe());
    assert_eq!(rig.refused(), "not_subscribed");
    assert_eq!(rig.subscribed(1, topic, "A", from(0)).cursor, 2);
    assert_eq!(rig.seqs(1), [3, 4]);
}

/// B-13, B-14, D-37: clients drop out one by one
#[test]
fn a_deleted_subscription_gets_nothing_more() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    let ids: Vec<_> = (1..=3)
        .map(|key| {
            rig.subscribed(key, topic, &format!("sub{key}"), from(0))
                .subscription
        })
        .collect();
    for (gone, id) in ids.iter().enumerate() {
        rig.fill_many(topic, 1);
        let mut reached: Vec<_> = rig.answers.drain(..).map(|(to, ..)| to.key).collect();
        reached.sort_unstable();
        assert_eq!(reached, ((gone as u64 + 1)..=3).collect::<Vec<_>>());
        rig.ask(50, Command::DeleteSubscription { subscription: *id });
        let sub_name: Arc<str> = format!("sub{}", gone + 1).into();
        let ended = Answer::Unsubscribed {
            topic,
            sub_name,
            reason: Ended::Deleted,
        };
        assert_eq!(rig.answers(), [ended, Answer::Deleted]);
        rig.ask(50, Command::DeleteSubscription { subscription: *id });
        assert_eq!(rig.refused(), "not_subscribed");
    }
    rig.fill_many(topic, 1);
    assert!(rig.answers.is_empty());
    rig.crash();
    assert!(!rig.subscribed(1, topic, "sub1", from(0)).resumed);
}

/// C-05, D-30
#[test]
fn a_cursor_can_be_moved_on_purpose() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 4);
    let id = rig.subscribed(1, topic, "A", Open::default()).subscription;
    let mut moved = |from_seq| {
        rig.ask(
            5,
            Command::MoveSubscription {
                subscription: id,
                from_seq,
            },
        );
        let answers: Vec<_> = rig.answers.drain(..).collect();
        let cursor = answers.iter().find_map(|(_, _, answer)| match answer {
            Answer::Subscription(view) => Some(view.cursor),
            _ => None,
        });
        (
            cursor,
            answers.iter().filter(|(to, ..)| to.key == 1).count(),
        )
    };
    assert_eq!(moved(3), (Some(2), 2), "the reader goes on from there");
    assert_eq!(moved(5), (Some(4), 0));
    assert_eq!(moved(6), (None, 0));
    rig.crash();
    assert_eq!(rig.subscribed(1, topic, "A", from(0)).cursor, 4);
}

/// Limits: bindings and fences of a connection
#[test]
fn a_connection_has_a_bounded_number_of_subscriptions() {
    let limits = Limits {
        subscriptions_per_connection_max: 2,
        ..Limits::default()
    };
    let mut rig = Rig::with(limits);
    let topic = rig.topic("a");
    rig.subscribed(1, topic, "A", from(0));
    rig.subscribed(1, topic, "B", from(0));
    rig.subscribe(1, topic, "C", from(0));
    assert_eq!(rig.refused(), "subscription_limit");
    rig.subscribed(1, topic, "B", from(0));
    rig.ask(1, Command::Disconnect);
    rig.ask(
        1,
        Command::ListSubscriptions {
            topic: None,
            sub_name: None,
            after: None,
            limit: 9,
        },
    );
    let Answer::Subscriptions(views) = rig.answer() else {
        panic!()
    };
    assert_eq!(
        views.iter().map(|view| view.attached).collect::<Vec<_>>(),
        [false, false]
    );
    let sub_name = Some(name("B"));
    let topic = Some(TopicRef::Id(topic));
    rig.ask(
        1,
        Command::ListSubscriptions {
            topic,
            sub_name,
            after: None,
            limit: 9,
        },
    );
    let Answer::Subscriptions(views) = rig.answer() else {
        panic!()
    };
    assert_eq!(views.len(), 1);
}

/// D-33: an ack that crosses the end of its subscription is no mistake
#[test]
fn an_ack_may_cross_the_deletion() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 2);
    let id = rig.subscribed(1, topic, "A", from(0)).subscription;
    rig.answers.clear();
    rig.sync_at_once = false;
    rig.ask(2, Command::DeleteSubscription { subscription: id });
    rig.ack(1, topic, "A", 2);
    assert!(rig.answers.is_empty());
    rig.pass_time(100);
    rig.sync();
    assert_eq!(
        rig.answers().len(),
        2,
        "the end, and the answer to the deletion"
    );
    rig.ack(1, topic, "A", 2);
    assert_eq!(rig.refused(), "not_subscribed");
}

/// D-36: the configuration may let the first one stay
#[test]
fn a_duplicate_may_be_refused() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.subscribed(1, topic, "A", from(0));
    let open = Open {
        reject_duplicate: true,
        ..from(0)
    };
    rig.subscribe(2, topic, "A", open.clone());
    assert_eq!(rig.refused(), "fenced");
    rig.ask(1, Command::Disconnect);
    assert!(rig.subscribed(2, topic, "A", open).resumed);
}

/// What waits for a subscription's record, before the disk says anything.
fn early(count: usize, limit: u32) -> (Rig, HomedId) {
    let mut rig = Rig::with(Limits {
        publishes_in_flight_max: limit,
        ..Limits::default()
    });
    let topic = rig.topic("a");
    rig.sync_at_once = false;
    (0..count).for_each(|_| rig.subscribe(1, topic, "A", from(0)));
    (rig, topic)
}

/// S9: what waits for the record is bounded, the full case is a refusal, and the bound is given back
#[test]
fn what_waits_for_a_record_is_bounded() {
    let (mut rig, topic) = early(4, 2);
    assert_eq!(rig.refused(), "rate_limited");
    rig.sync();
    let subscribed = rig.answers.drain(..);
    let subscribed = subscribed.filter(|(_, _, told)| matches!(told, Answer::Subscribed(_)));
    assert_eq!(subscribed.count(), 3);
    rig.sync_at_once = true;
    rig.fill_many(topic, 3);
}

/// S9: the record fails, and each that waited for it is refused
#[test]
fn what_waits_for_a_record_fails_with_it() {
    let (mut rig, _) = early(3, 8);
    rig.home.handle_failed(rig.now);
    rig.settle();
    let refused = rig.answers.drain(..);
    let refused = refused.filter(|(_, _, told)| matches!(told, Answer::Refused { .. }));
    assert_eq!(refused.count(), 3);
}

/// S9: who is gone is not bound by what it left behind
#[test]
fn what_waits_for_a_record_ends_with_its_peer() {
    let (mut rig, topic) = early(3, 8);
    rig.ask(1, Command::Disconnect);
    rig.sync();
    rig.sync_at_once = true;
    let (topic_id, mut open) = (topic, from(0));
    open.reject_duplicate = true;
    rig.answers.clear();
    rig.subscribed(2, topic_id, "A", open);
}
