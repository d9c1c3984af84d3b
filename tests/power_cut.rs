//! Takes the power from a server at random moments under load and looks at what it has kept
//! (T-D2). Its disk is an ext4 on a loop device; the power goes by the ioctl that shuts the file
//! system down without flushing its journal, so what nobody synced is gone. A control file that
//! nobody synced must be lost too, else the cut has no teeth.
//!
//! Needs root and loop devices, and is skipped with a line that says so where they are missing.
//! `TIDEGATE_POWER_CUTS`, `TIDEGATE_SHUTDOWNS` and `TIDEGATE_FULL_DISKS` ask for more,
//! `TIDEGATE_POWER_SEED` repeats the moments.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test crate: a failed step is a failed test, and a cut is timed by a clock"
)]

#[path = "crash/world.rs"]
mod world;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tungstenite::WebSocket;
use world::{Model, Server, look, next, number, seeded, send, strike};

/// An image of a file system and where it is mounted.
struct Disk {
    folder: TempDir,
}

fn run(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.map_err(|error| format!("`{}`: {error}", words[0]))?;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("`{}`: {text}", words.join(" "))),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Disk {
    /// A new file system, or why there is none.
    fn make() -> Result<Self, String> {
        Self::make_of(IMAGE_BYTES)
    }

    fn make_of(bytes: u64) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount".to_owned());
        }
        let disk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(disk.mounted()).unwrap();
        let image = std::fs::File::create(disk.image()).unwrap();
        image.set_len(bytes).unwrap();
        run(&["mkfs.ext4", "-q", text(&disk.image())])?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mounted(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn mount(&self) -> Result<(), String> {
        run(&[
            "mount",
            "-o",
            "loop",
            text(&self.image()),
            text(&self.mounted()),
        ])
    }

    /// The rings of a killed server hold its files for a moment longer than it lives.
    fn unmount(&self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            match run(&["umount", text(&self.mounted())]) {
                Err(error) if error.contains("busy") && began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                outcome => return outcome,
            }
        }
    }

    /// From here on nothing reaches the disk. The ioctl takes a pointer, which Python's own wrapper
    /// passes without unsafe code here.
    fn cut(&self) -> Result<(), String> {
        let script = format!(
            "import fcntl, os, struct, sys\n\
             fd = os.open(sys.argv[1], os.O_RDONLY)\n\
             fcntl.ioctl(fd, {EXT4_IOC_SHUTDOWN}, struct.pack('I', {NOLOGFLUSH}))"
        );
        run(&["python3", "-c", &script, text(&self.mounted())])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not mounted, or a test has failed and a dying server may still be in it.
        let _ = run(&["umount", "--lazy", text(&self.mounted())]);
    }
}

