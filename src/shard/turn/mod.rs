//! The loop of a shard: what a turn does, in which order, and when it sleeps.
//!
//! A turn reaps completions, drains mailboxes, processes what was received, flushes outboxes,
//! submits once and wakes the shards that were posted to. Completions, frames given out and
//! time are bounded in a turn; what is left waits for the next one.

mod decode;
mod drain;
mod flush;
mod listener;
mod measure;
mod receive;
mod reload;
pub(crate) mod runtime;
mod wake;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

use crate::auth::TokenCache;
use crate::config::ShardSection;
use crate::id::Partition;
use crate::metrics::{Counter, Recorder, ShardMetrics, Timing};

use crate::shard::commit::{Clock, Recovered};
use crate::shard::door::greetings::Greetings;
use crate::shard::door::handover::Http;
use crate::shard::kernel::clock::{now, unix_ms, us_between, us_since};
use crate::shard::kernel::file::Files;
use crate::shard::kernel::ring::{Completion, Ring, RingError, RingSizes, SlotKey, Token};
use crate::shard::post::mailbox::Mailboxes;
use crate::shard::speak::event::{Ready, open_gateways};
use crate::shard::speak::handlers::Handlers;
use crate::shard::state::State;
use crate::shard::state::command::Command;
use crate::shard::state::shard::{CURRENT, Shard};
use crate::shard::state::shared::{Live, Shared};
use crate::shard::turn::decode::Readers;

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
    /// Where it says that it is set up; the first one, that the hooks before the start have run.
    pub(crate) ready: Ready,
    /// The partitions that live here.
    pub(crate) stores: Vec<(Partition, Recovered)>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// What belongs to the loop alone.
pub(crate) struct Turn {
    pub(crate) shard: Rc<Shard>,
    pub(crate) ring: Ring,
    pub(crate) readers: Readers,
    pub(crate) http: Http,
    pub(crate) listeners: Arc<[OwnedFd]>,
    pub(crate) files: Files,
    pub(crate) handlers: Handlers,
    /// A second descriptor of the ring, which tokio watches.
    watch: AsyncFd<OwnedFd>,
    started: Instant,
    /// When a turn last had something to do.
    worked_at: Instant,
    /// When the runtime last ran its tasks.
    yielded_at: Instant,
    /// When what is being processed must give way.
    pub(crate) until: Instant,
    /// When the clock was to be read at the latest.
    awaited_ms: u64,
    busy_poll_us: u64,
    completions: Vec<Completion>,
    pending: VecDeque<Completion>,
    commands: VecDeque<Command>,
    due: Vec<(SlotKey, u64)>,
    /// Connections whose receive found no buffer, in the order in which that happened.
    pub(crate) starved: VecDeque<SlotKey>,
    /// What the last bytes were opened to.
    pub(crate) opened: Vec<u8>,
    pub(crate) greetings: Greetings,
    /// When accepting goes on, after the process ran out of descriptors.
    pub(crate) accept_at_ms: Option<u64>,
    /// The listeners at which it goes on then.
    pub(crate) accept_paused_at: Vec<u32>,
    /// Nothing has been accepted since it was said that accepting pauses.
    pub(crate) accept_paused: bool,
    /// When the ring ends a sleep by itself, of what was asked for last.
    pub(crate) wake_us: u64,
    /// Completions that had found no room when it was last looked.
    pub(crate) overflows: u32,
    /// The server stops and this shard has said that it has no connection any more.
    pub(crate) quiet: bool,
}

/// The shard's clock starts here, so that 0 can mean never.
const CLOCK_START_MS: u64 = 1_000;
/// A shard that did not run for longer than this is no judge of peers in that time.
const LOST_MS_MIN: u64 = 200;
/// The runtime gets its turn after so long.
const RUNTIME_US_MAX: u64 = 100;
/// The clock is looked at after so many completions.
const CLOCK_COMPLETIONS: usize = 8;

