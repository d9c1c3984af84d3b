//! What clients are told: answers that complete the history of calls, messages that must come in
//! their order, and refusals, which promise nothing. Knows no disk.

use bytes::Bytes;
use tidegate::broker::durable::{
    Answer, Gap, GapReason, Message, Peer, Refused, Subscribed, TopicView,
};
use tidegate::id::{HomedId, Seq};

use super::clients::{Asked, Binding, Clients, retention};
use super::log_model::Checked;
use super::topic_model::{Bound, Op, Published, Resolved};

impl Clients {
    /// What a client is told.
    pub(crate) fn take(&mut self, to: Peer, reference: Option<&Bytes>, answer: Answer) -> Checked {
        let asked = reference.map(|bytes| std::str::from_utf8(bytes).unwrap().parse().unwrap());
        match asked {
            Some(asked) => self.take_answer(asked, answer),
            None => self.take_push(to.key, answer),
        }
    }

    fn take_answer(&mut self, at: usize, answer: Answer) -> Checked {
        let now = self.now();
        let asked = &mut self.asked[at];
        if asked.to.is_some() {
            return Err(format!("a second answer to {asked:?}: {answer:?}"));
        }
        (asked.to, asked.is_answered) = (Some(now), true);
        let (topic, client, connection) = (asked.topic, asked.client, asked.connection);
        if self.clients[client].connection == connection {
            self.clients[client].calls -= 1;
        }
        if let Answer::Refused { refused, .. } = answer {
            return self.take_refusal(at, refused);
        }
        let op = self.asked[at].op.clone();
        self.asked[at].op = self.told(at, (topic, client, connection), op, answer)?;
        Ok(())
    }

    /// The call with what was answered to it.
    fn told(
        &mut self,
        at: usize,
        (topic, client, connection): (usize, usize, u64),
        op: Op,
        answer: Answer,
    ) -> Result<Op, String> {
        Ok(match (op, answer) {
            (Op::Resolve(_), Answer::Topic { view, created }) => {
                self.resolved(topic, &view, created)
            }
            (Op::Delete, Answer::Deleted) => {
                self.ids[topic] = None;
                Op::Delete
            }
            (op @ Op::DeleteSubscription { .. }, Answer::Deleted) => op,
            (op @ Op::Publish { .. }, answer @ Answer::Published { .. }) => {
                self.published(topic, op, &answer)?
            }
            (
                Op::Subscribe {
                    sub, is_from_start, ..
                },
                Answer::Subscribed(told),
            ) => self.bound((client, connection), (topic, sub), is_from_start, &told),
            (Op::Ack { sub, seq, .. }, Answer::Acked { seq: told, .. }) => Op::Ack {
                sub,
                connection,
                seq,
                told: Some(told),
            },
            (Op::Read { kept_min, .. }, answer @ Answer::Messages { .. }) => {
                self.shown(at, kept_min, answer)?
            }
            (op, answer) => return Err(format!("{op:?} was answered by {answer:?}")),
        })
    }

    fn published(&mut self, topic: usize, mut op: Op, answer: &Answer) -> Result<Op, String> {
        let Answer::Published {
            topic: id,
            first_seq: first,
            duplicate: is_repeat,
            ..
        } = *answer
        else {
            return Ok(op);
        };
        self.meet(topic, id);
        if let Op::Publish { payloads, told, .. } = &mut op {
            for (seq, payload) in (first..).zip(payloads.iter()) {
                self.see(id, seq, *payload)?;
            }
            *told = Some(Published {
                id,
                first,
                is_repeat,
            });
        }
        Ok(op)
    }

    fn shown(&mut self, at: usize, kept_min: Option<Seq>, answer: Answer) -> Result<Op, String> {
        let Answer::Messages {
            topic: id,
            messages,
            gaps,
            next,
            last_seq: last,
        } = answer
        else {
            return Err(format!("a page is {answer:?}"));
        };
        if !gaps.is_empty() && !self.weather.is_damaging {
            return Err(format!("gaps {gaps:?} on a good disk"));
        }
        let mut seen = Vec::new();
        for message in messages {
            let payload = payload_in(&message.payload)?;
            self.see(id, message.seq, payload)?;
            seen.push((message.seq, payload));
        }
        // A page that is cut tells nothing of what stands behind it.
        self.asked[at].is_void = next.is_some();
        Ok(Op::Read {
            id,
            messages: seen,
            gaps: gaps.iter().map(|gap| (gap.from, gap.to)).collect(),
            last,
            kept_min,
        })
    }

