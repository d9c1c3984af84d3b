//! The console page and the client module, from the binary. What the page shows it asks of the same
//! routes as everybody, so the files themselves hold nothing that is worth a token. Knows no
//! connection and no topic.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use serde::Serialize;
use tower::ServiceExt;
use utoipa::ToSchema;

use crate::auth::{AuthConfig, Caller};

use super::etag;
use super::problem::{Problem, Refused};
use super::{Deps, Inside};

/// What the page has to know of its server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Console {
    /// Where the relay is mounted.
    pub(crate) relay: Option<String>,
    /// There are durable topics.
    pub(crate) durable: bool,
    /// Signs tokens for whoever asks: in development only.
    pub(crate) tokens: Option<Arc<AuthConfig>>,
}

/// The paths that need no token, if they are here.
pub(super) fn is_open(deps: &Deps, method: &Method, path: &str) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/client.js" | "/openapi.json" => reads,
        // What a program speaks is told to who has a token, and in development to all.
        "/asyncapi.json" => reads && deps.inside == Inside::Everybody,
        "/" | "/console" | "/console/config.json" => reads && deps.inside != Inside::Elsewhere,
        "/v1/dev/token" => *method == Method::POST && deps.console.tokens.is_some(),
        _ => {
            let name = path.strip_prefix("/console/");
            reads
                && deps.inside != Inside::Elsewhere
                && name.is_some_and(|name| find(name).is_some())
        }
    }
}

/// `GET /client.js`.
#[utoipa::path(
    get,
    path = "/client.js",
    operation_id = "client_module",
    tag = "console",
    security(()),
    responses((status = OK, body = String, content_type = "text/javascript"), Refused)
)]
pub(super) async fn client(asked: HeaderMap) -> Response {
    let headers = [(CONTENT_TYPE, SCRIPT), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    etag::answer(&asked, CLIENT, headers)
}

/// The routes of the user's, and a copy of them that only tells whether something takes `/`, be it
/// a route or what stands behind all routes, without running what is there.
#[derive(Debug, Clone)]
pub(super) struct Behind {
    user: Router,
    marked: Router,
}

/// Marks an answer as that of the user's.
#[derive(Debug, Clone, Copy)]
struct Users;

/// Where the marked copy is nested: from a nested router only a fallback of its own is taken over,
/// not the one that every router has.
const NEST: &str = "/user";

impl Behind {
    /// The routes of `user`.
    pub(super) fn new(user: Router) -> Self {
        let mark = |_: Request, _: Next| async { Extension(Users).into_response() };
        let copy = user.clone().layer(from_fn(mark));
        Self {
            marked: Router::new().without_v07_checks().nest(NEST, copy),
            user,
        }
    }

    /// Whether there is something at `/`, whatever the method.
    async fn takes_root(&self) -> bool {
        let mut request: Request = Request::default();
        *request.uri_mut() = Uri::from_static(NEST);
        let Ok(answer) = self.marked.clone().oneshot(request).await;
        answer.extensions().get::<Users>().is_some()
    }
}

/// `/`: what the user has there, else the console. Whoever shows no token does not get to what
/// the user has there, unless it was declared public.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "root",
    tag = "console",
    security(()),
    responses((status = OK, body = String, content_type = "text/html"), Refused)
)]
pub(super) async fn root(
    State(deps): State<Deps>,
    Extension(behind): Extension<Behind>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
) -> Response {
    let shows = is_open(&deps, request.method(), "/");
    let known = !caller.is_anonymous();
    let public = deps.public.has_root();
    let asked = request.headers().clone();
    if shows && !known && !public {
        return match behind.takes_root().await {
            true => Problem::unauthorized().into_response(),
            false => page(State(deps), asked).await.into_response(),
        };
    }
    let Ok(answer) = behind.user.oneshot(request).await;
    match shows && answer.status() == StatusCode::NOT_FOUND {
        true => page(State(deps), asked).await.into_response(),
        false => answer,
    }
}

/// `GET /console`.
#[utoipa::path(
    get,
    path = "/console",
    operation_id = "console_page",
    tag = "console",
    security(()),
    responses((status = OK, body = String, content_type = "text/html"), Refused)
)]
pub(super) async fn page(State(deps): State<Deps>, asked: HeaderMap) -> Result<Response, Problem> {
    answer(&deps, &asked, HTML, PAGE)
}

/// `GET /console/{file}`.
#[utoipa::path(
    get,
    path = "/console/{file}",
    operation_id = "console_file",
    tag = "console",
    params(("file" = String, Path, description = "Of the page: a script or its style.")),
    responses(
        (status = OK, content((String = "text/javascript"), (String = "text/css"))),
        Refused
    )
)]
pub(super) async fn file(
    State(deps): State<Deps>,
    Path(name): Path<String>,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let (_, kind, text) = find(&name).ok_or_else(Problem::not_found)?;
    answer(&deps, &asked, kind, text)
}

fn find(name: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    FILES.iter().find(|(file, _, _)| *file == name)
}

fn answer(
    deps: &Deps,
    asked: &HeaderMap,
    kind: &'static str,
    text: &'static str,
) -> Result<Response, Problem> {
    if deps.inside == Inside::Elsewhere {
        return Err(Problem::not_found());
    }
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok(etag::answer(asked, text, headers))
}

/// What the page is told before it has a token.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Told {
    /// Of the server.
    version: &'static str,
    /// Whether it may ask for a token.
    mints: bool,
    /// Whether metrics need a token.
    open: bool,
    relay: Option<String>,
    durable: bool,
}

/// `GET /console/config.json`.
#[utoipa::path(
    get,
    path = "/console/config.json",
    operation_id = "console_config",
    tag = "console",
    security(()),
    responses((status = OK, body = Told), Refused)
)]
pub(super) async fn config(State(deps): State<Deps>) -> Result<Json<Told>, Problem> {
    match deps.inside {
        Inside::Elsewhere => Err(Problem::not_found()),
        inside => Ok(Json(Told {
            version: env!("CARGO_PKG_VERSION"),
            mints: deps.console.tokens.is_some(),
            open: inside == Inside::Everybody,
            relay: deps.console.relay,
            durable: deps.console.durable,
        })),
    }
}

const CLIENT: &str = include_str!("../web/client/client.js");
const PAGE: &str = include_str!("../web/console/console.html");
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files of the page beside itself: name, type, text.
const FILES: [(&str, &str, &str); 6] = [
    (
        "console.css",
        CSS,
        include_str!("../web/console/console.css"),
    ),
    (
        "console.js",
        SCRIPT,
        include_str!("../web/console/console.js"),
    ),
    (
        "numbers.js",
        SCRIPT,
        include_str!("../web/console/numbers.js"),
    ),
    ("page.js", SCRIPT, include_str!("../web/console/page.js")),
    (
        "tables.js",
        SCRIPT,
        include_str!("../web/console/tables.js"),
    ),
    (
        "topics.js",
        SCRIPT,
        include_str!("../web/console/topics.js"),
    ),
];

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
