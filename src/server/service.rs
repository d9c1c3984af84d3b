//! The process as a service of systemd: sockets that were bound for it before it started, and what
//! it tells its manager. Without a manager all of it does nothing.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use sd_notify::NotifyState;

use super::StartError;

/// The listeners that the manager hands over (LISTEN_FDS), which stay open while a server restarts:
/// whoever connects meanwhile waits in their queue.
pub(super) fn inherited(is_dev: bool) -> Result<Vec<TcpListener>, StartError> {
    let mut given = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..given.len() {
        let listener = given
            .take_tcp_listener(index)
            .map_err(StartError::Inherited)?;
        let Some(listener) = listener else { continue };
        let address = checked(&listener, is_dev)?;
        tracing::info!("the socket of {address} is the service manager's");
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The same rules as for a socket of our own.
fn checked(listener: &TcpListener, is_dev: bool) -> Result<SocketAddr, StartError> {
    let address = listener.local_addr().map_err(StartError::Inherited)?;
    if is_dev && !address.ip().is_loopback() {
        return Err(StartError::InheritedDev { address });
    }
    // Programs that this one may start have no business with it.
    let flags = rustix::io::FdFlags::CLOEXEC;
    rustix::io::fcntl_setfd(listener, flags)
        .map_err(|errno| StartError::Inherited(errno.into()))?;
    Ok(address)
}

/// What the manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Everything listens.
    Ready,
    /// Keys and limits are read anew; `Ready` follows.
    Reloading,
    /// The drain has begun.
    Stopping,
}

/// Tells the manager, if there is one (NOTIFY_SOCKET). It misses nothing that a client needs, so a
/// failure is a line in the log.
pub(super) fn notify(stage: Stage) {
    let told = match stage {
        Stage::Ready => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status("serving")]),
        Stage::Reloading => sd_notify::notify(&[NotifyState::Status("reloading")]),
        Stage::Stopping => {
            sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("draining")])
        }
    };
    if let Err(error) = told {
        tracing::warn!(%error, ?stage, "the service manager was not told");
    }
}
