//! Full segments get their index file, off the path of commits and a slice at a time. Knows segments
//! and their indexes.

use std::io;

use crate::id::HomedId;

use super::commit_log::{Blocks, CommitLog, SegmentInfo};
use super::file_writer::{FileWriter, Written};
use super::index::OpenIndex;
use super::layout::Seed;
use super::storage::{Done, FileName, Op};

/// How long until another attempt after there was no room.
const RETRY_US: u64 = 5_000_000;

/// Topics or blocks that one slice encodes.
const SLICE_ITEMS: usize = 2_048;

/// Topics forgotten at once of an index that is in its file.
const FORGOTTEN_ITEMS: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Indexing {
    running: Option<Running>,
    not_before_us: u64,
    /// Indexes that are in their files: many small pieces of memory, given back some at a time.
    stored: Vec<OpenIndex>,
}

#[derive(Debug)]
struct Running {
    segment: u64,
    end: usize,
    writer: FileWriter,
    stage: Stage,
    crc: u32,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Topics behind this one, and the blocks before them.
    Topics(Option<HomedId>, usize),
    Blocks(Option<HomedId>),
    Written,
}

impl Indexing {
    /// Whether the index of the segment is being written.
    pub(super) fn is_of(&self, segment: u64) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.segment == segment)
    }
}

impl CommitLog {
    /// No batch goes into the segment any more.
    pub(super) fn seal(&mut self, segment: u64) {
        if let Some(info) = self.segments.get_mut(&segment)
            && let Blocks::Open(index) = &mut info.blocks
        {
            info.blocks = Blocks::Held(std::mem::take(index));
        }
        self.look_if_full();
    }

    /// Whether no full segment waits for its index file.
    pub(super) fn is_all_indexed(&self) -> bool {
        !self
            .segments
            .values()
            .any(|info| matches!(info.blocks, Blocks::Held(_)))
    }

    pub(super) fn poll_indexing(&mut self) -> Option<Op> {
        let stored = &mut self.indexing.stored;
        if stored
            .last_mut()
            .is_some_and(|index| !index.forget_some(FORGOTTEN_ITEMS))
        {
            stored.pop();
        }
        if self.indexing.running.is_none() {
            self.start_indexing()?;
        }
        let mut running = self.indexing.running.take()?;
        if let Some(Blocks::Held(index)) =
            self.segments.get(&running.segment).map(|info| &info.blocks)
        {
            let seed = Seed::new(self.salt, running.segment);
            while running.writer.is_hungry() && running.encode_slice(index, seed) {}
        }
        let op = running.writer.poll();
        self.indexing.running = Some(running);
        op
    }

    /// Begins with the oldest segment that waits.
    fn start_indexing(&mut self) -> Option<()> {
        if self.last_now_us() < self.indexing.not_before_us && !self.is_closing {
            return None;
        }
        let held = |(id, info): &(&u64, &SegmentInfo)| {
            matches!(info.blocks, Blocks::Held(_)) && !self.cleaner.is_at(**id)
        };
        let (segment, info) = self.segments.iter().find(held)?;
        let (segment, end) = (*segment, info.end);
        self.indexing.running = Some(Running {
            segment,
            end,
            writer: FileWriter::new(FileName::Index(segment)),
            stage: Stage::Topics(None, 0),
            crc: 0,
        });
        Some(())
    }

    pub(super) fn indexing_done(&mut self, result: io::Result<Done>) -> io::Result<()> {
        let Some(running) = &mut self.indexing.running else {
            return result.map(drop);
        };
        let segment = running.segment;
        match running.writer.done(result)? {
            Written::Pending => return Ok(()),
            Written::Durable => {}
            // It stays in memory until the next start, which makes it again.
            Written::NoRoom if self.is_closing => {}
            Written::NoRoom => {
                self.indexing.running = None;
                self.indexing.not_before_us = self.last_now_us() + RETRY_US;
                self.look_if_full();
                return Ok(());
            }
        }
        self.indexing.running = None;
        self.cleaner.look_again();
        self.cleaner.push_op(Op::Close {
            file: FileName::Segment(segment),
        });
        if let Some(info) = self.segments.get_mut(&segment)
            && let Blocks::Held(index) = std::mem::replace(&mut info.blocks, Blocks::Stored)
        {
            self.indexing.stored.push(index);
        }
        Ok(())
    }
}

impl Running {
    /// Encodes some more of the index; `false` when all of it is.
    fn encode_slice(&mut self, index: &OpenIndex, seed: Seed) -> bool {
        let mut out = Vec::new();
        self.stage = match self.stage {
            Stage::Topics(None, 0) if self.crc == 0 => {
                out = index.encode_head(self.end);
                self.crc = seed.checksum(&out);
                let mut at = 0;
                let body = out.len();
                let last = index.encode_topics(None, &mut at, SLICE_ITEMS, &mut out);
                self.crc = crc32c::crc32c_append(self.crc, &out[body..]);
                last.map_or(Stage::Blocks(None), |last| Stage::Topics(Some(last), at))
            }
            Stage::Topics(after, mut at) => {
                let last = index.encode_topics(after, &mut at, SLICE_ITEMS, &mut out);
                self.crc = crc32c::crc32c_append(self.crc, &out);
                last.map_or(Stage::Blocks(None), |last| Stage::Topics(Some(last), at))
            }
            Stage::Blocks(after) => {
                let last = index.encode_blocks(after, SLICE_ITEMS, &mut out);
                self.crc = crc32c::crc32c_append(self.crc, &out);
                last.map_or(Stage::Written, |last| Stage::Blocks(Some(last)))
            }
            Stage::Written => return false,
        };
        if !out.is_empty() {
            self.writer.push(out.into());
        }
        if matches!(self.stage, Stage::Written) {
            // Without it the file is not whole.
            let crc = self.crc.to_le_bytes().to_vec();
            self.writer.finish_at(CRC_AT, crc.into());
        }
        true
    }
}

/// Where the checksum stands in the file.
const CRC_AT: u64 = 8;
