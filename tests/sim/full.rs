//! L7, L8: disks that are full, fill up, are filled by somebody else, and are full at a restart. What
//! gives space back always goes, acks go on, and what has no room is told so at once.

use tidegate::id::{HomedId, Tenant};
use tidegate::log::{
    AppendError, CommitLog, CrashFolder, LogConfig, Now, Publish, Record, Retention, drive, recover,
};

use super::commit_log::{IDENTITY, small};
use super::scratch;

const UNIX_MS: u64 = 1_800_000_000_000;

/// A log on a disk of which somebody else may take everything that is free.
struct Disk {
    folder: CrashFolder,
    log: CommitLog,
    config: LogConfig,
    now: Now,
    /// Somebody else takes what comes free, at once.
    is_greedy: bool,
}

fn id(n: u64) -> HomedId {
    HomedId::new(UNIX_MS, IDENTITY.partition, n << 20)
}

impl Disk {
    fn new(path: &std::path::Path, space: u64, is_greedy: bool) -> Self {
        let mut folder = CrashFolder::new(path, 1).unwrap();
        folder.limit_space(Some(space));
        let now = Now {
            monotonic_us: 1,
            unix_ms: UNIX_MS,
        };
        let config = LogConfig {
            clean_live_percent_max: 25,
            ..small()
        };
        let (log, _) = recover(&mut folder, IDENTITY, &config, now).unwrap();
        Self {
            folder,
            log,
            config,
            now,
            is_greedy,
        }
    }

    fn turn(&mut self) {
        self.now.monotonic_us += 1_000;
        self.now.unix_ms += 1;
        self.eat();
        drive(&mut self.log, &mut self.folder, self.now);
        self.eat();
        while self.log.poll_event().is_some() {}
    }

    fn eat(&mut self) {
        if self.is_greedy {
            self.folder.limit_space(Some(0));
        }
    }

    /// Appends, waiting for what is on its way; never for ever.
    fn append(&mut self, record: &Record<'_>) -> Result<(), AppendError> {
        for _ in 0..2_000 {
            match self.log.append(record) {
                Err(AppendError::Busy) => self.turn(),
                result => return result.map(drop),
            }
        }
        panic!("an append waits for ever");
    }

    fn topic(&mut self, n: u64, retention: Retention) -> Result<(), AppendError> {
        let (tenant, name) = (Tenant::default(), format!("topic {n}"));
        self.append(&Record::TopicCreated {
            id: id(n),
            tenant: &tenant,
            name: &name,
            created_at_ms: UNIX_MS,
            retention,
        })
    }

    fn subscribe(&mut self, n: u64, topic: u64) {
        self.append(&Record::SubscriptionCreated {
            id: id(n),
            topic: id(topic),
            name: "reader",
            maker: "",
            cursor: 0,
            created_at_ms: UNIX_MS,
        })
        .unwrap();
    }

    fn publish(&mut self, topic: u64, bytes: usize) -> Result<(), AppendError> {
        let seq = self.log.kept(id(topic)).map_or(0, |(_, last)| last) + 1;
        let payload = vec![b'x'; bytes];
        self.append(&Record::Publish(Publish {
            topic: id(topic),
            seq,
            time_ms: self.now.unix_ms,
            flags: 0,
            publisher: "p",
            key: None,
            event: "",
            headers: b"",
            payload: &payload,
        }))?;
        self.turn();
        Ok(())
    }

    fn fill(&mut self, topics: &[u64]) {
        for n in 0.. {
            match self.publish(topics[n % topics.len()], 600) {
                Ok(()) => assert!(n < 100_000, "the disk is never full"),
                Err(error) => return assert_eq!(error, AppendError::StorageFull),
            }
        }
    }

    fn restart(&mut self, is_clean: bool) {
        if is_clean {
            self.log.close();
            for _ in 0..20 {
                self.turn();
            }
            assert!(self.log.is_idle(), "a stop on a full disk ends");
        }
        self.eat();
        let recovered = recover(&mut self.folder, IDENTITY, &self.config, self.now);
        self.log = recovered.unwrap().0;
        self.eat();
    }

    fn ack(&mut self, subscription: u64, seq: u64) -> Result<(), AppendError> {
        self.append(&Record::CursorMoved {
            subscription: id(subscription),
            seq,
        })?;
        self.turn();
        Ok(())
    }

    /// What comes free is used within a few seconds.
    fn publishes_again(&mut self, topic: u64) -> bool {
        (0..10_000).any(|_| {
            self.turn();
            self.publish(topic, 600).is_ok()
        })
    }
}

const SPACE: u64 = 1 << 20;

/// L7: acks go on for as long as anybody likes, and a deletion gives its space back, however often
/// the server is started again meanwhile.
#[test]
fn a_full_disk_takes_acks_and_deletions_through_every_restart() {
    for (is_greedy, is_clean, lives) in [
        (false, false, 0),
        (false, false, 40),
        (false, true, 40),
        (true, false, 40),
        (true, true, 40),
        (true, false, 0),
    ] {
        let dir = scratch();
        let mut disk = Disk::new(dir.path(), SPACE, false);
        for n in 1..=3 {
            disk.topic(n, Retention::default()).unwrap();
        }
        for n in 0..20 {
            disk.subscribe(100 + n, 1 + n % 3);
        }
        disk.fill(&[1, 2]);
        disk.is_greedy = is_greedy;
        let case = format!("greedy {is_greedy}, clean {is_clean}, {lives} lives");
        for life in 0..=lives {
            for seq in 0..4_000 / (lives + 1) {
                let taken = disk.ack(100 + seq % 20, 1 + seq % 3);
                assert_eq!(taken, Ok(()), "{case}, life {life}, ack {seq}");
            }
            if life < lives {
                disk.restart(is_clean);
            }
        }
        assert_eq!(
            disk.publish(3, 600),
            Err(AppendError::StorageFull),
            "{case}"
        );
        disk.is_greedy = false;
        disk.append(&Record::TopicDeleted { id: id(1) })
            .expect(&case);
        assert!(disk.publishes_again(3), "{case}: space comes back");
        disk.fill(&[3]);
        disk.append(&Record::TopicDeleted { id: id(2) })
            .expect(&case);
        assert!(disk.publishes_again(3), "{case}: and again");
    }
}

