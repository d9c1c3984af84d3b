//! From outboxes to sockets: at most one send in flight for each, and what follows when it has
//! gone. Knows bytes and bounds; not what the frames say.

use crate::broker::relay::LeaveReason;
use crate::metrics::Counter;
use crate::session::Session;

use crate::shard::kernel::ring::{Ring, SlotKey};
use crate::shard::socket::connection::{Phase, Receiving};
use crate::shard::state::{State, Wish, mark_dirty};
use crate::shard::turn::Turn;

impl Turn {
    /// Sends what is queued: at most one send in flight for each socket.
    pub(crate) fn flush(&mut self) -> bool {
        let mut state = self.shard.state.borrow_mut();
        state.give_out();
        let dirty = std::mem::take(&mut state.dirty);
        let worked = !dirty.is_empty();
        for key in &dirty {
            state.flush_one(*key, &mut self.ring);
        }
        let mut emptied = dirty;
        emptied.clear();
        emptied.append(&mut state.dirty);
        state.dirty = emptied;
        worked
    }

    pub(crate) fn handle_sent(&mut self, index: u32, result: i32) {
        let (key, mut sending) = self.ring.sent(index);
        let mut state = self.shard.state.borrow_mut();
        let now_ms = state.now_ms;
        let Ok(count) = usize::try_from(result) else {
            return state.send_failed(key);
        };
        state.metrics.add(Counter::BytesSent, count as u64);
        let Some(connection) = state.connections.get(key) else {
            return;
        };
        sending.advance(count);
        let aborted = matches!(connection.phase, Phase::Dead);
        if !sending.rest().is_empty() && !aborted {
            connection.times.sending_ms = now_ms;
            return self.ring.send(connection.raw_fd(), key, sending);
        }
        connection.sending = false;
        connection.times.sending_ms = 0;
        if let Some(buffer) = sending.into_buffer() {
            state.spare.keep(buffer);
        }
        state.sent(key);
    }

    /// Arms receives that were wished for, and those that had found no buffer.
    pub(crate) fn rearm(&mut self) {
        let mut state = self.shard.state.borrow_mut();
        let wishes = std::mem::take(&mut state.wishes);
        for (key, wish) in wishes {
            state.grant(key, wish, &mut self.ring);
        }
        for key in self.starved.drain(..) {
            state.grant(key, Wish::Receive, &mut self.ring);
        }
    }
}

impl State {
    pub(crate) fn flush_one(&mut self, key: SlotKey, ring: &mut Ring) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        connection.dirty = false;
        if connection.sending || matches!(connection.phase, Phase::Dead) {
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
        if let Some(sending) = connection.outbox.take_sending(&mut self.spare) {
            connection.sending = true;
            connection.times.sending_ms = self.now_ms;
            ring.send(connection.raw_fd(), key, sending);
            let limits = self.live.limits_of(connection.mount);
            return self.look_at(key, self.now_ms + limits.write_stall_ms_max);
        }
        match connection.phase {
            Phase::Refusing | Phase::Closing { peer_closed: true } => self.finish(key),
            _ => {}
        }
    }

    pub(crate) fn send_failed(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        connection.sending = false;
        self.abort(key, LeaveReason::Closed);
        self.remove_if_idle(key);
    }

    /// A send has gone: what came meanwhile is next, and who waited for room goes on.
    pub(crate) fn sent(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if matches!(connection.phase, Phase::Dead) {
            return self.remove_if_idle(key);
        }
        let closing = !matches!(connection.phase, Phase::Open);
        if !connection.outbox.is_empty() || closing {
            mark_dirty(&mut self.dirty, connection, key);
        }
        let limits = self.live.outbox_limits(connection.mount, usize::MAX);
        let room = connection.outbox.bytes() <= limits.bytes_max / 2
            && connection.outbox.frames() <= limits.frames_max / 2;
        if !room {
            return;
        }
        match &connection.session {
            Session::Raw(session) => session.inbox.wake_senders(),
            Session::Event(session) => session.wake_streams(),
            _ => {}
        }
        if std::mem::take(&mut connection.pauses.outbox) {
            self.wishes.push((key, Wish::Receive));
        }
        self.return_credit(key);
    }

    pub(crate) fn grant(&mut self, key: SlotKey, wish: Wish, ring: &mut Ring) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let wanted = !connection.pauses.any() && !matches!(connection.phase, Phase::Dead);
        let in_head = matches!(connection.phase, Phase::Head(_));
        match (wish, connection.receiving) {
            (Wish::Receive, Receiving::Off) if wanted => {
                connection.receiving = Receiving::Armed;
                if in_head || connection.is_behind() {
                    ring.receive_once(connection.raw_fd(), key);
                } else {
                    ring.receive(connection.raw_fd(), key);
                }
            }
            (Wish::Receive, Receiving::Off) if matches!(connection.phase, Phase::Dead) => {
                self.remove_if_idle(key);
            }
            (Wish::CancelReceive, Receiving::Armed) if !wanted => {
                connection.receiving = Receiving::Cancelling;
                ring.cancel_receive(key);
            }
            _ => {}
        }
    }
}
