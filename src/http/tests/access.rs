//! Who gets in: tokens, public routes, new keys, pages of other origins.

use crate::auth::Origin;

use super::*;

/// D-09: one answer for every cause.
#[test]
fn whatever_is_wrong_with_a_token_the_answer_is_the_same() {
    let rig = rig();
    let none = rig.open("/v1/connections").problem(401);
    assert_eq!(none.header("www-authenticate"), "Bearer");
    let expired = AuthConfig::new(SECRET, 1)
        .unwrap()
        .issue(&Claims::default(), NOW - 100)
        .unwrap();
    let forged = AuthConfig::new([7; 32], 60)
        .unwrap()
        .issue(&Claims::default(), NOW)
        .unwrap();
    for bad in [expired.as_str(), &forged, "x", "", "a.b.c"] {
        assert_eq!(rig.get("/v1/connections", bad).problem(401).text, none.text);
    }
    // A good token beside another one: a proxy might have looked at the other.
    let good = format!("Bearer {}", token("demo", &[]));
    let twice = [("authorization", &*good), ("authorization", "Bearer x")];
    let refused = rig
        .request("GET", "/v1/connections", &twice, "")
        .problem(401);
    assert_eq!(refused.text, none.text);
    rig.open("/nowhere").problem(401);
}

/// D-09
#[test]
fn a_token_may_come_in_three_ways_and_the_first_decides() {
    let rig = rig();
    let good = token("demo", &[]);
    assert_eq!(rig.get("/whoami", &good).text, "demo");
    assert_eq!(rig.open(&format!("/whoami?token={good}")).text, "demo");
    let offered = [("sec-websocket-protocol", &*format!("bearer, {good}"))];
    assert_eq!(rig.request("GET", "/whoami", &offered, "").text, "demo");
    let first = [("authorization", "Bearer bad")];
    assert_eq!(
        rig.request("GET", &format!("/whoami?token={good}"), &first, "")
            .status,
        401
    );
    assert_eq!(rig.get("/extension", &good).text, "ada");
}

///
#[test]
fn public_routes_need_no_token_and_take_no_bad_one() {
    let rig = rig();
    assert_eq!(rig.open("/open").text, "default");
    assert_eq!(rig.get("/open", &token("demo", &[])).text, "demo");
    assert_eq!(rig.get("/open", "bad").status, 401);
    assert_eq!(rig.open("/open/7").text, "7");
    assert_eq!(
        (rig.open("/open/7/x").status, rig.open("/open/").status),
        (401, 401)
    );
    assert_eq!(rig.request("POST", "/open", &[], "").status, 401);
}

/// A reload changes who gets in, also for tokens that were seen before.
#[test]
fn new_keys_hold_at_once() {
    let rig = rig();
    let good = token("demo", &[]);
    assert_eq!(rig.get("/whoami", &good).status, 200);
    rig.access.store(access(&[9; 32], OriginPolicy::default()));
    assert_eq!(rig.get("/whoami", &good).status, 401);
}

fn listed() -> OriginPolicy {
    let allowed = vec![Origin::parse("https://app.example").unwrap()];
    OriginPolicy {
        allowed,
        ..OriginPolicy::default()
    }
}

/// CORS follows `allowed_origins`; a preflight has no token.
#[test]
fn pages_of_allowed_origins_may_read() {
    let rig = rig_with(Inside::Admins, listed());
    let preflight = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "authorization, content-type",
            ),
        ];
        rig.request("OPTIONS", "/v1/relay/push", &headers, "")
    };
    let allowed = preflight("https://app.example");
    assert_eq!(allowed.status, 200);
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        "https://app.example"
    );
    assert!(
        allowed
            .header("access-control-allow-headers")
            .contains("authorization")
    );
    assert_eq!(
        preflight("https://evil.example").header("access-control-allow-origin"),
        ""
    );
    let headers = [("origin", "https://app.example")];
    let refused = rig
        .request("GET", "/v1/connections", &headers, "")
        .problem(401);
    assert_eq!(
        refused.header("access-control-allow-origin"),
        "https://app.example"
    );
    // H11: where no origin is named no page may read, whatever it may send.
    let origin = [("origin", "https://any.example")];
    let nobody = rig_with(Inside::Admins, OriginPolicy::default());
    for path in ["/healthz", "/open", "/v1/connections"] {
        let answer = nobody.request("GET", path, &origin, "");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
    let dev = rig_with(
        Inside::Everybody,
        OriginPolicy {
            loopback_only: true,
            ..OriginPolicy::default()
        },
    );
    let shown = |origin: &str| {
        let answer = dev.request("GET", "/healthz", &[("origin", origin)], "");
        answer.header("access-control-allow-origin").to_owned()
    };
    assert_eq!(shown("http://localhost:5173"), "http://localhost:5173");
    assert_eq!(shown("https://any.example"), "");
}

#[test]
fn an_upgrade_of_a_foreign_page_is_refused() {
    let rig = rig_with(Inside::Admins, listed());
    let bearer = format!("Bearer {}", token("demo", &[]));
    let upgrade = |origin: &str| {
        let headers = [
            ("authorization", &*bearer),
            ("upgrade", "websocket"),
            ("origin", origin),
        ];
        rig.request("GET", "/whoami", &headers, "").status
    };
    assert_eq!(
        (upgrade("https://app.example"), upgrade("null")),
        (200, 403)
    );
}
