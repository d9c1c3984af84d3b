//! T-S1, T-S2, T-S3: a partition, its disk and its clients in one simulation: disks that fail in all
//! ways, fill up, empty and are full at a start, clocks that jump, retention and cleaning at every
//! threshold, and lives that end at any operation. What the clients have seen must be linearizable.

use std::hash::Hasher;
use std::path::Path;

use tidegate::broker::durable::Limits;
use tidegate::log::{CrashFolder, Fault, Fsync, LogConfig, Now};

use super::clients::{Clients, TOPICS, Weather};
use super::commit_log::{PASSING, small};
use super::linearizable::{Found, check};
use super::log_model::Checked;
use super::node::Node;
use super::topic_model::{NamedTopic, Op};
use super::{Random, scratch, seeds};

/// EIO among what passes.
const BAD_READS: [i32; 6] = [5, 4, 11, 12, 23, 24];

/// What a log goes on through.
const PASSING_FAULTS: [Fault; 6] = [
    Fault::Short,
    Fault::Lack(4),
    Fault::Lack(11),
    Fault::Lack(12),
    Fault::Lack(23),
    Fault::Lack(24),
];

/// What is final for this life of a log.
const FINAL_FAULTS: [Fault; 3] = [Fault::Io, Fault::Short, Fault::Lack(24)];

const DAY_MS: u64 = 86_400_000;

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) weather: Weather,
    is_passing: bool,
    is_full: bool,
    clean_live_percent_max: u64,
    checkpoint_bytes: u64,
    fsync: Fsync,
}

impl Plan {
    /// Each fault with and without each other one, over the seeds.
    pub(crate) fn of(seed: u64) -> Self {
        let bit = |n: u64| (seed >> n) & 1 == 1;
        Self {
            weather: Weather {
                is_damaging: seed % 5 == 3,
                is_jumping: bit(1),
                is_failing: seed % 3 == 1,
            },
            is_passing: bit(0),
            is_full: bit(2),
            clean_live_percent_max: [0, 1, 25, 50, 60, 90, 100][(seed % 7) as usize],
            checkpoint_bytes: [6 << 10, 24 << 10, 1 << 20][(seed % 3) as usize],
            fsync: Fsync::Batch,
        }
    }

    pub(crate) fn config(&self) -> LogConfig {
        LogConfig {
            fsync: self.fsync,
            clean_live_percent_max: self.clean_live_percent_max,
            checkpoint_bytes: self.checkpoint_bytes,
            ..small()
        }
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        window_messages: 8,
        pending_bytes_max: 64 << 10,
        tail_bytes_max: 2 << 10,
        read_bytes_max: 4 << 10,
        cursor_delay_ms_max: 2,
        ..Limits::default()
    }
}

pub(crate) struct Life {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) clients: Clients,
    pub(crate) now: Now,
    /// The newest segment that holds a whole batch.
    pub(crate) newest: u64,
    lives: u64,
}

impl Life {
    pub(crate) fn new(seed: u64, plan: Plan) -> Self {
        Self {
            plan,
            random: Random::new(seed),
            clients: Clients::new(plan.weather),
            now: Now {
                monotonic_us: 1,
                unix_ms: 1_800_000_000_000,
            },
            newest: 0,
            lives: 0,
        }
    }

