//! What a subscription gets: start, delivery, window, credit, acks, gaps, row by row.

use super::*;

/// B-09, D-38
#[test]
fn replay_goes_live_without_a_gap_or_a_double() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 5);
    rig.read_at_once = false;
    rig.subscribe(1, topic, "A", from(0));
    rig.publish(9, topic, &[message("6")]);
    rig.read();
    rig.publish(9, topic, &[message("7")]);
    rig.read_at_once = true;
    rig.settle();
    assert_eq!(rig.seqs(1), [1, 2, 3, 4, 5, 6, 7]);
}

/// D-28
#[test]
fn nothing_is_delivered_before_it_is_durable() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.subscribed(1, topic, "A", from(0));
    rig.sync_at_once = false;
    rig.publish(9, topic, &[message("1")]);
    rig.publish(9, topic, &[message("2")]);
    assert!(rig.answers.is_empty());
    rig.sync_some(1);
    assert_eq!(rig.seqs(1), [1]);
    rig.sync();
    assert_eq!(rig.seqs(1), [2]);
}

/// D-29, D-30
#[test]
fn from_seq_is_the_start_of_a_new_subscription_only() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 4);
    let mut start = |sub_name: &str, open: Open| {
        let subscribed = rig.subscribed(1, topic, sub_name, open);
        assert_eq!((subscribed.first_seq, subscribed.last_seq), (1, 4));
        assert_eq!(subscribed.epoch, EPOCH);
        assert_eq!(subscribed.sub_name.as_ref(), sub_name);
        rig.answers.clear();
        (subscribed.cursor, subscribed.next_seq, subscribed.resumed)
    };
    assert_eq!(start("zero", from(0)), (0, 1, false));
    assert_eq!(start("one", from(1)), (0, 1, false));
    assert_eq!(start("three", from(3)), (2, 3, false));
    assert_eq!(start("next", from(5)), (4, 5, false));
    assert_eq!(start("live", Open::default()), (4, 5, false));
    assert_eq!(start("next", from(0)), (4, 5, true), "the cursor wins");
    assert_eq!(
        start(
            "next",
            Open {
                seek: true,
                ..from(2)
            }
        ),
        (1, 2, true)
    );
    rig.subscribe(1, topic, "far", from(6));
    assert_eq!(rig.refused(), "seq_out_of_range");
}

/// B-13, D-29: the id in the answer deletes it
#[test]
fn subscribed_waits_until_the_subscription_is_durable() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 1);
    rig.sync_at_once = false;
    rig.subscribe(1, topic, "A", from(0));
    assert!(rig.answers.is_empty());
    rig.sync();
    rig.settle();
    let answers = rig.answers();
    let Answer::Subscribed(subscribed) = &answers[0] else {
        panic!()
    };
    assert!(matches!(answers[1], Answer::Message { .. }));
    rig.crash();
    rig.ask(
        1,
        Command::GetSubscription {
            subscription: subscribed.subscription,
        },
    );
    assert!(matches!(rig.answer(), Answer::Subscription(view) if !view.attached));
}

/// B-18, D-34, P9
#[test]
fn a_full_window_stops_reading_until_an_ack() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 10);
    let open = Open {
        in_flight_max: Some(3),
        ..from(0)
    };
    rig.subscribed(1, topic, "A", open);
    assert_eq!(rig.seqs(1), [1, 2, 3]);
    assert!(rig.reads.is_empty(), "a full window reads nothing");
    rig.fill_many(topic, 1);
    assert!(rig.seqs(1).is_empty());
    rig.ack(1, topic, "A", 2);
    assert_eq!(rig.seqs(1), [4, 5]);
    rig.ack(1, topic, "A", 5);
    assert_eq!(rig.seqs(1), [6, 7, 8]);
}

/// D-34: bytes count too, and one message always fits
#[test]
fn a_window_is_bounded_in_bytes_with_at_least_one_message() {
    let limits = Limits {
        window_bytes_max: 300,
        ..Limits::default()
    };
    let mut rig = Rig::with(limits);
    let topic = rig.topic("a");
    let large = "x".repeat(1000);
    rig.fill(topic, &[&large, "2", "3", "4", "5"]);
    rig.subscribed(1, topic, "A", from(0));
    assert_eq!(rig.seqs(1), [1]);
    rig.ack(1, topic, "A", 1);
    assert_eq!(
        rig.seqs(1),
        [2, 3, 4],
        "3 x 129 bytes: the last one overdraws"
    );
}

