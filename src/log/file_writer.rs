//! Writes one small file beside the batches, an index or a checkpoint: created, written in order,
//! synced, its name made durable. Knows nothing of what is in it.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use super::lack::is_lack;
use super::storage::{Done, FileName, Op};

#[derive(Debug)]
pub(super) struct FileWriter {
    file: FileName,
    stage: Stage,
    offset: u64,
    waiting: VecDeque<Bytes>,
    /// What comes last, somewhere before the end.
    last: Option<(u64, Bytes)>,
    is_complete: bool,
    in_flight: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Create,
    /// A file that is there is written over: its space is taken already.
    Rename(FileName),
    Write,
    /// Of the whole file: a synced write would cover its own bytes alone.
    Sync,
    Directory,
    Close,
    Discard,
}

/// What has become of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Pending,
    Durable,
    /// There was no room, and nothing is left of it.
    NoRoom,
}

impl FileWriter {
    pub(super) fn new(file: FileName) -> Self {
        Self {
            file,
            stage: Stage::Create,
            offset: 0,
            waiting: VecDeque::new(),
            last: None,
            is_complete: false,
            in_flight: false,
        }
    }

    /// Gives `from` the name and writes it over; who gives it fills it to its end.
    pub(super) fn over(from: FileName, file: FileName) -> Self {
        Self {
            stage: Stage::Rename(from),
            ..Self::new(file)
        }
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        assert!(!self.is_complete, "a complete file gets no more bytes");
        self.waiting.push_back(bytes);
    }

    /// The last bytes: behind them the file is synced.
    pub(super) fn finish(&mut self, bytes: Bytes) {
        self.push(bytes);
        self.is_complete = true;
    }

    /// The last bytes, at a place that was written before.
    pub(super) fn finish_at(&mut self, offset: u64, bytes: Bytes) {
        assert!(!self.is_complete, "a complete file gets no more bytes");
        self.last = Some((offset, bytes));
        self.is_complete = true;
    }

    /// Whether it could write more than it has been given.
    pub(super) fn is_hungry(&self) -> bool {
        self.waiting.is_empty() && !self.is_complete && self.stage != Stage::Discard
    }

    pub(super) fn poll(&mut self) -> Option<Op> {
        if self.in_flight {
            return None;
        }
        let file = self.file;
        let op = match self.stage {
            Stage::Create => Op::Create { file, bytes: 0 },
            Stage::Rename(from) => Op::Rename { from, to: file },
            Stage::Write => {
                let (offset, bytes) = match (self.waiting.front(), &self.last) {
                    (Some(bytes), _) => (self.offset, bytes.clone()),
                    (None, Some((offset, bytes))) => (*offset, bytes.clone()),
                    (None, None) => return None,
                };
                Op::Write {
                    file,
                    offset,
                    bytes,
                    sync: false,
                }
            }
            Stage::Sync => Op::Sync { file },
            Stage::Directory => Op::SyncDirectory,
            Stage::Close => Op::Close { file },
            Stage::Discard => Op::Remove { file },
        };
        self.in_flight = true;
        Some(op)
    }

    /// `Err` gives a failure back that is not a lack of space.
    pub(super) fn done(&mut self, result: io::Result<Done>) -> io::Result<Written> {
        self.in_flight = false;
        self.stage = match (self.stage, result) {
            (Stage::Create | Stage::Rename(_) | Stage::Write | Stage::Sync, Err(error))
                if is_lack(&error) =>
            {
                Stage::Discard
            }
            // Somebody has removed what was kept.
            (Stage::Rename(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Stage::Discard
            }
            (_, Err(error)) => return Err(error),
            (Stage::Create | Stage::Rename(_), Ok(_)) => Stage::Write,
            (Stage::Write, Ok(done)) => self.wrote(&done),
            (Stage::Sync, Ok(_)) => Stage::Directory,
            (Stage::Directory, Ok(_)) => Stage::Close,
            (Stage::Close, Ok(_)) => return Ok(Written::Durable),
            (Stage::Discard, Ok(_)) => return Ok(Written::NoRoom),
        };
        Ok(Written::Pending)
    }

    fn wrote(&mut self, done: &Done) -> Stage {
        let Done::Count(count) = done else {
            return Stage::Write;
        };
        if let Some(front) = self.waiting.front_mut() {
            self.offset += *count as u64;
            bytes::Buf::advance(front, *count);
            if front.is_empty() {
                self.waiting.pop_front();
            }
        } else if let Some((offset, bytes)) = &mut self.last {
            *offset += *count as u64;
            bytes::Buf::advance(bytes, *count);
            if bytes.is_empty() {
                self.last = None;
            }
        }
        let is_all = self.is_complete && self.waiting.is_empty() && self.last.is_none();
        if is_all { Stage::Sync } else { Stage::Write }
    }
}
