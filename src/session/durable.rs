//! What a client's frames mean on a durable mount, and what its answers look like. Decides from
//! what the connection has under way and leaves topics to their homes; knows no socket and no
//! other connection.
//!
//! Bounds: publishes that wait for the disk by `publishes_in_flight_max`, past which the caller
//! stops reading the peer; messages on their way to the peer by the credit that each home is
//! given, which comes back as they leave the outbox.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::auth::Caller;
use crate::broker::durable::{
    Answer, Command, Ended, Message, NewMessage, Open, Subscribed, TopicRef, Who,
};
use crate::id::{HomedId, Partition};
use crate::proto::durable::{
    self as wire, DurableRequest, ErrorFrame, MessageExtras, MessagePrefix, Subscribe,
};
use crate::session::Speaker;

/// What all sessions of a server have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DurableRules {
    pub(crate) partitions: u16,
    /// The token's `sub` stands before each `sub_name`.
    pub(crate) bind_sub_names: bool,
    /// A second binding of a `sub_name` is refused.
    pub(crate) reject_duplicate: bool,
}

impl DurableRules {
    /// Bytes that a home may have on their way to one connection.
    pub(crate) fn credit_bytes(&self) -> u64 {
        CREDIT_BYTES / u64::from(self.partitions.clamp(1, CREDIT_SHARES_MAX))
    }
}

/// What all homes together may have on their way to one connection, roughly: where there are
/// many partitions a connection rarely subscribes in more than a few.
const CREDIT_BYTES: u64 = 256 * 1024;
const CREDIT_SHARES_MAX: u16 = 4;

/// One connection on a durable mount.
#[derive(Debug)]
pub(crate) struct DurableSession {
    /// It asked for `tidegate.durable.v1`, and so gets what goes beyond the seed (D-04).
    pub(crate) negotiated: bool,
    /// Its tenant and what it may do there.
    pub(crate) who: Who,
    publisher: Arc<str>,
    /// Stands before the `sub_name`s that the client sends.
    prefix: Option<Box<str>>,
    /// The homes that know this connection, with what they are owed of their credit.
    homes: SmallVec<[(Partition, u64); 2]>,
    /// Publishes that wait for the disk.
    publishing: usize,
    /// It is closed as soon as nothing of it waits.
    pub(crate) closing: bool,
}

fn who_of(caller: &Caller) -> Who {
    Who {
        tenant: caller.tenant.clone(),
        rights: caller.rights.clone(),
    }
}

/// What stands before the `sub_name`s of a subject. The first `/` of a key ends the subject: one
/// in the subject itself is written `%2F`, and `%` is `%25`, so that two subjects never share a
/// key, and one without either has the key that it always had.
fn prefix_of(subject: &str) -> Box<str> {
    let escaped = subject.replace('%', "%25").replace('/', "%2F");
    format!("{escaped}/").into()
}

/// What the shard does next.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// The home decides; one that does not know the connection yet is given credit first.
    Ask {
        partition: Partition,
        command: Command,
        reference: Option<Bytes>,
        is_new: bool,
    },
    /// `pong`.
    Pong,
    /// The token is to be renewed.
    Renew(&'a str),
}

impl Speaker for DurableSession {
    fn negotiated(&self) -> bool {
        self.negotiated
    }

    /// Where it has asked for anything it may be bound, and its acks may be rare.
    fn is_subscribed(&self) -> bool {
        self.homes().next().is_some()
    }

    fn handle_peer_end(&self) -> bool {
        0 < self.publishing()
    }

    fn checks_text(&self) -> bool {
        true
    }
}

impl DurableSession {
    pub(crate) fn new(caller: &Caller, negotiated: bool, rules: &DurableRules) -> Self {
        let subject = caller.subject.as_deref().unwrap_or_default();
        Self {
            negotiated,
            who: who_of(caller),
            publisher: subject.into(),
            prefix: rules.bind_sub_names.then(|| prefix_of(subject)),
            homes: SmallVec::new(),
            publishing: 0,
            closing: false,
        }
    }

    /// Goes on with the rights of another token: true if they are others.
    pub(crate) fn renew(&mut self, caller: &Caller) -> bool {
        let before = std::mem::replace(&mut self.who.rights, caller.rights.clone());
        before != self.who.rights
    }

