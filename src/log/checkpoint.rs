//! The state of a log at a position, written beside it so that a start replays only what follows.
//! Knows state and bytes.
//!
//! It is encoded in slices while the log goes on, so it holds some of what was appended meanwhile.
//! That is harmless: a replay starts from the position noted at its start, and applying an entry
//! twice equals applying it once. Its last bytes are written only when all that it may hold is
//! durable, so a whole checkpoint never tells of what a crash un-wrote.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;

use bytes::Bytes;

use crate::id::HomedId;

use super::checkpoint_bytes::{
    END_BYTES, FILL_BYTES, MAGIC, TAG_END, TAG_FILL, TAG_PROTECTED, encode_grave,
    encode_subscription, encode_topic, put,
};
use super::commit_log::{Blocks, CommitLog};
use super::file_writer::{FileWriter, Written};
use super::layout::to_usize;
use super::segment::Position;
use super::state::Grave;
use super::storage::{Done, FileName, Op};

/// Items that one slice encodes.
const SLICE_ITEMS: usize = 256;
const SLICE_BYTES: usize = 256 * 1024;

/// So many times its own size is written between one checkpoint and the next.
const SIZE_TIMES: u64 = 4;

/// How long until another attempt after there was no room.
const RETRY_US: u64 = 5_000_000;

#[derive(Debug)]
pub(super) struct CheckpointTask {
    number_next: u64,
    running: Option<Running>,
    /// The newest durable one.
    pub(super) durable: Option<u64>,
    written_bytes: u64,
    /// The size of the newest durable one, by which the next is put off.
    size_bytes: u64,
    /// What its file takes, which may be more.
    file_bytes: u64,
    /// The next one is written over what is kept for it: the disk has no other room.
    uses_ballast: bool,
    since_us: Option<u64>,
    not_before_us: u64,
    is_wanted: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Running {
    number: u64,
    writer: FileWriter,
    stage: Stage,
    crc: u32,
    bytes: u64,
    /// What the file takes that it is written over.
    over_bytes: u64,
    filled: u64,
    /// Cleaned segments that it does not name.
    retired: usize,
    is_last: bool,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Topics(Option<HomedId>),
    Subscriptions(Option<HomedId>),
    Graves(Option<HomedId>),
    /// All is encoded; the append that must be durable first.
    End(u64),
    /// So many bytes are left up to the end of its file.
    Fill(usize),
    Written,
}

/// The checkpoint that a start has used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) number: u64,
    pub(super) size_bytes: u64,
    pub(super) file_bytes: u64,
}

impl CheckpointTask {
    pub(super) fn new(number_next: u64, durable: Option<Used>, written_bytes: u64) -> Self {
        Self {
            size_bytes: durable.map_or(0, |used| used.size_bytes),
            file_bytes: durable.map_or(0, |used| used.file_bytes),
            uses_ballast: false,
            number_next,
            running: None,
            durable: durable.map(|used| used.number),
            written_bytes,
            since_us: None,
            not_before_us: 0,
            is_wanted: false,
            is_closed: false,
        }
    }

    pub(super) fn note_written(&mut self, bytes: usize) {
        self.written_bytes += bytes as u64;
        self.is_closed = false;
    }

    /// What the newest durable one takes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether so much was written that another is worth its own size.
    fn is_worth_it(&self) -> bool {
        self.size_bytes <= self.written_bytes
    }

    /// Cleaned segments wait for one.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Whether one is being made, or will be as soon as it can.
    pub(super) fn is_coming(&self, now_us: u64) -> bool {
        self.running.is_some() || self.is_wanted && self.not_before_us <= now_us
    }

    /// Whether the last checkpoint of a clean stop is durable.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }
}

impl CommitLog {
    pub(super) fn checkpoint_deadline_us(&self) -> Option<u64> {
        let task = &self.checkpoint;
        let waits = task.running.is_none() && (task.is_worth_it() || task.is_wanted);
        let since = task.since_us.filter(|_| waits)?;
        Some((since + self.config.checkpoint_interval_us).max(task.not_before_us))
    }

