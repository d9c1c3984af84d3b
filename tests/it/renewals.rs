//! Tokens on open connections: when their end is told and comes, whose token may take the place
//! of another, and what refused ones cost who sends them. Knows the `auth` frame of the dialects.

use std::time::{Duration, Instant};

use tidegate::auth::{Claims, Rules};
use tidegate::config::{Limits, RelaySection, Tenants};

use crate::durable;
use crate::harness::wire::upgrade_request;
use crate::harness::{Opcode, Plan, Site, Wire, both_shards, tenant, token, token_of, unix_s};

/// The mounts on which a token can be renewed, with what is negotiated there.
const MOUNTS: [(&str, &str); 2] = [
    ("/ws", "tidegate.relay.v1"),
    ("/v1/ws", "tidegate.durable.v1"),
];

fn start(shards: u16, change: impl FnOnce(Plan) -> Plan) -> (tempfile::TempDir, Site) {
    let data = tempfile::tempdir().unwrap();
    let plan = durable::plan(shards, data.path());
    let site = change(plan).start();
    (data, site)
}

fn leeway(leeway_s: u64) -> Rules {
    Rules {
        leeway_s,
        ..Rules::default()
    }
}

fn relay(plan: Plan, change: impl FnOnce(&mut RelaySection)) -> Plan {
    plan.config(|config| {
        let mut relay = config.relay.clone().unwrap();
        change(&mut relay);
        config.set_relay(relay);
    })
}

