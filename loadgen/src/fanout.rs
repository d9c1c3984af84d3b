//! Fan-out: one publisher of a relay topic, many subscribers. The publisher is one of them, as the
//! relay's rules want it. Counts `push` messages by their length and does not read them.

use std::collections::VecDeque;
use std::net::TcpStream;

use anyhow::{Result, bail, ensure};
use loadgen::ring::{Completion, Ring, TaskWork};
use serde_json::json;

use crate::clock::Nanos;
use crate::connection::Connection;
use crate::drive::{Drive, drive};
use crate::frame;
use crate::latency::Latencies;
use crate::options::Fanout;
use crate::report::{Load, Report};
use crate::run::{self, Progress, Tally, Window};
use crate::schedule::Schedule;
use crate::{setup, socket};

/// Runs the load and reports.
pub(crate) fn run(options: &Fanout) -> Result<Report> {
    ensure!(0 < options.connections, "--connections must be at least 1");
    let plan = Plan::new(options)?;
    let mut streams = setup::open(&options.common.target(&options.path), options.connections)?;
    let subscribe = socket::subscribe_frame(&options.topic);
    streams
        .iter_mut()
        .try_for_each(|stream| socket::exchange(stream, &subscribe))?;
    let job =
        |window: Window, progress: &Progress| Worker::new(&plan, streams, window)?.drive(progress);
    let measured = run::measure(&options.common, vec![Box::new(job)])?;
    let load = Load {
        mode: "fanout",
        unit: "delivery",
        path: options.path.clone(),
        connections: options.connections,
        at_once: u64::from(options.burst),
        message_bytes: options.bytes,
        offered_per_second: options.rate.map(|rate| rate * options.connections as f64),
    };
    Ok(Report::new(&options.common, load, &measured))
}

struct Plan {
    /// The frames of one burst.
    burst: &'static [u8],
    burst_messages: u64,
    push_bytes: u64,
    bursts_per_second: Option<f64>,
    buffer_bytes: usize,
}

impl Plan {
    fn new(options: &Fanout) -> Result<Self> {
        let push = |payload: &str| {
            json!({"type": "push", "topic": options.topic, "event": "e", "payload": payload})
                .to_string()
        };
        let envelope_bytes = push("").len();
        ensure!(
            envelope_bytes <= options.bytes,
            "--bytes {} is less than the {envelope_bytes} bytes of an empty push",
            options.bytes
        );
        let payload = "x".repeat(options.bytes - envelope_bytes);
        let message =
            json!({"type": "message", "topic": options.topic, "event": "e", "payload": payload});
        let frame = frame::masked(frame::TEXT, message.to_string().as_bytes());
        let burst = frame.repeat(usize::from(options.burst));
        let buffer_bytes = burst
            .len()
            .next_power_of_two()
            .clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        Ok(Self {
            burst: burst.leak(),
            burst_messages: u64::from(options.burst),
            push_bytes: options.bytes as u64,
            bursts_per_second: options.rate.map(|rate| rate / f64::from(options.burst)),
            buffer_bytes,
        })
    }
}

struct Subscriber {
    connection: Connection,
    received: u64,
}

/// A burst on its way: when it was sent, or due, and how many of its messages still are to come.
struct Burst {
    began: Nanos,
    left: u64,
}

struct Worker<'a> {
    plan: &'a Plan,
    window: Window,
    ring: Ring,
    subscribers: Vec<Subscriber>,
    schedule: Option<Schedule>,
    /// Bursts that are due and not sent.
    due: u64,
    flying: VecDeque<Burst>,
    /// Bursts that every subscriber has got.
    landed: u64,
    moved: Nanos,
    tally: Tally,
}

impl<'a> Worker<'a> {
    fn new(plan: &'a Plan, streams: Vec<TcpStream>, window: Window) -> Result<Self> {
        let mut ring = Ring::new(TaskWork::Deferred, plan.buffer_bytes, streams.len())?;
        let mut subscribers = Vec::with_capacity(streams.len());
        for (stream, id) in streams.into_iter().zip(0..) {
            let connection = Connection::arm(stream, &mut ring, id)?;
            subscribers.push(Subscriber {
                connection,
                received: 0,
            });
        }
        let schedule = plan
            .bursts_per_second
            .map(|rate| Schedule::new(window.start, rate));
        let latencies = ["first", "delivery", "last"].map(Latencies::new);
        let latencies = latencies.into_iter().collect::<Result<_>>()?;
        let tally = Tally {
            latencies,
            ..Tally::default()
        };
        let (due, landed, moved) = (0, 0, window.start);
        let flying = VecDeque::new();
        Ok(Self {
            plan,
            window,
            ring,
            subscribers,
            schedule,
            due,
            flying,
            landed,
            moved,
            tally,
        })
    }

