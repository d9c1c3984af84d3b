//! Topics and tenants, row by row.

use super::*;

/// B-06, B-07, D-25
#[test]
fn a_topic_is_made_once_and_resolved_ever_after() {
    let mut rig = Rig::new();
    rig.sync_at_once = false;
    let retention = Retention::default();
    rig.ask(
        1,
        Command::ResolveTopic {
            name: name("a"),
            retention,
        },
    );
    rig.ask(
        2,
        Command::ResolveTopic {
            name: name("a"),
            retention,
        },
    );
    assert!(rig.answers.is_empty(), "not before it is durable");
    rig.sync();
    let made: Vec<_> = rig
        .answers()
        .into_iter()
        .map(|answer| match answer {
            Answer::Topic { view, created } => (view.id, view.first_seq, view.last_seq, created),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((made[0].1, made[0].2, made[0].3), (1, 0, true));
    assert_eq!((made[1].0, made[1].3), (made[0].0, false));
    rig.sync_at_once = true;
    assert_eq!(rig.topic("a"), made[0].0);
    rig.crash();
    assert_eq!(rig.topic("a"), made[0].0);
}

/// B-04, B-05, B-19, D-25, P10, T-A2
#[test]
fn a_foreign_topic_answers_as_an_unknown_one_in_every_operation() {
    let mut rig = Rig::new();
    let own = rig.topic_of("demo", "topic-system");
    let foreign = rig.topic_of("other", "topic-system");
    assert_ne!(own, foreign);
    rig.ask_as(
        "other",
        5,
        None,
        Command::Subscribe {
            topic: TopicRef::Id(foreign),
            sub_name: name("A"),
            maker: "".into(),
            open: Open::default(),
        },
    );
    let Answer::Subscribed(theirs) = rig.answer() else {
        panic!()
    };
    let unknown = HomedId::from_bytes([9; 16]);
    for command in [foreign, unknown].into_iter().flat_map(topic_commands) {
        rig.ask(1, command);
        assert_eq!(rig.refused(), "unknown_topic");
    }
    for subscription in [theirs.subscription, unknown] {
        let commands = [
            Command::GetSubscription { subscription },
            Command::MoveSubscription {
                subscription,
                from_seq: 0,
            },
            Command::DeleteSubscription { subscription },
        ];
        for command in commands {
            rig.ask(1, command);
            assert_eq!(rig.refused(), "not_subscribed");
        }
    }
    rig.ask(
        1,
        Command::ListTopics {
            after: None,
            limit: 10,
        },
    );
    let Answer::Topics(views) = rig.answer() else {
        panic!()
    };
    assert_eq!(views.iter().map(|view| view.id).collect::<Vec<_>>(), [own]);
    rig.ask(
        1,
        Command::ListSubscriptions {
            topic: None,
            sub_name: None,
            after: None,
            limit: 9,
        },
    );
    assert_eq!(rig.answer(), Answer::Subscriptions(Vec::new()));
}

/// Every operation on a topic.
fn topic_commands(id: HomedId) -> [Command; 8] {
    let topic = TopicRef::Id(id);
    let sub_name = name("A");
    let messages: NewMessages = [message("1")].into_iter().collect();
    [
        Command::GetTopic {
            topic: topic.clone(),
        },
        Command::DeleteTopic {
            topic: topic.clone(),
        },
        Command::Publish {
            topic: topic.clone(),
            publisher: name("p"),
            messages,
        },
        Command::Subscribe {
            topic: topic.clone(),
            sub_name: sub_name.clone(),
            maker: "".into(),
            open: Open::default(),
        },
        Command::Unsubscribe {
            topic: topic.clone(),
            sub_name: sub_name.clone(),
        },
        Command::Ack {
            topic: topic.clone(),
            sub_name,
            seq: 0,
        },
        Command::ReadMessages {
            topic: topic.clone(),
            from_seq: 0,
            limit: 1,
        },
        Command::ListSubscriptions {
            topic: Some(topic),
            sub_name: None,
            after: None,
            limit: 10,
        },
    ]
}

/// D-25: pages by name
#[test]
fn topics_are_listed_by_name_in_pages() {
    let mut rig = Rig::new();
    for topic in ["c", "a", "b"] {
        rig.topic(topic);
    }
    let mut after = None;
    let mut names = String::new();
    loop {
        rig.ask(
            1,
            Command::ListTopics {
                after: after.clone(),
                limit: 2,
            },
        );
        let Answer::Topics(views) = rig.answer() else {
            panic!()
        };
        let Some(last) = views.last() else { break };
        after = Some(last.name.clone());
        views.iter().for_each(|view| names.push_str(&view.name));
    }
    assert_eq!(names, "abc");
}

/// What a topic keeps is changed once that is durable, and only by its tenant
#[test]
fn the_retention_of_a_topic_is_changed() {
    let mut rig = Rig::new();
    let topic = rig.topic("a");
    let retention = Retention {
        messages_max: Some(3),
        ..Retention::default()
    };
    let change = |named: TopicRef| Command::ChangeRetention {
        topic: named,
        retention,
    };
    rig.ask_as("other", 1, None, change(TopicRef::Id(topic)));
    assert_eq!(rig.refused(), "unknown_topic");
    rig.sync_at_once = false;
    rig.ask(1, change(TopicRef::Name(name("a"))));
    assert!(rig.answers.is_empty(), "it waits for the disk");
    rig.sync();
    let answer = rig.answer();
    assert!(
        matches!(&answer, Answer::Topic { view, created: false } if view.retention == retention),
        "{answer:?}"
    );
    rig.crash();
    rig.ask(
        1,
        Command::GetTopic {
            topic: TopicRef::Id(topic),
        },
    );
    assert!(matches!(rig.answer(), Answer::Topic { view, .. } if view.retention == retention));
    rig.home.handle_failed(rig.now);
    rig.settle();
    rig.ask(1, change(TopicRef::Id(topic)));
    assert_eq!(rig.refused(), "storage_failed");
}

/// L20: such a topic could never be found by its name
#[test]
fn a_name_in_the_form_of_an_id_is_refused() {
    let mut rig = Rig::new();
    for text in [
        "0190a6e2-4b1c-7c3d-8e4f-0123456789ab",
        "0190A6E2-4B1C-7C3D-8E4F-0123456789AB",
        "00000000-0000-0000-0000-000000000000",
    ] {
        let retention = Retention::default();
        let name = name(text);
        rig.ask(1, Command::ResolveTopic { name, retention });
        assert_eq!(rig.refused(), "invalid_message", "{text}");
    }
    for text in ["0190a6e24b1c7c3d8e4f0123456789ab", "0190a6e2-4b1c"] {
        let id = rig.topic(text);
        rig.publish_to(1, TopicRef::parse(text), &[message("1")]);
        assert!(matches!(rig.answer(), Answer::Published { topic, .. } if topic == id));
    }
}
