//! Guards and interceptors that most programs want. Each is a type that stands in `guards(..)` or
//! `interceptors(..)` as it is; what it is told stands in its type. Knows callers and time that
//! passes; nothing of tokens or shards.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::RwLock;
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

/// Measures the events that it stands around: how many there were, how many failed, and how long
/// they took, by gateway and event. `/metrics` shows them.
#[derive(Debug)]
pub struct EventMetrics(Arc<EventNumbers>);

impl Injectable for EventMetrics {
    fn dependencies() -> Vec<Dependency> {
        vec![Dependency::of::<EventNumbers>()]
    }

    fn build(resolver: &Resolver<'_>) -> Result<Self, StartError> {
        resolver.service().map(Self)
    }
}

impl Interceptor for EventMetrics {
    async fn intercept(&self, context: &ExecutionContext<'_>, next: Next<'_>) -> WsReply {
        let began = Instant::now();
        let reply = next.run().await;
        let failed = matches!(reply, WsReply::Exception(_));
        self.0.note(
            (context.gateway(), context.event()),
            began.elapsed(),
            failed,
        );
        reply
    }
}

/// What [`EventMetrics`] has measured. Its names are those of handlers, so the program bounds them.
#[derive(Debug, Default)]
pub struct EventNumbers(RwLock<AHashMap<String, EventNumber>>);

#[derive(Debug, Default)]
struct EventNumber {
    count: AtomicU64,
    failed: AtomicU64,
    ns: AtomicU64,
}

impl EventNumbers {
    fn note(&self, (gateway, event): (&str, &str), took: Duration, failed: bool) {
        let name = format!("{gateway}/{event}");
        if let Some(number) = self.0.read().get(&name) {
            return number.note(took, failed);
        }
        self.0.write().entry(name).or_default().note(took, failed);
    }

    /// Each gateway and event with how many there were, how many failed, and their nanoseconds.
    pub(crate) fn read(&self) -> Vec<(String, [u64; 3])> {
        let all = self.0.read();
        let read = |it: &EventNumber| {
            [&it.count, &it.failed, &it.ns].map(|number| number.load(Ordering::Relaxed))
        };
        all.iter()
            .map(|(name, it)| (name.clone(), read(it)))
            .collect()
    }
}

impl EventNumber {
    fn note(&self, took: Duration, failed: bool) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(failed.into(), Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A burst at once, then one for each part of the time that has passed
    #[test]
    fn a_bucket_leaks() {
        type Four = RateLimit<4, 1_000>;
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let mut at = |ms| {
            let key = (0, "Chat".to_owned(), 1);
            Four::takes(&mut buckets, key, start + Duration::from_millis(ms))
        };
        assert_eq!(
            [0, 0, 0, 0, 0].map(&mut at),
            [true, true, true, true, false]
        );
        assert_eq!([249, 250, 250].map(&mut at), [false, true, false]);
        assert_eq!([5_000; 5].map(&mut at), [true, true, true, true, false]);
    }
}
