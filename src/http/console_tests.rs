//! The console's files and its token, one request at a time.

use serde_json::Value;

use crate::auth::AuthConfig;

use super::tests::{NOW, Rig, SECRET, rig_of, token};
use super::*;

fn rig(inside: Inside, tokens: bool) -> Rig {
    let tokens = tokens.then(|| Arc::new(AuthConfig::new(SECRET, 60).unwrap()));
    let console = Console {
        relay: Some("/live".into()),
        durable: true,
        tokens,
    };
    let origins = OriginPolicy {
        loopback_only: true,
        ..OriginPolicy::default()
    };
    rig_of(inside, origins, console)
}

/// C-11
#[test]
fn the_client_is_served_to_everybody() {
    for inside in [Inside::Admins, Inside::Everybody, Inside::Elsewhere] {
        let got = rig(inside, false).open("/client.js");
        assert_eq!(got.status, 200);
        assert_eq!(got.header("content-type"), "text/javascript; charset=utf-8");
        // A page never runs with the client of the server that was there before.
        assert_eq!(got.header("cache-control"), "no-cache");
        assert!(got.text.contains("RelayClient"));
    }
}

/// K3: what a browser has is asked about each time, and sent again only when it is another.
#[test]
fn files_are_sent_once() {
    let rig = rig(Inside::Admins, false);
    for path in ["/client.js", "/console/console.js", "/console", "/"] {
        let tag = rig.open(path).header("etag").to_owned();
        let again = |tag: &str| rig.request("GET", path, &[("if-none-match", tag)], "");
        assert_eq!((again(&tag).status, again(&tag).text.len()), (304, 0));
        assert_eq!(again("\"another\"").status, 200, "{path}");
    }
}

/// The file that is served is that of its parts: `node src/web/client/build.mjs` makes it.
#[test]
fn the_client_is_made_of_its_parts() {
    let parts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/client/parts");
    let files = std::fs::read_dir(parts).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    // FNV-1a, as the script has it.
    let digest = files.iter().fold(0xcbf2_9ce4_8422_2325, |value, file| {
        let bytes = std::fs::read(file).unwrap();
        bytes.iter().fold(value, |value: u64, byte| {
            (value ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    });
    let version = env!("CARGO_PKG_VERSION");
    let head =
        format!("// Tidegate {version}, the client, made by build.mjs of parts {digest:016x}");
    let client = include_str!("../web/client/client.js");
    assert_eq!(client.lines().next(), Some(&*head));
}

/// C-11: the page holds no data, so it needs no token; what it asks for does.
#[test]
fn the_page_is_where_the_inside_is_shown() {
    for inside in [Inside::Admins, Inside::Everybody] {
        let rig = rig(inside, false);
        for path in ["/", "/console"] {
            let got = rig.open(path);
            assert_eq!(
                (got.status, got.header("content-type")),
                (200, "text/html; charset=utf-8")
            );
            assert!(
                got.header("content-security-policy")
                    .contains("default-src 'none'")
            );
            assert!(!got.text.contains("http://") && !got.text.contains("https://"));
        }
        assert_eq!(rig.open("/console/console.css").status, 200);
        assert_eq!(rig.open("/console/console.js").status, 200);
        rig.open("/v1/connections").problem(401);
    }
    let elsewhere = rig(Inside::Elsewhere, false);
    elsewhere.open("/").problem(401);
    elsewhere.get("/", &token("demo", &["admin"])).problem(404);
    elsewhere
        .get("/console", &token("demo", &["admin"]))
        .problem(404);
}

/// C-20: a token for the asking is for development, and not for pages of foreign names.
#[test]
fn tokens_are_minted_in_development_only() {
    let without = rig(Inside::Admins, false);
    assert_eq!(
        without.request("POST", "/v1/dev/token", &[], "").status,
        401
    );
    let dev = rig(Inside::Everybody, true);
    assert_eq!(
        dev.open("/console/config.json").json()["mints"],
        Value::Bool(true)
    );
    assert_eq!(dev.open("/console/config.json").json()["relay"], "/live");
    let mint = |origin: &str| dev.request("POST", "/v1/dev/token", &[("origin", origin)], "");
    mint("http://evil.example").problem(403);
    mint("null").problem(403);
    let got = mint("http://127.0.0.1:8080");
    assert_eq!(
        (got.status, got.header("cache-control")),
        (200, "no-store"),
        "{}",
        got.text
    );
    let token = got.json()["token"].as_str().unwrap().to_owned();
    let rules = crate::auth::Rules::default();
    let keys = vec![crate::auth::Key::hs256(None, SECRET).unwrap()];
    let caller = Authenticator::new(keys, rules)
        .unwrap()
        .verify(&token, NOW)
        .unwrap();
    assert!(caller.tenant.as_str() == "demo" && caller.has_role("admin"));
}

/// What somebody builds on top has `/` before the console, and keeps what it wants a token for.
#[test]
fn a_page_of_the_users_own_goes_first() {
    let rig = rig(Inside::Admins, false);
    let user = Router::new().route("/", any(|| async { "my own" }));
    let rig = rig.with_user(user);
    assert_eq!(rig.get("/", &token("demo", &[])).text, "my own");
    rig.open("/").problem(401);
    assert_eq!(rig.request("HEAD", "/", &[], "").status, 401);
    rig.request("POST", "/", &[], "").problem(401);
}

/// Whoever answers everything answers `/` too, and nobody gets there without a token, nor anything
/// in its place.
#[test]
fn what_stands_behind_all_routes_has_the_root_too() {
    let fallback = || Router::new().fallback(|| async { "my own" });
    let beside = fallback().route("/orders/{id}", any(|| async { "an order" }));
    let service = Router::new().fallback_service(any(|| async { "my own" }));
    for (user, inside) in [
        (fallback(), Inside::Admins),
        (fallback(), Inside::Everybody),
        (beside, Inside::Admins),
        (service, Inside::Admins),
    ] {
        let rig = rig(inside, false).with_user(user);
        rig.open("/").problem(401);
        assert_eq!(rig.request("HEAD", "/", &[], "").status, 401);
        assert_eq!(rig.get("/", &token("demo", &[])).text, "my own");
        // The console keeps a place of its own.
        assert!(rig.open("/console").text.starts_with("<!doctype html>"));
    }
}

/// Somebody who builds something elsewhere still has the console at `/`.
#[test]
fn routes_elsewhere_leave_the_console_at_the_root() {
    let user = Router::new().route("/orders", any(|| async { "my own" }));
    let rig = rig(Inside::Admins, false).with_user(user);
    let got = rig.open("/");
    assert!(
        got.text.starts_with("<!doctype html>"),
        "{} {}",
        got.status,
        got.text
    );
    rig.open("/orders").problem(401);
    rig.request("POST", "/", &[], "").problem(401);
}

/// C-10: an operator's listener shows the configuration without a token, the public one does not
#[test]
fn the_configuration_is_for_admins_and_operators() {
    let rig = rig(Inside::Admins, false);
    rig.open("/v1/admin/config").problem(401);
    rig.get("/v1/admin/config", &token("demo", &[]))
        .problem(403);
    let shown = rig.get("/v1/admin/config", &token("demo", &["admin"]));
    assert_eq!(shown.json()["settings"][0]["key"], "relay.path");
    let topics = rig.get(
        "/v1/admin/relay/topics?contains=new",
        &token("demo", &["admin"]),
    );
    assert_eq!(topics.json()["topics"][0]["members"], 2);
}
