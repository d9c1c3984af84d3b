//! Connect: connections that come at a fixed rate, upgrade, subscribe or send a few messages that
//! come back, close and go. Open loop: a latency counts from the moment at which the connection
//! was due.

use std::net::TcpStream;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use loadgen::ring::{Completion, Kind, Ring, TaskWork};
use slab::Slab;
use socket2::SockAddr;

use crate::clock::Nanos;
use crate::drive::{Drive, drive};
use crate::frame::{self, Frame, FrameWalker};
use crate::latency::Latencies;
use crate::options::Connect;
use crate::report::{Load, Report};
use crate::run::{self, Progress, Tally, Window};
use crate::schedule::Schedule;
use crate::seal::Session;
use crate::socket::{self, Target};
use crate::ways;

/// Runs the load and reports.
pub(crate) fn run(options: &Connect) -> Result<Report> {
    let target = options.common.target(&options.path)?;
    // One connection beforehand, so that a wrong path or token is told before the run.
    drop(target.open(1, |_| ())?);
    run::allow_files(OPEN_MAX)?;
    let job =
        |window: Window, progress: &Progress| Worker::new(options, target, window)?.drive(progress);
    let measured = run::measure(&options.common, vec![Box::new(job)])?;
    let load = Load {
        mode: "connect",
        unit: "connection",
        path: options.path.clone(),
        connections: 0,
        at_once: 1,
        message_bytes: usize::from(0 < options.echoes) * ECHO_BYTES,
        offered_per_second: Some(options.rate),
    };
    Ok(Report::new(&options.common, load, &measured))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    /// Messages that still have to come back.
    Echoing(u32),
    /// Packets of Socket.IO that still have to come: the open packet and the joined namespace.
    Joining(u32),
    Subscribing,
    Closing,
}

/// One connection from its due time to its end.
struct Visit {
    socket: TcpStream,
    tls: Option<Box<Session>>,
    phase: Phase,
    due: Nanos,
    head: Vec<u8>,
    walker: FrameWalker,
    receiving: bool,
    sends: u32,
}

struct Worker {
    target: Target,
    address: &'static SockAddr,
    sources: u8,
    request: &'static [u8],
    /// What is said after the upgrade, if anything, and how often.
    first: Option<(Phase, &'static [u8])>,
    close: &'static [u8],
    window: Window,
    ring: Ring,
    schedule: Schedule,
    visits: Slab<Visit>,
    tally: Tally,
}

impl Worker {
    fn new(options: &Connect, target: Target, window: Window) -> Result<Self> {
        Ok(Self {
            address: Box::leak(Box::new(target.server.into())),
            sources: target.source_count(PORTS_WANTED),
            request: target.upgrade_request().leak(),
            first: first_words(options),
            close: frame::masked(frame::CLOSE, &CLOSE_NORMAL.to_be_bytes()).leak(),
            target,
            window,
            ring: Ring::new(TaskWork::Deferred, BUFFER_BYTES, OPEN_MAX)?,
            schedule: Schedule::new(window.start, options.rate),
            visits: Slab::new(),
            tally: Tally {
                latencies: vec![Latencies::new("ready")?],
                ..Tally::default()
            },
        })
    }

    fn drive(mut self, progress: &Progress) -> Result<Tally> {
        drive(self.window, &mut self, progress)?;
        let stuck = self
            .visits
            .iter()
            .filter(|(_, it)| it.due + STUCK_AFTER < self.window.end);
        self.tally.wrong += stuck.count() as u64;
        Ok(self.tally)
    }

    fn open(&mut self, number: usize, due: Nanos) -> Result<()> {
        let socket = TcpStream::from(self.target.bound_socket(number, self.sources)?);
        let visit = Visit {
            socket,
            tls: self.target.session()?,
            phase: Phase::Connecting,
            due,
            head: Vec::new(),
            walker: FrameWalker::new(self.target.ways.deflate),
            receiving: false,
            sends: 0,
        };
        let id = u32::try_from(self.visits.insert(visit))?;
        let socket = self.visits[id as usize].socket.as_fd();
        self.ring
            .connect(socket, self.address, id)
            .context("start a connect")
    }

    fn handle_connected(&mut self, completion: &Completion) -> Result<()> {
        if completion.result.is_err() {
            return Ok(());
        }
        self.receive(completion.id)?;
        self.say(completion.id, Phase::Upgrading, self.request)
    }

    fn handle_ready(&mut self, id: u32) -> Result<()> {
        let now = self.window.clock.now();
        if self.window.holds(now) {
            self.tally.messages += 1;
            let due = self.visits[id as usize].due;
            self.tally.latencies[0].record(now.saturating_sub(due), 1);
        }
        self.say(id, Phase::Closing, self.close)
    }

    fn receive(&mut self, id: u32) -> Result<()> {
        let visit = &mut self.visits[id as usize];
        visit.receiving = true;
        Ok(self.ring.receive(visit.socket.as_fd(), id)?)
    }

    fn say(&mut self, id: u32, phase: Phase, bytes: &'static [u8]) -> Result<()> {
        let visit = &mut self.visits[id as usize];
        visit.phase = phase;
        visit.sends += 1;
        let socket = visit.socket.as_fd();
        match &mut visit.tls {
            None => self.ring.send(socket, bytes, id)?,
            Some(tls) => self.ring.send_made(socket, tls.seal(bytes)?, id)?,
        }
        Ok(())
    }

