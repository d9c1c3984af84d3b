//! The threads of the shards: each is given its part of everything and pinned to its core. Knows
//! threads; what a shard does is its own matter.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use axum::Router;

use crate::config::Config;
use crate::gateway::container::StartError as ContainerError;
use crate::id::Partition;
use crate::metrics::Metrics;
use crate::shard::mailbox::connect;
use crate::shard::shared::{Live, Shared};
use crate::shard::{Recovered, RingError, Setup};

use super::StartError;

pub(super) type Threads = Vec<JoinHandle<Result<(), RingError>>>;

/// What the threads of all shards are started with.
pub(super) struct Boot<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) live: &'a Arc<Live>,
    pub(super) metrics: &'a Metrics,
    pub(super) listeners: &'a Arc<[OwnedFd]>,
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
        let (ready, is_ready) = std::sync::mpsc::channel();
        let mut ready = Some(ready);
        let mut stores = stores.into_iter();
        for (index, mailboxes) in (0..).zip(mailboxes) {
            let Some(metrics) = self.metrics.shard(index) else {
                continue;
            };
            let setup = Setup {
                index,
                shared: Arc::clone(self.shared),
                live: Arc::clone(self.live),
                mailboxes,
                listeners: Arc::clone(self.listeners),
                sizes: config.shard.clone(),
                metrics: Arc::clone(metrics),
                router: router.clone(),
                ready: ready.take(),
                stores: stores.next().unwrap_or_default(),
            };
            // More shards than cores are for tests; pinning them would pile them up.
            let pin = config.shard.pin && usize::from(self.shared.shards()) <= cores.len();
            let core = cores.get(usize::from(index)).copied().filter(|_| pin);
            let run = move || {
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
            if index == 0 {
                threads = started(threads, &is_ready)?;
            }
        }
        Ok(threads)
    }
}

/// Waits until the first shard is ready. If it is not, it has ended and says why.
fn started(
    threads: Threads,
    is_ready: &Receiver<Result<(), ContainerError>>,
) -> Result<Threads, StartError> {
    if let Ok(ready) = is_ready.recv() {
        ready?;
        return Ok(threads);
    }
    for thread in threads {
        match thread.join() {
            Ok(ended) => ended?,
            Err(_) => std::process::abort(),
        }
    }
    Err(StartError::NotReady)
}
