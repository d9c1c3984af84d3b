//! The head of a segment file: whose it is, and where the segment before it ends. Knows bytes.

use crate::id::Partition;

use super::batch::{Chain, Place};
use super::layout::{Fields, to_u32, to_usize, u32_at};

/// The head has a block of its own; the first batch follows.
pub(super) const SEGMENT_HEAD_BYTES: usize = 4096;

const MAGIC: &[u8; 8] = b"TGSEGM\x00\x01";
/// All of the magic but the version, its last byte.
const MAGIC_BYTES: usize = 7;
const FIELDS_BYTES: usize = 64;
const _: () = assert!(FIELDS_BYTES == 8 + 4 + 2 + 2 + 8 + 8 + 8 + 4 + 4 + 8 + 8);
const _: () = assert!(FIELDS_BYTES <= SEGMENT_HEAD_BYTES);

/// Written with the first batch of the segment, in one write and one sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) partition: Partition,
    /// The segment before, 0 if there is none.
    pub(super) previous: u64,
    /// Where that one ends: what stands behind is cut and never valid again.
    pub(super) previous_end: u32,
    /// What the first batch must say of the one before.
    pub(super) chain: Chain,
}

impl SegmentHead {
    pub(super) fn encode(&self, place: Place) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEAD_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.partition.0.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&place.segment.to_le_bytes());
        out.extend_from_slice(&place.salt.to_le_bytes());
        out.extend_from_slice(&self.previous.to_le_bytes());
        out.extend_from_slice(&self.previous_end.to_le_bytes());
        out.extend_from_slice(&self.chain.crc.to_le_bytes());
        out.extend_from_slice(&self.chain.number.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        debug_assert_eq!(out.len(), FIELDS_BYTES);
        let crc = place.seed.checksum(&out);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out.resize(SEGMENT_HEAD_BYTES, 0);
        out
    }
}

/// An intact head, whichever file and directory it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundHead {
    pub(super) version: u8,
    /// The secret of the directory that it was written for.
    pub(super) salt: u64,
    /// The segment that it was written for.
    pub(super) segment: u64,
    pub(super) head: SegmentHead,
}

impl FoundHead {
    /// The head at the start of `bytes`, if its checksum holds for what it says of itself.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..FIELDS_BYTES)?;
        if head[..MAGIC_BYTES] != MAGIC[..MAGIC_BYTES] {
            return None;
        }
        let mut fields = Fields::new(&head[12..]);
        let partition = Partition(fields.u16()?);
        fields.u16()?;
        let (segment, salt) = (fields.u64()?, fields.u64()?);
        let (previous, previous_end) = (fields.u64()?, fields.u32()?);
        let crc = fields.u32()?;
        let chain = Chain {
            number: fields.u64()?,
            crc,
        };
        let is_intact = Place::new(salt, segment).seed.checksum(head) == u32_at(head, 8);
        is_intact.then_some(Self {
            version: head[MAGIC_BYTES],
            salt,
            segment,
            head: SegmentHead {
                partition,
                previous,
                previous_end,
                chain,
            },
        })
    }
}

/// A place in the log at which a batch starts or will start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) chain: Chain,
}

impl Position {
    pub(super) fn new(segment: u64, offset: usize, chain: Chain) -> Self {
        Self {
            segment,
            offset: to_u32(offset),
            chain,
        }
    }

    pub(super) fn offset(&self) -> usize {
        to_usize(u64::from(self.offset))
    }
}
