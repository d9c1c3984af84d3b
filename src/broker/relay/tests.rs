//! The home of relay topics, driven by hand: no shard, no task, no socket.

use crate::auth::Caller;

use super::*;

const LIMITS: HomeLimits = HomeLimits {
    handler_queue_max: 2,
    unhandled: Unhandled::Broadcast,
    topic_capacity: 2,
    last_bytes_max: 4_096,
};

struct Driver {
    home: Home,
    tenant: Tenant,
}

impl Driver {
    fn new(patterns: &[&str]) -> Self {
        let mut all = Patterns::default();
        for (index, pattern) in patterns.iter().enumerate() {
            all.insert(pattern, index).unwrap();
        }
        Self {
            home: Home::new(Arc::new(all), LIMITS, (0, 2)),
            tenant: Tenant::default(),
        }
    }

    fn key(conn_id: ConnId) -> ConnKey {
        ConnKey {
            shard: u16::try_from(conn_id % 2).unwrap(),
            lane: 0,
            slot: u32::try_from(conn_id).unwrap(),
            generation: 1,
        }
    }

    fn subscribe(&mut self, topic: &str, conn_id: ConnId) -> Vec<Effect> {
        self.subscribe_with(topic, conn_id, Wishes::default())
    }

    fn subscribe_with(&mut self, topic: &str, conn_id: ConnId, wishes: Wishes) -> Vec<Effect> {
        let caller = Caller::anonymous();
        let subscriber = Subscriber {
            key: Self::key(conn_id),
            conn_id,
            caller,
            asked: 0,
        };
        self.home
            .handle_subscribe(&self.tenant, topic, (subscriber, wishes));
        self.effects()
    }

    fn leave(&mut self, topic: &str, conn_id: ConnId, reason: LeaveReason) -> Vec<Effect> {
        let leaver = Leaver {
            key: Self::key(conn_id),
            conn_id,
            asked: 0,
        };
        self.home.handle_leave(&self.tenant, topic, leaver, reason);
        self.effects()
    }

    fn message(&mut self, topic: &str, conn_id: ConnId, event: &str) -> Vec<Effect> {
        let frame = Bytes::copy_from_slice(event.as_bytes());
        let who = (Self::key(conn_id), conn_id);
        self.home
            .handle_message(&self.tenant, topic, who, (event, b"1"), || frame);
        self.effects()
    }

    fn push(&mut self, topic: &str, frame: &'static str, by: Option<LaneId>) -> Vec<Effect> {
        let frame = Bytes::from_static(frame.as_bytes());
        self.home.handle_push(&self.tenant, topic, frame, by);
        self.effects()
    }

    fn called(&mut self, call: &Call, result: Result<(), String>) -> Vec<Effect> {
        self.home.handle_called(call.lane, &call.event, result);
        self.effects()
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.home.poll_effect()).collect()
    }

    fn count(&self, topic: &str) -> usize {
        self.home.presence_count(&self.tenant, topic)
    }
}

/// The effects in one line each.
fn names(effects: &[Effect]) -> Vec<String> {
    let name = |effect: &Effect| match effect {
        Effect::Give { key, frame, .. } => {
            format!("give {} {}", key.slot, String::from_utf8_lossy(&frame[2..]))
        }
        Effect::Visit(visit) => format!("visit {}", visit.push.conn_id),
        Effect::Attach { subscriber, .. } => format!("attach {}", subscriber.conn_id),
        Effect::Joined { key, .. } => format!("joined {}", key.slot),
        Effect::Detach { key, answer, .. } => match answer {
            Farewell::Nothing => format!("detach {}", key.slot),
            Farewell::Unsubscribed => format!("detach {} unsubscribed", key.slot),
            Farewell::Refused(refusal) => format!("detach {} {refusal}", key.slot),
        },
        Effect::Refuse { key, refusal, .. } => format!("refuse {} {refusal}", key.slot),
        Effect::Gather { frame, .. } => {
            format!("deliver 0 {}", String::from_utf8_lossy(frame))
        }
        Effect::Deliver { shard, frame, .. } => {
            format!("deliver {shard} {}", String::from_utf8_lossy(frame))
        }
        Effect::Missed { shard, frames, .. } => format!("missed {shard} {frames}"),
        Effect::Call(call) => format!("call {} {:?}", call.subscriber.conn_id, call.event),
    };
    effects.iter().map(name).collect()
}

fn call(effects: Vec<Effect>) -> Call {
    let is_call = |effect| match effect {
        Effect::Call(call) => Some(call),
        _ => None,
    };
    effects
        .into_iter()
        .find_map(is_call)
        .expect("a handler is called")
}

/// C-07, X-21, X-22, X-27
#[test]
fn a_topic_without_handler_broadcasts_to_everybody_and_goes_with_its_last_member() {
    let mut driver = Driver::new(&[]);
    assert_eq!(names(&driver.subscribe("a", 1)), ["attach 1", "joined 1"]);
    assert_eq!(names(&driver.subscribe("a", 1)), ["joined 1"]);
    driver.subscribe("a", 2);
    assert_eq!(driver.count("a"), 2);
    assert_eq!(
        names(&driver.message("a", 1, "x")),
        ["deliver 1 x", "deliver 0 x"]
    );
    driver.leave("a", 1, LeaveReason::Closed);
    assert_eq!(names(&driver.push("a", "y", None)), ["deliver 0 y"]);
    driver.leave("a", 2, LeaveReason::Unsubscribe);
    assert_eq!(driver.home.topics(), 0);
    assert_eq!(driver.count("a"), 0);
}

