//! Durable topics before anybody connects: the data directory is locked, every log is recovered,
//! and each shard gets the partitions that live on it. Knows files and configuration; what is in
//! the logs goes to the homes as it was found.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use crate::broker::durable::{
    Durable, Ledger, Limits, Restored, RestoredKey, RestoredSubscription, RestoredTopic,
};
use crate::config::{BindSubNames, Config, DurableSection, Fsync as ConfigFsync, OnDuplicate};
use crate::gateway::topics::Topics;
use crate::id::{HomedId, Partition};
use crate::log::{
    CommitLog, DataDirectory, Fsync, Identity, LogConfig, Meta, Now, RecoverError, RecoveredState,
    RecoveredSubscription, RecoveryReport, Retention, recover,
};
use crate::session::durable::DurableRules;
use crate::shard::Recovered;
use crate::shard::state::shared::DurableWorld;

use super::StartError;

/// The topics of a server, as they are handed to its shards.
pub(super) struct Opened {
    pub(super) world: DurableWorld,
    /// The partitions of each shard.
    pub(super) stores: Vec<Vec<(Partition, Recovered)>>,
    /// Locked until its last holder is gone.
    pub(super) directory: DataDirectory,
}

/// What was opened, or nothing of it, for those who take it.
pub(super) fn parted(opened: Option<Opened>) -> Parted {
    match opened {
        Some(opened) => (Some(opened.world), opened.stores, Some(opened.directory)),
        None => (None, Vec::new(), None),
    }
}

type Parted = (
    Option<DurableWorld>,
    Vec<Vec<(Partition, Recovered)>>,
    Option<DataDirectory>,
);

/// Opens the data directory, or makes one, and recovers all its logs.
pub(super) fn open(config: &Config, shards: u16, topics: Topics) -> Result<Opened, StartError> {
    let path = &config.server.data_dir;
    let meta = Meta {
        partitions: partitions_of(config, shards),
        salt: random()?,
    };
    let directory = DataDirectory::open(path, meta)?;
    let meta = directory.fixed();
    if config.durable.fsync == ConfigFsync::Os {
        tracing::warn!(
            target: "tidegate::log",
            "durable.fsync = \"os\": a power cut loses publishes that were acknowledged"
        );
    }
    let rules = DurableRules {
        partitions: meta.partitions,
        bind_sub_names: config.durable.bind_sub_names == BindSubNames::Sub,
        reject_duplicate: config.durable.on_duplicate == OnDuplicate::Reject,
    };
    let stores = recover_all(config, &directory, shards)?;
    let world = DurableWorld {
        rules,
        streams: AtomicU64::new(0),
        topics,
    };
    Ok(Opened {
        world,
        stores,
        directory,
    })
}

/// A new directory gets the larger of 4 and the cores; one that is there keeps what it has.
fn partitions_of(config: &Config, shards: u16) -> u16 {
    match config.durable.partitions {
        0 => shards.max(4),
        partitions => partitions,
    }
}

fn random() -> Result<u64, StartError> {
    let random = getrandom::u64();
    random.map_err(|error| StartError::Random(error.to_string()))
}

/// Each shard's logs on a thread of their own, as they will be read afterwards.
fn recover_all(
    config: &Config,
    directory: &DataDirectory,
    shards: u16,
) -> Result<Vec<Vec<(Partition, Recovered)>>, StartError> {
    let partitions = directory.fixed().partitions;
    let ledger = &Ledger::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..shards)
            .map(|shard| {
                let own = (0..partitions).map(Partition);
                let own = own.filter(move |partition| partition.shard(shards) == shard);
                scope.spawn(move || {
                    let recovered = own.map(|partition| {
                        Ok((
                            partition,
                            recover_one(config, (directory, ledger), partition)?,
                        ))
                    });
                    recovered.collect::<Result<Vec<_>, StartError>>()
                })
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| std::process::abort()));
        joined.collect()
    })
}

