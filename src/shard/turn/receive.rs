//! From a completed receive to the session: the request head, then frames, parsed and unmasked
//! in place in the provided buffer. Knows phases and dialects by name, not what messages mean.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::metrics::{Counter, Refusal as RefusedFor};
use crate::proto::engineio::Refusal;
use crate::proto::http::{self, Head, HeadLimits};

use crate::shard::door::upgrade::{self, Decision};
use crate::shard::kernel::clock::unix_s;
use crate::shard::kernel::ring::{Completion, SlotKey};
use crate::shard::socket::machine::{AfterEnd, Ended, Reader};
use crate::shard::socket::tickets::{TOO_MANY_FAILURES, counted};
use crate::shard::state::command::{Accepted, Command, Moved};
use crate::shard::state::{State, mark_dirty};
use crate::shard::turn::Turn;

impl Turn {
    pub(crate) fn handle_receive(&mut self, key: SlotKey, completion: Completion) {
        let Some(filled) = usize::try_from(completion.result).ok().filter(|it| 0 < *it) else {
            if let Some(buffer) = completion.buffer {
                self.ring.buffers().give_back(buffer);
            }
            return self.receive_ended(key, &completion);
        };
        let reader = self.note_receive(key, filled, completion.more);
        if let Some(buffer) = completion.buffer {
            match reader {
                Reader::Head => self.receive_head(key, buffer, filled),
                Reader::Frames => self.receive_frames(key, buffer, filled),
                Reader::Nobody => {}
            }
            self.ring.buffers().give_back(buffer);
        }
        if !completion.more && reader != Reader::Head {
            // A multishot may end at any completion.
            self.shard.state.borrow_mut().wishes.push(key);
        }
    }

    fn note_receive(&self, key: SlotKey, bytes: usize, more: bool) -> Reader {
        let mut state = self.shard.state.borrow_mut();
        let now_ms = state.peer_ms();
        state.metrics.add(Counter::BytesReceived, bytes as u64);
        let connection = state.connections.alive(key);
        connection.map_or(Reader::Nobody, |connection| {
            connection.machine.handle_received(more, now_ms)
        })
    }

    /// A receive gave nothing: the peer's end, no buffer, a cancellation, or a broken socket.
    fn receive_ended(&mut self, key: SlotKey, completion: &Completion) {
        let mut state = self.shard.state.borrow_mut();
        let state = &mut *state;
        let now_ms = state.peer_ms();
        let why = ended(completion.result);
        if why == Ended::Starved {
            self.ring.buffers().grow();
            state.metrics.add(Counter::ReceiveBuffersEmpty, 1);
        }
        let Some(connection) = state.connections.alive(key) else {
            return;
        };
        let machine = &mut connection.machine;
        match machine.handle_receive_end(why, completion.more, now_ms) {
            AfterEnd::Nothing => {}
            AfterEnd::WaitInLine => self.starved.push_back(key),
            AfterEnd::Rearm => state.wishes.push(key),
            AfterEnd::FlushFirst => mark_dirty(&mut state.dirty, connection, key),
            AfterEnd::Abort => state.end_of_peer(key, why),
        }
    }

    fn receive_head(
        &mut self,
        key: SlotKey,
        buffer: crate::shard::kernel::buffers::BufferId,
        count: usize,
    ) {
        let received = self.ring.buffers().filled(buffer);
        let must_wait = {
            let mut state = self.shard.state.borrow_mut();
            self.greetings.must_wait(&mut state, key)
        };
        if must_wait {
            return self.greetings.keep(key, received[..count].to_vec());
        }
        let opened = {
            let mut state = self.shard.state.borrow_mut();
            state.open_head(key, &mut received[..count], &mut self.opened)
        };
        if let Some(bytes) = opened {
            self.read_head(key, bytes);
        }
    }

    /// Works on handshakes that had to wait, as many as one turn may.
    pub(crate) fn greet_next(&mut self) {
        let count_max = {
            let state = self.shard.state.borrow();
            state.live.limits.tls_handshakes_per_turn_max
        };
        self.greetings.begin_turn(count_max);
        while let Some((key, mut received)) = self.greetings.next() {
            let opened = {
                let mut state = self.shard.state.borrow_mut();
                state.open_head(key, &mut received, &mut self.opened)
            };
            if let Some(bytes) = opened {
                self.read_head(key, bytes);
            }
        }
    }

    /// Goes on with what has been read of a request.
    pub(crate) fn read_head(&mut self, key: SlotKey, bytes: Vec<u8>) {
        let limits = {
            let limits = &self.shard.state.borrow().live.limits;
            HeadLimits {
                head_bytes_max: limits.head_bytes_max,
                headers_max: limits.headers_max,
                uri_bytes_max: limits.uri_bytes_max,
            }
        };
        match http::parse_head(&bytes, &limits) {
            Ok(Some(head)) => self.route_head(key, head, bytes),
            Ok(None) => self.await_head(key, bytes),
            Err(error) => {
                let response = match bytes.starts_with(b"HEAD ") {
                    true => http::without_body(error.response()),
                    false => error.response(),
                };
                let mut state = self.shard.state.borrow_mut();
                state.refuse(key, &response, RefusedFor::Head);
            }
        }
    }

    fn await_head(&self, key: SlotKey, bytes: Vec<u8>) {
        let mut state = self.shard.state.borrow_mut();
        let Some(connection) = state.connections.alive(key) else {
            return;
        };
        connection.machine.keep_head(bytes);
        state.wishes.push(key);
    }

