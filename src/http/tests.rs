//! The routes without a socket: a fake server, one request at a time.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, to_bytes};
use axum::extract::Path;
use axum::http::{HeaderMap, Request};
use axum::routing::post;
use axum::{Extension, Json};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::auth::{AuthConfig, Caller, Claims, CurrentUser, Key, Origin, Rules};
use crate::broker::pattern::Patterns;
use crate::broker::relay::{Home, HomeLimits, TopicCount, Unhandled};
use crate::gateway::relay::{HomeJob, Relay, RelayLink};
use crate::gateway::send::{Connected, SendError};

use super::*;

pub(super) const NOW: u64 = 1_800_000_000;
pub(super) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A server with one connection in `demo`.
#[derive(Default)]
struct FakeNode {
    busy: AtomicBool,
    closed: Mutex<Vec<String>>,
}

impl Node for FakeNode {
    fn is_ready(&self) -> bool {
        !self.busy.load(Ordering::Relaxed)
    }

    fn connections(&self, tenant: &Tenant, _: Which) -> Answer<'_, Connections> {
        let info = ConnectionInfo {
            id: "0-1-1".into(),
            path: "/ws".into(),
            conn_id: Some(1),
            sub: Some("ada".into()),
            peer: None,
        };
        let count = usize::from(tenant.as_str() == "demo");
        let connections = vec![info; count];
        Box::pin(async move { Connections { count, connections } })
    }

    fn relay_topics(&self, tenant: &Tenant, filter: TopicFilter) -> Answer<'_, TopicPage> {
        let topic = TopicCount {
            name: "news".into(),
            members: 2,
            present: 1,
        };
        let count = usize::from(tenant.as_str() == "demo" && "news".contains(&*filter.contains));
        let topics = vec![topic; count];
        Box::pin(async move { TopicPage { count, topics } })
    }

    fn slow(&self, _: &Tenant, _: usize) -> Answer<'_, Vec<SlowInfo>> {
        Box::pin(async { Vec::new() })
    }

    fn close(&self, tenant: &Tenant, id: &str) -> Answer<'_, bool> {
        let found = tenant.as_str() == "demo" && id == "0-1-1";
        if found {
            self.closed.lock().push(id.to_owned());
        }
        Box::pin(async move { found })
    }
}

pub(super) struct Rig {
    router: Router,
    deps: Deps,
    node: Arc<FakeNode>,
    access: Arc<ArcSwap<Access>>,
}

fn access(secret: &[u8], origins: OriginPolicy) -> Arc<Access> {
    let keys = vec![Key::hs256(None, secret).unwrap()];
    let authenticator = Arc::new(Authenticator::new(keys, Rules::default()).unwrap());
    Arc::new(Access {
        authenticator,
        origins,
    })
}

fn rig_with(inside: Inside, origins: OriginPolicy) -> Rig {
    rig_of(inside, origins, Console::default())
}

pub(super) fn rig_of(inside: Inside, origins: OriginPolicy, console: Console) -> Rig {
    let node = Arc::new(FakeNode::default());
    let access = Arc::new(ArcSwap::new(access(SECRET, origins)));
    let public = |path: &str| PublicRoute {
        method: Method::GET,
        path: path.into(),
    };
    let deps = Deps {
        access: Arc::clone(&access),
        node: Arc::clone(&node) as Arc<dyn Node>,
        metrics: Metrics::new(1),
        public: [public("/open"), public("/open/{id}")].into(),
        limits: Arc::new(Limits {
            body_bytes_max: 2_048,
            ..Limits::default()
        }),
        inside,
        console,
        settings: Arc::new(ArcSwap::from_pointee(vec![setting()])),
        unix_s: || NOW,
    };
    Rig {
        router: router(deps.clone(), user_routes()),
        deps,
        node,
        access,
    }
}

fn rig() -> Rig {
    rig_with(Inside::Admins, OriginPolicy::default())
}

fn setting() -> Setting {
    Setting {
        key: "relay.path".into(),
        value: "\"/ws\"".into(),
        source: "default".into(),
        chosen: false,
        meaning: "Where it is mounted.".into(),
    }
}

