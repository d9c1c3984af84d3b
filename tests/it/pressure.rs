//! What becomes scarce under a server: receive buffers, places in its rings, descriptors of the
//! process. It slows down, is fair about it, and goes on when there is enough again. Knows sizes
//! of a shard and the limits of a process.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit};
use tidegate::gateway::socket::echo;
use tidegate::metrics::Counter;

use crate::harness::wire::{frame, upgrade_request};
use crate::harness::{Client, Opcode, PATIENCE, Plan, Wire, both_shards, eventually};
use crate::program::Served;

both_shards! {
    /// Few receive buffers and many who send at once: everybody gets all of his answers, and who
    /// asks for little does not wait for those who ask for much
    fn receive_buffers_are_shared_fairly(shards) {
        const FLOODERS: usize = 40;
        const ROUNDS: usize = 30;
        let site = Plan::new(shards)
            .config(|config| {
                config.shard.receive_buffers = 16;
                config.shard.receive_buffer_bytes = 1_024;
            })
            .raw("/raw", echo)
            .start();
        let mut neighbour = Client::connect_public(site.address, "/raw");
        let address = site.address;
        std::thread::scope(|scope| {
            let flooders: Vec<_> = (0..FLOODERS)
                .map(|_| {
                    scope.spawn(move || {
                        let mut wire = Wire::upgraded(address, "/raw");
                        let text = "x".repeat(8_000);
                        let burst = frame(true, Opcode::TEXT, text.as_bytes()).repeat(4);
                        for _ in 0..ROUNDS {
                            wire.write(&burst);
                            for _ in 0..4 {
                                wire.expect_text(&text);
                            }
                        }
                    })
                })
                .collect();
            let mut slowest = Duration::ZERO;
            while flooders.iter().any(|flooder| !flooder.is_finished()) {
                let asked = Instant::now();
                neighbour.ask("small", "small");
                slowest = slowest.max(asked.elapsed());
            }
            assert!(slowest < PATIENCE / 4, "{slowest:?}");
            for flooder in flooders {
                flooder.join().unwrap();
            }
        });
        assert_ne!(site.count(Counter::ReceiveBuffersEmpty), 0, "they were scarce");
    }

    /// The smallest rings and more connections than they have places: what finds no place in the
    /// submission queue or the completion queue is neither lost nor done twice
    fn full_rings_lose_nothing(shards) {
        const CLIENTS: usize = 600;
        let site = Plan::new(shards)
            .config(|config| config.shard.ring_entries = 64)
            .raw("/raw", echo)
            .start();
        let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| Wire::connect(site.address)).collect();
        for wire in &mut clients {
            wire.write(upgrade_request("/raw", &[]));
        }
        for wire in &mut clients {
            assert!(wire.read_head().starts_with("HTTP/1.1 101 "));
        }
        for round in 0..5 {
            for wire in &mut clients {
                for part in 0..3 {
                    wire.send(Opcode::TEXT, format!("{round} {part}"));
                }
            }
            for wire in &mut clients {
                for part in 0..3 {
                    wire.expect_text(&format!("{round} {part}"));
                }
            }
        }
        // All at once they go, and all are missed.
        drop(clients);
        eventually("all have gone", || {
            site.count(Counter::ConnectionsUpgraded) == CLIENTS as u64
        });
        Client::connect_public(site.address, "/raw").ask("after all", "after all");
    }
}

/// More than a server needs before anybody connects.
const FILES: u64 = 120;

/// T-N1, RELIABILITY section 3: without a descriptor accepting pauses, without a busy loop; who is
/// connected is served, and who waits is accepted when there are descriptors again
#[test]
fn no_more_files_pauses_accepting() {
    for shards in ["1", "2"] {
        // A descriptor is bounded by what held when accepting was armed, so it is set before.
        let mut served = Served::start_bounded(
            FILES,
            &["--dev", "--shards", shards],
            &[("TIDEGATE_LIMITS__CONNECTIONS_MAX", "100000")],
        );
        let token = served.dev_token();
        let mut before = Client::connect(served.address, "/ws", &token);
        let pid = Pid::from_child(&served.child);
        let open = served.open_files();
        let mut waiting: Vec<Wire> = (0..FILES).map(|_| Wire::connect(served.address)).collect();
        eventually("the descriptors are used up", || {
            FILES <= served.open_files()
        });
        let (cpu, started) = (served.cpu_ms(), Instant::now());
        while started.elapsed() < Duration::from_millis(1_500) {
            before.expect_nothing();
            std::thread::sleep(Duration::from_millis(10));
        }
        let busy = served.cpu_ms() - cpu;
        assert!(busy < 300, "{busy} ms of {:?}", started.elapsed());
        let limit = Rlimit {
            current: Some(2 * FILES + 50),
            maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
        };
        rustix::process::prlimit(Some(pid), Resource::Nofile, limit).unwrap();
        for wire in &mut waiting {
            wire.write("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            assert_eq!(wire.read_answer().status, 200);
        }
        drop(waiting);
        before.expect_nothing();
        let metrics = served.body("/metrics", &token);
        let pauses: u64 = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("tidegate_accept_pauses_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert!(0 < pauses && pauses < 200, "{pauses}");
        eventually("the descriptors are given back", || {
            served.open_files() <= open + 5
        });
    }
}
