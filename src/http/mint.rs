//! Tokens of development: for whoever asks this machine, as whoever is wanted. Knows claims; the
//! key is handed in.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, ORIGIN};
use axum::http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{AuthConfig, Claims, ROLE_ADMIN};
use crate::id::Tenant;

use super::problem::{Problem, Refused};
use super::{Deps, body};

/// Whose token it is to be: what a token says, each part as `token new` takes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    /// Its owner [default: console].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sub: Option<String>,
    /// The tenant of its owner [default: demo].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64, pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub(crate) ns: Option<String>,
    /// Roles of its owner [default: none].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) roles: Option<Vec<String>>,
    /// Topics that it may publish to, by pattern [default: as auth.rights says].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) publish: Option<Vec<String>>,
    /// Topics that it may subscribe to, by pattern [default: as auth.rights says].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subscribe: Option<Vec<String>>,
    /// Seconds that it is valid [default: 3600].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_536_000)]
    pub(crate) ttl_s: Option<u64>,
}

/// A token for the page.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Minted {
    token: String,
}

/// `POST /v1/dev/token {"sub","ns","roles","publish","subscribe","ttl_s"}`, in development only;
/// without a body it is one of an admin who may do everything. A browser names the origin of the
/// page that posts, so that of a foreign name which was pointed at this machine gives it away.
#[utoipa::path(
    post,
    path = "/v1/dev/token",
    operation_id = "development_token",
    tag = "console",
    security(()),
    request_body(content = Option<Wish>),
    responses((status = OK, body = Minted), Refused)
)]
pub(super) async fn mint(
    State(deps): State<Deps>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<([(HeaderName, &'static str); 1], Json<Minted>), Problem> {
    let Some(tokens) = &deps.console.tokens else {
        return Err(Problem::not_found());
    };
    let origin = headers.get(ORIGIN).map(|origin| origin.to_str());
    let origin = origin.transpose().ok().flatten();
    let foreign = headers.contains_key(ORIGIN) && origin.is_none();
    if foreign || !deps.access.load().origins.allows(origin) {
        return Err(Problem::forbidden("this origin is not allowed"));
    }
    let (claims, ttl_s) = match bytes.iter().all(u8::is_ascii_whitespace) {
        true => (everything(), TOKEN_TTL_S),
        false => wanted(body::read(&bytes)?)?,
    };
    let tokens = AuthConfig::clone(tokens).ttl_s(ttl_s);
    let token = tokens.issue(&claims, (deps.unix_s)());
    let token = token.map_err(|_| Problem::internal())?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(Minted { token })))
}

/// Those of the console: an admin who may do everything, whatever `auth.rights` says.
fn everything() -> Claims {
    let tenant = Tenant::parse(TENANT).unwrap_or_default();
    let claims = Claims::new(tenant, SUBJECT).role(ROLE_ADMIN);
    claims.publish("*").subscribe("*")
}

fn wanted(wish: Wish) -> Result<(Claims, u64), Problem> {
    let ns = wish.ns.as_deref().unwrap_or(TENANT);
    let Some(tenant) = Tenant::parse(ns) else {
        let detail = "`ns` must be 1 to 64 characters of A-Z a-z 0-9 . _ -";
        return Err(Problem::unprocessable(detail));
    };
    let ttl_s = wish.ttl_s.unwrap_or(TOKEN_TTL_S);
    if !(1..=TTL_S_MAX).contains(&ttl_s) {
        let detail = format!("`ttl_s` = {ttl_s} is not within 1 and {TTL_S_MAX}");
        return Err(Problem::unprocessable(detail));
    }
    let claims = Claims {
        roles: wish.roles.unwrap_or_default(),
        publish: wish.publish,
        subscribe: wish.subscribe,
        ..Claims::new(tenant, wish.sub.unwrap_or_else(|| SUBJECT.to_owned()))
    };
    Ok((claims, ttl_s))
}

const TENANT: &str = "demo";
const SUBJECT: &str = "console";
/// The page asks again before it is over.
const TOKEN_TTL_S: u64 = 3_600;
const TTL_S_MAX: u64 = 31_536_000;