fn recover_one(
    config: &Config,
    (directory, ledger): (&DataDirectory, &Ledger),
    partition: Partition,
) -> Result<Recovered, StartError> {
    let folder: PathBuf = directory.folder_path(partition);
    let identity = Identity {
        partition,
        salt: directory.fixed().salt,
    };
    let mut storage = directory.folder(partition);
    let now = Now {
        monotonic_us: 0,
        unix_ms: unix_ms(),
    };
    let failed = |source: RecoverError| StartError::Recover {
        folder: folder.clone(),
        source,
    };
    let log_config = log_config(&config.durable);
    let (log, found) = match recover(&mut storage, identity, &log_config, now) {
        // The others serve; this one says what is wrong and keeps what it has.
        Err(error) if error.is_damage() => {
            let log = CommitLog::unreadable(log_config, identity, error.to_string());
            let home = Durable::new(partition, log.epoch(), limits(config), random()?);
            let mut home = home.with_ledger(ledger.clone());
            home.handle_unreadable();
            return Ok(Recovered { home, log, folder });
        }
        found => found.map_err(failed)?,
    };
    report(partition, &found.report);
    let home = Durable::new(partition, log.epoch(), limits(config), random()?);
    let mut home = home.with_ledger(ledger.clone());
    restore(partition, &mut home, found);
    Ok(Recovered { home, log, folder })
}

fn report(partition: Partition, report: &RecoveryReport) {
    let replay = &report.replay;
    let partition = partition.0;
    if let Some((segment, offset)) = replay.torn {
        tracing::info!(
            target: "tidegate::log", partition, segment, offset,
            "a batch that nobody was told of was cut off"
        );
    }
    for damage in &replay.damage {
        tracing::error!(
            target: "tidegate::log", partition, ?damage,
            "stored records are damaged: they are never delivered, and stay where they are"
        );
    }
    if 0 < report.topics_nameless {
        tracing::error!(
            target: "tidegate::log", partition, topics = report.topics_nameless,
            "the entries that name topics are damaged: nobody can reach these topics, and their \
             messages stay where they are"
        );
    }
    if !report.segments_protected.is_empty() {
        tracing::warn!(
            target: "tidegate::log", partition, segments = ?report.segments_protected,
            "segments that hold damage, or messages of topics that nobody can name, are kept as they \
             are: `tidegate log verify` says what is in them"
        );
    }
    if !report.segments_unknown.is_empty() {
        tracing::error!(
            target: "tidegate::log", partition, segments = ?report.segments_unknown,
            "segment files hold something that is no part of the log: they stay as they are"
        );
    }
    if !report.segments_missing.is_empty() {
        tracing::error!(
            target: "tidegate::log", partition, segments = ?report.segments_missing,
            "segment files are missing: what stood in them is delivered as damaged"
        );
    }
    if 0 < report.checkpoints_bad {
        tracing::warn!(
            target: "tidegate::log", partition, checkpoints = report.checkpoints_bad,
            "a checkpoint is not whole, as a crash leaves one: the log was read from further back"
        );
    }
    if report.is_epoch_new {
        tracing::error!(
            target: "tidegate::log", partition,
            "records were lost of which nobody knows whose they were: the epoch is a new one"
        );
    }
}

/// Gives the home what was found, in the order in which the log first told of it, and reports what
/// only damage explains.
fn restore(partition: Partition, home: &mut Durable, mut found: RecoveredState) {
    found.topics.sort_unstable_by_key(|topic| topic.born);
    for topic in found.topics {
        let id = topic.id;
        let (tenant, name, created_ms) = (topic.tenant, topic.name, topic.created_at_ms);
        let restored = home.restore_topic(RestoredTopic {
            id,
            tenant,
            name,
            created_ms,
            retention: topic.retention,
            first_seq: topic.first_seq,
            last_seq: topic.last_seq,
            bytes: topic.bytes,
        });
        report_restored(partition, id, restored);
        restore_subscriptions(partition, home, id, topic.subscriptions);
        for found in topic.keys {
            let restored = home.restore_key(RestoredKey {
                topic: id,
                key: found.key,
                payload: found.payload,
                seq: found.seq,
                unix_ms: found.time_ms,
            });
            report_restored(partition, id, restored);
        }
    }
}

