//! Lines of the log on their way to stderr: how many of one kind a second, how long one may be, and
//! written by a thread of its own, so that a shard never waits for whoever reads them. A leaf: knows
//! nothing of what is said.
//!
//! Bounds: `log.lines_per_s_max` of each kind (each place in the code that logs), `log.line_bytes_max`
//! of each line, [`LINES_WAITING_MAX`] lines that wait for stderr. What goes over them is counted
//! ([`left_out`]), and the next line of its kind is preceded by one that says how many there were.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ahash::AHashMap;
use parking_lot::Mutex;
use tracing::Metadata;
use tracing::callsite::Identifier;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for stderr. More are left out.
pub(crate) const LINES_WAITING_MAX: usize = 8_192;

/// Lines that were left out because there were too many of their kind.
static PACED: AtomicU64 = AtomicU64::new(0);
/// Counts those that found no place in the queue of the writing thread.
static DROPPED: Mutex<Option<ErrorCounter>> = Mutex::new(None);
/// The writing thread; it has written all when this is dropped.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Lines that were left out since the program began.
pub(crate) fn left_out() -> u64 {
    let dropped = DROPPED
        .lock()
        .as_ref()
        .map_or(0, ErrorCounter::dropped_lines);
    PACED.load(Ordering::Relaxed) + dropped as u64
}

/// Waits until the lines that were logged so far are written. Nothing is written afterwards, so it is
/// for the end of the process.
pub(crate) fn end() {
    drop(WRITER.lock().take());
}

/// How much may be logged, and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Lines of each kind in a second.
    pub lines_per_s_max: u32,
    /// Bytes of a line.
    pub line_bytes_max: usize,
    /// Lines are JSON objects, not text.
    pub json: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            lines_per_s_max: 100,
            line_bytes_max: 4_096,
            json: false,
        }
    }
}

/// Where lines are written.
pub(crate) struct Lines {
    bounds: Bounds,
    out: NonBlocking,
    paces: Mutex<AHashMap<Identifier, Pace>>,
    started: Instant,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl Lines {
    /// Starts the thread that writes to stderr.
    #[expect(
        clippy::disallowed_methods,
        reason = "the pace of the log needs a clock of its own"
    )]
    pub(crate) fn to_stderr(bounds: Bounds) -> Self {
        let (out, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(LINES_WAITING_MAX)
            .lossy(true)
            .thread_name("log")
            .finish(io::stderr());
        *DROPPED.lock() = Some(out.error_counter());
        *WRITER.lock() = Some(guard);
        Self {
            bounds,
            out,
            paces: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Whether one more line of this kind may be written, and how many were left out before it.
    fn take(&self, kind: Identifier) -> Option<u64> {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut paces = self.paces.lock();
        let pace = paces.entry(kind).or_default();
        pace.take(self.bounds.lines_per_s_max, now_ms)
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            lines: self,
            before: Some(String::new()),
        }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line<'a> {
        let before = self.take(of.callsite()).map(|count| match count {
            0 => String::new(),
            count => said_of(count, of, self.bounds.json),
        });
        Line {
            lines: self,
            before,
        }
    }
}

/// The line that says how many of its kind were left out.
fn said_of(count: u64, of: &Metadata<'_>, json: bool) -> String {
    let (level, target) = (of.level(), of.target());
    match json {
        true => format!(
            "{{\"level\":\"{level}\",\"target\":\"{target}\",\"left_out\":{count},\"message\":\"lines like the next one were left out (log.lines_per_s_max)\"}}\n"
        ),
        false => format!(
            "{level:>5} {target}: {count} lines like the next one were left out (log.lines_per_s_max)\n"
        ),
    }
}

/// One line, if it may be written.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    lines: &'a Lines,
    /// What comes before it; nothing at all is written without.
    before: Option<String>,
}

impl Write for Line<'_> {
    /// The formatter writes a line at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(before) = self.before.take() else {
            return Ok(line.len());
        };
        self.before = Some(String::new());
        let Bounds {
            line_bytes_max,
            json,
            ..
        } = self.lines.bounds;
        let bounded = bounded(line, line_bytes_max, json);
        let mut out = self.lines.out.clone();
        if before.is_empty() {
            out.write_all(&bounded)?;
        } else {
            out.write_all(&[before.as_bytes(), &bounded].concat())?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of at most so many bytes. One of JSON cannot be cut, so another one says how long it was.
fn bounded(line: &[u8], bytes_max: usize, json: bool) -> std::borrow::Cow<'_, [u8]> {
    if line.len() <= bytes_max {
        return line.into();
    }
    let bytes = line.len();
    if json {
        let text = format!(
            "{{\"bytes\":{bytes},\"message\":\"a line was too long (log.line_bytes_max)\"}}\n"
        );
        return text.into_bytes().into();
    }
    let end = (0..=bytes_max).rev().find(|at| line[*at] & 0xc0 != 0x80);
    let shown = &line[..end.unwrap_or(0)];
    let rest = format!(".. ({bytes} bytes in all: log.line_bytes_max)\n");
    [shown, rest.as_bytes()].concat().into()
}

/// How often one kind of line comes.
#[derive(Debug, Default, Clone, Copy)]
struct Pace {
    /// The second that is counted.
    second: u64,
    lines: u32,
    left_out: u64,
}

impl Pace {
    /// Takes a place in this second, if there is one: how many had none before.
    fn take(&mut self, per_s_max: u32, now_ms: u64) -> Option<u64> {
        let second = now_ms / 1_000;
        if self.second != second {
            (self.second, self.lines) = (second, 0);
        }
        if per_s_max <= self.lines {
            self.left_out += 1;
            PACED.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_its_lines_in_each_second() {
        let mut pace = Pace::default();
        let mut taken = |now_ms: u64| (0..5).map(|_| pace.take(2, now_ms)).collect::<Vec<_>>();
        assert_eq!(taken(999), [Some(0), Some(0), None, None, None]);
        assert_eq!(taken(1_000), [Some(3), Some(0), None, None, None]);
        assert_eq!(taken(9_000)[0], Some(3));
    }

    #[test]
    fn a_long_line_is_cut_between_two_signs() {
        let line = "ab\u{e4}\u{e4}cd\n".as_bytes();
        assert_eq!(&*bounded(line, 100, false), line);
        let cut = String::from_utf8(bounded(line, 5, false).into_owned()).unwrap();
        assert_eq!(cut, "ab\u{e4}.. (9 bytes in all: log.line_bytes_max)\n");
        let told: serde_json::Value = serde_json::from_slice(&bounded(line, 5, true)).unwrap();
        assert_eq!(told["bytes"], 9);
    }
}