    pub(super) fn poll_checkpoint(&mut self, now_us: u64) -> Option<Op> {
        if self.checkpoint.running.is_none() {
            if 0 < self.checkpoint.written_bytes {
                self.checkpoint.since_us.get_or_insert(now_us);
            }
            self.is_checkpoint_due(now_us)
                .then(|| self.start_checkpoint())?;
        }
        let mut running = self.checkpoint.running.take()?;
        while running.writer.is_hungry() && self.encode_slice(&mut running) {}
        let op = running.writer.poll();
        self.checkpoint.running = Some(running);
        op
    }

    fn is_checkpoint_due(&self, now_us: u64) -> bool {
        let task = &self.checkpoint;
        // A stop has no time to wait for room: it tries once more, and ends without.
        if now_us < task.not_before_us && !self.is_closing {
            return false;
        }
        if self.is_closing {
            let is_quiet = self.queue.is_empty() && self.flight.is_none() && self.is_all_indexed();
            return is_quiet && !task.is_closed;
        }
        let is_old = |since| since + self.config.checkpoint_interval_us <= now_us;
        // A checkpoint holds the whole state: the larger it is, the more is written before the next,
        // so that it never costs more than a part of what it is for.
        let large_bytes = task.size_bytes.saturating_mul(SIZE_TIMES);
        let is_large = self.config.checkpoint_bytes.max(large_bytes) <= task.written_bytes;
        let is_due = task.is_worth_it() && task.since_us.is_some_and(is_old);
        is_large || is_due || task.is_wanted
    }

    fn start_checkpoint(&mut self) {
        let number = self.checkpoint.number_next;
        self.checkpoint.number_next += 1;
        self.checkpoint.written_bytes = 0;
        self.checkpoint.since_us = None;
        self.checkpoint.is_wanted = false;
        let (segment, end) = self.previous;
        let position = Position::new(segment, end, self.chain);
        let file = FileName::Checkpoint(number);
        let uses_ballast = std::mem::take(&mut self.checkpoint.uses_ballast);
        let over = self.ballast.take_checkpoint_if(uses_ballast);
        let mut writer = match over {
            Some((from, _)) => FileWriter::over(from, file),
            None => FileWriter::new(file),
        };
        let head = self.encode_head(number, position);
        let crc = crc32c::crc32c(&head);
        let bytes = head.len() as u64;
        writer.push(head.into());
        self.checkpoint.running = Some(Running {
            number,
            writer,
            stage: Stage::Topics(None),
            crc,
            bytes,
            over_bytes: over.map_or(0, |(_, bytes)| bytes),
            filled: 0,
            retired: self.cleaner.retired_count(),
            is_last: self.is_closing,
        });
    }