/// What somebody builds on top.
fn user_routes() -> Router {
    let whoami = || async {
        Caller::current()
            .map(|caller| caller.tenant.to_string())
            .unwrap_or_default()
    };
    Router::new()
        .route("/whoami", get(whoami))
        .route(
            "/extension",
            get(|Extension(caller): Extension<Arc<Caller>>| async move {
                CurrentUser::from(&*caller).id
            }),
        )
        .route("/open", get(whoami))
        .route(
            "/open/{id}",
            get(|Path(id): Path<String>| async move { id }),
        )
        .route(
            "/panic",
            get(|| async { panic!("secret text") as &'static str }),
        )
        .route(
            "/orders",
            post(|Json(order): Json<Value>| async move { Json(order) }),
        )
}

pub(super) fn token(tenant: &str, roles: &[&str]) -> String {
    let mut claims = Claims::new(Tenant::parse(tenant).unwrap(), "ada");
    claims.roles = roles.iter().map(|role| (*role).to_owned()).collect();
    AuthConfig::new(SECRET, 60)
        .unwrap()
        .issue(&claims, NOW)
        .unwrap()
}

pub(super) struct Got {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) text: String,
}

impl Got {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// It is a problem document of this status.
    pub(super) fn problem(self, status: u16) -> Self {
        assert_eq!(
            (self.status, self.header("content-type")),
            (status, "application/problem+json"),
            "{}",
            self.text
        );
        let document = self.json();
        assert_eq!(document["status"], status);
        assert_eq!(document["type"], "about:blank");
        assert!(document["title"].is_string() && document["detail"].is_string());
        self
    }
}

impl Rig {
    pub(super) fn with_user(self, user: Router) -> Self {
        let router = router(self.deps.clone(), user);
        Self { router, ..self }
    }

    fn send(&self, request: Request<Body>) -> Got {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            Got {
                status,
                headers,
                text: String::from_utf8(body.to_vec()).unwrap(),
            }
        })
    }

    pub(super) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Got {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap())
    }

    pub(super) fn get(&self, path: &str, token: &str) -> Got {
        self.request(
            "GET",
            path,
            &[("authorization", &format!("Bearer {token}"))],
            "",
        )
    }

    pub(super) fn open(&self, path: &str) -> Got {
        self.request("GET", path, &[], "")
    }

    fn post(&self, path: &str, body: &str) -> Got {
        let bearer = format!("Bearer {}", token("demo", &[]));
        // The form type that curl -d sends.
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.request("POST", path, &headers, body)
    }
}

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

/// what is missing is named.
#[test]
fn without_a_relay_mount_a_push_says_so() {
    let refused = rig()
        .post(
            "/v1/relay/push",
            "{\"topic\":\"t\",\"event\":\"e\",\"payload\":1}",
        )
        .problem(404)
        .json();
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("no relay mount"),
        "{refused}"
    );
}

/// A home of all topics, here and at once.
struct OneHome(Mutex<Home>);

impl RelayLink for OneHome {
    fn at_home(&self, _: &Tenant, _: &str, job: HomeJob) -> Result<(), SendError> {
        job(&mut self.0.lock());
        Ok(())
    }

    fn at_every_home(&self, job: &dyn Fn() -> HomeJob) -> Result<(), SendError> {
        job()(&mut self.0.lock());
        Ok(())
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn connected(&self) -> Connected {
        Connected::None
    }
}

/// C-06, C-07, R-07: nobody subscribed is no error, and the form type of curl does not matter.
#[test]
fn a_push_reaches_the_home_of_its_topic() {
    let mut rig = rig();
    let limits = HomeLimits {
        handler_queue_max: 1,
        unhandled: Unhandled::Broadcast,
    };
    let home = OneHome(Mutex::new(Home::new(
        Arc::new(Patterns::default()),
        limits,
        1,
    )));
    let relay = Relay::new(Some(Arc::new(home)));
    rig.router = rig.router.layer(Extension(relay));
    let pushed = rig.post(
        "/v1/relay/push",
        "{\"topic\":\"t\",\"event\":\"e\",\"payload\":42.50}",
    );
    assert_eq!((pushed.status, pushed.text.as_str()), (200, "{}"));
    assert_eq!(
        rig.post("/v1/relay/push", "{\"topic\":\"t\",\"event\":\"e\"}")
            .status,
        200
    );
    let present = rig
        .get("/v1/relay/presence?topic=t", &token("demo", &[]))
        .json();
    assert_eq!(present, json!({"count": 0, "members": []}));
}

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
    let anybody = rig_with(Inside::Admins, OriginPolicy::default());
    let open = anybody.request("GET", "/healthz", &[("origin", "https://any.example")], "");
    assert_eq!(
        open.header("access-control-allow-origin"),
        "https://any.example"
    );
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

#[test]
fn the_admin_listener_asks_for_no_token() {
    let rig = rig();
    let node = Arc::clone(&rig.node) as Arc<dyn Node>;
    let deps = Deps {
        access: Arc::clone(&rig.access),
        node,
        metrics: Metrics::new(1),
        public: [].into(),
        limits: Arc::new(Limits::default()),
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
