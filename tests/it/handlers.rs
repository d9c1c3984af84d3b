//! Relay handlers: which of them is asked, what it may refuse, when its pushes are seen, why
//! somebody left, and what happens when it fails or takes long. Knows frames; no sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use serde::{Serialize, Serializer};
use serde_json::json;
use tidegate::metrics::{Counter, Gauge};
use tidegate::{CurrentUser, Error, LeaveReason, Relay, RelayConfig, RelayEvent, Result, State};
use tokio::sync::Semaphore;

use crate::harness::{
    Client, Opcode, PATIENCE, Plan, Site, Wire, both_shards, eventually, tenant, token, wait,
};

/// Joins and leaves with how many there are, and messages as they come: the room of the seed.
async fn room(event: RelayEvent, relay: Relay, user: CurrentUser) -> Result<()> {
    let topic = event.topic();
    match &event {
        RelayEvent::Join { conn_id, .. } => {
            let meta = json!({ "user_id": user.id });
            relay.track(topic, *conn_id, meta).await?;
            tell(&relay, topic, "user_joined", &user).await
        }
        RelayEvent::Message { event, payload, .. } => Ok(relay.push(topic, event, payload).await?),
        RelayEvent::Leave { .. } => tell(&relay, topic, "user_left", &user).await,
    }
}

async fn tell(relay: &Relay, topic: &str, event: &str, user: &CurrentUser) -> Result<()> {
    let online = relay.presence_count(topic).await?;
    let told = json!([user.id, online]);
    Ok(relay.push(topic, event, &told).await?)
}

type Reasons = mpsc::Sender<(String, Option<LeaveReason>)>;

async fn note_leave(
    event: RelayEvent,
    user: CurrentUser,
    reason: Option<LeaveReason>,
    State(reasons): State<Reasons>,
) -> Result<()> {
    if let RelayEvent::Leave { .. } = event {
        reasons.send((user.id, reason))?;
    }
    Ok(())
}

/// A server whose handler of `t` reports who left and why.
fn start_noting(plan: Plan) -> (Site, mpsc::Receiver<(String, Option<LeaveReason>)>) {
    let (sender, receiver) = mpsc::channel::<(String, Option<LeaveReason>)>();
    let site = plan.provide(sender).relay("t", note_leave).start();
    (site, receiver)
}

