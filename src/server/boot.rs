//! The threads of the shards: each is given its part of everything and pinned to its core. Knows
//! threads; what a shard does is its own matter.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use axum::Router;

use crate::config::Config;
use crate::gateway::container::StartError as ContainerError;
use crate::id::Partition;
use crate::log::DataDirectory;
use crate::metrics::Metrics;
use crate::shard::post::mailbox::connect;
use crate::shard::state::command::Command;
use crate::shard::state::shared::{Live, Shared};
use crate::shard::{Recovered, RingError, Setup};

use super::StartError;

pub(super) type Threads = Vec<JoinHandle<Result<(), RingError>>>;

/// What the threads of all shards are started with.
pub(super) struct Boot<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) live: &'a Arc<Live>,
    pub(super) metrics: &'a Metrics,
    pub(super) listeners: &'a Arc<[OwnedFd]>,
    /// Locked for as long as a shard lives: nobody else writes where one still does.
    pub(super) directory: Option<Arc<DataDirectory>>,
}

impl Boot<'_> {
    pub(super) fn start(
        &self,
        config: &Config,
        router: &Router,
        stores: Vec<Vec<(Partition, Recovered)>>,
    ) -> Result<Threads, StartError> {
        let mailboxes = connect(&self.shared.ports, config.limits.mailbox_descriptors_max);
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let mut threads = Vec::new();
        let mut stores = stores.into_iter();
        for (index, mailboxes) in (0..).zip(mailboxes) {
            let Some(metrics) = self.metrics.shard(index) else {
                continue;
            };
            let (ready, is_ready) = std::sync::mpsc::channel();
            let setup = Setup {
                index,
                shared: Arc::clone(self.shared),
                live: Arc::clone(self.live),
                mailboxes,
                listeners: Arc::clone(self.listeners),
                sizes: config.shard.clone(),
                metrics: Arc::clone(metrics),
                router: router.clone(),
                ready,
                stores: stores.next().unwrap_or_default(),
            };
            // More shards than cores are for tests; pinning them would pile them up.
            let pin = config.shard.pin && usize::from(self.shared.shards()) <= cores.len();
            let core = cores.get(usize::from(index)).copied().filter(|_| pin);
            let directory = self.directory.clone();
            let run = move || {
                let _locked = directory;
                if let Some(core) = core {
                    core_affinity::set_for_current(core);
                }
                // The log makes a restart safe; going on without a shard would not be.
                let run = std::panic::AssertUnwindSafe(|| crate::shard::run(setup));
                std::panic::catch_unwind(run).unwrap_or_else(|_| std::process::abort())
            };
            let thread = std::thread::Builder::new().name(format!("shard-{index}"));
            threads.push(thread.spawn(run).map_err(StartError::Thread)?);
            // The others begin when the hooks before the start have run on the first.
            if let Err(error) = started(&is_ready) {
                return Err(self.stop(threads).err().unwrap_or(error));
            }
        }
        // Nobody takes the descriptors away that a shard needs to begin, and none waits for one
        // that did not.
        self.tell(&threads, || Command::Accept);
        Ok(threads)
    }

    /// Ends what has begun; an error of a shard is the reason for it.
    fn stop(&self, threads: Threads) -> Result<(), StartError> {
        self.shared.draining.store(true, Ordering::Relaxed);
        // Those that are not there count as quiet.
        self.shared
            .quiet
            .store(usize::from(self.shared.shards()), Ordering::Release);
        self.tell(&threads, || Command::Drain);
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(ended) => Ok(ended?),
                Err(_) => std::process::abort(),
            })
    }

    fn tell(&self, threads: &Threads, command: impl Fn() -> Command) {
        for (thread, port) in threads.iter().zip(self.shared.ports.iter()) {
            // A full queue empties within turns, unless nobody is there any more.
            while !thread.is_finished() && port.post(command()).is_err() {
                std::thread::yield_now();
            }
        }
    }
}

/// Waits until a shard is set up, or has ended without being so.
fn started(is_ready: &Receiver<Result<(), ContainerError>>) -> Result<(), StartError> {
    Ok(is_ready.recv().map_err(|_| StartError::NotReady)??)
}
