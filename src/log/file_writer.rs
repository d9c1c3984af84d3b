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
    is_complete: bool,
    in_flight: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Create,
    Write,
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
            is_complete: false,
            in_flight: false,
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
            Stage::Write => {
                let bytes = self.waiting.front()?.clone();
                let sync = self.is_complete && self.waiting.len() == 1;
                Op::Write {
                    file,
                    offset: self.offset,
                    bytes,
                    sync,
                }
            }
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
            (Stage::Create | Stage::Write, Err(error)) if is_lack(&error) => Stage::Discard,
            (_, Err(error)) => return Err(error),
            (Stage::Create, Ok(_)) => Stage::Write,
            (Stage::Write, Ok(done)) => self.wrote(&done),
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
        self.offset += *count as u64;
        if let Some(front) = self.waiting.front_mut() {
            bytes::Buf::advance(front, *count);
            if front.is_empty() {
                self.waiting.pop_front();
            }
        }
        let is_all = self.is_complete && self.waiting.is_empty();
        if is_all {
            Stage::Directory
        } else {
            Stage::Write
        }
    }
}
