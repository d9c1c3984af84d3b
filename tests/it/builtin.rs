//! The guards and interceptors that come with the program: who passes, who waits too long, who is
//! too fast. Knows frames and roles.

use std::time::Duration;

use tidegate::auth::Claims;
use tidegate::config::{Dialect, MountConfig, Tenants};
use tidegate::prelude::*;

use crate::harness::http::{ask, request};
use crate::harness::wire::upgrade_request;
use crate::harness::{Client, Plan, Site, both_shards, tenant, token, token_of};

#[gateway(path = "/built", guards(JwtGuard))]
#[derive(Default)]
struct Built;

#[messages]
impl Built {
    #[subscribe_message("admin")]
    #[use_guards(RoleGuard<Admin>)]
    async fn admin(&self) -> &'static str {
        "done"
    }

    #[subscribe_message("wait")]
    #[use_interceptors(Timeout<50>)]
    async fn wait(&self, ms: u64) -> &'static str {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        "in time"
    }

    #[subscribe_message("fast")]
    #[use_interceptors(EventMetrics, RateLimit<2, 600_000>)]
    async fn fast(&self, number: u64) -> u64 {
        number
    }
}

fn serve(shards: u16) -> Site {
    let public = |config: &mut tidegate::config::Config| {
        config.mounts.push(MountConfig {
            path: "/built".into(),
            dialect: Dialect::Event,
            handler: None,
            transport: tidegate::config::Carrier::WebSocket,
            public: true,
            tenants: Tenants::Isolated,
            limits: config.limits.clone(),
        });
    };
    let app = |app: &mut App| {
        app.gateway::<Built>();
    };
    Plan::new(shards)
        .config(public)
        .with(move |server| server.app(app))
        .start()
}

fn connect(site: &Site, sub: &str) -> Client {
    Client::connect(site.address, "/built", &token("demo", sub))
}

both_shards! {
    /// What an event does is seen in the metrics, by its name
    fn events_are_measured(shards) {
        let site = serve(shards);
        let mut ada = connect(&site, "ada");
        for number in 0..3 {
            ada.send(&format!(r#"{{"event":"fast","data":{number}}}"#));
            ada.receive();
        }
        let admin = token_of(&Claims::new(tenant("demo"), "root").role("admin"), 60);
        let metrics = ask(site.address, &request("GET", "/metrics", Some(&admin), "")).body;
        for line in ["tidegate_events_total{event=\"Built/fast\"} 3", "tidegate_events_failed_total{event=\"Built/fast\"} 1"] {
            assert!(metrics.contains(line), "{line} in {metrics}");
        }
        assert!(metrics.contains("tidegate_events_time_seconds_total{event=\"Built/fast\"} 0."), "{metrics}");
    }

    /// P-11, P-17: a public mount, and a guard that wants a token all the same
    fn who_has_no_token_is_kept_out(shards) {
        let site = serve(shards);
        assert_eq!(ask(site.address, &upgrade_request("/built", &[])).status, 403);
        connect(&site, "ada").ask(r#"{"event":"fast","data":1}"#, r#"{"event":"fast","data":1}"#);
    }

    /// D-10: an event for one role
    fn who_has_not_the_role_is_refused(shards) {
        let site = serve(shards);
        let claims = Claims::new(tenant("demo"), "root").role("admin");
        let mut root = Client::connect(site.address, "/built", &token_of(&claims, 60));
        root.ask(r#"{"event":"admin"}"#, r#"{"event":"admin","data":"done"}"#);
        let mut ada = connect(&site, "ada");
        ada.send(r#"{"event":"admin"}"#);
        let answer = ada.receive();
        assert!(answer.starts_with(r#"{"event":"admin","data":{"error":""#), "{answer}");
    }

    /// A handler that takes too long is ended, and the next event has its turn
    fn who_takes_too_long_is_ended(shards) {
        let site = serve(shards);
        let mut ada = connect(&site, "ada");
        let late = r#"{"event":"wait","data":{"error":"`wait` took longer than 50 ms"}}"#;
        ada.ask(r#"{"event":"wait","data":60000}"#, late);
        ada.ask(r#"{"event":"wait","data":0}"#, r#"{"event":"wait","data":"in time"}"#);
    }

    /// Each connection has a rate of its own
    fn who_is_too_fast_is_told(shards) {
        let site = serve(shards);
        let late = r#"{"event":"fast","data":{"error":"rate limited: 2 events in 600000 ms at most"}}"#;
        for sub in ["ada", "bob"] {
            let mut client = connect(&site, sub);
            client.ask(r#"{"event":"fast","data":1}"#, r#"{"event":"fast","data":1}"#);
            client.ask(r#"{"event":"fast","data":2}"#, r#"{"event":"fast","data":2}"#);
            client.ask(r#"{"event":"fast","data":3}"#, late);
        }
    }
}
