//! From outboxes to sends: at most one in flight for each connection, and what follows when it has
//! gone. Knows bytes and bounds; not what the frames say.

use std::os::fd::RawFd;

use crate::broker::relay::LeaveReason;
use crate::gateway::engine::answers;
use crate::metrics::Counter;

use crate::shard::kernel::ring::{Ring, SlotKey};
use crate::shard::kernel::sending::Sending;
use crate::shard::socket::deadlines::look_ms;
use crate::shard::socket::machine::{Arm, Pause, Phase};
use crate::shard::state::{State, mark_dirty};

/// A send that is to be submitted. Its connection counts it as in flight already.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) key: SlotKey,
    pub(crate) fd: RawFd,
    pub(crate) sending: Sending,
}

impl State {
    pub(crate) fn note_packed(&mut self) {
        let (bytes_in, bytes_out) = self.spare.packings.take_counts();
        if 0 < bytes_in {
            self.metrics.add(Counter::DeflateBytesIn, bytes_in);
            self.metrics.add(Counter::DeflateBytesOut, bytes_out);
        }
    }

    /// Whether somebody has output that is not on its way.
    pub(crate) fn has_output(&self) -> bool {
        !self.dirty.is_empty() || !self.given.is_empty()
    }

    /// Offers what up to `count_max` connections have; whether there was any.
    pub(crate) fn flush_some(&mut self, count_max: usize) -> bool {
        let mut visited = !self.offers.is_empty();
        for _ in 0..count_max {
            let next = self.dirty.pop_front();
            let own = next.is_some();
            let Some(key) = next.or_else(|| self.given.pop_front()) else {
                break;
            };
            visited = true;
            self.flush_one(key, own);
        }
        visited
    }

    fn flush_one(&mut self, key: SlotKey, own: bool) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        match own {
            true => connection.dirty = false,
            false => connection.given = false,
        }
        if connection.machine.is_sending() {
            return;
        }
        self.offer(key);
        let connection = self.connections.must(key);
        if connection.machine.is_sending() || !connection.machine.finishes_when_sent() {
            return;
        }
        match connection.transport.end(&mut self.spare) {
            Some(last) => self.offer_sending(key, last),
            None => self.finish(key),
        }
    }

    /// Hands what is queued to the peer now: from here on what comes later is a backlog of its own.
    pub(crate) fn offer(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        if connection.machine.is_sending() || matches!(connection.machine.phase(), Phase::Dead) {
            return;
        }
        let members = &self.members;
        connection
            .outbox
            .tell_lags(&mut self.spare, |tag, missed, out| {
                if let Some(topic) = members.topic_of(tag) {
                    let write = |out: &mut Vec<u8>| {
                        crate::proto::relay::put_lagged(out, &topic.name, missed);
                    };
                    crate::proto::frame::put_text_with(out, write);
                }
            });
        let event = connection.session.event();
        if let Some(missed) = event.and_then(|session| session.poll_missed()) {
            // Behind what was queued before the loss, and before what comes after it.
            let notice = answers::lagged(missed);
            let write = |out: &mut Vec<u8>| out.extend_from_slice(&notice);
            connection.outbox.push_with(&mut self.spare, write);
        }
        let sending = connection.outbox.take_sending(&mut self.spare);
        if let Some(sending) = connection.transport.seal(sending, &mut self.spare) {
            self.offer_sending(key, sending);
        }
    }

    fn offer_sending(&mut self, key: SlotKey, sending: Sending) {
        let now_ms = self.peer_ms();
        let connection = self.connections.must(key);
        connection.machine.handle_send(now_ms);
        self.offers.push(Offer {
            key,
            fd: connection.raw_fd(),
            sending,
        });
        let look_ms = look_ms(self.live.limits_of(connection.mount));
        self.look_at(key, self.now_ms + look_ms);
    }

    pub(crate) fn send_failed(&mut self, key: SlotKey) {
        let now_ms = self.peer_ms();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        connection.machine.handle_sent(now_ms);
        self.abort(key, LeaveReason::Closed);
    }

    /// A send has gone: what came meanwhile is next, and who waited for room goes on.
    pub(crate) fn sent(&mut self, key: SlotKey) {
        let connection = self.connections.must(key);
        if matches!(connection.machine.phase(), Phase::Dead) {
            return self.remove_if_over(key);
        }
        let closing = !matches!(connection.machine.phase(), Phase::Open);
        let has_more = !connection.outbox.is_empty() || connection.transport.has_output();
        if has_more || closing {
            mark_dirty(&mut self.dirty, connection, key);
        }
        let limits = self.live.outbox_limits(connection.mount, usize::MAX);
        let (frames, bytes) = connection.outbox.backlog();
        let room = bytes <= limits.bytes_max / 2 && frames <= limits.frames_max / 2;
        if !room {
            return;
        }
        self.resume(key, Pause::Outbox);
        self.on_room(key);
    }

    /// Arms or cancels a receive, as the connection stands now.
    pub(crate) fn grant(&mut self, key: SlotKey, ring: &mut Ring) {
        let now_ms = self.peer_ms();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        if connection.machine.may_decode()
            && let Some(kept) = &mut connection.kept
            && !std::mem::replace(&mut kept.is_due, true)
        {
            self.kept.push_back(key);
        }
        let is_idle = connection.is_idle();
        let arm = connection.machine.poll_receive(is_idle, now_ms);
        connection.machine.assert_invariants();
        match arm {
            Some(Arm::Once) => ring.receive_once(connection.raw_fd(), key),
            Some(Arm::Many) => ring.receive(connection.raw_fd(), key),
            Some(Arm::Cancel) => ring.cancel_receive(key),
            None => self.remove_if_over(key),
        }
    }
}