both_shards! {
    /// R-12, R-13: exact beats prefix, the longest prefix wins, and what nothing matches has none
    fn the_best_pattern_is_asked(shards) {
        async fn named(name: &str, event: RelayEvent, relay: Relay) -> Result<()> {
            match &event {
                RelayEvent::Message { topic, .. } => Ok(relay.push(topic, name, &event.conn_id()).await?),
                _ => Ok(()),
            }
        }
        let site = Plan::new(shards)
            .relay("room:*", |event, relay| named("room:*", event, relay))
            .relay("room:vip:*", |event, relay| named("room:vip:*", event, relay))
            .relay("room:vip", |event, relay| named("room:vip", event, relay))
            .relay("room:vip:1*", |event, relay| named("room:vip:1*", event, relay))
            .start();
        let mut ada = site.join("demo", "ada");
        let table = [
            ("room:vip", "room:vip"),
            ("room:vip:", "room:vip:*"),
            ("room:vip:2", "room:vip:*"),
            ("room:vip:1", "room:vip:1*"),
            ("room:vip:12", "room:vip:1*"),
            ("room:vipx", "room:*"),
            ("room:", "room:*"),
        ];
        for (topic, pattern) in table {
            ada.subscribe(topic);
            ada.say(topic, "e", "0");
            ada.expect_push(topic, pattern, "1");
        }
        ada.subscribe("room");
        ada.say("room", "unhandled", "0");
        ada.expect_push("room", "unhandled", "0");
    }

    /// R-14, R-15, R-16, R-23, X-23, D-18: who comes and goes, with the right counts, and what
    /// Join pushes reaches the joiner behind its confirmation
    fn a_room_tells_who_comes_and_goes(shards) {
        let site = Plan::new(shards).relay("room:*", room).start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("room:1");
        ada.expect_push("room:1", "user_joined", r#"["ada",1]"#);
        bob.subscribe("room:1");
        bob.expect_push("room:1", "user_joined", r#"["bob",2]"#);
        ada.expect_push("room:1", "user_joined", r#"["bob",2]"#);
        ada.say("room:1", "chat", r#"{"text" : "hi", "n":1.50}"#);
        for client in [&mut ada, &mut bob] {
            client.expect_push("room:1", "chat", r#"{"text" : "hi", "n":1.50}"#);
        }
        let mut eve = site.join("demo", "eve");
        for round in 0..20 {
            eve.subscribe("room:1");
            eve.expect_push("room:1", "user_joined", r#"["eve",3]"#);
            match round % 3 {
                0 => eve.unsubscribe("room:1"),
                1 => {
                    eve.close();
                    eve = site.join("demo", "eve");
                }
                _ => {
                    eve.vanish();
                    eve = site.join("demo", "eve");
                }
            }
            for client in [&mut ada, &mut bob] {
                client.expect_push("room:1", "user_joined", r#"["eve",3]"#);
                client.expect_push("room:1", "user_left", r#"["eve",2]"#);
            }
        }
        eve.expect_nothing();
        assert_eq!(wait(site.relay("demo").presence_count("room:1")).unwrap(), 2);
    }

    /// R-14, X-20, D-17: a refused join leaves no subscription, no presence and no push behind
    fn a_refused_join_leaves_nothing_behind(shards) {
        async fn vip(event: RelayEvent, relay: Relay, user: CurrentUser) -> Result<()> {
            if let RelayEvent::Join { topic, conn_id } = &event {
                relay.track(topic, *conn_id, json!(1)).await?;
                relay.push(topic, "joined", &user.id).await?;
                if user.id != "ada" {
                    return Err(Error::msg("members only"));
                }
            }
            Ok(())
        }
        let site = Plan::new(shards).relay("vip:*", vip).start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("vip:1");
        ada.expect_push("vip:1", "joined", r#""ada""#);
        for _ in 0..3 {
            bob.send(r#"{"type":"subscribe","topic":"vip:1"}"#);
            bob.expect_error("join rejected: members only");
            bob.say("vip:1", "e", "1");
            bob.expect_error("not subscribed to vip:1");
            assert_eq!(wait(site.relay("demo").presence_count("vip:1")).unwrap(), 1);
        }
        ada.expect_nothing();
        wait(site.relay("demo").push("vip:1", "open", &1)).unwrap();
        ada.expect_push("vip:1", "open", "1");
        bob.expect_nothing();
    }

    /// D-17: what a Join handler pushes to its own topic waits until it has ended, for all
    /// members; what it pushes elsewhere does not
    fn pushes_of_a_join_are_held(shards) {
        async fn slow(event: RelayEvent, relay: Relay, State(gate): State<Arc<Semaphore>>) -> Result<()> {
            if let RelayEvent::Join { topic, conn_id } = &event
                && *conn_id != 1
            {
                relay.push(topic, "early", &1).await?;
                relay.push("elsewhere", "early", &1).await?;
                gate.acquire().await?.forget();
                relay.push(topic, "late", &1).await?;
            }
            Ok(())
        }
        let gate = Arc::new(Semaphore::new(0));
        let site = Plan::new(shards)
            .provide(Arc::clone(&gate))
            .relay("slow", slow)
            .start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("elsewhere");
        ada.subscribe("slow");
        bob.send(r#"{"type":"subscribe","topic":"slow"}"#);
        ada.expect_push("elsewhere", "early", "1");
        // Others go on meanwhile, and what they push waits for the joiner as well.
        wait(site.relay("demo").push("slow", "other", &1)).unwrap();
        ada.expect_push("slow", "other", "1");
        bob.expect_nothing();
        gate.add_permits(1);
        bob.expect(r#"{"type":"subscribed","topic":"slow"}"#);
        bob.expect_push("slow", "other", "1");
        for client in [&mut ada, &mut bob] {
            client.expect_push("slow", "early", "1");
            client.expect_push("slow", "late", "1");
        }
    }

    /// R-16, D-18: Leave is told the reason, once, however the connection ends
    fn leave_knows_why(shards) {
        let plan = Plan::new(shards).limits(|limits| {
            limits.ping_interval_ms = 200;
            limits.pong_timeout_ms = 400;
        });
        let (site, reasons) = start_noting(plan);
        let left = |who: &str, why: LeaveReason| {
            let expected = (who.to_owned(), Some(why));
            assert_eq!(reasons.recv_timeout(PATIENCE).unwrap(), expected);
        };
        let join = |sub: &str| {
            let mut client = site.join("demo", sub);
            client.subscribe("t");
            client
        };
        let mut stays = join("unsubscribes");
        stays.unsubscribe("t");
        left("unsubscribes", LeaveReason::Unsubscribe);
        stays.unsubscribe("t");
        stays.close();
        join("closes").close();
        left("closes", LeaveReason::Closed);
        join("vanishes").vanish();
        left("vanishes", LeaveReason::Closed);
        let mut breaks = join("breaks");
        for _ in 0..10 {
            breaks.send("no");
        }
        left("breaks", LeaveReason::Closed);
        let mut mute = Wire::upgraded(site.address, &format!("/ws?token={}", token("demo", "mute")));
        mute.send(Opcode::TEXT, r#"{"type":"subscribe","topic":"t"}"#);
        left("mute", LeaveReason::Timeout);
        let _stays = join("drained");
        site.stop();
        left("drained", LeaveReason::Shutdown);
        assert!(reasons.try_recv().is_err(), "nobody leaves twice");
    }

    /// A panic is an error frame, is counted, and the socket and its topics stay
    fn a_panic_is_an_error_frame(shards) {
        async fn fail(event: RelayEvent, relay: Relay) -> Result<()> {
            match &event {
                RelayEvent::Join { topic, .. } => assert!(!topic.ends_with("join"), "as wished"),
                RelayEvent::Message { topic, event, .. } => {
                    assert_ne!(event, "before", "as wished");
                    relay.presence(topic).await?;
                    tokio::task::yield_now().await;
                    assert_ne!(event, "after", "as wished");
                    relay.push(topic, event, &1).await?;
                }
                RelayEvent::Leave { .. } => panic!("as wished"),
            }
            Ok(())
        }
        let site = Plan::new(shards).relay("fail:*", fail).start();
        let mut ada = site.join("demo", "ada");
        ada.send(r#"{"type":"subscribe","topic":"fail:join"}"#);
        ada.expect_error("join rejected: internal");
        ada.subscribe("fail:1");
        for event in ["before", "after"] {
            ada.say("fail:1", event, "1");
            ada.expect_error("message handler error: internal");
        }
        ada.say("fail:1", "fine", "1");
        ada.expect_push("fail:1", "fine", "1");
        ada.unsubscribe("fail:1");
        eventually("each panic is counted", || site.count(Counter::HandlerPanics) == 4);
        ada.expect_nothing();
    }

    /// R-15, X-20: what a handler fails with goes to the sender and to nobody else
    fn an_error_goes_to_its_sender(shards) {
        async fn picky(event: RelayEvent) -> Result<()> {
            match event {
                RelayEvent::Message { event, .. } => Err(Error::msg(format!("no \"{event}\" here"))),
                _ => Ok(()),
            }
        }
        let site = Plan::new(shards).relay("t", picky).start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("t");
        bob.subscribe("t");
        ada.say("t", "joke", "1");
        ada.expect_error(r#"message handler error: no \"joke\" here"#);
        bob.expect_nothing();
    }

    /// DESIGN section 3: the events of one connection on one topic run in order and one at a
    /// time, past `handler_queue_max` they are refused, and nobody else waits
    fn a_slow_handler_holds_up_only_its_own(shards) {
        async fn slow(event: RelayEvent, relay: Relay, State(gate): State<Arc<Semaphore>>) -> Result<()> {
            if let RelayEvent::Message { topic, event, payload, .. } = &event {
                if event == "slow" {
                    gate.acquire().await?.forget();
                }
                relay.push(topic, event, payload).await?;
            }
            Ok(())
        }
        let gate = Arc::new(Semaphore::new(0));
        let site = Plan::new(shards)
            .limits(|limits| limits.handler_queue_max = 4)
            .provide(Arc::clone(&gate))
            .relay("t:*", slow)
            .start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("t:1");
        bob.subscribe("t:1");
        // One runs, four wait, and the rest are too many.
        for number in 0..7 {
            let event = if number == 0 { "slow" } else { "fast" };
            ada.say("t:1", event, &number.to_string());
        }
        for _ in 0..2 {
            ada.expect_error("message handler error: overloaded: 4 events wait (limits.handler_queue_max)");
        }
        // Another connection on this topic, and this connection on another topic, go on.
        bob.say("t:1", "fast", "100");
        bob.expect_push("t:1", "fast", "100");
        ada.expect_push("t:1", "fast", "100");
        ada.subscribe("t:2");
        ada.say("t:2", "fast", "200");
        ada.expect_push("t:2", "fast", "200");
        let waiting = || site.gauge(Gauge::HandlerEventsWaiting);
        eventually("four are seen to wait", || waiting() == 4);
        gate.add_permits(1);
        for number in 0..5 {
            let event = if number == 0 { "slow" } else { "fast" };
            ada.expect_push("t:1", event, &number.to_string());
            bob.expect_push("t:1", event, &number.to_string());
        }
        ada.say("t:1", "fast", "9");
        ada.expect_push("t:1", "fast", "9");
        eventually("none waits any more", || waiting() == 0);
    }

    /// D-17, D-20: what a Join pushes is held, and what it pushes too much is told and counted
    fn a_join_may_push_too_much(shards) {
        async fn greet(event: RelayEvent, relay: Relay) -> Result<()> {
            if let RelayEvent::Join { topic, .. } = &event {
                for number in 0..133 {
                    relay.push(topic, "greeting", &number).await?;
                }
            }
            Ok(())
        }
        let site = Plan::new(shards).relay("t", greet).start();
        for round in 1..=2 {
            let mut ada = site.join("demo", "ada");
            ada.subscribe("t");
            ada.expect(r#"{"type":"lagged","topic":"t","missed":5}"#);
            for number in 5..133 {
                ada.expect_push("t", "greeting", &number.to_string());
            }
            ada.unsubscribe("t");
            assert_eq!(site.count(Counter::FramesLagged), 5 * round);
        }
    }

    /// A message right behind a subscribe waits for its Join, and shares its fate
    fn a_message_may_follow_at_once(shards) {
        async fn slow(event: RelayEvent, relay: Relay) -> Result<()> {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            match &event {
                RelayEvent::Join { topic, .. } if topic == "t:no" => Err(Error::msg("no")),
                RelayEvent::Message { topic, event, payload, .. } => Ok(relay.push(topic, event, payload).await?),
                _ => Ok(()),
            }
        }
        let site = Plan::new(shards).relay("t:*", slow).start();
        let mut ada = site.join("demo", "ada");
        ada.send(r#"{"type":"subscribe","topic":"t:yes"}"#);
        ada.say("t:yes", "e", "1");
        ada.say("t:yes", "e", "2");
        ada.expect(r#"{"type":"subscribed","topic":"t:yes"}"#);
        ada.expect_push("t:yes", "e", "1");
        ada.expect_push("t:yes", "e", "2");
        ada.send(r#"{"type":"subscribe","topic":"t:no"}"#);
        ada.say("t:no", "e", "1");
        ada.expect_error("join rejected: no");
        ada.expect_error("not subscribed to t:no");
        ada.expect_nothing();
    }

    /// Joins and leaves that wait for a busy handler are bounded like messages
    fn coming_and_going_is_bounded(shards) {
        async fn hang(event: RelayEvent, State(gate): State<Arc<Semaphore>>) -> Result<()> {
            if let RelayEvent::Join { .. } = event {
                gate.acquire().await?.forget();
            }
            Ok(())
        }
        let gate = Arc::new(Semaphore::new(0));
        let site = Plan::new(shards)
            .limits(|limits| limits.handler_queue_max = 4)
            .provide(Arc::clone(&gate))
            .relay("t", hang)
            .start();
        let mut ada = site.join("demo", "ada");
        let mut refused = 0;
        for _ in 0..100 {
            ada.send(r#"{"type":"subscribe","topic":"t"}"#);
            ada.send(r#"{"type":"unsubscribe","topic":"t"}"#);
            let mut answer = ada.receive();
            if answer != r#"{"type":"unsubscribed","topic":"t"}"# {
                assert_eq!(answer, r#"{"type":"error","message":"join rejected: overloaded: 4 events wait (limits.handler_queue_max)"}"#);
                refused += 1;
                answer = ada.receive();
            }
            assert_eq!(answer, r#"{"type":"unsubscribed","topic":"t"}"#);
        }
        assert_eq!(refused, 97);
        gate.add_permits(100);
        eventually("the topic can be joined", || {
            ada.send(r#"{"type":"subscribe","topic":"t"}"#);
            ada.receive() == r#"{"type":"subscribed","topic":"t"}"#
        });
    }

    /// R-16: a Leave handler that never ends holds up nobody, and a topic can be joined anew
    fn a_leave_that_hangs_holds_up_nobody(shards) {
        async fn hang(event: RelayEvent, State(left): State<Arc<AtomicUsize>>) -> Result<()> {
            if let RelayEvent::Leave { .. } = event {
                left.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        let left = Arc::new(AtomicUsize::new(0));
        let site = Plan::new(shards)
            .provide(Arc::clone(&left))
            .relay("t", hang)
            .start();
        for round in 1..=5 {
            let mut ada = site.join("demo", "ada");
            ada.subscribe("t");
            ada.close();
            eventually("the leave is told", || left.load(Ordering::SeqCst) == round);
        }
    }

    /// A `Serialize` that pushes while it is serialized: nothing is borrowed across user code
    fn a_payload_may_push_while_it_is_serialized(shards) {
        struct Loud(Relay);
        impl Serialize for Loud {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                drop(self.0.push("t", "inner", &1));
                drop(self.0.push("elsewhere", "inner", &1));
                serializer.serialize_str("outer")
            }
        }
        async fn push(event: RelayEvent, relay: Relay) -> Result<()> {
            match &event {
                RelayEvent::Message { topic, .. } => Ok(relay.push(topic, "outer", &Loud(relay.clone())).await?),
                _ => Ok(()),
            }
        }
        let site = Plan::new(shards).relay("t", push).start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("t");
        bob.subscribe("elsewhere");
        ada.say("t", "e", "1");
        ada.expect_push("t", "inner", "1");
        ada.expect_push("t", "outer", r#""outer""#);
        bob.expect_push("elsewhere", "inner", "1");
        let relay = site.relay("demo");
        wait(relay.push("t", "outside", &Loud(relay.clone()))).unwrap();
        ada.expect_push("t", "inner", "1");
        ada.expect_push("t", "outside", r#""outer""#);
        bob.expect_push("elsewhere", "inner", "1");
    }

    /// R-18: track, untrack and presence from a handler, in the order in which they are called
    fn presence_follows_its_handler(shards) {
        async fn keep(event: RelayEvent, relay: Relay) -> Result<()> {
            let (topic, conn_id) = (event.topic(), event.conn_id());
            if let RelayEvent::Message { event, payload, .. } = &event {
                match event.as_str() {
                    "track" => assert!(relay.track(topic, conn_id, payload).await?),
                    "untrack" => assert!(relay.untrack(topic, conn_id).await?),
                    _ => {}
                }
                // Called without waiting, and in order all the same.
                drop(relay.track(topic, conn_id, json!("gone again")));
                drop(relay.untrack(topic, conn_id));
                drop(relay.track(topic, conn_id, payload));
                let members = relay.presence(topic).await?;
                relay.push(topic, "members", &members).await?;
                assert_eq!(relay.presence_count(topic).await?, members.len());
                // Who is no subscriber cannot be present.
                assert!(!relay.track(topic, 999, json!(1)).await?);
            }
            Ok(())
        }
        let site = Plan::new(shards).relay("t", keep).start();
        let mut ada = site.join("demo", "ada");
        ada.subscribe("t");
        ada.say("t", "track", r#"{"a":[1]}"#);
        ada.expect_push("t", "members", r#"[{"conn_id":1,"meta":{"a":[1]}}]"#);
        ada.say("t", "untrack", "7");
        ada.expect_push("t", "members", r#"[{"conn_id":1,"meta":7}]"#);
    }
}

/// R-20: the builders of the seed
#[test]
fn the_relay_is_configured_as_in_the_seed() {
    let site = Plan::new(1)
        .with(|builder| {
            let relay = RelayConfig::default()
                .with_path("/live")
                .with_topic_capacity(4);
            builder.relay_config(relay.with_max_subscriptions(2))
        })
        .start();
    let mut ada = Client::connect(site.address, "/live", &token("demo", "ada"));
    ada.subscribe("a");
    ada.subscribe("b");
    ada.send(r#"{"type":"subscribe","topic":"c"}"#);
    ada.expect_error("subscription limit reached (max 2)");
}

/// X-28: a push without a relay says what to add
#[test]
fn a_push_without_a_relay_says_so() {
    let site = Plan::new(1)
        .config(|config| {
            config.relay = None;
            config.mounts.clear();
        })
        .start();
    let error = wait(site.relay("demo").push("t", "e", &1)).unwrap_err();
    assert!(error.to_string().contains("add `[relay]`"), "{error}");
}

/// D-16: numbers count from 1 over all shards and are never used again
#[test]
fn connections_are_numbered_from_one() {
    let site = Plan::new(2).start();
    for number in 1..=6 {
        let mut client = site.join("demo", "ada");
        client.subscribe("t");
        let members = wait(site.server().relay().tenant(tenant("demo")).presence("t")).unwrap();
        assert_eq!(
            members
                .iter()
                .map(|member| member.conn_id)
                .collect::<Vec<_>>(),
            [number]
        );
        client.close();
        site.await_presence("demo", "t", 0);
    }
}
