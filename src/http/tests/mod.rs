//! The routes without a socket, by capability: a fake server, one request at a time.

mod access;

mod connections;

mod errors;

mod health;

mod relay;

use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, to_bytes};
use axum::extract::Path;
use axum::http::{HeaderMap, Request};
use axum::routing::post;
use axum::{Extension, Json};
use parking_lot::Mutex;
use serde_json::Value;
use tower::ServiceExt;

use crate::auth::{AuthConfig, Caller, Claims, CurrentUser, Key, Rules};
use crate::broker::relay::TopicCount;

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
        limits: Limits {
            body_bytes_max: 2_048,
            ..Limits::default()
        },
    })
}

fn rig_with(inside: Inside, origins: OriginPolicy) -> Rig {
    rig_of(inside, origins, Console::default())
}

pub(super) fn rig_of(inside: Inside, origins: OriginPolicy, console: Console) -> Rig {
    let node = Arc::new(FakeNode::default());
    let access = Arc::new(ArcSwap::new(access(SECRET, origins)));
    let public = ["/open", "/open/{id}"].map(|path| PublicRoute {
        method: Method::GET,
        path: path.into(),
    });
    let public = PublicRoutes::new(public.into_iter()).unwrap();
    let deps = Deps {
        access: Arc::clone(&access),
        node: Arc::clone(&node) as Arc<dyn Node>,
        metrics: Metrics::new(1),
        public: Arc::new(public),
        inside,
        rest_push: RestPush::Handlers,
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
        let request = Request::builder().method(method).uri(path);
        let mut request = request.header("host", "localhost");
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