/// P1, P2, P3, P4, B-15, B-16, B-17, D-28, D-33, D-42
#[test]
#[ignore = "needs root and a loop device: `.ci/full` runs it, with --ignored"]
fn a_power_cut_leaves_what_was_acked() {
    let disk = match Disk::make() {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let cuts = number("TIDEGATE_POWER_CUTS", 50);
    let mut random = seeded("TIDEGATE_POWER_SEED");
    let data = disk.mounted().join("data");
    let mut models: Vec<Model> = Vec::new();
    let mut lost = 0;
    for cut in 0..cuts {
        let server = Server::start(&data, 1 + cut % 2);
        look(&server, &mut models);
        let control = disk.mounted().join(format!("control-{cut}"));
        strike(server, &mut models, &mut random, || {
            std::fs::write(&control, "nobody synced this").unwrap();
            disk.cut().unwrap();
        });
        disk.unmount().unwrap();
        disk.mount().unwrap();
        let found = std::fs::read(&control).unwrap_or_default();
        lost += u64::from(found.is_empty());
    }
    let server = Server::start(&data, 1);
    look(&server, &mut models);
    let acked: usize = models.iter().map(|model| model.seen.len()).sum();
    let sent: u64 = models.iter().map(|model| model.sent).sum();
    println!("{cuts} power cuts: {sent} sent, {acked} seen, {lost} control files lost");
    server.kill();
    disk.unmount().unwrap();
    assert!(0 < acked);
    assert!(
        cuts / 2 < lost,
        "the cuts have no teeth: {lost} of {cuts} control files are lost"
    );
}

/// P5, T-D6: a partition whose sync fails acknowledges nothing more and says so, the rest of the
/// server goes on, and a restart on a good disk has all that was acked
#[test]
#[ignore = "needs root and a loop device: `.ci/full` runs it, with --ignored"]
fn a_failed_sync_is_final() {
    let disk = match Disk::make() {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let data = disk.mounted().join("data");
    let server = Server::start(&data, 2);
    let (_, made) = server
        .rest("POST", "/v1/topics", r#"{"name":"t"}"#)
        .unwrap();
    let topic = made["id"].as_str().unwrap();
    let mut socket = server.connect().unwrap();
    let mut publish = || {
        let frame = format!(r#"{{"type":"publish","topic":"{topic}","payload":1}}"#);
        send(&mut socket, frame).unwrap();
        next(&mut socket).unwrap()
    };
    assert_eq!(publish()["seq"], 1);
    assert_eq!(server.rest("GET", "/readyz", "").unwrap().0, 200);
    disk.cut().unwrap();
    for _ in 0..3 {
        assert_eq!(
            publish()["code"],
            "storage_failed",
            "it is never tried again"
        );
    }
    let target = format!("/v1/topics/{topic}/messages");
    let (status, refused) = server.rest("POST", &target, r#"{"payload":1}"#).unwrap();
    assert_eq!(
        (status, refused["code"].as_str()),
        (503, Some("storage_failed"))
    );
    assert_eq!(server.rest("GET", "/readyz", "").unwrap().0, 503);
    assert_eq!(server.rest("GET", "/healthz", "").unwrap().0, 200);
    let pushed = r#"{"topic":"relay","event":"e","payload":1}"#;
    assert_eq!(
        server.rest("POST", "/v1/relay/push", pushed).unwrap().0,
        200
    );
    server.kill();
    disk.unmount().unwrap();
    disk.mount().unwrap();
    let server = Server::start(&data, 2);
    let (_, page) = server.rest("GET", &target, "").unwrap();
    assert_eq!(page["messages"].as_array().unwrap().len(), 1);
    let (_, published) = server.rest("POST", &target, r#"{"payload":2}"#).unwrap();
    assert_eq!(published["seq"], 2, "what was refused took no seq");
    server.kill();
    disk.unmount().unwrap();
}

/// What was answered to one publisher with `IN_FLIGHT` under way: acks, and behind the last of
/// them errors only.
fn publish_until_refused(server: &Server, topic: &str, stop: &AtomicBool) -> u64 {
    let mut socket = server.connect().unwrap();
    let frame = format!(r#"{{"type":"publish","topic":"{topic}","payload":1}}"#);
    let (mut under_way, mut acked, mut refused) = (0, 0, 0);
    while 0 < under_way || refused == 0 {
        while refused == 0 && under_way < IN_FLIGHT {
            send(&mut socket, frame.clone()).expect("the process lives");
            under_way += 1;
        }
        let answer = next(&mut socket).expect("the process lives");
        under_way -= 1;
        match answer["type"].as_str().unwrap() {
            "pub_ack" => {
                assert_eq!(refused, 0, "no ack behind an error");
                acked = answer["seq"].as_u64().unwrap();
            }
            _ => {
                assert_eq!(answer["code"], "storage_failed", "{answer}");
                assert!(stop.load(Ordering::SeqCst), "{answer}");
                refused += 1;
            }
        }
    }
    acked
}

/// Reads and acks everything, and wants an answer to each ack, until one is an error.
fn ack_until_refused(server: &Server, topic: &str) {
    let mut socket = server.connect().unwrap();
    let open = r#""sub_name":"A","from_seq":0"#;
    send(
        &mut socket,
        format!(r#"{{"type":"subscribe","topic":"{topic}",{open}}}"#),
    )
    .unwrap();
    loop {
        let frame = next(&mut socket).expect("the process lives");
        if frame["type"] == "error" {
            return;
        }
        if frame["type"] == "message" {
            let seq = &frame["seq"];
            let ack =
                format!(r#"{{"type":"ack","topic":"{topic}","sub_name":"A","seq":{seq},"ref":1}}"#);
            send(&mut socket, ack).unwrap();
        }
    }
}

/// L1, P1, P5: a disk that goes away under many publishes and acks takes its partitions with it and
/// nothing else; every publish is answered, acks before errors
#[test]
#[ignore = "needs root and a loop device: `.ci/full` runs it, with --ignored"]
fn a_disk_that_goes_under_load_leaves_the_process() {
    let mut random = seeded("TIDEGATE_POWER_SEED");
    for round in 0..number("TIDEGATE_SHUTDOWNS", 10) {
        let disk = match Disk::make() {
            Ok(disk) => disk,
            Err(reason) => return println!("skipped: {reason}"),
        };
        let data = disk.mounted().join("data");
        let server = Server::start(&data, 1 + round % 2);
        let made = |name: u64| {
            let body = format!(r#"{{"name":"t{name}"}}"#);
            let (_, made) = server.rest("POST", "/v1/topics", &body).unwrap();
            made["id"].as_str().unwrap().to_owned()
        };
        let topics: Vec<String> = (0..PUBLISHERS).map(made).collect();
        let stop = AtomicBool::new(false);
        let acked: Vec<u64> = std::thread::scope(|scope| {
            let (server, stop) = (&server, &stop);
            let mut threads = Vec::new();
            for topic in &topics {
                threads.push(scope.spawn(move || publish_until_refused(server, topic, stop)));
            }
            for topic in &topics[..2] {
                scope.spawn(move || ack_until_refused(server, topic));
            }
            std::thread::sleep(Duration::from_millis(50 + random.below(300)));
            stop.store(true, Ordering::SeqCst);
            disk.cut().unwrap();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(server.rest("GET", "/healthz", "").unwrap().0, 200);
        server.kill();
        disk.unmount().unwrap();
        disk.mount().unwrap();
        let server = Server::start(&data, 2);
        for (topic, acked) in topics.iter().zip(acked) {
            let target = format!("/v1/topics/{topic}");
            let (_, found) = server.rest("GET", &target, "").unwrap();
            assert!(
                acked <= found["last_seq"].as_u64().unwrap(),
                "{acked} acked: {found}"
            );
        }
        server.kill();
        disk.unmount().unwrap();
    }
}

/// What a publisher has been told of one topic: how far it is acknowledged, and the refusal that ended
/// it.
fn publish_until_full(server: &Server, topic: &str) -> u64 {
    let mut socket = server.connect().unwrap();
    let frame = format!(
        r#"{{"type":"publish","topic":"{topic}","payload":"{}"}}"#,
        "x".repeat(30_000)
    );
    let mut acked = 0;
    loop {
        send(&mut socket, frame.clone()).unwrap();
        let answer = next(&mut socket).expect("the process lives");
        match answer["type"].as_str().unwrap() {
            "pub_ack" => acked = answer["seq"].as_u64().unwrap(),
            _ => {
                assert_eq!(answer["code"], "storage_full", "{answer}");
                return acked;
            }
        }
    }
}

/// A reader that is bound before the disk is full, unless it is full already.
fn bound(server: &Server, topic: &str) -> Option<WebSocket<TcpStream>> {
    let mut socket = server.connect().unwrap();
    let open = r#""sub_name":"A","from_seq":0"#;
    let subscribe = format!(r#"{{"type":"subscribe","topic":"{topic}",{open}}}"#);
    send(&mut socket, subscribe).unwrap();
    let answer = next(&mut socket).unwrap();
    if answer["type"] == "error" {
        assert_eq!(answer["code"], "storage_full", "{answer}");
        return None;
    }
    assert_eq!(answer["type"], "subscribed", "{answer}");
    Some(socket)
}

/// Acks the first message; the ack is on the disk, however full it is.
fn ack_on_full(mut reader: WebSocket<TcpStream>, topic: &str) {
    loop {
        let frame = next(&mut reader).expect("the process lives");
        match frame["type"].as_str().unwrap() {
            "message" if frame["seq"] == 1 => {
                let ack =
                    format!(r#"{{"type":"ack","topic":"{topic}","sub_name":"A","seq":1,"ref":1}}"#);
                send(&mut reader, ack).unwrap();
            }
            "message" => {}
            "error" => panic!("an ack on a full disk: {frame}"),
            _ => return,
        }
    }
}

/// L7, P1, P5, T-D6: a disk that is full through kills and stops: what was acked is there, acks and ends
/// are taken, and what an end gives back is used again
#[test]
#[ignore = "needs root and a loop device: `.ci/full` runs it, with --ignored"]
fn a_full_disk_outlives_its_restarts() {
    let disk = match Disk::make_of(FULL_BYTES) {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let data = disk.mounted().join("data");
    let rounds = number("TIDEGATE_FULL_DISKS", 6);
    let mut topics: Vec<(String, u64)> = Vec::new();
    let mut acked = 0;
    for round in 0..rounds {
        let server = Server::start(&data, 1 + round % 2);
        for (topic, known) in &topics {
            let (_, found) = server
                .rest("GET", &format!("/v1/topics/{topic}"), "")
                .unwrap();
            assert_eq!(
                found["last_seq"].as_u64(),
                Some(*known),
                "round {round}: {found}"
            );
        }
        if 1 < topics.len() {
            let (oldest, _) = topics.remove(0);
            let target = format!("/v1/topics/{oldest}");
            let (status, body) = server.rest("DELETE", &target, "").unwrap();
            assert_eq!(status, 204, "round {round}: {body}");
        }
        let body = format!(r#"{{"name":"t{round}"}}"#);
        let began = Instant::now();
        let topic = loop {
            let (status, made) = server.rest("POST", "/v1/topics", &body).unwrap();
            if let Some(id) = made["id"].as_str() {
                break id.to_owned();
            }
            assert_eq!(status, 507, "round {round}: {made}");
            assert!(
                began.elapsed() < PATIENCE * 3,
                "round {round}: no space comes back"
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        let reader = bound(&server, &topic);
        let last = publish_until_full(&server, &topic);
        acked += last;
        if let Some(reader) = reader.filter(|_| 0 < last) {
            ack_on_full(reader, &topic);
        }
        topics.push((topic, last));
        server.kill();
    }
    println!("{rounds} full disks: {acked} acked, none lost");
    disk.unmount().unwrap();
    assert!(rounds < acked, "{acked} acked");
}

const PUBLISHERS: u64 = 8;
const IN_FLIGHT: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(10);
const IMAGE_BYTES: u64 = 512 << 20;
/// Full after a few seconds.
const FULL_BYTES: u64 = 64 << 20;
/// `_IOR('X', 125, u32)`
const EXT4_IOC_SHUTDOWN: u32 = 0x8004_587d;
/// The journal is not flushed.
const NOLOGFLUSH: u32 = 2;
