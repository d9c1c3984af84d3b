//! REST over real sockets: what a request asks of all shards, and what it says to subscribers.
//! Knows routes and documents; the middleware has tests of its own beside its code.

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};

use tidegate::CurrentUser;
use tidegate::auth::{AuthConfig, Authenticator, Claims, Key, Rules};
use tidegate::metrics::Counter;

use crate::harness::{
    Client, Plan, SECRET, Site, both_shards, eventually, http, tenant, token, token_of, unix_s,
};

fn ask(site: &Site, method: &str, target: &str, token: &str, body: &str) -> http::Answer {
    http::ask(
        site.address,
        &http::request(method, target, Some(token), body),
    )
}

fn json_of(answer: &http::Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}

fn admin(ns: &str) -> String {
    token_of(&Claims::new(tenant(ns), "root").role("admin"), 60)
}

both_shards! {
    /// C-06, R-07: verbatim, to the tenant of the token and to nobody else
    fn a_push_reaches_the_subscribers_of_its_tenant(shards) {
        let site = Plan::new(shards).start();
        let (mut ada, mut bob) = site.join_two("demo");
        let mut eve = site.join("other", "eve");
        for client in [&mut ada, &mut bob, &mut eve] {
            client.subscribe("orders:new");
        }
        let body = r#"{ "event":"created", "payload": {"total": 42.50,"big":123456789012345678901}, "topic":"orders:new"}"#;
        let pushed = ask(&site, "POST", "/v1/relay/push", &token("demo", "svc"), body);
        assert_eq!((pushed.status, pushed.body.as_str()), (200, r#"{"accepted":2}"#));
        for client in [&mut ada, &mut bob] {
            client.expect_push("orders:new", "created", r#"{"total": 42.50,"big":123456789012345678901}"#);
        }
        eve.expect_nothing();
        let nobody = r#"{"topic":"empty","event":"e","payload":1}"#;
        assert_eq!(ask(&site, "POST", "/v1/relay/push", &token("demo", "svc"), nobody).status, 200);
    }

    /// C-09: those of the tenant over all shards; an admin of the tenant closes one
    fn connections_are_listed_and_closed(shards) {
        let site = Plan::new(shards).start();
        let (ada, mut bob) = site.join_two("demo");
        let _eve = site.join("other", "eve");
        let listed = json_of(&ask(&site, "GET", "/v1/connections", &token("demo", "x"), ""));
        assert_eq!(listed["count"], 2);
        let all = listed["connections"].as_array().unwrap();
        let of = |sub: &str| all.iter().find(|one| one["sub"] == sub).unwrap();
        assert_eq!(of("ada")["path"], "/ws");
        assert_ne!(of("ada")["conn_id"], of("bob")["conn_id"]);
        assert!(of("ada")["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
        let found = |query: &str| {
            let target = format!("/v1/connections?{query}");
            let page = json_of(&ask(&site, "GET", &target, &token("demo", "x"), ""));
            (page["count"].clone(), page["connections"].as_array().unwrap().len())
        };
        assert_eq!(found("limit=1"), (2.into(), 1));
        assert_eq!(found("contains=ADA"), (1.into(), 1));
        assert_eq!(found("contains=%2Fws&limit=0"), (2.into(), 0));
        assert_eq!(found(&format!("contains={}", of("bob")["id"].as_str().unwrap())).0, 1);
        assert_eq!(found("contains=eve"), (0.into(), 0));
        let port = of("ada")["peer"].as_str().unwrap().rsplit(':').next().unwrap();
        assert_eq!(found(&format!("contains=1:{port}")).0, 1);
        let target = format!("/v1/connections/{}", of("ada")["id"].as_str().unwrap());
        assert_eq!(ask(&site, "DELETE", &target, &token("demo", "x"), "").status, 403);
        assert_eq!(ask(&site, "DELETE", &target, &admin("other"), "").status, 404);
        assert_eq!(ask(&site, "DELETE", &target, &admin("demo"), "").status, 204);
        ada.expect_close(1008, "closed by an administrator");
        bob.expect_nothing();
        // Who has left is neither counted nor shown.
        assert_eq!(found("limit=9"), (1.into(), 1));
        drop(bob);
        eventually("nobody is left", || found("limit=9") == (0.into(), 0));
        for wrong in ["x", "0-0", "99-0-0", "0-99-1", "0-0-0-0"] {
            let target = format!("/v1/connections/{wrong}");
            assert_eq!(ask(&site, "DELETE", &target, &admin("demo"), "").status, 404, "{wrong}");
        }
    }

    /// C-10: what is counted can be read by an admin, on any shard
    fn metrics_hold_what_all_shards_counted(shards) {
        let site = Plan::new(shards).start();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.expect_nothing();
        bob.expect_nothing();
        let metrics = ask(&site, "GET", "/metrics", &admin("demo"), "");
        assert_eq!(metrics.status, 200);
        let name = "tidegate_messages_received_total{";
        let numbers = metrics.body.lines().filter(|line| line.starts_with(name));
        let read: u64 = numbers.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(read, site.count(Counter::MessagesReceived));
        assert!(2 <= read, "{read}");
        let some = ask(&site, "GET", "/metrics?families=tidegate_turns,no,tidegate_sent_bytes", &admin("demo"), "");
        let shown: std::collections::BTreeSet<_> = some.body.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('{').next().unwrap()).collect();
        assert_eq!(Vec::from_iter(shown), ["tidegate_sent_bytes_total", "tidegate_turns_total"]);
        // Neither a tenant nor who is in it is anybody's label.
        assert!(!metrics.body.contains("demo") && !metrics.body.contains("ada"));
    }
}

/// C-26, R-05: the user's own routes stand beside those of the server, behind the same door
#[test]
fn routes_of_the_user_know_their_caller() {
    let site = Plan::new(2)
        .with(|builder| {
            let whoami = |user: axum::Extension<std::sync::Arc<tidegate::auth::Caller>>| async move {
                CurrentUser::from(&**user).id
            };
            let routes = Router::new()
                .route("/whoami", get(whoami))
                .route("/rooms/{room}", get(|| async { "open" }))
                .route("/panic", get(|| async { panic!("a secret") as &'static str }));
            builder.router(routes).public_route("GET", "/rooms/{room}")
        })
        .start();
    assert_eq!(
        ask(&site, "GET", "/whoami", &token("demo", "ada"), "").body,
        "ada"
    );
    let open = |target| http::ask(site.address, &http::request("GET", target, None, ""));
    assert_eq!(
        (open("/rooms/7").status, open("/whoami").status),
        (200, 401)
    );
    let panicked = ask(&site, "GET", "/panic", &token("demo", "ada"), "");
    assert_eq!(panicked.status, 500);
    assert_eq!(json_of(&panicked)["detail"], "internal");
    let missing = ask(&site, "GET", "/nowhere", &token("demo", "ada"), "");
    assert_eq!(
        missing.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(missing.status, 404);
}

/// C-23: new keys hold for HTTP and for upgrades; whoever is connected stays
#[test]
fn a_reload_changes_the_keys() {
    let site = Plan::new(2).start();
    let mut ada = site.join("demo", "ada");
    let secret = [7_u8; 32];
    let keys = Authenticator::new(vec![Key::hs256(None, &secret).unwrap()], Rules::default());
    let mut config = tidegate::config::Config::dev();
    config.dev = false;
    site.server().reload(&config, Some(keys.unwrap().into()));
    let fresh = AuthConfig::new(secret, 60).unwrap();
    let fresh = fresh
        .issue(&Claims::new(tenant("demo"), "bob"), unix_s())
        .unwrap();
    assert_eq!(ask(&site, "GET", "/v1/connections", &fresh, "").status, 200);
    assert_eq!(
        ask(&site, "GET", "/v1/connections", &token("demo", "ada"), "").status,
        401
    );
    Client::connect(site.address, "/ws", &fresh).expect_nothing();
    ada.expect_nothing();
    assert_ne!(SECRET, secret);
}

/// C-10: where operators have a listener of their own, nobody else sees the numbers
#[test]
fn the_admin_listener_takes_the_metrics_with_it() {
    let site = Plan::new(1)
        .config(|config| config.admin.listen = Some("127.0.0.1:0".parse().unwrap()))
        .start();
    let operators = site.server().admin_address().unwrap();
    let metrics = http::ask(operators, &http::request("GET", "/metrics", None, ""));
    assert_eq!(metrics.status, 200);
    assert_eq!(
        ask(&site, "GET", "/metrics", &admin("demo"), "").status,
        404
    );
}

/// C-07
#[test]
fn presence_is_asked_over_rest() {
    let site = Plan::new(2).start();
    let answer = ask(
        &site,
        "GET",
        "/v1/relay/presence?topic=none",
        &token("demo", "x"),
        "",
    );
    assert_eq!(json_of(&answer), json!({"count": 0, "members": []}));
}

/// N9: where the relay usually is, a server without one says so
#[test]
fn a_missing_relay_is_said_to_be_missing() {
    let site = Plan::new(1)
        .config(|config| {
            config.relay = None;
            config.mounts.retain(|mount| mount.path != "/ws");
        })
        .start();
    let answer = ask(&site, "GET", "/ws", &token("demo", "ada"), "");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("no relay mount"), "{answer:?}");
}
