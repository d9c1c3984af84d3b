//! Tokens that one shard has already verified. Knows no key: what is not here is asked of the
//! authenticator.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};

use super::{Authenticator, Caller, Unauthorized};

/// A bounded memory of verified tokens, keyed by a hash of the whole token. Two generations: a
/// full young one becomes the old one, and what the old one held and nobody asked for is gone.
/// Refused tokens are not kept, so nobody can drive out good ones with bad ones.
#[derive(Debug)]
pub struct TokenCache {
    young: AHashMap<u128, Arc<Caller>>,
    old: AHashMap<u128, Arc<Caller>>,
    entries_max: usize,
    /// Secret seeds: without them nobody can look for two tokens with one hash.
    hashers: [RandomState; 2],
    generation: u64,
}

impl TokenCache {
    /// A memory for at most `entries_max` tokens.
    pub fn new(entries_max: usize) -> Self {
        Self {
            young: AHashMap::new(),
            old: AHashMap::new(),
            entries_max,
            hashers: [RandomState::new(), RandomState::new()],
            generation: 0,
        }
    }

    /// As [`Authenticator::verify`], with less work for a token that was here before. What time
    /// can change is looked at each time.
    pub fn verify(
        &mut self,
        authenticator: &Authenticator,
        token: &str,
        unix_s: u64,
    ) -> Result<Arc<Caller>, Unauthorized> {
        self.forget_other_keys(authenticator);
        let key = self.key(token);
        if let Some(caller) = self.young.get(&key) {
            authenticator.check_time(caller, unix_s)?;
            return Ok(Arc::clone(caller));
        }
        let caller = match self.old.remove(&key) {
            Some(caller) => {
                authenticator.check_time(&caller, unix_s)?;
                caller
            }
            None => authenticator.verify(token, unix_s)?,
        };
        self.keep(key, Arc::clone(&caller));
        Ok(caller)
    }

    /// How many tokens are remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A token that an earlier set of keys accepted is no longer known to be good.
    fn forget_other_keys(&mut self, authenticator: &Authenticator) {
        if self.generation != authenticator.generation() {
            self.young.clear();
            self.old.clear();
            self.generation = authenticator.generation();
        }
    }

    fn key(&self, token: &str) -> u128 {
        let [high, low] = &self.hashers;
        (u128::from(high.hash_one(token)) << 64) | u128::from(low.hash_one(token))
    }

    fn keep(&mut self, key: u128, caller: Arc<Caller>) {
        if self.entries_max / 2 <= self.young.len() {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, caller);
        debug_assert!(
            self.len() <= self.entries_max.max(2),
            "two halves make the whole"
        );
    }
}
