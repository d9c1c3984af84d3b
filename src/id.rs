//! Names and identities: tenants, connections, topics, and the place that a name has.
//! Knows no clock: the caller says what time it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The number of a connection in its registry: from 1, never used again in a run.
pub type ConnId = u64;

/// Position of a message in a durable topic: from 1, without gaps.
pub type Seq = u64;

/// The isolation boundary of everything that has a name: the claim `ns` of a token.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Tenant(Arc<str>);

/// The tenant of those whose token names none, and of everybody on a public mount.
pub const TENANT_DEFAULT: &str = "default";

/// Longest tenant name in bytes.
pub const TENANT_BYTES_MAX: usize = 64;

impl Tenant {
    /// A tenant's name is 1 to 64 characters of `[A-Za-z0-9._-]`; anything else is `None`.
    pub fn parse(name: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = !name.is_empty() && name.len() <= TENANT_BYTES_MAX;
        (fits && name.bytes().all(allowed)).then(|| Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self(TENANT_DEFAULT.into())
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the fixed number of places over which topics are spread. A partition lives on shard
/// `partition % shards`, so the number of cores may change while places stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u16);

impl Partition {
    /// Where the topic `name` of `tenant` lives: XXH3-64 with seed 0 over tenant, a zero byte
    /// and name, modulo the partitions. Written into data directories, so it never changes.
    pub fn of(tenant: &Tenant, name: &str, partitions: u16) -> Self {
        let mut hasher = xxhash_rust::xxh3::Xxh3::with_seed(0);
        hasher.update(tenant.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(name.as_bytes());
        Self::modulo(hasher.digest(), partitions)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a remainder of a u16 is a u16"
    )]
    fn modulo(number: u64, partitions: u16) -> Self {
        Self((number % u64::from(partitions)) as u16)
    }

    /// The shard that owns this partition.
    pub fn shard(self, shards: u16) -> u16 {
        self.0 % shards
    }
}

/// Identity of a durable topic or of a subscription: a UUIDv7 whose 12 bits of `rand_a` carry
/// the partition, so that an id finds its home without a directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HomedId(Uuid);

/// The largest number of partitions that an id can carry.
pub const PARTITIONS_MAX: u16 = 1 << 12;

impl HomedId {
    /// A new id made at `unix_ms` in `partition`; `random` fills the remaining 62 bits.
    pub fn new(unix_ms: u64, partition: Partition, random: u64) -> Self {
        assert!(
            partition.0 < PARTITIONS_MAX,
            "a partition fits into 12 bits"
        );
        let high = (unix_ms << 16) | (0x7 << 12) | u64::from(partition.0);
        let low = (0b10 << 62) | (random >> 2);
        Self(Uuid::from_u64_pair(high, low))
    }

    /// The partition that the id was made in, reduced to `partitions`: a foreign or invented id
    /// takes the same path as a real one.
    pub fn partition(self, partitions: u16) -> Partition {
        let (high, _) = self.0.as_u64_pair();
        Partition::modulo(high & 0x0fff, partitions)
    }

    /// The sixteen bytes, as they are stored.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The id of sixteen stored bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Debug for HomedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for HomedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for HomedId {
    type Err = uuid::Error;

    /// Reads the hyphenated form only: one id has one spelling.
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        uuid::fmt::Hyphenated::from_str(text).map(|id| Self(id.into_uuid()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_names() {
        assert!(Tenant::parse("a.B_c-9").is_some());
        for bad in ["", "a/b", "a b", "é", &"x".repeat(65)] {
            assert!(Tenant::parse(bad).is_none(), "{bad}");
        }
    }

    /// Data directories depend on these values.
    #[test]
    fn partition_is_golden() {
        let tenant = Tenant::parse("demo").unwrap();
        let of = |name| Partition::of(&tenant, name, 4096).0;
        assert_eq!([of("topic-1"), of("room:lobby"), of("")], [2621, 819, 1057]);
    }

    #[test]
    fn an_id_carries_its_partition() {
        let id = HomedId::new(1_800_000_000_000, Partition(0xabc), u64::MAX);
        assert_eq!(id.partition(4096), Partition(0xabc));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(HomedId::from_bytes(id.to_bytes()), id);
    }
}
