//! The bytes of a meta file and of the marks in the folders of partitions. Knows no file.

use crate::id::{PARTITIONS_MAX, Partition};

use super::layout::{array_at, u16_at, u32_at, u64_at};
use super::recovery::Identity;

/// The function that tells a topic's partition, by the name the meta file holds.
pub const PLACE_FUNCTION: &str = "xxh3-64 seed 0";

const META_MAGIC: &[u8; 8] = b"TGMETA\x00\x01";
/// All of the magic but the version, its last byte.
const META_NAME_BYTES: usize = 7;
pub(super) const META_COPY_BYTES: usize = 512;
pub(super) const META_VERSION: u16 = 1;
const META_FIELDS_BYTES: usize = 48;
const _: () = assert!(META_FIELDS_BYTES == 8 + 4 + 2 + 2 + 8 + 24);
const _: () = assert!(META_FIELDS_BYTES <= META_COPY_BYTES);

/// What is fixed when a data directory is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The number of partitions.
    pub partitions: u16,
    /// A secret that every stored checksum covers.
    pub salt: u64,
}

impl Meta {
    pub(super) fn identity(self, partition: Partition) -> Identity {
        Identity {
            partition,
            salt: self.salt,
        }
    }
}

/// Stored twice: one flipped bit must not cost the directory.
pub(super) fn encode_meta(meta: Meta) -> Vec<u8> {
    let mut name = [0; 24];
    name[..PLACE_FUNCTION.len()].copy_from_slice(PLACE_FUNCTION.as_bytes());
    let mut out = Vec::with_capacity(META_COPY_BYTES);
    out.extend_from_slice(META_MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&META_VERSION.to_le_bytes());
    out.extend_from_slice(&meta.partitions.to_le_bytes());
    out.extend_from_slice(&meta.salt.to_le_bytes());
    out.extend_from_slice(&name);
    debug_assert_eq!(out.len(), META_FIELDS_BYTES);
    let crc = crc32c::crc32c(&out);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out.resize(META_COPY_BYTES, 0);
    out
}

/// What one copy of a meta file says.
#[derive(Debug)]
pub(super) enum MetaFound {
    Known(Meta),
    Version(u16),
    PlaceFunction(String),
    Damaged,
}

pub(super) fn decode_meta(copy: &[u8]) -> MetaFound {
    let Some(copy) = copy.get(..META_FIELDS_BYTES) else {
        return MetaFound::Damaged;
    };
    let mut fields: [u8; META_FIELDS_BYTES] = array_at(copy, 0);
    let crc = u32_at(&fields, 8);
    fields[8..12].fill(0);
    let (version, partitions) = (u16_at(&fields, 12), u16_at(&fields, 14));
    let name = fields[24..].split(|&byte| byte == 0).next();
    let name = String::from_utf8_lossy(name.unwrap_or_default());
    let is_intact = crc == crc32c::crc32c(&fields);
    if fields[..META_NAME_BYTES] != META_MAGIC[..META_NAME_BYTES] {
        return MetaFound::Damaged;
    }
    // A later version may check its fields otherwise, so its number alone tells.
    let magic = u16::from(fields[META_NAME_BYTES]);
    match (version, magic) {
        (META_VERSION, META_VERSION) if !is_intact => MetaFound::Damaged,
        (META_VERSION, META_VERSION) if name != PLACE_FUNCTION => {
            MetaFound::PlaceFunction(name.into_owned())
        }
        (META_VERSION, META_VERSION) if (1..=PARTITIONS_MAX).contains(&partitions) => {
            MetaFound::Known(Meta {
                partitions,
                salt: u64_at(&fields, 16),
            })
        }
        (META_VERSION, META_VERSION) => MetaFound::Damaged,
        (META_VERSION, other) | (other, _) => MetaFound::Version(other),
    }
}

/// In each folder of a partition: it is there where the right disk is mounted, and says whose.
pub(super) const IDENTITY_FILE: &str = "identity";
const IDENTITY_MAGIC: &[u8; 8] = b"TGPART\x00\x01";
const IDENTITY_BYTES: usize = 24;
const _: () = assert!(IDENTITY_BYTES == 8 + 4 + 2 + 2 + 8);

pub(super) fn encode_identity(identity: Identity) -> Vec<u8> {
    let mut out = IDENTITY_MAGIC.to_vec();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&identity.partition.0.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&identity.salt.to_le_bytes());
    debug_assert_eq!(out.len(), IDENTITY_BYTES);
    let crc = crc32c::crc32c(&out);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(super) fn decode_identity(bytes: &[u8]) -> Option<Identity> {
    let mut fields: [u8; IDENTITY_BYTES] = array_at(bytes.get(..IDENTITY_BYTES)?, 0);
    let crc = u32_at(&fields, 8);
    fields[8..12].fill(0);
    let is_intact = &fields[..8] == IDENTITY_MAGIC && crc == crc32c::crc32c(&fields);
    is_intact.then(|| Identity {
        partition: Partition(u16_at(&fields, 12)),
        salt: u64_at(&fields, 16),
    })
}