/// L7: neither does a server that stops and starts again, or whose ballast an operator has removed, need
/// what it cannot have.
#[test]
fn a_ballast_that_somebody_removes_is_made_again() {
    for restart in [None, Some(true), Some(false)] {
        let dir = scratch();
        let mut disk = Disk::new(dir.path(), SPACE, false);
        disk.topic(1, Retention::default()).unwrap();
        disk.subscribe(100, 1);
        disk.fill(&[1]);
        let mut removed = 0;
        for number in 1..=4 {
            let path = dir.path().join(format!("{number:016}.ballast"));
            removed += u32::from(std::fs::remove_file(path).is_ok());
        }
        assert!(0 < removed);
        if let Some(is_clean) = restart {
            disk.restart(is_clean);
        }
        // However it goes, the log lives, and with room it is as before.
        for seq in 0..2_000 {
            disk.ack(100, seq % 3).unwrap_or(());
        }
        disk.folder.limit_space(Some(SPACE));
        assert!(disk.publishes_again(1), "{restart:?}");
        assert_eq!(disk.ack(100, 1), Ok(()));
    }
}

/// L7: so does retention, which nobody asks for.
#[test]
fn retention_gives_space_back_on_a_full_disk() {
    for is_clean in [true, false] {
        let dir = scratch();
        let mut disk = Disk::new(dir.path(), SPACE, false);
        let aging = Retention {
            age_ms_max: Some(60_000),
            ..Retention::default()
        };
        disk.topic(1, aging).unwrap();
        disk.topic(2, Retention::default()).unwrap();
        disk.fill(&[1]);
        disk.restart(is_clean);
        for _ in 0..200 {
            disk.now.monotonic_us += 1_000_000;
            disk.now.unix_ms += 1_000;
            disk.turn();
        }
        assert_eq!(disk.publish(2, 600), Ok(()), "clean {is_clean}");
    }
}

/// L8: what needs a larger segment than the disk can give is refused at once, in a bounded number of
/// operations, and nothing behind it waits.
#[test]
fn a_record_that_no_segment_can_hold_is_refused_at_once() {
    for restart in [None, Some(false), Some(true)] {
        let dir = scratch();
        let mut disk = Disk::new(dir.path(), 200 << 10, false);
        disk.topic(1, Retention::default()).unwrap();
        for _ in 0..10 {
            disk.publish(1, 600).unwrap();
        }
        disk.folder.limit_space(Some(60 << 10));
        if let Some(is_clean) = restart {
            disk.restart(is_clean);
        }
        let operations = disk.folder.operations();
        for _ in 0..50 {
            assert_eq!(disk.publish(1, 50_000), Err(AppendError::StorageFull));
            assert_eq!(disk.publish(1, 10), Ok(()), "what is small goes on");
        }
        let operations = disk.folder.operations() - operations;
        assert!(operations < 600, "{operations} operations");
    }
}

/// P5: publishing goes on by itself when somebody else gives space back.
#[test]
fn a_disk_that_empties_is_used_again() {
    let dir = scratch();
    let mut disk = Disk::new(dir.path(), SPACE, false);
    disk.topic(1, Retention::default()).unwrap();
    for _ in 0..5 {
        disk.fill(&[1]);
        disk.restart(false);
        assert_eq!(disk.publish(1, 600), Err(AppendError::StorageFull));
        disk.folder.limit_space(Some(SPACE / 2));
        assert!(disk.publishes_again(1));
    }
}

/// L19: a stop just after a checkpoint had no room tries once more and ends, whatever is free by then;
/// what was acknowledged is there.
#[test]
fn a_stop_behind_a_checkpoint_without_room_ends_at_once() {
    for (turns, room_at_stop) in [(0, 0), (1, 0), (20, 0), (20, 4 << 10), (20, 1 << 20)] {
        let dir = scratch();
        let mut disk = Disk::new(dir.path(), SPACE, false);
        for _ in 0..100 {
            disk.turn();
        }
        // Nothing is free from here on, and the state outgrows what is kept for a checkpoint.
        disk.is_greedy = true;
        let made = (1..2_000).take_while(|n| disk.topic(*n, Retention::default()).is_ok());
        let made = u64::try_from(made.count()).unwrap();
        for _ in 0..turns {
            disk.turn();
        }
        disk.is_greedy = room_at_stop == 0;
        disk.folder.limit_space(Some(room_at_stop));
        disk.log.close();
        let began = disk.now.monotonic_us;
        let case = format!("{made} topics, {turns} turns, {room_at_stop} B free");
        while !disk.log.is_idle() {
            disk.turn();
            let waited = disk.now.monotonic_us - began;
            assert!(waited < 100_000, "{case}: the stop waits for a pause");
        }
        disk.restart(false);
        let kept = |n: &u64| disk.log.kept(id(*n)).is_some();
        assert_eq!((1..=made).filter(kept).count() as u64, made, "{case}");
    }
}