    /// What came, opened if it was sealed.
    fn read(&mut self, completion: &Completion) -> Result<Answer> {
        let visit = &mut self.visits[completion.id as usize];
        let Some(tls) = &mut visit.tls else {
            return self.ring.read(completion, |bytes| read(visit, bytes));
        };
        let mut plain = Vec::new();
        self.ring
            .read(completion, |bytes| tls.open(bytes, &mut plain))?;
        let out = tls.output()?;
        if !out.is_empty() {
            visit.sends += 1;
            let socket = visit.socket.as_fd();
            self.ring.send_made(socket, out, completion.id)?;
        }
        read(visit, &plain)
    }
}

impl Drive for Worker {
    fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    fn messages(&self) -> u64 {
        self.tally.messages
    }

    fn schedule(&mut self) -> Option<&mut Schedule> {
        Some(&mut self.schedule)
    }

    fn send(&mut self, number: usize, due: Nanos, _: Nanos) -> Result<()> {
        if self.visits.len() < OPEN_MAX {
            return self.open(number, due);
        }
        self.tally.wrong += 1;
        Ok(())
    }

    fn handle_received(&mut self, completion: &Completion) -> Result<()> {
        let visit = &mut self.visits[completion.id as usize];
        visit.receiving = completion.more;
        match completion.result {
            Ok(0) => return Ok(()),
            Err(libc::ENOBUFS) => return self.receive(completion.id),
            Err(_) => return Ok(()),
            Ok(_) => {}
        }
        let answered = self.read(completion)?;
        if !completion.more {
            self.receive(completion.id)?;
        }
        match (answered, self.first) {
            (Answer::Upgraded(packets), Some((Phase::Joining(left), bytes))) => {
                self.say(completion.id, Phase::Joining(left - packets.min(1)), bytes)
            }
            (Answer::Upgraded(_), Some((phase, bytes))) => self.say(completion.id, phase, bytes),
            (Answer::Echoed(left), Some((_, bytes))) if 0 < left => {
                self.say(completion.id, Phase::Echoing(left), bytes)
            }
            (Answer::Nothing, _) => Ok(()),
            _ => self.handle_ready(completion.id),
        }
    }

    fn handle_sent(&mut self, completion: &Completion) -> Result<()> {
        self.visits[completion.id as usize].sends -= 1;
        Ok(())
    }

    fn handle(&mut self, completion: &Completion) -> Result<()> {
        let id = completion.id as usize;
        match completion.kind {
            Kind::Connect => self.handle_connected(completion)?,
            Kind::Receive => self.handle_received(completion)?,
            Kind::Send | Kind::SendOwned => self.handle_sent(completion)?,
        }
        let visit = &self.visits[id];
        if !visit.receiving && visit.sends == 0 {
            let visit = self.visits.remove(id);
            self.tally.wrong += u64::from(visit.phase != Phase::Closing);
        }
        Ok(())
    }
}

/// What a visit says when it has been upgraded.
fn first_words(options: &Connect) -> Option<(Phase, &'static [u8])> {
    let (topic, ways) = (&options.topic, &options.common.ways);
    if ways.socketio {
        // The open packet comes with the upgrade or behind it.
        let join = frame::masked(frame::TEXT, ways::JOIN);
        return Some((Phase::Joining(2), join.leak()));
    }
    match options.echoes {
        0 if topic.is_empty() => None,
        0 => Some((
            Phase::Subscribing,
            socket::subscribe_frame(topic, ways).leak(),
        )),
        echoes => {
            let message = ways.frame(frame::BINARY, &[b'x'; ECHO_BYTES]);
            Some((Phase::Echoing(echoes), message.leak()))
        }
    }
}

enum Answer {
    Nothing,
    /// And so many messages came with it.
    Upgraded(u32),
    Subscribed,
    /// A message came back, and so many more are to be sent.
    Echoed(u32),
}

/// Takes a chunk and tells what it completes.
fn read(visit: &mut Visit, bytes: &[u8]) -> Result<Answer> {
    if visit.phase == Phase::Upgrading {
        visit.head.extend_from_slice(bytes);
        return Ok(match socket::upgraded(&visit.head)? {
            Some(end) => {
                let mut packets = 0;
                visit.walker.walk(&visit.head[end..], |_| packets += 1)?;
                Answer::Upgraded(packets)
            }
            None => Answer::Nothing,
        });
    }
    let mut messages = 0_u32;
    visit.walker.walk(bytes, |frame| {
        messages += u32::from(matches!(frame, Frame::Data { .. }))
    })?;
    Ok(match visit.phase {
        Phase::Subscribing if 0 < messages => Answer::Subscribed,
        Phase::Joining(left) if messages < left => {
            visit.phase = Phase::Joining(left - messages);
            Answer::Nothing
        }
        Phase::Joining(_) => Answer::Subscribed,
        Phase::Echoing(left) if 0 < messages => Answer::Echoed(left.saturating_sub(messages)),
        _ => Answer::Nothing,
    })
}

const ECHO_BYTES: usize = 64;
const CLOSE_NORMAL: u16 = 1000;
const OPEN_MAX: usize = 10_000;
/// Ports of connections that ended lately are not free at once: spread them over addresses.
const PORTS_WANTED: usize = 64_000;
const BUFFER_BYTES: usize = 4 << 10;
const STUCK_AFTER: Nanos = 5_000_000_000;
