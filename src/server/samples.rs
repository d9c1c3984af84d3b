//! What is looked up when somebody reads the metrics: the process as the kernel sees it, the places
//! that connections take, and the disk. Knows shards by what they share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::{Config, Fsync};
use crate::gateway::builtin::EventNumbers;
use crate::metrics::{Gauge, Measure, Metrics, Sample};
use crate::shard::state::shared::Shared;

/// Has `metrics` look these numbers up too.
pub(super) fn add(metrics: &Metrics, shared: &Arc<Shared>, config: &Config) {
    let shared = Arc::clone(shared);
    let data = config
        .durable
        .enabled
        .then(|| config.server.data_dir.clone());
    let began = super::run::unix_s();
    metrics.look_up(move || {
        let mut samples = about(began);
        samples.extend(process());
        samples.extend(places(&shared));
        let measured = shared.container.get::<EventNumbers>();
        samples.extend(measured.iter().flat_map(|numbers| events(numbers)));
        samples.extend(data.as_ref().and_then(disk));
        samples
    });
}

/// What the configuration in force says of the whole server, told by its first shard.
pub(super) fn of_config(metrics: &Metrics, config: &Config, connections_max: usize) {
    let relaxed = config.durable.enabled && config.durable.fsync == Fsync::Os;
    if let Some(first) = metrics.shard(0) {
        first.set(Gauge::SyncRelaxed, relaxed.into());
    }
    tell_places(metrics, connections_max);
}

/// How many connections there may be; a reload may change it.
pub(super) fn tell_places(metrics: &Metrics, connections_max: usize) {
    if let Some(first) = metrics.shard(0) {
        first.set(Gauge::ConnectionsMax, connections_max as u64);
    }
}

/// What the interceptor for it has measured; nothing where it stands around no event.
fn events(numbers: &EventNumbers) -> Vec<Sample> {
    let all = numbers.read();
    let family = |name, help, measure, value: fn(&[u64; 3]) -> f64| Sample {
        name,
        help,
        measure,
        values: all
            .iter()
            .map(|(event, numbers)| (Some(("event", event.clone())), value(numbers)))
            .collect(),
    };
    if all.is_empty() {
        return Vec::new();
    }
    let (count, time) = (Measure::Total, Measure::SecondsTotal);
    vec![
        family("events", "Events that were measured", count, |it| {
            number(it[0])
        }),
        family(
            "events_failed",
            "Measured events that ended in an error",
            count,
            |it| number(it[1]),
        ),
        family("events_time", "How long measured events took", time, |it| {
            number(it[2]) / 1e9
        }),
    ]
}

fn about(began: u64) -> Vec<Sample> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    vec![
        Sample {
            name: "build_info",
            help: "Always 1; its label is the version of the program",
            measure: Measure::Count,
            values: vec![(Some(("version", version)), 1.0)],
        },
        Sample::one(
            "start_time",
            "When the server started, in Unix time",
            Measure::Seconds,
            number(began),
        ),
    ]
}

/// The process as `/proc` shows it; what cannot be read is left out.
fn process() -> Vec<Sample> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let rows = [
        (
            "process_resident_memory",
            "Memory of the process that is in RAM",
            Measure::Bytes,
            field("VmRSS:").map(|kib| number(kib * 1_024)),
        ),
        (
            "process_threads",
            "Threads of the process",
            Measure::Count,
            field("Threads:").map(number),
        ),
        (
            "process_open_fds",
            "Files and sockets that the process has open",
            Measure::Count,
            open_files().map(number),
        ),
        (
            "process_max_fds",
            "Files and sockets that the process may have open",
            Measure::Count,
            limit.map(number),
        ),
        (
            "process_cpu",
            "Processor time of the process, in its own code and in the kernel",
            Measure::SecondsTotal,
            cpu_s(),
        ),
    ];
    let sample = |(name, help, measure, value): (_, _, _, Option<f64>)| {
        value.map(|value| Sample::one(name, help, measure, value))
    };
    rows.into_iter().filter_map(sample).collect()
}

/// Files and sockets that are open. From 6.2 on the kernel tells it as a size; one that does not
/// says 0, and then they are listed, which takes long where there are many.
fn open_files() -> Option<u64> {
    const FILES: &str = "/proc/self/fd";
    match fs::metadata(FILES).ok()?.len() {
        0 => Some(fs::read_dir(FILES).ok()?.count() as u64),
        open => Some(open),
    }
}

fn cpu_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process may hold anything but a bracket behind this one.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = |at: usize| fields.split_whitespace().nth(at)?.parse::<u64>().ok();
    let per_s = rustix::param::clock_ticks_per_second();
    Some(number(ticks(11)? + ticks(12)?) / number(per_s))
}

/// The places that connections and orders take.
fn places(shared: &Shared) -> Vec<Sample> {
    let by_shard = |value_of: &dyn Fn(usize) -> f64| {
        let shards = 0..usize::from(shared.shards());
        let labelled = |shard: usize| (Some(("shard", shard.to_string())), value_of(shard));
        shards.map(labelled).collect()
    };
    let is_draining = shared.draining.load(Ordering::Relaxed);
    vec![
        Sample::one(
            "log_lines_left_out",
            "Lines of the log left out because there were too many (log.lines_per_s_max)",
            Measure::Total,
            number(crate::logging::left_out()),
        ),
        Sample::one(
            "draining",
            "1 while the server stops",
            Measure::Count,
            f64::from(u8::from(is_draining)),
        ),
        Sample {
            name: "sockets",
            help: "Sockets that a shard holds, those of REST too",
            measure: Measure::Count,
            values: by_shard(&|shard| number(shared.loads[shard].load(Ordering::Relaxed) as u64)),
        },
        Sample {
            name: "outside_queue_depth",
            help: "Orders of other threads that wait for a shard; they are in its mailbox depth too",
            measure: Measure::Count,
            values: by_shard(&|shard| number(shared.ports[shard].outside().0 as u64)),
        },
        Sample {
            name: "outside_queue_overloads",
            help: "Orders of other threads refused because the queue of a shard was full",
            measure: Measure::Total,
            values: by_shard(&|shard| number(shared.ports[shard].outside().1)),
        },
        Sample {
            name: "outside_queue_full",
            help: "1 while the queue of orders from other threads to a shard is full",
            measure: Measure::Count,
            values: by_shard(&|shard| f64::from(u8::from(shared.ports[shard].is_full()))),
        },
    ]
}

/// The file system of the data directory.
fn disk(data: &PathBuf) -> Option<Sample> {
    let system = rustix::fs::statvfs(Path::new(data)).ok()?;
    let bytes = system.f_bavail.saturating_mul(system.f_frsize);
    Some(Sample::one(
        "data_free",
        "Space that is left where topics are kept",
        Measure::Bytes,
        number(bytes),
    ))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric is a float; past 2^53 its last digits do not matter"
)]
fn number(value: u64) -> f64 {
    value as f64
}
