//! The loop of a shard: what a turn does, in which order, and when it sleeps.
//!
//! A turn reaps completions, drains mailboxes, processes what was received, flushes outboxes,
//! submits once and wakes the shards that were posted to. Completions, frames given out and
//! time are bounded in a turn; what is left waits for the next one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

use crate::auth::TokenCache;
use crate::broker::relay::LeaveReason;
use crate::config::ShardSection;
use crate::metrics::{Counter, Refusal as RefusedFor, ShardMetrics};
use crate::proto::frame::Opcode;
use crate::proto::json::JsonParser;

use super::command::{Accepted, Command};
use super::connection::{Phase, Receiving};
use super::deadlines::{Due, due};
use super::handover::Http;
use super::mailbox::Mailboxes;
use super::ring::{Completion, Ring, RingError, RingSizes, SlotKey, Token};
use super::shared::{Live, Shared};
use super::state::{State, Wish};
use super::tickets::{Ticket, counted};
use super::{CURRENT, Shard};

/// What a shard is started with.
pub(crate) struct Setup {
    pub(crate) index: u16,
    pub(crate) shared: Arc<Shared>,
    pub(crate) live: Arc<Live>,
    pub(crate) mailboxes: Mailboxes<Command>,
    pub(crate) listeners: Arc<[OwnedFd]>,
    pub(crate) sizes: ShardSection,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) router: axum::Router,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// What belongs to the loop alone.
pub(super) struct Turn {
    pub(super) shard: Rc<Shard>,
    pub(super) ring: Ring,
    pub(super) json: JsonParser,
    pub(super) http: Http,
    listeners: Arc<[OwnedFd]>,
    /// A second descriptor of the ring, which tokio watches.
    watch: AsyncFd<OwnedFd>,
    started: Instant,
    completions: Vec<Completion>,
    pending: VecDeque<Completion>,
    commands: Vec<Command>,
    due: Vec<(SlotKey, u64)>,
    /// Connections whose receive found no buffer, in the order in which that happened.
    pub(super) starved: VecDeque<SlotKey>,
    /// When accepting goes on, after the process ran out of descriptors.
    accept_at_ms: Option<u64>,
    accepting: bool,
}

/// The shard's clock starts here, so that 0 can mean never.
const CLOCK_START_MS: u64 = 1_000;
/// How long accepting pauses when the process is out of descriptors.
const ACCEPT_PAUSE_MS: u64 = 100;
/// Frames of relay topics that are given out in one turn before outboxes are flushed: half of
/// the default backlog, so that a receiver that reads never lags behind one busy turn.
const FANOUT_TURN_MAX: usize = 64;
/// The clock is looked at after so many completions.
const CLOCK_COMPLETIONS: usize = 32;
/// Aborting connections that do not finish closing.
const CLOSE_MS_MAX: u64 = 2_000;

/// Runs a shard on this thread until it has drained.
///
/// # Errors
/// When the ring cannot be set up.
pub(crate) fn run(setup: Setup) -> Result<(), RingError> {
    let mut uring = tokio_uring::uring_builder();
    uring.setup_cqsize(1_024);
    let mut builder = tokio_uring::builder();
    builder.entries(64).uring_builder(&uring);
    builder.start(async move {
        let mut turn = Turn::new(setup)?;
        CURRENT.set(Some(Rc::clone(&turn.shard)));
        // If the loop dies the process dies; its own bound on a turn replaces tokio's budget.
        tokio::task::unconstrained(turn.run()).await;
        CURRENT.set(None);
        Ok(())
    })
}

