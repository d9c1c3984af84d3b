//! Connections of the client in Rust, and of `tidegate sub`, that are lost and come back: a server
//! that is killed and started again on the same data at the same address, and refusals that no
//! second attempt heals. Knows the client's interface, and what the verb prints.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tidegate::client::{
    Client, ClientError, Durable, DurableFrame, Publish, Reconnect, RelayFrame, Subscribe,
};

use crate::harness::process::{Process, Start};
use crate::harness::{eventually, token};

const DURABLE: (&str, &str) = ("TIDEGATE_DURABLE__ENABLED", "true");

fn start(data: &Path, at: Option<SocketAddr>, environment: &[(&str, &str)]) -> Process {
    let start = Start {
        shards: 1,
        data,
        environment: &[&[DURABLE, ("TIDEGATE_RELAY__PATH", "/ws")], environment].concat(),
    };
    at.map_or_else(|| start.run(), |address| start.run_at(address))
}

/// Ends it without a word and starts it again.
fn restart(process: Process, data: &Path) -> Process {
    let address = process.address;
    drop(process);
    start(data, Some(address), &[])
}

fn lasting(address: SocketAddr) -> Client {
    let client = Client::new(&format!("http://{address}"), &token("demo", "svc")).unwrap();
    client.reconnecting(Reconnect {
        wait_min: Duration::from_millis(20),
        wait_max: Duration::from_millis(200),
        ..Reconnect::default()
    })
}

/// Publishes 1 to `COUNT`, each under a key of its own, and waits for the acks; `told` hears how
/// many there are.
fn publish_all(mut writer: Durable, topic: &str, told: impl Fn(u64)) -> u32 {
    let (mut acked, mut losses) = (0, 0);
    let mut next = 1;
    while acked < COUNT {
        while next <= COUNT && next - acked <= 32 {
            let key = format!("k{next}");
            let how = Publish {
                reference: Some(next),
                idempotency_key: Some(&key),
            };
            writer.publish(topic, &next, how).unwrap();
            next += 1;
        }
        match writer.receive().unwrap().frame {
            DurableFrame::Published(published) => {
                assert_eq!(
                    published.reference,
                    Some(published.seq),
                    "in order, and once"
                );
                acked += 1;
                told(acked);
            }
            DurableFrame::Lost(loss) => {
                assert_eq!(loss.unknown, [], "all have keys");
                losses += 1;
            }
            DurableFrame::Back => {}
            other => panic!("no answer to a publish: {other:?}"),
        }
    }
    losses
}

/// Reads to the last message and acks each; what is behind the acks may come again.
fn read_all(mut reader: Durable, topic: &str) -> u32 {
    let (mut last, mut losses) = (0, 0);
    reader
        .subscribe(&Subscribe::new(topic, "A").from_seq(0))
        .unwrap();
    while last < COUNT {
        match reader.receive().unwrap().frame {
            DurableFrame::Message(message) => {
                assert_eq!(message.payload.get(), message.seq.to_string());
                assert!(message.seq <= last + 1, "{} behind {last}", message.seq);
                last = last.max(message.seq);
                reader.ack(topic, "A", message.seq).unwrap();
            }
            DurableFrame::Subscribed(subscribed) => {
                assert!(
                    subscribed.next_seq <= last + 1,
                    "{subscribed:?} behind {last}"
                );
            }
            DurableFrame::Lost(_) => losses += 1,
            DurableFrame::Back => {}
            other => panic!("no message: {other:?}"),
        }
    }
    losses
}

const COUNT: u64 = 3_000;