    fn resolved(&mut self, topic: usize, view: &TopicView, is_new: bool) -> Op {
        let (id, last) = (view.id, view.last_seq);
        self.ids[topic] = Some(id);
        self.meet(topic, id);
        Op::Resolve(Some(Resolved { id, is_new, last }))
    }

    fn meet(&mut self, topic: usize, id: HomedId) {
        let is_new = self.made[topic].insert(id);
        if retention(topic).is_bounded() || is_new && self.is_ending(topic) {
            self.passing.insert(id);
        }
    }

    /// Whether somebody waits for the end of a topic.
    fn is_ending(&self, topic: usize) -> bool {
        let mut ends = self.asked.iter().filter(|asked| asked.topic == topic);
        ends.any(|asked| matches!(asked.op, Op::Delete) && asked.to.is_none())
    }

    fn bound(
        &mut self,
        (client, connection): (usize, u64),
        (topic, sub): (usize, u32),
        is_from_start: bool,
        told: &Subscribed,
    ) -> Op {
        self.ids[topic] = Some(told.topic);
        self.meet(topic, told.topic);
        self.subscriptions.insert((topic, sub), told.subscription);
        let moved = self.moved.entry((told.topic, sub)).or_default();
        if !told.resumed {
            *moved = told.cursor;
        }
        let asked = *moved;
        if self.clients[client].connection == connection {
            let binding = Binding {
                topic,
                subscription: told.subscription,
                next: told.next_seq,
                is_new: true,
            };
            let bindings = &mut self.clients[client].bindings;
            bindings.insert((told.topic, sub), binding);
        }
        Op::Subscribe {
            sub,
            connection,
            is_from_start,
            is_passing: retention(topic).is_bounded(),
            told: Some(Bound {
                topic: told.topic,
                id: told.subscription,
                cursor: told.cursor,
                is_resumed: told.resumed,
            }),
            asked,
        }
    }

    /// Nothing was done, or nobody knows.
    fn take_refusal(&mut self, at: usize, refused: Refused) -> Checked {
        let is_ending = |other: &Asked| {
            other.topic == self.asked[at].topic
                && matches!(other.op, Op::Delete | Op::DeleteSubscription { .. })
                && self.asked[at].from < other.to.unwrap_or(u64::MAX)
        };
        let is_dim = self.asked.iter().any(is_ending);
        let is_made_anew = self.subscribes_beside(at);
        let asked = &mut self.asked[at];
        match (refused, asked.op.clone()) {
            // What waited for the disk may be on it.
            (Refused::StorageFailed | Refused::OutcomeUnknown, _) => {
                if !self.weather.is_failing {
                    return Err(format!("{refused:?} on a good disk"));
                }
                (asked.to, asked.is_answered) = (None, false);
            }
            (Refused::StorageFull | Refused::Overloaded { .. }, _) => asked.is_void = true,
            // A topic is found no more once its end is asked for, durable or not.
            (Refused::UnknownTopic | Refused::UnknownSubscription | Refused::NotSubscribed, _)
                if is_dim =>
            {
                asked.is_void = true;
            }
            (Refused::UnknownTopic, _) => asked.op = Op::Unknown,
            (Refused::IdempotencyConflict, Op::Publish { payloads, key, .. }) => {
                // It may be that of a publish which waits, and is never durable.
                asked.is_void = true;
                if let (Some(key), Some(&payload)) = (key, payloads.first()) {
                    let waits = |other: &Asked| {
                        let is_same = matches!(other.op, Op::Publish { key: Some(known), .. } if known == key);
                        is_same && !other.is_answered
                    };
                    let is_clear = !self.asked.iter().any(waits);
                    let asked = &mut self.asked[at];
                    asked.is_void = !is_clear;
                    asked.op = Op::Conflict { payload, key };
                }
            }
            (
                Refused::Fenced,
                Op::Ack {
                    sub, connection, ..
                },
            ) => {
                // Who took it over may wait for its answer, or have made it anew.
                asked.is_void = true;
                asked.op = Op::Fenced { sub, connection };
            }
            (Refused::NotSubscribed, Op::Ack { .. }) => asked.is_void = true,
            // Its own subscribe, which came before, has made the subscription anew.
            (Refused::AckAhead { .. }, Op::Ack { .. }) if is_made_anew => asked.is_void = true,
            (Refused::UnknownSubscription, Op::DeleteSubscription { .. }) => asked.is_void = true,
            (refused, op) => return Err(format!("{op:?} was refused: {refused:?}")),
        }
        Ok(())
    }

