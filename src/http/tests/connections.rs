//! The connections of a tenant: shown to it, closed by its admins.

use serde_json::json;

use super::*;

/// C-09
#[test]
fn connections_are_those_of_the_tenant_and_admins_close_them() {
    let rig = rig();
    let own = rig.get("/v1/connections", &token("demo", &[])).json();
    let one = json!({"id": "0-1-1", "path": "/ws", "conn_id": 1, "sub": "ada", "peer": null});
    assert_eq!(own, json!({"count": 1, "connections": [one]}));
    assert_eq!(
        rig.get("/v1/connections", &token("other", &[])).json()["count"],
        0
    );
    let delete = |token: &str, id: &str| {
        let bearer = format!("Bearer {token}");
        rig.request(
            "DELETE",
            &format!("/v1/connections/{id}"),
            &[("authorization", &bearer)],
            "",
        )
    };
    delete(&token("demo", &[]), "0-1-1").problem(403);
    let foreign = delete(&token("other", &["admin"]), "0-1-1").problem(404);
    let unknown = delete(&token("demo", &["admin"]), "9-9-9").problem(404);
    assert_eq!(
        foreign.text, unknown.text,
        "a foreign thing and an unknown thing are the same"
    );
    assert_eq!(delete(&token("demo", &["admin"]), "0-1-1").status, 204);
    assert_eq!(*rig.node.closed.lock(), ["0-1-1"]);
}