/// C-24, B-05: everything arrives, in order and stored once, over two deaths of the server
#[test]
fn a_killed_server_costs_neither_its_subscriber_nor_its_publisher_anything() {
    let data = tempfile::tempdir().unwrap();
    let mut process = start(data.path(), None, &[]);
    let client = lasting(process.address);
    let topic = client.topic("orders").unwrap();
    let (writer, reader) = (client.durable().unwrap(), client.durable().unwrap());
    let acked = Arc::new(AtomicU32::new(0));
    let (told, name) = (Arc::clone(&acked), topic.clone());
    let publisher = thread::spawn(move || {
        publish_all(writer, &name, |count| {
            told.store(u32::try_from(count).unwrap(), Ordering::Relaxed);
        })
    });
    let subscriber = thread::spawn(move || read_all(reader, &topic));
    for part in [500, 1_500] {
        while acked.load(Ordering::Relaxed) < part {
            thread::sleep(Duration::from_millis(1));
        }
        process = restart(process, data.path());
    }
    eventually("everything has arrived", || {
        publisher.is_finished() && subscriber.is_finished()
    });
    assert_eq!(
        (publisher.join().unwrap(), subscriber.join().unwrap()),
        (2, 2)
    );
}

/// relay topics are heard again, and what cannot be said now is told
#[test]
fn relay_topics_are_subscribed_to_again() {
    let data = tempfile::tempdir().unwrap();
    let process = start(data.path(), None, &[]);
    let client = lasting(process.address);
    let mut relay = client.relay().unwrap();
    for topic in ["left", "kept"] {
        relay.subscribe(topic).unwrap();
        assert!(matches!(
            relay.receive().unwrap().frame,
            RelayFrame::Subscribed(_)
        ));
    }
    relay.unsubscribe("left").unwrap();
    assert!(matches!(
        relay.receive().unwrap().frame,
        RelayFrame::Unsubscribed(_)
    ));
    let process = restart(process, data.path());
    assert!(matches!(
        relay.receive().unwrap().frame,
        RelayFrame::Lost(_)
    ));
    let unsaid = relay.send("kept", "e", &1);
    assert!(matches!(unsaid, Err(ClientError::Lost)), "{unsaid:?}");
    assert!(matches!(relay.receive().unwrap().frame, RelayFrame::Back));
    let frame = relay.receive().unwrap().frame;
    assert!(
        matches!(&frame, RelayFrame::Subscribed(topic) if topic == "kept"),
        "{frame:?}"
    );
    client.push("kept", "e", &1).unwrap();
    assert!(matches!(
        relay.receive().unwrap().frame,
        RelayFrame::Push(_)
    ));
    process.stop();
}

/// A token that is refused ends it at once, unless there is somebody to ask for another one
#[test]
fn a_refused_token_is_renewed_once_or_final() {
    let data = tempfile::tempdir().unwrap();
    let process = start(data.path(), None, &[]);
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    // After the first connection only a renewed token is good.
    let give = move |renew: bool| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        Ok(match first || renew {
            true => token("demo", "svc"),
            false => "stale".to_owned(),
        })
    };
    let client = lasting(process.address);
    let mut renewed = client.clone().token_from(give).relay().unwrap();
    let mut fixed = client.relay().unwrap();
    let address = process.address;
    let process = restart(process, data.path());
    for relay in [&mut renewed, &mut fixed] {
        assert!(matches!(
            relay.receive().unwrap().frame,
            RelayFrame::Lost(_)
        ));
        assert!(matches!(relay.receive().unwrap().frame, RelayFrame::Back));
    }
    assert_eq!(
        asked.load(Ordering::Relaxed),
        3,
        "one, a stale one, another one"
    );
    drop(process);
    let process = start(data.path(), Some(address), &[OTHER_SECRET]);
    for relay in [&mut renewed, &mut fixed] {
        assert!(matches!(
            relay.receive().unwrap().frame,
            RelayFrame::Lost(_)
        ));
        let error = relay.receive().unwrap_err();
        let is_refused = matches!(
            error,
            ClientError::Upgrade {
                status: Some(401),
                ..
            }
        );
        assert!(is_refused, "{error:?}");
    }
    process.stop();
}

const OTHER_SECRET: (&str, &str) = (
    "TIDEGATE_JWT_SECRET",
    "another secret of more than thirty-two bytes",
);