/// A connection that negotiated the dialect, with a token or without.
fn connect(site: &Site, (path, protocol): (&str, &str), token: Option<&str>) -> Wire {
    let mut wire = Wire::connect(site.address);
    let protocol = format!("Sec-WebSocket-Protocol: {protocol}");
    let bearer = token.map(|token| format!("Authorization: Bearer {token}"));
    let lines: Vec<&str> = [Some(&*protocol), bearer.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    wire.write(upgrade_request(path, &lines));
    let head = wire.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    wire
}

fn ada(ttl_s: u64) -> String {
    token_of(&Claims::new(tenant("demo"), "ada"), ttl_s)
}

const REFUSED: &str = r#"{"type":"error","message":"the token is not valid for this connection","code":"unauthorized"}"#;

impl Wire {
    #[track_caller]
    fn renew(&mut self, token: &str) {
        self.send(
            Opcode::TEXT,
            format!(r#"{{"type":"auth","token":"{token}"}}"#),
        );
    }

    /// It is still there, and nothing waits for it.
    #[track_caller]
    fn expect_quiet(&mut self) {
        self.send(Opcode::TEXT, r#"{"type":"ping"}"#);
        self.expect_text(r#"{"type":"pong"}"#);
    }

    #[track_caller]
    fn expect_expiring(&mut self, within: std::ops::RangeInclusive<u64>) {
        let (_, payload) = self.read_frame();
        let frame: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(frame["type"], "token_expiring", "{frame}");
        let seconds = frame["seconds"].as_u64().unwrap();
        assert!(within.contains(&seconds), "{frame}");
    }
}

/// A token that ended so many seconds ago.
fn ended(seconds: u64) -> String {
    let issuer = tidegate::AuthConfig::new(crate::harness::SECRET, 60).unwrap();
    issuer
        .issue(&Claims::new(tenant("demo"), "ada"), unix_s() - 60 - seconds)
        .unwrap()
}

both_shards! {
    /// S6: the leeway that lets a token in lets it stay as long
    fn the_leeway_counts_at_both_ends(shards) {
        let (_data, site) = start(shards, |plan| plan.rules(leeway(6)));
        for mount in MOUNTS {
            let token = ended(3);
            let started = Instant::now();
            let mut wire = connect(&site, mount, Some(&token));
            // Its end is near, and that is all there is to tell.
            wire.expect_expiring(0..=0);
            wire.expect_quiet();
            assert_eq!(wire.expect_close(4401), "token expired");
            assert!(Duration::from_millis(1_000) < started.elapsed());
        }
        let late = format!("Authorization: Bearer {}", ended(8));
        let answer = crate::harness::http::ask(site.address, &upgrade_request("/ws", &[&late]));
        assert_eq!(answer.status, 401);
    }

    /// S7, N2: told once a token, at half of what is left of a short one, in each dialect
    fn an_end_is_told_once(shards) {
        let (_data, site) = start(shards, |plan| plan.rules(leeway(0)));
        for mount in MOUNTS {
            let short = ada(4);
            let mut wire = connect(&site, mount, Some(&short));
            wire.expect_quiet();
            wire.expect_expiring(1..=2);
            // The same token is no news, another one is.
            wire.renew(&short);
            wire.expect_quiet();
            wire.renew(&ada(5));
            wire.expect_quiet();
            wire.expect_expiring(1..=3);
            wire.renew(&ada(600));
            wire.expect_quiet();
            // Who asked for nothing is told nothing.
            let mut plain = Wire::upgraded(site.address, &format!("{}?token={}", mount.0, ada(2)));
            assert_eq!(plain.expect_close(4401), "token expired");
            wire.expect_quiet();
        }
    }

    /// C2: refused tokens are counted, and too many of them end the connection
    fn refused_tokens_end_a_connection(shards) {
        let limits = |limits: &mut Limits| limits.invalid_frames_max = 4;
        let (_data, site) = start(shards, |plan| plan.limits(limits));
        let forged = {
            let good = ada(60);
            let (text, _) = good.rsplit_once('.').unwrap();
            format!("{text}.{}", "A".repeat(43))
        };
        let table = [token("demo", "bob"), token("other", "ada"), forged, "bad".to_owned()];
        for mount in MOUNTS {
            let mut wire = connect(&site, mount, Some(&ada(600)));
            for (index, bad) in table.iter().enumerate() {
                wire.renew(bad);
                wire.expect_text(REFUSED);
                // What is valid between them changes nothing.
                if index + 1 < table.len() {
                    wire.expect_quiet();
                }
            }
            assert_eq!(wire.expect_close(1008), "too many refused tokens");
            // A good one begins anew.
            let mut wire = connect(&site, mount, Some(&ada(600)));
            for _ in 0..3 {
                for bad in &table[..3] {
                    wire.renew(bad);
                    wire.expect_text(REFUSED);
                }
                wire.renew(&ada(601));
                wire.expect_quiet();
            }
        }
    }

    /// C2: who came without a token has none to renew, whatever it offers
    fn who_came_without_a_token_renews_none(shards) {
        let (_data, site) = start(shards, |plan| {
            relay(plan, |relay| relay.public = true)
        });
        let mut nameless = Claims::default();
        nameless.others.insert("x".to_owned(), 1.into());
        let mut wire = connect(&site, MOUNTS[0], None);
        for offered in [token_of(&nameless, 60), ada(60), token("default", "ada")] {
            wire.renew(&offered);
            wire.expect_text(REFUSED);
        }
        for _ in 3..10 {
            wire.renew(&ada(60));
            wire.expect_text(REFUSED);
        }
        assert_eq!(wire.expect_close(1008), "too many refused tokens");
    }

    /// C2: refused tokens count against their address, on open connections too
    fn refused_tokens_count_against_their_address(shards) {
        let limits = |limits: &mut Limits| limits.auth_failures_per_address_per_min_max = 3;
        let (_data, site) = start(shards, |plan| plan.limits(limits));
        let mut wire = connect(&site, MOUNTS[0], Some(&ada(600)));
        for _ in 0..4 {
            wire.renew("bad");
            wire.expect_text(REFUSED);
        }
        let reason = wire.expect_close(1008);
        assert!(reason.ends_with("(limits.auth_failures_per_address_per_min_max)"), "{reason}");
        let bad = upgrade_request("/ws", &["Authorization: Bearer bad"]);
        assert_eq!(crate::harness::http::ask(site.address, &bad).status, 429);
    }

    /// C8: on a shared mount the tenant that a token names still tells whose it is
    fn a_shared_mount_renews_its_own(shards) {
        let (_data, site) = start(shards, |plan| {
            relay(plan, |relay| relay.tenants = Tenants::Shared)
        });
        let mut nameless = Claims::new(tenant("demo"), "ada");
        nameless.tenant = None;
        let mut wire = connect(&site, MOUNTS[0], Some(&ada(600)));
        for bad in [token_of(&nameless, 60), token("other", "ada"), token("default", "ada")] {
            wire.renew(&bad);
            wire.expect_text(REFUSED);
        }
        wire.renew(&ada(700));
        wire.expect_quiet();
        // Its world is still the one of all, before and after.
        wire.send(Opcode::TEXT, r#"{"type":"subscribe","topic":"t"}"#);
        wire.expect_text(r#"{"type":"subscribed","topic":"t"}"#);
        let mut eve = connect(&site, MOUNTS[0], Some(&token("other", "eve")));
        eve.send(Opcode::TEXT, r#"{"type":"subscribe","topic":"t"}"#);
        eve.expect_text(r#"{"type":"subscribed","topic":"t"}"#);
        site.await_presence("default", "t", 2);
    }
}