    /// Decides what `request` means here.
    pub(crate) fn handle<'a>(
        &mut self,
        request: DurableRequest<'a>,
        rules: &DurableRules,
    ) -> Step<'a> {
        match request {
            DurableRequest::Publish {
                topic,
                payload,
                idempotency_key,
                reference,
            } => {
                self.publishing += 1;
                let topic = TopicRef::parse(topic);
                let message = NewMessage {
                    payload: Bytes::copy_from_slice(payload),
                    idempotency_key: idempotency_key.map(Into::into),
                };
                let messages = [message].into_iter().collect();
                let partition = self.place(&topic, rules);
                let publisher = Arc::clone(&self.publisher);
                self.ask(
                    partition,
                    Command::Publish {
                        topic,
                        publisher,
                        messages,
                    },
                    reference,
                )
            }
            DurableRequest::Ack {
                topic,
                sub_name,
                seq,
                reference,
            } => {
                let (partition, topic, sub_name) = self.binding(topic, sub_name, rules);
                self.ask(
                    partition,
                    Command::Ack {
                        topic,
                        sub_name,
                        seq,
                    },
                    reference,
                )
            }
            DurableRequest::Subscribe(subscribe) => self.subscribe(&subscribe, rules),
            DurableRequest::Unsubscribe {
                topic,
                sub_name,
                reference,
            } => {
                let (partition, topic, sub_name) = self.binding(topic, sub_name, rules);
                self.ask(
                    partition,
                    Command::Unsubscribe { topic, sub_name },
                    reference,
                )
            }
            DurableRequest::Ping => Step::Pong,
            DurableRequest::Auth { token } => Step::Renew(token),
        }
    }

    fn subscribe<'a>(&mut self, request: &Subscribe<'_>, rules: &DurableRules) -> Step<'a> {
        let (partition, topic, sub_name) = self.binding(request.topic, request.sub_name, rules);
        let in_flight = request.max_in_flight;
        let open = Open {
            from_seq: request.from_seq,
            seek: request.seek,
            in_flight_max: in_flight.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
            epoch: request.epoch,
            reject_duplicate: rules.reject_duplicate,
        };
        self.ask(
            partition,
            Command::Subscribe {
                topic,
                sub_name,
                maker: Arc::clone(&self.publisher),
                open,
            },
            request.reference,
        )
    }

    fn ask<'a>(
        &mut self,
        partition: Partition,
        command: Command,
        reference: Option<&[u8]>,
    ) -> Step<'a> {
        let binds = matches!(command, Command::Subscribe { .. });
        let is_new = binds && !self.homes.iter().any(|(home, _)| *home == partition);
        if is_new {
            self.homes.push((partition, 0));
        }
        let reference = reference.map(Bytes::copy_from_slice);
        Step::Ask {
            partition,
            command,
            reference,
            is_new,
        }
    }

    fn binding(
        &self,
        topic: &str,
        sub_name: &str,
        rules: &DurableRules,
    ) -> (Partition, TopicRef, Arc<str>) {
        let topic = TopicRef::parse(topic);
        let sub_name = match &self.prefix {
            // An empty name stays one, so that it is refused as such.
            Some(prefix) if !sub_name.is_empty() => format!("{prefix}{sub_name}").into(),
            _ => sub_name.into(),
        };
        (self.place(&topic, rules), topic, sub_name)
    }

    fn place(&self, topic: &TopicRef, rules: &DurableRules) -> Partition {
        match topic {
            TopicRef::Id(id) => id.partition(rules.partitions),
            TopicRef::Name(name) => Partition::of(&self.who.tenant, name, rules.partitions),
        }
    }

    /// Publishes that wait for the disk.
    pub(crate) fn publishing(&self) -> usize {
        self.publishing
    }

    /// Notes an answer: a publish that no longer waits, or a message that takes of the credit.
    pub(crate) fn handle_answer(&mut self, answer: &Answer, rules: &DurableRules) {
        match answer {
            Answer::Published { .. } | Answer::Refused { publish: true, .. } => {
                debug_assert!(0 < self.publishing, "an answer to a publish");
                self.publishing = self.publishing.saturating_sub(1);
            }
            Answer::Message { topic, message, .. } => self.owe(topic, message, rules),
            _ => {}
        }
    }

    fn owe(&mut self, topic: &HomedId, message: &Message, rules: &DurableRules) {
        let partition = topic.partition(rules.partitions);
        let home = self.homes.iter_mut().find(|(home, _)| *home == partition);
        if let Some((_, owed)) = home {
            *owed += message.cost();
        }
    }

    /// The credit that homes get back now that the peer has taken what was sent: of each home
    /// that is owed enough to be worth a message.
    pub(crate) fn take_owed(&mut self, rules: &DurableRules) -> SmallVec<[(Partition, u64); 2]> {
        let least = rules.credit_bytes() / 4;
        let worth = self.homes.iter_mut().filter(|(_, owed)| least <= *owed);
        worth
            .map(|(home, owed)| (*home, std::mem::take(owed)))
            .collect()
    }

    /// The homes that must be told when the connection ends.
    pub(crate) fn homes(&self) -> impl Iterator<Item = Partition> {
        self.homes.iter().map(|(home, _)| *home)
    }

    fn shown<'a>(&self, sub_name: &'a str) -> &'a str {
        let stripped = self
            .prefix
            .as_ref()
            .and_then(|prefix| sub_name.strip_prefix(&**prefix));
        stripped.unwrap_or(sub_name)
    }

    /// Appends what the client is told.
    pub(crate) fn put(&self, out: &mut Vec<u8>, answer: &Answer, reference: Option<&[u8]>) {
        match answer {
            Answer::Published {
                topic,
                last_seq,
                duplicate,
                ..
            } => {
                wire::put_pub_ack(out, &topic.to_string(), *last_seq, *duplicate, reference);
            }
            Answer::Subscribed(subscribed) => self.put_subscribed(out, subscribed, reference),
            Answer::Gap {
                topic,
                sub_name,
                gap,
            } => {
                let (topic, reason) = (topic.to_string(), gap.reason.as_str());
                wire::put_gap(out, &topic, self.shown(sub_name), gap.from..=gap.to, reason);
            }
            Answer::Unsubscribed {
                topic,
                sub_name,
                reason,
            } => {
                let asked = *reason == Ended::Requested;
                let told = (!asked).then(|| reason.as_str());
                let topic = topic.to_string();
                wire::put_unsubscribed(out, &topic, self.shown(sub_name), told, reference);
            }
            Answer::Acked {
                topic,
                sub_name,
                seq,
            } => {
                wire::put_acked(
                    out,
                    &topic.to_string(),
                    self.shown(sub_name),
                    *seq,
                    reference,
                );
            }
            Answer::Refused {
                refused,
                topic,
                sub_name,
                ..
            } => {
                let topic = topic.as_ref().map(ToString::to_string);
                let error = ErrorFrame {
                    message: &refused.to_string(),
                    code: Some(refused.code()),
                    topic: topic.as_deref(),
                    sub_name: sub_name.as_deref().map(|name| self.shown(name)),
                    reference,
                };
                wire::put_error(out, &error);
            }
            // Messages are written by `put_message`; the rest answers only REST and Rust.
            _ => {}
        }
    }

    fn put_subscribed(&self, out: &mut Vec<u8>, answer: &Subscribed, reference: Option<&[u8]>) {
        let frame = wire::Subscribed {
            topic: &answer.topic.to_string(),
            sub_name: self.shown(&answer.sub_name),
            subscription_id: &answer.subscription.to_string(),
            cursor: answer.cursor,
            next_seq: answer.next_seq,
            first_seq: answer.first_seq,
            last_seq: answer.last_seq,
            epoch: answer.epoch,
            resumed: answer.resumed,
            reference,
        };
        wire::put_subscribed(out, &frame);
    }

    /// Appends a message.
    pub(crate) fn put_message(
        &self,
        out: &mut Vec<u8>,
        prefix: &MessagePrefix,
        message: &Message,
        redelivered: bool,
    ) {
        let extras = MessageExtras {
            ts: self.negotiated.then_some(message.unix_ms),
            redelivered: self.negotiated && redelivered,
        };
        wire::put_message(out, prefix, message.seq, &message.payload, extras);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_subject_without_a_slash_has_the_prefix_that_it_always_had() {
        assert_eq!(&*prefix_of("ada"), "ada/");
        assert_eq!(&*prefix_of(""), "/");
        assert_eq!(&*prefix_of("a/b%"), "a%2Fb%25/");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: proptest::test_runner::RngSeed::Fixed(15),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// L15: no two pairs of user and name have one key, whatever stands in them
        #[test]
        fn users_never_share_a_key(
            a in ("[a/%2F5]{0,5}", "[a/%2F5]{1,5}"),
            b in ("[a/%2F5]{0,5}", "[a/%2F5]{1,5}"),
        ) {
            let key = |(subject, name): &(String, String)| format!("{}{name}", prefix_of(subject));
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }
    }
}
