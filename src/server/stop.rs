//! The end of a server: it drains, and its shards end. Knows threads and ports.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::shard::state::command::Command;

use super::told;
use super::{Server, StartError};

impl Server {
    /// Answers `/readyz` with 503 from now on and serves as before: balancers look elsewhere before
    /// anybody is refused.
    pub fn announce_drain(&self) {
        let before = self.shared.draining.swap(true, Ordering::Relaxed);
        if !before {
            let open = self
                .shared
                .loads
                .iter()
                .map(|load| load.load(Ordering::Relaxed));
            told::draining(open.sum());
        }
    }

    /// How long the process serves on after it was asked to stop (`limits.drain_delay_ms`).
    pub(super) fn drain_delay(&self) -> Duration {
        Duration::from_millis(self.drain_delay_ms.load(Ordering::Relaxed))
    }

    /// Begins to drain: nobody new is accepted, everybody is closed with 1012. A listener that was
    /// handed over stays open for the next process, another one is closed.
    pub fn drain(&self) {
        self.announce_drain();
        self.tell_all(|| Command::Drain);
    }

    pub(super) fn tell_all(&self, command: impl Fn() -> Command) {
        for port in self.shared.ports.iter() {
            // A full queue empties within turns; these commands must arrive.
            while port.post(command()).is_err() {
                std::thread::yield_now();
            }
        }
    }

    /// Waits until all shards have drained.
    ///
    /// # Errors
    /// When a shard could not run.
    pub fn join(mut self) -> Result<(), StartError> {
        for thread in std::mem::take(&mut self.threads) {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => std::process::abort(),
            }
        }
        told::stopped();
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut self.threads);
        self.shared.draining.store(true, Ordering::Relaxed);
        for (thread, port) in threads.iter().zip(self.shared.ports.iter()) {
            while !thread.is_finished() && port.post(Command::Drain).is_err() {
                std::thread::yield_now();
            }
        }
        for thread in threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a shard has ended badly"),
                Err(_) => std::process::abort(),
            }
        }
    }
}
