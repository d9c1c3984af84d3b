//! The homes of durable topics that a shard has, and who waits for their answers. Knows where a partition
//! lives; decides nothing about topics.

use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::broker::durable::{Answer, Command as Asked, LagLook, Peer, Who};
use crate::gateway::topics::{Ask, By};
use crate::id::{HomedId, Partition};
use crate::proto::durable::MessagePrefix;

use crate::shard::commit::{Recovered, Store};
use crate::shard::kernel::ring::SlotKey;

/// A request on its way to its home.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) partition: Partition,
    pub(crate) who: Who,
    pub(crate) command: Asked,
    pub(crate) from: From,
}

/// Who asks.
#[derive(Debug)]
pub(crate) enum From {
    /// A connection.
    Peer(Peer, Option<Bytes>),
    /// A call or a stream of user code, which its home answers itself.
    Code(By),
}

/// An answer on its way to a connection on another shard.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) peer: Peer,
    pub(crate) reference: Option<Bytes>,
    pub(crate) answer: Answer,
}

/// The part of a shard's state that is about durable topics.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    pub(crate) stores: Vec<Store>,
    /// Which store a partition is.
    pub(crate) places: AHashMap<Partition, usize>,
    /// Requests for the homes here.
    pub(crate) asked: Vec<Posted>,
    /// Requests and answers for other shards.
    pub(crate) posts: Vec<Vec<Posted>>,
    pub(crate) told: Vec<Vec<Told>>,
    pub(crate) calls: AHashMap<u64, oneshot::Sender<Answer>>,
    pub(crate) streams: AHashMap<u64, Stream>,
    /// When streams whose readers are gone are looked for.
    pub(crate) streams_due_us: u64,
    pub(crate) next_call: u64,
    pub(crate) prefixes: AHashMap<HomedId, Arc<MessagePrefix>>,
    pub(crate) closing: bool,
    lags: Vec<LagLook>,
    /// When a log or a home has something to do although nothing happens, as of when they ran last: asking
    /// all of them several times a turn was a sixth of what a handshake costs.
    stores_due_us: Option<u64>,
}

/// A stream of user code, with what its home is told when its reader is gone.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) sender: mpsc::UnboundedSender<Answer>,
    partition: Partition,
    who: Who,
}

/// How often streams are looked for whose readers are gone without a word: a full queue may have
/// taken it.
const STREAMS_US: u64 = 1_000_000;

/// So many subscriptions of a partition are looked at in a second, for how far they are behind.
const LAGS_PER_LOOK: usize = 1_024;

/// What a peer's key says of it.
pub(crate) const CALL: u64 = 1 << 63;
pub(crate) const STREAM: u64 = 1 << 62;
/// More prefixes of messages than this are not remembered.
pub(crate) const PREFIXES_MAX: usize = 4_096;

impl Homes {
    pub(crate) fn new(stores: Vec<(Partition, Recovered)>, shards: u16) -> Self {
        let mut homes = Self {
            posts: (0..shards).map(|_| Vec::new()).collect(),
            told: (0..shards).map(|_| Vec::new()).collect(),
            ..Self::default()
        };
        for (index, (partition, recovered)) in stores.into_iter().enumerate() {
            homes.places.insert(partition, index);
            homes.stores.push(Store::new(index, recovered));
        }
        homes
    }

    /// Whether something can be done without waiting.
    pub(crate) fn has_work(&self) -> bool {
        !self.asked.is_empty()
            || self.stores.iter().any(Store::has_work)
            || self.posts.iter().any(|posts| !posts.is_empty())
            || self.told.iter().any(|told| !told.is_empty())
    }

    /// When something is due although nothing happens.
    pub(crate) fn deadline_us(&self) -> Option<u64> {
        let streams = (!self.streams.is_empty()).then_some(self.streams_due_us);
        self.stores_due_us.into_iter().chain(streams).min()
    }

    /// Puts back the partitions that have run, of which time alone can make anything due now.
    pub(crate) fn put_back(&mut self, stores: Vec<Store>) {
        self.stores = stores;
        self.stores_due_us = self.stores.iter().filter_map(Store::deadline_us).min();
    }

    /// How far subscriptions are behind: all together, and the one that is most behind. Some are looked at
    /// each time.
    pub(crate) fn look_at_lags(&mut self) -> (u64, u64) {
        self.lags.resize_with(self.stores.len(), LagLook::default);
        let looks = self.stores.iter().zip(&mut self.lags);
        looks.fold((0, 0), |(sum, most), (store, look)| {
            store.home().look_at_lags(look, LAGS_PER_LOOK);
            let found = look.found();
            (sum + found.messages, most.max(found.messages_max))
        })
    }

