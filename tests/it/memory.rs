//! What a server does when its memory becomes short: refuses who is new, then ends those who hold
//! most of it. Each test has a process of its own, for memory is a matter of the whole process.

use tidegate::gateway::socket::echo;
use tidegate::metrics::Counter;

use crate::harness::http::{ask, request};
use crate::harness::wire::upgrade_request;
use crate::harness::{
    Client, Plan, Site, Wire, both_shards, client, eventually, is_alone, token, wait,
};

/// What of this process is resident and no file, in bytes.
fn own_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib * 1024
}

/// Makes what is used now this many percent of what may be used.
fn fill_to(site: &Site, percent: u64) {
    let max = own_bytes() * 100 / percent;
    site.reload_limits(|limits| limits.memory_bytes_max = max);
}

fn status_of(site: &Site, request: &str) -> u16 {
    let mut wire = Wire::connect(site.address);
    wire.write(request);
    let head = wire.read_head();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn upgrade(site: &Site) -> u16 {
    status_of(site, &upgrade_request("/raw", &[]))
}

fn ready(site: &Site) -> u16 {
    ask(site.address, &request("GET", "/readyz", None, "")).status
}

/// A subscriber of `t` that reads nothing.
fn deaf(site: &Site) -> Wire {
    let mut wire = Wire::over(client::connected_with_small_buffer(site.address));
    wire.upgrade(&format!("/ws?token={}", token("demo", "deaf")));
    wire.send(
        crate::harness::Opcode::TEXT,
        r#"{"type":"subscribe","topic":"t"}"#,
    );
    wire.expect_text(r#"{"type":"subscribed","topic":"t"}"#);
    wire
}

both_shards! {
    /// T-N1, RELIABILITY section 7, limits.memory_bytes_max: at 80 % who is new is refused, on keep-alive
    /// connections too; who is here stays, and REST answers
    fn short_memory_refuses_who_is_new(shards) {
        if !is_alone() {
            return;
        }
        let site = Plan::new(shards).raw("/raw", echo).start();
        let mut before = Client::connect_public(site.address, "/raw");
        assert_eq!((upgrade(&site), ready(&site)), (101, 200));
        fill_to(&site, 87);
        eventually("the server is not ready", || ready(&site) == 503);
        assert_eq!(upgrade(&site), 503);
        let mut late = Wire::connect(site.address);
        late.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(late.read_answer().status, 200);
        late.write(upgrade_request("/raw", &[]));
        let answer = late.read_answer();
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains("limits.memory_bytes_max"), "{}", answer.body);
        before.ask("still here", "still here");
        let token = crate::harness::token_of(
            &tidegate::auth::Claims::new(crate::harness::tenant("demo"), "ops").role("admin"),
            60,
        );
        let metrics = ask(site.address, &request("GET", "/metrics", Some(&token), "")).body;
        let refused = r#"tidegate_connections_refused_total{reason="memory"} 2"#;
        assert!(metrics.contains(refused), "{metrics}");
        assert!(metrics.contains(r#"tidegate_user_memory_bytes{shard="0"} "#), "{metrics}");
        fill_to(&site, 30);
        eventually("there is room again", || ready(&site) == 200);
        assert_eq!(upgrade(&site), 101);
        assert_eq!(site.count(Counter::MemoryCloses), 0);
    }

    /// At 95 % those are ended for whom most is waiting, and only as many as it takes
    fn the_largest_queues_go_first(shards) {
        if !is_alone() {
            return;
        }
        let site = Plan::new(shards)
            .limits(|limits| limits.outbox_bytes_max = 64 << 20)
            .raw("/raw", echo)
            .config(|config| {
                let mut relay = config.relay.clone().unwrap();
                relay.topic_capacity = 10_000;
                config.set_relay(relay);
                for mount in &mut config.mounts {
                    mount.limits = config.limits.clone();
                    mount.limits.outbox_frames_max = 10_000;
                }
            })
            .start();
        let mut neighbours = [(); 4].map(|()| Client::connect_public(site.address, "/raw"));
        let relay = site.relay("demo");
        let push = |count: usize| {
            for number in 0..count {
                let pad = format!("{number}{}", "x".repeat(60_000));
                wait(relay.push("t", "e", &pad)).unwrap();
            }
        };
        let most = deaf(&site);
        push(300);
        let some = deaf(&site);
        push(20);
        fill_to(&site, 97);
        eventually("who holds most is ended", || {
            site.count(Counter::MemoryCloses) == 1
        });
        site.await_presence("demo", "t", 1);
        fill_to(&site, 30);
        eventually("there is room again", || ready(&site) == 200);
        for neighbour in &mut neighbours {
            neighbour.ask("still here", "still here");
        }
        assert_eq!(site.count(Counter::MemoryCloses), 1);
        drop((most, some));
    }
}
