//! The homes of durable topics that a shard has: requests to those here and elsewhere, and answers back to
//! connections, calls and streams. Knows where a partition lives; decides nothing about topics.
//!
//! Bounds: requests and answers to another shard are gathered in a turn and go in one command,
//! so a mailbox holds few; what they hold is bounded by the limits of sessions and homes. Calls
//! that wait are bounded by the requests and tasks that make them.

use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::broker::durable::{Answer, Caller, Command as Asked, Peer, Request, Who};
use crate::gateway::topics::{Ask, By};
use crate::id::{HomedId, Partition};
use crate::metrics::Recorder;
use crate::proto::durable::MessagePrefix;

use crate::shard::commit::{Clock, Hands, Recovered, Store};
use crate::shard::kernel::file::Files;
use crate::shard::kernel::ring::{Ring, SlotKey};
use crate::shard::post::command::Command;
use crate::shard::state::State;

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
    peer: Peer,
    reference: Option<Bytes>,
    answer: Answer,
}

/// The part of a shard's state that is about durable topics.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    stores: Vec<Store>,
    /// Which store a partition is.
    places: AHashMap<Partition, usize>,
    /// Requests for the homes here.
    asked: Vec<Posted>,
    /// Requests and answers for other shards.
    posts: Vec<Vec<Posted>>,
    told: Vec<Vec<Told>>,
    calls: AHashMap<u64, oneshot::Sender<Answer>>,
    streams: AHashMap<u64, Stream>,
    /// When streams whose readers are gone are looked for.
    streams_due_us: u64,
    next_call: u64,
    prefixes: AHashMap<HomedId, Arc<MessagePrefix>>,
    closing: bool,
}

/// A stream of user code, with what its home is told when its reader is gone.
#[derive(Debug)]
struct Stream {
    sender: mpsc::UnboundedSender<Answer>,
    partition: Partition,
    who: Who,
}

/// How often streams are looked for whose readers are gone without a word: a full queue may have
/// taken it.
const STREAMS_US: u64 = 1_000_000;

/// What a peer's key says of it.
const CALL: u64 = 1 << 63;
const STREAM: u64 = 1 << 62;
/// More prefixes of messages than this are not remembered.
const PREFIXES_MAX: usize = 4_096;

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
        let stores = self.stores.iter().filter_map(Store::deadline_us);
        stores.chain(streams).min()
    }

    /// The partitions here, for counting.
    pub(crate) fn stores(&self) -> &[Store] {
        &self.stores
    }

    /// Streams whose readers are gone, as their homes are to be told.
    fn take_ended_streams(&mut self, now_us: u64) -> Vec<Posted> {
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
        }
    }

    /// Names whoever asks, so that the answer finds back.
    fn name(
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

impl State {
    /// Sends a request to its home.
    pub(crate) fn ask_home(&mut self, posted: Posted) {
        let shard = posted.partition.shard(self.shared.shards());
        if shard == self.index {
            self.homes.asked.push(posted);
        } else {
            self.homes.posts[usize::from(shard)].push(posted);
        }
    }

    /// Takes what another shard or another thread asks of homes here.
    pub(crate) fn handle_asks(&mut self, asks: Vec<Posted>) {
        self.homes.asked.extend(asks);
    }

    /// Takes what homes elsewhere say to connections here.
    pub(crate) fn handle_told(&mut self, told: Vec<Told>) {
        for Told {
            peer,
            reference,
            answer,
        } in told
        {
            self.tell_connection(peer, reference.as_deref(), &answer);
        }
    }

    /// Has the homes here do what was asked, and the logs what is due.
    pub(crate) fn run_homes(
        &mut self,
        clock: Clock,
        (ring, files): (&mut Ring, &mut Files),
        recorder: &Recorder,
    ) {
        if self.homes.stores.is_empty() {
            return self.post_asks();
        }
        let mut stores = std::mem::take(&mut self.homes.stores);
        let metrics = Arc::clone(&self.metrics);
        let mut asked = std::mem::take(&mut self.homes.asked);
        asked.extend(self.homes.take_ended_streams(clock.monotonic_us));
        let mut ask = asked.into_iter();
        loop {
            let posted = ask.next();
            let next = posted.and_then(|posted| self.request(posted));
            let mut hands = Hands {
                clock,
                ring: &mut *ring,
                files: &mut *files,
                metrics: &metrics,
                recorder,
                answer: &mut |peer, reference, answer| self.tell(peer, reference, answer),
            };
            match next {
                Some((store, request)) => stores[store].handle_request(request, &mut hands),
                None if ask.len() == 0 => {
                    stores.iter_mut().for_each(|store| store.run(&mut hands));
                    break;
                }
                None => {}
            }
        }
        self.homes.stores = stores;
        self.count_homes();
        self.post_asks();
    }

    fn request(&mut self, posted: Posted) -> Option<(usize, Request)> {
        let Posted {
            partition,
            who,
            command,
            from,
        } = posted;
        let place = self.homes.places.get(&partition).copied();
        let is_end = matches!(command, Asked::Disconnect);
        let (peer, reference) = self.homes.name(from, self.index, (partition, &who));
        if is_end && peer.key & STREAM != 0 {
            self.homes.streams.remove(&(peer.key & !STREAM));
        }
        let Who { tenant, rights } = who;
        let caller = Caller {
            tenant,
            rights,
            peer,
            reference,
        };
        Some((place?, Request { caller, command }))
    }

    fn post_asks(&mut self) {
        for shard in 0..self.shared.shards() {
            let index = usize::from(shard);
            let asks = std::mem::take(&mut self.homes.posts[index]);
            if !asks.is_empty() {
                self.posts.post(shard, Command::Asks(asks));
            }
            let told = std::mem::take(&mut self.homes.told[index]);
            if !told.is_empty() {
                self.posts.post(shard, Command::Told(told));
            }
        }
    }

    /// Brings an answer to whoever waits for it.
    fn tell(&mut self, peer: Peer, reference: Option<Bytes>, answer: Answer) {
        if peer.key & CALL != 0 {
            if let Some(call) = self.homes.calls.remove(&(peer.key & !CALL)) {
                // Whoever asked may have stopped waiting.
                let _ = call.send(answer);
            }
        } else if peer.key & STREAM != 0 {
            self.tell_stream(peer.key & !STREAM, answer);
        } else if peer.shard == self.index {
            self.tell_connection(peer, reference.as_deref(), &answer);
        } else {
            self.homes.told[usize::from(peer.shard)].push(Told {
                peer,
                reference,
                answer,
            });
        }
    }

    /// Whose reader is gone without a word is found by `take_ended_streams`; until then its credit
    /// bounds what is thrown away.
    fn tell_stream(&self, id: u64, answer: Answer) {
        if let Some(stream) = self.homes.streams.get(&id) {
            // See above.
            let _ = stream.sender.send(answer);
        }
    }

    pub(crate) fn prefix_of(&mut self, topic: HomedId) -> Arc<MessagePrefix> {
        let prefixes = &mut self.homes.prefixes;
        if PREFIXES_MAX <= prefixes.len() && !prefixes.contains_key(&topic) {
            prefixes.clear();
        }
        let prefix = || Arc::new(MessagePrefix::new(&topic.to_string()));
        Arc::clone(prefixes.entry(topic).or_insert_with(prefix))
    }

    /// Takes a request of user code on this shard.
    pub(crate) fn ask_for_code(&mut self, ask: Ask) {
        self.ask_home(posted_of(ask));
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
