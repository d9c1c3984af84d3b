//! From a publish to the log: checks, idempotency keys, seqs, the live tail. The answer waits
//! until the log reports, and stands behind those of the publishes before it.

use std::sync::Arc;

use crate::broker::topic::{Repeat, Waiting, stored_bytes};
use crate::id::{HomedId, Seq};

use super::topics::check_name;
use super::{
    Answer, Appended, Caller, Durable, Message, NewMessages, Now, Peer, Refused, TopicRef, Value,
};

impl Durable {
    pub(super) fn publish(
        &mut self,
        now: Now,
        caller: &Caller,
        topic: &TopicRef,
        publisher: Arc<str>,
        messages: NewMessages,
    ) -> Result<(), Refused> {
        let id = self.find_topic(caller, topic)?;
        self.writable()?;
        self.check_messages(&messages)?;
        self.check_waiting(caller.peer)?;
        match self.look_for_repeat(now, id, &messages) {
            Repeat::Conflict => Err(Refused::IdempotencyConflict),
            Repeat::Whole { first, last } => {
                self.answer_repeat(caller, id, (first, last));
                Ok(())
            }
            Repeat::Fresh => {
                self.check_bytes(caller, &messages, &publisher)?;
                self.append_messages(now, caller, id, (publisher, messages));
                Ok(())
            }
        }
    }

    fn check_messages(&self, messages: &NewMessages) -> Result<(), Refused> {
        if messages.is_empty() {
            return Err(Refused::Empty { what: "messages" });
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
        let waiting = self.publishing.get(&peer).copied().unwrap_or(0);
        if max <= u64::from(waiting) {
            return Err(Refused::Overloaded {
                max,
                knob: "publishes_in_flight_max",
            });
        }
        let max = self.limits.pending_bytes_max;
        if max <= self.log.publish_bytes {
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
        topic.keys.expire(
            now.unix_ms,
            limits.idempotency_keys_max,
            limits.idempotency_ms_max,
        );
        topic.keys.look(messages)
    }

    fn check_bytes(
        &mut self,
        caller: &Caller,
        messages: &NewMessages,
        publisher: &str,
    ) -> Result<(), Refused> {
        let bytes_max = self.limits.bytes_per_tenant_max;
        let more: u64 = messages
            .iter()
            .map(|message| stored_bytes(message, publisher))
            .sum();
        let world = self.world(&caller.tenant);
        let full = bytes_max < world.here.bytes + world.elsewhere.bytes + more;
        if full {
            Err(Refused::BytesFull { bytes_max })
        } else {
            Ok(())
        }
    }

    fn append_messages(
        &mut self,
        now: Now,
        caller: &Caller,
        id: HomedId,
        (publisher, messages): (Arc<str>, NewMessages),
    ) {
        let Some(topic) = self.topics.get_mut(&id) else {
            return;
        };
        let (first, last, bytes) = topic.append(&messages, &publisher, now.unix_ms);
        let keep = 0 < topic.bound;
        self.world(&caller.tenant).here.bytes += bytes;
        self.log.publish_bytes += bytes;
        if keep {
            self.keep_in_tail(id, first, now.unix_ms, &messages);
        }
        let unix_ms = now.unix_ms;
        let value = Value::Publish {
            topic: id,
            first_seq: first,
            unix_ms,
            publisher,
            messages,
        };
        let after = self.append(value, Appended::Publish(id, first, bytes));
        self.wait_for_log(caller, id, (after, first, last), false);
    }

    /// A repeat is answered as its original was, and not before it: if anything of the topic
    /// waits for the disk, the answer stands behind it.
    fn answer_repeat(&mut self, caller: &Caller, id: HomedId, (first, last): (Seq, Seq)) {
        let behind = self
            .topics
            .get(&id)
            .and_then(|topic| Some(topic.waiting.back()?.after));
        if let Some(after) = behind {
            self.wait_for_log(caller, id, (after, first, last), true);
            return;
        }
        let published = Answer::Published {
            topic: id,
            first_seq: first,
            last_seq: last,
            duplicate: true,
        };
        self.answer(caller, published);
    }

    fn wait_for_log(
        &mut self,
        caller: &Caller,
        id: HomedId,
        (after, first, last): (u64, Seq, Seq),
        duplicate: bool,
    ) {
        *self.publishing.entry(caller.peer).or_default() += 1;
        let (peer, reference) = (caller.peer, caller.reference.clone());
        if let Some(topic) = self.topics.get_mut(&id) {
            topic.waiting.push_back(Waiting {
                after,
                peer,
                reference,
                first,
                last,
                duplicate,
            });
        }
    }

    /// A publish of the peer no longer waits.
    pub(super) fn published(&mut self, peer: Peer) {
        if let Some(waiting) = self.publishing.get_mut(&peer) {
            *waiting -= 1;
            if *waiting == 0 {
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
