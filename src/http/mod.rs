//! REST, health and metrics: an axum router that each shard runs on its own runtime. Knows
//! requests and answers; connections are known to it only through [`Node`].

mod access;

mod admin;

mod body;

mod connections;

mod console;

mod etag;

mod failures;

mod health;

mod messages;

mod mint;

mod asyncapi;
mod openapi;

mod problem;

mod public;

mod query;

mod registries;

mod relay;

mod subscriptions;

mod topics;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod console_tests;

#[cfg(test)]
mod openapi_tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::HttpBody as _;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::HOST;
use axum::http::{HeaderValue, Method, StatusCode, Version, request};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_request_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticator, OriginPolicy};
use crate::broker::relay::{TopicFilter, TopicPage};
use crate::config::setting::Setting;
use crate::config::{Limits, RestPush};
use crate::gateway::send::SendError;
use crate::id::Tenant;
use crate::metrics::Metrics;
use crate::proto::http::check_host;

use problem::Problem;

pub(crate) use admin::SlowInfo;
pub(crate) use connections::{ConnectionInfo, Connections, Which};
pub(crate) use console::Console;
pub(crate) use mint::Wish;
pub(crate) use public::{PathError, PublicRoute, PublicRoutes};

/// What the routes need of the server that they belong to.
#[derive(Clone)]
pub(crate) struct Deps {
    /// Who gets in; a reload replaces it.
    pub(crate) access: Arc<ArcSwap<Access>>,
    /// The server's connections and its state.
    pub(crate) node: Arc<dyn Node>,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Routes of the user's that need no token.
    pub(crate) public: Arc<PublicRoutes>,
    /// What shows the inside of the server, and to whom.
    pub(crate) inside: Inside,
    /// Who takes a push.
    pub(crate) rest_push: RestPush,
    /// What the console page has to know.
    pub(crate) console: Console,
    /// The configuration in force; a reload replaces it.
    pub(crate) settings: Arc<ArcSwap<Vec<Setting>>>,
    /// Seconds since 1970.
    pub(crate) unix_s: fn() -> u64,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Keys, origins and limits, replaced together.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) origins: OriginPolicy,
    /// The limits for what is no mount.
    pub(crate) limits: Limits,
}

/// Who may see metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Callers with the role `admin`.
    Admins,
    /// Everybody: this is development, on this machine alone.
    Everybody,
    /// Nobody here: there is a listener of its own for it.
    Elsewhere,
}

/// What a route waits for.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The server as its routes see it.
pub(crate) trait Node: Send + Sync {
    /// It takes connections and its storage works.
    fn is_ready(&self) -> bool;
    /// The open connections of a tenant, over all shards; where they come from, only if it is seen.
    fn connections(&self, tenant: &Tenant, which: Which) -> Answer<'_, Connections>;
    /// Closes a connection of a tenant; whether there was one.
    fn close(&self, tenant: &Tenant, id: &str) -> Answer<'_, bool>;
    /// Some relay topics of a tenant, over all shards.
    fn relay_topics(&self, tenant: &Tenant, filter: TopicFilter) -> Answer<'_, TopicPage>;
    /// The slowest connections of a tenant, over all shards.
    fn slow(&self, tenant: &Tenant, limit: usize) -> Answer<'_, Vec<SlowInfo>>;
}

/// All routes: those of the server, and the user's where the server has none.
pub(crate) fn router(deps: Deps, user: Router) -> Router {
    let behind = console::Behind::new(user.clone());
    let (own, _) = table().split_for_parts();
    let own = own
        .route("/", any(console::root).layer(Extension(behind)))
        .layer(map_response(problem::of_text))
        .with_state(deps.clone());
    own.fallback_service(user)
        .layer(from_fn_with_state(deps.clone(), missing_relay))
        .layer(map_response(problem::of_empty))
        .layer(map_request_with_state(deps.clone(), bound_body))
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(from_fn_with_state(deps.clone(), access::check))
        .layer(cors(&deps.access))
}