    /// Whether a client asked for the subscription that it acks, and had not heard of it then.
    fn subscribes_beside(&self, at: usize) -> bool {
        let call = &self.asked[at];
        let Op::Ack { sub: wanted, .. } = call.op else {
            return false;
        };
        self.asked[..at].iter().any(|other| {
            let is_same = matches!(other.op, Op::Subscribe { sub, .. } if sub == wanted);
            let is_its = (other.client, other.topic) == (call.client, call.topic);
            is_same && is_its && call.from < other.to.unwrap_or(u64::MAX)
        })
    }

    fn take_push(&mut self, connection: u64, answer: Answer) -> Checked {
        let found = self
            .clients
            .iter()
            .position(|client| client.connection == connection);
        let Some(client) = found else {
            // It moves a cursor, whether its client is still there or not.
            if let Answer::Gap {
                topic,
                sub_name,
                gap,
            } = answer
            {
                self.moved_by_gap((topic, sub_of(&sub_name)), gap);
            }
            return Ok(());
        };
        match answer {
            Answer::Message {
                topic,
                subscription,
                message,
                ..
            } => self.deliver(client, (topic, subscription), &message)?,
            Answer::Gap {
                topic,
                sub_name,
                gap,
            } => {
                self.miss(client, (topic, sub_of(&sub_name)), gap)?;
            }
            Answer::Unsubscribed {
                topic, sub_name, ..
            } => {
                let at = (topic, sub_of(&sub_name));
                self.clients[client].bindings.remove(&at);
            }
            // An ack that nobody waits for.
            Answer::Refused { .. } => {}
            other => return Err(format!("{other:?} came to nobody's question")),
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        client: usize,
        (topic, subscription): (HomedId, HomedId),
        message: &Message,
    ) -> Checked {
        let payload = payload_in(&message.payload)?;
        self.see(topic, message.seq, payload)?;
        self.delivered += 1;
        let bindings = self.clients[client].bindings.values_mut();
        let mut bound = bindings.filter(|binding| binding.subscription == subscription);
        let Some(binding) = bound.next() else {
            return Ok(());
        };
        if binding.next != message.seq {
            return Err(format!("{message:?} came in place of {}", binding.next));
        }
        binding.next += 1;
        binding.is_new = false;
        Ok(())
    }

    fn moved_by_gap(&mut self, at: (HomedId, u32), gap: Gap) {
        let moved = self.moved.entry(at).or_default();
        *moved = gap.to.max(*moved);
    }

    fn miss(&mut self, client: usize, at: (HomedId, u32), gap: Gap) -> Checked {
        self.moved_by_gap(at, gap);
        let Some(binding) = self.clients[client].bindings.get_mut(&at) else {
            return Ok(());
        };
        let is_allowed = match gap.reason {
            GapReason::Damaged => self.weather.is_damaging,
            GapReason::Retention => retention(binding.topic).is_bounded(),
            GapReason::Epoch => false,
        };
        // Who is bound is told what comes next, and why that is not the next seq.
        let is_next = binding.next == gap.from || binding.is_new && binding.next == gap.to + 1;
        if !is_allowed || !is_next {
            return Err(format!("{gap:?} in place of {}", binding.next));
        }
        (binding.next, binding.is_new) = (gap.to + 1, false);
        Ok(())
    }

    /// P2: a seq has one payload for ever.
    fn see(&mut self, topic: HomedId, seq: Seq, payload: u32) -> Checked {
        let known = *self.truth.entry((topic, seq)).or_insert(payload);
        match known == payload {
            true => Ok(()),
            false => Err(format!(
                "{topic} seq {seq}: payload {known}, then {payload}"
            )),
        }
    }
}

fn payload_in(bytes: &[u8]) -> Result<u32, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let (number, rest) = text.split_once(':').ok_or("a payload that nobody sent")?;
    let is_whole = rest.bytes().all(|byte| byte == b'x');
    let payload = number.parse().map_err(|_| "a payload that nobody sent")?;
    is_whole
        .then_some(payload)
        .ok_or_else(|| "a payload that nobody sent".to_owned())
}

fn sub_of(sub_name: &str) -> u32 {
    sub_name["sub ".len()..].parse().unwrap()
}
