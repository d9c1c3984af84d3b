//! `tidegate wire`: what goes over the sockets, for whoever writes a client.

use std::process::ExitCode;

use super::{Failure, answer};
use crate::proto::reference::reference;

pub(super) fn run() -> Result<ExitCode, Failure> {
    answer(reference().trim_end())?;
    Ok(ExitCode::SUCCESS)
}
