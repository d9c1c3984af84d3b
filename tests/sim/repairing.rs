//! What verify, inspect and a repair say of a directory that no server can use as it is: L2, L3, L11,
//! L16. A plan changes nothing, a repair deletes nothing, and what was moved away is as it was.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate::log::{DataDirectory, inspect, plan_repair, repair, verify};

use super::foreign::{META, check, fill, folder, fresh_meta, segment, snapshot};
use super::scratch;

/// Makes something wrong in partition 1, and tells the file.
type Wrong = (&'static str, fn(&Path) -> PathBuf);

/// Each of them is moved away, and with it gone everything is there.
const STRANGERS: &[Wrong] = &[
    ("a segment of another directory", |path| {
        let other = scratch();
        let meta = tidegate::log::Meta { salt: 77, ..META };
        let directory = DataDirectory::open(other.path(), meta).unwrap();
        let identity = tidegate::log::Identity {
            partition: tidegate::id::Partition(1),
            salt: meta.salt,
        };
        let there = directory.folder_path(identity.partition);
        let (mut desk, _) = super::forgetting::Desk::open(&there, identity);
        let topic = desk.topic(1, tidegate::log::Retention::default());
        desk.publish(topic, 1);
        desk.close();
        let file = folder(path, 1).join("0000000000000777.segment");
        fs::copy(segment(other.path(), 1, "segment", 0), &file).unwrap();
        file
    }),
    ("a segment of another partition", |path| {
        let file = folder(path, 1).join("0000000000000777.segment");
        fs::copy(segment(path, 0, "segment", 0), &file).unwrap();
        file
    }),
    ("random bytes", |path| {
        let file = folder(path, 1).join("0000000000000777.segment");
        let bytes: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(&file, bytes).unwrap();
        file
    }),
    ("a checkpoint that was cut", |path| {
        let file = segment(path, 1, "checkpoint", 0);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        file
    }),
    ("a file that gives EIO", |path| {
        let file = folder(path, 1).join("0000000000000777.segment");
        // Its first bytes are never mapped.
        std::os::unix::fs::symlink("/proc/self/mem", &file).unwrap();
        file
    }),
];

#[test]
fn a_repair_moves_what_stands_in_the_way_and_nothing_else() {
    for (name, make) in STRANGERS {
        let dir = scratch();
        let topics = fill(dir.path());
        let file = make(dir.path());
        let bytes = fs::read(&file).ok();
        let before = snapshot(&folder(dir.path(), 0));
        let plan = plan_repair(dir.path()).unwrap();
        let files: Vec<(u16, &str)> = plan
            .moves
            .iter()
            .map(|step| (step.partition.0, step.file.as_str()))
            .collect();
        let file_name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(files, [(1, file_name)], "{name}: {plan:?}");
        assert_eq!(plan.left, [""; 0], "{name}");
        assert!(file.symlink_metadata().is_ok(), "{name}: a plan is a plan");
        let quarantine = repair(dir.path(), &plan).unwrap();
        assert!(file.symlink_metadata().is_err(), "{name}");
        let moved = quarantine.join("partition-0001").join(file_name);
        assert!(moved.symlink_metadata().is_ok(), "{name}");
        assert_eq!(fs::read(&moved).ok(), bytes, "{name}: it is as it was");
        assert_eq!(snapshot(&folder(dir.path(), 0)), before, "{name}");
        assert_eq!(plan_repair(dir.path()).unwrap().moves, [], "{name}");
        check(dir.path(), &topics);
        assert!(verify(dir.path()).unwrap().is_intact(), "{name}");
    }
}

/// With another meta file nothing is any partition's own: it is that file that has to come back.
#[test]
fn a_repair_leaves_alone_what_it_does_not_understand_as_a_whole() {
    let dir = scratch();
    let topics = fill(dir.path());
    assert_eq!(plan_repair(dir.path()).unwrap(), Default::default());
    let meta = fs::read(dir.path().join("meta")).unwrap();
    fresh_meta(dir.path());
    let before = snapshot(dir.path());
    let plan = plan_repair(dir.path()).unwrap();
    assert_eq!(plan.moves, []);
    assert!(
        plan.left[0].contains("put back the meta file"),
        "{:?}",
        plan.left
    );
    assert_eq!(snapshot(dir.path()), before);
    fs::write(dir.path().join("meta"), meta).unwrap();
    check(dir.path(), &topics);
    // A partition that is not there is no file to move either.
    let away = scratch();
    fs::rename(folder(dir.path(), 2), away.path().join("p")).unwrap();
    let plan = plan_repair(dir.path()).unwrap();
    assert_eq!(plan.moves, []);
    assert!(
        plan.left[0].contains("partition-0002 is missing"),
        "{:?}",
        plan.left
    );
}

/// L16, L3: one partition that cannot be read hides no other from verify and inspect.
#[test]
fn what_cannot_be_read_is_told_of_its_partition_alone() {
    let dir = scratch();
    fill(dir.path());
    let file = segment(dir.path(), 1, "segment", 0);
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", &file).unwrap();
    fs::remove_file(segment(dir.path(), 1, "checkpoint", 0)).unwrap();
    for report in [verify(dir.path()).unwrap(), inspect(dir.path()).unwrap()] {
        assert!(!report.is_intact());
        for (partition, found) in (0..).zip(&report.partitions) {
            let is_told = found
                .unreadable
                .as_ref()
                .is_some_and(|reason| reason.contains(file.file_name().unwrap().to_str().unwrap()));
            assert_eq!(is_told, partition == 1, "{found:?}");
            assert_eq!(found.topics.len(), usize::from(partition != 1));
        }
    }
}
