//! One durable subscription at its topic's home: a cursor, and while somebody is bound a reader
//! with one `next` seq. There is no switch between replay and live: what is delivered next is
//! always the seq behind the last, or a gap. It knows no other subscription and no log.
//!
//! Bounds: `in_flight` by the window, in messages and bytes; nothing else grows with the backlog.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;

use crate::id::{HomedId, Seq, Tenant};

use super::durable::{Ended, Message, Open, Peer, ReadId, Refused, Subscribed, SubscriptionView};
use super::topic::Topic;

/// A durable consumer.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) tenant: Tenant,
    pub(super) topic: HomedId,
    pub(super) sub_name: Arc<str>,
    /// The claim `sub` of whoever made it; empty if it is not known.
    pub(super) maker: Box<str>,
    /// Everything up to here is acked.
    pub(super) cursor: Seq,
    /// The cursor has moved since it was last given to the log.
    pub(super) dirty: bool,
    /// The record that makes it is durable.
    pub(super) made: bool,
    /// Its end waits for the disk: nobody finds it any more.
    pub(super) deleting: bool,
    /// Everything up to here may have been sent before.
    pub(super) sent: Seq,
    pub(super) active_ms: u64,
    pub(super) binding: Option<Box<Binding>>,
    /// It stands in the list of those that are to be moved on.
    pub(super) ready: bool,
    /// It stands in the topic's list of those that wait for a commit.
    pub(super) idle: bool,
}

/// Somebody who reads.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) peer: Peer,
    /// The mark of the subscribe, until that is answered.
    pub(super) opening: Option<Opening>,
    /// The next seq to be delivered.
    pub(super) next: Seq,
    /// Sent and not acked.
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: u64,
    in_flight_max: u32,
    /// A read that is under way.
    pub(super) read: Option<ReadId>,
    /// The log is not the one that the client remembers, which it is told first.
    pub(super) new_epoch: bool,
}

/// A subscribe whose answer waits for the disk.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) reference: Option<Bytes>,
    pub(super) resumed: bool,
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    seq: Seq,
    cost: u64,
}

/// What a bound subscription can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Tell that the log is another one.
    Epoch,
    /// Pass over what is no longer kept, up to here.
    Gap(Seq),
    /// Deliver messages up to this seq, as many and as large as said.
    Deliver {
        through: Seq,
        count_max: u32,
        bytes_max: u64,
    },
    /// Wait for a commit.
    Commit,
    /// Wait for an ack, a read, the answer to the subscribe, or the end.
    Wait,
    /// Wait for credit.
    Credit,
}

impl Subscription {
    /// A subscription without a reader.
    pub(super) fn new(tenant: Tenant, topic: HomedId, sub_name: Arc<str>, cursor: Seq) -> Self {
        Self {
            tenant,
            topic,
            sub_name,
            maker: Box::default(),
            cursor,
            dirty: false,
            made: false,
            deleting: false,
            sent: cursor,
            active_ms: 0,
            binding: None,
            ready: false,
            idle: false,
        }
    }

    /// Binds `peer` behind the cursor: what was sent and not acked is sent again.
    pub(super) fn bind(&mut self, peer: Peer, in_flight_max: u32, opening: Opening) {
        self.unbind();
        self.binding = Some(Box::new(Binding {
            peer,
            opening: Some(opening),
            next: self.cursor + 1,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            in_flight_max,
            read: None,
            new_epoch: false,
        }));
    }

    /// Ends the binding; the cursor stays.
    pub(super) fn unbind(&mut self) -> Option<Box<Binding>> {
        let binding = self.binding.take()?;
        self.sent = self.sent.max(binding.next - 1);
        Some(binding)
    }

    /// Moves the cursor on purpose; a reader goes on behind it.
    pub(super) fn seek(&mut self, cursor: Seq) {
        self.cursor = cursor;
        if let Some(binding) = &mut self.binding {
            self.sent = self.sent.max(binding.next - 1);
            binding.next = cursor + 1;
            binding.in_flight.clear();
            binding.in_flight_bytes = 0;
            binding.read = None;
        }
    }

    /// Moves the cursor through `seq`; false if it stood there already. Once nothing is in
    /// flight the cursor passes the gaps behind it too. What is not kept any more, all before
    /// `first`, counts as delivered: whoever subscribes is told to go on behind it.
    pub(super) fn ack(&mut self, peer: Peer, seq: Seq, first: Seq) -> Result<bool, Refused> {
        let bound = self.binding.as_mut().filter(|binding| binding.peer == peer);
        let binding = bound.ok_or(Refused::NotSubscribed)?;
        let delivered = binding.next - 1;
        if delivered.max(first - 1) < seq {
            return Err(Refused::AckAhead { seq, delivered });
        }
        while let Some(done) = binding.in_flight.pop_front_if(|sent| sent.seq <= seq) {
            binding.in_flight_bytes -= done.cost;
        }
        let through = if binding.in_flight.is_empty() {
            delivered.max(seq)
        } else {
            seq
        };
        let moved = self.cursor < through;
        self.cursor = self.cursor.max(through);
        Ok(moved)
    }

