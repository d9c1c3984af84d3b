//! Tenants: nothing of one is seen by another, whatever the way, and code that works for nobody
//! is refused before it can reach the wrong one. Knows topics and callers; no wire.

use std::sync::mpsc;

use axum::routing::post;
use tidegate::config::Tenants;
use tidegate::{Relay, RelayEvent, Result, SendError, State};

use crate::harness::http::{ask, request};
use crate::harness::{Client, PATIENCE, Plan, both_shards, tenant, token, wait};

type Outcomes = mpsc::Sender<std::result::Result<(), String>>;

/// Pushes to `news` from a task that was spawned as its event says.
async fn push_apart(
    event: RelayEvent,
    relay: Relay,
    State(outcomes): State<Outcomes>,
) -> Result<()> {
    let RelayEvent::Message { event, .. } = event else {
        return Ok(());
    };
    let push = {
        let event = event.clone();
        async move {
            let pushed = relay.push("news", &event, &1).await;
            let told = outcomes.send(pushed.map_err(|error| error.to_string()));
            assert!(told.is_ok(), "the test waits for it");
        }
    };
    match event.as_str() {
        "plain" => drop(tokio::spawn(push)),
        "local" => drop(tokio::task::spawn_local(push)),
        _ => drop(tidegate::spawn(push)),
    }
    Ok(())
}

both_shards! {
    /// D-06, B-04: one name in two tenants is two topics, with members and presence of their own
    fn one_name_is_two_topics(shards) {
        let site = Plan::new(shards).start();
        let (mut ada, mut bob) = site.join_two("demo");
        let (mut eve, mut mallory) = site.join_two("other");
        for client in [&mut ada, &mut bob, &mut eve, &mut mallory] {
            client.subscribe("t");
        }
        ada.say("t", "e", "1");
        for client in [&mut ada, &mut bob] {
            client.expect_push("t", "e", "1");
        }
        wait(site.relay("demo").push("t", "e", &2)).unwrap();
        for client in [&mut ada, &mut bob] {
            client.expect_push("t", "e", "2");
        }
        for client in [&mut eve, &mut mallory] {
            client.expect_nothing();
        }
        for ns in ["demo", "other"] {
            assert_eq!(wait(site.relay(ns).presence_count("t")).unwrap(), 2);
        }
        assert_eq!(wait(site.relay("third").presence_count("t")).unwrap(), 0);
        eve.say("t", "e", "3");
        eve.expect_push("t", "e", "3");
        mallory.expect_push("t", "e", "3");
        ada.expect_nothing();
        ada.say("only:demo", "e", "1");
        ada.expect_error("not subscribed to only:demo");
        bob.subscribe("only:demo");
        eve.say("only:demo", "e", "1");
        eve.expect_error("not subscribed to only:demo");
        bob.expect_nothing();
    }

    /// C7, D-06: a plain task of a handler has no caller; its push is refused, however few tenants are
    /// connected, and no frame crosses
    fn a_plain_task_never_falls_open(shards) {
        let (sender, outcomes) = mpsc::channel();
        let site = Plan::new(shards)
            .provide::<Outcomes>(sender)
            .relay("push", push_apart)
            .start();
        let outcome = || outcomes.recv_timeout(PATIENCE).unwrap();
        let (mut ada, mut bob) = site.join_two("demo");
        ada.subscribe("push");
        ada.subscribe("news");
        bob.subscribe("news");
        let refused = |ada: &mut Client| {
            for event in ["plain", "local"] {
                ada.say("push", event, "1");
                let error = outcome().unwrap_err();
                for hint in ["no tenant", r#".tenant("demo")"#, ".all_tenants()", "tidegate::spawn"] {
                    assert!(error.contains(hint), "{error}");
                }
            }
        };
        refused(&mut ada);
        let mut eve = site.join("other", "eve");
        eve.subscribe("news");
        refused(&mut ada);
        ada.say("push", "kept", "1");
        assert_eq!(outcome(), Ok(()));
        ada.expect_push("news", "kept", "1");
        bob.expect_push("news", "kept", "1");
        eve.expect_nothing();
    }

    /// D-06: who says which tenant is meant is understood, from wherever
    fn a_tenant_can_be_named(shards) {
        let site = Plan::new(shards).start();
        let relay = site.server().relay();
        assert!(matches!(wait(relay.push("t", "e", &0)), Err(SendError::NoTenant)));
        let mut ada = site.join("demo", "ada");
        let mut eve = site.join("other", "eve");
        ada.subscribe("t");
        eve.subscribe("t");
        assert!(matches!(wait(relay.push("t", "e", &1)), Err(SendError::NoTenant)));
        assert!(matches!(wait(relay.presence("t")), Err(SendError::NoTenant)));
        wait(relay.tenant(tenant("demo")).push("t", "demo", &2)).unwrap();
        wait(relay.tenant(tenant("other")).push("t", "other", &3)).unwrap();
        wait(relay.all_tenants().push("t", "all", &4)).unwrap();
        ada.expect_push("t", "demo", "2");
        ada.expect_push("t", "all", "4");
        eve.expect_push("t", "other", "3");
        eve.expect_push("t", "all", "4");
        // Only a push can mean everybody.
        assert!(matches!(wait(relay.all_tenants().presence("t")), Err(SendError::NoTenant)));
    }

    /// D-06: `tenants = "shared"` puts everybody into one
    fn a_mount_can_be_shared(shards) {
        let site = Plan::new(shards)
            .config(|config| {
                let mut relay = config.relay.clone().unwrap();
                relay.tenants = Tenants::Shared;
                config.set_relay(relay);
            })
            .start();
        let mut ada = site.join("demo", "ada");
        let mut eve = site.join("other", "eve");
        ada.subscribe("t");
        eve.subscribe("t");
        eve.say("t", "e", "1");
        ada.expect_push("t", "e", "1");
        wait(site.server().relay().push("t", "e", &2)).unwrap();
        ada.expect_push("t", "e", "2");
    }

    /// D-06: a request works for its caller, and one without a token for the default tenant only
    fn a_request_works_for_its_caller(shards) {
        async fn announce(relay: Relay) -> String {
            match relay.push("t", "announced", &1).await {
                Ok(()) => "sent".to_owned(),
                Err(error) => error.to_string(),
            }
        }
        let site = Plan::new(shards)
            .with(|builder| builder.router(axum::Router::new().route("/announce", post(announce))))
            .start();
        let mut ada = site.join("demo", "ada");
        let mut eve = site.join("other", "eve");
        ada.subscribe("t");
        eve.subscribe("t");
        let good = token("demo", "svc");
        let answer = ask(site.address, &request("POST", "/announce", Some(&good), ""));
        assert_eq!((answer.status, answer.body.as_str()), (200, "sent"));
        ada.expect_push("t", "announced", "1");
        eve.expect_nothing();
        assert_eq!(ask(site.address, &request("POST", "/announce", None, "")).status, 401);
    }

    /// D-06: without `ns` a token is of the tenant `default`
    fn a_token_without_a_tenant_is_of_the_default_one(shards) {
        let site = Plan::new(shards).start();
        let claims = tidegate::auth::Claims { subject: Some("ada".to_owned()), ..Default::default() };
        let plain = crate::harness::token_of(&claims, 60);
        let mut ada = Client::connect(site.address, "/ws", &plain);
        let mut bob = site.join("default", "bob");
        ada.subscribe("t");
        bob.subscribe("t");
        ada.say("t", "e", "1");
        bob.expect_push("t", "e", "1");
    }
}
