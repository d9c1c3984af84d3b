//! Guards and interceptors that most programs want. Each is a type that stands in `guards(..)` or
//! `interceptors(..)` as it is; what it is told stands in its type. Knows callers and time that
//! passes; nothing of tokens or shards.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use ahash::AHashMap;
use tokio::time::Instant;

use crate::gateway::container::{Dependency, Injectable, Resolver, StartError};
use crate::gateway::context::{ExecutionContext, UpgradeContext};
use crate::gateway::guard::{MessageGuard, UpgradeGuard};
use crate::gateway::interceptor::{Interceptor, Next};
use crate::gateway::reply::{Exception, WsReply};
use crate::id::ConnId;

/// Lets only callers with a token in, also where the mount is public: else 403.
#[derive(Debug)]
pub struct JwtGuard;

impl UpgradeGuard for JwtGuard {
    async fn can_upgrade(&self, context: &UpgradeContext<'_>) -> bool {
        // Whoever has a token has one that expires.
        context.caller().expires_at.is_some()
    }
}

/// The name of a role, as a type: `struct Editor; impl Role for Editor { .. }`.
pub trait Role: Send + Sync + 'static {
    /// As it stands in the claim `roles`.
    const NAME: &'static str;
}

/// The role `admin`.
#[derive(Debug)]
pub struct Admin;

impl Role for Admin {
    const NAME: &'static str = "admin";
}

/// Lets only callers pass who have the role `R`: at the upgrade, or for an event.
pub struct RoleGuard<R>(PhantomData<fn() -> R>);

impl<R: Role> fmt::Debug for RoleGuard<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RoleGuard").field(&R::NAME).finish()
    }
}

impl<R: Role> UpgradeGuard for RoleGuard<R> {
    async fn can_upgrade(&self, context: &UpgradeContext<'_>) -> bool {
        context.caller().has_role(R::NAME)
    }
}

impl<R: Role> MessageGuard for RoleGuard<R> {
    async fn can_activate(&self, context: &ExecutionContext<'_>) -> bool {
        context.client().caller().has_role(R::NAME)
    }
}

/// Ends a handler that has not answered after `MS` milliseconds, with an error frame. What it had
/// begun is dropped where it waits.
#[derive(Debug)]
pub struct Timeout<const MS: u64>;

impl<const MS: u64> Interceptor for Timeout<MS> {
    async fn intercept(&self, context: &ExecutionContext<'_>, next: Next<'_>) -> WsReply {
        match tokio::time::timeout(Duration::from_millis(MS), next.run()).await {
            Ok(reply) => reply,
            Err(_) => refused(format!("`{}` took longer than {MS} ms", context.event())),
        }
    }
}

/// Lets `COUNT` events of each connection pass at once, and as many in any `PER_MS` milliseconds, over
/// all events that this type stands around; what is too much is answered with an error frame.
#[derive(Debug)]
pub struct RateLimit<const COUNT: u32, const PER_MS: u64>;

/// A bucket that leaks: when it will be empty.
type Buckets = AHashMap<(u64, String, ConnId), Instant>;

thread_local! {
    // A connection's events all run on its own core, so no other thread ever asks for its bucket.
    static BUCKETS: RefCell<Buckets> = RefCell::default();
}

/// Buckets of connections that are gone are looked for when there are so many.
const BUCKETS_KEPT: usize = 1_024;

impl<const COUNT: u32, const PER_MS: u64> RateLimit<COUNT, PER_MS> {
    const PER: Duration = Duration::from_millis(PER_MS);

    /// Whether one more event passes at `now`.
    fn takes(buckets: &mut Buckets, key: (u64, String, ConnId), now: Instant) -> bool {
        if buckets.len() == buckets.capacity() && BUCKETS_KEPT <= buckets.len() {
            buckets.retain(|_, empty_at| now < *empty_at);
        }
        let empty_at = buckets.entry(key).or_insert(now);
        let later = (*empty_at).max(now) + Self::PER / COUNT;
        let passes = later <= now + Self::PER;
        if passes {
            *empty_at = later;
        }
        passes
    }
}

impl<const COUNT: u32, const PER_MS: u64> Interceptor for RateLimit<COUNT, PER_MS> {
    async fn intercept(&self, context: &ExecutionContext<'_>, next: Next<'_>) -> WsReply {
        let limit = u64::from(COUNT) << 32 ^ PER_MS;
        let key = (limit, context.gateway().to_owned(), context.client().id());
        let passes = BUCKETS.with_borrow_mut(|all| Self::takes(all, key, Instant::now()));
        match passes {
            true => next.run().await,
            false => refused(format!(
                "rate limited: {COUNT} events in {PER_MS} ms at most"
            )),
        }
    }
}

fn refused(text: String) -> WsReply {
    WsReply::Exception(Exception::new(text))
}

macro_rules! needs_nothing {
    ($([$($generics:tt)*] $layer:ty = $value:expr;)*) => {$(
        impl<$($generics)*> Injectable for $layer {
            fn dependencies() -> Vec<Dependency> {
                Vec::new()
            }

            fn build(_: &Resolver<'_>) -> Result<Self, StartError> {
                Ok($value)
            }
        }
    )*};
}

needs_nothing! {
    [] JwtGuard = Self;
    [R: Role] RoleGuard<R> = Self(PhantomData);
    [const MS: u64] Timeout<MS> = Self;
    [const COUNT: u32, const PER_MS: u64] RateLimit<COUNT, PER_MS> = Self;
}
