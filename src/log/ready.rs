//! A recovered log is given what it needs to take records: a segment and its ballast. On a full disk it
//! goes on in the last segment, of which the rest is wiped first. Uses the blocking storage.

use std::io;

use super::commit_log::{Active, Blocks, CommitLog, LogState, Now};
use super::layout::to_usize;
use super::recovery::{RecoverError, at};
use super::storage::{FileName, Storage, Target, execute, patiently, write_all};
use super::survey::{Kind, Survey};

/// Runs the log until it can take records, or cannot be given the space. What it wants beyond that
/// is left to its caller, so that nothing delays a start.
pub(super) fn make_ready(
    log: &mut CommitLog,
    storage: &mut impl Storage,
    files: &Survey,
    now: Now,
) -> Result<(), RecoverError> {
    let mut may_go_on = true;
    while !log.is_provided() {
        if may_go_on && log.prepare.is_full() {
            may_go_on = false;
            go_on(log, storage, files)?;
            continue;
        }
        let Some(effect) = log.poll_effect(now) else {
            return Ok(());
        };
        let result = execute(storage, &effect.op);
        let failure = result.as_ref().err();
        let failure = failure.map(|error| io::Error::new(error.kind(), error.to_string()));
        log.handle_done(effect.id, result);
        if let (LogState::Failed, Some(failure)) = (log.state(), failure) {
            return Err(RecoverError::io("the next segment", failure));
        }
    }
    Ok(())
}

/// Nothing may stand behind a cut that could become valid again, and so a log goes on in a new
/// segment. Where there is no space for one, the rest of the last is wiped: those bytes are the
/// log's own on the disk already.
fn go_on(
    log: &mut CommitLog,
    storage: &mut impl Storage,
    files: &Survey,
) -> Result<(), RecoverError> {
    let (segment, end) = log.previous;
    let is_whole = matches!(files.kind(segment), Kind::Own(_))
        && !log.state.protected.contains(&segment)
        && log.active.is_none();
    let Some(info) = log.segments.get_mut(&segment).filter(|_| is_whole) else {
        return Ok(());
    };
    let Blocks::Held(index) = &mut info.blocks else {
        return Ok(());
    };
    let index = std::mem::take(index);
    info.blocks = Blocks::Open(index);
    let bytes = to_usize(info.bytes);
    let file = FileName::Segment(segment);
    let zeroes = vec![0; WIPE_BYTES.min(bytes - end)];
    let mut from = end;
    while from < bytes {
        let count = zeroes.len().min(bytes - from);
        write_all(storage, file, from as u64, &zeroes[..count]).map_err(at(file.file_name()))?;
        from += count;
    }
    patiently(|| storage.sync(Target::File(file))).map_err(at(file.file_name()))?;
    log.active = Some(Active {
        id: segment,
        bytes,
        end,
    });
    Ok(())
}

const WIPE_BYTES: usize = 1 << 20;
