//! Fan-out: one publisher of a relay topic, many subscribers; or many such topics. The publisher is
//! one of the subscribers, as the relay's rules want it. Counts `push` messages by their length and does not read them.

use std::collections::VecDeque;

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
use crate::stream::Stream;
use crate::ways::Ways;
use crate::{setup, socket};

/// Runs the load and reports.
pub(crate) fn run(options: &Fanout) -> Result<Report> {
    let topics = topics(options)?;
    let plan = Plan::new(options, &topics)?;
    let mut streams = setup::open(&options.common.target(&options.path)?, options.connections)?;
    let rooms = topics.iter().zip(streams.chunks_mut(plan.room_size));
    for (topic, members) in rooms {
        let subscribe = socket::subscribe_frame(topic, &plan.ways);
        members
            .iter_mut()
            .try_for_each(|stream| socket::exchange(stream, &subscribe))?;
    }
    let offered = options.rate.map(|rate| rate * plan.room_size as f64);
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
        offered_per_second: offered,
    };
    Ok(Report::new(&options.common, load, &measured))
}

/// The names of the topics, all of one length, so that their messages are too.
fn topics(options: &Fanout) -> Result<Vec<String>> {
    let count = options.topics as usize;
    ensure!(
        0 < options.connections && options.connections.is_multiple_of(count),
        "--connections {} is not a multiple of --topics {count}",
        options.connections
    );
    if count == 1 {
        return Ok(vec![options.topic.clone()]);
    }
    let digits = (count - 1).to_string().len();
    let name = |number| format!("{}-{number:0digits$}", options.topic);
    Ok((0..count).map(name).collect())
}

struct Plan {
    /// The frames of one burst, for each topic.
    bursts: Vec<&'static [u8]>,
    burst_messages: u64,
    push_bytes: u64,
    bursts_per_second: Option<f64>,
    /// Bursts of a room on their way at once.
    window: u16,
    /// Members of a room; the first of them publishes.
    room_size: usize,
    buffer_bytes: usize,
    ways: Ways,
}

impl Plan {
    fn new(options: &Fanout, topics: &[String]) -> Result<Self> {
        let bursts = topics.iter().map(|topic| burst(options, topic));
        let bursts = bursts.collect::<Result<Vec<_>>>()?;
        let buffer_bytes = bursts[0]
            .len()
            .next_power_of_two()
            .clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        Ok(Self {
            bursts,
            burst_messages: u64::from(options.burst),
            push_bytes: options.bytes as u64,
            bursts_per_second: options.rate.map(|rate| rate / f64::from(options.burst)),
            window: options.window,
            room_size: options.connections / topics.len(),
            buffer_bytes,
            ways: options.common.ways.clone(),
        })
    }
}

/// The frames that publish a burst, each of which becomes a push of the wanted size.
fn burst(options: &Fanout, topic: &str) -> Result<&'static [u8]> {
    let ways = &options.common.ways;
    let push = json!({"type": "push", "topic": topic, "event": "e", "payload": ""});
    let envelope_bytes = match ways.socketio {
        true => r#"42["said",""]"#.len(),
        false => push.to_string().len(),
    };
    ensure!(
        envelope_bytes <= options.bytes,
        "--bytes {} is less than the {envelope_bytes} bytes of an empty push",
        options.bytes
    );
    let payload = ways.filler(options.bytes - envelope_bytes);
    let text = match ways.socketio {
        true => format!("42{}", json!(["say", topic, payload])),
        false => {
            json!({"type": "message", "topic": topic, "event": "e", "payload": payload}).to_string()
        }
    };
    let frame = ways.frame(frame::TEXT, text.as_bytes());
    Ok(frame.repeat(usize::from(options.burst)).leak())
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

/// One topic.
#[derive(Default)]
struct Room {
    /// Bursts that are due and not sent.
    due: u64,
    flying: VecDeque<Burst>,
    /// Bursts that every subscriber has got.
    landed: u64,
}

struct Worker<'a> {
    plan: &'a Plan,
    window: Window,
    ring: Ring,
    subscribers: Vec<Subscriber>,
    rooms: Vec<Room>,
    schedule: Option<Schedule>,
    moved: Nanos,
    tally: Tally,
}