/// Says at the relay's usual path that there is none, where nothing else is there.
async fn missing_relay(State(deps): State<Deps>, request: Request, next: Next) -> Response {
    let is_usual = request.uri().path() == RELAY_PATH;
    let answer = next.run(request).await;
    let is_empty = answer.status() == StatusCode::NOT_FOUND && answer.body().is_end_stream();
    match is_usual && is_empty && deps.console.relay.is_none() {
        true => Problem::from(SendError::NoRelay).into_response(),
        false => answer,
    }
}

/// Where clients look for the relay.
const RELAY_PATH: &str = "/ws";

/// How long a body may be, for extractors. A route may have set another limit for itself.
async fn bound_body(State(deps): State<Deps>, mut request: Request) -> Request {
    let bytes_max = deps.access.load().limits.body_bytes_max;
    DefaultBodyLimit::max(bytes_max).apply(&mut request);
    request
}

/// Every route of the server but `/`, which the user may have too. A route is here by its
/// description, so there is none without.
fn table() -> OpenApiRouter<Deps> {
    openapi::described()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::document))
        .routes(routes!(asyncapi::document))
        .routes(routes!(relay::push))
        .routes(routes!(relay::presence))
        .routes(routes!(registries::broadcast))
        .routes(routes!(connections::list))
        .routes(routes!(connections::close))
        .routes(routes!(topics::resolve, topics::list))
        .routes(routes!(topics::get, topics::change, topics::delete))
        .routes(routes!(messages::publish, messages::history))
        .routes(routes!(subscriptions::list))
        .routes(routes!(
            subscriptions::get,
            subscriptions::move_to,
            subscriptions::delete
        ))
        .routes(routes!(mint::mint))
        .routes(routes!(admin::relay_topics))
        .routes(routes!(admin::durable_topics))
        .routes(routes!(admin::slow))
        .routes(routes!(admin::config))
        .merge(pages())
}

/// The routes of the listener for administration: no token, it is reached by operators alone.
pub(crate) fn admin_router(deps: Deps) -> Router {
    let deps = Deps {
        inside: Inside::Everybody,
        // The relay and its topics are on the other listener.
        console: Console::default(),
        ..deps
    };
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/v1/admin/config", get(admin::config_for_operators))
        .route("/", get(console::page))
        .merge(Router::from(pages()))
        .with_state(deps)
        .layer(from_fn(with_one_host))
        .layer(map_response(problem::of_empty))
        .layer(CatchPanicLayer::custom(problem::of_panic))
}

/// Asks for the Host header as the other listener does (RFC 9112 section 3.2).
async fn with_one_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(HOST).iter();
    let is_version_11 = request.version() == Version::HTTP_11;
    match check_host(hosts.map(HeaderValue::as_bytes), is_version_11) {
        Ok(()) => next.run(request).await,
        Err(error) => Problem::new(StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

/// The files of the console, and the client that it and others use.
fn pages() -> OpenApiRouter<Deps> {
    OpenApiRouter::new()
        .routes(routes!(console::client))
        .routes(routes!(console::page))
        .routes(routes!(console::config))
        .routes(routes!(console::file))
}

/// Pages of the origins that were named may read answers, and of no others: what needs no token here
/// may be inside of a network that the page's owner cannot reach. No cookie is ever asked for, so no
/// credentials.
fn cors(access: &Arc<ArcSwap<Access>>) -> CorsLayer {
    let access = Arc::clone(access);
    let allowed = move |origin: &HeaderValue, _: &request::Parts| {
        origin
            .to_str()
            .is_ok_and(|origin| access.load().origins.reads(origin))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(PREFLIGHT_AGE)
}

/// How long a browser remembers what it was allowed.
const PREFLIGHT_AGE: Duration = Duration::from_secs(3_600);
