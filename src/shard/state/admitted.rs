//! A request that was let in, as whom, and the handler that it starts. Knows what is kept of a request; not
//! who may come in.

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::Caller;
use crate::gateway::client::Handshake;
use crate::gateway::socket::WebSocket;
use crate::id::Tenant;
use crate::proto::handshake::extensions::Deflate;

use crate::shard::socket::tickets::Ticket;
use crate::shard::state::shared::{Dialect, Mount};

/// A request that becomes a WebSocket.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) mount: u16,
    pub(crate) caller: Arc<Caller>,
    /// The `tidegate.*.v1` of the mount was asked for.
    pub(crate) negotiated: bool,
    /// The subprotocol that the answer names.
    pub(crate) protocol: Option<Box<str>>,
    /// What was agreed on about compression.
    pub(crate) deflate: Option<Deflate>,
    /// What the handlers of gateways and raw mounts may know of the request.
    pub(crate) handshake: Option<Arc<Handshake>>,
    /// The 101.
    pub(crate) response: Bytes,
    /// Its place among the connections of its tenant, where those are counted.
    pub(crate) ticket: Option<Ticket<Tenant>>,
}

/// A connection whose handler is to be started.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) mount: u16,
    pub(crate) socket: WebSocket,
    pub(crate) caller: Arc<Caller>,
    pub(crate) handshake: Arc<Handshake>,
}

/// Who a caller is on a mount, at the upgrade and with each token that follows: on a shared one
/// everybody is of the default tenant (D-06). `None` where it may not be.
pub(crate) fn caller_on(mount: &Mount, caller: Arc<Caller>) -> Option<Arc<Caller>> {
    // Topics on disk belong to a tenant that somebody named on purpose.
    if matches!(mount.dialect, Dialect::Durable) && !mount.public && !caller.has_ns {
        return None;
    }
    Some(match mount.shared {
        true => in_default_tenant(&caller),
        false => caller,
    })
}

/// The same caller in the tenant of those who name none.
pub(crate) fn in_default_tenant(caller: &Arc<Caller>) -> Arc<Caller> {
    let mut caller = Caller::clone(caller);
    caller.tenant = Tenant::default();
    Arc::new(caller)
}
