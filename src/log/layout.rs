//! Widths, little-endian fields and checksums of the format that `log` draws. Knows bytes only:
//! no files, no meaning of a record.

/// The least a frame has: kind, version, flags, length, checksum, extra.
pub(super) const PREFIX_BYTES: usize = 16;

/// Everything in a segment starts at a multiple of this, so that a search for the next valid
/// frame behind damage takes few steps.
pub(super) const ALIGN: usize = 8;

/// The version of every frame and file that is written.
pub(super) const VERSION: u8 = 1;

pub(super) const KIND_PUBLISH: u8 = 1;
pub(super) const KIND_TOPIC: u8 = 2;
pub(super) const KIND_TOPIC_DELETED: u8 = 3;
pub(super) const KIND_SUBSCRIPTION: u8 = 4;
pub(super) const KIND_SUBSCRIPTION_DELETED: u8 = 5;
pub(super) const KIND_CURSORS: u8 = 6;
pub(super) const KIND_EPOCH: u8 = 7;
pub(super) const KIND_BATCH: u8 = 0xb1;
pub(super) const KIND_TABLE: u8 = 0xb2;

/// What the checksums of one segment start from: it covers the secret of the data directory and
/// the segment's id, so bytes that a recycled file still holds never validate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn new(salt: u64, segment: u64) -> Self {
        let crc = crc32c::crc32c(&salt.to_le_bytes());
        Self(crc32c::crc32c_append(crc, &segment.to_le_bytes()))
    }

    /// The checksum of a frame: all of it but the checksum's own four bytes.
    pub(super) fn checksum(self, frame: &[u8]) -> u32 {
        let crc = crc32c::crc32c_append(self.0, &frame[..8]);
        crc32c::crc32c_append(crc, &frame[12..])
    }

    /// Writes the checksum into a frame that is otherwise complete.
    pub(super) fn seal(self, frame: &mut [u8]) {
        let crc = self.checksum(frame);
        frame[8..12].copy_from_slice(&crc.to_le_bytes());
    }

    pub(super) fn holds(self, frame: Frame<'_>) -> bool {
        self.checksum(frame.bytes) == u32_at(frame.bytes, 8)
    }
}

/// A frame found by its length alone; whether it is intact only its checksum says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame that starts at `at`, if its length is possible there.
    pub(super) fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let rest = bytes.get(at..)?;
        let prefix = rest.get(..PREFIX_BYTES)?;
        let kind = prefix[0];
        let known = matches!(kind, KIND_PUBLISH..=KIND_EPOCH | KIND_BATCH | KIND_TABLE);
        let len = to_usize(u64::from(u32_at(prefix, 4)));
        let fits = PREFIX_BYTES <= len && len <= rest.len();
        (known && prefix[1] == VERSION && fits).then(|| Self {
            kind,
            bytes: &rest[..len],
        })
    }

    /// From the start of this frame to the start of the next.
    pub(super) fn stride(self) -> usize {
        padded(self.bytes.len())
    }
}

/// Starts a frame at the end of `out`; `finish_frame` completes it.
pub(super) fn start_frame(out: &mut Vec<u8>, kind: u8, flags: u16, extra: u32) -> usize {
    debug_assert!(out.len().is_multiple_of(ALIGN), "frames are aligned");
    let start = out.len();
    out.extend_from_slice(&[kind, VERSION]);
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&extra.to_le_bytes());
    start
}

/// Notes the length of the frame that began at `start` and pads it; the checksum comes later,
/// when the segment is known.
pub(super) fn finish_frame(out: &mut Vec<u8>, start: usize) {
    let len = to_u32(out.len() - start);
    out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
    out.resize(padded(out.len()), 0);
}

pub(super) const fn padded(len: usize) -> usize {
    len.div_ceil(ALIGN) * ALIGN
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Sizes and offsets inside a segment fit into 32 bits: `segment_bytes_max` is far below that.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the assertion holds the bound"
)]
pub(super) fn to_u32(n: usize) -> u32 {
    assert!(n <= u32::MAX as usize, "{n} is no size inside a segment");
    n as u32
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits on every target of io_uring"
)]
pub(super) fn to_usize(n: u64) -> usize {
    n as usize
}

/// Reads fields one after another; `None` as soon as one does not fit.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    pub(super) fn text(&mut self, len: usize) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(len)?).ok()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.bytes(2).map(|bytes| u16_at(bytes, 0))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.bytes(4).map(|bytes| u32_at(bytes, 0))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.bytes(8).map(|bytes| u64_at(bytes, 0))
    }

    pub(super) fn id(&mut self) -> Option<crate::id::HomedId> {
        self.bytes(16)
            .map(|bytes| crate::id::HomedId::from_bytes(array_at(bytes, 0)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_validates_only_under_its_own_seed() {
        let mut out = Vec::new();
        let start = start_frame(&mut out, KIND_EPOCH, 0, 7);
        out.extend_from_slice(b"hello");
        finish_frame(&mut out, start);
        let len = PREFIX_BYTES + 5;
        Seed::new(1, 2).seal(&mut out[..len]);
        let frame = Frame::at(&out, 0).unwrap();
        assert_eq!((frame.bytes.len(), frame.stride()), (len, padded(len)));
        assert!(Seed::new(1, 2).holds(frame));
        assert!(!Seed::new(1, 3).holds(frame));
        assert!(!Seed::new(2, 2).holds(frame));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_found() {
        let mut out = Vec::new();
        let start = start_frame(&mut out, KIND_EPOCH, 0, 7);
        out.extend_from_slice(b"12345678");
        finish_frame(&mut out, start);
        let seed = Seed::new(9, 9);
        seed.seal(&mut out);
        for bit in 0..out.len() * 8 {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !Frame::at(&flipped, 0).is_some_and(|frame| seed.holds(frame)),
                "bit {bit}"
            );
        }
    }
}
