//! Two ways in, one policy: the first request of a connection is read by the data ring and those
//! that follow by an HTTP library, and each form of a request gets the same answer on both, to
//! mounts, to routes, and to paths where nothing is. Knows heads; no dialect.

use axum::Router;
use axum::routing::{get, post};
use tidegate::gateway::socket::echo;

use crate::refusals::socketio;

use crate::harness::http::request;
use crate::harness::{Plan, Site, Wire, both_shards, token};

fn start(shards: u16) -> Site {
    let routes = Router::new()
        .route("/mine", get(async || "mine").post(async || "made"))
        .route("/both", post(async || "posted"))
        .route("/files/{*rest}", get(async || "a file"));
    Plan::new(shards)
        .config(|config| config.auth.allowed_origins = vec!["http://here.example".to_owned()])
        .raw("/raw", echo)
        .with(|builder| {
            builder
                .router(routes)
                .raw("/both", echo)
                .module::<socketio::SocketIoModule>()
                .public_route("GET", "/mine")
                .public_route("POST", "/both")
                .public_route("GET", "/files/{*rest}")
        })
        .start()
}

/// The ways in: a new connection, and one that has been answered before.
fn ways(site: &Site) -> [(&'static str, Wire); 2] {
    let mut kept = Wire::connect(site.address);
    kept.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(kept.read_answer().status, 200);
    [("first", Wire::connect(site.address)), ("later", kept)]
}

/// The status of the answer to these bytes, on both ways.
#[track_caller]
fn expect(site: &Site, bytes: impl AsRef<[u8]>, status: u16) {
    let shown = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    for (way, mut wire) in ways(site) {
        wire.write(bytes.as_ref());
        let head = wire.read_head();
        let found: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(found, status, "{way}: {shown}\n{head}");
    }
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A request head; `upgrade` makes it one for a WebSocket.
fn head(line: &str, lines: &[&str], upgrade: bool) -> Vec<u8> {
    let mut text = format!("{line}\r\n");
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    if upgrade {
        text.push_str("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n");
        if !text.contains("Sec-WebSocket-Key") {
            text.push_str(&format!("Sec-WebSocket-Key: {KEY}\r\n"));
        }
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// H3: the listener for operators asks for the same
#[test]
fn the_listener_for_operators_wants_a_host() {
    let site = Plan::new(1)
        .config(|config| config.admin.listen = Some("127.0.0.1:0".parse().unwrap()))
        .start();
    let operators = site.server().admin_address().unwrap();
    for (lines, status) in [
        (&["Host: localhost"][..], 200),
        (&["Host: [::1]:80"], 200),
        (&[], 400),
        (&["Host: a", "Host: a"], 400),
        (&["Host: a b"], 400),
        (&["Host:"], 400),
    ] {
        for target in ["/healthz", "/metrics", "/"] {
            let mut wire = Wire::connect(operators);
            wire.write(head(&format!("GET {target} HTTP/1.1"), lines, false));
            assert_eq!(wire.read_answer().status, status, "{target} {lines:?}");
        }
    }
}

/// Places that a request may be for: a target, whether it is an upgrade, and the answer to a good one.
fn places() -> Vec<(String, bool, u16)> {
    let relay = format!("/ws?token={}", token("demo", "ada"));
    let push = format!("/v1/relay/presence?topic=t&token={}", token("demo", "ada"));
    let nothing = format!("/nothing?token={}", token("demo", "ada"));
    vec![
        ("/raw".to_owned(), true, 101),
        (relay, true, 101),
        ("/socket.io/?EIO=4&transport=polling".to_owned(), false, 200),
        (
            "/socket.io/?EIO=4&transport=websocket".to_owned(),
            true,
            101,
        ),
        ("/healthz".to_owned(), false, 200),
        (push, false, 200),
        ("/mine".to_owned(), false, 200),
        (nothing.clone(), false, 404),
        (nothing, true, 404),
        // What is no upgrade is refused by the mount.
        ("/raw".to_owned(), false, 400),
    ]
}

/// Forms of a request for `target`, each with the status that answers it.
fn forms(target: &str, upgrade: bool, good: u16) -> Vec<(&'static str, Vec<u8>, u16)> {
    let of = |line: String, lines: &[&str]| head(&line, lines, upgrade);
    let get = |lines: &[&str]| of(format!("GET {target} HTTP/1.1"), lines);
    let long = "x".repeat(5_000);
    let many: Vec<String> = (0..100).map(|number| format!("x-{number}: 1")).collect();
    let many: Vec<&str> = std::iter::once("Host: a")
        .chain(many.iter().map(String::as_str))
        .collect();
    let huge = format!("x-long: {}", "y".repeat(40_000));
    let and = if target.contains('?') { '&' } else { '?' };
    vec![
        ("as it should be", get(&["Host: a"]), good),
        (
            "absolute",
            of(format!("GET http://a{target} HTTP/1.1"), &["Host: a"]),
            good,
        ),
        ("names in capitals", get(&["HOST: a", "X-SOME: y"]), good),
        ("no space before a value", get(&["Host:a"]), good),
        ("white space around a value", get(&["Host:  \ta \t "]), good),
        ("an empty value", get(&["Host: a", "x-empty:"]), good),
        (
            "a long target",
            of(format!("GET {target}{and}x={long} HTTP/1.1"), &["Host: a"]),
            414,
        ),
        ("too many headers", get(&many), 431),
        ("a long head", get(&["Host: a", &huge]), 431),
        (
            "white space before a colon",
            get(&["Host: a", "x-bad : 1"]),
            400,
        ),
        (
            "a folded line",
            get(&["Host: a", "x-fold: 1", " more"]),
            400,
        ),
        ("a line without a colon", get(&["Host: a", "nonsense"]), 400),
        ("an empty name", get(&["Host: a", ": 1"]), 400),
        ("a name with a space", get(&["Host: a", "x y: 1"]), 400),
        ("a zero in a value", get(&["Host: a", "x-zero: a\0b"]), 400),
        ("a return in a value", get(&["Host: a", "x-cr: a\rb"]), 400),
        (
            "two spaces in the first line",
            of(format!("GET  {target} HTTP/1.1"), &["Host: a"]),
            400,
        ),
        ("no version", of(format!("GET {target}"), &["Host: a"]), 400),
        (
            "a version of another kind",
            of(format!("GET {target} HTTQ/1.1"), &["Host: a"]),
            400,
        ),
        (
            "a method with a space",
            of(format!("G@T( {target} HTTP/1.1"), &["Host: a"]),
            400,
        ),
        (
            "no method",
            of(format!(" {target} HTTP/1.1"), &["Host: a"]),
            400,
        ),
    ]
}

both_shards! {
    /// H3: one Host that names a host, on every route and on upgrades
    fn a_request_has_one_valid_host(shards) {
        let site = start(shards);
        let bad: [&[&str]; 12] = [
            &[],
            &["Host: localhost", "Host: localhost"],
            &["Host: a", "host: b"],
            &["Host:"],
            &["Host: a b"],
            &["Host: a/b"],
            &["Host: user@a"],
            &["Host: a,b"],
            &["Host: a:b"],
            &["Host: [::1"],
            &["Host: [localhost]:80"],
            &["Host: a%zz"],
        ];
        let good = ["localhost", "localhost:4000", "a_b.example:", "[::1]:80", "127.0.0.1", "a%20b", "xn--a.B-c"];
        for (target, upgrade, status) in places() {
            for lines in bad {
                expect(&site, head(&format!("GET {target} HTTP/1.1"), lines, upgrade), 400);
            }
            for host in good {
                let line = format!("Host: {host}");
                expect(&site, head(&format!("GET {target} HTTP/1.1"), &[&line], upgrade), status);
            }
            // An absolute target names its host itself, and the header is asked for all the same.
            let absolute = format!("GET http://example.com{target} HTTP/1.1");
            expect(&site, head(&absolute, &["Host: example.com"], upgrade), status);
            expect(&site, head(&absolute, &[], upgrade), 400);
        }
        // HTTP/1.0 knows no Host; one that it sends must be good.
        expect(&site, head("GET /healthz HTTP/1.0", &[], false), 200);
        expect(&site, head("GET /healthz HTTP/1.0", &["Host: a b"], false), 400);
        expect(&site, head("GET /raw HTTP/1.0", &["Host: a"], true), 400);
    }

    /// Each form of a head is taken, or refused with the same status, on both ways
    fn a_form_is_answered_alike_on_both_ways(shards) {
        let site = start(shards);
        let mut wrong = Vec::new();
        for (target, upgrade, good) in places() {
            for (form, bytes, status) in forms(&target, upgrade, good) {
                for (way, mut wire) in ways(&site) {
                    wire.write(&bytes);
                    let head = wire.read_head();
                    let found = head.split(' ').nth(1).and_then(|it| it.parse::<u16>().ok());
                    if found != Some(status) {
                        wrong.push(format!("{way} {target} upgrade={upgrade} {form}: {status}, not {found:?}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// RFC 6455 section 4.2.1: so is each form of an upgrade
    fn a_form_of_an_upgrade_is_answered_alike(shards) {
        let site = start(shards);
        let key = format!("Sec-WebSocket-Key: {KEY}");
        let (version, upgrade, connection) = ("Sec-WebSocket-Version: 13", "Upgrade: websocket", "Connection: Upgrade");
        let forms: &[(u16, &[&str])] = &[
            (101, &[upgrade, connection, version, &key]),
            (101, &["upgrade: WebSocket", "connection: keep-alive, UPGRADE", version, &key]),
            (101, &["Upgrade: h2c, websocket", "Connection: keep-alive", "Connection: upgrade", version, &key]),
            (101, &[upgrade, connection, version, &key, "Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c"]),
            (101, &[upgrade, connection, version, &key, "Content-Length: 0"]),
            (426, &[upgrade, connection, "Sec-WebSocket-Version: 12", &key]),
            (400, &[upgrade, connection, &key]),
            (400, &[upgrade, connection, version]),
            (400, &[upgrade, connection, version, &key, &key]),
            (400, &[upgrade, connection, version, "Sec-WebSocket-Key: x"]),
            (400, &[upgrade, version, &key]),
            (400, &["Upgrade: websockets", connection, version, &key]),
            (400, &[upgrade, "Connection: close", version, &key]),
            (400, &[connection, version, &key]),
            (400, &[upgrade, connection, version, &key, "Content-Length: 5"]),
            (400, &[upgrade, connection, version, &key, "Transfer-Encoding: chunked"]),
            (400, &[upgrade, connection, version, &key, "Content-Length: 0", "Transfer-Encoding: chunked"]),
            (400, &[upgrade, connection, version, &key, "Content-Length: x"]),
            (400, &[upgrade, connection, version, &key, "Content-Length: 0", "Content-Length: 1"]),
            (401, &[upgrade, connection, version, &key, "Authorization: Bearer nonsense"]),
            (401, &[upgrade, connection, version, &key, "Sec-WebSocket-Protocol: bearer, nonsense"]),
            (101, &[upgrade, connection, version, &key, "Origin: http://here.example"]),
            (403, &[upgrade, connection, version, &key, "Origin: http://elsewhere.example"]),
        ];
        let mut wrong = Vec::new();
        for (status, lines) in forms {
            for line in ["GET /raw HTTP/1.1", "GET http://a/raw HTTP/1.1"] {
                let mut all = vec!["Host: a"];
                all.extend_from_slice(lines);
                let bytes = head(line, &all, false);
                for (way, mut wire) in ways(&site) {
                    wire.write(&bytes);
                    let head = wire.read_head();
                    let found = head.split(' ').nth(1).and_then(|it| it.parse::<u16>().ok());
                    if found != Some(*status) {
                        wrong.push(format!("{way} {line} {lines:?}: {status}, not {found:?}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// H2, RFC 9110 5.5: bytes above ASCII in a value are nobody's matter
    fn header_values_may_be_any_text(shards) {
        let site = start(shards);
        for value in [&b"caf\xc3\xa9"[..], b"caf\xe9", b"\xff\x80", b"a\tb"] {
            for (target, upgrade, status) in places() {
                for line in [format!("GET {target} HTTP/1.1"), format!("GET http://localhost{target} HTTP/1.1")] {
                    let mut bytes = head(&line, &["Host: localhost"], upgrade);
                    bytes.truncate(bytes.len() - 2);
                    bytes.extend_from_slice(b"X-Name: ");
                    bytes.extend_from_slice(value);
                    bytes.extend_from_slice(b"\r\n\r\n");
                    expect(&site, bytes, status);
                }
            }
        }
    }

    /// H5: the last character of a key carries two bits, and the other four are no matter
    fn pad_bits_of_a_key_are_no_matter(shards) {
        let site = start(shards);
        let good = ["AQIDBAUGBwgJCgsMDQ4PEA==", "AQIDBAUGBwgJCgsMDQ4PEC==", "AQIDBAUGBwgJCgsMDQ4PE/==", "AQIDBAUGBwgJCgsMDQ4PEB=="];
        for key in good {
            let line = format!("Sec-WebSocket-Key: {key}");
            expect(&site, head("GET /raw HTTP/1.1", &["Host: a", &line], true), 101);
        }
        let bad = ["AQIDBAUGBwgJCgsMDQ4PEC=", "AQIDBAUGBwgJCgsMDQ4PEC", "AQIDBAUGBwgJCgsMDQ4PE===", "AQIDBAUGBwgJCgsMDQ4P-C==", "AQIDBAUGBwgJCgsMDQ4PECAA"];
        for key in bad {
            let line = format!("Sec-WebSocket-Key: {key}");
            expect(&site, head("GET /raw HTTP/1.1", &["Host: a", &line], true), 400);
        }
    }

    /// H4: an answer to HEAD has no body, whoever gives it
    fn an_answer_to_head_has_no_body(shards) {
        let site = start(shards);
        let long = format!("/{}", "x".repeat(5_000));
        let targets = ["/raw", "/ws", "/healthz", "/mine", "/nothing", &long];
        for target in targets {
            for (way, mut wire) in ways(&site) {
                wire.write(head(&format!("HEAD {target} HTTP/1.1"), &["Host: a", "Connection: close"], false));
                let head = wire.read_head();
                assert!(head.starts_with("HTTP/1.1 "), "{way} {target}: {head}");
                assert_eq!(wire.read_to_end(), b"", "{way} {target}: {head}");
            }
        }
    }

    /// H9: the method counts, for what is public and for who is asked
    fn the_method_of_a_route_counts(shards) {
        let site = start(shards);
        let host = ["Host: a"];
        // A POST that is public opens no mount.
        expect(&site, head("GET /both HTTP/1.1", &host, true), 401);
        let token = token("demo", "ada");
        expect(&site, head(&format!("GET /both?token={token} HTTP/1.1"), &host, true), 101);
        for (way, mut wire) in ways(&site) {
            wire.write(request("POST", "/both", None, "{}"));
            let answer = wire.read_answer();
            assert_eq!((answer.status, answer.body.as_str()), (200, "posted"), "{way}");
        }
        // Where the user has no route of that method the mount says what it wants.
        for (way, mut wire) in ways(&site) {
            wire.write(request("PUT", "/both", Some(&token), "{}"));
            assert_eq!(wire.read_answer().status, 400, "{way}");
        }
        expect(&site, head("GET /files/a/b/c.js HTTP/1.1", &host, false), 200);
        expect(&site, head("GET /mine HTTP/1.1", &host, false), 200);
        expect(&site, request("POST", "/mine", None, ""), 401);
    }

    /// H1, RFC 9112 9.6: who has said all there is to say still hears the answers
    fn a_half_closed_connection_is_answered(shards) {
        let site = start(shards);
        let token = token("demo", "svc");
        let push = request("POST", "/v1/relay/push", Some(&token), r#"{"topic":"t","event":"e","payload":1}"#);
        for count in [1, 3] {
            for (way, mut wire) in ways(&site) {
                wire.write(push.repeat(count));
                wire.finish();
                for _ in 0..count {
                    assert_eq!(wire.read_answer().status, 200, "{way}");
                }
                wire.expect_end();
            }
        }
        // Half a body is no request, and nothing waits for the rest.
        for (_, mut wire) in ways(&site) {
            wire.write(&push[..push.len() - 3]);
            wire.finish();
            wire.read_to_end();
        }
    }

    /// H6: a wrong header ends a connection before the rest of it is there, in each dialect
    fn a_wrong_header_is_not_waited_for(shards) {
        let data = tempfile::tempdir().unwrap();
        let site = crate::durable::plan(shards, data.path()).raw("/raw", echo).start();
        let token = token("demo", "ada");
        let headers: [&[u8]; 5] = [&[0xc1], &[0x83], &[0x8b, 0x80], &[0x81, 0x05], &[0x09, 0x80]];
        for target in ["/raw".to_owned(), format!("/ws?token={token}"), format!("/v1/ws?token={token}")] {
            for header in headers {
                for (way, mut wire) in ways(&site) {
                    wire.upgrade(&target);
                    wire.write(header);
                    wire.expect_close(1002);
                    wire.expect_end();
                    assert!(!way.is_empty());
                }
            }
        }
    }
}
