//! Streams of a gateway: a client that reads slowly slows its stream down and nothing else. Knows
//! what is sent and what arrives; memory is that of a process of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::value::RawValue;
use tidegate::prelude::*;

use crate::harness::{
    Client, Plan, Site, both_shards, client, eventually, is_alone, resident_bytes, token, wait,
};

/// How far all streams got, how many there are, and a client for others to stream to.
#[derive(Clone, Default)]
struct Gauge {
    poured: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    target: Arc<Mutex<Option<WsClient>>>,
}

/// Counted while its handler lives.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn of(gauge: &'a Gauge) -> Self {
        gauge.open.fetch_add(1, Ordering::SeqCst);
        Self(&gauge.open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[gateway(path = "/pour")]
struct PourGateway {
    #[inject]
    gauge: Arc<Gauge>,
}

impl PourGateway {
    async fn stream(&self, to: &WsClient, frames: usize, bytes: usize) -> Result<usize, SendError> {
        let _open = Open::of(&self.gauge);
        let text = format!("\"{}\"", "x".repeat(bytes));
        let text = RawValue::from_string(text)?;
        for number in 0..frames {
            if !to.stream("drop", &(number, &text)).await? {
                return Ok(number);
            }
            self.gauge.poured.fetch_add(1, Ordering::SeqCst);
        }
        Ok(frames)
    }
}

#[messages]
impl PourGateway {
    #[subscribe_message("pour")]
    #[concurrent]
    async fn pour(&self, frames: usize, client: &WsClient) -> Result<usize, SendError> {
        self.stream(client, frames, FRAME_BYTES).await
    }

    #[subscribe_message("listen")]
    async fn listen(&self, client: &WsClient) -> bool {
        self.gauge.target.lock().replace(client.clone()).is_none()
    }

    #[subscribe_message("pass")]
    async fn pass(&self, frames: usize) -> Result<usize, SendError> {
        let target = self.gauge.target.lock().clone();
        match target {
            Some(target) => self.stream(&target, frames, 10).await,
            None => Ok(0),
        }
    }

    #[subscribe_message("ping")]
    async fn ping(&self) -> u8 {
        1
    }
}

#[module(gateways = [PourGateway])]
struct PourModule;

fn start(plan: Plan) -> (Site, Gauge) {
    let gauge = Gauge::default();
    let plan = plan.provide(gauge.clone());
    let site = plan.with(|server| server.module::<PourModule>()).start();
    (site, gauge)
}

fn connect(site: &Site, sub: &str) -> Client {
    Client::connect(site.address, "/pour", &token("demo", sub))
}

/// A client that the kernel keeps little for.
fn connect_narrow(site: &Site) -> Client {
    let stream = client::connected_with_small_buffer(site.address);
    let bearer = format!("Bearer {}", token("demo", "slow"));
    Client::over(stream, "/pour", &[("authorization", &bearer)])
}

/// Waits until the streams wait.
fn await_standstill(gauge: &Gauge) -> usize {
    let mut last = 0;
    eventually("the streams wait", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = gauge.poured.load(Ordering::SeqCst);
        std::mem::replace(&mut last, now) == now && now != 0
    });
    last
}

/// The number and the bytes of the next frame of a stream.
#[track_caller]
fn expect_drop(client: &mut Client, number: usize, bytes: usize) {
    let text = client.receive();
    let start = format!(r#"{{"event":"drop","data":[{number},"x"#);
    assert!(text.starts_with(&start), "not {number}: {:.60}", text);
    assert_eq!(text.len(), start.len() + bytes + 2);
}

both_shards! {
    /// P-14: 200 MiB to clients that read nothing for a while, and then slowly: the handlers wait
    /// for them, memory stays flat, others are served, and all of it arrives in order
    fn a_stream_goes_as_fast_as_its_reader(shards) {
        if !is_alone() {
            return;
        }
        let (site, gauge) = start(Plan::new(shards));
        let mut slow = [connect(&site, "slow"), connect(&site, "slow")];
        let mut neighbour = connect(&site, "neighbour");
        neighbour.ask(r#"{"event":"ping"}"#, r#"{"event":"ping","data":1}"#);
        let before = resident_bytes();
        for client in &mut slow {
            client.send(&format!(r#"{{"event":"pour","data":{FRAMES}}}"#));
        }
        let taken = await_standstill(&gauge);
        assert!(taken * FRAME_BYTES < 32 << 20, "{taken} frames were taken without being read");
        neighbour.ask(r#"{"event":"ping"}"#, r#"{"event":"ping","data":1}"#);
        let mut grown = 0;
        for number in 0..FRAMES {
            if number % 1_600 == 100 {
                await_standstill(&gauge);
                grown = grown.max(resident_bytes().saturating_sub(before));
            }
            for client in &mut slow {
                expect_drop(client, number, FRAME_BYTES);
            }
        }
        for client in &mut slow {
            client.expect(&format!(r#"{{"event":"pour","data":{FRAMES}}}"#));
        }
        assert!(grown < 24 << 20, "{grown} bytes for what was not read");
        assert_eq!(gauge.open.load(Ordering::SeqCst), 0);
    }

    /// P-14: a client that leaves takes the handler with it that waits for it
    fn a_stream_ends_with_its_reader(shards) {
        let (site, gauge) = start(Plan::new(shards));
        let mut slow = connect(&site, "slow");
        slow.send(r#"{"event":"pour","data":100000}"#);
        await_standstill(&gauge);
        assert_eq!(gauge.open.load(Ordering::SeqCst), 1);
        slow.vanish();
        eventually("the handler has ended", || gauge.open.load(Ordering::SeqCst) == 0);
    }

    /// P-14, P-20: one client's handler streams to another client, on whichever shard that is;
    /// replies find room beside a stream, however small the outbox is
    fn a_stream_may_go_to_somebody_else(shards) {
        let plan = Plan::new(shards).limits(|limits| limits.outbox_frames_max = 16);
        let (site, gauge) = start(plan);
        let mut bob = connect_narrow(&site);
        bob.ask(r#"{"event":"listen"}"#, r#"{"event":"listen","data":true}"#);
        let mut ada = connect(&site, "ada");
        ada.send(r#"{"event":"pass","data":20000}"#);
        await_standstill(&gauge);
        bob.send(r#"{"event":"ping"}"#);
        let mut number = 0;
        while number < 20_000 {
            let text = bob.receive();
            if text != r#"{"event":"ping","data":1}"# {
                assert_eq!(text, format!(r#"{{"event":"drop","data":[{number},"xxxxxxxxxx"]}}"#));
                number += 1;
            }
        }
        ada.expect(r#"{"event":"pass","data":20000}"#);
    }

    /// P-14: a thread that is no shard waits for the reader too
    fn a_thread_can_stream(shards) {
        let (site, gauge) = start(Plan::new(shards));
        let mut bob = connect(&site, "bob");
        bob.ask(r#"{"event":"listen"}"#, r#"{"event":"listen","data":true}"#);
        let target = gauge.target.lock().clone().unwrap();
        for number in 0..10 {
            assert!(wait(target.stream("drop", &number)).unwrap());
            bob.expect(&format!(r#"{{"event":"drop","data":{number}}}"#));
        }
        bob.close();
        assert!(!wait(target.stream("drop", &1)).unwrap());
    }
}

const FRAME_BYTES: usize = 16 << 10;
const FRAMES: usize = (100 << 20) / FRAME_BYTES;
