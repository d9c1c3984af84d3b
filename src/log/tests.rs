//! The live log by its effects alone: what it asks for, in which order, and what it makes of the
//! answers. The disk is never touched.

use std::io;

use super::ballast::Ballast;
use super::batch::Chain;
use super::checkpoint::CheckpointTask;
use super::clean::Cleaner;
use super::commit_log::Start;
use super::prepare::Prepare;
use super::record::{Entry, SubscriptionEntry, TopicEntry};
use super::state::State;
use super::*;
use crate::id::{HomedId, Partition, Seq, Tenant};

/// A new log, and the effects that are out.
struct Rig {
    log: CommitLog,
    out: Vec<Effect>,
    now: Now,
}

impl Rig {
    fn new(config: LogConfig) -> Self {
        let mut rig = Self::without_segment(config);
        rig.settle();
        rig
    }

    /// A log that has asked for nothing yet.
    fn without_segment(config: LogConfig) -> Self {
        let (bytes_min, bytes_max) = (config.segment_bytes_min, config.segment_bytes_max);
        let start = Start {
            partition: Partition(0),
            salt: 1,
            state: State::default(),
            segments: Default::default(),
            active: None,
            previous: (0, 0),
            chain: Chain::START,
            prepare: Prepare::new(bytes_min, bytes_max, 1, Vec::new()),
            ballast: Ballast::new(&config, &Default::default(), 0),
            checkpoint: CheckpointTask::new(1, None, 0),
            cleaner: Cleaner::new(&[]),
        };
        let log = CommitLog::new(config, start);
        Self {
            log,
            out: Vec::new(),
            now: Now {
                monotonic_us: 1,
                unix_ms: 1,
            },
        }
    }

    fn poll(&mut self) {
        while let Some(effect) = self.log.poll_effect(self.now) {
            self.out.push(effect);
        }
    }

    /// Answers all that is out with success, until nothing more is asked for.
    fn settle(&mut self) {
        self.poll();
        while let Some(effect) = self.out.pop() {
            self.answer(&effect);
            self.poll();
        }
    }

    fn answer(&mut self, effect: &Effect) {
        let done = match &effect.op {
            Op::Write { bytes, .. } => Done::Count(bytes.len()),
            _ => Done::Unit,
        };
        self.log.handle_done(effect.id, Ok(done));
    }

    /// The writes of batches that are out: what zeroes a segment asks for no sync.
    fn batches(&self) -> Vec<&Effect> {
        let is_batch = |effect: &&Effect| matches!(&effect.op, Op::Write { bytes, .. } if bytes.iter().any(|&byte| byte != 0));
        self.out.iter().filter(is_batch).collect()
    }

    fn take_batch(&mut self) -> Effect {
        let id = self.batches()[0].id;
        let at = self.out.iter().position(|effect| effect.id == id).unwrap();
        self.out.swap_remove(at)
    }

    fn topic(&mut self) -> HomedId {
        let (id, tenant) = (HomedId::new(1, Partition(0), 9 << 8), Tenant::default());
        let retention = Retention::default();
        let record = Record::TopicCreated {
            id,
            tenant: &tenant,
            name: "t",
            created_at_ms: 1,
            retention,
        };
        self.log.append(&record).unwrap();
        id
    }

    fn publish(&mut self, topic: HomedId, seq: Seq) -> Ticket {
        self.log
            .append(&Record::Publish(publish(topic, seq)))
            .unwrap()
    }

    fn durable(&mut self) -> Option<Ticket> {
        let events = std::iter::from_fn(|| self.log.poll_event());
        events
            .filter_map(|event| match event {
                Event::Durable { up_to, .. } => Some(up_to),
                _ => None,
            })
            .last()
    }
}

fn publish(topic: HomedId, seq: Seq) -> Publish<'static> {
    Publish {
        topic,
        seq,
        time_ms: seq,
        flags: 0,
        publisher: "p",
        key: Some("k"),
        event: "",
        headers: b"",
        payload: b"42.50",
    }
}

/// D-27, D-28: one batch is out at a time, the next holds all that came meanwhile, and nothing is
/// durable before its sync.
#[test]
fn the_next_batch_goes_when_the_last_has_ended() {
    let mut rig = Rig::new(LogConfig::default());
    let topic = rig.topic();
    rig.poll();
    let first = rig.take_batch();
    assert!(matches!(
        &first.op,
        Op::Write {
            sync: true,
            offset: 0,
            ..
        }
    ));
    let tickets: Vec<Ticket> = (1..=50).map(|seq| rig.publish(topic, seq)).collect();
    rig.poll();
    assert!(rig.batches().is_empty(), "one batch is out");
    assert_eq!((rig.durable(), rig.log.kept(topic)), (None, Some((1, 0))));
    rig.answer(&first);
    rig.poll();
    assert_eq!(rig.batches().len(), 1, "all 50 go in one batch");
    assert!(rig.durable().unwrap() < tickets[0]);
    rig.settle();
    assert_eq!(rig.durable(), tickets.last().copied());
    assert_eq!(rig.log.kept(topic), Some((1, 50)));
}