/// C12: a push here names its topic by a place, which stays its own until the push is carried out.
#[test]
fn a_topic_that_has_emptied_stays_until_its_effects_are_carried_out() {
    let mut driver = Driver::new(&[]);
    driver.subscribe("a", 2);
    let tenant = driver.tenant.clone();
    let leave = |driver: &mut Driver| {
        let (conn_id, key) = (2, Driver::key(2));
        let leaver = Leaver {
            key,
            conn_id,
            asked: 0,
        };
        driver
            .home
            .handle_leave(&tenant, "a", leaver, LeaveReason::Closed);
    };
    driver
        .home
        .handle_push(&tenant, "a", Bytes::from("y"), None);
    leave(&mut driver);
    let Some(Effect::Gather { topic, .. }) = driver.home.poll_effect() else {
        panic!("members of the home's own shard get it by its place");
    };
    let name = |driver: &Driver| driver.home.topic_at(topic).map(|key| key.name.to_string());
    assert_eq!(name(&driver).as_deref(), Some("a"));
    assert_eq!(names(&driver.effects()), ["detach 2"]);
    assert_eq!((name(&driver), driver.home.topics()), (None, 0));
    driver.subscribe("a", 2);
    leave(&mut driver);
    assert_eq!(
        names(&driver.subscribe("a", 4)),
        ["detach 2", "attach 4", "joined 4"]
    );
    assert_eq!(
        (driver.home.topics(), driver.count("a")),
        (1, 1),
        "somebody came in time"
    );
}

/// R-14, D-17
#[test]
fn a_join_holds_its_own_pushes_and_no_others() {
    let mut driver = Driver::new(&["room:*"]);
    let join = call(driver.subscribe("room:1", 1));
    assert_eq!(join.event, HandlerEvent::Join);
    assert!(driver.push("room:1", "own", Some(join.lane)).is_empty());
    assert_eq!(
        names(&driver.push("room:1", "other", None)),
        ["deliver 1 other"]
    );
    assert_eq!(
        names(&driver.called(&join, Ok(()))),
        ["joined 1", "deliver 1 own"]
    );
}

/// D-17: what a join pushes is bounded, and no frame goes in silence.
#[test]
fn a_join_that_pushes_too_much_loses_the_oldest_and_says_so() {
    let mut driver = Driver::new(&["room:*"]);
    let join = call(driver.subscribe("room:1", 1));
    for event in ["a", "b", "c", "d"] {
        driver.push("room:1", event, Some(join.lane));
    }
    assert_eq!(
        names(&driver.called(&join, Ok(()))),
        ["joined 1", "missed 1 2", "deliver 1 c", "deliver 1 d"]
    );
}

/// R-14, D-17
#[test]
fn a_refused_join_leaves_nothing_behind() {
    let mut driver = Driver::new(&["room:*"]);
    let join = call(driver.subscribe("room:1", 1));
    assert!(
        driver
            .home
            .handle_track(&driver.tenant, "room:1", 1, serde_json::json!({}))
    );
    driver.push("room:1", "own", Some(join.lane));
    let effects = driver.called(&join, Err("members only".to_owned()));
    assert_eq!(names(&effects), ["detach 1 join rejected: members only"]);
    assert_eq!(driver.count("room:1"), 0);
    assert_eq!(driver.home.topics(), 0);
}

/// D-18
#[test]
fn presence_goes_before_the_leave_is_handled() {
    let mut driver = Driver::new(&["room:*"]);
    let join = call(driver.subscribe("room:1", 1));
    driver
        .home
        .handle_track(&driver.tenant, "room:1", 1, serde_json::json!({}));
    driver.called(&join, Ok(()));
    let effects = driver.leave("room:1", 1, LeaveReason::Unsubscribe);
    assert_eq!(driver.count("room:1"), 0);
    let unsubscribed = ["call 1 Leave(Unsubscribe)", "detach 1 unsubscribed"];
    assert_eq!(names(&effects), unsubscribed);
    let leave = call(effects);
    driver.called(&leave, Ok(()));
    assert_eq!(driver.home.topics(), 0);
}

#[test]
fn events_of_one_member_run_one_at_a_time_and_are_bounded() {
    let mut driver = Driver::new(&["room:*"]);
    let join = call(driver.subscribe("room:1", 1));
    driver.called(&join, Ok(()));
    let first = call(driver.message("room:1", 1, "1"));
    assert!(driver.message("room:1", 1, "2").is_empty());
    assert!(driver.message("room:1", 1, "3").is_empty());
    let refused = names(&driver.message("room:1", 1, "4"));
    let text = "overloaded: 2 events wait (limits.handler_queue_max)";
    assert_eq!(refused, [format!("refuse 1 message handler error: {text}")]);
    let second = call(driver.called(&first, Err("no".to_owned())));
    assert!(matches!(&second.event, HandlerEvent::Message { event, .. } if &**event == "2"));
}

