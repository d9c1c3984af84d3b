//! What a sync costs on the file system that a server writes to, in the same minute. Knows one
//! file and the clock.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::clock::{Clock, Nanos};
use crate::latency::Latencies;

/// Times `write` and `fdatasync` of one block after the other.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    path: std::path::PathBuf,
    clock: Clock,
    next: u64,
    latencies: Latencies,
}

impl Disk {
    /// A file in `folder` whose blocks are written before, as those of a log's segments are.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("loadgen-{}.tmp", std::process::id()));
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("make {}", path.display()))?;
        (0..BLOCKS).try_for_each(|block| file.write_all_at(&BLOCK, block * BLOCK.len() as u64))?;
        file.sync_all()?;
        Ok(Self {
            file,
            path,
            clock: Clock::start(),
            next: 0,
            latencies: Latencies::new("fdatasync")?,
        })
    }

    /// Syncs blocks for a while.
    pub(crate) fn probe(&mut self) -> Result<()> {
        let end = self.clock.now() + PROBED;
        while self.clock.now() < end {
            let began = self.clock.now();
            self.file
                .write_all_at(&BLOCK, self.next % BLOCKS * BLOCK.len() as u64)?;
            self.file.sync_data()?;
            self.next += 1;
            self.latencies.record(self.clock.now() - began, 1);
        }
        Ok(())
    }

    /// What was seen.
    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A left-over file harms nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}

static BLOCK: [u8; 4096] = [0x5a; 4096];
const BLOCKS: u64 = 1024;
const PROBED: Nanos = 400_000_000;
