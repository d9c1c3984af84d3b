//! One durable batch on a ring: a write linked to an fdatasync, against one write that asks for
//! data integrity by itself, against the two system calls one after the other. Knows a file and a
//! ring; nothing of the log.

#![expect(
    unsafe_code,
    reason = "submission entries carry raw addresses of buffers"
)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode};

/// Options of `sync`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A folder of the file system in question.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Seconds of each way and size in each round.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    /// Rounds; every second one takes the ways in reverse order.
    #[arg(long, default_value_t = 6)]
    rounds: u32,
}

/// How a batch becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A write linked to an fdatasync, in one submission.
    Linked,
    /// A write with RWF_DSYNC.
    Dsync,
    /// `pwrite`, then `fdatasync`.
    Calls,
}

/// Times all ways and prints a table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let path = options
        .dir
        .join(format!("bench-{}.tmp", std::process::id()));
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("make {}", path.display()))?;
    let table = std::fs::remove_file(&path)
        .context("unlink the file")
        .and_then(|()| measure(options, &file))?;
    show(&table);
    Ok(())
}

fn measure(options: &Options, file: &File) -> Result<String> {
    // Written before, as a log's segments are: nothing but data has to be synced.
    let zeros = vec![0; BATCH_BYTES_MAX];
    for at in 0..FILE_BYTES / BATCH_BYTES_MAX as u64 {
        file.write_all_at(&zeros, at * BATCH_BYTES_MAX as u64)?;
    }
    file.sync_all()?;
    let mut bench = Bench::new(file)?;
    let mut table = String::from(
        "| bytes | linked p50 us | p99 | RWF_DSYNC p50 us | p99 | two calls p50 us | p99 |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for bytes in SIZES {
        let mut took: [Vec<Duration>; WAYS.len()] = Default::default();
        for round in 0..options.rounds {
            let mut order: Vec<usize> = (0..WAYS.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let seconds = Duration::from_secs_f64(options.seconds);
                bench.sync_for(WAYS[index], bytes, seconds, &mut took[index])?;
            }
        }
        let cells: String = took.iter_mut().map(|took| cells(took)).collect();
        table += &format!("| {bytes} |{cells}\n");
    }
    Ok(table)
}

fn cells(took: &mut [Duration]) -> String {
    took.sort_unstable();
    let quantile = |percent: usize| {
        let at = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(at).map_or(0, Duration::as_micros)
    };
    format!(" {} | {} |", quantile(50), quantile(99))
}

struct Bench<'a> {
    file: &'a File,
    ring: IoUring,
    block: Vec<u8>,
    next: u64,
}

impl<'a> Bench<'a> {
    fn new(file: &'a File) -> Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .build(8)?;
        Ok(Self {
            file,
            ring,
            block: vec![0x5a; BATCH_BYTES_MAX],
            next: 0,
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that reads the clock"
    )]
    fn sync_for(
        &mut self,
        way: Way,
        bytes: usize,
        time: Duration,
        took: &mut Vec<Duration>,
    ) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            let began = Instant::now();
            if end <= began {
                return Ok(());
            }
            self.sync(way, bytes)?;
            took.push(began.elapsed());
        }
    }

    /// One batch behind the last, as a log appends.
    fn sync(&mut self, way: Way, bytes: usize) -> Result<()> {
        let offset = self.next;
        self.next = (offset + bytes as u64) % (FILE_BYTES - BATCH_BYTES_MAX as u64);
        let fd = Fd(self.file.as_raw_fd());
        let count = u32::try_from(bytes)?;
        let write = opcode::Write::new(fd, self.block.as_ptr(), count).offset(offset);
        match way {
            Way::Calls => {
                self.file.write_all_at(&self.block[..bytes], offset)?;
                return Ok(self.file.sync_data()?);
            }
            Way::Dsync => self.push(&write.rw_flags(libc::RWF_DSYNC).build())?,
            Way::Linked => {
                self.push(&write.build().flags(Flags::IO_LINK))?;
                let sync = opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC);
                self.push(&sync.build())?;
            }
        }
        let wanted = if way == Way::Linked { 2 } else { 1 };
        self.ring.submit_and_wait(wanted)?;
        for completion in self.ring.completion() {
            let done = u32::try_from(completion.result());
            ensure!(
                done.is_ok_and(|done| done == 0 || done == count),
                "a sync ended with {}",
                completion.result()
            );
        }
        Ok(())
    }

    fn push(&mut self, entry: &Entry) -> Result<()> {
        // SAFETY: the block is never changed or freed while the ring lives, and `sync` waits for
        // the end of what it has pushed.
        unsafe { self.ring.submission().push(entry)? };
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn show(table: &str) {
    println!("{table}");
}

const WAYS: [Way; 3] = [Way::Linked, Way::Dsync, Way::Calls];
/// A few records, a block, 256 publishes of 128 B, and the largest batch.
const SIZES: [usize; 4] = [512, 4096, 64 << 10, BATCH_BYTES_MAX];
const BATCH_BYTES_MAX: usize = 1 << 20;
const FILE_BYTES: u64 = 64 << 20;
