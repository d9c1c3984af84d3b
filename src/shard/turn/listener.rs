//! New sockets: accepted on every ring from one listener, and given to the shard that has the
//! fewest connections. Knows limits on connections; nothing of what will be spoken.
//!
//! Full: past `connections_max` and the limits by address a socket is told 503 or 429 and closed.
//! Out of descriptors: accepting pauses for a tenth of a second, for trying at once would spin.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use crate::metrics::{Counter, Refusal as RefusedFor};

use crate::shard::door::greetings::Greetings;
use crate::shard::kernel::ring::{Completion, descriptor};
use crate::shard::socket::connection::peer_of;
use crate::shard::socket::half_open::{Bounds, Place};
use crate::shard::socket::tickets::{Ticket, counted};
use crate::shard::socket::transport::Transport;
use crate::shard::state::State;
use crate::shard::state::command::{Accepted, Command, Moved};
use crate::shard::turn::Turn;

/// How long accepting pauses when the process is out of descriptors.
const ACCEPT_PAUSE_MS: u64 = 100;

impl Turn {
    pub(crate) fn accept(&mut self) {
        if self.shard.state.borrow().draining {
            return;
        }
        for index in (0..).take(self.listeners.len()) {
            self.accept_from(index);
        }
    }

    fn accept_from(&mut self, listener: u32) {
        let fd = self.listeners[listener as usize].as_raw_fd();
        self.ring.accept(fd, listener);
    }

    /// Goes on at the listeners that paused; the others have never stopped.
    pub(crate) fn accept_again(&mut self) {
        if self.shard.state.borrow().draining {
            return;
        }
        for listener in std::mem::take(&mut self.accept_paused_at) {
            self.accept_from(listener);
        }
    }

    pub(crate) fn handle_accept(&mut self, listener: u32, completion: Completion) {
        if 0 <= completion.result {
            self.accept_paused = false;
            self.accepted(descriptor(completion.result), listener);
        }
        if completion.more {
            return;
        }
        let state = self.shard.state.borrow_mut();
        // The port is closed before every shard has been told so.
        if state.shared.draining.load(Ordering::Relaxed) {
            return;
        }
        if completion.result < 0 && completion.result != -libc_errno(rustix::io::Errno::CANCELED) {
            // Out of descriptors or memory: trying at once would spin on the waiting connection.
            state.metrics.add(Counter::AcceptPauses, 1);
            self.accept_at_ms = Some(state.now_ms + ACCEPT_PAUSE_MS);
            self.accept_paused_at.push(listener);
            // Told once, until one is accepted again.
            if !std::mem::replace(&mut self.accept_paused, true) {
                let errno = -completion.result;
                tracing::warn!(target: "tidegate::shard", errno, "accepting pauses");
            }
            return;
        }
        drop(state);
        self.accept_from(listener);
    }

    /// A new connection goes to the shard that has the fewest.
    pub(crate) fn accepted(&mut self, fd: OwnedFd, listener: u32) {
        let is_tls = self.shard.shared.tls_listeners_from <= listener;
        let admitted = self.shard.state.borrow().let_in(&fd);
        let ticket = match admitted {
            Ok(ticket) => ticket,
            // Before a handshake there is no way to say it.
            Err(_) if is_tls => return,
            Err((status, text)) => return turn_away(&fd, status, text),
        };
        let accepted = Accepted {
            fd,
            ticket,
            is_tls,
            moved: None,
        };
        let mut state = self.shard.state.borrow_mut();
        let shard = state.shared.least_loaded(state.index);
        state.shared.loads[usize::from(shard)].fetch_add(1, Ordering::Relaxed);
        if shard == state.index {
            drop(state);
            self.adopt(accepted);
        } else {
            state.posts.post(shard, Command::Adopt(accepted));
        }
    }

