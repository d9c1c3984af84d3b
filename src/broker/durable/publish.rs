//! From a publish to the log: checks, idempotency keys, seqs, the live tail. The answer waits
//! until the log reports, and an answer that waits for nothing stands behind those of the peer's
//! publishes before it. Answers that wait so are bounded as publishes are: a connection is not
//! read from while too many of its publishes are unanswered, and a call waits for its own.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::topic::Repeat;
use crate::id::{HomedId, Seq};
use crate::log::TEXT_BYTES_MAX;

use super::rights::Need;
use super::topics::check_name;
use super::{
    Answer, AppendId, Appended, Caller, Durable, Effect, Held, Message, NewMessages, Now, Peer,
    Refused, TopicRef, Value,
};

pub(super) use crate::broker::topic::stored_bytes as stored;

/// Topics whose keys are looked at in one call.
const EXPIRED_TOPICS_MAX: usize = 64;

/// A publish on its way to the disk.
#[derive(Debug)]
pub(super) struct Appending {
    pub(super) topic: HomedId,
    pub(super) peer: Peer,
    pub(super) reference: Option<Bytes>,
    pub(super) first: Seq,
    pub(super) last: Seq,
    /// What it stores.
    pub(super) bytes: u64,
}

impl Durable {
    pub(super) fn publish(
        &mut self,
        now: Now,
        caller: &Caller,
        topic: &TopicRef,
        publisher: Arc<str>,
        messages: NewMessages,
    ) -> Result<(), Refused> {
        // A publish that found its own line too long has left its messages there.
        if let Some(refused @ Refused::Overloaded { .. }) = self.lack {
            return Err(refused);
        }
        let id = self.find_topic(caller, topic, Need::Publish)?;
        if self.log.failed {
            return Err(Refused::StorageFailed);
        }
        self.check_messages(&messages, &publisher)?;
        self.check_waiting(caller.peer)?;
        match self.look_for_repeat(now, id, &messages) {
            Repeat::Conflict => Err(Refused::IdempotencyConflict),
            Repeat::Whole { first, last } => {
                self.answer_repeat(caller, id, (first, last));
                Ok(())
            }
            Repeat::Fresh => {
                self.writable()?;
                self.take_bytes(caller, &messages, &publisher)?;
                self.append_messages(now, caller, id, (publisher, messages));
                Ok(())
            }
        }
    }

    fn check_messages(&self, messages: &NewMessages, publisher: &str) -> Result<(), Refused> {
        if messages.is_empty() {
            return Err(Refused::Empty { what: "messages" });
        }
        if !publisher.is_empty() {
            check_name("publisher", publisher, TEXT_BYTES_MAX)?;
        }
        let bytes_max = self.limits.message_bytes_max;
        for message in messages {
            let bytes = message.payload.len();
            if bytes_max < bytes {
                return Err(Refused::TooLarge { bytes, bytes_max });
            }
            if let Some(key) = &message.idempotency_key {
                check_name(
                    "idempotency_key",
                    key,
                    self.limits.idempotency_key_bytes_max,
                )?;
            }
        }
        Ok(())
    }

    /// What a peer waits for is bounded: publishes, and acks that want an answer.
    pub(super) fn check_waiting(&self, peer: Peer) -> Result<(), Refused> {
        let max = u64::from(self.limits.publishes_in_flight_max);
        let waiting = self.publishing.get(&peer).map_or(0, |peer| peer.count);
        let in_line = self.line.count(peer);
        if max <= u64::from(waiting) + u64::from(in_line) {
            return Err(Refused::Overloaded {
                max,
                knob: "publishes_in_flight_max",
            });
        }
        let max = self.limits.pending_bytes_max;
        if max <= self.log.publish_bytes + self.line.bytes {
            return Err(Refused::Overloaded {
                max,
                knob: "pending_bytes_max",
            });
        }
        Ok(())
    }

    fn look_for_repeat(&mut self, now: Now, id: HomedId, messages: &NewMessages) -> Repeat {
        let Some(topic) = self.topics.get_mut(&id) else {
            return Repeat::Fresh;
        };
        let limits = &self.limits;
        let now_ms = self.clock.look(now.mono_ms, now.unix_ms);
        topic.keys.expire(
            now_ms,
            limits.idempotency_keys_max,
            limits.idempotency_ms_max,
        );
        topic.keys.look(messages)
    }

    /// Keys end although nothing is published any more: a few topics at a time.
    pub(super) fn expire_keys(&mut self, now: Now) {
        let now_ms = self.clock.look(now.mono_ms, now.unix_ms);
        let (count_max, age_ms_max) = (
            self.limits.idempotency_keys_max,
            self.limits.idempotency_ms_max,
        );
        for _ in 0..EXPIRED_TOPICS_MAX {
            let is_due = |(due, _): &mut (u64, HomedId)| *due <= now.mono_ms;
            let Some((_, id)) = self.keyed.pop_front_if(is_due) else {
                return;
            };
            let Some(topic) = self.topics.get_mut(&id) else {
                continue;
            };
            topic.keys.expire(now_ms, count_max, age_ms_max);
            topic.is_keyed = !topic.keys.is_empty();
            if topic.is_keyed {
                self.keyed.push_back((now.mono_ms + age_ms_max, id));
            }
            let through = topic
                .keys
                .first_seq()
                .map_or(topic.appended, |first| first - 1);
            self.effects
                .push_back(Effect::ForgetKeys { topic: id, through });
        }
    }