    /// The partitions here, for counting.
    pub(crate) fn stores(&self) -> &[Store] {
        &self.stores
    }

    /// Streams whose readers are gone, as their homes are to be told.
    pub(crate) fn take_ended_streams(&mut self, now_us: u64) -> Vec<Posted> {
        if now_us < self.streams_due_us {
            return Vec::new();
        }
        self.streams_due_us = now_us + STREAMS_US;
        let ended = self.streams.iter();
        let ended = ended.filter(|(_, stream)| stream.sender.is_closed());
        let posted = |(id, stream): (&u64, &Stream)| Posted {
            partition: stream.partition,
            who: stream.who.clone(),
            command: Asked::Disconnect,
            from: From::Code(By::Stream(*id, None)),
        };
        ended.map(posted).collect()
    }

    /// Streams of user code end here, so that requests which read them end too.
    pub(crate) fn end_streams(&mut self) {
        self.streams.clear();
    }

    /// Lets all logs end cleanly.
    pub(crate) fn close(&mut self) {
        if !std::mem::replace(&mut self.closing, true) {
            self.stores.iter_mut().for_each(Store::close);
            self.stores_due_us = Some(0);
        }
    }

    /// Whether everything that was accepted is on the disk.
    pub(crate) fn is_closed(&self) -> bool {
        self.stores.iter().all(Store::is_closed)
    }

    /// Tells a log how an operation on a file has ended.
    pub(crate) fn handle_done(&mut self, ended: crate::shard::kernel::file::Ended) {
        let (owner, result) = ended;
        if let Some(store) = self.stores.get_mut(owner.log) {
            store.handle_done(owner.effect, result);
            self.stores_due_us = Some(0);
        }
    }

    /// Names whoever asks, so that the answer finds back.
    pub(crate) fn name(
        &mut self,
        from: From,
        shard: u16,
        (partition, who): (Partition, &Who),
    ) -> (Peer, Option<Bytes>) {
        let key = match from {
            From::Peer(peer, reference) => return (peer, reference),
            From::Code(By::Once(sender)) => {
                self.next_call += 1;
                self.calls.insert(self.next_call, sender);
                CALL | self.next_call
            }
            From::Code(By::Stream(id, sender)) => {
                if let Some(sender) = sender {
                    let stream = Stream {
                        sender,
                        partition,
                        who: who.clone(),
                    };
                    self.streams.insert(id, stream);
                }
                STREAM | id
            }
        };
        (Peer { shard, key }, None)
    }
}

/// A request of user code as it is posted.
pub(crate) fn posted_of(ask: Ask) -> Posted {
    let Ask {
        partition,
        who,
        command,
        by,
    } = ask;
    Posted {
        partition,
        who,
        command,
        from: From::Code(by),
    }
}

pub(crate) fn peer_of(shard: u16, key: SlotKey) -> Peer {
    Peer {
        shard,
        key: (u64::from(key.generation) << 32) | u64::from(key.slot),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the fields are cut out by masks"
)]
pub(crate) fn slot_key(peer: Peer) -> SlotKey {
    SlotKey {
        slot: peer.key as u32,
        generation: (peer.key >> 32) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L19: its Disconnect met a full queue, and nothing is ever published to it
    #[test]
    fn a_stream_that_was_dropped_without_a_word_is_disconnected() {
        let mut homes = Homes::new(Vec::new(), 1);
        let who = Who {
            tenant: crate::id::Tenant::parse("demo").unwrap(),
            rights: crate::auth::Rights::everything(),
        };
        let mut receivers: Vec<_> = (1..=2)
            .map(|id| {
                let (sender, receiver) = mpsc::unbounded_channel();
                let by = From::Code(By::Stream(id, Some(sender)));
                homes.name(by, 0, (Partition(3), &who));
                receiver
            })
            .collect();
        assert_eq!(homes.deadline_us(), Some(0));
        assert!(homes.take_ended_streams(5).is_empty());
        drop(receivers.pop());
        assert!(homes.take_ended_streams(6).is_empty(), "not all the time");
        let ended = homes.take_ended_streams(5 + STREAMS_US);
        let [ended] = &ended[..] else {
            panic!("{ended:?}");
        };
        assert_eq!(ended.partition, Partition(3));
        assert!(matches!(ended.command, Asked::Disconnect));
        assert!(matches!(ended.from, From::Code(By::Stream(2, None))));
    }
}
