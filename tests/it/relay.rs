//! The relay dialect on the wire: every frame of it, byte for byte, its limits, its errors and its
//! order. Knows the texts of the seed; handlers are in a module of their own.

use serde_json::{Value, json};

use tidegate::config::Unhandled;

use crate::harness::{Client, Opcode, Plan, Wire, both_shards, client, eventually, token, wait};

both_shards! {
    /// R-06, R-08, R-09, R-10, X-22, X-24, D-19, D-21: the life of a subscription
    fn frames_are_those_of_the_seed(shards) {
        let site = Plan::new(shards).start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.ask(r#"{"type":"ping"}"#, r#"{"type":"pong"}"#);
        ada.ask(
            r#"{"type":"subscribe","topic":"chat:lobby"}"#,
            r#"{"type":"subscribed","topic":"chat:lobby"}"#,
        );
        bob.subscribe("chat:lobby");
        ada.send(r#"{"type":"message","topic":"chat:lobby","event":"new","payload":{"text":"hi","n":42.50}}"#);
        let push = r#"{"type":"push","topic":"chat:lobby","event":"new","payload":{"text":"hi","n":42.50}}"#;
        ada.expect(push);
        bob.expect(push);
        ada.ask(
            r#"{"type":"unsubscribe","topic":"chat:lobby"}"#,
            r#"{"type":"unsubscribed","topic":"chat:lobby"}"#,
        );
        bob.say("chat:lobby", "only", "1");
        bob.expect_push("chat:lobby", "only", "1");
        ada.expect_nothing();
        ada.unsubscribe("never:subscribed");
        ada.close();
    }

    /// R-08: keys in any order, any white space, further fields; a missing payload is null
    fn clients_may_write_as_they_like(shards) {
        let site = Plan::new(shards).start();
        let mut ada = site.join("demo", "ada");
        ada.ask(
            " {\n \"extra\": [1, {\"type\":\"ping\"}], \"topic\" : \"t\" , \"type\":\"subscribe\"}\t",
            r#"{"type":"subscribed","topic":"t"}"#,
        );
        ada.send(r#"{"payload" : [ 1,  2 ] ,"event":"e","topic":"\u0074","type":"mess\u0061ge"}"#);
        ada.expect_push("t", "e", "[ 1,  2 ]");
        ada.send(r#"{"type":"message","topic":"t","event":"e"}"#);
        ada.expect_push("t", "e", "null");
    }

    /// The payload is forwarded byte for byte: numbers, escapes, keys that stand twice
    fn payloads_are_verbatim(shards) {
        let site = Plan::new(shards).start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("t");
        bob.subscribe("t");
        let payloads = [
            "42.50", "1e2", "-0", "123456789012345678901234567890", "0.1000000000000000055511151231257827",
            r#""\u00e9\n\/""#, r#"{"a":1,"a":2}"#, r#"{ "b" : [ ] }"#, "null", "\"😀\"", r#""\ud83d\ude00""#,
        ];
        for payload in payloads {
            ada.say("t", "e", payload);
            ada.expect_push("t", "e", payload);
            bob.expect_push("t", "e", payload);
        }
    }

    /// Names go out as JSON strings, whatever is in them
    fn names_are_escaped(shards) {
        let site = Plan::new(shards).start();
        let mut ada = site.join("demo", "ada");
        ada.ask(
            r#"{"type":"subscribe","topic":"a\"b\\c\n\u0001é"}"#,
            r#"{"type":"subscribed","topic":"a\"b\\c\n\u0001é"}"#,
        );
        wait(site.relay("demo").push("a\"b\\c\n\u{1}é", "\"", &1)).unwrap();
        ada.expect(r#"{"type":"push","topic":"a\"b\\c\n\u0001é","event":"\"","payload":1}"#);
    }

    /// X-20, X-25, D-07: what is wrong is said in band, and the socket stays
    fn errors_keep_the_socket(shards) {
        let site = Plan::new(shards).start();
        let mut ada = site.join("demo", "ada");
        let table = [
            (r#"{"type":"message","topic":"chat:lobby","event":"e","payload":1}"#, "not subscribed to chat:lobby"),
            ("hello", "invalid message: not valid json"),
            ("", "invalid message: not valid json"),
            ("[]", "invalid message: not a json object"),
            ("{}", "invalid message: missing field `type`"),
            (r#"{"type":"subscribe"}"#, "invalid message: missing field `topic`"),
            (r#"{"type":"subscribe","topic":7}"#, "invalid message: field `topic` must be a string"),
            (r#"{"type":"message","topic":"t"}"#, "invalid message: missing field `event`"),
            (r#"{"type":"nope"}"#, "invalid message: unknown type `nope`"),
        ];
        for (text, message) in table {
            ada.send(text);
            ada.expect_error(message);
            // Whatever is valid ends the row of invalid frames.
            ada.expect_nothing();
        }
        ada.send_message(vec![1, 2, 3].into());
        ada.expect_error("invalid message: binary frames are not supported");
        ada.expect_nothing();
    }

    /// D-04, D-08: codes and fields beyond the seed go to those who asked for them
    fn who_negotiates_gets_codes(shards) {
        let site = Plan::new(shards).start();
        let bearer = format!("Bearer {}", token("demo", "ada"));
        let headers = [("authorization", &*bearer), ("sec-websocket-protocol", "tidegate.relay.v1")];
        let mut ada = Client::connect_with(site.address, "/ws", &headers);
        assert_eq!(ada.response.headers()["sec-websocket-protocol"], "tidegate.relay.v1");
        ada.say("t", "e", "1");
        ada.expect(r#"{"type":"error","message":"not subscribed to t","code":"not_subscribed","topic":"t"}"#);
        ada.ask("{}", r#"{"type":"error","message":"invalid message: missing field `type`","code":"invalid_message"}"#);
    }

    /// X-21: a second subscribe is answered again, and pushes come once
    fn a_second_subscribe_is_answered_again(shards) {
        let site = Plan::new(shards).start();
        let mut ada = site.join("demo", "ada");
        ada.subscribe("t");
        ada.subscribe("t");
        ada.say("t", "e", "1");
        ada.expect_push("t", "e", "1");
        ada.unsubscribe("t");
        ada.say("t", "e", "1");
        ada.expect_error("not subscribed to t");
    }

    /// R-20, X-20: a flood of subscriptions meets its limit at the 51st and leaves nothing behind
    fn the_51st_subscription_is_refused(shards) {
        let site = Plan::new(shards).start();
        let mut ada = site.join("demo", "ada");
        for topic in 0..50 {
            ada.subscribe(&format!("t:{topic}"));
        }
        for topic in 50..2_000 {
            ada.send(&format!(r#"{{"type":"subscribe","topic":"t:{topic}"}}"#));
            ada.expect_error("subscription limit reached (max 50)");
        }
        ada.subscribe("t:7");
        ada.unsubscribe("t:7");
        ada.subscribe("t:1999");
        site.await_presence("demo", "t:1999", 1);
        ada.vanish();
        for topic in ["t:0", "t:49", "t:1999"] {
            site.await_presence("demo", topic, 0);
        }
    }

    /// Section 8: names have a length, and the error says which and how long
    fn long_names_are_refused(shards) {
        let site = Plan::new(shards).start();
        let mut ada = site.join("demo", "ada");
        ada.subscribe(&"t".repeat(255));
        ada.send(&format!(r#"{{"type":"subscribe","topic":"{}"}}"#, "t".repeat(256)));
        ada.expect_error("invalid message: `topic` of 256 bytes exceeds limits.name_bytes_max = 255");
        ada.say(&"t".repeat(255), &"e".repeat(129), "1");
        ada.expect_error("invalid message: `event` of 129 bytes exceeds limits.event_bytes_max = 128");
    }

    /// D-19: `unhandled = "reject"`
    fn topics_without_handlers_can_be_closed(shards) {
        let plan = Plan::new(shards);
        let site = plan
            .config(|config| config.relay.as_mut().unwrap().unhandled = Unhandled::Reject)
            .start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("t");
        bob.subscribe("t");
        ada.say("t", "e", "1");
        ada.expect_error("message handler error: topic t takes no messages");
        bob.expect_nothing();
        wait(site.relay("demo").push("t", "e", &1)).unwrap();
        ada.expect_push("t", "e", "1");
        bob.expect_push("t", "e", "1");
    }

    /// R-07, X-28: a push from a thread that is no shard; nobody there is no error
    fn anybody_may_push(shards) {
        let site = Plan::new(shards).start();
        let relay = site.relay("demo");
        wait(relay.push("t", "e", &"to nobody")).unwrap();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("t");
        bob.subscribe("t");
        // It takes effect when it is called, awaited or not.
        drop(relay.push("t", "e", &json!({"x": [1, null]})));
        for client in [&mut ada, &mut bob] {
            client.expect_push("t", "e", r#"{"x":[1,null]}"#);
        }
    }

    /// R-10, R-18, C-07, D-18: where no handler takes a topic the server tracks who is there, and
    /// whoever is gone, in whatever way, is gone from there too
    fn presence_is_kept_and_cleaned(shards) {
        let site = Plan::new(shards)
            .limits(|limits| {
                limits.ping_interval_ms = 50;
                limits.pong_timeout_ms = 300;
            })
            .start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("t");
        bob.subscribe("t");
        let mut eve = site.join("demo", "eve");
        eve.subscribe("t");
        let target = format!("/ws?token={}", token("demo", "mute"));
        let mut mute = Wire::upgraded(site.address, &target);
        mute.send(Opcode::TEXT, r#"{"type":"subscribe","topic":"t"}"#);
        mute.expect_text(r#"{"type":"subscribed","topic":"t"}"#);
        let members = wait(site.relay("demo").presence("t")).unwrap();
        let members = serde_json::to_value(&members).unwrap();
        assert_eq!(members.as_array().unwrap().len(), 4);
        assert_eq!(members[0], json!({"conn_id": 1, "meta": {"sub": "ada"}}));
        // One leaves, one resets, one never answers a ping, and one closes as it should.
        ada.unsubscribe("t");
        eve.vanish();
        eventually("only bob is present", || {
            // He answers pings while he reads.
            bob.expect_nothing();
            let members = wait(site.relay("demo").presence("t")).unwrap();
            members.len() == 1 && members[0].conn_id == 2
        });
        bob.close();
        site.await_presence("demo", "t", 0);
    }

    /// D-22: two senders on two shards, and everybody sees one and the same order
    fn a_topic_has_one_order(shards) {
        let plan = Plan::new(shards).limits(|limits| limits.outbox_frames_max = 10_000);
        let site = plan
            .config(|config| config.relay.as_mut().unwrap().topic_capacity = 10_000)
            .start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("t");
        bob.subscribe("t");
        const EACH: usize = 300;
        std::thread::scope(|scope| {
            for (name, client) in [("ada", &mut ada), ("bob", &mut bob)] {
                scope.spawn(move || {
                    for number in 0..EACH {
                        client.say("t", name, &number.to_string());
                    }
                });
            }
        });
        let seen: Vec<String> = (0..2 * EACH).map(|_| ada.receive()).collect();
        for text in &seen {
            bob.expect(text);
        }
        for name in ["ada", "bob"] {
            let pushes = seen.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
            let own = pushes.filter(|push| push["event"] == name);
            let numbers: Vec<_> = own.map(|push| push["payload"].as_u64().unwrap()).collect();
            assert!(numbers.iter().copied().eq(0..EACH as u64), "{name}: {numbers:?}");
        }
    }

    /// D-24, DESIGN section 3: B joins, says so where the server does not see it, and what A
    /// sends then reaches B, always
    fn a_causal_chain_is_never_broken(shards) {
        let site = Plan::new(shards).start();
        let (mut ada, mut bob) = site.join_two("demo");
        let relay = site.relay("demo");
        for round in 0..200 {
            let topic = format!("t:{round}");
            ada.subscribe(&topic);
            bob.subscribe(&topic);
            ada.say(&topic, "said", "1");
            bob.expect_push(&topic, "said", "1");
            drop(relay.push(&topic, "pushed", &2));
            bob.expect_push(&topic, "pushed", "2");
            bob.unsubscribe(&topic);
            ada.expect_push(&topic, "said", "1");
            ada.expect_push(&topic, "pushed", "2");
            ada.unsubscribe(&topic);
        }
    }

    /// R-20, D-20: a subscriber that stalls is told how many it missed, gets the rest in order,
    /// and its neighbour misses nothing
    fn a_stalled_reader_is_told_what_it_missed(shards) {
        const PUSHES: u64 = 3_000;
        let site = Plan::new(shards).start();
        let mut neighbour = site.join("demo", "bob");
        neighbour.subscribe("t");
        let stream = client::connected_with_small_buffer(site.address);
        let mut stalled = Wire::over(stream);
        stalled.upgrade(&format!("/ws?token={}", token("demo", "ada")));
        stalled.send(Opcode::TEXT, r#"{"type":"subscribe","topic":"t"}"#);
        stalled.expect_text(r#"{"type":"subscribed","topic":"t"}"#);
        let (relay, pad) = (site.relay("demo"), "x".repeat(4_000));
        for number in 0..PUSHES {
            wait(relay.push("t", "n", &json!([number, pad]))).unwrap();
            neighbour.expect_push("t", "n", &format!(r#"[{number},"{pad}"]"#));
        }
        let mut missed = 0;
        let mut next = 0;
        while next < PUSHES {
            let (_, payload) = stalled.read_frame();
            let frame: Value = serde_json::from_slice(&payload).unwrap();
            if frame["type"] == "lagged" {
                let count = frame["missed"].as_u64().unwrap();
                let text = format!(r#"{{"type":"lagged","topic":"t","missed":{count}}}"#);
                assert_eq!(payload, text.as_bytes());
                assert_ne!(count, 0);
                missed += count;
                next += count;
            } else {
                assert_eq!(frame["payload"][0], next);
                next += 1;
            }
        }
        assert_eq!(missed, site.count(tidegate::metrics::Counter::FramesLagged));
        assert!(1_000 < missed, "it missed only {missed}");
        stalled.send(Opcode::TEXT, r#"{"type":"ping"}"#);
        stalled.expect_text(r#"{"type":"pong"}"#);
    }
}

both_shards! {
    /// N12: who asks for it is told who is there, comes and goes; and what was said last
    fn presence_and_the_last_push_are_for_who_asks(shards) {
        let site = Plan::new(shards)
            .config(|config| {
                if let Some(relay) = &mut config.relay {
                    relay.keep_last = true;
                }
            })
            .start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.send(r#"{"type":"subscribe","topic":"t","presence":true}"#);
        ada.expect(r#"{"type":"subscribed","topic":"t"}"#);
        let there = ada.receive();
        assert!(there.starts_with(r#"{"type":"presence","topic":"t","joined":[{"conn_id":"#), "{there}");
        assert!(there.ends_with(r#""meta":{"sub":"ada"}}],"left":[]}"#), "{there}");
        bob.subscribe("t");
        let came = ada.receive();
        assert!(came.contains(r#""joined":[{"conn_id":"#) && came.contains(r#"{"sub":"bob"}"#), "{came}");
        bob.say("t", "e", "42.50");
        ada.expect_push("t", "e", "42.50");
        bob.expect_push("t", "e", "42.50");
        bob.unsubscribe("t");
        let went = ada.receive();
        assert!(went.contains(r#""joined":[],"left":[{"conn_id":"#), "{went}");
        bob.send(r#"{"type":"subscribe","topic":"t","last":true}"#);
        bob.expect(r#"{"type":"subscribed","topic":"t"}"#);
        bob.expect_push("t", "e", "42.50");
        bob.expect_nothing();
        let mut eve = site.join("other", "eve");
        eve.send(r#"{"type":"subscribe","topic":"t","last":true}"#);
        eve.expect(r#"{"type":"subscribed","topic":"t"}"#);
        eve.expect_nothing();
    }
}
