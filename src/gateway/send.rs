//! What all sends of user code have in common: which tenant they are for, and why they fail.
//! Knows the caller of the running task; no shard.

use crate::auth::Caller;
use crate::broker::registry::Refused;
use crate::id::Tenant;

/// Why something that user code sends does not go out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The payload could not be serialized.
    #[error("the payload cannot be serialized: {0}")]
    Serialize(#[from] serde_json::Error),
    /// A queue to another shard is full.
    #[error(
        "overloaded: the mailbox of a shard is full (limits.mailbox_descriptors_max, limits.outside_queue_max)"
    )]
    Overloaded,
    /// The tenant is unknown.
    #[error(
        "no tenant: this task works for no caller and several tenants are connected; name one \
         with `.tenant(\"demo\")`, reach all with `.all_tenants()`, keep the caller's with \
         `tidegate::spawn`, or set `tenants = \"shared\"` on the mount"
    )]
    NoTenant,
    /// The server has no relay mount.
    #[error(
        "this server has no relay mount: add `[relay]` to the configuration, or \
         `.relay_config(RelayConfig::default())` to the builder"
    )]
    NoRelay,
    /// A connection may not join the room.
    #[error(transparent)]
    Room(#[from] Refused),
    /// Only a connection that is subscribed to a topic can be present in it.
    #[error("connection {0} is not subscribed to the topic")]
    NotSubscribed(u64),
    /// The server stops.
    #[error("the server is stopping")]
    Stopping,
}

/// For which tenant something is meant.
#[derive(Debug, Clone, Default)]
pub enum TenantScope {
    /// That of the caller for whom the running task works.
    #[default]
    Caller,
    /// This one.
    One(Tenant),
    /// Every one.
    All,
}

/// Which tenants have connections, where no caller says which is meant (D-06).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connected {
    /// All tenants are without a connection.
    None,
    /// All connections are of this tenant, or the mount is shared by all.
    One(Tenant),
    /// Several are.
    Many,
}

/// The tenants that a send reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reached {
    Nobody,
    One(Tenant),
    All,
}

impl TenantScope {
    /// Decides whom a send reaches. It never falls open: without a caller it works only if all
    /// connections concerned are of one tenant.
    pub(crate) fn resolve(
        &self,
        shared: bool,
        connected: impl FnOnce() -> Connected,
    ) -> Result<Reached, SendError> {
        match self {
            Self::One(tenant) => Ok(Reached::One(tenant.clone())),
            Self::All => Ok(Reached::All),
            Self::Caller if shared => Ok(Reached::One(Tenant::default())),
            Self::Caller => match Caller::current() {
                Some(caller) => Ok(Reached::One(caller.tenant.clone())),
                None => match connected() {
                    Connected::None => Ok(Reached::Nobody),
                    Connected::One(tenant) => Ok(Reached::One(tenant)),
                    Connected::Many => Err(SendError::NoTenant),
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    /// D-06
    #[test]
    fn without_a_caller_it_never_falls_open() {
        let scope = TenantScope::Caller;
        let one = || Connected::One(tenant("a"));
        assert_eq!(
            scope.resolve(false, one).unwrap(),
            Reached::One(tenant("a"))
        );
        assert_eq!(
            scope.resolve(false, || Connected::None).unwrap(),
            Reached::Nobody
        );
        let error = scope.resolve(false, || Connected::Many).unwrap_err();
        assert!(matches!(error, SendError::NoTenant));
        let shared = scope.resolve(true, || Connected::Many).unwrap();
        assert_eq!(shared, Reached::One(Tenant::default()));
    }

    /// D-06
    #[tokio::test]
    async fn a_caller_reaches_only_its_own() {
        let mut caller = Caller::clone(&Caller::anonymous());
        caller.tenant = tenant("b");
        let resolve = async { TenantScope::Caller.resolve(false, || Connected::Many) };
        let reached = crate::auth::CALLER
            .scope(caller.into(), resolve)
            .await
            .unwrap();
        assert_eq!(reached, Reached::One(tenant("b")));
    }
}
