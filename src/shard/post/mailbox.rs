//! Queues into a shard: one bounded SPSC ring from each other shard, one bounded MPSC queue from
//! threads that are no shards, and the wake-up that goes with them. Knows nothing of what is in
//! a command.
//!
//! Full: [`Full`] to the sender, who answers `overloaded`. Nothing is lost in silence and nobody
//! waits. Whoever pushes wakes the shard if it sleeps (`sleeper.rs`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::shard::post::sleeper::Sleeper;

/// The mailbox is full and took nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "overloaded: the mailbox of a shard is full (limits.mailbox_descriptors_max, limits.outside_queue_max)"
)]
pub(crate) struct Full;

/// What others hold of a shard: its outside queue and its wake-up.
pub(crate) struct Port<T> {
    outside: ArrayQueue<T>,
    /// Commands that the outside queue did not take.
    overloads: AtomicU64,
    sleeper: Sleeper,
}

impl<T> fmt::Debug for Port<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("outside", &self.outside.len())
            .finish_non_exhaustive()
    }
}

impl<T> Port<T> {
    pub(crate) fn new(outside_max: usize) -> Self {
        Self {
            outside: ArrayQueue::new(outside_max),
            overloads: AtomicU64::new(0),
            sleeper: Sleeper::new(),
        }
    }

    /// Whether the queue takes nothing now.
    pub(crate) fn is_full(&self) -> bool {
        self.outside.is_full()
    }

    /// Commands that wait in the outside queue, and those that it did not take.
    pub(crate) fn outside(&self) -> (usize, u64) {
        let overloads = self.overloads.load(Ordering::Relaxed);
        (self.outside.len(), overloads)
    }

    /// Wakes the shard if it sleeps, after something that it looks at was changed.
    pub(crate) fn wake(&self) {
        self.sleeper.wake();
    }

    /// Posts from a thread beside the shards.
    pub(crate) fn post(&self, command: T) -> Result<(), Full> {
        self.outside.push(command).map_err(|_| {
            self.overloads.fetch_add(1, Ordering::Relaxed);
            Full
        })?;
        self.sleeper.wake();
        Ok(())
    }
}

/// A shard's end of all its mailboxes.
pub(crate) struct Mailboxes<T> {
    index: usize,
    ports: Arc<[Port<T>]>,
    /// To each shard; the own place is empty.
    to: Vec<Option<rtrb::Producer<T>>>,
    /// From each shard; the own place is empty.
    from: Vec<Option<rtrb::Consumer<T>>>,
    /// Shards that were posted to and may sleep.
    posted: Vec<bool>,
}

impl<T> fmt::Debug for Mailboxes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailboxes")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// Connects `shards` shards by mailboxes of `commands_max` each.
pub(crate) fn connect<T>(ports: &Arc<[Port<T>]>, commands_max: usize) -> Vec<Mailboxes<T>> {
    let shards = ports.len();
    let empty = || (0..shards).map(|_| None).collect();
    let mut all: Vec<Mailboxes<T>> = (0..shards)
        .map(|index| Mailboxes {
            index,
            ports: Arc::clone(ports),
            to: empty(),
            from: (0..shards).map(|_| None).collect(),
            posted: vec![false; shards],
        })
        .collect();
    for sender in 0..shards {
        for receiver in (0..shards).filter(|receiver| *receiver != sender) {
            let (producer, consumer) = rtrb::RingBuffer::new(commands_max);
            all[sender].to[receiver] = Some(producer);
            all[receiver].from[sender] = Some(consumer);
        }
    }
    all
}

impl<T> Mailboxes<T> {
    /// Posts to another shard, which is woken by [`Mailboxes::wake_posted`].
    pub(crate) fn post(&mut self, shard: usize, command: T) -> Result<(), Full> {
        assert_ne!(shard, self.index, "a shard does not post to itself");
        let Some(producer) = &mut self.to[shard] else {
            unreachable!("every other shard has a mailbox");
        };
        producer.push(command).map_err(|_| Full)?;
        self.posted[shard] = true;
        Ok(())
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.ports.len()
    }

    /// Whether the mailbox to `shard` takes nothing now.
    pub(crate) fn is_full(&self, shard: usize) -> bool {
        self.to[shard].as_ref().is_some_and(rtrb::Producer::is_full)
    }

    /// Wakes those that were posted to since the last call, once each, and only if they sleep.
    pub(crate) fn wake_posted(&mut self) {
        for (shard, posted) in self.posted.iter_mut().enumerate() {
            if std::mem::take(posted) {
                self.ports[shard].sleeper.wake();
            }
        }
    }

    /// Takes up to `count_max` commands from each of the other shards and from outside.
    pub(crate) fn drain(&mut self, count_max: usize, out: &mut impl Extend<T>) {
        for consumer in self.from.iter_mut().flatten() {
            out.extend(std::iter::from_fn(|| consumer.pop().ok()).take(count_max));
        }
        let outside = &self.ports[self.index].outside;
        out.extend(std::iter::from_fn(|| outside.pop()).take(count_max));
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        let inside = self.from.iter().flatten().all(rtrb::Consumer::is_empty);
        inside && self.ports[self.index].outside.is_empty()
    }

    /// The own wake-up.
    pub(crate) fn sleeper(&self) -> &Sleeper {
        &self.ports[self.index].sleeper
    }

    /// How many commands wait.
    pub(crate) fn depth(&self) -> usize {
        let inside: usize = self.from.iter().flatten().map(rtrb::Consumer::slots).sum();
        inside + self.ports[self.index].outside.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(commands_max: usize) -> Vec<Mailboxes<u32>> {
        let ports: Arc<[Port<u32>]> = (0..2).map(|_| Port::new(2)).collect();
        connect(&ports, commands_max)
    }

    #[test]
    fn commands_arrive_in_order() {
        let mut all = two(4);
        all[0].post(1, 7).unwrap();
        all[0].post(1, 8).unwrap();
        all[1].ports[1].post(9).unwrap();
        let mut out = Vec::new();
        all[1].drain(16, &mut out);
        assert_eq!(out, [7, 8, 9]);
        assert!(all[1].is_empty());
    }

    #[test]
    fn a_full_mailbox_says_so() {
        let mut all = two(1);
        all[0].post(1, 1).unwrap();
        assert_eq!(all[0].post(1, 2), Err(Full));
        let port = Port::new(1);
        port.post(1).unwrap();
        assert_eq!(port.outside(), (1, 0));
        assert_eq!(port.post(2), Err(Full));
        assert_eq!(port.outside(), (1, 1));
    }
}
