//! How long the disk takes to keep something: what a durable publish waits for. Writes a small file
//! of its own, and takes it away again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Finding;

/// Enough for a median, and no disk takes longer than a second or two for all of them.
const SYNCS: usize = 20;

/// What a record and its header take, about.
const BLOCK: [u8; 4_096] = [b'.'; 4_096];

/// Above this a publisher that waits for each acknowledgement is slow, whatever the server does.
const SYNC_MS_MAX: u128 = 10;

pub(super) fn sync_latency(folder: &Path) -> Finding {
    let path = folder.join(format!(".tidegate-doctor-{}", std::process::id()));
    let measured = measure(&path);
    // It may not be there, if it could not be made.
    let _ = fs::remove_file(&path);
    match measured {
        Ok((median, worst)) => judge(median, worst),
        Err(error) => Finding::weak(
            "sync",
            "not measured",
            format!("{}: {error}", folder.display()),
        ),
    }
}

fn judge(median: Duration, worst: Duration) -> Finding {
    let found =
        format!("{SYNCS} writes of 4 KiB: half within {median:.1?}, all within {worst:.1?}");
    match median.as_millis() <= SYNC_MS_MAX {
        true => Finding::good("sync", found),
        false => Finding::weak(
            "sync",
            found,
            "each publish waits for this: choose a disk whose cache survives a power cut (--data)",
        ),
    }
}

fn measure(path: &Path) -> io::Result<(Duration, Duration)> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        times.push(now().duration_since(began).unwrap_or_default());
    }
    times.sort_unstable();
    Ok((times[SYNCS / 2], times[SYNCS - 1]))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a measurement of this machine; a step of its clock spoils one of twenty"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_slow_disk_is_weak() {
        let ms = Duration::from_millis;
        assert_eq!(judge(ms(1), ms(300)).verdict, Verdict::Good);
        assert_eq!(judge(ms(11), ms(11)).verdict, Verdict::Weak);
    }

    #[test]
    fn nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let finding = sync_latency(folder.path());
        assert!(finding.found.contains("half within"), "{finding:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let nowhere = sync_latency(&folder.path().join("nowhere"));
        assert_eq!(nowhere.verdict, Verdict::Weak);
    }
}
