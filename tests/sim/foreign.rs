//! A directory that is not what its meta file says: refused with one line that names what was expected
//! and what was found, not a byte changed, and all there again once what was wrong is put right.
//! Walks the ways in which it can be so: L2, L11. And files that nobody understands: L2, L3.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tidegate::id::{HomedId, Partition, Seq};
use tidegate::log::{DataDirectory, Folder, Identity, Meta, Now, Retention, recover, verify};

use super::commit_log::{IDENTITY, small};
use super::forgetting::Desk;
use super::scratch;

pub(crate) const META: Meta = Meta {
    partitions: 4,
    salt: 0x00c0_ffee,
};

const MESSAGES: Seq = 150;

pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

pub(crate) fn snapshot(path: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(snapshot(&path)),
            false => drop(files.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    files
}

fn restore(path: &Path, files: &Files) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => fs::remove_dir_all(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
    }
    for (file, bytes) in files {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
}

fn identity(partition: u16) -> Identity {
    Identity {
        partition: Partition(partition),
        salt: META.salt,
    }
}

pub(crate) fn folder(path: &Path, partition: u16) -> PathBuf {
    path.join(format!("partition-{partition:04}"))
}

/// A directory with a topic in each partition.
pub(crate) fn fill(path: &Path) -> Vec<HomedId> {
    let directory = DataDirectory::open(path, META).unwrap();
    let fill_one = |partition| {
        let (mut desk, _) = Desk::open(
            &directory.folder_path(Partition(partition)),
            identity(partition),
        );
        let topic = desk.topic(u64::from(partition) + 1, Retention::default());
        for seq in 1..=MESSAGES {
            desk.publish(topic, seq);
        }
        desk.close();
        topic
    };
    (0..META.partitions).map(fill_one).collect()
}

/// Everything is there, as it was.
pub(crate) fn check(path: &Path, topics: &[HomedId]) {
    let other = Meta {
        partitions: 9,
        salt: 9,
    };
    let directory = DataDirectory::open(path, other).unwrap();
    assert_eq!(directory.fixed(), META);
    for (partition, topic) in (0..).zip(topics) {
        let folder = directory.folder_path(Partition(partition));
        let (mut desk, state) = Desk::open(&folder, identity(partition));
        assert_eq!(state.topics.len(), 1, "partition {partition}");
        assert_eq!(desk.read(*topic), (1..=MESSAGES).collect::<Vec<_>>());
    }
}

/// Changes the directory, and tells what a start must say.
type Case = (&'static str, fn(&Path), &'static str);

pub(crate) fn segment(path: &Path, partition: u16, kind: &str, at: usize) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(folder(path, partition))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == kind))
        .collect();
    files.sort();
    files[at].clone()
}

pub(crate) fn fresh_meta(path: &Path) {
    let other = scratch();
    let meta = Meta { salt: 1, ..META };
    drop(DataDirectory::open(other.path(), meta).unwrap());
    fs::copy(other.path().join("meta"), path.join("meta")).unwrap();
}

/// As a version before the marks in the folders has left them.
fn without_marks(path: &Path) {
    for partition in 0..META.partitions {
        let _ = fs::remove_file(folder(path, partition).join("identity"));
    }
}