/// The life of a shard while it serves.
pub(crate) async fn serve(setup: Setup) -> Result<(), RingError> {
    let (index, ready) = (setup.index, setup.ready.clone());
    let mut turn = Turn::new(setup)?;
    CURRENT.set(Some(Rc::clone(&turn.shard)));
    let is_ready = match index {
        0 => turn.shard.make_ready(&ready).await,
        // The thread that starts the server waits for this, or has given up.
        _ => ready.send(Ok(())).is_ok(),
    };
    drop(ready);
    if !is_ready {
        return Ok(());
    }
    // Not unconstrained: raw handlers run inside of it, and tokio's budget bounds them.
    turn.run().await;
    CURRENT.set(None);
    Ok(())
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.ring.end() {
            // The kernel may still write from it.
            std::mem::forget(std::mem::take(&mut self.files));
        }
    }
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
        let recorder = Recorder::new(Arc::clone(&setup.metrics));
        let mut files = Files::default();
        for (_, recovered) in &setup.stores {
            files
                .add_folder(&recovered.folder)
                .map_err(RingError::Other)?;
        }
        let counted = (tokens, setup.metrics);
        let state = State::new(
            setup.index,
            setup.shared,
            setup.live,
            setup.mailboxes,
            setup.stores,
            counted,
        );
        let (index, rooms_max) = (state.index, state.live.limits.rooms_per_connection_max);
        let shard = Rc::new_cyclic(|shard| Shard {
            recorder,
            gateways: open_gateways(shard, &shared, index, rooms_max),
            shared,
            state: state.into(),
            inboxes: Rc::default(),
            sleeping: false.into(),
        });
        let handlers = Handlers::new(Arc::clone(&shard.shared), index);
        let turn = Self {
            shard,
            handlers,
            ring,
            readers: Readers::default(),
            http: Http::new(setup.router),
            files,
            listeners: setup.listeners,
            watch,
            started: now(),
            worked_at: now(),
            yielded_at: now(),
            until: now(),
            awaited_ms: CLOCK_START_MS,
            busy_poll_us: setup.sizes.busy_poll_us,
            completions: Vec::new(),
            pending: VecDeque::new(),
            commands: VecDeque::new(),
            due: Vec::new(),
            starved: VecDeque::new(),
            opened: Vec::new(),
            greetings: Greetings::default(),
            accept_at_ms: None,
            accept_paused_at: Vec::new(),
            accept_paused: false,
            wake_us: 0,
            overflows: 0,
            quiet: false,
        };
        let mut turn = turn;
        turn.read_clock();
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
            if worked {
                self.worked_at = now();
            } else if !self.polls_busily() {
                self.sleep(sleep.as_mut()).await;
            }
        }
    }

    /// Whether it is too early to sleep: more core for less latency, where that was asked for.
    fn polls_busily(&self) -> bool {
        0 < self.busy_poll_us && self.worked_at.elapsed().as_micros() < self.busy_poll_us.into()
    }

    /// One turn; whether there was anything to do.
    async fn turn(&mut self) -> bool {
        let began = now();
        self.read_clock();
        self.shard.state.borrow_mut().begin_turn();
        self.reap();
        self.drain_mailboxes();
        self.take_returned();
        let received = self.process();
        self.look_at_deadlines();
        self.shard.run_calls();
        self.handlers.run_due(&self.shard);
        if self.owes_runtime_a_visit(began, received) {
            // Tasks, timers and HTTP run here, so what they queue goes out in this turn.
            tokio::task::yield_now().await;
            self.yielded_at = began;
            self.shard
                .state
                .borrow()
                .metrics
                .add(Counter::RuntimeVisits, 1);
            self.shard.run_calls();
            self.handlers.run_due(&self.shard);
        }
        self.run_homes();
        self.shard.state.borrow_mut().tell_presence();
        let flushed = self.flush();
        let mut state = self.shard.state.borrow_mut();
        state.posts.flush();
        state.metrics.add(Counter::Turns, 1);
        let gave_out = state.share.is_used();
        drop(state);
        let worked = received || flushed || self.has_waiting();
        if worked {
            let us = us_since(began);
            self.shard.recorder.record(Timing::Turn, us);
            if gave_out {
                self.shard.recorder.record(Timing::FanOut, us);
            }
        }
        self.shard.state.borrow_mut().renew_some();
        self.measure();
        worked
    }

    /// Whether the runtime has had no look at its tasks and sockets for too long. A look is a system
    /// call, so short turns share one, and a turn that has nothing to do makes none: a sleep follows
    /// it, which is a look.
    fn owes_runtime_a_visit(&self, now: Instant, received: bool) -> bool {
        if self.handlers.is_awake() {
            // An awake handler has been polled already and gave way.
            return true;
        }
        if us_between(self.yielded_at, now) < RUNTIME_US_MAX {
            return false;
        }
        received
            || self.has_waiting()
            || self.shard.state.borrow().has_work()
            || self.polls_busily()
    }

    /// Whether something that was taken already is left for the next turn.
    fn has_waiting(&self) -> bool {
        !self.pending.is_empty() || !self.commands.is_empty() || !self.greetings.is_empty()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        CLOCK_START_MS + elapsed
    }

    pub(crate) fn now_us(&self) -> u64 {
        CLOCK_START_MS * 1_000 + us_since(self.started)
    }

    /// Time in which the shard did not run, in a sleep that ended late or in a handler that held it,
    /// is nobody's who is connected.
    fn read_clock(&mut self) {
        let now_ms = self.now_ms();
        let late_ms = now_ms.saturating_sub(self.awaited_ms);
        self.awaited_ms = now_ms;
        let mut state = self.shard.state.borrow_mut();
        state.now_ms = now_ms;
        if LOST_MS_MIN < late_ms {
            state.lost_ms += late_ms;
        }
    }

    /// Homes and logs see everything that came in this turn, and what they say goes out in it.
    fn run_homes(&mut self) {
        let monotonic_us = self.now_us();
        let mut state = self.shard.state.borrow_mut();
        let due = state
            .homes
            .deadline_us()
            .is_some_and(|due_us| due_us <= monotonic_us);
        if due || state.homes.has_work() {
            let clock = Clock {
                monotonic_us,
                unix_ms: unix_ms(),
            };
            let hands = (&mut self.ring, &mut self.files);
            state.run_homes(clock, hands, &self.shard.recorder);
        }
    }

    /// What was sent is known before anything is processed: who has taken it has no backlog.
    pub(crate) fn reap(&mut self) {
        let count_max = self.shard.state.borrow().live.limits.turn_completions_max;
        let mut completions = std::mem::take(&mut self.completions);
        let room = (2 * count_max).saturating_sub(self.pending.len());
        self.ring.reap(room, &mut completions);
        for completion in completions.drain(..) {
            match completion.token {
                Token::Send { index } => self.handle_sent(index, completion.result),
                _ => self.pending.push_back(completion),
            }
        }
        self.completions = completions;
    }

    /// What other shards caused is seen before what was received (see the causal chain in
    /// ARCHITECTURE.md).
    fn drain_mailboxes(&mut self) {
        if self.commands.is_empty() {
            let mut state = self.shard.state.borrow_mut();
            let count_max = state.live.limits.turn_completions_max;
            state.posts.mailboxes().drain(count_max, &mut self.commands);
        }
        while let Some(command) = self.commands.pop_front() {
            self.handle_command(command);
            if self.shard.state.borrow().share.is_full() {
                // The rest is given out when this is on its way.
                return;
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Adopt(accepted) => self.adopt(accepted),
            Command::Home(job) => self.shard.state.borrow_mut().run_home(job),
            Command::Relay(effect) => self.shard.state.borrow_mut().carry_out(effect),
            Command::Registry(post) => self.shard.handle_post(post),
            Command::Engine(ask) => {
                let now_ms = self.now_ms();
                self.shard.handle_engine(ask, now_ms, self.readers.json());
            }
            Command::Asks(asks) => self.shard.state.borrow_mut().handle_asks(asks),
            Command::Told(told) => self.shard.state.borrow_mut().handle_told(told),
            Command::Run(job) => job(&mut self.shard.state.borrow_mut()),
            Command::Reload(live) => self.reload(live),
            Command::Accept => self.accept(),
            Command::Drain => self.drain(),
        }
        self.shard.run_calls();
    }

    /// What was kept and what has come, by turns, so that neither waits for the other.
    fn process(&mut self) -> bool {
        if !self.commands.is_empty() {
            // What another shard caused is seen first.
            return false;
        }
        let (mut kept, us_max) = {
            let state = self.shard.state.borrow();
            (state.kept.len(), state.live.limits.turn_us_max)
        };
        let worked = !self.pending.is_empty() || 0 < kept || !self.greetings.is_empty();
        self.greet_next();
        self.until = now() + Duration::from_micros(us_max);
        for count in 1.. {
            let completion = self.pending.pop_front();
            let key = match kept {
                0 => None,
                _ => self.shard.state.borrow_mut().kept.pop_front(),
            };
            kept = kept.saturating_sub(1);
            if completion.is_none() && key.is_none() {
                break;
            }
            completion
                .into_iter()
                .for_each(|it| self.handle_completion(it));
            key.into_iter().for_each(|it| self.decode_kept(it));
            if count % CLOCK_COMPLETIONS == 0 && self.until <= now() {
                break;
            }
        }
        worked
    }

    fn handle_completion(&mut self, completion: Completion) {
        match completion.token {
            Token::Accept { listener } => self.handle_accept(listener, completion),
            Token::Receive(key) => self.handle_receive(key, completion),
            // Those are dealt with as they are reaped.
            Token::Send { .. } => {}
            Token::File { index } => self.handle_file(index, completion.result),
            Token::Cancel | Token::Wake => {}
        }
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
            self.shard.state.borrow_mut().meet_deadline(key, tick);
        }
        self.due = due_keys;
        if self.accept_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.accept_at_ms = None;
            self.accept_again();
        }
    }

    /// Waits for the ring, a wake-up, or the next deadline.
    async fn sleep(&mut self, mut sleep: Pin<&mut Sleep>) {
        self.wake_soon();
        self.read_clock();
        let deadline_ms = self.next_deadline_ms();
        self.awaited_ms = deadline_ms;
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
        self.yielded_at = now();
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
            let posted = !state.posts.mailboxes().is_empty();
            if posted || state.has_work() || self.handlers.is_awake() {
                return Poll::Ready(());
            }
        }
        if self.ring.is_ready() {
            return Poll::Ready(());
        }
        runtime::watch_sleep(cx.waker());
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
        let look_ms = if self.quiet || state.is_spreading() {
            drain::LOOK_MS
        } else {
            IDLE_MS_MAX
        };
        let idle_ms = state.now_ms + look_ms;
        let wheel_ms = state.wheel.next_ms().unwrap_or(idle_ms);
        let accept_ms = self.accept_at_ms.unwrap_or(idle_ms);
        // What waits behind a full mailbox is tried again soon.
        let behind_ms = if state.posts.is_behind() {
            state.now_ms + 1
        } else {
            idle_ms
        };
        let log_ms = state
            .homes
            .deadline_us()
            .map_or(idle_ms, |us| us.div_ceil(1_000));
        wheel_ms
            .min(accept_ms)
            .min(log_ms)
            .min(behind_ms)
            .min(idle_ms)
            .max(CLOCK_START_MS)
    }
}

/// A shard with nothing to do looks around this often.
const IDLE_MS_MAX: u64 = 1_000;
