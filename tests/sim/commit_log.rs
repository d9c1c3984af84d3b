//! T-S1: random work on a commit log, a crash at a random operation, a start, and again.

use std::collections::BTreeMap;
use std::path::Path;

use tidegate::id::{HomedId, Partition, Seq, Tenant};
use tidegate::log::{
    AppendError, CommitLog, CrashFolder, Effect, Event, Fault, Folder, Fsync, Identity, LogConfig,
    LogState, Now, Publish, ReadEnd, ReadItem, ReadLimits, Record, RecoveredTopic, Retention,
    Ticket, drive, execute, recover,
};

use super::log_model::{Checked, Fate, Model, ModelSubscription, ModelTopic};
use super::{Random, scratch, seeds};

pub(crate) const IDENTITY: Identity = Identity {
    partition: Partition(3),
    salt: 0x5a17_c0de,
};

/// EINTR, EAGAIN, ENOMEM, ENFILE, EMFILE: errors that say nothing of the disk.
pub(crate) const PASSING: [i32; 5] = [4, 11, 12, 23, 24];

/// Small sizes, so that a short run fills, cleans and reuses many segments.
pub(crate) fn small() -> LogConfig {
    LogConfig {
        fsync: Fsync::Batch,
        sync_delay_us_max: 0,
        sync_bytes_max: 16 << 10,
        cursor_delay_us_max: 300,
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 64 << 10,
        reserve_bytes: 2 << 10,
        tail_bytes_max: 8 << 10,
        checkpoint_bytes: 24 << 10,
        checkpoint_interval_us: 20_000,
        clean_live_percent_max: 60,
    }
}

/// A log, its disk, and what the log must hold.
pub(crate) struct World {
    pub(crate) folder: CrashFolder,
    pub(crate) log: Option<CommitLog>,
    pub(crate) model: Model,
    pub(crate) random: Random,
    config: LogConfig,
    effects: Vec<Effect>,
    now: Now,
    ids: u64,
}

impl World {
    pub(crate) fn new(path: &Path, seed: u64, config: LogConfig) -> Self {
        Self {
            folder: CrashFolder::new(path, seed).unwrap(),
            log: None,
            model: Model::default(),
            random: Random::new(seed),
            config,
            effects: Vec::new(),
            now: Now {
                monotonic_us: 1,
                unix_ms: 1_800_000_000_000,
            },
            ids: 0,
        }
    }

    /// Starts the log; `Ok(false)` if a crash came in the way.
    pub(crate) fn start(&mut self) -> Result<bool, String> {
        self.effects.clear();
        let recovered = recover(&mut self.folder, IDENTITY, &self.config, self.now);
        let (log, state) = match recovered {
            Ok(found) => found,
            Err(_) if self.folder.is_gone() => return Ok(false),
            Err(error) => return Err(error.to_string()),
        };
        if !state.report.replay.damage.is_empty() || 0 < state.report.topics_nameless {
            return Err(format!("a crash is taken for damage: {:?}", state.report));
        }
        self.model.adopt(&state)?;
        self.log = Some(log);
        Ok(true)
    }

    /// Ends the process by a kill or the power.
    pub(crate) fn crash(mut self, power: bool) -> Self {
        self.log = None;
        self.effects.clear();
        match power {
            true => self.folder = self.folder.cut_power().unwrap(),
            false => self.folder.restart(),
        }
        self
    }

    pub(crate) fn step(&mut self) -> Checked {
        self.now.monotonic_us += self.random.below(400);
        self.now.unix_ms += self.random.below(3);
        for _ in 0..self.random.below(4) {
            self.act();
        }
        self.work();
        self.take_events()?;
        if self.random.one_in(3) {
            self.read_some()?;
        }
        Ok(())
    }

