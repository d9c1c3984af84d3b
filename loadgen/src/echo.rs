//! Echo: every connection sends messages and gets them back. Closed loop at a depth, or open loop
//! with a due time for each message.

use anyhow::{Result, ensure};
use loadgen::ring::{Completion, Ring, TaskWork};

use crate::clock::Nanos;
use crate::connection::Connection;
use crate::drive::{Drive, drive};
use crate::latency::Latencies;
use crate::options::Echo;
use crate::report::{Load, Report};
use crate::run::{self, Job, Progress, Tally, Window};
use crate::schedule::Schedule;
use crate::setup;
use crate::stream::Stream;
use crate::ways::Ways;

/// Runs the load and reports.
pub(crate) fn run(options: &Echo) -> Result<Report> {
    ensure!(0 < options.connections, "--connections must be at least 1");
    let mut target = options.common.target(&options.path)?;
    let ways = &options.common.ways;
    ensure!(
        !options.raw || (ways.tls.is_none() && !ways.deflate && !ways.socketio),
        "--raw is plain TCP: leave out --tls, --deflate and --socketio"
    );
    target.raw = options.raw;
    let streams = setup::open(&target, options.connections)?;
    let plan = Plan::new(options);
    let jobs = deal(streams, usize::from(options.threads))
        .into_iter()
        .map(|streams| {
            let plan = &plan;
            let job: Job<'_> = Box::new(move |window, progress| {
                Worker::new(plan, streams, window)?.drive(progress)
            });
            job
        });
    let measured = run::measure(&options.common, jobs.collect())?;
    let load = Load {
        mode: "echo",
        unit: "message",
        path: if options.raw {
            "raw TCP".into()
        } else {
            options.path.clone()
        },
        connections: options.connections,
        at_once: u64::from(options.depth),
        message_bytes: options.payload().1.len(),
        offered_per_second: options.rate,
    };
    Ok(Report::new(&options.common, load, &measured))
}

/// What all threads share.
struct Plan {
    /// The same frame many times over: a send is a slice of it.
    frames: &'static [u8],
    frame_bytes: usize,
    payload_bytes: u64,
    connections: usize,
    depth: u64,
    rate: Option<f64>,
    buffer_bytes: usize,
    ways: Ways,
}

impl Plan {
    fn new(options: &Echo) -> Self {
        let (opcode, payload) = options.payload();
        let ways = options.common.ways.clone();
        let frame = ways.frame(opcode, &payload);
        let at_once = usize::from(options.depth).max(OPEN_LOOP_BATCH_MAX);
        let round_bytes = usize::from(options.depth) * frame.len();
        Self {
            frames: Vec::leak(frame.repeat(at_once)),
            frame_bytes: frame.len(),
            payload_bytes: payload.len() as u64,
            connections: options.connections,
            depth: u64::from(options.depth),
            rate: options.rate,
            buffer_bytes: round_bytes
                .next_power_of_two()
                .clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX),
            ways,
        }
    }
}

/// Splits the connections among threads.
fn deal(streams: Vec<Stream>, threads: usize) -> Vec<Vec<Stream>> {
    let mut hands: Vec<Vec<Stream>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, stream) in streams.into_iter().enumerate() {
        hands[number % threads].push(stream);
    }
    hands.retain(|hand| !hand.is_empty());
    hands
}

struct Echoing {
    connection: Connection,
    /// Messages that are due and not sent.
    due: u64,
    /// Closed loop: messages of this round still to come back.
    outstanding: u64,
    round_began: Nanos,
    received: u64,
}

struct Worker<'a> {
    plan: &'a Plan,
    window: Window,
    ring: Ring,
    connections: Vec<Echoing>,
    schedule: Option<Schedule>,
    messages: u64,
    wrong: u64,
    round_trip: Latencies,
    lateness: Latencies,
}

