//! May this request become a WebSocket, as whom, and on which mount? Knows heads, tokens and
//! mounts; answers, and touches no socket.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::auth::{Caller, TokenCache, token_of};
use crate::gateway::client::Handshake;
use crate::metrics::Refusal as RefusedFor;
use crate::proto::handshake::{self, Upgrade};
use crate::proto::http::{self, Head};
use crate::proto::{durable, event, relay};

use crate::shard::state::admitted::Admitted;
use crate::shard::state::admitted::caller_on;
use crate::shard::state::shared::{Dialect, Live, Mount, Shared};

/// Admitted, or why not and the whole answer.
pub(crate) type Decision = Result<Admitted, (RefusedFor, Bytes)>;

/// The number of the mount that a path names, if it is one.
pub(crate) fn mount_of(shared: &Shared, path: &str) -> Option<u16> {
    let trimmed = if 1 < path.len() {
        path.trim_end_matches('/')
    } else {
        path
    };
    shared.mount_of.get(trimmed).copied()
}

/// Whether a request to the path of a mount is one to the mount. A route of the user's may stand on
/// the same path for other methods.
pub(crate) fn is_for_mount(shared: &Shared, method: &str) -> bool {
    !shared.has_user_routes || matches!(method, "GET" | "HEAD")
}

/// Decides about a request to the mount `number`; an error is the whole answer. Nothing is
/// promised before origin and token have passed.
pub(crate) fn admit(
    head: &Head,
    number: u16,
    (shared, live): (&Shared, &Live),
    tokens: &mut TokenCache,
    unix_s: u64,
) -> Decision {
    let mount = &shared.mounts[usize::from(number)];
    let hosts = head.headers_named("host").map(str::as_bytes);
    http::check_host(hosts, head.is_version_11())
        .map_err(|error| (RefusedFor::Head, error.response()))?;
    let upgrade = handshake::check(head).map_err(|error| (RefusedFor::Head, error.response()))?;
    if !live.origins.allows(head.header("origin")) {
        let response = http::error_response(403, "the origin is not allowed");
        return Err((RefusedFor::Origin, response));
    }
    let token_bytes_max = live.limits_of(number).token_bytes_max;
    let caller = identify(
        head,
        &upgrade,
        (mount, live),
        tokens,
        (token_bytes_max, unix_s),
    )
    .map_err(|Refused| {
        (
            RefusedFor::Token,
            http::error_response(401, "a valid token is required"),
        )
    })?;
    let (protocol, negotiated) = protocol_of(&upgrade, &mount.dialect);
    let deflate = upgrade
        .deflate
        .filter(|_| live.limits_of(number).compression);
    let response = handshake::response(&upgrade, protocol, deflate);
    Ok(Admitted {
        mount: number,
        caller,
        negotiated,
        protocol: protocol.map(Into::into),
        deflate,
        handshake: None,
        response,
        ticket: None,
    })
}

/// The token is missing or bad: one answer for all causes.
struct Refused;

fn identify(
    head: &Head,
    upgrade: &Upgrade,
    (mount, live): (&Mount, &Live),
    tokens: &mut TokenCache,
    (token_bytes_max, unix_s): (usize, u64),
) -> Result<Arc<Caller>, Refused> {
    let offered: Vec<&str> = upgrade.protocols.iter().map(String::as_str).collect();
    let query = head.query_param("token");
    let token = token_of(head.header("authorization"), query.as_deref(), &offered);
    let caller = match token {
        Some((token, _)) if token_bytes_max < token.len() => return Err(Refused),
        Some((token, _)) => tokens
            .verify(&live.authenticator, token, unix_s)
            .map_err(|_| Refused)?,
        // Namespaces ask for a token of their own.
        None if mount.public || matches!(mount.dialect, Dialect::SocketIo(_)) => {
            live.authenticator.anonymous()
        }
        None => return Err(Refused),
    };
    caller_on(mount, caller).ok_or(Refused)
}

/// The subprotocol to answer with: the one of the dialect or of the raw handler, else `bearer` if
/// a token came there.
fn protocol_of<'a>(upgrade: &Upgrade, dialect: &'a Dialect) -> (Option<&'a str>, bool) {
    let offers = |name: &str| upgrade.protocols.iter().any(|offered| offered == name);
    let own = match dialect {
        Dialect::Relay => Some(relay::PROTOCOL),
        Dialect::Event(_) => Some(event::PROTOCOL),
        Dialect::Durable => Some(durable::PROTOCOL),
        Dialect::Raw(handler) => {
            let mut spoken = handler.protocols().iter().map(String::as_str);
            spoken.find(|name| offers(name))
        }
        Dialect::SocketIo(_) => None,
    };
    match own.filter(|own| offers(own)) {
        Some(own) => (Some(own), true),
        None if offers("bearer") => (Some("bearer"), false),
        None => (None, false),
    }
}

impl Admitted {
    /// Keeps of the request what handlers may ask for.
    pub(crate) fn keep(&mut self, peer: SocketAddr, head: Head) -> Arc<Handshake> {
        let handshake = Arc::new(Handshake {
            peer,
            head,
            subprotocol: self.protocol.clone(),
        });
        self.handshake = Some(Arc::clone(&handshake));
        handshake
    }
}