    /// One random request.
    fn act(&mut self) {
        let ids: Vec<HomedId> = self.live_topics();
        let topic = (!ids.is_empty()).then(|| ids[self.random.index(ids.len())]);
        match (self.random.below(40), topic) {
            (_, None) | (0, _) => self.create_topic(),
            (1, Some(topic)) if 3 < ids.len() => self.delete_topic(topic),
            (2..=3, Some(topic)) => self.subscribe(topic),
            (4, Some(topic)) => self.unsubscribe(topic),
            (5..=9, Some(topic)) => self.move_cursor(topic),
            (10..=12, Some(topic)) => self.trim(topic),
            (_, Some(topic)) => {
                for _ in 0..=self.random.below(3) {
                    self.publish(topic);
                }
            }
        }
    }

    fn live_topics(&self) -> Vec<HomedId> {
        let live = self
            .model
            .topics
            .iter()
            .filter(|(_, topic)| topic.deleted.is_none());
        live.map(|(id, _)| *id).collect()
    }

    fn new_id(&mut self) -> HomedId {
        self.ids += 1;
        HomedId::new(
            self.now.unix_ms,
            IDENTITY.partition,
            self.ids << 2 | self.random.next() << 20,
        )
    }

    pub(crate) fn append(&mut self, record: &Record<'_>) -> Result<Ticket, AppendError> {
        self.log.as_mut().unwrap().append(record)
    }

    pub(crate) fn create_topic(&mut self) {
        let id = self.new_id();
        let name = format!("topic {}", self.ids);
        let tenant = Tenant::default();
        let created_at_ms = self.now.unix_ms;
        let retention = Retention::default();
        let record = Record::TopicCreated {
            id,
            tenant: &tenant,
            name: &name,
            created_at_ms,
            retention,
        };
        if let Ok(ticket) = self.append(&record) {
            let topic = ModelTopic {
                name,
                made: Fate::Sent(ticket),
                deleted: None,
                messages: Vec::new(),
                trims: Vec::new(),
                subscriptions: Default::default(),
            };
            self.model.topics.insert(id, topic);
        }
    }

    fn delete_topic(&mut self, id: HomedId) {
        if let Ok(ticket) = self.append(&Record::TopicDeleted { id }) {
            self.model.topics.get_mut(&id).unwrap().deleted = Some(Fate::Sent(ticket));
        }
    }

    pub(crate) fn publish(&mut self, topic: HomedId) -> Option<Ticket> {
        let seq = self.model.topics[&topic].last_seq() + 1;
        let len = match self.random.below(20) {
            0 => self.random.below(6000),
            1..=3 => self.random.below(1500),
            _ => self.random.below(200),
        };
        let payload: Vec<u8> = (0..len)
            .map(|_| self.random.next().to_le_bytes()[0])
            .collect();
        let key = self.random.one_in(5).then(|| format!("key {seq}"));
        let publish = Publish {
            topic,
            seq,
            time_ms: self.now.unix_ms,
            flags: 7,
            publisher: "svc",
            key: key.as_deref(),
            event: "",
            headers: b"",
            payload: &payload,
        };
        let ticket = self.append(&Record::Publish(publish)).ok()?;
        let message = (payload, Fate::Sent(ticket));
        self.model
            .topics
            .get_mut(&topic)
            .unwrap()
            .messages
            .push(message);
        Some(ticket)
    }

    fn subscribe(&mut self, topic: HomedId) {
        let id = self.new_id();
        let cursor = self.random.below(self.model.topics[&topic].last_seq() + 1);
        let created_at_ms = self.now.unix_ms;
        let record = Record::SubscriptionCreated {
            id,
            topic,
            name: "s",
            maker: "",
            cursor,
            created_at_ms,
        };
        if let Ok(ticket) = self.append(&record) {
            let made = Fate::Sent(ticket);
            let subscription = ModelSubscription {
                made,
                deleted: None,
                cursors: vec![(cursor, made)],
            };
            self.model
                .topics
                .get_mut(&topic)
                .unwrap()
                .subscriptions
                .insert(id, subscription);
        }
    }