impl Turn {
    fn new(setup: Setup) -> Result<Self, RingError> {
        let sizes = RingSizes {
            submissions: setup.sizes.ring_entries,
            buffers: setup.sizes.receive_buffers,
            buffer_bytes: setup.sizes.receive_buffer_bytes,
        };
        let ring = Ring::new(sizes)?;
        let watch = ring.watch().map_err(RingError::Other)?;
        let tokens = TokenCache::new(setup.sizes.token_cache_entries_max);
        let shared = Arc::clone(&setup.shared);
        let counted = (tokens, setup.metrics);
        let state = State::new(
            setup.index,
            setup.shared,
            setup.live,
            setup.mailboxes,
            counted,
        );
        let shard = Rc::new(Shard {
            shared,
            state: state.into(),
            sleeping: false.into(),
        });
        let mut turn = Self {
            shard,
            ring,
            json: JsonParser::default(),
            http: Http::new(setup.router),
            listeners: setup.listeners,
            watch,
            started: now(),
            completions: Vec::new(),
            pending: VecDeque::new(),
            commands: Vec::new(),
            due: Vec::new(),
            starved: VecDeque::new(),
            accept_at_ms: None,
            accepting: false,
        };
        turn.read_clock();
        turn.accept();
        Ok(turn)
    }

    async fn run(&mut self) {
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        loop {
            let worked = self.turn().await;
            if self.is_drained() {
                return;
            }
            if !worked {
                self.sleep(sleep.as_mut()).await;
            }
        }
    }

    /// One turn; whether there was anything to do.
    async fn turn(&mut self) -> bool {
        self.read_clock();
        self.reap();
        self.drain_mailboxes();
        self.take_returned();
        let received = self.process();
        self.look_at_deadlines();
        self.shard.run_calls();
        // Handlers, timers and HTTP run here, so what they queue goes out in this turn.
        tokio::task::yield_now().await;
        self.shard.run_calls();
        let flushed = self.flush();
        self.rearm();
        self.ring.submit();
        let mut state = self.shard.state.borrow_mut();
        state.posts.flush();
        state.metrics.add(Counter::Turns, 1);
        received || flushed || !self.pending.is_empty()
    }

