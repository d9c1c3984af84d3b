//! Guards and interceptors that most programs want. Each is a type that stands in `guards(..)` or
//! `interceptors(..)` as it is; what it is told stands in its type. Knows callers and time that
//! passes; nothing of tokens or shards.

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::broker::ConnKey;
use crate::gateway::context::{ExecutionContext, UpgradeContext};
use crate::gateway::engine::container::{Dependency, Injectable, Resolver, StartError};
use crate::gateway::guard::{MessageGuard, UpgradeGuard};
use crate::gateway::interceptor::{Interceptor, Next};
use crate::gateway::reply::{Exception, WsReply};

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

/// Lets at most `COUNT` events of each connection pass in any `PER_MS` milliseconds, over all events
/// that this type stands around; what is too much is answered with an error frame and counts for
/// nothing. Neither number may be 0: such a program does not compile.
///
/// The times of the events that still count are kept, so a connection costs as much memory as it
/// may send events: for thousands in a long time, guard by numbers of your own.
#[derive(Debug)]
pub struct RateLimit<const COUNT: u32, const PER_MS: u64>;

/// Of each connection and limit, until when the events that passed count, the oldest first.
type Passed = AHashMap<(TypeId, ConnKey), VecDeque<Instant>>;

thread_local! {
    // A connection's events all run on its own core, so no other thread ever asks for it.
    static PASSED: RefCell<Passed> = RefCell::default();
}

/// Connections that are gone are looked for when so many are known.
const CONNECTIONS_KEPT: usize = 1_024;

impl<const COUNT: u32, const PER_MS: u64> RateLimit<COUNT, PER_MS> {
    const PER: Duration = {
        assert!(
            0 < COUNT,
            "`RateLimit<0, ..>` lets no event pass: its first number is how many may"
        );
        assert!(
            0 < PER_MS,
            "`RateLimit<.., 0>` holds nobody back: its second number is milliseconds"
        );
        Duration::from_millis(PER_MS)
    };

    /// Whether one more event passes at `now`.
    fn takes(passed: &mut Passed, connection: ConnKey, now: Instant) -> bool {
        if passed.len() == passed.capacity() && CONNECTIONS_KEPT <= passed.len() {
            passed.retain(|_, until| until.back().is_some_and(|last| now < *last));
        }
        let until = passed.entry((TypeId::of::<Self>(), connection));
        let until = until.or_default();
        while until.front().is_some_and(|first| *first <= now) {
            until.pop_front();
        }
        let passes = until.len() < COUNT as usize;
        if passes {
            until.push_back(now + Self::PER);
        }
        passes
    }
}

impl<const COUNT: u32, const PER_MS: u64> Interceptor for RateLimit<COUNT, PER_MS> {
    async fn intercept(&self, context: &ExecutionContext<'_>, next: Next<'_>) -> WsReply {
        let connection = context.client().key();
        let passes = PASSED.with_borrow_mut(|all| Self::takes(all, connection, Instant::now()));
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
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    type Four = RateLimit<4, 1_000>;

    const ADA: ConnKey = ConnKey {
        shard: 0,
        lane: 0,
        slot: 1,
        generation: 1,
    };

    /// Which of the events pass that come so many milliseconds after a start.
    fn passing(at_ms: &[u64]) -> Vec<bool> {
        let (mut passed, start) = (Passed::default(), Instant::now());
        let passes = |ms: &u64| Four::takes(&mut passed, ADA, start + Duration::from_millis(*ms));
        at_ms.iter().map(passes).collect()
    }

    #[test]
    fn a_place_is_free_again_when_its_event_is_too_old() {
        let burst = [true, true, true, true, false];
        assert_eq!(passing(&[0; 5]), burst);
        assert_eq!(passing(&[0, 999, 999, 999, 999]), burst);
        assert_eq!(
            passing(&[0, 500, 500, 500, 999, 1_000, 1_499, 1_500])[4..],
            [false, true, false, true]
        );
        assert_eq!(
            passing(&[0, 0, 0, 0, 5_000, 5_000, 5_000, 5_000, 5_000])[4..],
            burst
        );
    }

    #[test]
    fn each_connection_and_each_limit_has_places_of_its_own() {
        let (mut passed, now) = (Passed::default(), Instant::now());
        let bob = ConnKey {
            generation: 2,
            ..ADA
        };
        assert_eq!(
            [ADA, ADA, bob].map(|key| RateLimit::<1, 1_000>::takes(&mut passed, key, now)),
            [true, false, true]
        );
        assert!(Four::takes(&mut passed, ADA, now));
    }

    /// Connections that are gone are forgotten, those whose events still count are not.
    #[test]
    fn what_is_kept_does_not_grow_with_those_who_were_here() {
        let (mut passed, start) = (Passed::default(), Instant::now());
        for slot in 0..100_000 {
            let now = start + Duration::from_millis(slot.into());
            let connection = ConnKey { slot, ..ADA };
            assert!(RateLimit::<1, 100>::takes(&mut passed, connection, now));
            assert!(!RateLimit::<1, 100>::takes(&mut passed, connection, now));
        }
        assert!(passed.len() <= 4 * CONNECTIONS_KEPT, "{}", passed.len());
    }

    proptest! {
        /// Never more than four in any second, and none is refused that would not be a fifth
        #[test]
        fn no_window_sees_more_than_the_limit(gaps in vec(0_u64..1_200, 1..60)) {
            let mut now = 0;
            let at_ms: Vec<u64> = gaps.iter().map(|gap| { now += gap * gap / 1_200; now }).collect();
            let passes = passing(&at_ms);
            let mut passed: Vec<u64> = Vec::new();
            for (at, passes) in at_ms.into_iter().zip(passes) {
                let in_window = passed.iter().filter(|before| at < **before + 1_000).count();
                prop_assert_eq!(passes, in_window < 4, "{} before {}", in_window, at);
                if passes {
                    passed.push(at);
                }
            }
        }
    }
}
