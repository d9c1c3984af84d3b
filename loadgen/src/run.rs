//! The frame of every run: threads on their cores, warm-up, the measured window, and what the
//! kernel says at its two ends. Knows nothing of what the load is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use core_affinity::CoreId;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::clock::{Clock, Nanos, seconds};
use crate::latency::Latencies;
use crate::options::Common;
use crate::usage::{Cpu, Machine, Memory, Threads};

/// The times of a run on its clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) clock: Clock,
    /// Load starts.
    pub(crate) start: Nanos,
    /// Measuring starts.
    pub(crate) begin: Nanos,
    /// Measuring ends; the load goes on until the watching thread has taken its sample.
    pub(crate) end: Nanos,
}

impl Window {
    /// Measured is what happens between the end of the warm-up and the end of the run.
    pub(crate) fn holds(&self, at: Nanos) -> bool {
        self.begin <= at && at < self.end
    }
}

/// What the threads of a run tell the one that watches, and it them.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    messages: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    /// Tells how many messages came since the last time.
    pub(crate) fn add(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    /// The last sample is taken: until then the load goes on, and its threads stay countable.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// What a thread does in a run.
pub(crate) type Job<'a> = Box<dyn FnOnce(Window, &Progress) -> Result<Tally> + Send + 'a>;

/// What a thread has counted within the window.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    /// Messages that were not what was asked for.
    pub(crate) wrong: u64,
    pub(crate) latencies: Vec<Latencies>,
    /// Of the server, at the end.
    pub(crate) memory: Option<Memory>,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) tally: Tally,
    pub(crate) seconds: f64,
    /// If the server's process is known.
    pub(crate) server: Option<Cpu>,
    pub(crate) own: Cpu,
    pub(crate) steal: f64,
}

/// Runs the jobs, one thread each, and measures between warm-up and end.
pub(crate) fn measure(common: &Common, jobs: Vec<Job<'_>>) -> Result<Measured> {
    let clock = Clock::start();
    let start = clock.now() + START_UP;
    let begin = start + seconds(common.warmup);
    let window = Window {
        clock,
        start,
        begin,
        end: begin + seconds(common.seconds),
    };
    let progress = Progress::default();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, job) in jobs.into_iter().enumerate() {
            let (cpu, progress) = (common.cpu.map(|cpu| cpu + number), &progress);
            threads.push(scope.spawn(move || {
                pin(cpu)?;
                job(window, progress)
            }));
        }
        let before = watch(window.begin, window, &threads, &progress)
            .and_then(|()| Sample::take(common, clock));
        let after = watch(window.end, window, &threads, &progress)
            .and_then(|()| Sample::take(common, clock));
        progress.ended.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for thread in threads {
            let part = thread
                .join()
                .map_err(|_| anyhow!("a thread of the load panicked"))?;
            tally.add(part?)?;
        }
        Ok(after?.since(&before?, tally))
    })
}

/// Puts the calling thread on a core.
pub(crate) fn pin(cpu: Option<usize>) -> Result<()> {
    match cpu {
        Some(id) if !core_affinity::set_for_current(CoreId { id }) => {
            bail!("core {id} is not there: choose another --cpu")
        }
        _ => Ok(()),
    }
}

/// Raises the limit of open files as far as it goes and checks that it is enough.
pub(crate) fn allow_files(connections: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
    .context("raise the limit of open files")?;
    let wanted = connections as u64 + FILES_RESERVED;
    match limit.maximum {
        Some(maximum) if maximum < wanted => bail!(
            "{connections} connections need {wanted} open files, the limit is {maximum}: \
             raise it with `ulimit -n {wanted}`"
        ),
        _ => Ok(()),
    }
}

impl Tally {
    fn add(&mut self, other: Self) -> Result<()> {
        self.messages += other.messages;
        self.wrong += other.wrong;
        self.memory = self.memory.or(other.memory);
        if self.latencies.is_empty() {
            self.latencies = other.latencies;
            return Ok(());
        }
        self.latencies
            .iter_mut()
            .zip(&other.latencies)
            .try_for_each(|(mine, its)| mine.merge(its))
    }
}

/// What the kernel says at one moment.
struct Sample {
    at: Nanos,
    server: Option<Threads>,
    own: Threads,
    machine: Machine,
}

impl Sample {
    fn take(common: &Common, clock: Clock) -> Result<Self> {
        let server = common
            .pid
            .map(|pid| Threads::of(&pid.to_string()))
            .transpose()?;
        let (own, machine) = (Threads::of("self")?, Machine::now()?);
        Ok(Self {
            at: clock.now(),
            server,
            own,
            machine,
        })
    }

    fn since(&self, before: &Self, tally: Tally) -> Measured {
        let server = self.server.as_ref().zip(before.server.as_ref());
        Measured {
            tally,
            seconds: self.at.saturating_sub(before.at) as f64 / 1e9,
            server: server.map(|(now, then)| now.since(then)),
            own: self.own.since(&before.own),
            steal: self.machine.steal_since(before.machine),
        }
    }
}

/// Shows progress until `until`, or until a thread ends before its time.
fn watch(
    until: Nanos,
    window: Window,
    threads: &[ScopedJoinHandle<'_, Result<Tally>>],
    progress: &Progress,
) -> Result<()> {
    let bar = progress_bar(window);
    while window.clock.now() < until {
        if threads.iter().any(ScopedJoinHandle::is_finished) {
            // Its own error says why; the sample that follows does not matter.
            break;
        }
        let now = window.clock.now();
        let phase = if now < window.begin {
            "warm-up"
        } else {
            "measuring"
        };
        crate::latency::begin_second(second_of(now, window));
        bar.set_position(now.saturating_sub(window.start) / 1_000_000);
        bar.set_message(format!(
            "{phase}, {} so far",
            progress.messages.load(Ordering::Relaxed)
        ));
        window.clock.sleep_until(until.min(now + SHOWN_EVERY));
    }
    bar.finish_and_clear();
    Ok(())
}

/// The second of the measured window, 0 before it.
fn second_of(now: Nanos, window: Window) -> usize {
    usize::try_from(now.saturating_sub(window.begin) / SECOND).unwrap_or(usize::MAX)
}

/// A bar on stderr, invisible where that is no terminal.
fn progress_bar(window: Window) -> ProgressBar {
    let bar = ProgressBar::new((window.end - window.start) / 1_000_000);
    let style = ProgressStyle::with_template("{bar:30} {elapsed} {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Time for the threads to arm their receives.
const START_UP: Nanos = 200_000_000;
const SHOWN_EVERY: Nanos = 100_000_000;
const SECOND: Nanos = 1_000_000_000;
const FILES_RESERVED: u64 = 64;
