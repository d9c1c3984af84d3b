//! Registries over shards: counts that are exact, numbers that two registries share without ever
//! meeting, and the order of what one sender sends. Knows frames; not which shard somebody is on.

use std::sync::Arc;

use tidegate::prelude::*;

use crate::harness::http::ask;
use crate::harness::wire::upgrade_request;
use crate::harness::{Client, Plan, Site, both_shards, eventually, token};

struct Red;

struct Blue;

/// One gateway for each registry; all that it does is for its own.
macro_rules! gateway_of {
    ($gateway:ident, $marker:ident, $path:literal) => {
        #[gateway(path = $path, namespace = $marker)]
        struct $gateway {
            #[inject]
            server: Arc<WsServer<$marker>>,
        }

        #[messages]
        impl $gateway {
            #[on_connect]
            async fn hello(&self, client: &WsClient) {
                let _ = client.emit("hello", &client.id());
            }

            #[subscribe_message("presence")]
            async fn presence(&self) -> Result<usize, SendError> {
                self.server.connection_count()
            }

            #[subscribe_message("join")]
            async fn join(&self, room: String, client: &WsClient) -> Result<(), SendError> {
                client.join(&room)
            }

            #[subscribe_message("room")]
            async fn room(&self, room: String, client: &WsClient) -> Result<(), SendError> {
                client.to(&room, "room", stringify!($marker)).map(drop)
            }

            #[subscribe_message("one")]
            async fn one(&self, id: ConnId) -> Result<bool, SendError> {
                self.server.client(id).reach("one", stringify!($marker))
            }

            #[subscribe_message("all")]
            async fn all(&self, client: &WsClient) -> Result<usize, SendError> {
                client
                    .scope()
                    .broadcast_total("all", stringify!($marker))
                    .await
            }

            /// Sends from a thread that is no shard, by every way that there is.
            #[subscribe_message("thread")]
            async fn thread(&self, client: &WsClient) {
                let (server, client) = (self.server.clone(), client.clone());
                std::thread::spawn(move || -> Result<(), SendError> {
                    let scope = server.tenant(client.tenant().clone());
                    for number in (0..400).step_by(4) {
                        scope.broadcast("n", &number)?;
                        client.emit("n", &(number + 1))?;
                        scope.to(client.id()).emit("n", &(number + 2))?;
                        client.broadcast("n", &(number + 3))?;
                    }
                    client.disconnect(CloseCode::own(4000), "all sent")
                });
            }
        }
    };
}

gateway_of!(RedGateway, Red, "/red");
gateway_of!(BlueGateway, Blue, "/blue");

#[module(gateways = [RedGateway, BlueGateway])]
struct ColourModule;

fn start(shards: u16) -> Site {
    Plan::new(shards)
        .limits(|limits| limits.outbox_frames_max = 4_096)
        .with(|server| server.module::<ColourModule>())
        .start()
}