    /// Everything that may go wrong from here on, anew.
    fn spoil(&mut self, folder: &mut CrashFolder) {
        let plan = self.plan;
        let reads: &'static [i32] = match (plan.weather.is_damaging, plan.is_passing) {
            (true, _) => &BAD_READS,
            (false, true) => &PASSING,
            (false, false) => &[],
        };
        let writes: &'static [Fault] = match (plan.weather.is_failing, plan.is_passing) {
            (true, _) => &FINAL_FAULTS,
            (false, true) => &PASSING_FAULTS,
            (false, false) => &[],
        };
        folder.fail_reads(4 + self.random.below(20), reads);
        folder.fail_often(4 + self.random.below(150), writes);
        self.change_space(folder);
    }

    fn change_space(&mut self, folder: &mut CrashFolder) {
        if self.plan.is_full {
            let space = match self.random.below(4) {
                0 => Some(0),
                1 => Some(self.random.below(40 << 10)),
                2 => Some(self.random.below(400 << 10)),
                _ => None,
            };
            folder.limit_space(space);
        }
    }

    fn jump(&mut self) {
        if self.plan.weather.is_jumping && self.random.one_in(40) {
            let by = self.random.below(DAY_MS);
            self.now.unix_ms = match self.random.one_in(2) {
                true => self.now.unix_ms + by,
                false => self.now.unix_ms - by,
            };
        }
    }

    /// Starts the partition as long as faults come in the way; nothing if the process died over it.
    fn start(&mut self, mut folder: CrashFolder) -> Result<Result<Node, CrashFolder>, String> {
        let is_full_at_start = self.plan.is_full && self.random.one_in(2);
        for attempt in 0..3 {
            let random = self.random.next();
            if is_full_at_start && attempt == 0 {
                folder.limit_space(Some(0));
            }
            let config = (&self.plan.config(), limits());
            let error = match Node::start(folder, config, self.now, random) {
                Ok((mut node, report)) => {
                    // A crash may leave a segment that was about to be used again; it is kept, and told.
                    let is_good = self.plan.weather.is_damaging
                        || report.replay.damage.is_empty()
                            && report.topics_nameless == 0
                            && report.segments_missing.is_empty()
                            && !report.is_epoch_new;
                    if !is_good {
                        return Err(format!("life {}: {report:?}", self.lives));
                    }
                    for request in self.clients.connect_all() {
                        node.handle(request);
                    }
                    return Ok(Ok(node));
                }
                Err(not) => {
                    folder = not.folder;
                    not.error
                }
            };
            if folder.is_gone() {
                return Ok(Err(folder));
            }
            let weather = self.plan.weather;
            if !weather.is_damaging && !weather.is_failing {
                return Err(format!("life {}, attempt {attempt}: {error}", self.lives));
            }
            // An operator looks after the disk.
            folder.fail_reads(1, &[]);
            folder.fail_often(1, &[]);
        }
        Err("no start on a good disk".to_owned())
    }

    fn step(&mut self, node: &mut Node) -> Checked {
        self.now.monotonic_us += self.random.below(400);
        self.now.unix_ms += self.random.below(3);
        self.jump();
        node.now = self.now;
        if self.random.one_in(50) {
            self.change_space(&mut node.folder);
        }
        for _ in 0..self.random.below(4) {
            for request in self.clients.ask(&mut self.random) {
                node.handle(request);
            }
        }
        node.work(&mut self.random, false);
        self.take_answers(node)
    }

    fn take_answers(&mut self, node: &mut Node) -> Checked {
        if node.failure.is_some() && !self.plan.weather.is_failing && !node.folder.is_gone() {
            return Err(format!("the log failed: {:?}", node.failure));
        }
        while let Some((to, reference, answer)) = node.answers.pop_front() {
            self.clients.take(to, reference.as_ref(), answer)?;
        }
        Ok(())
    }

    /// One life of the partition, whatever ends it.
    pub(crate) fn live(
        &mut self,
        mut folder: CrashFolder,
        hash: &mut impl Hasher,
    ) -> Result<CrashFolder, String> {
        self.lives += 1;
        self.spoil(&mut folder);
        if self.random.one_in(4) {
            let n = self.random.below(25);
            folder.fail_at(n, Fault::Crash);
        }
        let mut node = match self.start(folder)? {
            Ok(node) => node,
            Err(folder) => return self.end(folder),
        };
        self.spoil(&mut node.folder);
        if !self.random.one_in(4) {
            let n = self.random.below(250);
            node.folder.fail_at(n, Fault::Crash);
        }
        for _ in 0..200 {
            self.step(&mut node)?;
            if node.folder.is_gone() {
                break;
            }
        }
        if !node.folder.is_gone() && self.random.one_in(2) {
            let is_over = node.stop(&mut self.random);
            if !is_over && node.failure.is_none() {
                return Err("a clean stop does not end".to_owned());
            }
            self.take_answers(&mut node)?;
            self.now.monotonic_us = node.now.monotonic_us;
        }
        self.newest = self.newest.max(node.newest);
        hash.write_u64(node.transcript.finish());
        self.end(node.folder)
    }

    fn end(&mut self, mut folder: CrashFolder) -> Result<CrashFolder, String> {
        self.clients.lose_all();
        if self.random.one_in(3) {
            folder.restart();
            return Ok(folder);
        }
        folder.cut_power().map_err(|error| error.to_string())
    }

    /// A last life on a good disk, in which everything is read.
    fn look(&mut self, mut folder: CrashFolder) -> Checked {
        folder.fail_reads(1, &[]);
        folder.fail_often(1, &[]);
        folder.limit_space(None);
        let plan = (self.plan.is_full, self.plan.weather.is_failing);
        self.plan.is_full = false;
        let Ok(mut node) = self.start(folder)? else {
            return Err("nothing stands in the way of the last start".to_owned());
        };
        (self.plan.is_full, _) = plan;
        self.now.monotonic_us += 10_000_000;
        for _ in 0..40 {
            self.now.monotonic_us += 10_000;
            node.now = self.now;
            node.work(&mut self.random, true);
            self.take_answers(&mut node)?;
        }
        for topic in 0..TOPICS {
            for request in self.clients.read(0, topic) {
                node.handle(request);
            }
        }
        for _ in 0..40 {
            self.now.monotonic_us += 10_000;
            node.now = self.now;
            node.work(&mut self.random, true);
            self.take_answers(&mut node)?;
        }
        if 0 < self.clients.waiting() {
            return Err(format!("{} calls wait for ever", self.clients.waiting()));
        }
        Ok(())
    }
}

