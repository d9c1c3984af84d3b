//! Publishers on durable topics. Each keeps a window of publishes un-acked, or publishes when one
//! is due; acks come in the order of the publishes, so they are counted and not read.

use std::collections::VecDeque;

use anyhow::{Result, bail};
use loadgen::ring::{Completion, Ring, TaskWork};

use super::client::{make_topics, publish_frame};
use super::disk::Disk;
use super::options::Publish;
use crate::clock::Nanos;
use crate::connection::Connection;
use crate::drive::{Drive, drive};
use crate::latency::Latencies;
use crate::report::{Load, Report};
use crate::run::{self, Progress, Tally, Window};
use crate::schedule::Schedule;
use crate::setup;
use crate::stream::Stream;
use crate::ways::Ways;

/// Runs the load and reports.
pub(crate) fn run(options: &Publish) -> Result<Report> {
    let place = &options.place;
    let plan = Plan::new(options)?;
    make_topics(place, &plan.topics, |_| ())?;
    let mut disk = place.data_dir.as_deref().map(Disk::new).transpose()?;
    disk.iter_mut().try_for_each(Disk::probe)?;
    let streams = setup::open(&place.common.target(&place.path)?, plan.windows.len())?;
    let job =
        |window: Window, progress: &Progress| Worker::new(&plan, streams, window)?.drive(progress);
    let measured = run::measure(&place.common, vec![Box::new(job)])?;
    disk.iter_mut().try_for_each(Disk::probe)?;
    let load = Load {
        mode: "durable publish",
        unit: "publish",
        path: place.path.clone(),
        connections: plan.windows.len(),
        at_once: u64::from(options.in_flight),
        message_bytes: usize::try_from(options.bytes)?,
        offered_per_second: options.rate,
    };
    let report = Report::new(&place.common, load, &measured);
    Ok(match disk {
        Some(disk) => report.with_disk(disk.latencies()),
        None => report,
    })
}

struct Plan {
    topics: Vec<String>,
    /// What each connection may have un-acked.
    windows: Vec<usize>,
    /// As many frames as fit into the largest window, for each topic.
    frames: Vec<&'static [u8]>,
    frame_bytes: usize,
    rate: Option<f64>,
}

impl Plan {
    fn new(options: &Publish) -> Result<Self> {
        let in_flight = usize::try_from(options.in_flight)?;
        let connections = usize::from(options.connections).min(in_flight);
        let windows: Vec<usize> = (0..connections)
            .map(|number| (in_flight + number) / connections)
            .collect();
        let largest = windows.iter().copied().max().unwrap_or(1);
        let topics: Vec<String> = (0..options.topics)
            .map(|number| format!("{}-{number:05}", options.place.topic))
            .collect();
        let bytes = usize::try_from(options.bytes)?;
        let frames: Vec<Vec<u8>> = topics
            .iter()
            .map(|topic| publish_frame(topic, bytes))
            .collect();
        Ok(Self {
            frame_bytes: frames.first().map_or(0, Vec::len),
            frames: frames
                .iter()
                .map(|frame| frame.repeat(largest).leak() as &_)
                .collect(),
            topics,
            windows,
            rate: options.rate,
        })
    }
}

struct Publisher {
    connection: Connection,
    frames: &'static [u8],
    window: usize,
    /// Publishes that are due and not sent: when they were due.
    due: VecDeque<Nanos>,
    /// When the un-acked ones were sent, or due.
    flying: VecDeque<Nanos>,
}

struct Worker<'a> {
    plan: &'a Plan,
    window: Window,
    ring: Ring,
    publishers: Vec<Publisher>,
    schedule: Option<Schedule>,
    moved: Nanos,
    tally: Tally,
}

impl<'a> Worker<'a> {
    fn new(plan: &'a Plan, streams: Vec<Stream>, window: Window) -> Result<Self> {
        let mut ring = Ring::new(TaskWork::Deferred, BUFFER_BYTES, streams.len())?;
        let mut publishers = Vec::with_capacity(streams.len());
        for ((stream, id), in_flight) in streams.into_iter().zip(0..).zip(&plan.windows) {
            publishers.push(Publisher {
                connection: Connection::arm(stream, &Ways::default(), &mut ring, id)?,
                frames: plan.frames[publishers.len() % plan.frames.len()],
                window: *in_flight,
                due: VecDeque::new(),
                flying: VecDeque::new(),
            });
        }
        Ok(Self {
            plan,
            window,
            ring,
            publishers,
            schedule: plan.rate.map(|rate| Schedule::new(window.start, rate)),
            moved: window.start,
            tally: Tally {
                latencies: vec![Latencies::new("ack")?],
                ..Tally::default()
            },
        })
    }

    fn drive(mut self, progress: &Progress) -> Result<Tally> {
        drive(self.window, &mut self, progress)?;
        Ok(self.tally)
    }

    /// Sends what is due in one piece.
    fn flush(&mut self, index: usize) -> Result<()> {
        let publisher = &mut self.publishers[index];
        if publisher.due.is_empty() || publisher.connection.is_sending() {
            return Ok(());
        }
        let count = publisher.due.len().min(publisher.window);
        publisher.flying.extend(publisher.due.drain(..count));
        let bytes = &publisher.frames[..count * self.plan.frame_bytes];
        let id = u32::try_from(index)?;
        publisher.connection.send(&mut self.ring, bytes, id)
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
        for index in 0..self.publishers.len() {
            let window = self.publishers[index].window;
            self.publishers[index].due.extend((0..window).map(|_| now));
            self.flush(index)?;
        }
        Ok(())
    }

    /// The publishers take turns.
    fn send(&mut self, number: usize, due: Nanos, _: Nanos) -> Result<()> {
        let index = number % self.publishers.len();
        self.publishers[index].due.push_back(due);
        self.flush(index)
    }

    fn handle_received(&mut self, completion: &Completion) -> Result<()> {
        let index = completion.id as usize;
        let (mut acks, mut wrong) = (0, 0);
        let publisher = &mut self.publishers[index];
        publisher
            .connection
            .take(&mut self.ring, completion, |message| {
                let is_ack = message.is_at_most(ACK_BYTES_MAX);
                acks += u64::from(is_ack);
                wrong += u64::from(!is_ack);
            })?;
        self.tally.wrong += wrong;
        let now = self.window.clock.now();
        self.moved = now;
        for _ in 0..acks {
            let Some(began) = publisher.flying.pop_front() else {
                bail!("an ack that no publish waits for");
            };
            if self.window.holds(now) {
                self.tally.messages += 1;
                self.tally.latencies[0].record(now.saturating_sub(began), 1);
            }
            if self.schedule.is_none() {
                publisher.due.push_back(now);
            }
        }
        self.flush(index)
    }

    fn handle_sent(&mut self, completion: &Completion) -> Result<()> {
        let index = completion.id as usize;
        let connection = &mut self.publishers[index].connection;
        connection.sent(&mut self.ring, completion)?;
        self.flush(index)
    }

    /// A publish that is never acked would hold up a closed loop for ever.
    fn check_progress(&self, now: Nanos) -> Result<()> {
        let waiting: usize = self.publishers.iter().map(|one| one.flying.len()).sum();
        if waiting == 0 || now < self.moved + STALL_MAX {
            return Ok(());
        }
        bail!("no ack for 5 s: {waiting} publishes wait")
    }
}

/// An ack of any seq is shorter, an error frame longer.
const ACK_BYTES_MAX: u64 = 96;
const BUFFER_BYTES: usize = 16 << 10;
const STALL_MAX: Nanos = 5_000_000_000;
