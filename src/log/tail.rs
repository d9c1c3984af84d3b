//! The last batches in memory, so that live delivery touches no map. A cache: what is not in it is
//! read from the segments.

use std::collections::VecDeque;

use bytes::Bytes;

#[derive(Debug)]
pub(super) struct Tail {
    bytes_max: usize,
    bytes: usize,
    chunks: VecDeque<Chunk>,
}

#[derive(Debug)]
struct Chunk {
    segment: u64,
    offset: usize,
    bytes: Bytes,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            chunks: VecDeque::new(),
        }
    }

    /// Keeps what was written at `offset` of `segment`; the oldest is dropped for it.
    pub(super) fn push(&mut self, segment: u64, offset: usize, bytes: Bytes) {
        self.bytes += bytes.len();
        self.chunks.push_back(Chunk {
            segment,
            offset,
            bytes,
        });
        // The newest batch is not written yet, so it stays however large it is.
        while self.bytes_max < self.bytes
            && 1 < self.chunks.len()
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.bytes -= chunk.bytes.len();
        }
    }

    /// Where in `segment` the first batch behind `offset` starts, of those that are kept.
    pub(super) fn start_behind(&self, segment: u64, offset: usize) -> Option<usize> {
        let place = (segment, offset);
        let after = self
            .chunks
            .partition_point(|chunk| (chunk.segment, chunk.offset) <= place);
        let chunk = self
            .chunks
            .get(after)
            .filter(|chunk| chunk.segment == segment)?;
        Some(chunk.offset)
    }

    /// What is kept from `offset` of `segment` on, up to the end of one batch.
    pub(super) fn find(&self, segment: u64, offset: usize) -> Option<&[u8]> {
        let place = (segment, offset);
        let after = self
            .chunks
            .partition_point(|chunk| (chunk.segment, chunk.offset) <= place);
        let chunk = self.chunks.get(after.checked_sub(1)?)?;
        let rest = chunk.bytes.get(offset - chunk.offset.min(offset)..)?;
        (chunk.segment == segment && !rest.is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_newest_and_finds_by_place() {
        let mut tail = Tail::new(10);
        tail.push(1, 100, Bytes::from_static(b"abcde"));
        tail.push(1, 105, Bytes::from_static(b"fghij"));
        assert_eq!(tail.find(1, 103), Some(&b"de"[..]));
        assert_eq!(tail.find(1, 105), Some(&b"fghij"[..]));
        assert_eq!(tail.find(1, 110), None);
        tail.push(2, 0, Bytes::from_static(b"k"));
        assert_eq!(tail.find(1, 103), None);
        assert_eq!(tail.find(2, 0), Some(&b"k"[..]));
        assert_eq!(tail.find(1, 99), None);
        assert_eq!(
            [tail.start_behind(1, 99), tail.start_behind(1, 105)],
            [Some(105), None]
        );
        tail.push(3, 8, Bytes::from_static(b"longer than all"));
        assert_eq!(tail.find(3, 8).map(<[u8]>::len), Some(15));
    }
}