    pub(super) fn now_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        CLOCK_START_MS + elapsed
    }

    fn read_clock(&self) {
        let now_ms = self.now_ms();
        let mut state = self.shard.state.borrow_mut();
        state.now_ms = now_ms;
        state.fanned_out = 0;
    }

    fn reap(&mut self) {
        if !self.pending.is_empty() {
            return;
        }
        let count_max = self.shard.state.borrow().live.limits.turn_completions_max;
        self.ring.reap(count_max, &mut self.completions);
        self.pending.extend(self.completions.drain(..));
    }

    /// What other shards caused is seen before what was received (see the causal chain in
    /// ARCHITECTURE.md).
    fn drain_mailboxes(&mut self) {
        let mut commands = std::mem::take(&mut self.commands);
        {
            let mut state = self.shard.state.borrow_mut();
            let count_max = state.live.limits.turn_completions_max;
            state.posts.mailboxes().drain(count_max, &mut commands);
        }
        for command in commands.drain(..) {
            self.handle_command(command);
        }
        self.commands = commands;
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Adopt(accepted) => self.adopt(accepted),
            Command::Home(job) => self.shard.state.borrow_mut().run_home(job),
            Command::Relay(effect) => self.shard.state.borrow_mut().carry_out(effect),
            Command::Missed { topic, frames } => {
                self.shard.state.borrow_mut().handle_missed(&topic, frames);
            }
            Command::Run(job) => job(&mut self.shard.state.borrow_mut()),
            Command::Reload(live) => self.reload(live),
            Command::Drain => self.drain(),
        }
        self.shard.run_calls();
    }

    fn reload(&self, live: Arc<Live>) {
        let mut state = self.shard.state.borrow_mut();
        let state = &mut *state;
        if let (Some(home), Some(relay)) = (&mut state.home, &state.shared.relay) {
            home.set_limits(super::state::home_limits(&live.limits, relay.unhandled));
        }
        state.live = live;
    }

    fn process(&mut self) -> bool {
        let worked = !self.pending.is_empty();
        let started = now();
        let turn_us_max = u128::from(self.shard.state.borrow().live.limits.turn_us_max);
        let mut count = 0;
        while let Some(completion) = self.pending.pop_front() {
            self.handle_completion(completion);
            count += 1;
            let late = || turn_us_max < started.elapsed().as_micros();
            let full = FANOUT_TURN_MAX <= self.shard.state.borrow().fanned_out;
            if full || (count % CLOCK_COMPLETIONS == 0 && late()) {
                break;
            }
        }
        worked
    }

    fn handle_completion(&mut self, completion: Completion) {
        match completion.token {
            Token::Accept { listener } => self.handle_accept(listener, completion),
            Token::Receive(key) => self.handle_receive(key, completion),
            Token::Send { index } => self.handle_sent(index, completion.result),
            Token::Cancel | Token::File { .. } => {}
        }
    }

    fn accept(&mut self) {
        for (index, listener) in (0..).zip(self.listeners.iter()) {
            self.ring.accept(listener.as_raw_fd(), index);
        }
        self.accepting = true;
    }

    fn handle_accept(&mut self, listener: u32, completion: Completion) {
        if 0 <= completion.result {
            self.accepted(owned(completion.result));
        }
        if completion.more {
            return;
        }
        let state = self.shard.state.borrow_mut();
        if state.draining {
            return;
        }
        if completion.result < 0 && completion.result != -libc_errno(rustix::io::Errno::CANCELED) {
            // Out of descriptors or memory: trying at once would spin on the waiting connection.
            state.metrics.add(Counter::AcceptPauses, 1);
            self.accept_at_ms = Some(state.now_ms + ACCEPT_PAUSE_MS);
            tracing::warn!(target: "tidegate::shard", errno = -completion.result, "accepting pauses");
            return;
        }
        let fd = self.listeners[listener as usize].as_raw_fd();
        self.ring.accept(fd, listener);
    }

    /// A new connection goes to the shard that has the fewest.
    fn accepted(&mut self, fd: OwnedFd) {
        let admitted = self.shard.state.borrow().let_in(&fd);
        let ticket = match admitted {
            Ok(ticket) => ticket,
            Err((status, text)) => return turn_away(&fd, status, text),
        };
        let accepted = Accepted { fd, ticket };
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

    pub(super) fn adopt(&mut self, accepted: Accepted) {
        let fd = accepted.fd;
        // A socket that cannot be set up is as good as closed.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&fd, true);
        let mut state = self.shard.state.borrow_mut();
        let raw = fd.as_raw_fd();
        let key = state.insert(fd);
        if let Some(connection) = state.connections.get(key) {
            connection.receiving = Receiving::Armed;
            connection.hold(accepted.ticket);
        }
        self.ring.receive_once(raw, key);
    }

    fn look_at_deadlines(&mut self) {
        let mut due_keys = std::mem::take(&mut self.due);
        let now_ms = {
            let mut state = self.shard.state.borrow_mut();
            let now_ms = state.now_ms;
            state.wheel.advance(now_ms, &mut due_keys);
            now_ms
        };
        for (key, tick) in due_keys.drain(..) {
            self.shard
                .state
                .borrow_mut()
                .meet_deadline(key, tick, now_ms);
        }
        self.due = due_keys;
        if self.accept_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.accept_at_ms = None;
            self.accept();
        }
    }

    /// Sends what is queued: at most one send in flight for each socket.
    fn flush(&mut self) -> bool {
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

    fn handle_sent(&mut self, index: u32, result: i32) {
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
    fn rearm(&mut self) {
        let mut state = self.shard.state.borrow_mut();
        let wishes = std::mem::take(&mut state.wishes);
        for (key, wish) in wishes {
            state.grant(key, wish, &mut self.ring);
        }
        for key in self.starved.drain(..) {
            state.grant(key, Wish::Receive, &mut self.ring);
        }
    }

    /// Waits for the ring, a wake-up, or the next deadline.
    async fn sleep(&mut self, mut sleep: Pin<&mut Sleep>) {
        let deadline_ms = self.next_deadline_ms();
        let until = self.started + Duration::from_millis(deadline_ms - CLOCK_START_MS);
        if sleep.deadline().into_std() != until {
            sleep.as_mut().reset(until.into());
        }
        self.shard
            .state
            .borrow_mut()
            .metrics
            .add(Counter::Sleeps, 1);
        self.shard.sleeping.set(true);
        poll_fn(|cx| self.poll_wake(sleep.as_mut(), cx)).await;
        self.shard.sleeping.set(false);
        self.shard
            .state
            .borrow_mut()
            .posts
            .mailboxes()
            .sleeper()
            .awake();
    }

    fn poll_wake(&mut self, sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.shard.state.borrow_mut();
            state.posts.mailboxes().sleeper().prepare(cx.waker());
            if !state.posts.mailboxes().is_empty() || state.has_work() {
                return Poll::Ready(());
            }
        }
        if self.ring.is_ready() {
            return Poll::Ready(());
        }
        if let Poll::Ready(ready) = self.watch.poll_read_ready(cx) {
            // Whatever completes from here on raises the readiness anew.
            if let Ok(mut guard) = ready {
                guard.clear_ready();
            }
            return Poll::Ready(());
        }
        Future::poll(sleep, cx)
    }

    fn next_deadline_ms(&self) -> u64 {
        let state = self.shard.state.borrow();
        let idle_ms = state.now_ms + IDLE_MS_MAX;
        let wheel_ms = state.wheel.next_ms().unwrap_or(idle_ms);
        let accept_ms = self.accept_at_ms.unwrap_or(idle_ms);
        // What waits behind a full mailbox is tried again soon.
        let behind_ms = if state.posts.is_behind() {
            state.now_ms + 1
        } else {
            idle_ms
        };
        wheel_ms
            .min(accept_ms)
            .min(behind_ms)
            .min(idle_ms)
            .max(CLOCK_START_MS)
    }

    fn drain(&mut self) {
        {
            let mut state = self.shard.state.borrow_mut();
            state.draining = true;
            let drain_ms_max = state.live.limits.drain_ms_max;
            let end_ms = state.now_ms + drain_ms_max;
            for key in state.connections.keys() {
                state.drain_one(key);
            }
            state.drain_until_ms = Some(end_ms);
        }
        for index in 0..self.listeners.len() {
            self.ring
                .cancel_accept(u32::try_from(index).unwrap_or(u32::MAX));
        }
        self.http.drain();
    }

    fn is_drained(&self) -> bool {
        let state = self.shard.state.borrow();
        let Some(end_ms) = state.drain_until_ms else {
            return false;
        };
        let done = state.connections.len() == 0 && self.http.is_idle();
        done || end_ms <= state.now_ms
    }
}