/// D-34: the server's bound
#[test]
fn a_client_may_not_ask_for_more_than_the_bound() {
    let mut rig = Rig::with(Limits {
        window_messages_max: 2,
        ..Limits::default()
    });
    let topic = rig.topic("a");
    rig.fill_many(topic, 4);
    rig.subscribed(
        1,
        topic,
        "A",
        Open {
            in_flight_max: Some(1_000_000),
            ..from(0)
        },
    );
    assert_eq!(rig.seqs(1), [1, 2]);
    rig.subscribed(
        1,
        topic,
        "B",
        Open {
            in_flight_max: Some(0),
            ..from(0)
        },
    );
    assert_eq!(rig.seqs(1), [1]);
}

/// B-18, P9: a connection that does not read pauses its own delivery and nothing else
#[test]
fn without_credit_only_the_own_delivery_pauses() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 3);
    let subscribe = |sub_name: &str| Command::Subscribe {
        topic: TopicRef::Id(topic),
        sub_name: sub_name.into(),
        maker: "".into(),
        open: from(0),
    };
    rig.ask(1, subscribe("slow"));
    assert!(matches!(rig.answer(), Answer::Subscribed(_)));
    rig.subscribed(2, topic, "fast", from(0));
    assert_eq!(rig.seqs(2), [1, 2, 3]);
    rig.ask(1, Command::Credit { bytes: 1 });
    assert_eq!(rig.seqs(1), [1], "one message may overdraw");
    rig.ask(1, Command::Credit { bytes: 128 });
    assert!(rig.seqs(1).is_empty(), "and is paid back first");
    rig.ask(1, Command::Credit { bytes: 130 });
    assert_eq!(rig.seqs(1), [2, 3]);
    rig.fill_many(topic, 1);
    assert_eq!(rig.seqs(2), [4]);
}

/// One connection's readers share its credit and do not spend it twice
#[test]
fn reads_of_one_connection_share_its_credit() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 10);
    rig.read_at_once = false;
    rig.subscribe(1, topic, "A", from(0));
    rig.subscribe(1, topic, "B", from(0));
    let asked: u64 = rig
        .reads
        .iter()
        .map(|read| match read {
            Effect::Read { bytes_max, .. } => *bytes_max,
            _ => 0,
        })
        .sum();
    assert!(asked <= 2 << 18, "{asked}");
    rig.read_at_once = true;
    rig.settle();
    assert_eq!(rig.seqs(1).len(), 20);
}

/// B-12, D-33
#[test]
fn acks_are_cumulative_and_checked() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 5);
    let id = rig.subscribed(1, topic, "A", from(0)).subscription;
    rig.answers.clear();
    rig.ack(1, topic, "A", 3);
    rig.ack(1, topic, "A", 2);
    assert!(rig.answers.is_empty(), "no frame unless one is asked for");
    rig.ask(1, Command::GetSubscription { subscription: id });
    let Answer::Subscription(view) = rig.answer() else {
        panic!()
    };
    assert_eq!(
        (view.cursor, view.in_flight, view.last_seq, view.attached),
        (3, 2, 5, true)
    );
    rig.ack(1, topic, "A", 6);
    assert_eq!(rig.refused(), "ack_ahead");
    rig.ack(1, topic, "B", 1);
    assert_eq!(rig.refused(), "not_subscribed");
    rig.ack(2, topic, "A", 1);
    assert_eq!(rig.refused(), "not_subscribed");
}

/// D-33: `acked` says that the cursor is on the disk
#[test]
fn an_ack_with_a_reference_is_answered_once_durable() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 5);
    let id = rig.subscribed(1, topic, "A", from(0)).subscription;
    rig.answers.clear();
    rig.sync_at_once = false;
    for (seq, reference) in [(2, "r2"), (4, "r4")] {
        let (topic, sub_name) = (TopicRef::Id(topic), name("A"));
        rig.ask_as(
            "demo",
            1,
            Some(reference),
            Command::Ack {
                topic,
                sub_name,
                seq,
            },
        );
    }
    assert!(rig.answers.is_empty());
    rig.sync();
    assert_eq!(
        rig.disk.cursors()[&id],
        2,
        "one record is under way at a time"
    );
    rig.sync();
    let acked = |seq| Answer::Acked {
        topic,
        sub_name: name("A"),
        seq,
    };
    assert_eq!(rig.answers(), [acked(2), acked(4)]);
    rig.crash();
    rig.sync_at_once = true;
    assert_eq!(rig.subscribed(1, topic, "A", from(0)).cursor, 4);
}

