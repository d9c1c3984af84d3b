//! What an operator asks of a running server: topics with their numbers, slow readers, the
//! configuration in force. Knows routes and documents.

use serde_json::Value;
use tidegate::auth::Claims;
use tidegate::metrics::{Counter, Gauge};

use crate::durable::{Durable as _, plan};
use crate::harness::{Plan, Site, both_shards, eventually, http, tenant, token, token_of};

/// Every route that wants the role `admin`.
const ROUTES: [&str; 4] = [
    "/v1/admin/relay/topics",
    "/v1/admin/topics",
    "/v1/admin/slow",
    "/v1/admin/config",
];

fn ask(site: &Site, target: &str, token: &str) -> http::Answer {
    http::ask(site.address, &http::request("GET", target, Some(token), ""))
}

/// What an admin of `ns` is told.
fn told(site: &Site, ns: &str, target: &str) -> Value {
    let token = token_of(&Claims::new(tenant(ns), "root").role("admin"), 60);
    let answer = ask(site, target, &token);
    assert_eq!(answer.status, 200, "{target}: {}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

fn names(page: &Value) -> Vec<&str> {
    let topics = page["topics"].as_array().unwrap().iter();
    topics
        .map(|topic| topic["name"].as_str().unwrap())
        .collect()
}

both_shards! {
    /// C-07, R-18: over all homes, by name, in pages, and those of the tenant alone
    fn relay_topics_are_counted(shards) {
        let site = Plan::new(shards).start();
        let (mut ada, mut bob) = site.join_two("demo");
        let mut eve = site.join("other", "eve");
        for topic in ["a", "room:1", "room:2", "room:3"] {
            ada.subscribe(topic);
        }
        bob.subscribe("room:2");
        eve.subscribe("room:secret");
        let all = told(&site, "demo", "/v1/admin/relay/topics");
        assert_eq!((&all["count"], names(&all)), (&4.into(), vec!["a", "room:1", "room:2", "room:3"]));
        assert_eq!((&all["topics"][2]["members"], &all["topics"][2]["present"]), (&2.into(), &2.into()));
        let rooms = told(&site, "demo", "/v1/admin/relay/topics?contains=oom&limit=2");
        assert_eq!((&rooms["count"], names(&rooms)), (&3.into(), vec!["room:1", "room:2"]));
        let rest = told(&site, "demo", "/v1/admin/relay/topics?contains=oom&limit=2&after=room:2");
        assert_eq!(names(&rest), ["room:3"]);
        bob.close();
        eventually("bob left", || {
            told(&site, "demo", "/v1/admin/relay/topics")["topics"][2]["members"] == 1
        });
    }

    /// B-12: head and tail of each topic, cursor and lag of each subscription
    fn durable_topics_show_their_lag(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = plan(shards, data.path()).start();
        let orders = site.topic("demo", "orders");
        site.topic("demo", "empty");
        site.topic("other", "secret");
        let mut reader = site.durable("demo");
        reader.open(&orders, "billing", r#","from_seq":0"#);
        let mut writer = site.durable("demo");
        for seq in 1..=3 {
            writer.publish(&orders, "1", seq);
            reader.receive();
        }
        reader.send(&format!(r#"{{"type":"ack","topic":"{orders}","sub_name":"billing","seq":1}}"#));
        let ask = || told(&site, "demo", "/v1/admin/topics");
        eventually("the cursor moves", || ask()["topics"][1]["subscriptions"][0]["cursor"] == 1);
        let all = ask();
        assert_eq!(names(&all), ["empty", "orders"]);
        let topic = &all["topics"][1];
        assert_eq!((&topic["first_seq"], &topic["last_seq"]), (&1.into(), &3.into()));
        let billing = &topic["subscriptions"][0];
        assert_eq!(billing["sub_name"], "billing");
        assert_eq!((&billing["lag"], &billing["attached"]), (&2.into(), &true.into()));
        assert_eq!(topic["more"], false);
        assert_eq!(names(&told(&site, "demo", "/v1/admin/topics?after=empty")), ["orders"]);
        assert_eq!(all["topics"][0]["subscriptions"].as_array().unwrap().len(), 0);
    }

    /// C-10: how long a publish and a fan-out took is measured when they end
    fn what_takes_time_is_measured(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = plan(shards, data.path()).start();
        let mut ada = site.join("demo", "ada");
        ada.subscribe("t");
        crate::harness::wait(site.relay("demo").push("t", "e", &1)).unwrap();
        ada.expect_push("t", "e", "1");
        let topic = site.topic("demo", "orders");
        site.durable("demo").publish(&topic, "1", 1);
        let admin = token_of(&Claims::new(tenant("demo"), "root").role("admin"), 60);
        let counted = |name: &str| {
            let metrics = ask(&site, "/metrics", &admin).body;
            let start = format!("tidegate_{name}_seconds_count{{");
            let lines = metrics.lines().filter(|line| line.starts_with(&start));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
        };
        for name in ["fan_out_duration", "publish_ack_duration"] {
            eventually(name, || 0 < counted(name));
        }
        assert_eq!(counted("publish_ack_duration"), 1);
    }

    /// X-09, R-20: who does not read is named, with what it missed
    fn a_slow_reader_is_named(shards) {
        let site = Plan::new(shards).start();
        let (mut slow, mut quick) = site.join_two("demo");
        slow.subscribe("t");
        quick.subscribe("other");
        assert_eq!(told(&site, "demo", "/v1/admin/slow")["connections"].as_array().unwrap().len(), 0);
        let relay = site.relay("demo");
        let payload = "x".repeat(32 * 1024);
        eventually("pushes are dropped", || {
            crate::harness::wait(relay.push("t", "e", &payload)).unwrap();
            0 < site.count(Counter::FramesLagged)
        });
        let found = told(&site, "demo", "/v1/admin/slow");
        let all = found["connections"].as_array().unwrap();
        assert_eq!(all.len(), 1, "{found}");
        assert_eq!((&all[0]["sub"], &all[0]["path"]), (&"ada".into(), &"/ws".into()));
        assert!(0 < all[0]["missed"].as_u64().unwrap() && 0 < all[0]["queued_bytes"].as_u64().unwrap());
        assert_eq!(told(&site, "other", "/v1/admin/slow")["connections"].as_array().unwrap().len(), 0);
        let waiting = || (site.gauge(Gauge::OutboxFrames), site.gauge(Gauge::OutboxBytes));
        let (frames, bytes) = (&all[0]["queued_frames"], &all[0]["queued_bytes"]);
        let queued = (frames.as_u64().unwrap(), bytes.as_u64().unwrap());
        eventually("what waits is counted", || waiting() == queued);
        drop(slow);
        eventually("nothing waits for who has gone", || waiting() == (0, 0));
    }
}

/// C-10: the inside is for admins, and no page is longer than it may be
#[test]
fn the_inside_is_for_admins() {
    let data = tempfile::tempdir().unwrap();
    let site = plan(1, data.path()).start();
    for target in ROUTES {
        assert_eq!(
            ask(&site, target, &token("demo", "x")).status,
            403,
            "{target}"
        );
        let open = http::ask(site.address, &http::request("GET", target, None, ""));
        assert_eq!(open.status, 401, "{target}");
        let wrong = format!("{target}?limit=x");
        let admin = token_of(&Claims::new(tenant("demo"), "root").role("admin"), 60);
        let expected = if target == "/v1/admin/config" {
            200
        } else {
            422
        };
        assert_eq!(ask(&site, &wrong, &admin).status, expected, "{target}");
    }
}
