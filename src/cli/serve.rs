//! `tidegate serve`: the server with what its configuration declares, and no code of a user's.

use std::process::ExitCode;

use crate::server::Server;

use super::{Failure, ServeOptions};

pub(super) fn run(options: &ServeOptions) -> Result<ExitCode, Failure> {
    Server::from_options(options)?.run()?;
    Ok(ExitCode::SUCCESS)
}