    /// What can be done now, given the credit of the connection.
    pub(super) fn step(&self, topic: &Topic, credit: i64, window_bytes_max: u64) -> Step {
        let Some(binding) = &self.binding else {
            return Step::Wait;
        };
        if binding.opening.is_some() || binding.read.is_some() || self.deleting || topic.deleting()
        {
            return Step::Wait;
        }
        if binding.new_epoch {
            return Step::Epoch;
        }
        if binding.next < topic.first {
            return Step::Gap(topic.first - 1);
        }
        if topic.durable < binding.next {
            return Step::Commit;
        }
        let sent = u32::try_from(binding.in_flight.len()).unwrap_or(u32::MAX);
        let window = window_bytes_max.saturating_sub(binding.in_flight_bytes);
        if binding.in_flight_max <= sent || window == 0 {
            return Step::Wait;
        }
        let Some(credit) = u64::try_from(credit).ok().filter(|credit| 0 < *credit) else {
            return Step::Credit;
        };
        Step::Deliver {
            through: topic.durable,
            count_max: binding.in_flight_max - sent,
            bytes_max: window.min(credit),
        }
    }

    /// Notes that the next message goes out; true if it may have gone out before.
    pub(super) fn deliver(&mut self, message: &Message) -> bool {
        let Some(binding) = &mut self.binding else {
            return false;
        };
        assert!(
            message.seq == binding.next,
            "a delivery follows the last one"
        );
        binding.next += 1;
        binding.in_flight_bytes += message.cost();
        binding.in_flight.push_back(InFlight {
            seq: message.seq,
            cost: message.cost(),
        });
        message.seq <= self.sent
    }

    /// Passes over seqs up to `to`; true if that moves the cursor.
    pub(super) fn pass(&mut self, to: Seq) -> bool {
        let Some(binding) = &mut self.binding else {
            return false;
        };
        assert!(binding.next <= to, "a gap is ahead");
        binding.next = to + 1;
        let moved = binding.in_flight.is_empty() && self.cursor < to;
        if moved {
            self.cursor = to;
        }
        moved
    }

    /// As its tenant sees it.
    pub(super) fn view(&self, id: HomedId, topic: &Topic) -> SubscriptionView {
        let in_flight = self
            .binding
            .as_ref()
            .map_or(0, |binding| binding.in_flight.len());
        SubscriptionView {
            id,
            topic: self.topic,
            sub_name: self.sub_name.clone(),
            cursor: self.cursor,
            last_seq: topic.durable,
            in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
            attached: self.binding.is_some(),
            active_ms: self.active_ms,
        }
    }

    /// The answer to a subscribe.
    pub(super) fn subscribed(&self, id: HomedId, topic: &Topic, epoch: u64) -> Box<Subscribed> {
        let binding = self.binding.as_ref();
        Box::new(Subscribed {
            topic: self.topic,
            sub_name: self.sub_name.clone(),
            subscription: id,
            cursor: self.cursor,
            next_seq: binding
                .map_or(self.cursor + 1, |binding| binding.next)
                .max(topic.first),
            first_seq: topic.first,
            last_seq: topic.durable,
            epoch,
            resumed: binding
                .and_then(|b| b.opening.as_ref())
                .is_none_or(|o| o.resumed),
        })
    }
}

/// The cursor that `from_seq` stands for: 0 and 1 are the earliest kept, nothing is what comes.
pub(super) fn cursor_of(topic: &Topic, from_seq: Option<Seq>) -> Result<Seq, Refused> {
    let next = topic.durable + 1;
    match from_seq {
        None => Ok(topic.durable),
        Some(0 | 1) => Ok(topic.first - 1),
        Some(seq) if seq <= next => Ok(seq - 1),
        Some(seq) => Err(Refused::SeqOutOfRange { seq, next }),
    }
}

/// How many messages may be un-acked: what the client asks for, within the server's bound.
pub(super) fn window(open: &Open, default: u32, count_max: u32) -> u32 {
    open.in_flight_max.unwrap_or(default).clamp(1, count_max)
}

/// What the home knows of a peer that has subscribed or given credit.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Bytes that may still be sent; one message may overdraw it.
    pub(super) credit: i64,
    /// Its bindings.
    pub(super) bound: BTreeSet<HomedId>,
    /// Subscriptions that another connection took from it: their acks are fenced.
    pub(super) fenced: BTreeSet<HomedId>,
}

/// The peers of a partition: one entry for each that is bound or has given credit, until it
/// disconnects.
pub(super) type Connections = AHashMap<Peer, Connection>;

impl Connection {
    /// The subscription goes to another connection, or ends.
    pub(super) fn lose(&mut self, subscription: HomedId, ended: Ended) {
        self.bound.remove(&subscription);
        if ended == Ended::TakenOver {
            self.fenced.insert(subscription);
        }
    }
}
