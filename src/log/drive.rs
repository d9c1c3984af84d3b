//! Runs a live log on a blocking storage: recovery, the command line and the simulation do, so that
//! the log they run is the one that serves.

use super::commit_log::{CommitLog, Now};
use super::storage::{Storage, execute};

/// Carries out operations until the log asks for no more at `now`.
pub fn drive(log: &mut CommitLog, storage: &mut impl Storage, now: Now) {
    while let Some(effect) = log.poll_effect(now) {
        let result = execute(storage, &effect.op);
        log.handle_done(effect.id, result);
    }
}
