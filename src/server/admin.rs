//! The listener for operators: metrics without a token, on an address of its own. Knows no shard;
//! a thread of its own serves it, so that it answers while the shards are busy.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use axum::Router;
use tokio::sync::oneshot;

use crate::config::AdminSection;

use super::StartError;

/// The running listener. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A program that makes its configuration itself opts in as one who writes a file.
pub(super) fn check(section: &AdminSection) -> Result<(), StartError> {
    let exposed = section.exposed();
    exposed.map_or(Ok(()), |address| Err(StartError::AdminAddress { address }))
}

impl Admin {
    pub(super) fn start(address: SocketAddr, router: Router) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let stopped = async { drop(stopped.await) };
            axum::serve(listener, router)
                .with_graceful_shutdown(stopped)
                .await
        };
        let run = move || {
            if let Err(error) = runtime.block_on(serve) {
                tracing::error!(target: "tidegate::http", %error, "the admin listener ended");
            }
        };
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(run)?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been told; nothing depends on it.
            let _ = thread.join();
        }
    }
}
