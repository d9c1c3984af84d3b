//! The durable dialect on a shard: what a client asks of topics on disk, how fast it may publish, and what
//! it is told. Knows sessions and credit; `homes.rs` knows where a topic lives.

use bytes::Bytes;

use crate::broker::durable::{Answer, Command as Asked, Peer, Who};
use crate::id::Partition;
use crate::metrics::Counter;
use crate::proto::durable::{self as wire, About, DurableRequest, ErrorFrame};
use crate::proto::json::JsonParser;
use crate::proto::ws::Payload;
use crate::proto::{ErrorCode, frame};
use crate::session::Session;
use crate::session::durable::{DurableSession, Step};

use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::machine::Pause;
use crate::shard::state::admitted::Admitted;
use crate::shard::state::homes::{From, Posted, peer_of, slot_key};
use crate::shard::state::{State, mark_dirty};

impl State {
    pub(crate) fn tell_connection(
        &mut self,
        peer: Peer,
        reference: Option<&[u8]>,
        answer: &Answer,
    ) {
        let key = slot_key(peer);
        let Some(world) = &self.shared.durable else {
            return;
        };
        let connection = self.connections.alive(key);
        let Some(session) = connection.and_then(|it| it.session.durable()) else {
            return;
        };
        session.handle_answer(answer, &world.rules);
        match answer {
            Answer::Message {
                topic,
                message,
                redelivered,
                ..
            } => {
                let prefix = self.prefix_of(*topic);
                self.queue_within_credit(key, false, |session, out| {
                    session.put_message(out, &prefix, message, *redelivered);
                });
            }
            // An answer names subscriptions, which is nobody else's business.
            _ => self.queue_within_credit(key, true, |session, out| {
                session.put(out, answer, reference);
            }),
        }
        self.resume_publishing(key);
    }

    /// Queues what a home says: messages are bounded by credit and answers by what may be under
    /// way, so the outbox takes them all. What is `private` is never compressed.
    fn queue_within_credit(
        &mut self,
        key: SlotKey,
        private: bool,
        write: impl FnOnce(&DurableSession, &mut Vec<u8>),
    ) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        if !connection.takes_frames() {
            return;
        }
        let Some(session) = connection.session.durable() else {
            return;
        };
        let (outbox, spare) = (&mut connection.outbox, &mut self.spare);
        let write = |out: &mut Vec<u8>| frame::put_text_with(out, |out| write(session, out));
        match private {
            true => outbox.push_plain_with(spare, write),
            false => outbox.push_with(spare, write),
        }
        self.metrics.add(Counter::MessagesSent, 1);
        mark_dirty(&mut self.dirty, connection, key);
    }

    pub(crate) fn durable_session(&mut self, key: SlotKey) -> Option<&mut DurableSession> {
        self.connections.alive(key)?.session.durable()
    }

    /// A request was admitted on a durable mount.
    pub(crate) fn open_durable(&self, admitted: &Admitted) -> Option<Session> {
        let rules = &self.shared.durable.as_ref()?.rules;
        let session = DurableSession::new(&admitted.caller, admitted.negotiated, rules);
        Some(session.into())
    }

    /// A text has come on a durable mount.
    pub(crate) fn durable_text(
        &mut self,
        key: SlotKey,
        mut payload: Payload<'_>,
        json: &mut JsonParser,
    ) {
        match wire::parse(json, &mut payload) {
            Ok(request) => self.handle_durable(key, request),
            Err(error) => self.handle_invalid(key, &payload, json, &error),
        }
    }

    /// Does what a client on a durable mount asks for.
    fn handle_durable(&mut self, key: SlotKey, request: DurableRequest<'_>) {
        let Some(world) = &self.shared.durable else {
            return;
        };
        let credit_bytes = world.rules.credit_bytes();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        connection.invalid_frames = 0;
        let Some(session) = connection.session.durable() else {
            return;
        };
        match session.handle(request, &world.rules) {
            Step::Pong => self.queue_text_with(key, wire::put_pong),
            Step::Renew(token) => self.renew(key, token),
            Step::Ask {
                partition,
                command,
                reference,
                is_new,
            } => {
                let who = session.who.clone();
                let publishing = session.publishing();
                if is_new {
                    let credit = Asked::Credit {
                        bytes: credit_bytes,
                    };
                    self.ask_as(key, (partition, who.clone()), credit, None);
                }
                self.ask_as(key, (partition, who), command, reference);
                self.pause_publishing(key, publishing);
            }
        }
    }

    pub(crate) fn ask_as(
        &mut self,
        key: SlotKey,
        (partition, who): (Partition, Who),
        command: Asked,
        reference: Option<Bytes>,
    ) {
        let from = From::Peer(peer_of(self.index, key), reference);
        self.ask_home(Posted {
            partition,
            who,
            command,
            from,
        });
    }

    /// A peer with too many publishes under way is not read from until half of them are done.
    fn pause_publishing(&mut self, key: SlotKey, publishing: usize) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        let max = self
            .live
            .limits_of(connection.mount)
            .publishes_in_flight_max;
        if max <= publishing && self.pause(key, Pause::Publishes) {
            self.metrics.add(Counter::InboxPauses, 1);
        }
    }

    fn resume_publishing(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        let Some(session) = connection.session.durable() else {
            return;
        };
        let (publishing, closing) = (session.publishing(), session.closing);
        let max = self
            .live
            .limits_of(connection.mount)
            .publishes_in_flight_max;
        if publishing <= max / 2 && !closing {
            self.resume(key, Pause::Publishes);
        }
        if closing && publishing == 0 {
            self.close_for_restart(key);
        }
        self.note_answered(key);
    }

    /// The server stops: what the peer has published is answered before it is closed.
    pub(crate) fn drain_durable(&mut self, key: SlotKey) {
        let Some(session) = self.durable_session(key) else {
            return;
        };
        if session.publishing() == 0 {
            return self.close_for_restart(key);
        }
        session.closing = true;
        self.pause(key, Pause::Publishes);
    }

    /// The peer has taken what was sent: homes may send it more.
    pub(crate) fn return_credit(&mut self, key: SlotKey) {
        let Some(world) = &self.shared.durable else {
            return;
        };
        let connection = self.connections.alive(key);
        let Some(session) = connection.and_then(|it| it.session.durable()) else {
            return;
        };
        let owed = session.take_owed(&world.rules);
        if owed.is_empty() {
            return;
        }
        let who = session.who.clone();
        for (partition, bytes) in owed {
            self.ask_as(key, (partition, who.clone()), Asked::Credit { bytes }, None);
        }
    }

    /// Tells the homes that a connection is gone.
    pub(crate) fn leave_homes(&mut self, key: SlotKey, session: &DurableSession) {
        for partition in session.homes() {
            let home = (partition, session.who.clone());
            self.ask_as(key, home, Asked::Disconnect, None);
        }
    }

    /// An error frame on a durable mount.
    pub(crate) fn refuse_durable(
        &mut self,
        key: SlotKey,
        about: About<'_>,
        text: &str,
        code: ErrorCode,
    ) {
        let frame = ErrorFrame {
            message: text,
            code: Some(code),
            topic: about.topic,
            sub_name: about.sub_name,
            reference: about.reference,
        };
        self.queue_text_with(key, |out| wire::put_error(out, &frame));
    }
}