    fn drive(mut self, progress: &Progress) -> Result<Tally> {
        drive(self.window, &mut self, progress)?;
        Ok(self.tally)
    }

    /// One subscriber has got its message number `message`.
    fn deliver(&mut self, message: u64, now: Nanos) {
        let number = message / self.plan.burst_messages - self.landed;
        let burst = usize::try_from(number)
            .ok()
            .and_then(|at| self.flying.get_mut(at));
        let Some(burst) = burst else {
            // More messages than were published.
            self.tally.wrong += 1;
            return;
        };
        let all = self.plan.burst_messages * self.subscribers.len() as u64;
        let first = burst.left == all;
        burst.left -= 1;
        if !self.window.holds(now) {
            return;
        }
        let latency = now.saturating_sub(burst.began);
        self.tally.messages += 1;
        let seen = [first, true, burst.left == 0];
        for (series, seen) in self.tally.latencies.iter_mut().zip(seen) {
            series.record(latency, u64::from(seen));
        }
    }

    fn publish(&mut self, began: Nanos) -> Result<()> {
        let left = self.plan.burst_messages * self.subscribers.len() as u64;
        self.flying.push_back(Burst { began, left });
        self.due += 1;
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let publisher = &mut self.subscribers[0].connection;
        if self.due == 0 || publisher.is_sending() {
            return Ok(());
        }
        self.due -= 1;
        publisher.send(&mut self.ring, self.plan.burst, 0)
    }
}

impl Drive for Worker<'_> {
    fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    fn messages(&self) -> u64 {
        self.tally.messages
    }

    fn schedule(&mut self) -> Option<&mut Schedule> {
        self.schedule.as_mut()
    }

    fn begin(&mut self, now: Nanos) -> Result<()> {
        self.publish(now)
    }

    fn send(&mut self, _: usize, due: Nanos, _: Nanos) -> Result<()> {
        self.publish(due)
    }

    fn handle_received(&mut self, completion: &Completion) -> Result<()> {
        let index = completion.id as usize;
        let (mut delivered, mut wrong, expected) = (0, 0, self.plan.push_bytes);
        let subscriber = &mut self.subscribers[index];
        subscriber
            .connection
            .take(&mut self.ring, completion, |bytes| {
                delivered += u64::from(bytes == expected);
                wrong += u64::from(bytes != expected);
            })?;
        self.tally.wrong += wrong;
        let first = subscriber.received;
        subscriber.received += delivered;
        let now = self.window.clock.now();
        self.moved = if 0 < delivered { now } else { self.moved };
        (first..first + delivered).for_each(|message| self.deliver(message, now));
        while self.flying.front().is_some_and(|burst| burst.left == 0) {
            self.flying.pop_front();
            self.landed += 1;
            if self.schedule.is_none() {
                self.publish(self.window.clock.now())?;
            }
        }
        Ok(())
    }

    fn handle_sent(&mut self, completion: &Completion) -> Result<()> {
        let connection = &mut self.subscribers[completion.id as usize].connection;
        connection.sent(&mut self.ring, completion)?;
        self.flush()
    }

    /// A message that the server dropped would hold up a closed loop for ever.
    fn check_progress(&self, now: Nanos) -> Result<()> {
        if self.flying.is_empty() || now < self.moved + STALL_MAX {
            return Ok(());
        }
        let left: u64 = self.flying.iter().map(|burst| burst.left).sum();
        bail!(
            "no delivery for 3 s: {left} messages never came; {} frames were no push",
            self.tally.wrong
        )
    }
}

const BUFFER_BYTES_MIN: usize = 4 << 10;
const BUFFER_BYTES_MAX: usize = 64 << 10;
const STALL_MAX: Nanos = 3_000_000_000;