#[test]
fn others_go_on_while_one_member_waits() {
    let mut driver = Driver::new(&["room:*"]);
    for conn_id in [1, 2] {
        let join = call(driver.subscribe("room:1", conn_id));
        driver.called(&join, Ok(()));
    }
    driver.message("room:1", 1, "slow");
    assert_eq!(
        call(driver.message("room:1", 2, "quick"))
            .subscriber
            .conn_id,
        2
    );
}

#[test]
fn who_leaves_while_joining_is_left_for_good() {
    let mut driver = Driver::new(&["room:*"]);
    let join = call(driver.subscribe("room:1", 1));
    assert_eq!(
        names(&driver.leave("room:1", 1, LeaveReason::Closed)),
        ["detach 1"]
    );
    let leave = call(driver.called(&join, Ok(())));
    assert_eq!(leave.event, HandlerEvent::Leave(LeaveReason::Closed));
    driver.called(&leave, Ok(()));
    assert_eq!(driver.home.topics(), 0);
}

#[test]
fn a_refused_join_of_one_who_left_has_no_leave() {
    let mut driver = Driver::new(&["room:*"]);
    let join = call(driver.subscribe("room:1", 1));
    driver.leave("room:1", 1, LeaveReason::Closed);
    assert!(driver.called(&join, Err("no".to_owned())).is_empty());
    assert_eq!(driver.home.topics(), 0);
}

/// X-20, X-24
#[test]
fn strangers_get_their_answers() {
    let mut driver = Driver::new(&[]);
    assert_eq!(
        names(&driver.message("a", 1, "x")),
        ["refuse 1 not subscribed to a"]
    );
    assert_eq!(
        names(&driver.leave("a", 1, LeaveReason::Unsubscribe)),
        ["detach 1 unsubscribed"]
    );
    assert!(
        !driver
            .home
            .handle_track(&driver.tenant, "a", 1, serde_json::json!({}))
    );
}

/// D-06
#[test]
fn tenants_have_topics_of_their_own() {
    let mut driver = Driver::new(&[]);
    driver.subscribe("a", 1);
    let other = Tenant::parse("other").unwrap();
    driver
        .home
        .handle_push(&other, "a", Bytes::from_static(b"x"), None);
    assert!(driver.effects().is_empty());
    assert_eq!(driver.home.presence_count(&other, "a"), 0);
    driver.home.handle_push_all("a", &Bytes::from_static(b"x"));
    assert_eq!(names(&driver.effects()), ["deliver 1 x"]);
}

/// N12: who asks for it is told who is there, then who comes and goes, once a turn; a join that is
/// refused is told to nobody.
#[test]
fn presence_is_told_to_who_asks() {
    let watching = Wishes {
        presence: true,
        last: false,
    };
    let mut driver = Driver::new(&[]);
    let told = |driver: &mut Driver| {
        driver.home.tell_presence();
        names(&driver.effects())
    };
    driver.subscribe("t", 1);
    assert_eq!(told(&mut driver), Vec::<String>::new());
    driver.subscribe_with("t", 2, watching);
    let all = r#"give 2 {"type":"presence","topic":"t","joined":[{"conn_id":1,"meta":{"sub":null}},{"conn_id":2,"meta":{"sub":null}}],"left":[]}"#;
    assert_eq!(told(&mut driver), [all]);
    driver.subscribe("t", 3);
    driver.leave("t", 1, LeaveReason::Closed);
    assert!(driver.home.has_changes());
    let both = r#"give 2 {"type":"presence","topic":"t","joined":[{"conn_id":3,"meta":{"sub":null}}],"left":[{"conn_id":1,"meta":{"sub":null}}]}"#;
    assert_eq!(told(&mut driver), [both]);
    driver.subscribe("t", 2);
    driver.leave("t", 3, LeaveReason::Closed);
    assert_eq!(told(&mut driver), Vec::<String>::new());
}

/// N12: the last push is given to who asks for it when it joins, also if nobody was there.
#[test]
fn the_last_push_is_given_to_who_asks() {
    let wish = Wishes {
        presence: false,
        last: true,
    };
    let mut driver = Driver::new(&[]);
    let frame = |text: &str| Bytes::from(format!("\u{1}\u{1}{text}"));
    for text in ["first", "second"] {
        let tenant = driver.tenant.clone();
        driver.home.handle_push(&tenant, "t", frame(text), None);
    }
    let given = names(&driver.subscribe_with("t", 1, wish));
    assert_eq!(given, ["attach 1", "joined 1", "give 1 second"]);
    assert_eq!(names(&driver.subscribe("t", 2)), ["attach 2", "joined 2"]);
    let other = Tenant::parse("other").unwrap();
    driver.home.handle_push(&other, "t", frame("foreign"), None);
    let again = names(&driver.subscribe_with("t", 3, wish));
    assert_eq!(again, ["attach 3", "joined 3", "give 3 second"]);
}
