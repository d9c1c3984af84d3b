//! Damage together with crashes: bits that flip, files that are cut off, missing, foreign or of a
//! later version while no process runs, in a partition that clients use before and after. A start
//! refuses and changes nothing, or serves; what was acknowledged is there, or told as missing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidegate::auth::Rights;
use tidegate::broker::durable::{Answer, Caller, Command, Peer, Request, TopicRef};
use tidegate::id::{HomedId, Seq, Tenant};
use tidegate::log::{CrashFolder, RecoverError, RecoveryReport};

use super::living::{Life, Plan, limits, seed_wanted};
use super::log_model::Checked;
use super::node::Node;
use super::{Random, scratch, seeds};

/// What was done to a folder, and what was there before.
struct Spoiled {
    what: String,
    before: BTreeMap<PathBuf, Vec<u8>>,
    /// The format has another version, which is never served.
    is_refused: bool,
}

fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(path).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn put_back(path: &Path, before: &BTreeMap<PathBuf, Vec<u8>>) {
    for file in files(path).into_keys() {
        fs::remove_file(file).unwrap();
    }
    for (file, bytes) in before {
        fs::write(file, bytes).unwrap();
    }
}

fn is_kind(path: &Path, kind: &str) -> bool {
    path.extension().is_some_and(|found| found == kind)
}

/// Segments behind which another proves that what stands in them was durable: in the last batches
/// nobody can tell damage from what a crash leaves.
fn old_segments(files: &BTreeMap<PathBuf, Vec<u8>>, newest: u64) -> Vec<PathBuf> {
    let is_old = |path: &&PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap();
        is_kind(path, "segment") && name.parse::<u64>().unwrap() < newest
    };
    files.keys().filter(is_old).cloned().collect()
}

const KINDS: u64 = 9;

/// Does one thing to a folder that nobody uses; nothing if there is nothing to do it to.
fn spoil(path: &Path, newest: u64, random: &mut Random) -> Option<Spoiled> {
    let before = files(path);
    let old = old_segments(&before, newest);
    let beside: Vec<PathBuf> = before
        .keys()
        .filter(|path| is_kind(path, "index") || is_kind(path, "checkpoint"))
        .cloned()
        .collect();
    let kind = random.below(KINDS);
    let from = if kind < 5 { &old } else { &beside };
    let file = (!from.is_empty()).then(|| from[random.index(from.len())].clone());
    let mut is_refused = false;
    let what = match (kind, file) {
        (0..=2, Some(file)) => {
            let mut bytes = before[&file].clone();
            let end = bytes.iter().rposition(|&byte| byte != 0)?;
            let bit = random.index((end + 1) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, bytes).unwrap();
            format!("bit {bit} of {file:?}")
        }
        (3, Some(file)) => {
            fs::remove_file(&file).unwrap();
            format!("no {file:?}")
        }
        (4, Some(file)) => {
            let bytes = &before[&file];
            let end = random.index(bytes.len().max(1));
            fs::write(&file, &bytes[..end.min(bytes.len())]).unwrap();
            format!("{file:?} ends at {end}")
        }
        (5, Some(file)) => {
            fs::remove_file(&file).unwrap();
            format!("no {file:?}")
        }
        (6, Some(file)) => {
            let mut bytes = before[&file].clone();
            let at = random.index(bytes.len().max(1));
            if bytes.is_empty() {
                return None;
            }
            bytes[at] ^= 1 << random.below(8);
            fs::write(&file, bytes).unwrap();
            format!("a bit of byte {at} of {file:?}")
        }
        (7, _) => {
            let mut ids = 7_000 + random.below(99)..;
            let file = ids.find_map(|id| {
                let file = path.join(format!("{id:016}.segment"));
                (!file.exists()).then_some(file)
            })?;
            let bytes: Vec<u8> = (0..20_000)
                .map(|_| random.next().to_le_bytes()[0])
                .collect();
            fs::write(&file, bytes).unwrap();
            format!("a foreign {file:?}")
        }
        (8, _) => {
            let file = old.last()?;
            is_refused = later_version(file);
            format!("{file:?} of a later version")
        }
        _ => return None,
    };
    Some(Spoiled {
        what,
        before,
        is_refused,
    })
}

/// Makes a segment say that it has a later version of the format, with a right checksum; tells whether
/// it had a head of its own.
fn later_version(file: &Path) -> bool {
    let bytes = fs::read(file).unwrap();
    let name = file.file_stem().and_then(|name| name.to_str()).unwrap();
    let id: u64 = name.parse().unwrap();
    let has_head = bytes.starts_with(b"TGSEGM\0") && bytes[16..24] == id.to_le_bytes();
    if has_head {
        super::foreign::change_head(file, |head| head[VERSION_AT] += 1);
    }
    has_head
}

/// Where a segment's head says its version.
const VERSION_AT: usize = 7;

/// What is known of all starts so far.
#[derive(Default)]
struct Told {
    is_damaged: bool,
    is_epoch_new: bool,
}

impl Told {
    fn take(&mut self, report: &RecoveryReport) {
        self.is_damaged |= !report.replay.damage.is_empty()
            || 0 < report.topics_nameless
            || !report.segments_missing.is_empty()
            || !report.segments_unknown.is_empty()
            || !report.segments_protected.is_empty();
        self.is_epoch_new |= report.is_epoch_new;
    }
}

fn start(life: &mut Life, path: &Path) -> Result<(Node, RecoveryReport), RecoverError> {
    let seed = life.random.next();
    let folder = CrashFolder::new(path, seed).unwrap();
    let config = (&life.plan.config(), limits());
    Node::start(folder, config, life.now, seed).map_err(|not| not.error)
}

