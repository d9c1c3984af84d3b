//! How many connections an address or a tenant has, over all shards. Touched when a connection
//! comes or goes, and only where such a limit is set; never on a message's path.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;

use crate::shard::socket::rates::Bucket;

/// The answer to an address whose tokens are refused too often.
pub(crate) const TOO_MANY_FAILURES: &str =
    "too many refused tokens from this address (limits.auth_failures_per_address_per_min_max)";

/// Counts what is held for each key.
#[derive(Debug)]
pub(crate) struct Counts<K> {
    held: Mutex<AHashMap<K, u32>>,
}

/// One that is held; it is given back when this goes.
#[derive(Debug)]
pub(crate) struct Ticket<K: Hash + Eq> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Counts<K> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            held: Mutex::default(),
        })
    }

    /// Holds one more for `key`, unless it has `max` already.
    pub(crate) fn take(self: &Arc<Self>, key: K, max: u32) -> Option<Ticket<K>> {
        let mut held = self.held.lock();
        let count = held.entry(key.clone()).or_default();
        if max <= *count {
            return None;
        }
        *count += 1;
        Some(Ticket {
            counts: Arc::clone(self),
            key,
        })
    }
}

impl<K: Hash + Eq> Drop for Ticket<K> {
    fn drop(&mut self) {
        let mut held = self.counts.held.lock();
        let Some(count) = held.get_mut(&self.key) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            held.remove(&self.key);
        }
    }
}

/// How often something may happen for each address.
#[derive(Debug, Default)]
pub(crate) struct AddressRates {
    buckets: Mutex<Buckets>,
}

/// Those that were used of late, and those that were used before that. Whoever comes back keeps
/// what it has used; only who stayed away while so many others came is forgotten.
#[derive(Debug, Default)]
struct Buckets {
    young: AHashMap<IpAddr, Bucket>,
    old: AHashMap<IpAddr, Bucket>,
}

/// So many addresses are young, and as many may be old.
const ADDRESSES_MAX: usize = 32_768;

impl Buckets {
    fn of(&mut self, address: IpAddr) -> &mut Bucket {
        if ADDRESSES_MAX <= self.young.len() && !self.young.contains_key(&address) {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &mut self.old;
        let known = || old.remove(&address).unwrap_or_default();
        self.young.entry(address).or_insert_with(known)
    }
}

impl AddressRates {
    /// Takes one for an address; `false` when that is too many. `per_s_milli` is in thousandths,
    /// so that rates of minutes fit.
    pub(crate) fn take(&self, address: IpAddr, per_s_milli: u64, burst: u64, now_ms: u64) -> bool {
        let mut buckets = self.buckets.lock();
        buckets
            .of(address)
            .take(1_000, per_s_milli, burst * 1_000, now_ms)
    }
}

/// The address that is counted: of IPv6 the /64, which is what one customer has.
pub(crate) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) >> 64 << 64;
            IpAddr::V6(prefix.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_given_back() {
        let counts = Counts::new();
        let first = counts.take("a", 1);
        assert!(first.is_some() && counts.take("a", 1).is_none());
        assert!(counts.take("b", 1).is_some());
        drop(first);
        assert!(counts.take("a", 1).is_some());
        assert!(counts.held.lock().is_empty());
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let of = |text: &str| counted(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn rates_are_kept_for_each_address() {
        let rates = AddressRates::default();
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let taken = |last, now_ms| {
            (0..10)
                .filter(|_| rates.take(address(last), 2_000, 2, now_ms))
                .count()
        };
        assert_eq!(
            [taken(1, 1_000), taken(2, 1_000), taken(1, 1_500)],
            [2, 2, 1]
        );
    }

    /// C11: many addresses make nobody forgotten who goes on
    #[test]
    fn who_goes_on_is_not_forgotten() {
        let rates = AddressRates::default();
        let loud = IpAddr::from([10, 0, 0, 1]);
        let take = |address| rates.take(address, 1, 2, 1_000);
        assert_eq!([take(loud), take(loud), take(loud)], [true, true, false]);
        for number in 0..200_000_u32 {
            take(IpAddr::from(
                0x0b00_0000_u32.saturating_add(number).to_be_bytes(),
            ));
            if number % 20_000 == 0 {
                assert!(!take(loud), "after {number}");
            }
        }
        let buckets = rates.buckets.lock();
        let kept = buckets.young.len() + buckets.old.len();
        assert!(kept <= 2 * ADDRESSES_MAX, "{kept}");
    }
}
