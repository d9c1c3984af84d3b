//! Mailboxes and their wake-up under every schedule that the memory model allows: nothing is
//! lost and no wake-up is missed, or loom finds a shard that sleeps for ever. The wake-up is the
//! real one; a queue is what the two real ones have in common, a place that is written before the
//! count that publishes it.

use std::future::poll_fn;
use std::task::Poll;

use loom::cell::UnsafeCell;
use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};

    /// With the interface of the one that the program uses.
    #[derive(Debug)]
    pub(super) struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub(super) fn new() -> Self {
            Self(loom::future::AtomicWaker::new())
        }

        pub(super) fn register(&self, waker: &std::task::Waker) {
            self.0.register_by_ref(waker);
        }

        pub(super) fn wake(&self) {
            self.0.wake();
        }
    }
}

#[expect(clippy::duplicate_mod, reason = "over a model of what it is made of")]
#[path = "sleeper.rs"]
mod sleeper;

use self::sleeper::Sleeper;
use self::sync::Ordering;

/// One sender, one receiver.
struct Queue {
    places: [UnsafeCell<u32>; 2],
    pushed: AtomicUsize,
}

impl Queue {
    fn new() -> Self {
        Self {
            places: [UnsafeCell::new(0), UnsafeCell::new(0)],
            pushed: AtomicUsize::new(0),
        }
    }

    fn push(&self, at: usize, value: u32) {
        #[expect(unsafe_code, reason = "loom checks that nobody else is here")]
        // SAFETY: the place is read only after the store below, and there is one sender.
        self.places[at].with_mut(|place| unsafe { *place = value });
        self.pushed.store(at + 1, Ordering::Release);
    }

    fn is_empty(&self, taken: usize) -> bool {
        self.pushed.load(Ordering::Acquire) <= taken
    }

    fn take(&self, taken: &mut usize) -> Option<u32> {
        if self.is_empty(*taken) {
            return None;
        }
        #[expect(unsafe_code, reason = "loom checks that nobody else is here")]
        // SAFETY: the sender is done with a place that it has counted.
        let value = self.places[*taken].with(|place| unsafe { *place });
        *taken += 1;
        Some(value)
    }
}

struct Shard {
    sleeper: Sleeper,
    queues: Vec<Queue>,
}

impl Shard {
    fn new(queues: usize) -> Arc<Self> {
        Arc::new(Self {
            sleeper: Sleeper::new(),
            queues: (0..queues).map(|_| Queue::new()).collect(),
        })
    }

    /// Turns and sleeps as the loop does, until so many commands have come.
    fn run(&self, wanted: usize) -> Vec<u32> {
        let mut taken = vec![0; self.queues.len()];
        let mut commands = Vec::new();
        block_on(async {
            while commands.len() < wanted {
                for (queue, taken) in self.queues.iter().zip(&mut taken) {
                    commands.extend(std::iter::from_fn(|| queue.take(taken)));
                }
                if commands.len() < wanted {
                    self.sleep(&taken).await;
                }
            }
        });
        commands
    }

    async fn sleep(&self, taken: &[usize]) {
        let sleep = |cx: &mut std::task::Context<'_>| {
            self.sleeper.prepare(cx.waker());
            let mut queues = self.queues.iter().zip(taken);
            match queues.all(|(queue, taken)| queue.is_empty(*taken)) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        };
        poll_fn(sleep).await;
        self.sleeper.awake();
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    // Another test of this process may have begun to log, and loom says a lot.
    let silent = tracing::subscriber::NoSubscriber::default();
    tracing::subscriber::with_default(silent, || builder.check(model));
}

/// More have never found more, and take minutes.
const PREEMPTIONS_MAX: usize = 2;

/// T-L1: one shard posts to another, twice, and wakes it after each
#[test]
fn posts_of_a_shard_arrive_in_order() {
    check(|| {
        let shard = Shard::new(1);
        let sender = Arc::clone(&shard);
        let thread = thread::spawn(move || {
            for (at, value) in [7, 8].into_iter().enumerate() {
                sender.queues[0].push(at, value);
                sender.sleeper.wake();
            }
        });
        assert_eq!(shard.run(2), [7, 8]);
        thread.join().unwrap();
    });
}

/// T-L1: a shard wakes another once for all that it posted in a turn
#[test]
fn one_wake_is_enough_for_a_turn() {
    check(|| {
        let shard = Shard::new(1);
        let sender = Arc::clone(&shard);
        let thread = thread::spawn(move || {
            sender.queues[0].push(0, 7);
            sender.queues[0].push(1, 8);
            sender.sleeper.wake();
        });
        assert_eq!(shard.run(2), [7, 8]);
        thread.join().unwrap();
    });
}

/// T-L2: a shard posts while the server, from outside, tells it to stop
#[test]
fn the_last_command_is_seen_beside_others() {
    check(|| {
        let shard = Shard::new(2);
        let threads = [(0, 7), (1, 9)].map(|(queue, value)| {
            let sender = Arc::clone(&shard);
            thread::spawn(move || {
                sender.queues[queue].push(0, value);
                sender.sleeper.wake();
            })
        });
        let mut commands = shard.run(2);
        commands.sort_unstable();
        assert_eq!(commands, [7, 9]);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
