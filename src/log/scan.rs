//! Follows the chain of batches through the bytes of one segment and tells what it meets: a batch,
//! damage, the end. Decides nothing and opens nothing.
//!
//! One batch at a time is in flight, so an intact head of a later batch proves that the earlier
//! ones were durable: bad bytes before it are damage. Bad bytes that nothing follows are the torn
//! end of a batch that nobody was told of.

use super::batch::{BATCH_HEAD_BYTES, BatchHead, Chain, Place};
use super::layout::{ALIGN, Frame, KIND_BATCH};

/// What stands at one place of a segment.
#[derive(Debug)]
pub(super) enum Step<'a> {
    Batch(Batch<'a>),
    Damage(Damage),
    End(End),
}

/// An intact batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch<'a> {
    pub(super) head: BatchHead,
    pub(super) offset: usize,
    /// Its bytes, head and all.
    pub(super) bytes: &'a [u8],
}

/// Bytes that were durable once and are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) from: usize,
    pub(super) to: usize,
    /// How many batches ought to stand there; `None` if nobody knows.
    pub(super) batches: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) offset: usize,
    /// Whether the start of one more batch stands behind the end.
    pub(super) torn: bool,
}

#[derive(Debug)]
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    place: Place,
    offset: usize,
    /// What the next batch must say of the one before; `None` behind damage.
    chain: Option<Chain>,
    /// Where the batches end, if something that is newer tells.
    end: Option<Known>,
}

/// What something newer than a segment tells of the segment's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) offset: usize,
    /// The number of the batch that follows, elsewhere.
    pub(super) number: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        bytes: &'a [u8],
        place: Place,
        offset: usize,
        chain: Option<Chain>,
        end: Option<Known>,
    ) -> Self {
        Self {
            bytes,
            place,
            offset,
            chain,
            end,
        }
    }

    /// What the batch after the last intact one must say; `None` if there was none.
    pub(super) fn chain(&self) -> Option<Chain> {
        self.chain
    }

    /// The next thing; after an `End` the same again.
    pub(super) fn step(&mut self) -> Step<'a> {
        let limit = self
            .end
            .map_or(self.bytes.len(), |end| end.offset.min(self.bytes.len()));
        if limit <= self.offset {
            return Step::End(End {
                offset: self.offset,
                torn: false,
            });
        }
        if let Some(batch) = self.batch() {
            self.offset += batch.head.stride();
            self.chain = Some(batch.head.chain());
            return Step::Batch(batch);
        }
        if let Some((to, head)) = self.later_head(limit) {
            let damage = Damage {
                from: self.offset,
                to,
                batches: self.chain.map(|chain| head.number - chain.number),
            };
            self.offset = to;
            self.chain = Some(Chain {
                number: head.number,
                crc: head.crc_prev,
            });
            return Step::Damage(damage);
        }
        if let Some(end) = self.end {
            let batches = self
                .chain
                .map(|chain| end.number.saturating_sub(chain.number));
            let damage = Damage {
                from: self.offset,
                to: limit,
                batches,
            };
            self.offset = limit;
            self.chain = None;
            return Step::Damage(damage);
        }
        let torn = BatchHead::is_claimed(self.bytes, self.offset, self.place);
        Step::End(End {
            offset: self.offset,
            torn,
        })
    }

    /// The intact batch at the offset.
    fn batch(&self) -> Option<Batch<'a>> {
        let head = BatchHead::at(self.bytes, self.offset, self.place)?;
        let expected = |chain: Chain| chain.number == head.number && chain.crc == head.crc_prev;
        let bytes = self.bytes.get(self.offset..)?.get(..head.stride())?;
        let body = &bytes[BATCH_HEAD_BYTES..];
        let intact = crc32c::crc32c_append(head.crc_prev, body) == head.crc_body;
        (intact && self.chain.is_none_or(expected)).then_some(Batch {
            head,
            offset: self.offset,
            bytes,
        })
    }

    /// The first intact head behind the offset that belongs to a later batch. A batch that is
    /// the expected one by its head, and whose body is bad, is passed over.
    fn later_head(&self, limit: usize) -> Option<(usize, BatchHead)> {
        let expected = self.chain.map_or(0, |chain| chain.number);
        (self.offset + ALIGN..limit).step_by(ALIGN).find_map(|at| {
            // Most bytes are told apart by the first of them.
            let head = (self.bytes[at] == KIND_BATCH)
                .then(|| BatchHead::at(self.bytes, at, self.place))
                .flatten()?;
            (expected < head.number).then_some((at, head))
        })
    }
}

/// The intact frames in `from..to`, wherever they start, with their offsets: all there is to save
/// of a damaged stretch, and in an intact one simply all.
pub(super) fn frames<'a>(
    bytes: &'a [u8],
    place: Place,
    from: usize,
    to: usize,
) -> impl Iterator<Item = (usize, Frame<'a>)> {
    let bytes = &bytes[..to];
    let mut at = from;
    std::iter::from_fn(move || {
        while at < to {
            let here = at;
            match Frame::at(bytes, here).filter(|&frame| place.seed.holds(frame)) {
                Some(frame) => {
                    at += frame.stride();
                    return Some((here, frame));
                }
                None => at += ALIGN,
            }
        }
        None
    })
}
