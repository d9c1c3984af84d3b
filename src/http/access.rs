//! Who may make a request: token and origin, before any route sees it. The caller travels on as a
//! request extension and around the task, so that whatever a route sends knows its tenant.

use std::cell::RefCell;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::auth::{CALLER, Caller, TokenCache, token_of};

use super::problem::Problem;
use super::{Deps, Inside, console};

/// Lets a request through to its route, for its caller, or answers it.
pub(super) async fn check(State(deps): State<Deps>, mut request: Request, next: Next) -> Response {
    let caller = match caller_of(&deps, &request) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(Arc::clone(&caller));
    CALLER.scope(caller, next.run(request)).await
}

fn caller_of(deps: &Deps, request: &Request) -> Result<Arc<Caller>, Problem> {
    let access = deps.access.load();
    let headers = request.headers();
    // A page that opens a WebSocket of the user's own reads the answer whatever CORS says.
    if headers.contains_key(UPGRADE) && !access.origins.allows(single(headers, &ORIGIN)?) {
        return Err(Problem::forbidden("this origin is not allowed"));
    }
    let query = query_token(request.uri().query());
    let offered = protocols(headers);
    let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
    match token_of(single(headers, &AUTHORIZATION)?, query.as_deref(), &offered) {
        // A token that nobody asked for must be good all the same: it says who the caller is.
        Some((token, _)) => verify(deps, token),
        None if is_open(deps, request) => Ok(access.authenticator.anonymous()),
        None => Err(Problem::unauthorized()),
    }
}

fn verify(deps: &Deps, token: &str) -> Result<Arc<Caller>, Problem> {
    // One thread is one shard, so each shard has its own.
    thread_local! {
        static TOKENS: RefCell<TokenCache> = RefCell::new(TokenCache::new(TOKENS_MAX));
    }
    let access = deps.access.load();
    let now = (deps.unix_s)();
    let verified = TOKENS.with_borrow_mut(|cache| cache.verify(&access.authenticator, token, now));
    verified.map_err(|_| Problem::unauthorized())
}

/// Tokens of REST callers that a shard remembers.
const TOKENS_MAX: usize = 1_024;

/// Two headers of one name could be read differently by a proxy and by us.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value
            .to_str()
            .map(Some)
            .map_err(|_| Problem::unauthorized()),
        (Some(_), Some(_)) => Err(Problem::unauthorized()),
    }
}

fn query_token(query: Option<&str>) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs
        .find(|(name, _)| name == "token")
        .map(|(_, token)| token.into_owned())
}

fn protocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(|name| name.trim().to_owned())
        .collect()
}

/// A route that needs no token.
fn is_open(deps: &Deps, request: &Request) -> bool {
    let path = request.uri().path();
    match path {
        "/healthz" | "/readyz" => true,
        "/metrics" => deps.inside != Inside::Admins,
        _ if console::is_open(deps, request.method(), path) => true,
        _ => deps.public.cover(request.method(), path),
    }
}