/// `tidegate sub`, ended with the value.
struct Sub {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Sub {
    fn start(address: SocketAddr, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["sub", "t", "--from", "0"]).args(flags);
        command
            .env_clear()
            .env("TIDEGATE_URL", format!("http://{address}"))
            .env("TIDEGATE_TOKEN", token("demo", "svc"));
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn seq(&mut self) -> u64 {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let message: Value = serde_json::from_str(&line).unwrap();
        message["seq"].as_u64().unwrap()
    }

    /// Its exit code and what it complained of.
    fn end(mut self) -> (Option<i32>, String) {
        let mut complaints = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut complaints).unwrap();
        (self.child.wait().unwrap().code(), complaints)
    }
}

impl Drop for Sub {
    fn drop(&mut self) {
        // Ended already, or not wanted any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// C-24: each loss and each return is told once, and a token that is refused is the end
#[test]
fn sub_goes_on_behind_a_restart_and_ends_at_a_refusal() {
    let data = tempfile::tempdir().unwrap();
    let mut process = start(data.path(), None, &[]);
    let address = process.address;
    let client = lasting(address);
    let topic = client.topic("t").unwrap();
    let publish = || {
        let mut writer = client.durable().unwrap();
        for _ in 0..3 {
            writer.publish(&topic, &1, Publish::default()).unwrap();
            assert!(matches!(
                writer.receive().unwrap().frame,
                DurableFrame::Published(_)
            ));
        }
    };
    publish();
    let mut sub = Sub::start(address, &[]);
    let seen: Vec<_> = (0..3).map(|_| sub.seq()).collect();
    assert_eq!(seen, [1, 2, 3]);
    process = restart(process, data.path());
    publish();
    let mut next = sub.seq();
    // What was acked just before the death comes again where the ack did not get to the disk.
    for expected in 4..=6 {
        while next < expected {
            next = sub.seq();
        }
        assert_eq!(next, expected);
    }
    drop(process);
    let process = start(data.path(), Some(address), &[OTHER_SECRET]);
    let (code, complaints) = sub.end();
    assert_eq!(code, Some(1), "{complaints}");
    assert_eq!(
        complaints.matches("the connection is lost (").count(),
        2,
        "{complaints}"
    );
    assert_eq!(
        complaints.matches("connected again").count(),
        1,
        "{complaints}"
    );
    assert!(complaints.contains("401"), "{complaints}");
    process.stop();
}

/// C-24: scripts can have the end at once, or after so many attempts
#[test]
fn sub_gives_up_as_it_is_told() {
    for (flags, losses) in [
        (&["--no-reconnect"][..], 0),
        (
            &["--reconnect-attempts-max", "2", "--reconnect-wait-max", "1"],
            1,
        ),
    ] {
        let data = tempfile::tempdir().unwrap();
        let process = start(data.path(), None, &[]);
        let client = lasting(process.address);
        let topic = client.topic("t").unwrap();
        let mut writer = client.durable().unwrap();
        writer.publish(&topic, &1, Publish::default()).unwrap();
        writer.receive().unwrap();
        let mut sub = Sub::start(process.address, flags);
        assert_eq!(sub.seq(), 1);
        drop(process);
        let (code, complaints) = sub.end();
        assert_eq!(code, Some(1), "{complaints}");
        assert_eq!(
            complaints.matches("trying again").count(),
            losses,
            "{complaints}"
        );
    }
}

/// A server that says in its close not to come again is believed.
#[test]
fn a_close_that_does_not_heal_is_final() {
    for (code, heals) in [
        (4409, false),
        (4403, false),
        (1000, false),
        (1012, true),
        (1013, true),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = lasting(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut socket = tungstenite::accept(stream).unwrap();
            let close = tungstenite::protocol::CloseFrame {
                code: code.into(),
                reason: "so".into(),
            };
            socket.close(Some(close)).unwrap();
            while socket.read().is_ok() {}
        });
        let mut relay = client.plain().relay().unwrap();
        let heard = relay.receive();
        match heals {
            true => assert!(
                matches!(heard.unwrap().frame, RelayFrame::Lost(_)),
                "{code}"
            ),
            false => assert!(matches!(heard, Err(ClientError::Closed(_))), "{code}"),
        }
        server.join().unwrap();
    }
}