fn connect(site: &Site, path: &str, ns: &str) -> (Client, u64) {
    let mut client = Client::connect(site.address, path, &token(ns, "ada"));
    let text = client.receive();
    let id = text.strip_prefix(r#"{"event":"hello","data":"#);
    let id = id.and_then(|id| id.strip_suffix('}')).unwrap();
    (client, id.parse().unwrap())
}

#[track_caller]
fn expect_count(client: &mut Client, count: usize) {
    client.ask(
        r#"{"event":"presence"}"#,
        &format!(r#"{{"event":"presence","data":{count}}}"#),
    );
}

/// N-16: the guide says when to use which.
#[test]
fn the_guide_tells_a_registry_from_a_room() {
    let guide = include_str!("../../src/guide/registries.md");
    assert!(guide.contains("Another audience is a registry; a part of one audience is a room."));
}

both_shards! {
    /// N-11: every registry is behind the same port, with the same origins
    fn one_port_has_one_policy(shards) {
        let origins = |config: &mut tidegate::config::Config| {
            config.auth.allowed_origins = vec!["https://app.example".to_owned()];
        };
        let plan = Plan::new(shards).config(origins);
        let site = plan.with(|server| server.module::<ColourModule>()).start();
        for path in ["/red", "/blue", "/ws"] {
            let target = format!("{path}?token={}", token("demo", "ada"));
            let status = |origin: &str| {
                let origin = format!("Origin: {origin}");
                ask(site.address, &upgrade_request(&target, &[&origin])).status
            };
            let statuses = (status("https://app.example"), status("https://evil.test"));
            assert_eq!(statuses, (101, 403), "{path}");
        }
    }

    /// X-01, D-16: whoever says hello has been counted on every shard, whoever has gone is not,
    /// however it went; each registry and each tenant by itself
    fn counts_are_exact(shards) {
        let site = start(shards);
        let (mut blue, _) = connect(&site, "/blue", "demo");
        let (mut other, _) = connect(&site, "/red", "other");
        let mut reds = Vec::new();
        for count in 1..=20 {
            reds.push(connect(&site, "/red", "demo").0);
            for red in &mut reds {
                expect_count(red, count);
            }
        }
        reds[0].ask(r#"{"event":"all"}"#, r#"{"event":"all","data":"Red"}"#);
        reds[0].expect(r#"{"event":"all","data":20}"#);
        for red in &mut reds[1..] {
            red.expect(r#"{"event":"all","data":"Red"}"#);
        }
        for left in (1..20).rev() {
            let leaver = reds.remove(0);
            if left % 2 == 0 { leaver.close() } else { leaver.vanish() }
            // A reset is seen when it arrives, and no frame tells when that is.
            eventually("the count goes down", || {
                reds[0].send(r#"{"event":"presence"}"#);
                reds[0].receive() == format!(r#"{{"event":"presence","data":{left}}}"#)
            });
            for red in &mut reds {
                expect_count(red, left);
            }
        }
        expect_count(&mut blue, 1);
        expect_count(&mut other, 1);
    }

    /// N-03, N-09, N-10: every number, every room exists twice; nothing goes across
    fn equal_numbers_in_two_registries_never_meet(shards) {
        let site = start(shards);
        let mut pairs = Vec::new();
        for number in 1..=4 {
            let ((red, red_id), (blue, blue_id)) =
                (connect(&site, "/red", "demo"), connect(&site, "/blue", "demo"));
            assert_eq!((red_id, blue_id), (number, number));
            pairs.push((red, blue));
        }
        for (red, blue) in &mut pairs {
            red.send(r#"{"event":"join","data":"lobby"}"#);
            blue.send(r#"{"event":"join","data":"lobby"}"#);
            expect_count(red, 4);
            expect_count(blue, 4);
        }
        for number in 1..=4 {
            let (red, _) = &mut pairs[0];
            red.send(&format!(r#"{{"event":"one","data":{number}}}"#));
            pairs[number - 1].0.expect(r#"{"event":"one","data":"Red"}"#);
            pairs[0].0.expect(r#"{"event":"one","data":true}"#);
        }
        pairs[0].0.send(r#"{"event":"room","data":"lobby"}"#);
        for (red, _) in &mut pairs {
            red.expect(r#"{"event":"room","data":"Red"}"#);
        }
        pairs[0].0.ask(r#"{"event":"all"}"#, r#"{"event":"all","data":"Red"}"#);
        pairs[0].0.expect(r#"{"event":"all","data":4}"#);
        for (_, blue) in &mut pairs {
            expect_count(blue, 4);
        }
        pairs[0].1.send(r#"{"event":"room","data":"lobby"}"#);
        for (red, blue) in &mut pairs {
            blue.expect(r#"{"event":"room","data":"Blue"}"#);
            red.send(r#"{"event":"?"}"#);
        }
        for (red, _) in &mut pairs[1..] {
            red.expect(r#"{"event":"all","data":"Red"}"#);
        }
        for (red, _) in &mut pairs {
            red.expect(r#"{"event":"?","data":{"error":"unknown event `?`"}}"#);
        }
    }

    /// D-24: what a thread that is no shard sends arrives in the order of its calls, whichever way
    /// each send takes and wherever the client is
    fn a_thread_sends_in_order(shards) {
        let site = start(shards);
        let mut clients = vec![connect(&site, "/red", "demo").0];
        for _ in 0..3 {
            clients.push(connect(&site, "/red", "demo").0);
        }
        while !clients.is_empty() {
            let mut sender = clients.remove(0);
            sender.send(r#"{"event":"thread"}"#);
            for number in 0..400 {
                sender.expect(&format!(r#"{{"event":"n","data":{number}}}"#));
            }
            sender.expect_close(4000, "all sent");
            for client in &mut clients {
                for number in (0..400).filter(|number| matches!(number % 4, 0 | 3)) {
                    client.expect(&format!(r#"{{"event":"n","data":{number}}}"#));
                }
            }
        }
    }
}