/// D-33, P4: many acks, one record, at most 100 ms late
#[test]
fn cursor_moves_are_batched_and_soon_durable() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 20);
    let ids = ["A", "B"].map(|sub_name| {
        let id = rig.subscribed(1, topic, sub_name, from(0)).subscription;
        rig.answers.clear();
        id
    });
    let records = rig.disk.records.len();
    for seq in 1..=20 {
        rig.ack(1, topic, "A", seq);
        rig.ack(1, topic, "B", seq / 2);
    }
    assert_eq!(rig.disk.records.len(), records);
    let due = rig.home.poll_time_ms().unwrap();
    assert!(due <= rig.now.mono_ms + 100);
    rig.pass_time(due - rig.now.mono_ms);
    assert_eq!(rig.disk.records.len(), records + 1);
    let cursors = rig.disk.cursors();
    assert_eq!((cursors[&ids[0]], cursors[&ids[1]]), (20, 10));
    assert_eq!(rig.home.poll_time_ms(), None);
}

/// P13: a clean stop forgets no ack
#[test]
fn a_drain_flushes_the_cursors() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 2);
    rig.subscribed(1, topic, "A", from(0));
    rig.ack(1, topic, "A", 2);
    rig.home.handle_drain();
    rig.settle();
    rig.crash();
    assert_eq!(rig.subscribed(1, topic, "A", from(0)).cursor, 2);
}

/// D-33, L13: a cursor that moves while a record of cursors is under way is in the next one
#[test]
fn a_drain_waits_for_what_moved_behind_a_record_under_way() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill(topic, &["1", "2", "3"]);
    let id = rig.subscribed(1, topic, "A", from(0)).subscription;
    rig.answers.clear();
    rig.sync_at_once = false;
    rig.ack(1, topic, "A", 1);
    rig.pass_time(100);
    rig.ack(1, topic, "A", 2);
    assert!(!rig.home.is_drained());
    rig.home.handle_drain();
    rig.settle();
    assert!(!rig.home.is_drained(), "the first record is under way");
    rig.sync();
    rig.ack(1, topic, "A", 3);
    assert!(!rig.home.is_drained());
    rig.sync();
    rig.sync();
    assert!(rig.home.is_drained());
    assert_eq!(rig.disk.cursors()[&id], 3);
    rig.home.handle_failed(rig.now);
    assert!(
        rig.home.is_drained(),
        "a log that takes nothing is not waited for"
    );
}

/// D-31
#[test]
fn retention_that_passes_a_cursor_sends_a_gap() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.subscribed(1, topic, "A", from(0));
    rig.ask(1, Command::Disconnect);
    rig.fill_many(topic, 10);
    rig.trim(topic, 8);
    let subscribed = rig.subscribed(1, topic, "A", from(0));
    assert_eq!(
        (subscribed.cursor, subscribed.next_seq, subscribed.first_seq),
        (0, 8, 8)
    );
    let answers = rig.answers();
    let gap = Gap {
        from: 1,
        to: 7,
        reason: GapReason::Retention,
    };
    assert_eq!(
        answers[0],
        Answer::Gap {
            topic,
            sub_name: name("A"),
            gap
        }
    );
    assert_eq!(answers.len(), 4);
    rig.ack(1, topic, "A", 8);
    rig.pass_time(100);
    rig.crash();
    assert_eq!(rig.subscribed(1, topic, "A", from(0)).cursor, 8);
    rig.answers.clear();
    assert_eq!(
        rig.subscribed(1, topic, "B", from(0)).next_seq,
        8,
        "earliest kept: no gap"
    );
    assert!(
        !rig.answers()
            .iter()
            .any(|answer| matches!(answer, Answer::Gap { .. }))
    );
}

/// D-31, P6
#[test]
fn a_damaged_message_is_a_gap_and_the_rest_goes_on() {
    let mut rig = Rig::with(Limits {
        tail_bytes_max: 0,
        ..Limits::default()
    });
    let topic = rig.topic("a");
    rig.fill_many(topic, 4);
    rig.disk.damaged = vec![2, 4];
    rig.subscribed(1, topic, "A", from(0));
    let kinds: Vec<_> = rig
        .answers()
        .into_iter()
        .map(|answer| match answer {
            Answer::Message { message, .. } => (message.seq, 0),
            Answer::Gap { gap, .. } => (gap.from, gap.to),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [(1, 0), (2, 2), (3, 0), (4, 4)]);
    rig.ack(1, topic, "A", 3);
    rig.ask(1, Command::Disconnect);
    let again = rig.subscribed(1, topic, "A", from(0));
    assert_eq!(
        again.cursor, 4,
        "a gap behind the last ack is passed for good"
    );
}

/// D-32
#[test]
fn another_epoch_starts_over_and_says_so() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    rig.fill_many(topic, 2);
    rig.subscribed(1, topic, "A", Open::default());
    rig.ask(1, Command::Disconnect);
    let open = |epoch| Open {
        epoch: Some(epoch),
        ..Open::default()
    };
    rig.subscribed(1, topic, "A", open(EPOCH));
    assert!(rig.answers().is_empty());
    rig.subscribed(2, topic, "A", open(EPOCH + 1));
    let answers = rig.answers_to(2);
    let gap = Gap {
        from: 1,
        to: 0,
        reason: GapReason::Epoch,
    };
    assert_eq!(
        answers[0],
        Answer::Gap {
            topic,
            sub_name: name("A"),
            gap
        }
    );
    assert_eq!(answers.len(), 3);
    rig.subscribed(2, topic, "new", open(EPOCH + 1));
    assert!(matches!(rig.answers()[0], Answer::Gap { .. }));
}