fn change_meta(path: &Path, change: fn(&mut [u8])) {
    let mut bytes = fs::read(path.join("meta")).unwrap();
    for copy in bytes.chunks_mut(512) {
        change(copy);
        copy[8..12].fill(0);
        let crc = crc32c::crc32c(&copy[..48]);
        copy[8..12].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(path.join("meta"), bytes).unwrap();
}

/// Rewrites the head of a segment as another version would.
pub(crate) fn change_head(file: &Path, change: impl Fn(&mut [u8])) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    let field = |at: usize| -> [u8; 8] { bytes[at..at + 8].try_into().unwrap() };
    let crc = crc32c::crc32c(&field(24));
    let crc = crc32c::crc32c_append(crc, &field(16));
    let crc = crc32c::crc32c_append(crc, &bytes[..8]);
    let crc = crc32c::crc32c_append(crc, &bytes[12..64]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    fs::write(file, bytes).unwrap();
}

const CASES: &[Case] = &[
    ("a fresh meta file", fresh_meta, "another data directory"),
    (
        "a fresh meta file, and no marks",
        |path| {
            without_marks(path);
            fresh_meta(path);
        },
        "another data directory",
    ),
    (
        "no meta file",
        |path| fs::remove_file(path.join("meta")).unwrap(),
        "no meta file",
    ),
    (
        "a meta file of zeroes",
        |path| fs::write(path.join("meta"), [0; 1024]).unwrap(),
        "is damaged",
    ),
    (
        "a meta file with fewer partitions",
        |path| change_meta(path, |copy| copy[14] = 2),
        "files in partition-0002",
    ),
    (
        "a meta file with more partitions",
        |path| change_meta(path, |copy| copy[14] = 5),
        "partition-0004 is missing",
    ),
    (
        "a later meta file",
        |path| change_meta(path, |copy| copy[12] = 2),
        "version 2 of the format, and this program reads version 1",
    ),
    (
        "a later meta file by its magic",
        |path| change_meta(path, |copy| copy[7] = 3),
        "version 3 of the format",
    ),
    (
        "an older meta file",
        |path| change_meta(path, |copy| copy[12] = 0),
        "version 0 of the format",
    ),
    (
        "another place function",
        |path| change_meta(path, |copy| copy[24] = b'y'),
        "place function",
    ),
    (
        "a partition that is missing",
        |path| fs::remove_dir_all(folder(path, 2)).unwrap(),
        "partition-0002 is missing",
    ),
    (
        "a partition whose disk is not mounted",
        |path| {
            fs::remove_dir_all(folder(path, 1)).unwrap();
            fs::create_dir(folder(path, 1)).unwrap();
        },
        "partition-0001 is empty",
    ),
    (
        "two partitions with changed places",
        |path| {
            fs::rename(folder(path, 0), path.join("x")).unwrap();
            fs::rename(folder(path, 1), folder(path, 0)).unwrap();
            fs::rename(path.join("x"), folder(path, 1)).unwrap();
        },
        "belongs to partition 1, and this is the folder of partition 0",
    ),
    (
        "two partitions with changed places, and no marks",
        |path| {
            without_marks(path);
            fs::rename(folder(path, 3), path.join("x")).unwrap();
            fs::rename(folder(path, 1), folder(path, 3)).unwrap();
            fs::rename(path.join("x"), folder(path, 1)).unwrap();
        },
        "belongs to partition",
    ),
    (
        "a segment of another partition",
        |path| {
            let from = segment(path, 1, "segment", 0);
            fs::copy(&from, folder(path, 0).join("0000000000000900.segment")).unwrap();
        },
        "belongs to partition 1",
    ),
    (
        "a checkpoint of another partition",
        |path| {
            let from = segment(path, 1, "checkpoint", 0);
            fs::copy(&from, folder(path, 0).join("0000000000000900.checkpoint")).unwrap();
        },
        "belongs to partition 1",
    ),
    (
        "a segment of a later version",
        |path| change_head(&segment(path, 3, "segment", 1), |head| head[7] = 2),
        "version 2 of the format",
    ),
    (
        "a checkpoint of a later version",
        |path| {
            let file = segment(path, 3, "checkpoint", 0);
            let mut bytes = fs::read(&file).unwrap();
            bytes[7] = 2;
            let body = bytes.len() - 4;
            let crc = crc32c::crc32c(&bytes[..body]);
            bytes[body..].copy_from_slice(&crc.to_le_bytes());
            fs::write(file, bytes).unwrap();
        },
        "version 2 of the format",
    ),
];

/// L2, L11
#[test]
fn a_directory_that_is_not_its_own_is_refused_and_left_as_it_is() {
    let dir = scratch();
    let topics = fill(dir.path());
    let sound = snapshot(dir.path());
    for (name, change, told) in CASES {
        change(dir.path());
        let before = snapshot(dir.path());
        for _ in 0..2 {
            let made = Meta {
                partitions: 4,
                salt: 5,
            };
            let error = DataDirectory::open(dir.path(), made).expect_err(name);
            let text = error.to_string();
            assert!(text.contains(told), "{name}: {text}");
            assert!(!text.contains('\n'), "{name}: {text}");
            assert!(text.contains("nothing was changed"), "{name}: {text}");
        }
        assert!(verify(dir.path()).is_err(), "{name}");
        assert_eq!(snapshot(dir.path()), before, "{name}");
        restore(dir.path(), &sound);
    }
    check(dir.path(), &topics);
}

/// L2: the log itself refuses too, whoever opens it.
#[test]
fn a_log_is_not_opened_under_another_identity() {
    let dir = scratch();
    fill(dir.path());
    let before = snapshot(dir.path());
    let now = Now::default();
    let foreign = [
        Identity {
            salt: 1,
            ..identity(0)
        },
        identity(1),
    ];
    for identity in foreign {
        let mut storage = Folder::new(&folder(dir.path(), 0));
        let error = recover(&mut storage, identity, &small(), now).unwrap_err();
        assert!(!error.is_damage(), "{error}");
    }
    assert_eq!(snapshot(dir.path()), before);
}

/// L11: what older versions made has no marks, and a first start may have been cut short.
#[test]
fn marks_are_made_where_there_were_none() {
    let dir = scratch();
    let topics = fill(dir.path());
    without_marks(dir.path());
    check(dir.path(), &topics);
    for partition in 0..META.partitions {
        let mark = folder(dir.path(), partition).join("identity");
        let mut bytes = fs::read(&mark).unwrap();
        bytes[9] ^= 1;
        fs::write(&mark, bytes).unwrap();
    }
    check(dir.path(), &topics);
    let cut = scratch();
    fs::create_dir(folder(cut.path(), 0)).unwrap();
    fs::create_dir(folder(cut.path(), 1)).unwrap();
    drop(DataDirectory::open(cut.path(), META).unwrap());
    for partition in 0..META.partitions {
        fs::remove_file(folder(cut.path(), partition).join("identity")).unwrap();
    }
    drop(DataDirectory::open(cut.path(), META).unwrap());
}

/// A way to leave a file that is no part of the log.
type Stranger = (&'static str, fn(&Path) -> PathBuf);

const STRANGERS: &[Stranger] = &[
    ("random bytes", |path| {
        let file = path.join("0000000000000777.segment");
        let bytes: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(&file, bytes).unwrap();
        file
    }),
    ("a head of zeroes and something behind it", |path| {
        let file = path.join("0000000000000777.segment");
        let mut bytes = vec![0; 3 << 20];
        bytes[2 << 20..].fill(b'x');
        fs::write(&file, bytes).unwrap();
        file
    }),
    ("a copy under a later name", |path| {
        let file = path.join("0000000000000777.segment");
        let from = path.join("0000000000000001.segment");
        fs::copy(from, &file).unwrap();
        file
    }),
    ("a short file", |path| {
        let file = path.join("0000000000000777.segment");
        fs::write(&file, b"not a segment").unwrap();
        file
    }),
];

/// L2: a segment that is not blank and does not validate is not "unused".
#[test]
fn a_file_that_nobody_understands_stays_as_it_is() {
    for (name, make) in STRANGERS {
        let dir = scratch();
        let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
        let topic = desk.topic(1, Retention::default());
        for seq in 1..=MESSAGES {
            desk.publish(topic, seq);
        }
        desk.close();
        let file = make(dir.path());
        let before = fs::read(&file).unwrap();
        let mut last = MESSAGES;
        for life in 0..4 {
            let (mut desk, state) = Desk::open(dir.path(), IDENTITY);
            assert_eq!(state.report.segments_unknown, [777], "{name}, life {life}");
            for _ in 0..100 {
                last += 1;
                desk.publish(topic, last);
                desk.turn(5_000_000);
            }
            assert_eq!(desk.read(topic), (1..=last).collect::<Vec<_>>(), "{name}");
            if life % 2 == 0 {
                desk.close();
            }
        }
        assert_eq!(fs::read(&file).unwrap(), before, "{name}");
    }
}

/// L2: a segment under another name is still found when its own is given back.
#[test]
fn a_segment_that_was_renamed_is_not_used_again() {
    let dir = scratch();
    let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
    let topic = desk.topic(1, Retention::default());
    for seq in 1..=MESSAGES {
        desk.publish(topic, seq);
    }
    desk.close();
    let own = dir.path().join("0000000000000001.segment");
    let other = dir.path().join("0000000000000900.segment");
    fs::rename(&own, &other).unwrap();
    for _ in 0..3 {
        let mut storage = Folder::new(dir.path());
        let now = Now {
            monotonic_us: 1,
            unix_ms: 1,
        };
        let (mut log, state) = recover(&mut storage, IDENTITY, &small(), now).unwrap();
        assert_eq!(state.report.segments_missing, [1]);
        for minute in 0..90 {
            let now = Now {
                monotonic_us: 1 + minute * 60_000_000,
                unix_ms: 1,
            };
            tidegate::log::drive(&mut log, &mut storage, now);
        }
    }
    fs::rename(&other, &own).unwrap();
    let (mut desk, _) = Desk::open(dir.path(), IDENTITY);
    assert_eq!(desk.read(topic), (1..=MESSAGES).collect::<Vec<_>>());
}