    pub(crate) fn adopt(&mut self, accepted: Accepted) {
        let fd = accepted.fd;
        let mut state = self.shard.state.borrow_mut();
        if state.draining {
            // It was on its way from another shard when the server began to stop.
            state.metrics.refused(RefusedFor::Draining);
            return state.give_up_place();
        }
        let Accepted {
            ticket,
            is_tls,
            moved,
            ..
        } = accepted;
        let (transport, moved) = match moved.map(|moved| *moved) {
            Some(Moved {
                transport,
                read,
                admitted,
            }) => (Ok(transport), Some((read, admitted))),
            None => (transport(&mut self.greetings, &state, is_tls), None),
        };
        let Ok(transport) = transport else {
            state.metrics.refused(RefusedFor::Limit);
            return state.give_up_place();
        };
        let address = state.address_of(&fd).filter(|_| moved.is_none());
        if moved.is_none() && state.make_room(address).is_err() {
            state.metrics.refused(RefusedFor::Limit);
            if !is_tls {
                let text = "too many handshakes are not done (limits.half_open_max)";
                turn_away(&fd, 503, text);
            }
            return state.give_up_place();
        }
        let key = state.insert(fd, address);
        if let Some(connection) = state.connections.alive(key) {
            connection.transport = transport;
            connection.hold(ticket);
        }
        let Some((read, admitted)) = moved else {
            return state.wishes.push(key);
        };
        drop(state);
        let Some(admitted) = admitted else {
            return self.read_head(key, read);
        };
        self.shard.open(key, *admitted, false);
        self.shard
            .with_state(|state| state.returned.push((key, read)));
    }
}

/// Too many handshakes began in this second.
struct TooMany;

/// All whose handshakes are not done came just now.
struct HalfOpenFull;

/// What a new socket is read through.
fn transport(greetings: &mut Greetings, state: &State, is_tls: bool) -> Result<Transport, TooMany> {
    let Some(acceptor) = state.live.tls.as_ref().filter(|_| is_tls) else {
        return Ok(Transport::Plain);
    };
    let per_s_max = state.live.limits.tls_handshakes_per_s_max;
    if !greetings.may_begin(per_s_max, state.now_ms) {
        return Err(TooMany);
    }
    let session = acceptor.accept().ok_or(TooMany)?;
    Ok(Transport::Sealed(Box::new(session)))
}

/// Tells a new socket that there is no place for it.
fn turn_away(fd: &OwnedFd, status: u16, text: &str) {
    let response = crate::proto::http::error_response(status, text);
    // The socket is new, so its buffer takes this; if not, the peer just sees the end.
    let _ = rustix::net::send(fd, &response, rustix::net::SendFlags::DONTWAIT);
}

impl State {
    /// Whether there is a place for a new socket; else the status and the text to refuse with.
    pub(crate) fn let_in(
        &self,
        fd: &OwnedFd,
    ) -> Result<Option<Ticket<IpAddr>>, (u16, &'static str)> {
        self.metrics.add(Counter::ConnectionsAccepted, 1);
        let limits = &self.live.limits;
        let let_in = if self.live.connections_max <= self.shared.connections() {
            let text = "the server has all the connections it may have (limits.connections_max)";
            Err((503, text))
        } else if limits.counts_addresses() {
            self.address_of(fd).map_or(Ok(None), |address| {
                self.shared.gate.enter(address, limits, self.now_ms)
            })
        } else {
            Ok(None)
        };
        if let_in.is_err() {
            self.metrics.refused(RefusedFor::Limit);
        }
        let_in
    }

    /// What a socket counts for. For whom a proxy connects its request will say.
    fn address_of(&self, fd: &OwnedFd) -> Option<IpAddr> {
        let address = peer_of(fd)?.ip();
        (!self.live.trusts(address)).then(|| counted(address))
    }

    /// Makes room for one more whose head is to come; an error when nobody can go for it. This shard
    /// has its part of what all may have, for new sockets are spread evenly.
    fn make_room(&mut self, address: Option<IpAddr>) -> Result<(), HalfOpenFull> {
        let (limits, shards) = (&self.live.limits, usize::from(self.shared.shards()));
        let bounds = Bounds {
            all_max: limits.half_open_max.div_ceil(shards),
            address_max: limits.half_open_per_address_max.div_ceil(shards),
        };
        match self.half_open.place(address, bounds, self.now_ms) {
            Place::Free => {}
            Place::Instead(key) => {
                self.give_up(key, RefusedFor::Limit);
            }
            Place::Full => return Err(HalfOpenFull),
        }
        Ok(())
    }
}

fn libc_errno(errno: rustix::io::Errno) -> i32 {
    errno.raw_os_error()
}