    fn a_subscription(&mut self, topic: HomedId) -> Option<HomedId> {
        let subscriptions = self.model.topics[&topic].subscriptions.iter();
        let live = subscriptions.filter(|(_, subscription)| subscription.deleted.is_none());
        let live: Vec<HomedId> = live.map(|(id, _)| *id).collect();
        (!live.is_empty()).then(|| live[self.random.index(live.len())])
    }

    fn unsubscribe(&mut self, topic: HomedId) {
        let Some(id) = self.a_subscription(topic) else {
            return;
        };
        if let Ok(ticket) = self.append(&Record::SubscriptionDeleted { id }) {
            let topic = self.model.topics.get_mut(&topic).unwrap();
            topic.subscriptions.get_mut(&id).unwrap().deleted = Some(Fate::Sent(ticket));
        }
    }

    fn move_cursor(&mut self, topic: HomedId) {
        let Some(subscription) = self.a_subscription(topic) else {
            return;
        };
        let seq = self.random.below(self.model.topics[&topic].last_seq() + 1);
        if let Ok(ticket) = self.append(&Record::CursorMoved { subscription, seq }) {
            let topic = self.model.topics.get_mut(&topic).unwrap();
            let cursors = &mut topic.subscriptions.get_mut(&subscription).unwrap().cursors;
            cursors.push((seq, Fate::Sent(ticket)));
        }
    }

    fn trim(&mut self, id: HomedId) {
        let topic = &self.model.topics[&id];
        let (first, durable) = (topic.first_seq(), topic.durable_seq());
        if first <= durable {
            let first_seq = first + self.random.below(durable - first + 2);
            if let Ok(ticket) = self.append(&Record::Trimmed {
                topic: id,
                first_seq,
            }) {
                let topic = self.model.topics.get_mut(&id).unwrap();
                topic.trims.push((first_seq, Fate::Sent(ticket)));
            }
        }
    }

    /// Carries out some of the operations, in any order.
    pub(crate) fn work(&mut self) {
        let log = self.log.as_mut().unwrap();
        for _ in 0..6 {
            while let Some(effect) = log.poll_effect(self.now) {
                self.effects.push(effect);
            }
            if self.effects.is_empty() || self.random.one_in(6) {
                return;
            }
            let effect = self
                .effects
                .swap_remove(self.random.index(self.effects.len()));
            let result = execute(&mut self.folder, &effect.op);
            if self.folder.is_gone() {
                return;
            }
            log.handle_done(effect.id, result);
        }
    }

    /// Carries out all operations there are.
    pub(crate) fn settle(&mut self) -> Checked {
        let log = self.log.as_mut().unwrap();
        for _ in 0..400 {
            for effect in std::mem::take(&mut self.effects) {
                let result = execute(&mut self.folder, &effect.op);
                log.handle_done(effect.id, result);
            }
            drive(log, &mut self.folder, self.now);
            self.now.monotonic_us += 1_000;
            if log.is_idle() {
                break;
            }
        }
        self.take_events()
    }

