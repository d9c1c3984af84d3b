//! Health, metrics and the listener for administration: who may look inside.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;

/// C-10
#[test]
fn health_says_yes_or_no_to_everybody() {
    let rig = rig();
    assert_eq!(
        (rig.open("/healthz").status, rig.open("/readyz").status),
        (200, 200)
    );
    rig.node.busy.store(true, Ordering::Relaxed);
    rig.open("/readyz").problem(503);
    assert_eq!(rig.open("/healthz").status, 200);
}

/// C-10: metrics want the role, or development; where they have a listener they are not here.
#[test]
fn metrics_are_for_those_who_may_look_inside() {
    let admins = rig();
    admins.open("/metrics").problem(401);
    admins.get("/metrics", &token("demo", &[])).problem(403);
    let got = admins.get("/metrics", &token("demo", &["admin"]));
    assert_eq!(got.status, 200);
    assert!(
        got.header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(got.text.contains("tidegate_connections_open") && got.text.ends_with("# EOF\n"));
    assert_eq!(
        rig_with(Inside::Everybody, OriginPolicy::default())
            .open("/metrics")
            .status,
        200
    );
    rig_with(Inside::Elsewhere, OriginPolicy::default())
        .open("/metrics")
        .problem(404);
}

#[test]
fn the_admin_listener_asks_for_no_token() {
    let rig = rig();
    let node = Arc::clone(&rig.node) as Arc<dyn Node>;
    let deps = Deps {
        access: Arc::clone(&rig.access),
        node,
        metrics: Metrics::new(1),
        public: Arc::default(),
        rest_push: RestPush::Handlers,
        inside: Inside::Elsewhere,
        console: Console::default(),
        settings: Arc::default(),
        unix_s: || NOW,
    };
    let rig = Rig {
        router: admin_router(deps),
        ..rig
    };
    assert_eq!(
        (rig.open("/metrics").status, rig.open("/healthz").status),
        (200, 200)
    );
    assert_eq!(rig.open("/v1/admin/config").status, 200);
    rig.open("/v1/connections").problem(404);
}