#[test]
fn a_batch_waits_for_company_as_long_as_it_may() {
    let config = LogConfig {
        sync_delay_us_max: 500,
        ..LogConfig::default()
    };
    let mut rig = Rig::new(config);
    let topic = rig.topic();
    rig.poll();
    assert_eq!((rig.batches().len(), rig.log.deadline_us()), (0, Some(501)));
    rig.now.monotonic_us = 400;
    rig.publish(topic, 1);
    rig.poll();
    assert_eq!(rig.batches().len(), 0);
    rig.now.monotonic_us = 501;
    rig.poll();
    assert_eq!(rig.batches().len(), 1);
    assert_ne!(
        rig.log.deadline_us(),
        Some(501),
        "there is nothing to do until the batch ends"
    );
}

/// D-33: acks alone cause few syncs, and any batch takes them along.
#[test]
fn cursors_wait_longer_than_messages() {
    let mut rig = Rig::new(LogConfig::default());
    let topic = rig.topic();
    let id = HomedId::new(1, Partition(0), 10 << 8);
    let record = Record::SubscriptionCreated {
        id,
        topic,
        name: "s",
        maker: "ada",
        cursor: 0,
        created_at_ms: 1,
    };
    rig.log.append(&record).unwrap();
    rig.settle();
    let moved = Record::CursorMoved {
        subscription: id,
        seq: 0,
    };
    rig.log.append(&moved).unwrap();
    rig.poll();
    assert_eq!(
        (rig.batches().len(), rig.log.deadline_us()),
        (0, Some(20_001))
    );
    rig.publish(topic, 1);
    rig.poll();
    assert_eq!(rig.batches().len(), 1);
    rig.settle();
    rig.log.append(&moved).unwrap();
    rig.log.close();
    rig.poll();
    assert_eq!(rig.batches().len(), 1, "a clean stop waits for nothing");
}

#[test]
fn a_short_write_goes_on_behind_what_was_written() {
    let mut rig = Rig::new(LogConfig::default());
    rig.topic();
    rig.poll();
    let first = rig.take_batch();
    let Op::Write { bytes: whole, .. } = &first.op else {
        panic!("{first:?}");
    };
    rig.log.handle_done(first.id, Ok(Done::Count(100)));
    assert_eq!(rig.durable(), None);
    rig.poll();
    let rest = rig.batches()[0].clone();
    let Op::Write {
        offset: 100,
        bytes,
        sync: true,
        ..
    } = &rest.op
    else {
        panic!("{rest:?}");
    };
    assert_eq!(*bytes, whole.slice(100..));
    rig.settle();
    assert_eq!(rig.durable(), Some(Ticket(1)));
}

/// Too many open files, of this process (EMFILE) or of the whole system (ENFILE), pass.
#[test]
fn a_lack_of_files_is_no_failure() {
    for errno in [24, 23] {
        let mut rig = Rig::without_segment(LogConfig::default());
        rig.poll();
        let is_create = |effect: &Effect| matches!(effect.op, Op::Create { .. });
        let at = rig.out.iter().position(is_create).unwrap();
        let create = rig.out.remove(at);
        let lack = io::Error::from_raw_os_error(errno);
        rig.log.handle_done(create.id, Err(lack));
        rig.settle();
        assert_eq!(rig.log.state(), LogState::StorageFull, "errno {errno}");
        assert_eq!(rig.log.poll_event(), None);
        rig.now.monotonic_us += 60_000_000;
        rig.settle();
        assert_eq!(rig.log.state(), LogState::Serving, "errno {errno}");
    }
}

/// P5
#[test]
fn a_failed_sync_is_told_once_and_is_final() {
    let mut rig = Rig::new(LogConfig::default());
    let topic = rig.topic();
    rig.poll();
    let first = rig.take_batch();
    rig.publish(topic, 1);
    rig.log
        .handle_done(first.id, Err(io::Error::from_raw_os_error(5)));
    let Some(Event::Failed { reason }) = rig.log.poll_event() else {
        panic!("the failure is told");
    };
    // EIO has no kind of its own: only its text and number say what it was.
    assert_eq!(reason, "Input/output error (os error 5)");
    assert_eq!(rig.log.poll_event(), None);
    assert_eq!(rig.log.state(), LogState::Failed);
    rig.settle();
    assert_eq!(
        rig.log.append(&Record::TopicDeleted { id: topic }),
        Err(AppendError::Failed)
    );
    assert_eq!((rig.durable(), rig.log.deadline_us()), (None, None));
    assert!(rig.log.is_idle());
}