impl<'a> Worker<'a> {
    fn new(plan: &'a Plan, streams: Vec<Stream>, window: Window) -> Result<Self> {
        let mut ring = Ring::new(TaskWork::Deferred, plan.buffer_bytes, streams.len())?;
        let mut subscribers = Vec::with_capacity(streams.len());
        for (stream, id) in streams.into_iter().zip(0..) {
            let connection = Connection::arm(stream, &plan.ways, &mut ring, id)?;
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
        let rooms = plan.bursts.iter().map(|_| Room::default()).collect();
        Ok(Self {
            plan,
            window,
            ring,
            subscribers,
            rooms,
            schedule,
            moved: window.start,
            tally,
        })
    }

    fn drive(mut self, progress: &Progress) -> Result<Tally> {
        drive(self.window, &mut self, progress)?;
        Ok(self.tally)
    }

    /// Messages of a burst to all members of a room.
    fn deliveries(&self) -> u64 {
        self.plan.burst_messages * self.plan.room_size as u64
    }

    /// One subscriber of a room has got its message number `message`.
    fn deliver(&mut self, room: usize, message: u64, now: Nanos) {
        let all = self.deliveries();
        let room = &mut self.rooms[room];
        let number = message / self.plan.burst_messages - room.landed;
        let burst = usize::try_from(number)
            .ok()
            .and_then(|at| room.flying.get_mut(at));
        let Some(burst) = burst else {
            // More messages than were published.
            self.tally.wrong += 1;
            return;
        };
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

    fn publish(&mut self, number: usize, began: Nanos) -> Result<()> {
        let left = self.deliveries();
        let room = &mut self.rooms[number];
        room.flying.push_back(Burst { began, left });
        room.due += 1;
        self.flush(number)
    }

    fn flush(&mut self, number: usize) -> Result<()> {
        let index = number * self.plan.room_size;
        let publisher = &mut self.subscribers[index].connection;
        let room = &mut self.rooms[number];
        if room.due == 0 || publisher.is_sending() {
            return Ok(());
        }
        room.due -= 1;
        publisher.send(
            &mut self.ring,
            self.plan.bursts[number],
            u32::try_from(index)?,
        )
    }

    /// Bursts that all have got make room for the next ones of a closed loop.
    fn land(&mut self, number: usize) -> Result<()> {
        while let Some(0) = self.rooms[number].flying.front().map(|burst| burst.left) {
            self.rooms[number].flying.pop_front();
            self.rooms[number].landed += 1;
            if self.schedule.is_none() {
                self.publish(number, self.window.clock.now())?;
            }
        }
        Ok(())
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
        for _ in 0..self.plan.window {
            (0..self.rooms.len()).try_for_each(|number| self.publish(number, now))?;
        }
        Ok(())
    }

    /// The rooms take turns.
    fn send(&mut self, number: usize, due: Nanos, _: Nanos) -> Result<()> {
        self.publish(number % self.rooms.len(), due)
    }

    fn handle_received(&mut self, completion: &Completion) -> Result<()> {
        let index = completion.id as usize;
        let (mut delivered, mut wrong, expected) = (0, 0, self.plan.push_bytes);
        let subscriber = &mut self.subscribers[index];
        subscriber
            .connection
            .take(&mut self.ring, completion, |message| {
                delivered += u64::from(message.is_of(expected));
                wrong += u64::from(!message.is_of(expected));
            })?;
        self.tally.wrong += wrong;
        let first = subscriber.received;
        subscriber.received += delivered;
        let now = self.window.clock.now();
        self.moved = if 0 < delivered { now } else { self.moved };
        let room = index / self.plan.room_size;
        (first..first + delivered).for_each(|message| self.deliver(room, message, now));
        self.land(room)
    }

    fn handle_sent(&mut self, completion: &Completion) -> Result<()> {
        let index = completion.id as usize;
        let connection = &mut self.subscribers[index].connection;
        connection.sent(&mut self.ring, completion)?;
        self.flush(index / self.plan.room_size)
    }

    /// A message that the server dropped would hold up a closed loop for ever.
    fn check_progress(&self, now: Nanos) -> Result<()> {
        let flying = self.rooms.iter().flat_map(|room| &room.flying);
        let left: u64 = flying.map(|burst| burst.left).sum();
        if left == 0 || now < self.moved + STALL_MAX {
            return Ok(());
        }
        bail!(
            "no delivery for 3 s: {left} messages never came; {} frames were no push",
            self.tally.wrong
        )
    }
}

const BUFFER_BYTES_MIN: usize = 4 << 10;
const BUFFER_BYTES_MAX: usize = 64 << 10;
const STALL_MAX: Nanos = 3_000_000_000;