/// One run: lives of a partition, then everything is read and explained.
fn run(seed: u64, plan: Plan, path: &Path) -> Result<Done, String> {
    let mut life = Life::new(seed, plan);
    let mut folder = CrashFolder::new(path, seed).unwrap();
    let mut hash = std::hash::DefaultHasher::new();
    for _ in 0..4 {
        folder = life.live(folder, &mut hash)?;
    }
    life.look(folder)?;
    let mut undecided = 0;
    for (topic, history) in life.clients.histories().iter().enumerate() {
        let found =
            check::<NamedTopic>(history).map_err(|text| format!("topic {topic}: {text}"))?;
        undecided += u32::from(found == Found::Nothing);
    }
    Ok(Done {
        hash: hash.finish(),
        clients: life.clients,
        undecided,
    })
}

/// What a run has come to.
struct Done {
    /// Of what was written and answered.
    hash: u64,
    clients: Clients,
    /// Histories of which the search found no order in its time, and did not find that there is none.
    undecided: u32,
}

/// One history in so many may be undecided.
const UNDECIDED_SHARE: u32 = 400;

/// One seed alone, to look at it again.
pub(crate) fn seed_wanted() -> Option<u64> {
    std::env::var("TIDEGATE_SIM_SEED").ok()?.parse().ok()
}

fn run_seeds(seeds: impl Iterator<Item = u64>) {
    let (mut delivered, mut undecided, mut histories) = (0, 0, 0);
    let one = seed_wanted();
    for seed in seeds.filter(|seed| one.is_none_or(|one| one == *seed)) {
        let dir = scratch();
        match run(seed, Plan::of(seed), dir.path()) {
            Ok(done) => {
                delivered += done.clients.delivered;
                undecided += done.undecided;
                histories += u32::try_from(TOPICS).unwrap();
            }
            Err(text) => panic!("seed {seed}, {:?}: {text}", Plan::of(seed)),
        }
    }
    assert!(
        undecided * UNDECIDED_SHARE <= histories.max(UNDECIDED_SHARE),
        "{undecided} of {histories} histories are undecided"
    );
    assert!(one.is_some() || 0 < delivered, "nothing was delivered");
}

/// T-S1, T-S2, T-S3, P1 to P5: the first half of the seeds.
#[test]
fn what_clients_see_through_all_faults_is_linearizable() {
    run_seeds((0..seeds(200)).step_by(2));
}

/// T-S1, T-S2, T-S3, P1 to P5: the other half, on another core.
#[test]
fn clients_that_come_back_find_everything_that_they_were_told() {
    run_seeds((1..seeds(200)).step_by(2));
}

