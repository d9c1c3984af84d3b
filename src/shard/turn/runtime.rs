//! What the loop of a shard runs on: one thread with one runtime of tokio, whose sleeps end with a
//! look at the ring. Knows no connection.
//!
//! tokio-uring's own runtime hands a ring of its own to the kernel before each sleep, which costs a
//! system call a turn and does nothing while no shard uses that ring. So it serves before and after:
//! what is done with files then is its work.

use std::cell::RefCell;
use std::path::PathBuf;
use std::task::Waker;

use crate::shard::kernel::ring::RingError;
use crate::shard::turn::{Setup, serve};

/// Runs a shard on this thread until it has drained.
///
/// # Errors
/// When the ring cannot be set up.
pub(crate) fn run(setup: Setup) -> Result<(), RingError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(wake_root)
        .build()
        .map_err(RingError::Other)?;
    let folders: Vec<PathBuf> = setup
        .stores
        .iter()
        .map(|(_, it)| it.folder.clone())
        .collect();
    let ended = tokio::task::LocalSet::new().block_on(&runtime, serve(setup));
    sync_folders(&folders);
    ended
}

/// After serving, files are operations of tokio-uring's runtime: the folders of the logs are synced
/// a last time, so that what was renamed in them last is there.
fn sync_folders(folders: &[PathBuf]) {
    if folders.is_empty() {
        return;
    }
    let synced = tokio_uring::Runtime::new(tokio_uring::builder().entries(8)).and_then(|runtime| {
        runtime.block_on(async {
            for folder in folders {
                let folder = tokio_uring::fs::File::open(folder).await?;
                folder.sync_all().await?;
                folder.close().await?;
            }
            Ok(())
        })
    });
    if let Err(error) = synced {
        tracing::warn!(target: "tidegate::log", %error, "the folders were not synced at the end");
    }
}

thread_local! {
    /// Whom a sleep of this thread that ends is told.
    static ROOT: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// A sleep may end by an interruption, when the kernel has work of the ring to run here: without a
/// look at the ring the runtime would go to sleep again, and be woken for the same.
fn wake_root() {
    if let Some(root) = ROOT.take() {
        root.wake();
    }
}

/// The waker of a loop that is about to sleep.
pub(crate) fn watch_sleep(root: &Waker) {
    ROOT.set(Some(root.clone()));
}