/// D-27
#[test]
fn the_policy_decides_about_batches_and_syncs() {
    for (fsync, wanted) in [(Fsync::Always, 1), (Fsync::Batch, 3), (Fsync::Os, 3)] {
        let mut rig = Rig::new(LogConfig {
            fsync,
            ..LogConfig::default()
        });
        let topic = rig.topic();
        rig.settle();
        rig.durable();
        for seq in 1..=3 {
            rig.publish(topic, seq);
        }
        rig.poll();
        let effect = rig.batches()[0].clone();
        assert!(matches!(effect.op, Op::Write { sync, .. } if sync == (fsync != Fsync::Os)));
        rig.out.clear();
        rig.answer(&effect);
        assert_eq!(rig.durable(), Some(Ticket(1 + wanted)), "{fsync:?}");
    }
}

#[test]
fn what_can_never_be_stored_is_refused_with_its_bound() {
    let mut rig = Rig::new(LogConfig {
        segment_bytes_max: 1 << 20,
        ..LogConfig::default()
    });
    let topic = rig.topic();
    let payload = vec![0; 1 << 20];
    let large = Record::Publish(Publish {
        payload: &payload,
        ..publish(topic, 1)
    });
    let refused = rig.log.append(&large).unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { .. }), "{refused}");
    assert!(refused.to_string().contains("durable.segment_bytes_max"));
    let text = "x".repeat(TEXT_BYTES_MAX + 1);
    let long = Record::Publish(Publish {
        event: &text,
        ..publish(topic, 1)
    });
    assert!(matches!(
        rig.log.append(&long),
        Err(AppendError::TextTooLong { .. })
    ));
    rig.publish(topic, 1);
}

/// Entries of five ids that make, change and delete topics and subscriptions.
fn entries(ids: &[HomedId]) -> Vec<Entry<'static>> {
    let [topic, other, third, fourth, gone] = *ids else {
        panic!("five ids");
    };
    let made = |id, first_seq, last_seq| {
        let retention = Retention {
            messages_max: Some(9),
            ..Retention::default()
        };
        let (tenant, name, created_at_ms) = ("default", "t", 1);
        Entry::Topic(TopicEntry {
            id,
            tenant,
            name,
            created_at_ms,
            first_seq,
            last_seq,
            retention,
        })
    };
    let subscribed = |id, cursor| {
        Entry::Subscription(SubscriptionEntry {
            id,
            topic,
            name: "s",
            maker: "",
            cursor,
            created_at_ms: 1,
        })
    };
    let mut entries = vec![made(topic, 1, 0), subscribed(third, 0), made(other, 1, 0)];
    entries.extend((1..=6).map(|seq| Entry::Publish(publish(topic, seq))));
    entries.extend([
        subscribed(fourth, 4),
        subscribed(third, 5),
        made(topic, 3, 6),
    ]);
    entries.extend((7..=9).map(|seq| Entry::Publish(publish(topic, seq))));
    entries.extend([Entry::TopicDeleted { id: other }, made(gone, 1, 0)]);
    entries.extend([
        Entry::Publish(publish(gone, 1)),
        Entry::TopicDeleted { id: gone },
    ]);
    entries.extend([
        Entry::SubscriptionDeleted { id: fourth },
        Entry::Epoch { generation: 2 },
    ]);
    entries
}

/// A checkpoint holds some of what a replay then applies once more.
#[test]
fn applying_entries_twice_equals_applying_them_once() {
    let ids: Vec<HomedId> = (1..=5)
        .map(|n| HomedId::new(n, Partition(0), n << 8))
        .collect();
    let entries = entries(&ids);
    let apply = |state: &mut State, entries: &[Entry<'_>]| {
        for entry in entries {
            state.apply(entry);
            state.place(entry, 1);
        }
    };
    let mut once = State::default();
    apply(&mut once, &entries);
    for from in 0..entries.len() {
        for to in from..=entries.len() {
            let mut twice = State::default();
            apply(&mut twice, &entries[..to]);
            apply(&mut twice, &entries[from..]);
            let (a, b) = (format!("{:?}", twice.topics), format!("{:?}", once.topics));
            assert_eq!(a, b, "{from} {to}");
            let (a, b) = (&twice.subscriptions, &once.subscriptions);
            assert_eq!(format!("{a:?}"), format!("{b:?}"), "{from} {to}");
            assert_eq!((twice.generation, &twice.due), (once.generation, &once.due));
        }
    }
}