/// A failure can be looked at again: nothing in home or log depends on anything but the seed.
#[test]
fn two_runs_of_one_seed_write_and_answer_the_same() {
    for seed in 0..seeds(200) / 20 {
        let [one, two] = [scratch(), scratch()].map(|dir| {
            let done = run(seed, Plan::of(seed), dir.path());
            done.map(|done| (done.hash, done.clients.delivered))
        });
        assert_eq!(one, two, "seed {seed} in two runs");
    }
}

/// The same harness must find the fault of a log that acknowledges before the sync.
#[test]
fn clients_notice_a_log_that_acknowledges_before_the_sync() {
    let is_caught = |seed: &u64| {
        let dir = scratch();
        let plan = Plan {
            fsync: Fsync::Os,
            ..Plan::of(*seed)
        };
        run(*seed, plan, dir.path()).is_err()
    };
    let caught = (0..16).filter(is_caught).count();
    assert!(6 < caught, "only {caught} of 16 runs were caught");
}

/// A history that was good, with one answer changed as a broken home would give it.
type Break = fn(&mut Op) -> bool;

const BREAKS: [(&str, Break); 8] = [
    ("a message that is not shown", |op| match op {
        Op::Read { messages, .. } => 1 < messages.len() && messages.pop().is_some(),
        _ => false,
    }),
    ("a message in the place of another", |op| match op {
        Op::Read { messages, .. } if 1 < messages.len() => {
            let last = messages.len() - 1;
            let (first, behind) = (messages[0].1, messages[last].1);
            (messages[0].1, messages[last].1) = (behind, first);
            true
        }
        _ => false,
    }),
    ("a page of yesterday", |op| match op {
        Op::Read { messages, last, .. } if 1 < messages.len() => {
            *last -= 1;
            messages.pop().is_some()
        }
        _ => false,
    }),
    ("a seq that is given twice", |op| match op {
        Op::Publish {
            told: Some(told), ..
        } if !told.is_repeat && 1 < told.first => {
            told.first -= 1;
            true
        }
        _ => false,
    }),
    ("a repeat that is stored again", |op| match op {
        Op::Publish {
            told: Some(told),
            may_forget: false,
            ..
        } if told.is_repeat => {
            told.is_repeat = false;
            true
        }
        _ => false,
    }),
    ("a topic that is made twice", |op| match op {
        Op::Resolve(Some(told)) if !told.is_new => {
            told.is_new = true;
            true
        }
        _ => false,
    }),
    ("an ack that is forgotten", |op| match op {
        Op::Subscribe {
            told: Some(told), ..
        } if told.is_resumed && 3 < told.cursor => {
            told.cursor = 0;
            true
        }
        _ => false,
    }),
    (
        "an ack of one whose binding was taken over",
        |op| match op {
            Op::Ack {
                connection,
                told: Some(_),
                ..
            } => {
                *connection += 1;
                true
            }
            _ => false,
        },
    ),
];

/// Lies of a kind in one history.
const LIES_MAX: u32 = 4;

/// What the check of histories is worth: of every kind of lie most are found wherever they stand.
#[test]
fn a_history_with_a_lie_in_it_is_not_explained() {
    let mut told = [(0, 0); BREAKS.len()];
    for seed in [0, 4, 12] {
        let dir = scratch();
        let Ok(mut done) = run(seed, Plan::of(seed), dir.path()) else {
            panic!("seed {seed} fails without a lie");
        };
        for history in done.clients.histories() {
            for (count, (_, spoil)) in told.iter_mut().zip(BREAKS) {
                let most = count.0 + LIES_MAX;
                for at in (0..history.len()).rev() {
                    let mut lie = history.clone();
                    if count.0 < most && lie[at].is_answered && spoil(&mut lie[at].op) {
                        count.0 += 1;
                        count.1 += u32::from(check::<NamedTopic>(&lie) != Ok(Found::Order));
                    }
                }
            }
        }
    }
    for ((lies, found), (what, _)) in told.into_iter().zip(BREAKS) {
        assert!(
            2 < lies && lies * 9 <= found * 10,
            "{what}: {found} of {lies}"
        );
    }
}