    pub(crate) fn take_events(&mut self) -> Checked {
        let log = self.log.as_mut().unwrap();
        while let Some(event) = log.poll_event() {
            match event {
                Event::Durable { up_to, .. } => self.model.settle(up_to),
                Event::Failed { reason } if !self.folder.is_gone() => {
                    return Err(format!("the log failed: {reason}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// P2, D-28: what is read is what was sent, gap-free, and durable.
    fn read_some(&mut self) -> Checked {
        let ids = self.live_topics();
        if ids.is_empty() {
            return Ok(());
        }
        let id = ids[self.random.index(ids.len())];
        let from = 1 + self.random.below(self.model.topics[&id].last_seq() + 1);
        self.read(id, from).map(drop)
    }

    /// Reads a topic from a seq on, as far as it goes now; tells the next seq.
    pub(crate) fn read(&mut self, id: HomedId, from: Seq) -> Result<(Seq, ReadEnd), String> {
        let topic = &self.model.topics[&id];
        let (first, durable) = (topic.first_seq(), topic.durable_seq());
        let limits = ReadLimits {
            messages_max: 20,
            bytes_max: 20_000,
        };
        let (mut wanted, mut bad) = (from, None);
        let log = self.log.as_mut().unwrap();
        let (next, end) = log.read(id, from, limits, &mut |item| match item {
            ReadItem::Message(publish) => {
                let sent = topic
                    .messages
                    .get(usize::try_from(publish.seq).unwrap() - 1);
                let same = sent.is_some_and(|(payload, _)| payload == publish.payload);
                if publish.seq != wanted || durable < publish.seq || !same {
                    bad.get_or_insert_with(|| {
                        format!("seq {} read, {wanted} wanted, same: {same}", publish.seq)
                    });
                }
                wanted = publish.seq + 1;
            }
            ReadItem::Trimmed { to, .. } if to < first => wanted = to + 1,
            other => drop(bad.get_or_insert_with(|| format!("{other:?}"))),
        });
        match bad {
            Some(text) => Err(format!("topic {id} from {from}: {text}")),
            None if end == ReadEnd::Durable && next <= durable => Err(format!(
                "topic {id} from {from}: ended at {next}, durable {durable}"
            )),
            None => Ok((next, end)),
        }
    }

    /// Reads everything there is.
    pub(crate) fn read_all(&mut self) -> Checked {
        for id in self.live_topics() {
            let mut from = 1;
            for _ in 0..1000 {
                match self.read(id, from)? {
                    (_, ReadEnd::Durable) => break,
                    (next, _) => from = next,
                }
                self.now.monotonic_us += 2_000;
                drive(self.log.as_mut().unwrap(), &mut self.folder, self.now);
            }
            let durable = self.model.topics[&id].durable_seq();
            if from <= durable && self.read(id, from)?.1 != ReadEnd::Durable {
                return Err(format!(
                    "topic {id} cannot be read from {from} to {durable}"
                ));
            }
        }
        Ok(())
    }
}

/// One run: lives that each end with a crash, and a last one that is read to the end.
fn run(seed: u64, config: &LogConfig, power_only: bool) -> Checked {
    let dir = scratch();
    let mut world = World::new(dir.path(), seed, config.clone());
    // L5: what passes is no damage, on one disk in three.
    if seed.is_multiple_of(3) {
        world.folder.fail_reads(5, &PASSING);
    }
    for life in 0..4 {
        if world.random.one_in(3) {
            let n = world.random.below(30);
            world.folder.fail_at(n, Fault::Crash);
        }
        if world.start()? {
            let within = if life == 0 { 150 } else { 400 };
            let n = world.random.below(within);
            world.folder.fail_at(n, Fault::Crash);
            for _ in 0..400 {
                world.step()?;
                if world.folder.is_gone() {
                    break;
                }
            }
        }
        let power = power_only || !world.random.one_in(3);
        world = world.crash(power);
    }
    assert!(
        world.start()?,
        "nothing stands in the way of the last start"
    );
    for _ in 0..30 {
        world.step()?;
    }
    world.settle()?;
    world.read_all()?;
    let log = world.log.as_mut().unwrap();
    assert_eq!(log.state(), LogState::Serving);
    log.close();
    world.settle()?;
    if !world.log.as_ref().unwrap().is_idle() {
        return Err("a clean stop does not end".to_owned());
    }
    world = world.crash(true);
    // Copying takes long, so not every run does.
    let found = if seed.is_multiple_of(4) {
        Some(found_twice(dir.path())?)
    } else {
        None
    };
    world.start()?;
    let Some(found) = found else {
        return world.read_all();
    };
    let is_same = |(id, topic): (&HomedId, &ModelTopic)| {
        let found = found.get(id).copied();
        found
            == Some((
                topic.first_seq(),
                topic.last_seq(),
                topic.subscriptions.len(),
            ))
    };
    if found.len() != world.model.topics.len() || !world.model.topics.iter().all(is_same) {
        return Err(format!("without a checkpoint: {found:?}"));
    }
    world.read_all()
}

/// Starts copies of the folder with and without its checkpoint: the log alone must tell the same. Only
/// where it misses a segment the epoch is a new one: which of them were cleaned the checkpoint knew.
/// Returns first seq, last seq and the count of subscriptions of each topic.
fn found_twice(path: &Path) -> Result<BTreeMap<HomedId, (Seq, Seq, usize)>, String> {
    let (whole, bare) = (start_copy(path, false)?, start_copy(path, true)?);
    let is_epoch_new = bare.1 && !whole.1;
    if whole.1 {
        return Err("the epoch is new with a checkpoint".to_owned());
    }
    let (whole, bare) = (whole.0, bare.0);
    let essence = |topics: &[RecoveredTopic]| -> Vec<_> {
        let mut topics = topics.to_vec();
        topics
            .iter_mut()
            .for_each(|topic| (topic.keys, topic.bytes, topic.born) = (Vec::new(), 0, 0));
        if is_epoch_new {
            topics.iter_mut().for_each(|topic| topic.epoch = 0);
        }
        let subscriptions = topics.iter_mut().flat_map(|topic| &mut topic.subscriptions);
        subscriptions.for_each(|subscription| subscription.born = 0);
        topics
    };
    let (whole_essence, bare_essence) = (essence(&whole), essence(&bare));
    if let Some((a, b)) = whole_essence
        .iter()
        .zip(&bare_essence)
        .find(|(a, b)| a != b)
    {
        return Err(format!("with a checkpoint {a:?}, without {b:?}"));
    }
    if whole.len() != bare.len() {
        return Err(format!("{} and {} topics", whole.len(), bare.len()));
    }
    let count =
        |topic: &RecoveredTopic| (topic.first_seq, topic.last_seq, topic.subscriptions.len());
    Ok(whole.iter().map(|topic| (topic.id, count(topic))).collect())
}

fn start_copy(path: &Path, is_bare: bool) -> Result<(Vec<RecoveredTopic>, bool), String> {
    let copied = scratch();
    for entry in std::fs::read_dir(path).unwrap() {
        let name = entry.unwrap().file_name();
        if !is_bare || !name.to_str().unwrap().ends_with("checkpoint") {
            std::fs::copy(path.join(&name), copied.path().join(&name)).unwrap();
        }
    }
    let mut folder = Folder::new(copied.path());
    let (_, state) = recover(&mut folder, IDENTITY, &small(), Now::default()).unwrap();
    let report = state.report;
    let is_missing = !report.segments_missing.is_empty();
    match report.replay.damage.is_empty() && (is_missing || !report.is_epoch_new) {
        true => Ok((state.topics, report.is_epoch_new)),
        false => Err(format!("bare: {is_bare}, {report:?}")),
    }
}

fn run_seeds(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        if let Err(text) = run(seed, &small(), false) {
            panic!("seed {seed}: {text}");
        }
    }
}

/// T-S1, T-D3, P1 to P4, B-15 to B-17, D-26, D-28, D-33, D-42
#[test]
fn nothing_acknowledged_is_lost_by_a_crash_at_any_operation() {
    run_seeds((0..seeds(300)).step_by(2));
}

/// T-S1: the other half of the seeds, on another core.
#[test]
fn nothing_that_was_sent_comes_back_different_after_a_crash() {
    run_seeds((1..seeds(300)).step_by(2));
}

/// The same harness must find the fault of a log that acknowledges before the sync: T-S1
#[test]
fn a_log_that_acknowledges_before_the_sync_is_caught() {
    let config = LogConfig {
        fsync: Fsync::Os,
        ..small()
    };
    let caught = (0..20)
        .filter(|&seed| run(seed, &config, true).is_err())
        .count();
    assert!(10 < caught, "only {caught} of 20 runs were caught");
}

/// D-27
#[test]
fn a_sync_for_each_message_keeps_the_same_promises() {
    let config = LogConfig {
        fsync: Fsync::Always,
        ..small()
    };
    for seed in 1000..1000 + seeds(300) / 10 {
        if let Err(text) = run(seed, &config, false) {
            panic!("seed {seed}: {text}");
        }
    }
}