fn restore_subscriptions(
    partition: Partition,
    home: &mut Durable,
    topic: HomedId,
    mut found: Vec<RecoveredSubscription>,
) {
    found.sort_unstable_by_key(|subscription| subscription.born);
    for found in found {
        let restored = home.restore_subscription(RestoredSubscription {
            id: found.id,
            topic,
            sub_name: found.name,
            maker: found.maker,
            cursor: found.cursor,
            created_ms: found.created_at_ms,
        });
        report_restored(partition, found.id, restored);
    }
}

fn report_restored(partition: Partition, id: HomedId, restored: Restored) {
    let partition = partition.0;
    match restored {
        Restored::New => {}
        Restored::InPlaceOf(older) => tracing::error!(
            target: "tidegate::log", partition, %id, %older,
            "the record that ended an older holder of a name is damaged: it is ended again"
        ),
        Restored::Orphan => tracing::error!(
            target: "tidegate::log", partition, %id,
            "a stored fact belongs to nothing that is left, and is not used"
        ),
    }
}

/// A moved cursor waits at its home and then in the log; together not longer than it may.
const CURSOR_DELAY_PARTS: u64 = 3;

fn log_config(durable: &DurableSection) -> LogConfig {
    LogConfig {
        fsync: match durable.fsync {
            ConfigFsync::Batch => Fsync::Batch,
            ConfigFsync::Always => Fsync::Always,
            ConfigFsync::Os => Fsync::Os,
        },
        sync_delay_us_max: durable.sync_delay_us_max,
        sync_bytes_max: durable.sync_bytes_max,
        cursor_delay_us_max: durable.cursor_delay_ms_max * 1_000 / CURSOR_DELAY_PARTS,
        segment_bytes_max: durable.segment_bytes_max,
        reserve_bytes: durable.reserve_bytes,
        ..LogConfig::default()
    }
}

fn limits(config: &Config) -> Limits {
    let (durable, all) = (&config.durable, config.limits_of(&config.durable.path));
    let window_messages = u32::try_from(durable.window_messages).unwrap_or(u32::MAX);
    let defaults = Limits::default();
    Limits {
        topics_per_tenant_max: all.topics_per_tenant_max as u64,
        subscriptions_per_tenant_max: all.subscriptions_per_tenant_max as u64,
        bytes_per_tenant_max: all.bytes_per_tenant_max,
        topic_name_bytes_max: all.name_bytes_max,
        sub_name_bytes_max: all.sub_name_bytes_max,
        idempotency_key_bytes_max: all.idempotency_key_bytes_max,
        message_bytes_max: all.message_bytes_max,
        window_messages,
        window_messages_max: window_messages.max(defaults.window_messages_max),
        window_bytes_max: durable.window_bytes as u64,
        // The connection's shard pauses its peer at this number; what the peer had sent by then
        // is still taken.
        publishes_in_flight_max: u32::try_from(all.publishes_in_flight_max * OVERSHOOT)
            .unwrap_or(u32::MAX),
        retention: Retention {
            age_ms_max: bound(durable.retention_age_s_max.saturating_mul(1_000)),
            bytes_max: bound(durable.retention_bytes_max),
            messages_max: bound(durable.retention_messages_max),
        },
        cursor_delay_ms_max: (durable.cursor_delay_ms_max / CURSOR_DELAY_PARTS).max(1),
        ..defaults
    }
}

/// 0 is off.
fn bound(value: u64) -> Option<u64> {
    Some(value).filter(|value| 0 < *value)
}

/// How many times its bound of publishes a connection may have under way before it is refused:
/// all its receive buffers full of the smallest publishes.
const OVERSHOOT: usize = 64;

#[expect(
    clippy::disallowed_methods,
    reason = "recovery looks at ages by the wall clock"
)]
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
