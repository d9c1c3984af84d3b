//! From the first byte to the 101, or to the answer that says why not. Knows heads, tokens and
//! origins; nothing of frames.

use std::time::Instant;

use tidegate::auth::Claims;
use tidegate::gateway::socket::echo;
use tidegate::metrics::Counter;

use crate::harness::http::{Answer, ask};
use crate::harness::wire::{frame, upgrade_request};
use crate::harness::{
    Client, Opcode, PATIENCE, Plan, Site, Wire, both_shards, eventually, tenant, token, token_of,
};

fn start(shards: u16) -> Site {
    Plan::new(shards).raw("/raw", echo).start()
}

/// The standard request with one line changed.
fn changed(from: &str, to: &str) -> String {
    let request = upgrade_request("/raw", &[]);
    assert!(request.contains(from), "{from}");
    request.replacen(from, to, 1)
}

#[track_caller]
fn expect_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{answer:?}"
    );
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["status"], status, "{answer:?}");
}

/// Whether this machine has IPv6 at all; without it there is nothing to try.
fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        println!("skipped: this machine has no IPv6");
    }
    has
}

both_shards! {
    /// IPv6 alone, and both families through one socket
    fn ipv6_is_served_like_ipv4(shards) {
        if !has_ipv6() {
            return;
        }
        for (listen, from) in [("[::1]:0", &["::1"][..]), ("[::]:0", &["::1", "127.0.0.1"])] {
            let plan = Plan::new(shards).raw("/raw", echo);
            let site = plan.config(|config| config.server.listen = listen.parse().unwrap()).start();
            for host in from {
                let address = (host.parse::<std::net::IpAddr>().unwrap(), site.address.port());
                let mut client = Client::connect_public(address.into(), "/raw");
                client.send("over any family");
                assert_eq!(client.receive(), "over any family", "{listen} from {host}");
            }
        }
    }

    /// R-01, T-C3: what is no valid upgrade is a 400, or a 426 that names the version
    fn bad_requests_are_refused(shards) {
        let site = start(shards);
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let version = "Sec-WebSocket-Version: 13\r\n";
        let table = [
            ("a plain GET", "GET /raw HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
            ("a POST", changed("GET", "POST"), 400),
            ("HTTP/1.0", changed("HTTP/1.1", "HTTP/1.0"), 400),
            ("no host", changed("Host: localhost\r\n", ""), 400),
            ("two hosts", changed("Host: localhost\r\n", "Host: a\r\nHost: b\r\n"), 400),
            ("no upgrade", changed("Upgrade: websocket\r\n", ""), 400),
            ("another upgrade", changed("Upgrade: websocket", "Upgrade: h2c"), 400),
            ("no connection", changed("Connection: Upgrade\r\n", ""), 400),
            ("keep-alive", changed("Connection: Upgrade", "Connection: keep-alive"), 400),
            ("no version", changed(version, ""), 400),
            ("two versions", changed(version, &version.repeat(2)), 400),
            ("version 8", changed(": 13", ": 8"), 426),
            ("version 0", changed(": 13", ": 0"), 426),
            ("a version that is none", changed(": 13", ": abc"), 426),
            ("no key", changed(key, ""), 400),
            ("two keys", changed(key, &key.repeat(2)), 400),
            ("a short key", changed("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
            ("a long key", changed("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZSBhbmQ="), 400),
            ("a key in another alphabet", changed("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ!=="), 400),
            ("a protocol that is no token", upgrade_request("/raw", &["Sec-WebSocket-Protocol: a b"]), 400),
            ("a body", upgrade_request("/raw", &["Content-Length: 5"]), 400),
            ("a chunked body", upgrade_request("/raw", &["Transfer-Encoding: chunked"]), 400),
            ("a folded line", upgrade_request("/raw", &["X-Folded: a", " b"]), 400),
            ("a space before the colon", upgrade_request("/raw", &["X-Space : a"]), 400),
            ("a line without a colon", upgrade_request("/raw", &["nonsense"]), 400),
            ("a NUL in a value", upgrade_request("/raw", &["X: a\0b"]), 400),
            ("no HTTP", "hello\r\n\r\n".to_owned(), 400),
            ("TLS", "\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400),
        ];
        for (what, request, status) in table {
            println!("{what}");
            let mut wire = Wire::connect(site.address);
            wire.write(&request);
            let answer = wire.read_answer();
            expect_problem(&answer, status);
            let version = (status == 426).then_some("13");
            assert_eq!(answer.header("sec-websocket-version"), version);
            wire.expect_end();
        }
    }

    /// T-C3: what RFC 6455 and 9110 allow is allowed
    fn good_requests_are_accepted(shards) {
        let site = start(shards);
        let table = [
            upgrade_request("/raw", &[]),
            upgrade_request("/raw/", &[]),
            upgrade_request("/raw?x=1&y", &[]),
            changed("Upgrade: websocket", "uPGRADE:WebSocket"),
            changed("Upgrade: websocket", "Upgrade: h2c, websocket"),
            changed("Connection: Upgrade", "connection: keep-alive, UPGRADE"),
            changed("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
            changed("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version:   13  "),
            format!("\r\n{}", upgrade_request("/raw", &[])),
            upgrade_request("/raw", &["Content-Length: 0"]),
            upgrade_request("/raw", &["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]),
            upgrade_request("/raw", &["X-Latin: caf\u{e9}", "X-Empty:"]),
        ];
        for request in table {
            println!("{request}");
            let mut wire = Wire::connect(site.address);
            wire.write(request);
            let head = wire.read_head().to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
            assert!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
            assert!(!head.contains("extensions"), "{head}");
            wire.send(Opcode::TEXT, "hi");
            wire.expect_text("hi");
        }
    }

    /// RELIABILITY sections 6 and 7: sizes of a head
    fn large_heads_are_refused(shards) {
        let site = start(shards);
        let long_target = format!("/raw?{}", "x".repeat(4_096));
        let long_header = format!("X-Long: {}", "x".repeat(8_192));
        let line = "X-Many: x";
        let table = [
            (upgrade_request(&long_target, &[]), 414),
            (upgrade_request("/raw", &[&long_header]), 431),
            (upgrade_request("/raw", &[line; 60]), 431),
            // Without an end they are refused all the same.
            (format!("GET /{}", "x".repeat(5_000)), 414),
            (format!("GET /raw HTTP/1.1\r\nX: {}", "x".repeat(9_000)), 431),
        ];
        for (request, status) in table {
            expect_problem(&ask(site.address, &request), status);
        }
        let largest = upgrade_request("/raw", &[line; 59]);
        assert_eq!(ask(site.address, &largest).status, 101);
    }

    /// D-09: the first place that holds a token decides, whatever stands in the others
    fn tokens_come_from_three_places(shards) {
        let site = start(shards);
        let good = token("demo", "ada");
        let protocol = format!("Sec-WebSocket-Protocol: bearer, {good}");
        let header = format!("Authorization: Bearer {good}");
        let query = format!("/ws?token={good}");
        let table: [(&str, &[&str], u16); 14] = [
            ("/ws", &[], 401),
            ("/ws", &[&header], 101),
            ("/ws", &[&header.replace("Bearer", "bEARER")], 101),
            ("/ws", &[&header.replace("Bearer", "Basic")], 401),
            (&query, &[], 101),
            (&query, &["Authorization: Basic YTpi"], 101),
            (&format!("/ws?a=b&token={good}"), &[], 101),
            ("/ws?token=", &[], 401),
            ("/ws", &[&protocol], 101),
            ("/ws", &["Sec-WebSocket-Protocol: bearer"], 401),
            (&query, &["Authorization: Bearer bad"], 401),
            ("/ws?token=bad", &[&header], 101),
            ("/ws?token=bad", &[&protocol], 401),
            ("/ws", &[&format!("Cookie: token={good}")], 401),
        ];
        for (target, lines, status) in table {
            let answer = ask(site.address, &upgrade_request(target, lines));
            assert_eq!(answer.status, status, "{target} {lines:?}");
        }
    }

    /// T-A1: whatever is wrong with a token, the answer is one and the same
    fn bad_tokens_get_one_answer(shards) {
        let site = start(shards);
        let good = token("demo", "ada");
        let (unsigned, _) = good.rsplit_once('.').unwrap();
        let expired = token_of(&Claims::new(tenant("demo"), "ada"), 0);
        let mut early = Claims::new(tenant("demo"), "ada");
        early.others.insert("nbf".to_owned(), (crate::harness::unix_s() + 3_600).into());
        let mut odd = Claims::default();
        odd.others.insert("ns".to_owned(), "../etc".into());
        let swapped: String = good.chars().map(|c| if c == 'e' { 'f' } else { c }).collect();
        let table = [
            String::new(),
            "nonsense".to_owned(),
            "a.b.c".to_owned(),
            format!("{unsigned}."),
            unsigned.to_owned(),
            good[..good.len() - 4].to_owned(),
            format!("{good}AA"),
            swapped,
            token_of(&early, 7_200),
            token_of(&odd, 3_600),
            "x".repeat(3_500),
            // Expired for longer than the leeway of clocks.
            expired_long_ago(),
        ];
        let none = ask(site.address, &upgrade_request("/ws", &[]));
        expect_problem(&none, 401);
        assert_eq!(none.header("www-authenticate"), Some("Bearer"));
        for bad in &table {
            let line = format!("Authorization: Bearer {bad}");
            let answer = ask(site.address, &upgrade_request("/ws", &[&line]));
            assert_eq!(answer, none, "{bad}");
        }
        // Within the leeway it is let in, and stays for what is left of that.
        Client::connect(site.address, "/ws", &expired).expect_nothing();
    }

    /// T-A1: what somebody forged who knows the secret, or claims to need none
    fn forged_tokens_get_that_answer_too(shards) {
        let site = start(shards);
        let soon = crate::harness::unix_s() + 600;
        let good = format!(r#"{{"ns":"demo","sub":"ada","exp":{soon}}}"#);
        let hs256 = r#"{"alg":"HS256","typ":"JWT"}"#;
        assert_eq!(status_with(&site, &forged(hs256, &good)), 101);
        let with = |name: &str, value: &str| format!(r#"{{"alg":"HS256","{name}":{value}}}"#);
        let headers = [
            r#"{"alg":"none"}"#.to_owned(),
            r#"{"alg":"None"}"#.to_owned(),
            r#"{"alg":""}"#.to_owned(),
            r#"{"alg":"HS512"}"#.to_owned(),
            r#"{"alg":"RS256"}"#.to_owned(),
            r#"{"typ":"JWT"}"#.to_owned(),
            with("kid", r#""unknown""#),
            with("kid", r#""../../dev/null""#),
            with("jwk", r#"{"kty":"oct","k":"AAAA"}"#),
            with("jku", r#""https://evil.example""#),
            with("crit", r#"["exp"]"#),
        ];
        let claims = [
            r#"{"ns":"demo"}"#.to_owned(),
            format!(r#"{{"ns":"demo","exp":"{soon}"}}"#),
            r#"{"ns":"demo","exp":-1}"#.to_owned(),
            r#"{"ns":"demo","exp":1e400}"#.to_owned(),
            format!(r#"{{"ns":"demo","exp":{soon},"nbf":"0"}}"#),
            format!(r#"{{"ns":7,"exp":{soon}}}"#),
            format!(r#"{{"ns":"","exp":{soon}}}"#),
            format!(r#"{{"ns":"../demo","exp":{soon}}}"#),
            format!(r#"{{"ns":"{}","exp":{soon}}}"#, "n".repeat(65)),
            format!(r#"{{"ns":"demo","ns":"other","exp":{soon}}}"#),
            format!(r#"{{"ns":"demo","exp":1,"exp":{soon}}}"#),
            format!("{good} and more"),
            "[]".to_owned(),
        ];
        let by_header = headers.iter().map(|header| forged(header, &good));
        let by_claims = claims.iter().map(|claims| forged(hs256, claims));
        for token in by_header.chain(by_claims) {
            assert_eq!(status_with(&site, &token), 401, "{token}");
        }
    }

    /// D-04, D-09: the subprotocol that is chosen
    fn subprotocols_are_echoed(shards) {
        let site = start(shards);
        let good = token("demo", "ada");
        let table = [
            ("tidegate.relay.v1".to_owned(), Some("tidegate.relay.v1")),
            ("graphql, tidegate.relay.v1".to_owned(), Some("tidegate.relay.v1")),
            (format!("bearer, {good}"), Some("bearer")),
            (format!("bearer, {good}, tidegate.relay.v1"), Some("tidegate.relay.v1")),
            ("tidegate.event.v1".to_owned(), None),
            ("graphql".to_owned(), None),
        ];
        for (offered, chosen) in table {
            let lines = [format!("Sec-WebSocket-Protocol: {offered}"), format!("Authorization: Bearer {good}")];
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let answer = ask(site.address, &upgrade_request("/ws", &lines));
            assert_eq!(answer.status, 101, "{offered}");
            assert_eq!(answer.header("sec-websocket-protocol"), chosen, "{offered}");
        }
    }

    /// RELIABILITY section 7: origins are checked when a list is set, exactly
    fn origins_are_checked(shards) {
        let site = Plan::new(shards)
            .config(|config| config.auth.allowed_origins = vec!["https://app.example".to_owned()])
            .raw("/raw", echo)
            .start();
        let table: [(&[&str], u16); 9] = [
            (&[], 101),
            (&["Origin: https://app.example"], 101),
            (&["Origin: https://app.example:443"], 101),
            (&["Origin: http://app.example"], 403),
            (&["Origin: https://app.example:8443"], 403),
            (&["Origin: https://app.example.evil.test"], 403),
            (&["Origin: https://evil.test"], 403),
            (&["Origin: null"], 403),
            (&["Origin: "], 403),
        ];
        for (lines, status) in table {
            let answer = ask(site.address, &upgrade_request("/raw", lines));
            assert_eq!(answer.status, status, "{lines:?}");
        }
        // Without a list nothing is checked.
        let open = start(shards);
        let line = "Origin: https://evil.test";
        assert_eq!(ask(open.address, &upgrade_request("/raw", &[line])).status, 101);
    }

    /// T-C3: frames right behind the head are not lost, and a head may come in any pieces
    fn bytes_may_come_together_or_apart(shards) {
        let site = start(shards);
        let mut wire = Wire::connect(site.address);
        let mut bytes = upgrade_request("/raw", &[]).into_bytes();
        bytes.extend(frame(true, Opcode::TEXT, b"one"));
        let two = frame(true, Opcode::TEXT, b"two");
        bytes.extend(&two[..3]);
        wire.write(bytes);
        wire.write(&two[3..]);
        assert!(wire.read_head().starts_with("HTTP/1.1 101 "));
        wire.expect_text("one");
        wire.expect_text("two");
        let mut wire = Wire::connect(site.address);
        for byte in upgrade_request("/raw", &[]).bytes() {
            wire.write([byte]);
        }
        assert!(wire.read_head().starts_with("HTTP/1.1 101 "));
        wire.send(Opcode::TEXT, "three");
        wire.expect_text("three");
    }

    /// P12: a slow handshake is closed in time, and good clients do not notice
    fn slow_handshakes_are_closed(shards) {
        let site = Plan::new(shards)
            .limits(|limits| limits.handshake_ms_max = 300)
            .raw("/raw", echo)
            .start();
        let mut silent = Wire::connect(site.address);
        let mut slow = Wire::connect(site.address);
        slow.write("GET /raw HTTP/1.1\r\n");
        let started = Instant::now();
        Client::connect_public(site.address, "/raw").ask("hi", "hi");
        let mut sent = 0;
        // One byte now and then does not prolong it.
        while slow.try_write(b"X").is_ok() && started.elapsed() < PATIENCE {
            sent += 1;
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(started.elapsed() < PATIENCE, "{sent} bytes and still open");
        slow.expect_end();
        silent.expect_end();
    }

    /// A connection that ends in the middle of its head costs nothing
    fn a_head_may_never_end(shards) {
        let site = start(shards);
        for count in [0, 1, 20, 100] {
            let mut wire = Wire::connect(site.address);
            wire.write(&upgrade_request("/raw", &[])[..count]);
            wire.finish();
            wire.expect_end();
        }
        eventually("all are accepted", || site.count(Counter::ConnectionsAccepted) == 4);
        assert_eq!(site.count(Counter::ConnectionsUpgraded), 0);
    }
}

/// A token with exactly this header and these claims, signed as our own are.
fn forged(header: &str, claims: &str) -> String {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = jsonwebtoken::EncodingKey::from_secret(crate::harness::SECRET);
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn status_with(site: &Site, token: &str) -> u16 {
    let line = format!("Authorization: Bearer {token}");
    ask(site.address, &upgrade_request("/ws", &[&line])).status
}

fn expired_long_ago() -> String {
    let issuer = tidegate::AuthConfig::new(crate::harness::SECRET, 10).unwrap();
    let claims = Claims::new(tenant("demo"), "ada");
    issuer
        .issue(&claims, crate::harness::unix_s() - 3_600)
        .unwrap()
}