/// The live tail is a cache: what it has lost is read
#[test]
fn a_small_tail_changes_nothing_but_reads() {
    for tail_bytes_max in [0, 300, 1 << 20] {
        let mut rig = Rig::with(Limits {
            tail_bytes_max,
            ..Limits::default()
        });
        let topic = rig.topic("a");
        let other = rig.topic("b");
        rig.subscribed(1, topic, "A", from(0));
        rig.subscribed(1, other, "A", from(0));
        rig.sync_at_once = false;
        for _ in 0..10 {
            rig.publish(9, topic, &[message("x"), message("y")]);
            rig.publish(9, other, &[message("x")]);
        }
        rig.sync();
        rig.settle();
        let mut seqs = rig.seqs(1);
        seqs.sort_unstable();
        let mut expected: Vec<Seq> = (1..=20).chain(1..=10).collect();
        expected.sort_unstable();
        assert_eq!(seqs, expected);
    }
}

/// D-31: who is told that all before a seq is gone may ack that before the gap is passed, which is told
/// all the same.
#[test]
fn what_is_gone_may_be_acked() {
    let mut rig = Rig::with(Limits {
        tail_bytes_max: 0,
        ..Limits::default()
    });
    let topic = rig.topic("a");
    rig.fill_many(topic, 5);
    rig.read_at_once = false;
    rig.subscribed(1, topic, "A", from(0));
    rig.trim(topic, 4);
    rig.answers.clear();
    rig.ack(1, topic, "A", 4);
    assert_eq!(rig.refused(), "ack_ahead");
    rig.ack(1, topic, "A", 3);
    assert!(rig.answers.is_empty(), "not refused");
    rig.reads.retain_mut(|read| match read {
        Effect::Read { id, .. } => {
            rig.home.handle_read(*id, Vec::new());
            false
        }
        _ => true,
    });
    rig.read_at_once = true;
    rig.settle();
    let gap = Gap {
        from: 1,
        to: 3,
        reason: GapReason::Retention,
    };
    let sub_name = name("A");
    let told = Answer::Gap {
        topic,
        sub_name,
        gap,
    };
    assert_eq!(rig.answers()[0], told);
    rig.pass_time(100);
    rig.crash();
    assert_eq!(rig.subscribed(1, topic, "A", from(0)).cursor, 3);
}

/// D-31: in the middle of a replay, and down to nothing
#[test]
fn retention_may_overtake_a_reader() {
    let mut rig = Rig::with(Limits {
        tail_bytes_max: 0,
        ..Limits::default()
    });
    let topic = rig.topic("a");
    rig.fill_many(topic, 5);
    rig.read_at_once = false;
    rig.subscribed(1, topic, "A", from(0));
    rig.trim(topic, 4);
    rig.reads.retain_mut(|read| match read {
        Effect::Read { id, .. } => {
            rig.home.handle_read(*id, Vec::new());
            false
        }
        _ => true,
    });
    rig.read_at_once = true;
    rig.settle();
    let answers = rig.answers();
    let gap = Gap {
        from: 1,
        to: 3,
        reason: GapReason::Retention,
    };
    assert_eq!(
        answers[0],
        Answer::Gap {
            topic,
            sub_name: name("A"),
            gap
        }
    );
    assert_eq!(answers.len(), 3);
    rig.ask(1, Command::Disconnect);
    rig.trim(topic, 6);
    assert_eq!(
        rig.home.usage().map(|(_, usage)| usage.bytes).sum::<u64>(),
        0
    );
    let subscribed = rig.subscribed(1, topic, "A", from(0));
    assert_eq!(
        (
            subscribed.first_seq,
            subscribed.last_seq,
            subscribed.next_seq
        ),
        (6, 5, 6)
    );
    rig.answers.clear();
    rig.fill_many(topic, 1);
    assert_eq!(rig.seqs(1), [6]);
}