    /// Notes that a topic has keys, to be looked at when the newest of them may have ended.
    pub(super) fn note_keys(&mut self, id: HomedId, mono_ms: u64) {
        let topic = self.topics.get_mut(&id);
        let newly = topic.filter(|topic| !topic.is_keyed && !topic.keys.is_empty());
        if let Some(topic) = newly {
            topic.is_keyed = true;
            let due = mono_ms + self.limits.idempotency_ms_max + 1;
            self.keyed.push_back((due, id));
        }
    }

    fn take_bytes(
        &mut self,
        caller: &Caller,
        messages: &NewMessages,
        publisher: &str,
    ) -> Result<(), Refused> {
        let bytes_max = self.limits.bytes_per_tenant_max;
        let more: u64 = messages
            .iter()
            .map(|message| stored(message, publisher))
            .sum();
        let world = self.world(&caller.tenant);
        let max = bytes_max.saturating_sub(world.elsewhere.bytes);
        if !world.account.take_bytes(more, max) {
            return Err(Refused::BytesFull { bytes_max });
        }
        world.here.bytes += more;
        Ok(())
    }

    fn append_messages(
        &mut self,
        now: Now,
        caller: &Caller,
        id: HomedId,
        (publisher, messages): (Arc<str>, NewMessages),
    ) {
        let after = self.log.next;
        let Some(topic) = self.topics.get_mut(&id) else {
            return;
        };
        let (first, last, bytes) = topic.append(&messages, &publisher, now.unix_ms);
        topic.newest = after;
        let keep = 0 < topic.bound;
        self.log.publish_bytes += bytes;
        if keep {
            self.keep_in_tail(id, first, now.unix_ms, &messages);
        }
        let value = Value::Publish {
            topic: id,
            first_seq: first,
            unix_ms: now.unix_ms,
            publisher,
            messages,
        };
        let (peer, reference) = (caller.peer, caller.reference.clone());
        let appending = Appending {
            topic: id,
            peer,
            reference,
            first,
            last,
            bytes,
        };
        self.append(value, Appended::Publish(appending));
        self.waits(peer, after);
        self.note_keys(id, now.mono_ms);
    }

    /// A repeat is answered as its original was, and not before it.
    fn answer_repeat(&mut self, caller: &Caller, id: HomedId, (first, last): (Seq, Seq)) {
        let original = self.topics.get(&id).filter(|topic| topic.durable < last);
        let after = original.map_or(0, |topic| topic.newest);
        let published = Answer::Published {
            topic: id,
            first_seq: first,
            last_seq: last,
            duplicate: true,
        };
        self.answer_in_order(caller, published, after);
    }

    /// Answers a publish behind the peer's publishes before it, and behind the append `after`.
    pub(super) fn answer_in_order(&mut self, caller: &Caller, answer: Answer, after: AppendId) {
        let (peer, reference) = (caller.peer, caller.reference.clone());
        let last = self.publishing.get(&peer).map_or(0, |peer| peer.last);
        let after = after.max(last);
        let pending = self.log.waiting.front().map(|(id, _)| *id);
        if pending.is_none_or(|pending| after < pending) {
            return self.tell(peer, reference, answer);
        }
        self.waits(peer, after);
        self.holds += 1;
        let held = Held {
            peer,
            reference,
            answer,
        };
        self.held.insert((after, self.holds), held);
    }

    fn waits(&mut self, peer: Peer, after: AppendId) {
        let publishing = self.publishing.entry(peer).or_default();
        publishing.count += 1;
        publishing.last = after;
    }

    /// Something of the peer was answered.
    pub(super) fn published(&mut self, peer: Peer) {
        if let Some(publishing) = self.publishing.get_mut(&peer) {
            publishing.count -= 1;
            if publishing.count == 0 {
                self.publishing.remove(&peer);
            }
        }
    }

    fn keep_in_tail(&mut self, id: HomedId, first: Seq, unix_ms: u64, messages: &NewMessages) {
        let Some(topic) = self.topics.get_mut(&id) else {
            return;
        };
        for (seq, new) in (first..).zip(messages) {
            let message = Message {
                seq,
                unix_ms,
                payload: new.payload.clone(),
            };
            self.tail.bytes += message.cost();
            self.tail.order.push_back((id, seq, message.cost()));
            topic.recent.push(message);
        }
        self.evict_tail();
    }

    fn evict_tail(&mut self) {
        while self.limits.tail_bytes_max < self.tail.bytes {
            let Some((id, seq, cost)) = self.tail.order.pop_front() else {
                return;
            };
            self.tail.bytes -= cost;
            if let Some(topic) = self.topics.get_mut(&id) {
                topic.recent.evict(seq);
            }
        }
    }
}