impl<'a> Worker<'a> {
    fn new(plan: &'a Plan, streams: Vec<Stream>, window: Window) -> Result<Self> {
        let mut ring = Ring::new(TaskWork::Deferred, plan.buffer_bytes, streams.len())?;
        let share = streams.len() as f64 / plan.connections as f64;
        let schedule = plan
            .rate
            .map(|rate| Schedule::new(window.start, rate * share));
        let mut connections = Vec::with_capacity(streams.len());
        for (stream, id) in streams.into_iter().zip(0..) {
            let connection = Connection::arm(stream, &plan.ways, &mut ring, id)?;
            let (due, outstanding, received) = (0, 0, 0);
            connections.push(Echoing {
                connection,
                due,
                outstanding,
                round_began: 0,
                received,
            });
        }
        let round_trip = Latencies::new("round trip")?;
        let lateness = Latencies::new("own lateness")?;
        let (messages, wrong) = (0, 0);
        Ok(Self {
            plan,
            window,
            ring,
            connections,
            schedule,
            messages,
            wrong,
            round_trip,
            lateness,
        })
    }

    fn drive(mut self, progress: &Progress) -> Result<Tally> {
        drive(self.window, &mut self, progress)?;
        let mut latencies = vec![self.round_trip];
        latencies.extend(self.schedule.map(|_| self.lateness));
        let (messages, wrong) = (self.messages, self.wrong);
        Ok(Tally {
            messages,
            wrong,
            latencies,
            ..Tally::default()
        })
    }

    fn record(&mut self, index: usize, now: Nanos, returned: u64) {
        let peer = &self.connections[index];
        let Some(schedule) = self.schedule else {
            return self.round_trip.record(now - peer.round_began, returned);
        };
        let connections = self.connections.len() as u64;
        for turn in peer.received..peer.received + returned {
            let due = schedule.due(index as u64 + turn * connections);
            self.round_trip.record(now.saturating_sub(due), 1);
        }
    }

    fn start_round(&mut self, index: usize) -> Result<()> {
        let peer = &mut self.connections[index];
        peer.outstanding = self.plan.depth;
        peer.due = self.plan.depth;
        peer.round_began = self.window.clock.now();
        self.flush(index)
    }

    fn flush(&mut self, index: usize) -> Result<()> {
        let peer = &mut self.connections[index];
        if peer.due == 0 || peer.connection.is_sending() {
            return Ok(());
        }
        let at_once = peer
            .due
            .min((self.plan.frames.len() / self.plan.frame_bytes) as u64);
        peer.due -= at_once;
        let bytes = &self.plan.frames[..usize::try_from(at_once)? * self.plan.frame_bytes];
        peer.connection
            .send(&mut self.ring, bytes, u32::try_from(index)?)
    }
}

impl Drive for Worker<'_> {
    fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    fn messages(&self) -> u64 {
        self.messages
    }

    fn schedule(&mut self) -> Option<&mut Schedule> {
        self.schedule.as_mut()
    }

    fn begin(&mut self, _: Nanos) -> Result<()> {
        (0..self.connections.len()).try_for_each(|index| self.start_round(index))
    }

    /// The connections take turns.
    fn send(&mut self, number: usize, due: Nanos, now: Nanos) -> Result<()> {
        if self.window.holds(now) {
            self.lateness.record(now - due, 1);
        }
        let index = number % self.connections.len();
        self.connections[index].due += 1;
        self.flush(index)
    }

    fn handle_received(&mut self, completion: &Completion) -> Result<()> {
        let index = completion.id as usize;
        let (mut returned, mut wrong, expected) = (0, 0, self.plan.payload_bytes);
        let peer = &mut self.connections[index];
        peer.connection
            .take(&mut self.ring, completion, |message| {
                returned += 1;
                wrong += u64::from(!message.is_of(expected));
            })?;
        self.wrong += wrong;
        let now = self.window.clock.now();
        if self.window.holds(now) {
            self.messages += returned;
            self.record(index, now, returned);
        }
        let peer = &mut self.connections[index];
        peer.received += returned;
        if self.schedule.is_none() && 0 < returned {
            peer.outstanding = peer.outstanding.saturating_sub(returned);
            if peer.outstanding == 0 {
                return self.start_round(index);
            }
        }
        Ok(())
    }

    fn handle_sent(&mut self, completion: &Completion) -> Result<()> {
        let index = completion.id as usize;
        let connection = &mut self.connections[index].connection;
        connection.sent(&mut self.ring, completion)?;
        self.flush(index)
    }
}

/// What an open loop that fell behind sends at once on one connection.
const OPEN_LOOP_BATCH_MAX: usize = 16;
const BUFFER_BYTES_MIN: usize = 4 << 10;
const BUFFER_BYTES_MAX: usize = 64 << 10;
