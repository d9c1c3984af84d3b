//! The bounds of requests and answers of HTTP at their edges: sizes, and the time that a peer may
//! take to write or to read. Bounds of WebSockets stand beside.

use std::time::{Duration, Instant};

use tidegate::auth::Claims;

use crate::harness::http::request;
use crate::harness::{Wire, both_shards, tenant, token, token_of};
use crate::limits::{rest, start, with_token};

both_shards! {
    /// token_bytes_max, body_bytes_max, and the sizes of heads behind the first one
    fn requests_have_sizes(shards) {
        let site = start(shards, |limits| {
            limits.token_bytes_max = 400;
            limits.body_bytes_max = 1_024;
            limits.headers_max = 20;
            limits.handshake_ms_max = 700;
        });
        let long = token_of(&Claims::new(tenant("demo"), "a".repeat(300)), 60);
        assert!(400 < long.len() && long.len() < 3_000);
        assert_eq!(with_token(&site, &long), 401);
        let good = token("demo", "ada");
        let push = |bytes: usize| {
            let pad = "x".repeat(bytes);
            let body = format!(r#"{{"topic":"t","event":"e","payload":"{pad}"}}"#);
            rest(&site, &good, "/v1/relay/push", &body).status
        };
        assert_eq!([push(100), push(2_000)], [200, 413]);
        let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(21));
        let target = format!("GET /healthz?{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(4_096));
        for (request, status) in [(many, 431), (target, 414)] {
            let mut wire = Wire::connect(site.address);
            wire.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(wire.read_answer().status, 200);
            wire.write(request);
            assert_eq!(wire.read_answer().status, status);
        }
        let mut slow = Wire::connect(site.address);
        slow.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(slow.read_answer().status, 200);
        slow.write("GET /healthz HTTP/1.1\r\nHo");
        slow.read_to_end();
    }

    /// body_ms_max: however it trickles; the connection ends, and who is in time is served
    fn late_bodies_are_refused(shards) {
        let site = start(shards, |limits| limits.body_ms_max = 400);
        let good = token("demo", "ada");
        let body = r#"{"topic":"t","event":"e","payload":1}"#;
        let whole = request("POST", "/v1/relay/push", Some(&good), body);
        let head = format!(
            "POST /v1/relay/push HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {good}\r\n"
        );
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\n{{\"top\r\n");
        for unfinished in [&whole[..whole.len() - 1], &chunked] {
            let mut wire = Wire::connect(site.address);
            wire.write(&whole);
            assert_eq!(wire.read_answer().status, 200);
            let began = Instant::now();
            wire.write(unfinished);
            let answer = wire.read_answer();
            assert_eq!(answer.status, 408, "{answer:?}");
            assert!(answer.body.contains("body_ms_max = 400"), "{answer:?}");
            assert!(Duration::from_millis(390) < began.elapsed());
            wire.expect_end();
        }
        let mut wire = Wire::connect(site.address);
        wire.write(format!("{head}Content-Length: 100000\r\n\r\n"));
        let began = Instant::now();
        while wire.try_write(b" ").is_ok() && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(began.elapsed() < Duration::from_secs(5), "a body that trickles never ends");
    }

    /// write_stall_ms_max: for answers of REST as for WebSockets; who reads in time gets all of them
    fn answers_that_nobody_reads_are_given_up(shards) {
        let site = start(shards, |limits| limits.write_stall_ms_max = 400);
        let page = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut wire = Wire::connect(site.address);
        wire.write(page);
        let bytes = wire.read_answer().body.len();
        // More than the buffers of both sockets can take.
        let count = 64_000_000 / bytes;
        let mut idle = Wire::connect(site.address);
        idle.write(page.repeat(count));
        let began = Instant::now();
        while idle.try_write(b"\r\n").is_ok() {
            assert!(began.elapsed() < Duration::from_secs(20), "it is never given up");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(Duration::from_millis(390) < began.elapsed());
    }

    /// body_bytes_max, event_bytes_max: a reload puts others in force (C-23)
    fn sizes_of_requests_are_reloaded(shards) {
        let site = start(shards, |limits| limits.body_bytes_max = 1_024);
        let push = |event: &str, bytes: usize| {
            let pad = "x".repeat(bytes);
            let body = format!(r#"{{"topic":"t","event":"{event}","payload":"{pad}"}}"#);
            rest(&site, &token("demo", "ada"), "/v1/relay/push", &body).status
        };
        assert_eq!([push("event", 100), push("event", 2_000)], [200, 413]);
        site.reload_limits(|limits| {
            limits.body_bytes_max = 4_096;
            limits.event_bytes_max = 4;
        });
        assert_eq!([push("e", 2_000), push("e", 5_000), push("event", 1)], [200, 413, 422]);
    }
}