    fn encode_head(&self, number: u64, position: Position) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put(&mut out, &[self.salt, u64::from(self.partition.0), number]);
        put(&mut out, &[position.segment, u64::from(position.offset)]);
        put(
            &mut out,
            &[position.chain.number, u64::from(position.chain.crc)],
        );
        put(&mut out, &[self.prepare.next_id(), self.state.generation]);
        put(&mut out, &[self.segments.len() as u64]);
        for (id, info) in &self.segments {
            let is_indexed = matches!(info.blocks, Blocks::Stored);
            put(
                &mut out,
                &[*id, info.bytes, info.end as u64, u64::from(is_indexed)],
            );
        }
        out
    }

    /// Encodes some more of the state, or the end once that is allowed; `false` until then.
    fn encode_slice(&self, running: &mut Running) -> bool {
        let mut out = Vec::new();
        let state = &self.state;
        running.stage = match running.stage {
            Stage::Topics(after) => {
                let last = slice(&state.topics, after, |(id, topic)| {
                    encode_topic(*id, topic, &mut out);
                    out.len()
                });
                last.map_or(Stage::Subscriptions(None), |last| Stage::Topics(Some(last)))
            }
            Stage::Subscriptions(after) => {
                let note = |(id, _): (&HomedId, &_)| encode_subscription(*id, state, &mut out);
                let last = slice(&state.subscriptions, after, note);
                last.map_or(Stage::Graves(None), |last| Stage::Subscriptions(Some(last)))
            }
            Stage::Graves(after) => {
                let note = |(id, grave): (&HomedId, &Grave)| encode_grave(*id, grave, &mut out);
                let last = slice(&state.graves, after, note);
                last.map_or(Stage::End(self.appended), |last| Stage::Graves(Some(last)))
            }
            Stage::End(ticket) if ticket <= self.durable => {
                for segment in &state.protected {
                    out.push(TAG_PROTECTED);
                    put(&mut out, &[*segment]);
                }
                let written = running.bytes + out.len() as u64 + FILL_BYTES + END_BYTES;
                Stage::Fill(match running.over_bytes.checked_sub(written) {
                    Some(rest) => {
                        out.push(TAG_FILL);
                        put(&mut out, &[rest]);
                        running.filled = rest + FILL_BYTES;
                        to_usize(rest)
                    }
                    None => 0,
                })
            }
            Stage::Fill(0) => {
                out.push(TAG_END);
                let crc = crc32c::crc32c_append(running.crc, &out);
                out.extend_from_slice(&crc.to_le_bytes());
                running.bytes += out.len() as u64;
                running.writer.finish(out.into());
                running.stage = Stage::Written;
                return true;
            }
            Stage::Fill(rest) => {
                out.resize(rest.min(SLICE_BYTES), 0);
                Stage::Fill(rest - out.len())
            }
            Stage::End(_) | Stage::Written => return false,
        };
        running.crc = crc32c::crc32c_append(running.crc, &out);
        running.bytes += out.len() as u64;
        if !out.is_empty() {
            running.writer.push(Bytes::from(out));
        }
        true
    }

    pub(super) fn checkpoint_done(&mut self, result: io::Result<Done>) -> io::Result<()> {
        let Some(running) = &mut self.checkpoint.running else {
            return result.map(drop);
        };
        let written = running.writer.done(result)?;
        if written == Written::Pending {
            return Ok(());
        }
        let Some(running) = self.checkpoint.running.take() else {
            return Ok(());
        };
        self.ballast.checkpoint_ended();
        if written == Written::NoRoom && running.over_bytes == 0 && self.ballast.has_checkpoint() {
            self.checkpoint.uses_ballast = true;
            self.checkpoint.is_wanted = true;
            self.checkpoint.not_before_us = 0;
            return Ok(());
        }
        if written == Written::NoRoom {
            let now_us = self.last_now_us();
            // What gives space back goes before what takes it, while cursors still have room.
            let left = self.active.map_or(0, |active| active.bytes - active.end) as u64;
            let can = self.queue.is_empty() && self.config.reserve_bytes <= left;
            let given = can && self.prepare.give_way();
            let pause_us = if given { 0 } else { RETRY_US };
            if !given {
                self.prepare.resume();
            }
            self.checkpoint.not_before_us = now_us + pause_us;
            self.checkpoint.since_us = Some(now_us);
            self.checkpoint.is_wanted = true;
            self.checkpoint.is_closed = running.is_last;
            return Ok(());
        }
        self.prepare.resume();
        let old = self.checkpoint.durable.replace(running.number);
        let old = old.map(|old| (old, self.checkpoint.file_bytes));
        self.checkpoint.is_closed = running.is_last && self.checkpoint.written_bytes == 0;
        self.checkpoint.size_bytes = running.bytes - running.filled;
        self.checkpoint.file_bytes = running.bytes;
        self.checkpoint_durable(old, running.retired);
        Ok(())
    }
}

/// Calls `note` for the next items; tells the last of them, or `None` when there are no more.
fn slice<'a, T>(
    items: &'a BTreeMap<HomedId, T>,
    after: Option<HomedId>,
    mut note: impl FnMut((&'a HomedId, &'a T)) -> usize,
) -> Option<HomedId> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut last = None;
    for (id, item) in items.range((from, Bound::Unbounded)).take(SLICE_ITEMS) {
        last = Some(*id);
        if SLICE_BYTES <= note((id, item)) {
            break;
        }
    }
    last
}
