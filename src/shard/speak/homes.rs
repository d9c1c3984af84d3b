//! The homes of durable topics that a shard has: requests to those here and elsewhere, and answers back to
//! connections, calls and streams. Knows where a partition lives; decides nothing about topics.
//!
//! Bounds: requests and answers to another shard are gathered in a turn and go in one command,
//! so a mailbox holds few; what they hold is bounded by the limits of sessions and homes. Calls
//! that wait are bounded by the requests and tasks that make them.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::durable::{Answer, Caller, Command as Asked, Peer, Request, Who};
use crate::gateway::topics::Ask;
use crate::id::HomedId;
use crate::metrics::Recorder;
use crate::proto::durable::MessagePrefix;

use crate::shard::commit::{Clock, Hands};
use crate::shard::kernel::file::Files;
use crate::shard::kernel::ring::Ring;
use crate::shard::state::State;
use crate::shard::state::command::Command;
use crate::shard::state::homes::{CALL, PREFIXES_MAX, Posted, STREAM, Told, posted_of};

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
        self.homes.put_back(stores);
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
