//! Errors of all kinds are problem documents.

use crate::broker::durable::Refused;
use crate::gateway::send::SendError;
use crate::gateway::topics::TopicError;

use super::*;

#[test]
fn errors_are_problem_documents() {
    let rig = rig();
    let good = token("demo", &[]);
    rig.get("/nowhere", &good).problem(404);
    assert_eq!(
        rig.get("/v1/relay/push", &good)
            .problem(405)
            .header("allow"),
        "POST"
    );
    let bearer = format!("Bearer {good}");
    rig.request("PATCH", "/orders", &[("authorization", &bearer)], "")
        .problem(405);
    let panicked = rig.get("/panic", &good).problem(500);
    assert_eq!(panicked.json()["detail"], "internal");
    let large = format!(
        "{{\"topic\":\"t\",\"event\":\"e\",\"payload\":\"{}\"}}",
        "x".repeat(4_000)
    );
    rig.post("/v1/relay/push", &large).problem(413);
    rig.post("/v1/relay/push", "{").problem(400);
    rig.post("/v1/relay/push", "[]").problem(422);
    rig.post("/v1/relay/push", "{\"topic\":7,\"event\":\"e\"}")
        .problem(422);
    rig.post("/v1/relay/push", "{\"topic\":\"t\"}").problem(422);
    let long = format!("{{\"topic\":\"{}\",\"event\":\"e\"}}", "x".repeat(256));
    let refused = rig.post("/v1/relay/push", &long).problem(422).json();
    assert_eq!(
        refused["detail"],
        "`topic` of 256 bytes exceeds limits.name_bytes_max = 255"
    );
    let deep = format!(
        "{{\"topic\":\"t\",\"event\":\"e\",\"payload\":{}{}}}",
        "[".repeat(500),
        "]".repeat(500)
    );
    rig.post("/v1/relay/push", &deep).problem(400);
    rig.get("/v1/relay/presence", &good).problem(422);
}

/// Every route with a query says what in it does not fit, not only that something does not.
#[test]
fn a_query_that_does_not_fit_is_refused_alike_by_every_route() {
    let rig = rig();
    let admin = token("demo", &["admin"]);
    for (path, query) in [
        ("/v1/connections", "limit=x"),
        ("/v1/relay/presence", "topic=t&topic=u"),
        ("/v1/topics", "limit=-1"),
        ("/v1/topics/t/messages", "from_seq=1.5"),
        ("/v1/subscriptions", "limit=x"),
        ("/v1/admin/relay/topics", "limit=x"),
        ("/v1/admin/topics", "limit=x"),
        ("/v1/admin/slow", "limit=x"),
    ] {
        let refused = rig.get(&format!("{path}?{query}"), &admin).problem(422);
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("query string"), "{path}: {detail}");
    }
}

/// Whoever asked learns what concerns it, and nothing of a fault of the program.
#[test]
fn a_route_of_the_user_fails_as_the_server_s_own_do() {
    let routes = Router::new()
        .route("/full", get(|| async { SendError::Overloaded }))
        .route("/relay", get(|| async { SendError::NoRelay }))
        .route("/nobody", get(|| async { SendError::NoTenant }))
        .route(
            "/unknown",
            get(|| async { TopicError::Refused(Refused::UnknownTopic) }),
        )
        .route("/nobodys", get(|| async { TopicError::NoTenant }));
    let rig = rig().with_user(routes);
    let good = token("demo", &[]);
    let refused = |path: &str, status: u16| rig.get(path, &good).problem(status).json();
    let full = refused("/full", 503);
    assert!(
        full["detail"]
            .as_str()
            .unwrap()
            .contains("outside_queue_max"),
        "{full}"
    );
    let relay = refused("/relay", 404);
    assert!(
        relay["detail"].as_str().unwrap().contains("no relay mount"),
        "{relay}"
    );
    assert_eq!(refused("/nobody", 500)["detail"], "internal");
    assert_eq!(refused("/nobodys", 500)["detail"], "internal");
    assert_eq!(refused("/unknown", 404)["code"], "unknown_topic");
}
