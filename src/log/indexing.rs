//! Full segments get their index file, off the path of commits. Knows segments and their indexes.

use std::io;
use std::sync::Arc;

use super::commit_log::{Blocks, CommitLog};
use super::file_writer::{FileWriter, Written};
use super::layout::Seed;
use super::storage::{Done, FileName, Op};

/// How long until another attempt after there was no room.
const RETRY_US: u64 = 5_000_000;

impl CommitLog {
    /// No batch goes into the segment any more.
    pub(super) fn seal(&mut self, segment: u64) {
        if let Some(info) = self.segments.get_mut(&segment)
            && let Blocks::Open(index) = &info.blocks
        {
            info.blocks = Blocks::Held(Arc::new(index.finish()));
        }
    }

    /// Whether no full segment waits for its index file.
    pub(super) fn is_all_indexed(&self) -> bool {
        !self
            .segments
            .values()
            .any(|info| matches!(info.blocks, Blocks::Held(_)))
    }

    pub(super) fn poll_indexing(&mut self) -> Option<Op> {
        if self.indexing.is_none() {
            if self.last_now_us() < self.index_not_before_us && !self.is_closing {
                return None;
            }
            let held = |info: &super::commit_log::SegmentInfo| match &info.blocks {
                Blocks::Held(index) => Some((Arc::clone(index), info.end)),
                Blocks::Open(_) | Blocks::Stored => None,
            };
            let (segment, (index, end)) = self
                .segments
                .iter()
                .find_map(|(id, info)| Some((*id, held(info)?)))?;
            let mut writer = FileWriter::new(FileName::Index(segment));
            writer.finish(index.encode(Seed::new(self.salt, segment), end).into());
            self.indexing = Some((segment, writer));
        }
        self.indexing.as_mut()?.1.poll()
    }

    pub(super) fn indexing_done(&mut self, result: io::Result<Done>) -> io::Result<()> {
        let Some((segment, writer)) = &mut self.indexing else {
            return result.map(drop);
        };
        let segment = *segment;
        match writer.done(result)? {
            Written::Pending => return Ok(()),
            Written::Durable => {}
            // It stays in memory until the next start, which makes it again.
            Written::NoRoom if self.is_closing => {}
            Written::NoRoom => {
                self.indexing = None;
                self.index_not_before_us = self.last_now_us() + RETRY_US;
                return Ok(());
            }
        }
        self.indexing = None;
        self.cleaner.push_op(Op::Close {
            file: FileName::Segment(segment),
        });
        if let Some(info) = self.segments.get_mut(&segment)
            && let Blocks::Held(index) = std::mem::replace(&mut info.blocks, Blocks::Stored)
        {
            self.reader.keep_index(segment, index);
        }
        Ok(())
    }
}
