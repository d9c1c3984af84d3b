//! Who a peer is: tokens are verified here and nowhere else. A leaf: knows no socket, no
//! configuration and no clock, the caller says what time it is.

pub mod cache;

pub mod origin;

pub mod token;

pub mod public;

pub mod rights;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod public_tests;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::id::Tenant;

pub use cache::TokenCache;
pub use origin::{Origin, OriginPolicy};
pub use public::PublicKeyError;
pub use rights::{Forbidden, MayPublish, MaySubscribe, Rights, RightsMode};
pub use token::{
    AuthConfig, Authenticator, Claims, Fault, Key, KeyError, Rules, SECRET_BYTES_MIN, Unauthorized,
};

tokio::task_local! {
    /// The caller on whose behalf the running task works. Where there is none, whatever needs a
    /// tenant must be given one: it never falls open.
    pub static CALLER: Arc<Caller>;
}

/// The role that may look at and close what belongs to others of its tenant.
pub const ROLE_ADMIN: &str = "admin";

/// The role that may end what others of its tenant made, where rights are explicit.
pub const ROLE_MANAGER: &str = "manager";

/// A peer whose token was verified, or anybody on a public mount.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// The claim `ns`, or the default tenant.
    pub tenant: Tenant,
    /// The claim `sub`.
    pub subject: Option<String>,
    /// The claim `roles`.
    pub roles: Vec<String>,
    /// The claim `exp` in seconds since 1970; nobody's on a public mount.
    pub expires_at: Option<u64>,
    /// All claims, those above too.
    pub claims: Map<String, Value>,
    /// The token names its tenant, as a durable mount requires.
    pub has_ns: bool,
    /// What the claims `publish`, `subscribe` and `roles` allow.
    pub rights: Rights,
}

impl Caller {
    /// Somebody without a token, on a public mount. One value serves all of a thread: one for the whole
    /// process would be counted by all shards together, at every message.
    pub fn anonymous() -> Arc<Self> {
        thread_local! {
            static ANONYMOUS: Arc<Caller> = Arc::new(Caller {
                tenant: Tenant::default(),
                subject: None,
                roles: Vec::new(),
                expires_at: None,
                claims: Map::new(),
                has_ns: false,
                rights: Rights::everything(),
            });
        }
        ANONYMOUS.with(Arc::clone)
    }

    /// The tenant that the token names, whatever the mount makes of it.
    pub fn token_tenant(&self) -> Tenant {
        let named = self.claims.get("ns").and_then(Value::as_str);
        named.and_then(Tenant::parse).unwrap_or_default()
    }

    /// Somebody without a token where rights are explicit: who says nothing may do nothing.
    pub(super) fn without_rights() -> Arc<Self> {
        thread_local! {
            static WITHOUT_RIGHTS: Arc<Caller> = Arc::new(Caller {
                rights: Rights::of_nobody(RightsMode::Explicit),
                ..Caller::clone(&Caller::anonymous())
            });
        }
        WITHOUT_RIGHTS.with(Arc::clone)
    }

    /// Whether it showed no token.
    pub fn is_anonymous(&self) -> bool {
        self.expires_at.is_none()
    }

    /// Whether the claim `roles` names `role`.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// The caller of the running task, if it works for one.
    pub fn current() -> Option<Arc<Self>> {
        CALLER.try_with(Arc::clone).ok()
    }
}

/// The caller as handlers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct CurrentUser {
    /// The claim `sub`; empty where there is none.
    pub id: String,
    /// The claim `roles`.
    pub roles: Vec<String>,
    /// The claim `ns`, or the default tenant.
    pub tenant: Tenant,
    /// All claims.
    pub claims: Map<String, Value>,
    rights: Rights,
}

impl CurrentUser {
    /// Whether its token lets it publish, push and send messages to `topic` (claim `publish`).
    pub fn may_publish(&self, topic: &str) -> bool {
        self.rights.may_publish(topic)
    }

    /// Whether its token lets it subscribe to `topic`, read its history and see who is present
    /// (claim `subscribe`).
    pub fn may_subscribe(&self, topic: &str) -> bool {
        self.rights.may_subscribe(topic)
    }

    /// Whether it may see and end what others of its tenant made: everybody, unless
    /// `auth.rights = "explicit"`, where it wants the role `manager` or `admin`.
    pub fn may_manage(&self) -> bool {
        self.rights.may_manage()
    }
}

impl From<&Caller> for CurrentUser {
    fn from(caller: &Caller) -> Self {
        Self {
            id: caller.subject.clone().unwrap_or_default(),
            roles: caller.roles.clone(),
            tenant: caller.tenant.clone(),
            claims: caller.claims.clone(),
            rights: caller.rights.clone(),
        }
    }
}

/// Where a token was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization: Bearer`.
    Header,
    /// `?token=`.
    Query,
    /// The subprotocol behind `bearer`.
    Subprotocol,
}

/// The token of a request: the first place that holds one decides, even if it is a bad one, so
/// that nobody can hide a second identity behind the first.
pub fn token_of<'a>(
    authorization: Option<&'a str>,
    query_token: Option<&'a str>,
    subprotocols: &[&'a str],
) -> Option<(&'a str, TokenSource)> {
    if let Some(token) = authorization.and_then(bearer) {
        return Some((token, TokenSource::Header));
    }
    if let Some(token) = query_token {
        return Some((token, TokenSource::Query));
    }
    let mut offered = subprotocols.iter().map(|name| name.trim());
    offered.find(|name| *name == "bearer")?;
    Some((offered.next().unwrap_or_default(), TokenSource::Subprotocol))
}

/// The token of an `Authorization` header. Another scheme is none of ours, so it decides nothing.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, rest) = authorization
        .trim()
        .split_once(' ')
        .unwrap_or((authorization, ""));
    scheme
        .trim()
        .eq_ignore_ascii_case("bearer")
        .then(|| rest.trim())
}
