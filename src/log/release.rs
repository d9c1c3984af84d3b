//! What nothing needs any more on its way from the disk: old checkpoints and cleaned segments, once a
//! durable checkpoint does not name them. What the ballast lacks becomes part of it. Knows files.

use std::collections::BTreeSet;
use std::io;

use super::clean::Task;
use super::commit_log::CommitLog;
use super::prepare::Prepared;
use super::room::Class;
use super::storage::{Done, FileName, Op};

impl CommitLog {
    pub(super) fn clean_done(&mut self, result: io::Result<Done>) -> io::Result<()> {
        self.cleaner.in_flight = None;
        result.map(drop)?;
        let mut is_gone = false;
        let is_note = |task: &mut Task| !matches!(task, Task::Op(_));
        while let Some(note) = self.cleaner.ops.pop_front_if(is_note) {
            match note {
                Task::Kept(file, bytes) => self.ballast.adopted(file, bytes),
                Task::Gone(_) | Task::Op(_) => is_gone = true,
            }
        }
        if is_gone {
            let segments = self.segments_on_disk();
            self.state.forget_graves(&segments);
            self.prepare.look_again();
            self.ballast.look_again();
        }
        Ok(())
    }

    /// A checkpoint is durable: what it does not name may go.
    pub(super) fn checkpoint_durable(&mut self, old: Option<(u64, u64)>, retired: usize) {
        let cleaner = &mut self.cleaner;
        if let Some((old, bytes)) = old {
            let file = FileName::Checkpoint(old);
            match self.ballast.adopt_checkpoint() {
                Some(name) => cleaner.keep(file, name, bytes),
                None => cleaner.push_op(Op::Remove { file }),
            }
            cleaner.push_op(Op::SyncDirectory);
        }
        let gone: Vec<Prepared> = cleaner.retired.drain(..retired).collect();
        for segment in &gone {
            cleaner.push_op(Op::Remove {
                file: FileName::Index(segment.id),
            });
        }
        for segment in &gone {
            let file = FileName::Segment(segment.id);
            if self.prepare.recycle(*segment) {
                continue;
            }
            match self.ballast.adopt_segment(segment.bytes) {
                Some(name) => cleaner.keep(file, name, segment.bytes),
                None => cleaner.push_op(Op::Remove { file }),
            }
        }
        if !gone.is_empty() {
            cleaner.push_op(Op::SyncDirectory);
        }
        cleaner
            .ops
            .extend(gone.iter().map(|segment| Task::Gone(segment.id)));
        // On a full disk the next look has its time, so that copies are not copied again and again.
        if !self.is_full() {
            self.cleaner.look_again();
        }
    }

    /// On a full disk whatever may be let go is looked for as soon as a segment is full.
    pub(super) fn look_if_full(&mut self) {
        if self.is_full() && self.cleaner.job.is_none() {
            self.cleaner.look_again();
        }
    }

    /// Something was released: on a full disk every segment that is there now is worth a look.
    pub(super) fn look_for_all_if_full(&mut self) {
        if self.is_full() {
            self.cleaner.thorough_before = self.prepare.next_id();
            self.look_if_full();
        }
    }

    /// Whether a segment is on its way to be let go.
    pub(super) fn is_letting_go(&self, class: Class) -> bool {
        let cleaner = &self.cleaner;
        let is_cleaning = cleaner.job.is_some() || !cleaner.candidates.is_empty();
        let is_named = !cleaner.retired.is_empty() && self.checkpoint.is_coming(self.last_now_us());
        // Copies wait for no cleaning: they are it.
        is_cleaning && class != Class::Copies
            || is_named
            || !cleaner.ops.is_empty()
            || cleaner.in_flight.is_some()
    }

    /// The segments of which a start without a checkpoint would read.
    pub(super) fn segments_on_disk(&self) -> BTreeSet<u64> {
        let going = self.cleaner.ops.iter().filter_map(|task| match task {
            Task::Gone(segment) => Some(*segment),
            Task::Op(_) | Task::Kept(..) => None,
        });
        let retired = self.cleaner.retired.iter().map(|segment| segment.id);
        let old = self.prepare.old_segments();
        let segments = self.segments.keys().copied();
        segments.chain(retired).chain(going).chain(old).collect()
    }
}
