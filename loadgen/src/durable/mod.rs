//! Loads on durable topics: publishers, many topics, replay, a subscriber that stalls. Knows the
//! dialect's texts by their kind and order, not by their content.

mod client;
mod disk;
mod facts;
mod options;
mod publish;
mod replay;
mod stalled;
mod topics;

use anyhow::Result;

pub(crate) use options::Mode;

use crate::Shown;

/// Runs the load and shows what it came to.
pub(crate) fn run(mode: &Mode) -> Result<Shown> {
    let json = mode.common().json;
    mode.common().refuse_ways("durable")?;
    match mode {
        Mode::Publish(publish) => Shown::report(&publish::run(publish)?, json),
        Mode::Topics(topics) => Shown::facts(&topics::run(topics)?, json),
        Mode::Replay(replay) => Shown::facts(&replay::run(replay)?, json),
        Mode::Stalled(stalled) => Shown::facts(&stalled::run(stalled)?, json),
    }
}