    /// A mount, or else HTTP.
    fn route_head(&mut self, key: SlotKey, head: Head, bytes: Vec<u8>) {
        let mount = upgrade::mount_of(&self.shard.shared, head.path());
        let is_for_mount = upgrade::is_for_mount(&self.shard.shared, head.method());
        let is_polling = |mount: &u16| self.shard.is_engine(*mount) && !head.is_upgrade();
        let Some(mount) = mount.filter(|mount| is_for_mount && !is_polling(mount)) else {
            let released = {
                let mut state = self.shard.state.borrow_mut();
                state.metrics.add(Counter::RequestsHandedOver, 1);
                state.release(key)
            };
            if let Some(connection) = released {
                self.http.serve(Rc::clone(&self.shard), connection, bytes);
            }
            return;
        };
        if let Some(home) = self.shard.engine_home(mount, &head) {
            return self.move_to(home, key, bytes);
        }
        if self.shard.is_engine(mount)
            && let Err(refusal) = self.shard.check_engine(&head)
        {
            let mut state = self.shard.state.borrow_mut();
            return state.refuse(key, &refusal.response(), RefusedFor::Head);
        }
        let admitted = {
            let mut state = self.shard.state.borrow_mut();
            match state.note_arrival(key, &head) {
                Ok(()) => {
                    let peer = |state: &mut State| Some(state.peer_of(key)?.ip());
                    state.admit(&head, mount, peer)
                }
                Err((status, text)) => Err((RefusedFor::Limit, http::error_response(status, text))),
            }
        };
        match admitted {
            Ok(admitted) if self.shard.is_event(admitted.mount) => {
                let rest = bytes[head.bytes..].to_vec();
                self.shard.open_guarded(key, head, admitted, rest);
            }
            Ok(mut admitted) => {
                let keeps = self.shard.is_raw(mount) || self.shard.is_engine(mount);
                let rest = head.bytes;
                // Asking the kernel for it is a call, so only who keeps it asks.
                if keeps && let Some(peer) = self.shard.state.borrow_mut().peer_of(key) {
                    admitted.keep(peer, head);
                }
                self.shard.open(key, admitted, true);
                self.receive_rest(key, &bytes[rest..]);
            }
            Err((why, response)) => {
                let response = match (self.shard.is_engine(mount), why) {
                    (true, RefusedFor::Origin | RefusedFor::Token) => Refusal::Forbidden.response(),
                    _ if head.method() == "HEAD" => http::without_body(response),
                    _ => response,
                };
                self.shard.state.borrow_mut().refuse(key, &response, why);
            }
        }
    }

    /// A socket belongs to a session of another shard: it goes there with all that was read.
    fn move_to(&self, home: u16, key: SlotKey, read: Vec<u8>) {
        let mut state = self.shard.state.borrow_mut();
        let Some(connection) = state.release(key) else {
            return;
        };
        state.give_up_place();
        state.shared.loads[usize::from(home)].fetch_add(1, Ordering::Relaxed);
        let ticket = connection.guard.and_then(|guard| guard.address);
        let accepted = Accepted {
            fd: connection.fd,
            ticket,
            is_tls: false,
            moved: Some(Box::new(Moved {
                transport: connection.transport,
                read,
                admitted: None,
            })),
        };
        state.posts.post(home, Command::Adopt(accepted));
    }
}

/// Why a receive brought nothing, by what the kernel returned.
fn ended(result: i32) -> Ended {
    use rustix::io::Errno;
    match (result < 0).then(|| Errno::from_raw_os_error(-result)) {
        None => Ended::End,
        Some(Errno::NOBUFS) => Ended::Starved,
        Some(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => Ended::Interrupted,
        Some(_) => Ended::Broken,
    }
}

impl State {
    /// All that has come of a request head, with what came now.
    fn open_head(
        &mut self,
        key: SlotKey,
        received: &mut [u8],
        scratch: &mut Vec<u8>,
    ) -> Option<Vec<u8>> {
        let count = received.len();
        let (received, count) = self.open(key, received, count, scratch)?;
        let so_far = self.connections.alive(key)?.machine.take_head()?;
        Some([&so_far, &received[..count]].concat())
    }

    /// Decides about an upgrade to a mount; `peer` is asked only where addresses are limited.
    pub(crate) fn admit(
        &mut self,
        head: &Head,
        mount: u16,
        peer: impl FnOnce(&mut Self) -> Option<IpAddr>,
    ) -> Decision {
        if self.shared.memory.is_short() {
            let text = "the server is short of memory (limits.memory_bytes_max)";
            return Err((RefusedFor::Memory, http::error_response(503, text)));
        }
        let known = (&*self.shared, &*self.live);
        let mut decision = upgrade::admit(head, mount, known, &mut self.tokens, unix_s());
        let limits = self.live.limits_of(mount);
        match &mut decision {
            Ok(admitted) if 0 < limits.connections_per_tenant_max => {
                let tenant = admitted.caller.tenant.clone();
                let max = limits.connections_per_tenant_max;
                admitted.ticket = self.shared.gate.tenants.take(tenant, max);
                if admitted.ticket.is_none() {
                    let text = "the tenant has all the connections it may have \
                                (limits.connections_per_tenant_max)";
                    return Err((RefusedFor::Limit, http::error_response(503, text)));
                }
            }
            Err((RefusedFor::Token, _)) if 0 < limits.auth_failures_per_address_per_min_max => {
                let within = peer(self).is_none_or(|peer| self.note_auth_failure(peer));
                if !within {
                    let response = http::error_response(429, TOO_MANY_FAILURES);
                    return Err((RefusedFor::Limit, response));
                }
            }
            _ => {}
        }
        decision
    }

    /// A token from `peer` was refused; whether that is still within its limit.
    pub(crate) fn note_auth_failure(&self, peer: IpAddr) -> bool {
        let gate = &self.shared.gate;
        gate.note_auth_failure(counted(peer), &self.live.limits, self.now_ms)
    }
}
