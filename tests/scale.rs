//! What very many durable topics cost one partition: memory, the longest call on its shard's thread,
//! publishes, what is written, and a restart. A measurement, so it asserts nothing:
//! `cargo test --release --test scale -- --ignored --nocapture`, with `TIDEGATE_SCALE_TOPICS` topics.
//! Times are of the thread's own processor time, so that a busy machine does not count.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    unsafe_code,
    reason = "a measurement prints, and counting is what an allocator of one's own is for"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use tidegate::broker::durable::{Command, Open, TopicRef};
use tidegate::log::Retention;

#[path = "scale/partition.rs"]
mod partition;

use partition::{World, message};

struct Counting;

static LIVE_BYTES: AtomicIsize = AtomicIsize::new(0);

fn note(bytes: usize, sign: isize) {
    let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
    LIVE_BYTES.fetch_add(bytes * sign, Ordering::Relaxed);
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 1);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note(layout.size(), -1);
        // SAFETY: as the caller's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn topics() -> u64 {
    let set = std::env::var("TIDEGATE_SCALE_TOPICS").ok();
    set.and_then(|count| count.parse().ok())
        .unwrap_or(1_000_000)
}

#[test]
#[ignore = "a measurement of minutes"]
fn what_many_topics_cost() {
    let count = topics();
    println!("{count} topics, each with one subscription");
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    let dir = partition::scratch();
    let mut world = World::open(dir.path(), Retention::default());
    world.make(0..count);
    world.settle();
    let bytes = LIVE_BYTES.load(Ordering::Relaxed) - before;
    println!(
        "memory: {} B a topic",
        bytes / isize::try_from(count).unwrap()
    );
    world.report("making them");
    world.rest("at rest");
    for among in [1, count / 10, count] {
        publish(&mut world, among, count);
    }
    world.rest("at rest behind the load");
    pages(&mut world);
    world.close();
    restart(dir.path(), world);
}

/// A million messages of 128 B in batches of 256, over so many topics.
fn publish(world: &mut World, among: u64, count: u64) {
    let messages = count.max(100_000);
    let (written, cpu) = (world.written, world.cpu);
    let mut at = 0;
    for batch in 0..messages / 256 {
        for n in 0..256 {
            at = (at + 7_919) % among;
            let topic = TopicRef::Id(world.ids[usize::try_from(at).unwrap()]);
            let publisher = world.maker.clone();
            let messages = message(batch * 256 + n);
            world.ask(Command::Publish {
                topic,
                publisher,
                messages,
            });
        }
        world.turn(500);
    }
    let cost = (world.cpu - cpu) / u32::try_from(messages / 256 * 256).unwrap();
    let bytes = (messages / 256 * 256) * 200;
    let amplification = (world.written - written) as f64 / bytes as f64;
    world.report(&format!(
        "{messages} publishes over {among} topics: {cost:?} each, {amplification:.2} written for a byte"
    ));
}

/// Ten of all subscriptions.
fn pages(world: &mut World) {
    let cpu = world.cpu;
    for topic in [None, Some(TopicRef::Id(world.ids[0]))] {
        world.ask(Command::ListSubscriptions {
            topic,
            sub_name: None,
            after: None,
            limit: 10,
        });
    }
    let cost = world.cpu - cpu;
    world.report(&format!("two pages of subscriptions: {cost:?}"));
}

fn restart(path: &std::path::Path, world: World) {
    drop(world);
    let began = partition::thread_time();
    let world = World::open(path, Retention::default());
    let took = partition::thread_time() - began;
    println!(
        "restart: {took:?}, {} topics, {} subscriptions",
        world.home.totals().topics,
        world.home.totals().subscriptions
    );
}

#[test]
#[ignore = "a measurement of minutes"]
fn what_retention_costs_at_rest() {
    let dir = partition::scratch();
    let retention = Retention {
        age_ms_max: Some(3_600_000),
        ..Retention::default()
    };
    let mut world = World::open(dir.path(), retention);
    world.make(0..topics());
    world.settle();
    let cpu = world.cpu;
    for _ in 0..10_000 {
        world.turn(1_000);
    }
    let cost = (world.cpu - cpu) / 10;
    world.report(&format!("retention with nothing due: {cost:?} a second"));
}

#[test]
#[ignore = "a measurement"]
fn what_an_append_costs_behind_many() {
    let dir = partition::scratch();
    let mut world = World::open_always(dir.path());
    world.make(0..1);
    world.settle();
    let mut last = Duration::ZERO;
    for behind in 0..32_768_u64 {
        let cpu = world.cpu;
        let topic = TopicRef::Id(world.ids[0]);
        let publisher = world.maker.clone();
        world.ask_as(
            behind / 256,
            Command::Publish {
                topic,
                publisher,
                messages: message(behind),
            },
        );
        last = world.cpu - cpu;
    }
    world.report(&format!(
        "a publish behind 32,768 that wait, each with a sync of its own: {last:?}"
    ));
}

/// The command that makes a subscription from the start.
fn subscribe(topic: TopicRef, maker: &std::sync::Arc<str>) -> Command {
    Command::Subscribe {
        topic,
        sub_name: "reader".into(),
        maker: maker.clone(),
        open: Open {
            from_seq: Some(0),
            ..Open::default()
        },
    }
}
