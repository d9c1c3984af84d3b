//! What precedes every run: the limit of files, and connections with a bar that counts them.

use anyhow::Result;
use indicatif::ProgressBar;

use crate::run;
use crate::socket::Target;
use crate::stream::Stream;

/// Opens the connections of a run.
pub(crate) fn open(target: &Target, connections: usize) -> Result<Vec<Stream>> {
    run::allow_files(connections)?;
    let bar = ProgressBar::new(connections as u64).with_message("connecting");
    let streams = target.open(connections, |opened| bar.set_position(opened as u64))?;
    bar.finish_and_clear();
    Ok(streams)
}