/// A shard with nothing to do looks around this often.
const IDLE_MS_MAX: u64 = 1_000;

/// Tells a new socket that there is no place for it.
fn turn_away(fd: &OwnedFd, status: u16, text: &str) {
    let response = crate::proto::http::error_response(status, text);
    // The socket is new, so its buffer takes this; if not, the peer just sees the end.
    let _ = rustix::net::send(fd, &response, rustix::net::SendFlags::DONTWAIT);
}

impl State {
    /// Whether there is a place for a new socket; else the status and the text to refuse with.
    fn let_in(&self, fd: &OwnedFd) -> Result<Option<Ticket<IpAddr>>, (u16, &'static str)> {
        self.metrics.add(Counter::ConnectionsAccepted, 1);
        let limits = &self.live.limits;
        let full = self.shared.connections_max <= self.shared.connections()
            || limits.half_open_max <= self.half_open;
        let let_in = if full {
            let text = "the server has all the connections it may have (limits.connections_max)";
            Err((503, text))
        } else if limits.counts_addresses() {
            let address = super::connection::peer_of(fd).map(|peer| counted(peer.ip()));
            address.map_or(Ok(None), |address| {
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

    fn flush_one(&mut self, key: SlotKey, ring: &mut Ring) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        connection.dirty = false;
        if connection.sending || matches!(connection.phase, Phase::Dead) {
            return;
        }
        let members = &self.members;
        connection.outbox.tell_lags(|tag, missed, out| {
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
            return ring.send(connection.raw_fd(), key, sending);
        }
        match connection.phase {
            Phase::Refusing | Phase::Closing { peer_closed: true } => self.finish(key),
            _ => {}
        }
    }

    fn send_failed(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        connection.sending = false;
        self.abort(key, LeaveReason::Closed);
        self.remove_if_idle(key);
    }

    /// A send has gone: what came meanwhile is next, and who waited for room goes on.
    fn sent(&mut self, key: SlotKey) {
        use crate::session::Session;
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if matches!(connection.phase, Phase::Dead) {
            return self.remove_if_idle(key);
        }
        let closing = !matches!(connection.phase, Phase::Open);
        if !connection.outbox.is_empty() || closing {
            super::state::mark_dirty(&mut self.dirty, connection, key);
        }
        let limits = self.live.outbox_limits(connection.mount, usize::MAX);
        let room = connection.outbox.bytes() <= limits.bytes_max / 2
            && connection.outbox.frames() <= limits.frames_max / 2;
        if !room {
            return;
        }
        if let Session::Raw(session) = &connection.session {
            session.inbox.wake_senders();
        }
        if std::mem::take(&mut connection.pauses.outbox) {
            self.wishes.push((key, Wish::Receive));
        }
    }

    fn grant(&mut self, key: SlotKey, wish: Wish, ring: &mut Ring) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let wanted = !connection.pauses.any() && !matches!(connection.phase, Phase::Head(_));
        match (wish, connection.receiving) {
            (Wish::Receive, Receiving::Off) if wanted => {
                connection.receiving = Receiving::Armed;
                ring.receive(connection.raw_fd(), key);
            }
            (Wish::CancelReceive, Receiving::Armed) if !wanted => {
                connection.receiving = Receiving::Cancelling;
                ring.cancel_receive(key);
            }
            _ => {}
        }
    }

    fn meet_deadline(&mut self, key: SlotKey, tick: u64, now_ms: u64) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if connection.times.tick != tick {
            return;
        }
        let limits = self.live.limits_of(connection.mount);
        match due(connection, limits, now_ms, CLOSE_MS_MAX) {
            Due::Nothing { next_ms } => return self.look_at(key, next_ms),
            Due::Ping => {
                connection.times.pinged_ms = now_ms;
                self.queue_frame(key, Opcode::Ping, b"");
            }
            Due::HandshakeTimeout | Due::CloseTimeout => self.abort(key, LeaveReason::Closed),
            Due::Idle => self.close(key, 1000, "idle for too long", LeaveReason::Timeout),
            Due::PongTimeout => self.abort(key, LeaveReason::Timeout),
            Due::WriteStall => self.abort(key, LeaveReason::Slow),
            Due::MessageTimeout => {
                let text = "a fragmented message was not complete in time";
                self.close(key, 1008, text, LeaveReason::Timeout);
            }
            Due::TokenExpired => self.close(key, 4401, "token expired", LeaveReason::Closed),
            Due::LifetimeReached => {
                let text = "connection lifetime reached, re-upgrade to continue";
                self.close(key, 1001, text, LeaveReason::Closed);
            }
        }
        self.look_at_next(key, now_ms);
    }

    /// Asks for the next look at a connection.
    pub(super) fn look_at_next(&mut self, key: SlotKey, now_ms: u64) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let limits = self.live.limits_of(connection.mount);
        let next_ms = match due(connection, limits, now_ms, CLOSE_MS_MAX) {
            Due::Nothing { next_ms } => next_ms,
            _ => now_ms,
        };
        self.look_at(key, next_ms);
    }

    fn drain_one(&mut self, key: SlotKey) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        match connection.phase {
            Phase::Open => self.close(key, 1012, "the server restarts", LeaveReason::Shutdown),
            Phase::Head(_) => self.abort(key, LeaveReason::Shutdown),
            Phase::Refusing | Phase::Closing { .. } | Phase::Dead => {}
        }
    }
}

/// Seconds since 1970, for tokens.
pub(super) fn unix_s() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "the shard is where clocks are read"
    )]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The monotonic clock.
pub(super) fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "the shard is where clocks are read"
    )]
    Instant::now()
}

fn libc_errno(errno: rustix::io::Errno) -> i32 {
    errno.raw_os_error()
}

/// A descriptor that the kernel has just given us.
#[expect(
    unsafe_code,
    reason = "a descriptor from a completion has no other owner"
)]
fn owned(fd: RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    assert!(0 <= fd, "an accepted connection has a descriptor");
    // SAFETY: the kernel made this descriptor for the accept that has just completed, so nobody
    // else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
