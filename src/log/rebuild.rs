//! Makes an index again from the bytes of a segment, when its file is missing or damaged.

use super::batch::Place;
use super::index::{Block, OpenIndex};
use super::layout::{Frame, KIND_PUBLISH, array_at, to_u32, u64_at};
use super::scan::frames;
use super::segment::SEGMENT_HEAD_BYTES;
use crate::id::HomedId;

/// The index of all intact messages in a segment whose batches end with `bytes`.
pub(super) fn rebuild_index(bytes: &[u8], place: Place) -> OpenIndex {
    let mut index = OpenIndex::default();
    for (at, frame) in frames(bytes, place, SEGMENT_HEAD_BYTES, bytes.len()) {
        index_frame(&mut index, at, frame);
    }
    index
}

/// Notes the frame at `at`, if it is a message.
pub(super) fn index_frame(index: &mut OpenIndex, at: usize, frame: Frame<'_>) {
    if frame.kind == KIND_PUBLISH && 40 <= frame.bytes.len() {
        let topic = HomedId::from_bytes(array_at(frame.bytes, 16));
        let (offset, bytes) = (to_u32(at), to_u32(frame.stride()));
        index.insert(
            topic,
            Block {
                first: u64_at(frame.bytes, 32),
                count: 1,
                offset,
                bytes,
            },
        );
    }
}