/// All messages and gaps of a topic, read as a stranger does; nothing if there is no such topic.
type Page = (BTreeMap<Seq, Bytes>, Vec<(Seq, Seq)>, Seq);

fn page(life: &mut Life, node: &mut Node, topic: HomedId) -> Result<Option<Page>, String> {
    let peer = Peer {
        shard: 1,
        key: u64::MAX,
    };
    let caller = Caller {
        tenant: Tenant::default(),
        rights: Rights::everything(),
        peer,
        reference: None,
    };
    let command = Command::ReadMessages {
        topic: TopicRef::Id(topic),
        from_seq: 0,
        limit: 1_000_000,
    };
    node.handle(Request { caller, command });
    for _ in 0..200 {
        life.now.monotonic_us += 10_000;
        node.now = life.now;
        node.work(&mut life.random, true);
        while let Some((to, _, answer)) = node.answers.pop_front() {
            match answer {
                Answer::Messages {
                    messages,
                    gaps,
                    last_seq,
                    ..
                } if to == peer => {
                    let messages = messages.into_iter();
                    let messages = messages.map(|message| (message.seq, message.payload));
                    let gaps = gaps.iter().map(|gap| (gap.from, gap.to));
                    return Ok(Some((messages.collect(), gaps.collect(), last_seq)));
                }
                Answer::Refused { .. } if to == peer => return Ok(None),
                _ => {}
            }
        }
    }
    Err(format!("a page of {topic} never comes"))
}

/// Nothing that was acknowledged has gone without a word.
fn look(life: &mut Life, node: &mut Node, told: &Told) -> Checked {
    if told.is_epoch_new {
        life.clients.forget_passing();
    }
    for (topic, kept) in life.clients.kept() {
        let Some((messages, gaps, last)) = page(life, node, topic)? else {
            if !told.is_damaged && !told.is_epoch_new {
                return Err(format!("{topic} is gone and nobody said so"));
            }
            continue;
        };
        let is_told = |seq| gaps.iter().any(|(from, to)| *from <= seq && seq <= *to);
        for (seq, payload) in kept {
            if last < seq && told.is_epoch_new {
                life.clients.forget_behind(topic, last);
                break;
            }
            let prefix = format!("{payload}:");
            let is_right = |bytes: &Bytes| bytes.starts_with(prefix.as_bytes());
            match messages.get(&seq) {
                Some(bytes) if is_right(bytes) => {}
                None if is_told(seq) => {}
                found => {
                    let text = format!("{topic} seq {seq} of {last}, payload {payload}: {found:?}");
                    return Err(text);
                }
            }
        }
    }
    Ok(())
}

/// Spoils a folder and starts on it; what is refused is put back, and was not changed.
fn spoil_and_start(life: &mut Life, path: &Path, told: &mut Told) -> Checked {
    let Some(spoiled) = spoil(path, life.newest, &mut life.random) else {
        return Ok(());
    };
    let after = files(path);
    let named = |text: String| format!("{}: {text}", spoiled.what);
    match start(life, path) {
        Ok(_) if spoiled.is_refused => Err(named("it is served".to_owned())),
        Ok((mut node, report)) => {
            told.take(&report);
            look(life, &mut node, told).map_err(|text| named(format!("{text}, {report:?}")))
        }
        Err(error) => {
            if files(path) != after {
                return Err(named(format!("it was changed: {error}")));
            }
            if matches!(error, RecoverError::Io { .. }) {
                return Err(named(error.to_string()));
            }
            put_back(path, &spoiled.before);
            let (mut node, report) = start(life, path).map_err(|error| named(error.to_string()))?;
            told.take(&report);
            look(life, &mut node, told).map_err(named)
        }
    }
}

fn run(seed: u64, path: &Path) -> Checked {
    let mut plan = Plan::of(seed);
    plan.weather.is_damaging = true;
    let mut life = Life::new(seed, plan);
    let mut folder = CrashFolder::new(path, seed).unwrap();
    let mut told = Told::default();
    let mut hash = std::hash::DefaultHasher::new();
    for round in 0..4 {
        drop(life.live(folder, &mut hash)?);
        for _ in 0..=life.random.below(2) {
            spoil_and_start(&mut life, path, &mut told)
                .map_err(|text| format!("round {round}: {text}"))?;
        }
        folder = CrashFolder::new(path, seed + round).unwrap();
    }
    Ok(())
}

/// Seeds that found something: a segment gone, and then the only checkpoint that named it, or before
/// there was one; an ack of what retention has taken, before that is told.
const FOUND: [u64; 4] = [266, 217, 344, 1119];

fn run_seeds(seeds: impl Iterator<Item = u64>) {
    let one = seed_wanted();
    for seed in seeds.filter(|seed| one.is_none_or(|one| one == *seed)) {
        let dir = scratch();
        if let Err(text) = run(seed, dir.path()) {
            panic!("seed {seed}, {:?}: {text}", Plan::of(seed));
        }
    }
}

/// T-D5, T-F6, P6, P2, L2, L3, L4, L16: damage at rest, in any order with crashes and faults while it lives.
#[test]
fn damage_between_crashes_is_told_and_never_served() {
    run_seeds((0..seeds(200)).step_by(2).chain([FOUND[0], FOUND[2]]));
}

/// T-D5, P6, P2, L2, L3, L4, L16: the other half of the seeds, on another core.
#[test]
fn what_damage_has_left_is_there_after_a_crash() {
    run_seeds((1..seeds(200)).step_by(2).chain([FOUND[1], FOUND[3]]));
}
